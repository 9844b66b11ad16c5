//! Spans of what becomes of an event, for whoever collects traces. A span is made where its work
//! ends and knows its times: nothing runs inside of one, and without a collector nothing is done.

use std::{borrow::Cow, sync::OnceLock, time::Duration};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt, TraceState,
        Tracer,
    },
};
use opentelemetry_sdk::trace::{SdkTracer, Span as Inner};

use crate::domain::TraceContext;

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// From now on spans are made.
pub(super) fn begin(tracer: SdkTracer) {
    // The first of the process has it.
    let _ = TRACER.set(tracer);
}

/// Whether anybody collects spans.
pub fn tracing_is_on() -> bool {
    TRACER.get().is_some()
}

/// How a span stands to what led to it.
#[derive(Debug, Clone, Copy)]
pub enum Cause {
    /// It is part of the same work, if there is any.
    Parent(Option<TraceContext>),
    /// It begins a trace of its own, and names where it comes from.
    Link(Option<TraceContext>),
}

/// A span under way; dropped, it ends.
pub struct Span(Box<Inner>);

impl Span {
    /// Begins a span; `None` where nobody collects them.
    pub fn begin(name: impl Into<Cow<'static, str>>, kind: SpanKind, cause: Cause) -> Option<Self> {
        let tracer = TRACER.get()?;
        let builder = tracer.span_builder(name).with_kind(kind);
        Some(Self::start(tracer, builder, cause))
    }

    fn start(tracer: &SdkTracer, builder: SpanBuilder, cause: Cause) -> Self {
        let (parent, link) = match cause {
            Cause::Parent(it) => (it, None),
            Cause::Link(it) => (None, it),
        };
        let root = Context::new();
        let context = match parent {
            Some(it) => root.with_remote_span_context(remote(it)),
            None => root,
        };
        let links = link.map(|it| Link::with_context(remote(it))).into_iter().collect();
        Self(Box::new(tracer.build_with_context(builder.with_links(links), &context)))
    }

    /// What follows from it names this.
    pub fn context(&self) -> TraceContext {
        let it = self.0.span_context();
        TraceContext {
            trace: it.trace_id().to_bytes(),
            span: it.span_id().to_bytes(),
            flags: it.trace_flags().to_u8() & 1,
        }
    }

    /// Notes a fact.
    pub fn note(&mut self, name: &'static str, value: impl Into<opentelemetry::Value>) {
        self.0.set_attribute(KeyValue::new(name, value));
    }

    /// It came to nothing, for this reason.
    pub fn fail(&mut self, reason: String) {
        self.0.set_attribute(KeyValue::new("error.type", reason.clone()));
        self.0.set_status(Status::error(reason));
    }
}

/// A span of work that has just ended and took so long.
pub fn ended(
    name: impl Into<Cow<'static, str>>,
    parent: TraceContext,
    took: Duration,
    facts: Vec<(&'static str, opentelemetry::Value)>,
) {
    let Some(tracer) = TRACER.get() else { return };
    let start = opentelemetry::time::now() - took;
    let facts = facts.into_iter().map(|(name, value)| KeyValue::new(name, value));
    let builder = tracer.span_builder(name).with_start_time(start).with_attributes(facts);
    drop(Span::start(tracer, builder, Cause::Parent(Some(parent))));
}

fn remote(it: TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(it.trace),
        SpanId::from_bytes(it.span),
        TraceFlags::new(it.flags),
        true,
        TraceState::default(),
    )
}
