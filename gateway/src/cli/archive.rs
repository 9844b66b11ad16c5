//! Events as a file: out of one gateway and into another.

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::cli::client::{Client, Failure};
use crate::cli::{output, send, values};
use crate::domain::EventType;

/// Write events as NDJSON to stdout, oldest first, as `import` takes them
///
/// Examples:
///   hookgate events export > events.ndjson
///   hookgate events export --type 'order.*' --from 2026-01-01T00:00:00Z > orders.ndjson
///   hookgate events export --after "$(tail -1 events.ndjson | jq -r .id)" >> events.ndjson
///
/// Data is as it was published, but for line ends between its members, which become spaces. What
/// the gateway itself raised (`hookgate.…`) is left out unless --type names it.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Export {
    /// Accepted at this time or later
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    from: Option<String>,
    /// Accepted before this time
    #[arg(long, value_name = "TIME", value_parser = values::past)]
    to: Option<String>,
    /// Only these types: `order.*`
    #[arg(long = "type", value_name = "PATTERN")]
    event_type: Option<String>,
    /// Only what was accepted behind this event: goes on where an export ended
    #[arg(long, value_name = "EVENT")]
    after: Option<String>,
}

/// Publish what `export` wrote: the same ids, times and data
///
/// Examples:
///   hookgate events import events.ndjson
///   hookgate --server https://other.example events import < events.ndjson
///
/// An event that is there already is stored once, if it came within the last 24 hours. Lines that
/// are refused are told, each with its reason, and the exit code is 7.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Import {
    /// A file with an event a line, or - for stdin
    #[arg(default_value = "-", value_name = "FILE")]
    file: PathBuf,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// An event as it is listed, and as it is published.
#[derive(Deserialize, Serialize)]
struct Line<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    timestamp: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ordering_key: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
    #[serde(borrow)]
    data: &'a RawValue,
}

pub(super) async fn import(client: &Client, it: Import) -> Result<ExitCode, Failure> {
    send::stream_file(client, &it.file).await
}

pub(super) async fn export(client: &Client, it: Export) -> Result<ExitCode, Failure> {
    let style = ProgressStyle::with_template("{spinner} {pos} events ({per_sec}), up to {msg}");
    let bar = ProgressBar::new_spinner().with_style(style.expect("a template"));
    let (mut last, mut cursor) = (None, None);
    loop {
        let page = read(client, &it, cursor.as_deref()).await;
        let page = page.map_err(|failure| match (&last, &it.after) {
            (Some(id), _) => failure.with_help(format!("what was written is whole: --after {id}")),
            (None, Some(id)) if failure.is_missing() => failure.with_help(format!(
                "if {id} is an event of another tenant, give --tenant; if it is too old to be kept \
                 still, go on by time: --from"
            )),
            (None, _) => failure,
        })?;
        for event in &page.data {
            let event: Line<'_> = serde_json::from_str(event.get())
                .map_err(|it| Failure::other(format!("the gateway's answer: {it}")))?;
            if it.event_type.is_none() && is_operational(&event.event_type) {
                continue;
            }
            output::line(&text(&event));
            bar.inc(1);
            bar.set_message(event.timestamp.to_string());
            last = Some(event.id.into_owned());
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    bar.finish_and_clear();
    output::note(&format!("{} events", bar.position()));
    Ok(ExitCode::SUCCESS)
}

async fn read(client: &Client, it: &Export, cursor: Option<&str>) -> Result<Page, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("order", "oldest").append_pair("limit", "250");
    let named = [("since", &it.from), ("until", &it.to), ("type", &it.event_type)];
    for (name, value) in named {
        query.extend_pairs(value.as_ref().map(|it| (name, it)));
    }
    match cursor {
        Some(cursor) => query.append_pair("cursor", cursor),
        None => query.extend_pairs(it.after.as_ref().map(|it| ("after", it))),
    };
    let path = format!("{}?{}", client.path(&["events"])?, query.finish());
    let response = client.send(client.request(reqwest::Method::GET, &path)).await?;
    let body = client.read(response).await?;
    serde_json::from_slice(&body).map_err(|it| {
        Failure::other(format!("the answer is no page of events: {it}"))
            .with_help(format!("is {} a gateway?", client.server))
    })
}

fn is_operational(event_type: &str) -> bool {
    EventType::parse(event_type).is_some_and(|it| it.is_operational())
}

/// The event in one line. Inside of strings JSON has no line ends, so that those which there are
/// stand between members.
fn text(event: &Line<'_>) -> String {
    let text = serde_json::to_string(event).expect("an event is plain data");
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_keeps_its_data() {
        let listed = "{\"id\":\"a\",\"type\":\"a.b\",\"timestamp\":\"2026-01-31T12:00:00.000Z\",\
            \"accepted_at\":\"2026-01-31T12:00:00.000Z\",\"ordering_key\":null,\"metadata\":{},\
            \"trace_id\":null,\"hops\":0,\"data\":{\n  \"n\": 1.50,\r\n  \"s\": \"a\\nb\" }}";
        let event: Line<'_> = serde_json::from_str(listed).unwrap();
        let expected = "{\"id\":\"a\",\"type\":\"a.b\",\"timestamp\":\"2026-01-31T12:00:00.000Z\",\
            \"data\":{   \"n\": 1.50,    \"s\": \"a\\nb\" }}";
        assert_eq!(text(&event), expected);
    }
}
