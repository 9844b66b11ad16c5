use std::{path::PathBuf, process::ExitCode};

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::output;
use crate::cli::resources::{Page, delete, list, show};
use crate::cli::sure::Sure;

/// The catalogue of event types.
#[derive(Debug, Subcommand)]
pub(super) enum EventTypes {
    /// All that are described
    List(Page),
    /// One of them with its schema
    Get {
        /// Its name: `order.created`
        name: String,
    },
    /// Describe one, or describe it anew
    Put {
        /// Its name: `order.created`
        name: String,
        /// For people
        #[arg(long)]
        description: Option<String>,
        /// A file with a JSON Schema for its data
        #[arg(long, value_name = "FILE")]
        schema: Option<PathBuf>,
        /// Refuse events that do not match, instead of warning
        #[arg(long, requires = "schema")]
        strict: bool,
    },
    /// Forget a description; events stay
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        sure: Sure,
    },
}

pub(super) async fn run(client: &Client, command: EventTypes) -> Result<ExitCode, Failure> {
    match command {
        EventTypes::List(page) => {
            list(client, "event-types", &page, &[], &["type", "strict", "description"]).await
        }
        EventTypes::Get { name } => show(client, &["event-types", &name]).await,
        EventTypes::Put { name, description, schema, strict } => {
            let mut body = json!({ "description": description.unwrap_or_default() });
            if let Some(path) = schema {
                body["schema"] = read(&path)?;
                body["strict"] = strict.into();
            }
            let path = client.path(&["event-types", &name])?;
            let request = client.request(Method::PUT, &path);
            output::one(client.json, &client.json(request.json(&body)).await?);
            Ok(ExitCode::SUCCESS)
        }
        EventTypes::Delete { name, sure } => {
            let path = client.path(&["event-types", &name])?;
            sure.of(client, "event type", &name)?;
            delete(client, &path).await
        }
    }
}

fn read(path: &std::path::Path) -> Result<Value, Failure> {
    let text = std::fs::read_to_string(path).map_err(|it| it.to_string());
    let value = text.and_then(|it| serde_json::from_str(&it).map_err(|it| it.to_string()));
    value.map_err(|it| Failure::usage(format!("{}: {it}", path.display())))
}
