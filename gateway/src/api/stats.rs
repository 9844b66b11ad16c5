use std::time::Duration;

use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::{Query, json_response};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, get};
use crate::api::wire;
use crate::domain::{Breaker, Health, Scope, Timestamp};

const WINDOW: Duration = Duration::from_secs(600);
const WINDOW_MIN: Duration = Duration::from_secs(60);
const WINDOW_MAX: Duration = Duration::from_secs(3600);

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/tenants/{tenant}/endpoints/{id}/stats",
            Need::Scope(Scope::Read),
            read,
            ("getEndpointStats", "What came of an endpoint's attempts lately, and how it does."),
        )
        .query(&["window"])
        .gives(200, "EndpointStats")
        .refuses(404, "endpoint_not_found"),
    ]
}

async fn read(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
    query: Query,
) -> Result {
    let endpoint = access.endpoint(&id)?;
    let window = query.get("window").map_or(Some(WINDOW), wire::parse_duration);
    let window = window.filter(|it| (WINDOW_MIN..=WINDOW_MAX).contains(it)).ok_or_else(|| {
        let detail = "`window` must be a duration from 1m to 1h, such as 10m";
        Problem::bad_request("invalid_parameter", detail)
    })?;
    let (shard, now) = (&access.shard, gateway.clock.now());
    let figures = shard.figures(endpoint.no, window);
    let (backlog, health) = (shard.backlog(endpoint.no)?, shard.health(endpoint.no));
    let ended = figures.delivered + figures.failed;
    let rate = (ended > 0).then(|| figures.delivered as f64 / ended as f64);
    let latency = figures.latency.map(|it| it.map(wire::duration_exact));
    let [p50, p95, p99] = latency.map_or([None, None, None], |it| it.map(Some));
    let body = json!({
        "endpoint_id": endpoint.id.as_str(),
        "window": wire::duration(window),
        "since": figures.since.to_string(),
        "delivered": figures.delivered,
        "failed": figures.failed,
        "retried": figures.retried,
        "dead": figures.dead,
        "filtered": figures.filtered,
        "success_rate": rate,
        "latency": { "p50": p50, "p95": p95, "p99": p99 },
        "backlog": backlog.first + backlog.again,
        "oldest_pending_age": backlog.oldest.map(wire::duration),
        "breaker": breaker(&health, now).name(),
        "health": health_json(&health, now),
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// Where the breaker stands: once its probe may go, it is half open.
pub(super) fn breaker(health: &Health, now: Timestamp) -> Breaker {
    match health.breaker {
        Breaker::Open if health.probe_at.is_some_and(|it| it <= now) => Breaker::HalfOpen,
        breaker => breaker,
    }
}

/// How an endpoint does that is not well; null if it is.
fn health_json(health: &Health, now: Timestamp) -> Value {
    let still = |it: Option<Timestamp>| it.filter(|it| *it > now);
    let (paused_until, slowed_until) = (still(health.paused_until), still(health.slowed_until));
    let health = Health { paused_until, slowed_until, ..*health };
    if health == Health::default() {
        return Value::Null;
    }
    let text = |it: Option<Timestamp>| it.map(|it| it.to_string());
    json!({
        "failures": health.failures,
        "failing_since": text(health.failing_since),
        "next_probe_at": text(health.probe_at),
        "paused_until": text(paused_until),
        "slowed_until": text(slowed_until),
    })
}
