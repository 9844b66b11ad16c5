use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use crate::cli::client::{Client, Failure};
use crate::cli::output;
use crate::cli::resources::{DELIVERY_COLUMNS, Page, Range, list, show};
use crate::domain::DeliveryState;

/// Deliveries, and what can be asked of one.
#[derive(Debug, Subcommand)]
pub(super) enum Deliveries {
    /// The newest deliveries
    List {
        /// Only of this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// Only in this state
        #[arg(long, value_parser = DeliveryState::NAMES)]
        status: Option<String>,
        /// Only those whose last attempt was answered so: 503, 5xx
        #[arg(long)]
        code: Option<String>,
        #[command(flatten)]
        range: Range,
        #[command(flatten)]
        page: Page,
    },
    /// One delivery
    Get { id: String },
    /// Every attempt of a delivery
    Attempts { id: String },
    /// Attempt it now, whatever became of it
    Retry { id: String },
    /// Make no further attempt of one that waits
    Cancel { id: String },
}

pub(super) async fn deliveries(client: &Client, command: Deliveries) -> Result<ExitCode, Failure> {
    let at = |id: &str, rest: &str| client.path(&["deliveries", id, rest]);
    match command {
        Deliveries::List { endpoint, status, code, range, page } => {
            let query = range.query([("endpoint", endpoint), ("status", status), ("code", code)]);
            list(client, "deliveries", &page, &query, &DELIVERY_COLUMNS).await
        }
        Deliveries::Get { id } => show(client, &["deliveries", &id]).await,
        Deliveries::Attempts { id } => {
            let path = format!("{}?limit=250", at(&id, "attempts")?);
            let page = client.get(&path).await?;
            let columns = ["number", "started_at", "trigger", "outcome", "status_code", "error"];
            output::list(client.json, &page, &columns);
            Ok(ExitCode::SUCCESS)
        }
        Deliveries::Retry { id } => {
            output::one(client.json, &client.post(&at(&id, "retry")?, &json!({})).await?);
            Ok(ExitCode::SUCCESS)
        }
        Deliveries::Cancel { id } => {
            output::one(client.json, &client.post(&at(&id, "cancel")?, &json!({})).await?);
            Ok(ExitCode::SUCCESS)
        }
    }
}
