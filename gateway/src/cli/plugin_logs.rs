use std::{process::ExitCode, time::Duration};

use clap::Args;
use reqwest::Method;
use serde_json::Value;

use crate::cli::client::{Client, Failure};
use crate::cli::sse::Parser;
use crate::cli::{output, values};

const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// What a plugin logged, newest first
#[derive(Debug, Args)]
pub(super) struct Flags {
    name: String,
    /// Go on with what it logs from now on, oldest first
    #[arg(short, long)]
    follow: bool,
    /// Only this version's lines
    #[arg(long)]
    version: Option<u32>,
    /// Only this level and more urgent ones
    #[arg(long, value_parser = ["debug", "info", "warn", "error"])]
    level: Option<String>,
    /// Not before this time: 2026-01-31T12:00:00Z, or 6h ago: 6h
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    since: Option<String>,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=250))]
    limit: u32,
}

pub(super) async fn run(client: &Client, flags: Flags) -> Result<ExitCode, Failure> {
    if flags.follow {
        return follow(client, &flags).await;
    }
    let page = client.get(&path(client, &flags)?).await?;
    output::list(client.json, &page, &["at", "level", "version", "event_id", "message"]);
    Ok(ExitCode::SUCCESS)
}

fn path(client: &Client, flags: &Flags) -> Result<String, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &flags.limit.to_string());
    if flags.follow {
        query.append_pair("follow", "true");
    }
    query.extend_pairs(flags.version.iter().map(|it| ("version", it.to_string())));
    query.extend_pairs(flags.level.iter().map(|it| ("level", it)));
    query.extend_pairs(flags.since.iter().map(|it| ("since", it)));
    let path = client.path(&["plugins", &flags.name, "logs"])?;
    Ok(format!("{path}?{}", query.finish()))
}

async fn follow(client: &Client, flags: &Flags) -> Result<ExitCode, Failure> {
    let (mut last_id, mut connected) = (None::<String>, false);
    loop {
        let mut request = client.request(Method::GET, &path(client, flags)?);
        if let Some(id) = &last_id {
            request = request.header("last-event-id", id);
        }
        match client.open(request, "text/event-stream").await {
            Ok(mut response) => {
                connected = true;
                let mut parser = Parser::default();
                while let Ok(Some(chunk)) = response.chunk().await {
                    for event in parser.push(&chunk) {
                        last_id = event.id.or(last_id);
                        show(client.json, &event.data);
                    }
                }
            }
            // A server that was there once comes back.
            Err(failure) if !connected || failure.is_lasting() => return Err(failure),
            Err(_) => {}
        }
        output::note("the connection was lost; trying again");
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

fn show(json: bool, data: &str) {
    if json {
        return output::line(data);
    }
    let line: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |name: &str| line[name].as_str().unwrap_or("-").replace(['\n', '\x1b'], " ");
    output::line(&format!(
        "{}  {:5}  v{}  {}  {}",
        text("at"),
        text("level"),
        line["version"],
        text("event_id"),
        text("message"),
    ));
}
