use std::{pin::pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::dispatch::bulletins::Death;
use crate::dispatch::dispatcher::Ended;
use crate::dispatch::evidence::Finished;
use crate::dispatch::floor::disable;
use crate::dispatch::lane::Told;
use crate::dispatch::plugin_chain::{Chain, Chained, PARTS_MAX};
use crate::dispatch::sending::Sending;
use crate::dispatch::traced::Traced;
use crate::domain::{
    Attempt, DeadReason, Endpoint, Judgement, Outcome, PluginRun, Spent, Timestamp, Trigger,
    TypeId, Verdict, judge,
};
use crate::storage::{Lease, Result};
use crate::telemetry::{ATTEMPT_DURATION, ATTEMPTS, DEFERRED, DELIVERIES, DIED, END_TO_END};
use crate::world::{Alarm, Timings};

/// Attempts that a fault of ours may cost a delivery.
const INTERNAL_MAX: u32 = 5;
/// What a request may take beside its timeout: the end of the answer's body, and plugins that sign
/// it and read the answer, which wait for their turn.
const AROUND_A_REQUEST: Duration = Duration::from_secs(120);
/// What plugins may take to filter and rewrite an event, compiling them included.
const AROUND_PLUGINS: Duration = Duration::from_secs(1800);
/// The longest that an endpoint as a whole is left alone because it asked for it; a delivery may
/// wait longer.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// Makes one attempt and settles it. When it cannot be made yet, the delivery goes back to its
/// place, and `ended` tells until when its endpoint rests.
pub(super) async fn make(
    work: &Dispatcher,
    (lease, endpoint): (Lease, &Arc<Endpoint>),
    ended: &mut Ended,
    alarm: &mut Alarm,
) -> Result<()> {
    let (started_at, started) = (work.clock.now(), Instant::now());
    let (settled, gone) = {
        let mut spent = Spent { queue: started_at - lease.due, ..Spent::default() };
        let traced = Traced::begin(&lease, endpoint, started_at);
        let chain = Chain::resolve(work, endpoint, &lease);
        let made = {
            let made = pin!(try_to_deliver((work, &lease, endpoint), &chain, &traced));
            alarm.by(started + longest(endpoint), made).await
        };
        let (plugins_took, finished) = made.unwrap_or_else(|| (None, Ok(never_ended(&lease))));
        spent.plugin = plugins_took;
        let finished = match finished {
            Ok(finished) => finished,
            Err(wait) => {
                DEFERRED.count(1, &[]);
                ended.deferred = Some(Instant::now() + wait);
                return Ok(());
            }
        };
        let run = Run { plugins: chain.into_runs(), spent, started_at, started, traced };
        conclude(work, (lease, endpoint), (finished, run), ended)
    };
    if gone {
        // First, so that its next delivery is not tried as well.
        Box::pin(disable(work, endpoint, "it answered 410 Gone".to_owned())).await;
    }
    crate::world::reach("after_2xx_before_settle");
    settled.await
}

/// How an attempt went.
struct Run {
    plugins: Vec<PluginRun>,
    spent: Spent,
    started_at: Timestamp,
    started: Instant,
    traced: Traced,
}

/// Judges an attempt and makes its record: what writes it down, and whether the endpoint said that
/// it is gone.
///
/// Not `async`, so that what it has of the attempt is not kept while that is written.
fn conclude<'a>(
    work: &'a Dispatcher,
    (mut lease, endpoint): (Lease, &Arc<Endpoint>),
    (finished, run): (Finished, Run),
    ended: &mut Ended,
) -> (impl Future<Output = Result<()>> + use<'a>, bool) {
    let (ended_at, duration) = (work.clock.now(), run.started.elapsed());
    let verdict = close(work, &mut lease, endpoint, (&finished, ended_at));
    count(work, (&lease, endpoint), (&finished, &verdict), (ended_at, duration));
    learn(ended, &lease, endpoint, (&finished, &verdict), duration);
    let gone = verdict == Verdict::Dead(DeadReason::Gone);
    let attempt = Attempt {
        id: TypeId::new("att", run.started_at, work.shard.draw().1).to_string(),
        delivery: lease.key,
        number: lease.attempts + 1,
        trigger: lease.trigger,
        started_at: run.started_at,
        duration,
        spent: with_timings(run.spent, finished.timings),
        outcome: Outcome {
            name: finished.name.into(),
            status_code: finished.status,
            error: finished.error,
        },
        plugins: run.plugins,
        parts: finished.parts,
        request_headers: finished.request_headers,
        response_headers: finished.headers,
        response_body: finished.body,
        response_truncated: finished.truncated,
        verdict,
    };
    run.traced.end(&lease, endpoint, &attempt);
    (work.shard.settle(lease, attempt), gone)
}

/// Runs the endpoint's plugins and sends what they made of the event: what came of it, or for how
/// long it cannot be made yet. And how long the plugins took, where there are some.
async fn try_to_deliver(
    (work, lease, endpoint): (&Dispatcher, &Lease, &Arc<Endpoint>),
    chain: &Chain<'_>,
    traced: &Traced,
) -> (Option<Duration>, Result<Finished, Duration>) {
    let started = (!endpoint.plugins.is_empty()).then(Instant::now);
    let chained = chain.run(work, (endpoint, &lease.event)).await;
    let took = started.map(|it| it.elapsed());
    let finished = match chained {
        Chained::Deferred(wait) => return (took, Err(wait)),
        Chained::Send(made) => {
            let trace = traced.told(work, endpoint, lease.event.trace);
            let signed_at = work.clock.wall();
            Sending { work, lease, endpoint, chain, signed_at, trace }.send(&made).await
        }
        Chained::Dropped(reason) => Finished {
            verdict: Some(Verdict::Filtered(reason.clone())),
            ..Finished::failed("filtered", reason)
        },
        Chained::Failed(fault, on_error) => Finished::plugin_failed(fault, on_error),
    };
    (took, Ok(finished))
}

