use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde_json::json;

use crate::api::caller::Need;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::route::{Route, get};

/// The page fetches the document from where it came from, and nothing from anywhere else.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Vec<Route> {
    let open = Need::Nothing;
    vec![
        get("/healthz", open, healthz, ("getHealth", "The process lives.")).gives(200, "Status"),
        get("/readyz", open, readyz, ("getReadiness", "It can take events."))
            .gives(200, "Status")
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
    ]
}

async fn document() -> Response {
    let json = [(header::CONTENT_TYPE, "application/json")];
    (json, crate::api::openapi::document()).into_response()
}

/// The page needs nothing but this gateway.
async fn docs() -> Response {
    let html = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, DOCS_POLICY),
    ];
    (html, include_str!("docs.html")).into_response()
}

async fn healthz() -> Response {
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

async fn readyz(State(gateway): State<Gateway>) -> Response {
    match gateway.ready() {
        Ok(()) => json_response(StatusCode::OK, &json!({ "status": "ready" })),
        Err(problem) => problem.into_response(),
    }
}

async fn metrics(State(gateway): State<Gateway>) -> Response {
    let (mut fresh, mut retrying, mut dead, mut endpoints) = (0, 0, 0, 0);
    let (mut overdue, mut oldest) = (0, std::time::Duration::ZERO);
    for shard in gateway.store.shards() {
        // A store that cannot be read says so elsewhere.
        let late = shard.overdue().unwrap_or_default();
        overdue += late.count;
        oldest = oldest.max(late.oldest);
        let unfinished = shard.unfinished();
        fresh += unfinished.0;
        retrying += unfinished.1;
        dead += shard.dead();
        endpoints += shard.catalog().endpoints().count();
    }
    for (state, count) in [("ready", fresh), ("scheduled", retrying)] {
        metrics::gauge!("hookgate_deliveries_pending", "state" => state).set(count as f64);
    }
    metrics::gauge!("hookgate_deliveries_overdue").set(overdue as f64);
    metrics::gauge!("hookgate_deliveries_oldest_overdue_seconds").set(oldest.as_secs_f64());
    metrics::gauge!("hookgate_dead_letters").set(dead as f64);
    metrics::gauge!("hookgate_endpoints").set(endpoints as f64);
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, gateway.metrics.render()).into_response()
}
