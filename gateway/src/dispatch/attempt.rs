use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, header};
use tokio::time::Instant;

use crate::dispatch::plugin_chain::{Chain, Chained};
use crate::dispatch::{Dispatcher, request};
use crate::domain::{
    Attempt, DeadReason, Endpoint, Judgement, OnError, Outcome, Timestamp, TypeId, Verdict, judge,
};
use crate::plugins::Fault;
use crate::storage::{Lease, Refused, Result};
use crate::world::{Response, SendResult};

const HEADERS_KEPT_MAX: usize = 16;
const HEADER_BYTES_KEPT_MAX: usize = 256;

/// What an attempt came to, before it is judged.
struct Finished {
    name: &'static str,
    status: Option<u16>,
    error: Option<String>,
    retry_after: Option<Duration>,
    headers: Vec<(String, String)>,
    body: Bytes,
    /// Set where there is nothing to judge.
    verdict: Option<Verdict>,
}

/// Makes one attempt and settles it. When it cannot be made yet, the delivery goes back to its
/// place, and its endpoint rests until the time that this tells.
pub(super) async fn make(
    work: &Dispatcher,
    lease: Lease,
    endpoint: &Arc<Endpoint>,
) -> Result<Option<Instant>> {
    let (started_at, started) = (work.clock.now(), Instant::now());
    let chain = Chain::resolve(work, endpoint, &lease.event);
    let (chained, plugins) = chain.run(work, (endpoint, &lease.event)).await;
    let finished = match chained {
        Chained::Deferred(wait) => {
            metrics::counter!("hookgate_deliveries_deferred_total").increment(1);
            return Ok(Some(Instant::now() + wait));
        }
        Chained::Send(rewritten) => {
            let at = (work.shard.number(), started_at);
            match request::build(endpoint, &lease.event, &rewritten, at) {
                Ok(request) => {
                    let request = request::marked(request, lease.trigger);
                    answered(work.transport.send(request).await, work.clock.now())
                }
                Err(error) => failed("internal", error),
            }
        }
        Chained::Dropped(reason) => Finished {
            verdict: Some(Verdict::Filtered(reason.clone())),
            ..failed("filtered", reason)
        },
        Chained::Failed(fault, on_error) => plugin_failed(fault, on_error),
    };
    let verdict = decide(work, &lease, endpoint, &finished);
    let duration = started.elapsed();
    count(work, &lease, &finished, &verdict, duration);
    let gone = verdict == Verdict::Dead(DeadReason::Gone);
    let attempt = Attempt {
        id: TypeId::new("att", started_at, work.shard.draw().1).to_string(),
        delivery: lease.key,
        number: lease.attempts + 1,
        trigger: lease.trigger,
        started_at,
        duration,
        outcome: Outcome {
            name: finished.name.to_owned(),
            status_code: finished.status,
            error: finished.error,
        },
        plugins,
        response_headers: finished.headers,
        response_body: finished.body,
        verdict,
    };
    work.shard.settle(lease, attempt).await?;
    if gone {
        disable(work, endpoint).await?;
    }
    Ok(None)
}

fn decide(work: &Dispatcher, lease: &Lease, endpoint: &Endpoint, it: &Finished) -> Verdict {
    if let Some(verdict) = &it.verdict {
        return verdict.clone();
    }
    let verdict = judge(&Judgement {
        retry: &endpoint.retry,
        attempts: lease.round + 1,
        status: it.status,
        retry_after: it.retry_after,
        now: work.clock.now(),
        chance: work.entropy.fraction(),
    });
    match verdict {
        // A test is made once; its answer is what was asked for.
        Verdict::RetryAt(_) if lease.event.only.is_some() => {
            Verdict::Dead(DeadReason::RetriesExhausted)
        }
        Verdict::Dead(DeadReason::RetriesExhausted) if it.name.starts_with("plugin_") => {
            Verdict::Dead(DeadReason::PluginError)
        }
        verdict => verdict,
    }
}

fn answered(sent: SendResult, now: Timestamp) -> Finished {
    let response = match sent.answer {
        Ok(response) => response,
        Err((class, error)) => return failed(class.name(), error),
    };
    let status = response.status.as_u16();
    let name = match status {
        200..=299 => "delivered",
        301..=303 | 307 | 308 => "redirect_refused",
        _ => "http_status",
    };
    Finished {
        name,
        status: Some(status),
        error: (name != "delivered").then(|| format!("the endpoint answered {}", response.status)),
        retry_after: retry_after(&response.headers, now),
        headers: kept_headers(&response),
        body: response.body,
        verdict: None,
    }
}

/// Seconds, or a date of [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-retry-after);
/// anything else is as if it were not there.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_millisecond();
    Some(Timestamp(u64::try_from(date).ok()?) - now)
}

fn kept_headers(response: &Response) -> Vec<(String, String)> {
    let kept = response.headers.iter().take(HEADERS_KEPT_MAX);
    let text = |value: &[u8]| {
        let cut = &value[..value.len().min(HEADER_BYTES_KEPT_MAX)];
        String::from_utf8_lossy(cut).into_owned()
    };
    kept.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect()
}

fn plugin_failed(fault: Fault, on_error: OnError) -> Finished {
    let dead = on_error == OnError::DeadLetter;
    Finished {
        verdict: dead.then_some(Verdict::Dead(DeadReason::PluginError)),
        ..failed(fault.kind.name(), fault.detail)
    }
}

fn failed(name: &'static str, error: String) -> Finished {
    Finished {
        name,
        status: None,
        error: Some(error),
        retry_after: None,
        headers: Vec::new(),
        body: Bytes::new(),
        verdict: None,
    }
}

fn count(
    work: &Dispatcher,
    lease: &Lease,
    finished: &Finished,
    verdict: &Verdict,
    duration: Duration,
) {
    let result = match finished.status {
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => finished.name,
    };
    let kind = if lease.attempts == 0 { "first" } else { "retry" };
    metrics::counter!("hookgate_delivery_attempts_total", "result" => result, "kind" => kind)
        .increment(1);
    metrics::histogram!("hookgate_delivery_attempt_duration_seconds")
        .record(duration.as_secs_f64());
    let outcome = match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Filtered(_) => "filtered",
        Verdict::Dead(_) => "dead",
        Verdict::RetryAt(_) => return,
    };
    metrics::counter!("hookgate_deliveries_total", "outcome" => outcome).increment(1);
    if *verdict == Verdict::Delivered {
        let since = work.clock.now() - lease.event.accepted_at;
        metrics::histogram!("hookgate_delivery_end_to_end_seconds").record(since.as_secs_f64());
    }
}

/// 410 Gone means it does not want to be asked again.
async fn disable(work: &Dispatcher, endpoint: &Endpoint) -> Result<()> {
    let change = |mut endpoint: Endpoint| {
        endpoint.enabled = false;
        endpoint.disabled_reason = Some("it answered 410 Gone".to_owned());
        Ok(endpoint)
    };
    tracing::warn!(endpoint = %endpoint.id, "the endpoint answered 410 Gone and is disabled");
    match work.shard.update_endpoint(&endpoint.tenant, &endpoint.id, change).await {
        Err(Refused::Storage(error)) => Err(error),
        // It is gone or cannot be written: nothing is sent to it either way.
        Ok(_) | Err(_) => Ok(()),
    }
}
