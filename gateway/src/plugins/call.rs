use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::domain::Event;
use crate::plugins::Artifact;

/// An event as a plugin sees it.
#[derive(Debug, Clone)]
pub struct EventIn {
    /// Its id.
    pub id: String,
    /// What happened.
    pub event_type: String,
    /// When, in milliseconds.
    pub timestamp_ms: u64,
    /// What the payload is.
    pub content_type: String,
    /// Facts beside the data.
    pub metadata: Vec<(String, String)>,
    /// The data.
    pub payload: Bytes,
}

impl EventIn {
    /// `event`, with `data` as the plugin before left it.
    pub fn new(event: &Event, data: Bytes) -> Self {
        let fact = |(key, value): (&String, &String)| (key.clone(), value.clone());
        Self {
            id: event.id.to_string(),
            event_type: event.event_type.to_string(),
            timestamp_ms: event.timestamp.0,
            content_type: "application/json".to_owned(),
            metadata: event.metadata.iter().map(fact).collect(),
            payload: data,
        }
    }
}

/// One event for one plugin.
#[derive(Clone)]
pub struct Call {
    /// On whose account it runs.
    pub tenant: Arc<str>,
    /// The plugin.
    pub artifact: Arc<Artifact>,
    /// What the endpoint configures it with.
    pub config: Vec<(String, String)>,
    /// The event; `None`: only check the configuration.
    pub event: Option<EventIn>,
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Called {
    /// What the plugin says, or why it could not.
    pub verdict: Result<Verdict, Fault>,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// How long it ran.
    pub duration: Duration,
}

/// What a plugin says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The event goes on as it is.
    Deliver,
    /// Not for this endpoint, and why.
    Drop(String),
    /// This goes on instead.
    Replace(Outgoing),
}

/// What a transform made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The new data.
    pub payload: Bytes,
    /// What it is.
    pub content_type: String,
    /// Further headers, checked.
    pub headers: Vec<(String, String)>,
    /// Appended to the path.
    pub path_suffix: Option<String>,
}

/// A line that a plugin logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    /// `debug`, `info`, `warn` or `error`.
    pub level: &'static str,
    /// The line.
    pub message: String,
}

/// Why a plugin gave no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Fault {
    /// What kind of fault.
    pub kind: FaultKind,
    /// A sentence for the author.
    pub detail: String,
}

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// It said that it cannot do it.
    Failed,
    /// It ran over its deadline.
    Timeout,
    /// It trapped.
    Trap,
    /// It ran into a limit.
    Limit,
    /// It gave out what must not be sent.
    OutputInvalid,
    /// It did not get to run: too many calls of this tenant wait already.
    Overloaded,
}

impl FaultKind {
    /// Its name among the outcomes of attempts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Failed => "plugin_error",
            Self::Timeout => "plugin_timeout",
            Self::Trap => "plugin_trap",
            Self::Limit => "plugin_limit",
            Self::OutputInvalid => "plugin_output_invalid",
            Self::Overloaded => "plugin_overloaded",
        }
    }
}
