//! The life of a deployed plugin: which version runs, how it does, and what another would do.

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::cli::client::{Client, Failure};
use crate::cli::output;

type Outcome = Result<ExitCode, Failure>;

#[derive(Debug, Subcommand)]
pub(super) enum Life {
    /// Make a version the active one, for the next event on
    Activate {
        name: String,
        version: u32,
        /// Even if endpoints that follow have a configuration that it refuses
        #[arg(long)]
        force: bool,
    },
    /// Make an earlier version the active one
    Rollback {
        name: String,
        /// Which [default: the one before the active one]
        #[arg(long)]
        to: Option<u32>,
        /// Even if endpoints that follow have a configuration that it refuses
        #[arg(long)]
        force: bool,
    },
    /// Run two versions over stored events and show where they differ
    Diff(Diff),
    /// Try a version on a share of the events
    #[command(subcommand)]
    Canary(Canary),
    /// Save the component of a version
    Download {
        name: String,
        /// Which [default: the active one]
        #[arg(long)]
        version: Option<u32>,
        /// Where to [default: NAME-VERSION.wasm]
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Diff {
    name: String,
    /// The version to compare with [default: the active one]
    #[arg(long, value_name = "VERSION")]
    from: Option<u32>,
    /// The version that may replace it
    #[arg(long, value_name = "VERSION")]
    to: u32,
    /// Over how many of the newest events
    #[arg(long, default_value_t = 100)]
    recent: u32,
    /// With this endpoint's configuration [default: with that of each endpoint that uses it]
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// With this configuration: KEY=VALUE (repeatable)
    #[arg(long = "config", value_name = "KEY=VALUE")]
    config: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Canary {
    /// Begin: a share of the events meets this version
    Start {
        name: String,
        #[arg(long)]
        version: u32,
        /// The share: 0.05 or 5%
        #[arg(long, value_parser = parse_share)]
        share: f64,
        /// Run the active version on those events too, and compare
        #[arg(long)]
        compare: bool,
        /// End by itself when it fails this much more often than the active version: 0.1 or 10%
        #[arg(long, value_name = "SHARE", value_parser = parse_share)]
        abort_on_error_rate: Option<f64>,
        /// Even if endpoints that follow have a configuration that it refuses
        #[arg(long)]
        force: bool,
    },
    /// How both versions do
    Status { name: String },
    /// Make it the active version
    Promote { name: String },
    /// End it: the active version gets all events again
    Stop { name: String },
}

pub(super) async fn run(client: &Client, command: Life) -> Outcome {
    match command {
        Life::Activate { name, version, force } => activate(client, &name, version, force).await,
        Life::Rollback { name, to, force } => rollback(client, &name, to, force).await,
        Life::Diff(flags) => diff(client, flags).await,
        Life::Canary(command) => canary(client, command).await,
        Life::Download { name, version, output } => download(client, &name, version, output).await,
    }
}

async fn activate(client: &Client, name: &str, version: u32, force: bool) -> Outcome {
    let path = client.path(&["plugins", name, "activate"])?;
    let path = format!("{path}?force={force}");
    let plugin = client.post(&path, &json!({ "version": version })).await?;
    if client.json {
        output::one(true, &plugin);
        return Ok(ExitCode::SUCCESS);
    }
    output::line(&format!("{name} runs version {version} now, sha256 {}", text(&plugin["sha256"])));
    let undo = undo(name, &version.into());
    output::note(&format!("watch it: hookgate plugin logs {name} -f{undo}"));
    Ok(ExitCode::SUCCESS)
}

/// How to go back, where a version may have been before.
pub(super) fn undo(name: &str, version: &Value) -> String {
    match version.as_u64() {
        Some(2..) => format!(" · undo: hookgate plugin rollback {name}"),
        _ => String::new(),
    }
}

async fn rollback(client: &Client, name: &str, to: Option<u32>, force: bool) -> Outcome {
    let plugin = client.get(&client.path(&["plugins", name])?).await?;
    let active = plugin["active_version"].as_u64().unwrap_or_default();
    let before = || {
        let versions = plugin["versions"].as_array().into_iter().flatten();
        let earlier = versions.filter_map(|it| it["version"].as_u64()).filter(|it| *it < active);
        earlier.max().and_then(|it| u32::try_from(it).ok())
    };
    let none = || Failure::other(format!("{name} has no version before {active}"));
    activate(client, name, to.or_else(before).ok_or_else(none)?, force).await
}

async fn diff(client: &Client, flags: Diff) -> Outcome {
    let mut body = json!({ "version": flags.to, "recent": flags.recent });
    if let Some(from) = flags.from {
        body["against"] = from.into();
    }
    if let Some(endpoint) = flags.endpoint {
        body["endpoint"] = endpoint.into();
    }
    if !flags.config.is_empty() {
        body["config"] = Value::Object(pairs(&flags.config)?);
    }
    let path = client.path(&["plugins", &flags.name, "backtest"])?;
    let tested = client.post(&path, &body).await?;
    if client.json {
        output::one(true, &tested);
        return Ok(ExitCode::SUCCESS);
    }
    let rows = tested["data"].as_array().into_iter().flatten();
    for row in rows.filter(|it| it["same"] == false) {
        let endpoint = row["endpoint_id"].as_str().unwrap_or("-");
        output::line(&format!(
            "{}  {}  {endpoint}  {} → {}",
            text(&row["event_id"]),
            text(&row["event_type"]),
            told(&row["against"]),
            told(&row["version"]),
        ));
        for change in row["changes"].as_array().into_iter().flatten() {
            let side = |name| change.get(name).map_or("nothing".to_owned(), Value::to_string);
            let place = change["path"].as_str().unwrap_or_default();
            output::line(&format!("    {place}: {} → {}", side("from"), side("to")));
        }
    }
    let summary = &tested["summary"];
    output::line(&format!(
        "{} events: {} the same, {} different",
        summary["events"], summary["same"], summary["different"]
    ));
    for side in ["against", "version"] {
        let side = &summary[side];
        let took = |part: &str| match side["duration_us"][part].as_u64() {
            Some(micros) => format!(", {part} {micros} µs"),
            None => String::new(),
        };
        output::line(&format!(
            "version {} (sha256 {}): {} errors{}{}",
            side["version"],
            text(&side["sha256"]),
            side["errors"],
            took("p50"),
            took("p99"),
        ));
    }
    tell_of_the_rest(&tested);
    Ok(ExitCode::SUCCESS)
}

/// Which events the answer says nothing about.
fn tell_of_the_rest(tested: &Value) {
    let calls = |name: &str| tested["summary"][name].as_u64().unwrap_or_default();
    if calls("same") + calls("different") < calls("events") {
        output::note("events that go to no endpoint with the plugin were not asked about");
    }
    if tested["next_cursor"].is_string() {
        output::note("there are older events; --recent takes more of them, up to 1000");
    }
}

/// An outcome with its reason or error.
fn told(side: &Value) -> String {
    let outcome = text(&side["outcome"]);
    match (side["reason"].as_str(), side["error"]["code"].as_str()) {
        (Some(reason), _) => format!("{outcome} ({reason})"),
        (_, Some(code)) => format!("{outcome} ({code})"),
        _ => outcome,
    }
}

async fn canary(client: &Client, command: Canary) -> Outcome {
    let path = |name: &str| client.path(&["plugins", name, "canary"]);
    match command {
        Canary::Start { name, version, share, compare, abort_on_error_rate, force } => {
            let body = json!({
                "version": version,
                "share": share,
                "compare": compare,
                "abort_on_error_rate": abort_on_error_rate,
            });
            let started = client.post(&format!("{}?force={force}", path(&name)?), &body).await?;
            show_canary(client.json, &name, &started);
            output::note(&format!(
                "watch it: hookgate plugin canary status {name} · end it: promote or stop"
            ));
        }
        Canary::Status { name } => {
            let trial = client.get(&path(&name)?).await?;
            show_canary(client.json, &name, &trial);
        }
        Canary::Promote { name } => {
            let plugin = client.post(&format!("{}/promote", path(&name)?), &json!({})).await?;
            ended(client.json, &name, &plugin);
        }
        Canary::Stop { name } => {
            let request = client.request(Method::DELETE, &path(&name)?);
            ended(client.json, &name, &client.json(request).await?);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn ended(json: bool, name: &str, plugin: &Value) {
    match json {
        true => output::one(true, plugin),
        false => output::line(&format!("{name} runs version {} now", plugin["active_version"])),
    }
}

fn show_canary(json: bool, name: &str, trial: &Value) {
    if json {
        return output::one(true, trial);
    }
    let percent = trial["share"].as_f64().unwrap_or_default() * 100.0;
    output::line(&format!("{name}: version {} on {percent} % of the events", trial["version"]));
    let row = |side: &str| {
        let (one, stats) = (&trial["sides"][side], &trial["sides"][side]["stats"]);
        json!({
            "side": side,
            "version": one["version"],
            "sha256": one["sha256"],
            "calls": stats["calls"],
            "drops": stats["drops"],
            "rewrites": stats["rewrites"],
            "errors": stats["errors"],
            "p50_us": stats["duration_us"]["p50"],
            "p99_us": stats["duration_us"]["p99"],
        })
    };
    let columns =
        ["side", "version", "calls", "drops", "rewrites", "errors", "p50_us", "p99_us", "sha256"];
    output::list(false, &json!({ "data": [row("active"), row("canary")] }), &columns);
    if trial["compared"].is_object() {
        let compared = &trial["compared"];
        output::line(&format!(
            "compared: {} the same, {} different",
            compared["same"], compared["different"]
        ));
    }
}

async fn download(
    client: &Client,
    name: &str,
    version: Option<u32>,
    to: Option<PathBuf>,
) -> Outcome {
    let plugin = client.get(&client.path(&["plugins", name])?).await?;
    let version = version.map_or(plugin["active_version"].clone(), Value::from);
    let path = client.path(&["plugins", name, "versions", &version.to_string(), "wasm"])?;
    let response = client.send(client.request(Method::GET, &path)).await?;
    let bytes = client.read(response).await?;
    let file = to.unwrap_or_else(|| PathBuf::from(format!("{name}-{version}.wasm")));
    let written = std::fs::write(&file, &bytes);
    written.map_err(|it| Failure::other(format!("{}: {it}", file.display())))?;
    let digest = crate::plugins::Digest::of(&bytes).to_string();
    let told = json!({
        "name": name,
        "version": version,
        "sha256": digest,
        "size": bytes.len(),
        "file": file.display().to_string(),
    });
    output::one(client.json, &told);
    Ok(ExitCode::SUCCESS)
}

/// KEY=VALUE pairs as an object of strings.
pub(super) fn pairs(texts: &[String]) -> Result<Map<String, Value>, Failure> {
    let pair = |text: &String| {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("`{text}` is no KEY=VALUE")))?;
        Ok((key.to_owned(), value.into()))
    };
    texts.iter().map(pair).collect()
}

fn parse_share(text: &str) -> Result<f64, String> {
    let number = |it: &str| it.trim().parse::<f64>().ok();
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|it| it / 100.0),
        None => number(text),
    };
    let share = share.filter(|it| (0.0..=1.0).contains(it));
    share.ok_or_else(|| "a share is 0.05 or 5%".to_owned())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_one_version_is_not_sent_back() {
        for (version, told) in [(1, false), (2, true)] {
            assert_eq!(undo("it", &json!(version)).contains("rollback it"), told, "{version}");
        }
    }

    #[test]
    fn shares_are_read() {
        for (text, share) in
            [("0.05", Some(0.05)), ("5%", Some(0.05)), ("1", Some(1.0)), ("5", None), ("x", None)]
        {
            assert_eq!(parse_share(text).ok(), share, "{text}");
        }
    }
}
