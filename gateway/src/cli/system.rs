use std::process::ExitCode;

use reqwest::Method;
use serde_json::json;

use crate::cli::client::{Client, Failure};
use crate::cli::output;

const LOG_LEVEL: &str = "/v1/system/log-level";

/// Shows what the gateway says of itself. One that takes no events is as one that is not there.
pub(super) async fn ready(client: &Client) -> Result<ExitCode, Failure> {
    output::one(client.json, &client.get("/readyz").await?);
    Ok(ExitCode::SUCCESS)
}

/// Shows how much is logged, or changes it.
pub(super) async fn log_level(client: &Client, level: Option<String>) -> Result<ExitCode, Failure> {
    let answer = match level {
        Some(level) => {
            let request = client.request(Method::PUT, LOG_LEVEL);
            client.json(request.json(&json!({ "level": level }))).await?
        }
        None => client.get(LOG_LEVEL).await?,
    };
    output::one(client.json, &answer);
    Ok(ExitCode::SUCCESS)
}
