use std::{process::ExitCode, time::Duration};

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::resources::{Page, list, show};
use crate::cli::{output, values};

const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Events of the past, once more.
#[derive(Debug, Subcommand)]
pub(super) enum Replays {
    /// The newest replays
    List(Page),
    /// How far one is
    Get {
        /// Its id
        id: String,
    },
    /// Send an endpoint events of the past, and show how far it is
    Create(Create),
    /// Stop one; what it has given out is delivered
    Cancel {
        /// Its id
        id: String,
    },
}

/// What to send where.
#[derive(Debug, Args)]
pub(super) struct Create {
    /// The endpoint's id
    endpoint: String,
    /// From this time on: 2026-01-31T12:00:00Z, or 6h ago: 6h
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    since: String,
    /// Before this time [default: now]
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    until: Option<String>,
    /// Only these event types: `order.*` (repeatable)
    #[arg(long = "type", value_name = "PATTERN")]
    event_types: Vec<String>,
    /// Only what the endpoint has not received
    #[arg(long)]
    undelivered: bool,
    /// Tell how many events that would be, and send none
    #[arg(long)]
    dry_run: bool,
    /// Do not wait for its end
    #[arg(long)]
    detach: bool,
}

pub(super) async fn run(client: &Client, command: Replays) -> Result<ExitCode, Failure> {
    match command {
        Replays::List(page) => {
            let columns = ["id", "endpoint", "status", "progress", "replayed", "created_at"];
            list(client, "replays", &page, &[], &columns).await
        }
        Replays::Get { id } => show(client, &["replays", &id]).await,
        Replays::Create(it) => create(client, it).await,
        Replays::Cancel { id } => {
            let path = client.path(&["replays", &id])?;
            client.json(client.request(Method::DELETE, &path)).await?;
            show(client, &["replays", &id]).await
        }
    }
}

async fn create(client: &Client, it: Create) -> Result<ExitCode, Failure> {
    let mut body = Map::new();
    body.insert("endpoint".to_owned(), it.endpoint.into());
    body.insert("since".to_owned(), it.since.into());
    if let Some(until) = it.until {
        body.insert("until".to_owned(), until.into());
    }
    if !it.event_types.is_empty() {
        body.insert("event_types".to_owned(), it.event_types.into());
    }
    if it.undelivered {
        body.insert("only".to_owned(), "undelivered".into());
    }
    if it.dry_run {
        body.insert("dry_run".to_owned(), true.into());
        let preview = client.post(&client.path(&["replays"])?, &body.into()).await?;
        let (endpoint, events) = (&preview["endpoint"], &preview["matching"]);
        let told = json!({ "endpoint": endpoint, "events": events, "exact": preview["exact"] });
        output::one(client.json, &told);
        return Ok(ExitCode::SUCCESS);
    }
    let mut replay = client.post(&client.path(&["replays"])?, &body.into()).await?;
    if !it.detach {
        replay = follow(client, replay).await?;
    }
    output::one(client.json, &replay);
    let stopped = !it.detach && replay["status"] != "finished";
    Ok(if stopped { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Shows how far it is until it has ended.
async fn follow(client: &Client, mut replay: Value) -> Result<Value, Failure> {
    let id = replay["id"].as_str().unwrap_or_default().to_owned();
    let style = ProgressStyle::with_template("{bar:40} {percent}%  {msg}");
    let bar = ProgressBar::new(1000).with_style(style.expect("a template"));
    while replay["status"] == "running" {
        tokio::time::sleep(LOOK_EVERY).await;
        replay = client.get(&client.path(&["replays", &id])?).await?;
        bar.set_position((replay["progress"].as_f64().unwrap_or_default() * 1000.0) as u64);
        bar.set_message(format!("{} set off", replay["replayed"]));
    }
    bar.finish_and_clear();
    Ok(replay)
}
