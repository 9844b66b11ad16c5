//! An attempt as part of a trace: its span, and what its endpoint is told of it.

use opentelemetry::trace::SpanKind;

use crate::dispatch::Dispatcher;
use crate::dispatch::deaths::log_death;
use crate::domain::{
    Attempt, Endpoint, Timestamp, TraceContext, TracePolicy, Trigger, Verdict, delivery_id,
};
use crate::storage::Lease;
use crate::telemetry::{Cause, Span, ended};

/// An attempt within this time still belongs to what the producer does.
const SAME_WORK_MS: u64 = 60_000;

/// The attempt's span, if somebody collects them.
pub(super) struct Traced {
    span: Option<Span>,
}

impl Traced {
    /// Begins it. What an endpoint must not be told it is not told by its trace either: it gets
    /// the producer's only if it is to have it.
    pub(super) fn begin(lease: &Lease, endpoint: &Endpoint, now: Timestamp) -> Self {
        let origin = lease.event.trace;
        let first = lease.attempts == 0 && lease.trigger == Trigger::Schedule;
        let prompt = first && now.0.saturating_sub(lease.event.accepted_at.0) < SAME_WORK_MS;
        let cause = match endpoint.trace {
            TracePolicy::Propagate => Cause::Parent(origin),
            TracePolicy::Off if prompt => Cause::Parent(origin),
            TracePolicy::New | TracePolicy::Off => Cause::Link(origin),
        };
        Self { span: Span::begin("POST", SpanKind::Client, cause) }
    }

    /// What the endpoint is told. Without a span of our own, and where the producer traces, a
    /// new trace is a number that nobody has recorded: it still tells deliveries apart.
    pub(super) fn told(
        &self,
        work: &Dispatcher,
        endpoint: &Endpoint,
        origin: Option<TraceContext>,
    ) -> Option<TraceContext> {
        let own = self.span.as_ref().map(Span::context);
        match endpoint.trace {
            TracePolicy::Off => None,
            TracePolicy::Propagate => own.or(origin),
            TracePolicy::New => own.or_else(|| {
                origin?;
                let trace =
                    (u128::from(work.entropy.draw()) << 64) | u128::from(work.entropy.draw());
                let (trace, span) = (trace.max(1), work.entropy.draw().max(1));
                let (trace, span) = (trace.to_be_bytes(), span.to_be_bytes());
                Some(TraceContext { trace, span, flags: 0 })
            }),
        }
    }

    /// It ended: writes it down, in the trace and in the log.
    pub(super) fn end(self, lease: &Lease, endpoint: &Endpoint, it: &Attempt) {
        if let Some(mut span) = self.span {
            facts(&mut span, (lease, endpoint), it);
            for run in &it.plugins {
                let facts = vec![
                    ("hookgate.plugin", run.plugin.to_string().into()),
                    ("hookgate.plugin.version", i64::from(run.version).into()),
                    ("hookgate.plugin.outcome", run.outcome.clone().into()),
                ];
                ended("plugin", span.context(), run.duration, facts);
            }
        }
        tracing::debug!(
            tenant = endpoint.tenant.as_str(),
            event_id = lease.event.id.as_str(),
            delivery_id = delivery_id(lease.key, lease.event.accepted_at),
            endpoint_id = endpoint.id.as_str(),
            attempt = it.number,
            attempt_id = it.id,
            outcome = &*it.outcome.name,
            status_code = it.outcome.status_code,
            duration_ms = it.duration.as_millis() as u64,
            trace_id = lease.event.trace.map(|it| it.trace_id()),
            "an attempt ended"
        );
        if let Verdict::Dead(reason) = it.verdict {
            log_death(lease, endpoint, reason, Some(it));
        }
    }
}

fn facts(span: &mut Span, (lease, endpoint): (&Lease, &Endpoint), it: &Attempt) {
    span.note("http.request.method", "POST");
    if let Ok(url) = url::Url::parse(&endpoint.url) {
        span.note("server.address", url.host_str().unwrap_or_default().to_owned());
        span.note("server.port", i64::from(url.port_or_known_default().unwrap_or_default()));
        span.note("url.scheme", url.scheme().to_owned());
    }
    span.note("hookgate.tenant", endpoint.tenant.as_str().to_owned());
    span.note("hookgate.endpoint_id", endpoint.id.as_str().to_owned());
    span.note("hookgate.event_id", lease.event.id.as_str().to_owned());
    span.note("hookgate.event_type", lease.event.event_type.as_str().to_owned());
    span.note("hookgate.delivery_id", delivery_id(lease.key, lease.event.accepted_at));
    span.note("hookgate.attempt", i64::from(it.number));
    span.note("hookgate.outcome", it.outcome.name.to_string());
    if let Some(status) = it.outcome.status_code {
        span.note("http.response.status_code", i64::from(status));
    }
    match &it.verdict {
        Verdict::Delivered | Verdict::Filtered(_) => {}
        // What failed, by OpenTelemetry's convention; what becomes of the delivery stands beside.
        verdict => {
            let status = it.outcome.status_code.map(|it| it.to_string());
            span.fail(status.unwrap_or_else(|| it.outcome.name.to_string()));
            span.note(
                "hookgate.verdict",
                match verdict {
                    Verdict::Dead(reason) => reason.name(),
                    _ => "retried",
                },
            );
        }
    }
}
