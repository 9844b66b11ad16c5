use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use serde_json::{Map, Value, json};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::cli::client::{Client, Failure};
use crate::cli::output;

/// Publish one event, or a file of them as NDJSON
///
/// Examples:
///   hookgate send order.created -d '{"id": 1}'
///   hookgate send order.created -d @order.json --id order-1
///   hookgate send --ndjson events.ndjson
///   producer | hookgate send --ndjson -
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Flags {
    /// The event type
    #[arg(required_unless_present = "ndjson", conflicts_with = "ndjson")]
    event_type: Option<String>,
    /// The data: JSON, @FILE, or - for stdin
    #[arg(short, long, default_value = "{}", conflicts_with = "ndjson")]
    data: String,
    /// Your own id; sending it again stores nothing new
    #[arg(long)]
    id: Option<String>,
    /// Events with the same key keep their order at endpoints that ask for it
    #[arg(long)]
    ordering_key: Option<String>,
    /// A name for this request
    #[arg(long)]
    idempotency_key: Option<String>,
    /// A file with an event a line, or - for stdin
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
}

pub(super) async fn run(client: &Client, flags: Flags) -> Result<ExitCode, Failure> {
    match &flags.ndjson {
        Some(path) => stream_file(client, path).await,
        None => send_one(client, &flags).await,
    }
}

async fn send_one(client: &Client, flags: &Flags) -> Result<ExitCode, Failure> {
    let text = match flags.data.as_str() {
        "-" => std::io::read_to_string(std::io::stdin()),
        data => match data.strip_prefix('@') {
            Some(path) => std::fs::read_to_string(path),
            None => Ok(data.to_owned()),
        },
    };
    let text = text.map_err(|it| Failure::usage(format!("the data: {it}")))?;
    let data: Value = serde_json::from_str(&text)
        .map_err(|it| Failure::usage(format!("the data is no JSON: {it}")))?;
    let mut event = Map::new();
    event.insert("type".to_owned(), flags.event_type.clone().unwrap_or_default().into());
    event.insert("data".to_owned(), data);
    for (name, value) in [("id", &flags.id), ("ordering_key", &flags.ordering_key)] {
        if let Some(value) = value {
            event.insert(name.to_owned(), value.as_str().into());
        }
    }
    let mut request = client.request(Method::POST, &client.path(&["events"])?).json(&event);
    if let Some(key) = &flags.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let answer = client.json(request).await?;
    output::one(client.json, &answer);
    Ok(ExitCode::SUCCESS)
}

/// Publishes a file of events, a line each, or stdin; exit code 7 if lines were rejected.
pub(super) async fn stream_file(client: &Client, path: &PathBuf) -> Result<ExitCode, Failure> {
    let failed = |it: std::io::Error| Failure::usage(format!("{}: {it}", path.display()));
    let (source, bytes): (Box<dyn AsyncRead + Send + Sync + Unpin>, _) = if path.as_os_str() == "-"
    {
        (Box::new(tokio::io::stdin()), None)
    } else {
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let bytes = file.metadata().await.map_err(failed)?.len();
        (Box::new(file), Some(bytes))
    };
    let bar = progress(bytes);
    let sent = bar.clone();
    let source = futures_util::StreamExt::inspect(ReaderStream::new(source), move |chunk| {
        sent.inc(chunk.as_ref().map_or(0, |it| it.len() as u64));
    });
    let tally = stream(client, Body::wrap_stream(source), |tally| {
        bar.set_message(format!("{} accepted, {} rejected", tally.accepted, tally.rejected.len()));
    });
    let tally = tally.await?;
    bar.finish_and_clear();
    let mut summary = json!({
        "accepted": tally.accepted,
        "duplicate": tally.duplicate,
        "rejected": tally.rejected,
    });
    if !client.json {
        for answer in &tally.rejected {
            let (error, line) = (&answer["error"], &answer["line"]);
            let text = |name: &str| error[name].as_str().unwrap_or_default();
            output::note(&format!("line {line}: {} ({})", text("detail"), text("code")));
        }
        summary["rejected"] = tally.rejected.len().into();
    }
    output::one(client.json, &summary);
    Ok(if tally.rejected.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(7) })
}

/// What became of the lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) duplicate: u64,
    /// The answers to the lines that were rejected.
    pub(super) rejected: Vec<Value>,
}

/// Streams NDJSON and reads the answers as they come; `seen` is called behind each chunk.
pub(super) async fn stream(
    client: &Client,
    body: Body,
    mut seen: impl FnMut(&Tally),
) -> Result<Tally, Failure> {
    let request = client.request(Method::POST, &client.path(&["events"])?);
    let request = request.header("content-type", "application/x-ndjson").body(body);
    let mut response = client.send(request).await?;
    let (mut tally, mut buffer) = (Tally::default(), Vec::new());
    loop {
        let chunk = response.chunk().await;
        let chunk = chunk.map_err(|it| Failure::other(format!("the stream broke: {it}")))?;
        let Some(chunk) = chunk else { break };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = memchr::memchr(b'\n', &buffer) {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            let answer: Value = serde_json::from_slice(&line).unwrap_or_default();
            match answer["status"].as_str() {
                Some("accepted") => tally.accepted += 1,
                Some("duplicate") => tally.duplicate += 1,
                _ => tally.rejected.push(answer),
            }
        }
        seen(&tally);
    }
    Ok(tally)
}

fn progress(bytes: Option<u64>) -> ProgressBar {
    let bar = match bytes {
        Some(bytes) => ProgressBar::new(bytes),
        None => ProgressBar::new_spinner(),
    };
    let template = "{bar:30} {bytes}/{total_bytes} {msg}";
    if let (Some(_), Ok(style)) = (bytes, ProgressStyle::with_template(template)) {
        bar.set_style(style);
    }
    bar
}
