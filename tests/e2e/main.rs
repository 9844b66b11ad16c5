//! The real binary over real sockets on a real store.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod api;
mod archive;
mod asked;
mod command_line;
mod commands;
mod servers;
mod bounds;
mod contract;
mod crash;
mod delivery;
mod document;
mod door;
mod doors;
mod egress;
mod held;
mod hostile;
mod loops;
mod packed;
mod secrets;
mod tls;
mod tracing;
mod hooks;
mod http;
mod ingest;
mod measure;
mod metrics;
mod plugins;
mod process;
mod replays;
mod retention;
mod scheduling;
mod stream;
mod supervisor;
mod upgrade;

use std::time::Duration;

use hookgate_tests::{Gateway, TestEndpoint};
use serde_json::{Value, json};

/// A gateway on a new data directory, and an endpoint to deliver to.
async fn bench() -> (tempfile::TempDir, Gateway, TestEndpoint) {
    let folder = tempfile::tempdir().expect("a folder");
    let gateway = Gateway::start(&folder.path().join("data"));
    (folder, gateway, TestEndpoint::start().await)
}

/// Registers the endpoint with further fields; its id.
async fn register(gateway: &Gateway, endpoint: &TestEndpoint, with: Value) -> String {
    let mut body = json!({ "url": endpoint.url });
    for (name, value) in with.as_object().expect("an object") {
        body[name] = value.clone();
    }
    let made = gateway.post("endpoints", body).await;
    made["id"].as_str().expect("an id").to_owned()
}

/// Publishes an event; its id.
async fn publish(gateway: &Gateway, event_type: &str, data: Value) -> String {
    let accepted = gateway.post("events", json!({ "type": event_type, "data": data })).await;
    assert_eq!(accepted["status"], "accepted");
    accepted["id"].as_str().expect("an id").to_owned()
}

/// Publishes an event to a tenant; its id.
async fn publish_to(gateway: &Gateway, tenant: &str, event: Value) -> String {
    let accepted = gateway.post(&format!("/v1/tenants/{tenant}/events"), event).await;
    accepted["id"].as_str().expect("an id").to_owned()
}

/// Waits until `look` gives something that `fits`.
async fn until(gateway: &Gateway, path: &str, fits: impl Fn(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    for _ in 0..400 {
        last = gateway.get(path).await;
        if fits(&last) {
            return last;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("{path}: {last}");
}
