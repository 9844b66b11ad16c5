//! What only the operator looks at.

use axum::{extract::State, response::Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::caller::Need;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::route::{Route, get};
use crate::world::egress::{EgressPolicy, Host, Proxy};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/system/egress-policy",
            Need::Operator,
            egress_policy,
            ("getEgressPolicy", "Where deliveries may go."),
        )
        .gives(200, "EgressPolicy"),
    ]
}

async fn egress_policy(State(gateway): State<Gateway>) -> Response {
    json_response(StatusCode::OK, &render(&gateway.transport.egress_policy()))
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
