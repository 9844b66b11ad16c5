use std::{process::ExitCode, time::Duration};

use clap::Subcommand;
use serde_json::json;

use crate::cli::client::{Client, Failure};
use crate::cli::{output, values};
use crate::domain::duration;

/// Sessions of a tenant's own people.
#[derive(Debug, Subcommand)]
pub(super) enum PortalSessions {
    /// Open one: a token that ends soon, shown this once
    Create {
        /// What it may do (repeatable)
        #[arg(long = "scope", required = true, value_name = "SCOPE",
              value_parser = ["manage", "produce", "read"])]
        scopes: Vec<String>,
        /// How long it opens, up to 24h [default: 1h]
        #[arg(long, value_parser = values::span, value_name = "DURATION")]
        ttl: Option<Duration>,
    },
}

pub(super) async fn run(client: &Client, command: PortalSessions) -> Result<ExitCode, Failure> {
    let PortalSessions::Create { scopes, ttl } = command;
    let body = json!({ "scopes": scopes, "ttl": ttl.map(duration) });
    let session = client.post(&client.path(&["portal-sessions"])?, &body).await?;
    output::one(client.json, &session);
    Ok(ExitCode::SUCCESS)
}
