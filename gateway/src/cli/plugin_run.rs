use std::{collections::BTreeMap, io::Read, path::PathBuf, process::ExitCode};

use bytes::Bytes;
use clap::Args;
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::plugin::build;
use crate::cli::{output, plugin_life};
use crate::domain::Timestamp;
use crate::plugins::{Call, Called, Compiler, Config, EventIn, Host, Outgoing, Verdict};
use crate::world::{Clock, SystemClock, SystemEntropy};

/// Run a plugin on one event and show what it says and costs; nothing is sent
#[derive(Debug, Args)]
#[command(override_usage = "hookgate plugin run [OPTIONS] <NAME>\n       \
                            hookgate plugin run [OPTIONS] --folder <FOLDER>")]
pub(super) struct Flags {
    /// A plugin of the gateway
    #[arg(required_unless_present = "folder", conflicts_with = "folder")]
    name: Option<String>,
    /// The plugin in this folder, built and run here in the gateway's sandbox
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The event's data as JSON; @FILE reads a file, - standard input
    #[arg(short, long, value_name = "JSON", default_value = "{}")]
    data: String,
    /// On an event that the gateway has
    #[arg(long, value_name = "ID", conflicts_with_all = ["data", "event_type"])]
    event: Option<String>,
    /// The event's type
    #[arg(long = "type", value_name = "TYPE", default_value = "test.event")]
    event_type: String,
    /// Which version [default: the active one]
    #[arg(long, conflicts_with = "folder")]
    version: Option<u32>,
    /// With this configuration: KEY=VALUE (repeatable)
    #[arg(long = "config", value_name = "KEY=VALUE")]
    config: Vec<String>,
}

pub(super) async fn run(client: &Client, flags: Flags) -> Result<ExitCode, Failure> {
    let event = match &flags.event {
        Some(id) => stored(client, id).await?,
        None => Asked::new(&flags.event_type, read_data(&flags.data)?),
    };
    let ran = match (&flags.folder, &flags.name) {
        (Some(folder), _) => {
            let component = build(folder)?;
            let bytes = std::fs::read(&component).map_err(|it| Failure::other(it.to_string()))?;
            run_here(bytes.into(), event, &flags).await?
        }
        (None, Some(name)) => run_there(client, name, event, &flags).await?,
        (None, None) => return Err(Failure::usage("name a plugin, or give --folder")),
    };
    let failed = ran["outcome"] == "error";
    show(client.json, &ran);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What the API's `invoke` is asked.
#[derive(Serialize)]
struct Wish {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    config: Map<String, Value>,
    events: [Asked; 1],
}

/// An event as it is published; its data as it is written.
#[derive(Serialize, Deserialize)]
struct Asked {
    #[serde(rename = "type")]
    event_type: String,
    data: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordering_key: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, String>,
}

impl Asked {
    fn new(event_type: &str, data: Box<RawValue>) -> Self {
        let (id, timestamp, ordering_key, metadata) = Default::default();
        Self { event_type: event_type.to_owned(), data, id, timestamp, ordering_key, metadata }
    }
}

/// An event that the gateway has.
async fn stored(client: &Client, id: &str) -> Result<Asked, Failure> {
    let request = client.request(Method::GET, &client.path(&["events", id])?);
    let text = client.read(client.send(request).await?).await?;
    serde_json::from_slice(&text).map_err(|it| Failure::other(format!("event {id}: {it}")))
}

/// The data as it is written: a plugin may tell one order of members from another.
fn read_data(given: &str) -> Result<Box<RawValue>, Failure> {
    let unread = |what: &str, it: std::io::Error| Failure::other(format!("{what}: {it}"));
    let text = match given.strip_prefix('@') {
        Some(path) => std::fs::read_to_string(path).map_err(|it| unread(path, it))?,
        None if given == "-" => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            read.map_err(|it| unread("standard input", it))?;
            text
        }
        None => given.to_owned(),
    };
    let invalid = |it| Failure::usage(format!("the data is no JSON: {it}"));
    serde_json::from_str(&text).map_err(invalid)
}

async fn run_there(
    client: &Client,
    name: &str,
    event: Asked,
    flags: &Flags,
) -> Result<Value, Failure> {
    let wish = Wish {
        version: flags.version,
        config: plugin_life::pairs(&flags.config)?,
        events: [event],
    };
    let path = client.path(&["plugins", name, "invoke"])?;
    let answer = client.json(client.request(Method::POST, &path).json(&wish)).await?;
    let mut ran = answer["data"][0].clone();
    ran["sha256"] = answer["sha256"].clone();
    Ok(ran)
}

