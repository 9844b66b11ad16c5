use std::{collections::BTreeSet, process::ExitCode};

use serde_json::{Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::output;

/// Tells of each endpoint why it did or did not get an event.
pub(super) async fn run(client: &Client, event: &str) -> Result<ExitCode, Failure> {
    let told = client.get(&client.path(&["events", event, "explain"])?).await?;
    if client.json {
        output::one(true, &told);
        return Ok(ExitCode::SUCCESS);
    }
    let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
    output::note(&format!(
        "{} ({}), accepted at {}",
        text("event_id"),
        text("event_type"),
        text("accepted_at")
    ));
    let columns =
        ["endpoint_id", "status", "attempts", "next_attempt_at", "code", "why", "last_error"];
    let endpoints = with_deliveries_first(&told["endpoints"]);
    output::list(false, &json!({ "data": endpoints }), &columns);
    for remedy in remedies(&endpoints) {
        output::note(&remedy);
    }
    if endpoints.is_empty() {
        output::note("the tenant has no endpoint: `hookgate endpoints create URL` makes one");
    }
    Ok(ExitCode::SUCCESS)
}

/// The endpoints that got a delivery, before those that never wanted one, which may be many.
fn with_deliveries_first(endpoints: &Value) -> Vec<Value> {
    let mut endpoints = endpoints.as_array().cloned().unwrap_or_default();
    endpoints.sort_by_key(|it| it["status"] == "not_sent");
    endpoints
}

/// What to do about each reason that is there, once.
fn remedies(endpoints: &[Value]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let told = endpoints.iter().filter_map(|it| {
        let (code, remedy) = (it["code"].as_str()?, it["remedy"].as_str()?);
        seen.insert(code).then(|| format!("{code} → {remedy}"))
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_comes_before_what_was_never_wanted() {
        let endpoint = |id: &str, status: &str, code: &str, remedy: Value| json!({ "endpoint_id": id, "status": status, "code": code, "remedy": remedy });
        let told = json!([
            endpoint("a", "not_sent", "type_mismatch", "add it".into()),
            endpoint("b", "dead", "gone", "enable it".into()),
            endpoint("c", "dead", "gone", "enable it".into()),
            endpoint("d", "delivered", "delivered", Value::Null),
        ]);
        let sorted = with_deliveries_first(&told);
        let ids: Vec<_> = sorted.iter().map(|it| it["endpoint_id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["b", "c", "d", "a"]);
        assert_eq!(remedies(&sorted), ["gone → enable it", "type_mismatch → add it"]);
    }
}
