//! The trace that events come with, and the span of taking them in.

use http::HeaderMap;
use opentelemetry::trace::SpanKind;

use crate::api::caller::Access;
use crate::domain::TraceContext;
use crate::storage::{Appended, NewEvent};
use crate::telemetry::{Cause, Span};

const TRACEPARENT: &str = "traceparent";
/// Where CloudEvents' extension for it is kept. The header is the nearer hop, and goes first.
const EXTENSION: &str = "ce-traceparent";

/// What the request belongs to. Anything malformed is as if it were not there.
pub(super) fn of(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(TRACEPARENT).and_then(|it| TraceContext::parse(it.to_str().ok()?))
}

/// Events on their way into the store.
pub(super) struct Taking(Option<Span>);

impl Taking {
    /// Begins it, and gives each event the trace that it will be known by.
    pub(super) fn begin(request: Option<TraceContext>, events: &mut [NewEvent]) -> Self {
        let own = |it: &NewEvent| it.metadata.get(EXTENSION).and_then(|it| TraceContext::parse(it));
        let cause = request.or_else(|| events.first().and_then(own));
        let span = Span::begin("accept events", SpanKind::Server, Cause::Parent(cause));
        let accepting = span.as_ref().map(Span::context);
        for event in events {
            event.trace = accepting.or(request).or_else(|| own(event));
        }
        Self(span)
    }

    /// They are durable.
    pub(super) fn end(self, access: &Access, appended: &[Appended]) {
        let Some(mut span) = self.0 else { return };
        let new = |it: &&Appended| matches!(it, Appended::New { .. });
        let stored = appended.iter().filter(new).count();
        let status = match appended.iter().any(|it| matches!(it, Appended::Conflict)) {
            true => 409,
            false if stored == 0 && !appended.is_empty() => 200,
            false => 202,
        };
        span.note("http.response.status_code", status);
        span.note("http.request.method", "POST");
        span.note("http.route", "/v1/tenants/{tenant}/events");
        span.note("hookgate.tenant", access.slug.as_str().to_owned());
        span.note("hookgate.events", stored as i64);
        if let [Appended::New { id, .. }] = appended {
            span.note("hookgate.event_id", id.as_str().to_owned());
        }
    }
}
