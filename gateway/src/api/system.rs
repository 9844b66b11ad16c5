//! What only the operator looks at.

use axum::{Router, extract::State, routing::get};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::Result;
use crate::world::egress::{EgressPolicy, Host, Proxy};

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/v1/system/egress-policy", get(egress_policy))
}

async fn egress_policy(State(gateway): State<Gateway>, headers: HeaderMap) -> Result {
    gateway.operator(&headers)?;
    Ok(json_response(StatusCode::OK, &render(&gateway.transport.egress_policy())))
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
