use std::process::ExitCode;

use serde_json::json;

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
    output::list(false, &json!({ "data": told["endpoints"] }), &columns);
    Ok(ExitCode::SUCCESS)
}
