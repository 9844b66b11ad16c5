use std::time::Duration;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde_json::json;
use tokio::runtime::Handle;

use crate::api::caller::Need;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::route::{Route, get};
use crate::storage::{EndpointCounts, Overdue};
use crate::telemetry::{
    BREAKERS_OPEN, DEAD_LETTERS, ENDPOINTS, OVERDUE, OVERDUE_OLDEST, PENDING, READY, RUNTIME_ALIVE,
    RUNTIME_BUSY, RUNTIME_QUEUE, RUNTIME_WORKERS,
};

/// From then on a delivery that could be attempted and is not is told of: something is wedged, or
/// there is too much to do.
const LATE: Duration = Duration::from_secs(30);

/// The page fetches the document from where it came from, and nothing from anywhere else.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Vec<Route> {
    let open = Need::Nothing;
    vec![
        get("/healthz", open, healthz, ("getHealth", "The process lives.")).gives(200, "Status"),
        get("/readyz", open, readyz, ("getReadiness", "It can take events."))
            .gives(200, "Readiness")
            .refuses(503, "unavailable"),
        get("/metrics", open, metrics, ("getMetrics", "Metrics for Prometheus.")).gives_as(
            200,
            "text/plain; version=0.0.4; charset=utf-8",
            "Text",
        ),
        get("/openapi.json", open, document, ("getDocument", "This document."))
            .gives(200, "Document"),
        get("/docs", open, docs, ("getDocs", "This document as a page to read.")).gives_as(
            200,
            "text/html; charset=utf-8",
            "Text",
        ),
        get("/docs/runbook", open, runbook, ("getRunbook", "What to do when an alert fires."))
            .gives_as(200, "text/html; charset=utf-8", "Text"),
    ]
}

async fn document() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, crate::api::openapi::document()).into_response()
}

/// The page needs nothing but this gateway.
async fn docs() -> Response {
    page(include_str!("docs.html"))
}

fn page(text: &'static str) -> Response {
    let html = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, DOCS_POLICY),
    ];
    (html, text).into_response()
}

async fn runbook() -> Response {
    page(include_str!("runbook.html"))
}

async fn healthz() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn readyz(State(gateway): State<Gateway>) -> Response {
    if let Err(problem) = gateway.ready() {
        return problem.into_response();
    }
    let late = gateway.overdue();
    let mut warnings = Vec::new();
    if late.oldest >= LATE {
        let seconds = late.oldest.as_secs();
        let (count, what) = (late.count, "deliveries could be attempted and are not");
        warnings.push(format!("{count} {what}, the first for {seconds} s"));
    }
    let held: u64 =
        gateway.store.shards().iter().map(|it| it.catalog().endpoint_counts().held).sum();
    if held > 0 {
        warnings.push(format!("{held} endpoints are held: their secrets cannot be opened"));
    }
    if gateway.store.doubts_clock() {
        let what = "the machine's clock is far ahead of when the store was last in use; for an \
                    hour nothing expires and no event is trimmed";
        warnings.push(what.to_owned());
    }
    json_response(StatusCode::OK, &json!({ "status": "ready", "warnings": warnings }))
}

async fn metrics(State(gateway): State<Gateway>) -> Response {
    gateway.show();
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, gateway.metrics.render()).into_response()
}

impl Gateway {
    /// Shows what is known at any time and changes too often to be shown with each change. Little
    /// is counted for this: it costs the same whatever is stored.
    fn show(&self) {
        let (mut fresh, mut retrying, mut dead, mut open) = (0, 0, 0, 0);
        let mut endpoints = EndpointCounts::default();
        for shard in self.store.shards() {
            let unfinished = shard.unfinished();
            fresh += unfinished.0;
            retrying += unfinished.1;
            dead += shard.dead();
            open += shard.breakers_open();
            let counts = shard.catalog().endpoint_counts();
            endpoints.enabled += counts.enabled;
            endpoints.disabled += counts.disabled;
            endpoints.held += counts.held;
        }
        let late = self.overdue();
        PENDING.show(fresh as f64, &["ready"]);
        PENDING.show(retrying as f64, &["scheduled"]);
        OVERDUE.show(late.count as f64, &[]);
        OVERDUE_OLDEST.show(late.oldest.as_secs_f64(), &[]);
        DEAD_LETTERS.show(dead as f64, &[]);
        BREAKERS_OPEN.show(open as f64, &[]);
        ENDPOINTS.show(endpoints.enabled as f64, &["enabled"]);
        ENDPOINTS.show(endpoints.disabled as f64, &["disabled"]);
        ENDPOINTS.show(endpoints.held as f64, &["held"]);
        READY.show(f64::from(u8::from(self.ready().is_ok())), &[]);
        self.store.show_usage();
        for (name, runtime) in &self.runtimes {
            show_runtime(name, runtime);
        }
    }

    /// What could be attempted now and is not, of all shards.
    fn overdue(&self) -> Overdue {
        let mut sum = Overdue::default();
        for shard in self.store.shards() {
            // A store that cannot be read says so elsewhere.
            let late = shard.overdue().unwrap_or_default();
            sum.count += late.count;
            sum.oldest = sum.oldest.max(late.oldest);
        }
        sum
    }
}

fn show_runtime(name: &'static str, runtime: &Handle) {
    let now = runtime.metrics();
    let busy = (0..now.num_workers()).map(|it| now.worker_total_busy_duration(it).as_secs()).sum();
    RUNTIME_WORKERS.show(now.num_workers() as f64, &[name]);
    RUNTIME_ALIVE.show(now.num_alive_tasks() as f64, &[name]);
    RUNTIME_QUEUE.show(now.global_queue_depth() as f64, &[name]);
    RUNTIME_BUSY.counting(&[name]).absolute(busy);
}
