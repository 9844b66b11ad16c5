//! What only the operator looks at.

use axum::{body::Body, extract::State, response::Response};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::body;
use crate::api::caller::Need;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, get, put};
use crate::storage::Noun;
use crate::telemetry;
use crate::world::egress::{EgressPolicy, Host, Proxy};

const LOG_LEVEL: &str = "/v1/system/log-level";
const LEVEL_CHARS_MAX: usize = 1000;

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/system/egress-policy",
            Need::Operator,
            egress_policy,
            ("getEgressPolicy", "Where deliveries may go."),
        )
        .gives(200, "EgressPolicy"),
        get(LOG_LEVEL, Need::Operator, read_log_level, ("getLogLevel", "How much is logged."))
            .gives(200, "LogLevel"),
        put(
            LOG_LEVEL,
            Need::Operator,
            write_log_level,
            ("putLogLevel", "Changes how much is logged, until the next start."),
        )
        .takes("LogLevel")
        .gives(200, "LogLevel"),
    ]
}

async fn egress_policy(State(gateway): State<Gateway>) -> Response {
    json_response(StatusCode::OK, &render(&gateway.transport.egress_policy()))
}

async fn read_log_level() -> Response {
    json_response(StatusCode::OK, &json!({ "level": telemetry::log_level() }))
}

async fn write_log_level(State(gateway): State<Gateway>, headers: HeaderMap, body: Body) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let level = fields.string("level");
    let level = fields.need("level", level).unwrap_or_default();
    if level.len() > LEVEL_CHARS_MAX {
        fields.refuse("level", format!("at most {LEVEL_CHARS_MAX} characters"));
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    let before = telemetry::log_level();
    telemetry::set_log_level(&level).map_err(|detail| {
        Problem::invalid_fields(vec![FieldError { pointer: "/level".to_owned(), detail }])
    })?;
    tracing::info!(level, "how much is logged was changed");
    let before = before.as_deref().unwrap_or_default();
    let (before, after) = (Noun::LogLevel(before), Noun::LogLevel(&level));
    let told = gateway.store.shards()[0].tell_done("log level", Some(before), Some(after));
    if let Err(error) = told.await {
        // It is changed for just such a time.
        tracing::warn!(%error, "the audit log cannot tell who changed how much is logged");
    }
    Ok(read_log_level().await)
}

fn render(it: &EgressPolicy) -> Value {
    let texts = |it: Vec<String>| Value::from(it);
    json!({
        "allow_private_endpoints": it.allow_private,
        "allow_http": it.allow_http,
        "allow_cidr": texts(it.allowed.iter().map(ToString::to_string).collect()),
        "deny_cidr": texts(it.denied.iter().map(ToString::to_string).collect()),
        "allow_ports": it.ports,
        "proxy": it.proxy.as_ref().map(render_proxy),
        "listener": it.listener.map(|it| it.to_string()),
        "own_addresses": texts(it.own.iter().map(ToString::to_string).collect()),
        "denied_networks": texts(EgressPolicy::denied_networks().map(|it| it.to_string()).collect()),
        "named_alone": texts(EgressPolicy::named_alone().map(|it| it.to_string()).collect()),
    })
}

/// Without what the proxy is told to let us through.
fn render_proxy(it: &Proxy) -> Value {
    let host = match &it.host {
        Host::Address(address) => address.to_string(),
        Host::Name(name) => name.clone(),
    };
    json!({ "host": host, "port": it.port, "trusted": it.trusted })
}
