use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Buf;
use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::io::AsyncRead;
use tokio_util::io::ReaderStream;

use crate::cli::client::{Client, Failure};
use crate::cli::{output, values};

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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
    #[arg(required_unless_present = "ndjson", conflicts_with = "ndjson",
          value_parser = values::event_type)]
    event_type: Option<String>,
    /// The data: JSON, @FILE, or - for stdin
    #[arg(short, long, default_value = "{}", conflicts_with = "ndjson")]
    data: String,
    /// Your own id; sending it again stores nothing new
    #[arg(long, conflicts_with = "ndjson")]
    id: Option<String>,
    /// Events with the same key keep their order at endpoints that ask for it
    #[arg(long, conflicts_with = "ndjson")]
    ordering_key: Option<String>,
    /// A name for this request
    #[arg(long, conflicts_with = "ndjson")]
    idempotency_key: Option<String>,
    /// A file with an event a line, or - for stdin
    #[arg(long, value_name = "FILE")]
    ndjson: Option<PathBuf>,
}

/// An event as it is published. Its data is the text that was given: numbers and the order of
/// members are the producer's.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<&'a str>,
    data: &'a RawValue,
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
    let from = flags.data.strip_prefix('@').unwrap_or("stdin");
    let text = text.map_err(|it| Failure::usage(format!("the data: {from}: {it}")))?;
    let data = serde_json::from_str(&text)
        .map_err(|it| Failure::usage(format!("the data is no JSON: {it}")))?;
    let event = Event {
        event_type: flags.event_type.as_deref().unwrap_or_default(),
        id: flags.id.as_deref(),
        ordering_key: flags.ordering_key.as_deref(),
        data,
    };
    let mut request = client.request(Method::POST, &client.path(&["events"])?).json(&event);
    if let Some(key) = &flags.idempotency_key {
        request = request.header("idempotency-key", key);
    }
    let answer = client.json(request).await?;
    output::one(client.json, &answer);
    Ok(ExitCode::SUCCESS)
}

/// Publishes a file of events, a line each, or stdin; exit code 7 if lines were rejected. What was
/// answered is told however it ends.
pub(super) async fn stream_file(client: &Client, path: &PathBuf) -> Result<ExitCode, Failure> {
    let failed = |it: std::io::Error| Failure::usage(format!("{}: {it}", path.display()));
    let (source, bytes): (Box<dyn AsyncRead + Send + Sync + Unpin>, _) = if path.as_os_str() == "-"
    {
        (Box::new(tokio::io::stdin()), None)
    } else {
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let about = file.metadata().await.map_err(failed)?;
        if about.is_dir() {
            return Err(Failure::usage(format!("{} is a folder", path.display()))
                .with_help("name a file with an event a line, or - for stdin"));
        }
        // How much comes through a pipe nobody knows.
        (Box::new(file), about.is_file().then_some(about.len()))
    };
    let bar = progress(bytes);
    let (sent_bytes, sent) = (bar.clone(), Arc::new(AtomicU64::new(0)));
    let (counted, mut begun) = (sent.clone(), false);
    let mut at_begin = true;
    let source = ReaderStream::new(source).map(move |chunk| {
        let mut chunk = chunk?;
        sent_bytes.inc(chunk.len() as u64);
        // Some editors put this mark before the first line; it is no JSON (RFC 8259, 8.1).
        if std::mem::take(&mut at_begin) && chunk.starts_with(BYTE_ORDER_MARK) {
            chunk.advance(BYTE_ORDER_MARK.len());
        }
        counted.fetch_add(count_lines(&chunk, &mut begun), Ordering::Relaxed);
        Ok::<_, std::io::Error>(chunk)
    });
    let (tally, broken) = pour(client, Body::wrap_stream(source), |tally| {
        bar.set_message(format!("{} accepted, {} rejected", tally.accepted, tally.rejected.len()));
    })
    .await?;
    bar.finish_and_clear();
    let (answered, sent) = (tally.answered(), sent.load(Ordering::Relaxed));
    let short = || Failure::other(format!("{answered} of {sent} lines were answered"));
    let broken = broken.or_else(|| (answered < sent).then(short));
    tell(client.json, &tally, broken.is_some().then(|| sent.saturating_sub(answered)));
    match broken {
        Some(failure) => Err(failure.with_help(tally.rest())),
        None if tally.rejected.is_empty() => Ok(ExitCode::SUCCESS),
        None => Ok(ExitCode::from(7)),
    }
}