async fn run_here(component: Bytes, event: Asked, flags: &Flags) -> Result<Value, Failure> {
    let broken = |it: &dyn std::fmt::Display| Failure::other(format!("the sandbox: {it}"));
    let cache = tempfile::tempdir().map_err(|it| broken(&it))?;
    let mut config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    // An author wants to know what it costs, on every machine the same.
    config.fuel = true;
    // What a gateway takes is its operator's to say.
    config.component_bytes_max = config.component_bytes_max.max(component.len());
    let host = Host::start(config, &SystemEntropy).map_err(|it| broken(&it))?;
    let artifact = host.check(component).await;
    let artifact = artifact.map_err(|it| Failure::other(format!("{} ({})", it.detail, it.code)))?;
    if !artifact.hooks().delivers() {
        let kind = artifact.hooks().kind();
        return Err(Failure::other(format!("it has only {kind}: neither filter nor transform"))
            .with_help("`hookgate plugin test` asks it what its cases say"));
    }
    let sha256 = artifact.digest().to_string();
    let text = |(key, value): (String, Value)| (key, value.as_str().unwrap_or_default().to_owned());
    let question = question(event);
    let config = plugin_life::pairs(&flags.config)?.into_iter().map(text).collect();
    let call =
        Call { tenant: "author".into(), artifact, config, question, limits: None, dry: false };
    let mut ran = render(&host.call(call).await);
    ran["sha256"] = sha256.into();
    Ok(ran)
}

fn question(event: Asked) -> EventIn {
    let timestamp = event.timestamp.as_deref().and_then(Timestamp::parse);
    EventIn {
        id: event.id.unwrap_or_else(|| "evt_run".to_owned()),
        event_type: event.event_type,
        timestamp_ms: timestamp.unwrap_or_else(|| SystemClock.now()).0,
        content_type: "application/json".to_owned(),
        metadata: event.metadata.into_iter().collect(),
        ordering_key: event.ordering_key,
        payload: Bytes::copy_from_slice(event.data.get().as_bytes()),
    }
}

/// In the form of the API's `invoke`.
fn render(called: &Called) -> Value {
    let line = |it: &crate::plugins::LogLine| json!({ "level": it.level, "message": it.message });
    let mut ran = json!({
        "outcome": "deliver",
        "logs": called.logs.iter().map(line).collect::<Vec<_>>(),
        "duration_us": u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX),
        "fuel": called.fuel,
    });
    match &called.verdict {
        Ok(Verdict::Deliver) => {}
        Ok(Verdict::Drop(reason)) => {
            ran["outcome"] = "drop".into();
            ran["reason"] = reason.as_str().into();
        }
        Ok(Verdict::Replace(out)) => ran["event"] = outgoing(out),
        Ok(Verdict::Split(parts)) => ran["events"] = parts.iter().map(outgoing).collect(),
        Err(fault) => {
            ran["outcome"] = "error".into();
            ran["error"] = json!({ "code": fault.kind.name(), "detail": fault.detail });
        }
    }
    ran
}

fn outgoing(out: &Outgoing) -> Value {
    let text = || Value::String(String::from_utf8_lossy(&out.payload).into_owned());
    let headers = out.headers.iter().map(|(name, it)| (name.clone(), Value::from(it.as_str())));
    json!({
        "data": serde_json::from_slice(&out.payload).unwrap_or_else(|_| text()),
        "content_type": out.content_type,
        "headers": Value::Object(headers.collect()),
        "path_suffix": out.path_suffix,
    })
}

fn show(json: bool, ran: &Value) {
    if json {
        return output::one(true, ran);
    }
    for line in ran["logs"].as_array().into_iter().flatten() {
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        output::note(&format!("{:5}  {}", text("level"), text("message")));
    }
    let why = ran["reason"].as_str().or(ran["error"]["detail"].as_str());
    let why = why.map(|it| format!(": {it}")).unwrap_or_default();
    output::line(&format!("{}{why}", ran["outcome"].as_str().unwrap_or_default()));
    for made in [&ran["event"], &ran["events"]].into_iter().filter(|it| !it.is_null()) {
        output::line(&format!("{made:#}"));
    }
    let fuel = ran["fuel"].as_u64().map(|it| format!(" · fuel {it}")).unwrap_or_default();
    let sha256 = ran["sha256"].as_str().unwrap_or_default();
    output::note(&format!("{} µs{fuel} · sha256 {sha256}", ran["duration_us"]));
}
