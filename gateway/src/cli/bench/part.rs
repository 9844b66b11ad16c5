//! Parts of a measurement that are processes of their own: this executable, called with
//! `bench-part`. Each says a line when it is ready, and then answers each line with one.

use std::{path::PathBuf, process::Stdio};

use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::cli::bench::receiver::Mood;

/// What a part is there for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Role {
    /// Produces events, as it is told.
    Load,
    /// Takes deliveries, and counts them.
    Receiver(Mood),
    /// Parses, appends to a file in this folder and syncs it; that is all.
    BoundIngest(PathBuf),
    /// The same, then signs and sends to this URL.
    BoundEndToEnd(PathBuf, String),
    /// Signs and sends to this URL, by the gateway's connector or by a bare client.
    Sender { url: String, bare: bool },
}

/// A part's first line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Ready {
    /// Where it listens, if it does.
    pub(super) url: String,
}

/// A part that runs. Dropped, it is killed.
pub(super) struct Part {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// Where it listens, if it does.
    pub(super) url: String,
}

impl Part {
    /// Starts one.
    pub(super) async fn start(role: &Role) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("bench-part")
            .arg(serde_json::to_string(role)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("a part of the bench cannot be started")?;
        let orders = child.stdin.take().context("it has a stdin")?;
        let answers = BufReader::new(child.stdout.take().context("it has a stdout")?).lines();
        let mut part = Self { child, orders, answers, url: String::new() };
        part.url = part.answer::<Ready>().await?.url;
        Ok(part)
    }

    /// Its process.
    pub(super) fn pid(&self) -> Result<u32> {
        self.child.id().context("a part of the bench has ended")
    }

    /// Gives it an order and waits for the answer.
    pub(super) async fn ask<T: DeserializeOwned>(&mut self, order: &impl Serialize) -> Result<T> {
        let line = format!("{}\n", serde_json::to_string(order)?);
        self.orders.write_all(line.as_bytes()).await.context("a part of the bench has ended")?;
        self.answer().await
    }

    async fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let line = self.answers.next_line().await?.context("a part of the bench has ended")?;
        let answer: Result<T, String> = serde_json::from_str(&line)?;
        answer.map_err(|it| anyhow!(it))
    }
}