/// The lines that begin in a chunk, blank ones aside; `begun` tells whether one is under way.
fn count_lines(chunk: &[u8], begun: &mut bool) -> u64 {
    let mut lines = 0;
    for byte in chunk {
        if *byte == b'\n' {
            *begun = false;
        } else if !*begun && !byte.is_ascii_whitespace() {
            *begun = true;
            lines += 1;
        }
    }
    lines
}

fn tell(as_json: bool, tally: &Tally, unanswered: Option<u64>) {
    let mut summary = json!({
        "accepted": tally.accepted,
        "duplicate": tally.duplicate,
        "rejected": tally.rejected,
    });
    if !as_json {
        for answer in &tally.rejected {
            let (error, line) = (&answer["error"], &answer["line"]);
            let text = |name: &str| error[name].as_str().unwrap_or_default();
            output::note(&format!("line {line}: {} ({})", text("detail"), text("code")));
        }
        summary["rejected"] = tally.rejected.len().into();
    }
    if let Some(unanswered) = unanswered {
        summary["unanswered"] = unanswered.into();
    }
    output::one(as_json, &summary);
}

/// What became of the lines of a stream.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) accepted: u64,
    pub(super) duplicate: u64,
    /// The answers to the lines that were rejected.
    pub(super) rejected: Vec<Value>,
    /// The number of the last line that was answered.
    last: Option<u64>,
}

impl Tally {
    fn take(&mut self, line: &[u8]) {
        let answer: Value = serde_json::from_slice(line).unwrap_or_default();
        self.last = answer["line"].as_u64().or(self.last);
        match answer["status"].as_str() {
            Some("accepted") => self.accepted += 1,
            Some("duplicate") => self.duplicate += 1,
            _ => self.rejected.push(answer),
        }
    }

    fn answered(&self) -> u64 {
        self.accepted + self.duplicate + self.rejected.len() as u64
    }

    /// What to do about lines without an answer.
    fn rest(&self) -> String {
        let from = match self.last {
            Some(last) => format!("line {last} was the last that was answered: send what follows"),
            None => "no line was answered: send them".to_owned(),
        };
        format!("{from} again; a line with an id is stored once")
    }
}

/// Streams NDJSON and reads the answers as they come; `seen` is called behind each chunk.
pub(super) async fn stream(
    client: &Client,
    body: Body,
    seen: impl FnMut(&Tally),
) -> Result<Tally, Failure> {
    match pour(client, body, seen).await? {
        (tally, None) => Ok(tally),
        (_, Some(failure)) => Err(failure),
    }
}

/// As [`stream`], with what was answered before the connection broke.
async fn pour(
    client: &Client,
    body: Body,
    mut seen: impl FnMut(&Tally),
) -> Result<(Tally, Option<Failure>), Failure> {
    const MEDIA_TYPE: &str = "application/x-ndjson";
    let request = client.request(Method::POST, &client.path(&["events"])?);
    let request = request.header("content-type", MEDIA_TYPE).body(body);
    let mut response = client.open(request, MEDIA_TYPE).await?;
    let (mut tally, mut buffer) = (Tally::default(), Vec::new());
    loop {
        // Nobody knows when the producer has the next line: there is no time-out.
        let chunk = match response.chunk().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return Ok((tally, None)),
            Err(error) => return Ok((tally, Some(Failure::broken(&error)))),
        };
        buffer.extend_from_slice(&chunk);
        while let Some(end) = memchr::memchr(b'\n', &buffer) {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            tally.take(&line);
        }
        seen(&tally);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_wherever_chunks_are_cut() {
        let text = b"{}\n\n  \r\n {\"a\":\n{}\n\t\n{}";
        for size in 1..=text.len() {
            let mut begun = false;
            let counted = text.chunks(size).map(|it| count_lines(it, &mut begun)).sum::<u64>();
            assert_eq!(counted, 4, "chunks of {size}");
        }
    }
}
