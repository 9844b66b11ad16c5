use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::get,
};
use http::{StatusCode, header};
use serde_json::json;

use crate::api::gateway::Gateway;
use crate::api::page::json_response;

pub(super) fn routes() -> Router<Gateway> {
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
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
    for shard in gateway.store.shards() {
        let unfinished = shard.unfinished();
        fresh += unfinished.0;
        retrying += unfinished.1;
        dead += shard.dead();
        endpoints += shard.catalog().endpoints().count();
    }
    for (state, count) in [("ready", fresh), ("scheduled", retrying)] {
        metrics::gauge!("hookgate_deliveries_pending", "state" => state).set(count as f64);
    }
    metrics::gauge!("hookgate_dead_letters").set(dead as f64);
    metrics::gauge!("hookgate_endpoints").set(endpoints as f64);
    let text = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (text, gateway.metrics.render()).into_response()
}
