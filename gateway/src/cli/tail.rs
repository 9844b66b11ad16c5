use std::{process::ExitCode, time::Duration};

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::output;
use crate::cli::sse::{Parser, SseEvent};

const RECONNECT_AFTER: Duration = Duration::from_secs(2);

/// Watch events and outcomes live
#[derive(Debug, Args)]
pub(super) struct Flags {
    /// Only these event types: `order.*`
    #[arg(long = "type", value_name = "PATTERN")]
    event_type: Option<String>,
    /// Only attempts at this endpoint
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only attempts that ended so
    #[arg(long, value_name = "STATUS",
          value_parser = ["delivered", "filtered", "retrying", "dead"])]
    status: Option<String>,
    /// Only one kind: event, attempt
    #[arg(long, value_name = "KIND", value_parser = ["event", "attempt"])]
    only: Option<String>,
}

impl Flags {
    /// Whether it is asked for. That something was missed is always told.
    fn want(&self, event: &SseEvent, data: &Value) -> bool {
        if event.name != "event" && event.name != "attempt" {
            return true;
        }
        let filters = [("endpoint_id", &self.endpoint), ("status", &self.status)];
        let mut filters = filters.into_iter().filter_map(|(name, it)| Some((name, it.as_ref()?)));
        let kind = self.only.as_ref().is_none_or(|it| *it == event.name);
        kind && filters.all(|(name, it)| event.name == "attempt" && data[name] == it.as_str())
    }
}

pub(super) async fn run(client: &Client, flags: Flags) -> Result<ExitCode, Failure> {
    if let Some(id) = &flags.endpoint {
        // Of one that is not there nothing would ever come.
        client.get(&client.path(&["endpoints", id])?).await?;
    }
    let mut last_id: Option<String> = None;
    let mut connected = false;
    loop {
        let outcome = watch(client, &flags, &mut last_id, &mut connected).await;
        match outcome {
            // A server that was there once comes back.
            Ok(()) => {}
            Err(failure) if !connected || failure.is_lasting() => return Err(failure),
            Err(_) => {}
        }
        output::note("the connection was lost; trying again");
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn watch(
    client: &Client,
    flags: &Flags,
    last_id: &mut Option<String>,
    connected: &mut bool,
) -> Result<(), Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(flags.event_type.iter().map(|it| ("type", it)));
    let path = client.path(&["events", "tail"])?;
    let path = format!("{path}?{}", query.finish());
    let mut request = client.request(Method::GET, &path);
    if let Some(id) = last_id {
        request = request.header("last-event-id", id.as_str());
    }
    let mut response = client.open(request, "text/event-stream").await?;
    *connected = true;
    let mut parser = Parser::default();
    while let Ok(Some(chunk)) = response.chunk().await {
        for event in parser.push(&chunk) {
            if event.id.is_some() {
                last_id.clone_from(&event.id);
            }
            let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
            if flags.want(&event, &data) {
                show(client.json, &event, &data);
            }
        }
    }
    Ok(())
}

fn show(json: bool, event: &SseEvent, data: &Value) {
    if json {
        output::line(&json!({ "kind": event.name, "data": data }).to_string());
        return;
    }
    let text = |name: &str| data[name].as_str().unwrap_or("-").to_owned();
    let shown = match event.name.as_str() {
        "event" => {
            format!("{}  event      {:30}  {}", text("accepted_at"), text("id"), text("type"))
        }
        "attempt" => format!(
            "{}  {:9}  {:30}  {}  {} attempt {} {}",
            text("started_at"),
            text("status"),
            text("event_id"),
            text("event_type"),
            text("endpoint_id"),
            data["number"],
            match (&data["status_code"], data["error"].as_str()) {
                (Value::Null, Some(error)) => error.to_owned(),
                (code, _) => format!("{code} in {}", text("duration")),
            },
        ),
        _ if data["attempts"] == true => {
            "attempts that ended meanwhile are not shown: hookgate deliveries list".to_owned()
        }
        _ => format!("some were missed: {data}"),
    };
    output::line(&shown);
}