/// An attempt that is out for longer than this never ends, by a fault of ours: whatever it waits
/// for has a shorter time of its own.
fn longest(endpoint: &Endpoint) -> Duration {
    let request = endpoint.timeout + AROUND_A_REQUEST;
    match endpoint.plugins.is_empty() {
        true => request,
        false => request * PARTS_MAX as u32 + AROUND_PLUGINS,
    }
}

fn never_ended(lease: &Lease) -> Finished {
    let (endpoint, seq) = (lease.key.endpoint.0, lease.key.seq.0);
    tracing::error!(endpoint, seq, "an attempt did not end and was given up");
    let error = "the attempt did not end by itself: a fault of the gateway's own".to_owned();
    Finished::failed("internal", error)
}

fn with_timings(spent: Spent, it: Timings) -> Spent {
    let Timings { resolve, connect, tls, first_byte, .. } = it;
    Spent { resolve, connect, tls, first_byte, ..spent }
}

/// Decides what follows; another attempt at once, where somebody asked for it meanwhile.
fn close(
    work: &Dispatcher,
    lease: &mut Lease,
    endpoint: &Endpoint,
    (it, now): (&Finished, Timestamp),
) -> Verdict {
    match decide(work, lease, endpoint, (it, now)) {
        Verdict::RetryAt(_) | Verdict::Dead(DeadReason::RetriesExhausted)
            if lease.event.only.is_none() && work.shard.is_wanted_again(lease) =>
        {
            Verdict::RetryAt(now)
        }
        verdict => verdict,
    }
}

fn decide(
    work: &Dispatcher,
    lease: &Lease,
    endpoint: &Endpoint,
    (it, now): (&Finished, Timestamp),
) -> Verdict {
    if let Some(verdict) = &it.verdict {
        return verdict.clone();
    }
    if it.name == "internal" && lease.round + 1 >= INTERNAL_MAX {
        return Verdict::Dead(DeadReason::InternalError);
    }
    let verdict = judge(&Judgement {
        retry: &endpoint.retry,
        attempts: lease.round + 1,
        status: it.status.filter(|_| !it.refused),
        retry_after: it.retry_after,
        now,
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

/// What the attempt tells of its endpoint, and of its tenant.
fn learn(
    ended: &mut Ended,
    lease: &Lease,
    endpoint: &Arc<Endpoint>,
    (finished, verdict): (&Finished, &Verdict),
    duration: Duration,
) {
    ended.latency = duration;
    let test = lease.event.only.is_some();
    ended.told = match finished.name {
        "delivered" => Told::Took,
        // A test may be made just because it is known to fail.
        _ if test || !finished.blames_endpoint() => Told::Nothing,
        _ => {
            let slower = finished.asks_for_less();
            let pause = finished.retry_after.filter(|_| slower).map(|it| it.min(PAUSE_MAX));
            Told::Failed { slower, pause: pause.filter(|it| !it.is_zero()) }
        }
    };
    if let Verdict::Dead(reason) = verdict
        && !test
    {
        ended.death = Death::of(lease, endpoint, *reason);
    }
}

fn count(
    work: &Dispatcher,
    (lease, endpoint): (&Lease, &Endpoint),
    (finished, verdict): (&Finished, &Verdict),
    (ended_at, duration): (Timestamp, Duration),
) {
    let result = match finished.status {
        // A plugin read in the answer that it was not taken.
        _ if finished.name == "response_refused" => "refused",
        Some(200..=299) => "2xx",
        Some(300..=399) => "3xx",
        Some(400..=499) => "4xx",
        Some(_) => "5xx",
        None => finished.name,
    };
    let kind = match lease.trigger {
        Trigger::Schedule if lease.attempts == 0 => "first",
        Trigger::Schedule => "retry",
        other => other.name(),
    };
    let (tenant, id) = (endpoint.tenant.as_str(), Some(endpoint.id.as_str()));
    ATTEMPTS.count_for(&[result, kind], tenant, id);
    ATTEMPT_DURATION.observe(duration.as_secs_f64(), &[]);
    let outcome = match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Filtered(_) => "filtered",
        Verdict::Dead(reason) => {
            DIED.count(1, &[reason.name()]);
            "dead"
        }
        Verdict::RetryAt(_) if work.shard.catalog().endpoint(endpoint.no).is_some() => return,
        // Its endpoint was deleted meanwhile: no further attempt is made.
        Verdict::RetryAt(_) => "cancelled",
    };
    DELIVERIES.count_for(&[outcome], tenant, id);
    // From the first acceptance on, what is sent again would take days.
    if *verdict == Verdict::Delivered && !lease.is_asked_again() {
        let since = ended_at - lease.event.accepted_at;
        END_TO_END.observe(since.as_secs_f64(), &[]);
    }
}
