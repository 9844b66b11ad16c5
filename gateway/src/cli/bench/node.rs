//! JavaScript in an engine of its own, without a sandbox: what other gateways offer.

use std::{io::ErrorKind, process::Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::json;
use tokio::{io::AsyncWriteExt, process::Command};

const HARNESS: &str = include_str!("node.js");

/// How long Node's V8 takes for one event, in microseconds: medians.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    /// What the script answered, as JSON.
    pub(super) answer: String,
    /// One context for all events.
    pub(super) kept: f64,
    /// A context for each.
    pub(super) fresh: f64,
}

/// Runs a script's hook over the data; `None` on a machine without Node.
pub(super) async fn node(
    (source, hook): (&str, &str),
    data: &[u8],
    calls: u64,
) -> Result<Option<Node>> {
    let started = Command::new("node")
        .args(["-e", HARNESS])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut process = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        started => started.context("`node` cannot be run")?,
    };
    let data = std::str::from_utf8(data)?;
    let wanted = json!({ "source": source, "hook": hook, "data": data, "calls": calls });
    let mut stdin = process.stdin.take().context("node has no stdin")?;
    stdin.write_all(wanted.to_string().as_bytes()).await?;
    drop(stdin);
    let output = process.wait_with_output().await?;
    if !output.status.success() {
        bail!("node failed:\n{}", String::from_utf8_lossy(&output.stderr));
    }
    serde_json::from_slice(&output.stdout).context("what node wrote")
}
