use std::{sync::Arc, time::Duration};

use crate::plugins::{Answer, Artifact, Asked, EventIn, Limits, Question, Verdict};

/// One question for one plugin.
#[derive(Clone)]
pub struct Call<Q = EventIn> {
    /// On whose account it runs.
    pub tenant: Arc<str>,
    /// The plugin.
    pub artifact: Arc<Artifact>,
    /// What it is configured with.
    pub config: Vec<(String, String)>,
    /// What it is asked.
    pub question: Q,
    /// What it may use; `None`: what the host's settings say.
    pub limits: Option<Limits>,
    /// Whether somebody only tries the plugin out: nothing comes of it, and no metric counts it.
    pub dry: bool,
}

impl<Q: Asked> Call<Q> {
    pub(super) fn untyped(self) -> Call<Question> {
        let Self { tenant, artifact, config, question, limits, dry } = self;
        Call { tenant, artifact, config, question: question.into_question(), limits, dry }
    }
}

/// How a call ended.
#[derive(Debug, Clone)]
pub struct Called<A = Verdict> {
    /// What the plugin says, or why it could not.
    pub verdict: Result<A, Fault>,
    /// What came of it, in a word: `pass`, `drop`, `modified`, …, or the kind of fault.
    pub result: &'static str,
    /// What it logged.
    pub logs: Vec<LogLine>,
    /// How long it ran.
    pub duration: Duration,
    /// Fuel it spent, where the host counts it.
    pub fuel: Option<u64>,
}

impl Called<Answer> {
    pub(super) fn new(verdict: Result<Answer, Fault>) -> Self {
        let result = match &verdict {
            Ok(answer) => answer.name(),
            Err(fault) => fault.kind.name(),
        };
        Self { verdict, result, logs: Vec::new(), duration: Duration::ZERO, fuel: None }
    }

    pub(super) fn typed<Q: Asked>(self) -> Called<Q::Answer> {
        let Self { verdict, result, logs, duration, fuel } = self;
        let verdict = verdict.map(|it| Q::from_answer(it).expect("it answers what was asked"));
        Called { verdict, result, logs, duration, fuel }
    }
}

impl Called {
    /// An event that a plugin has no hook for: it passes.
    pub fn passing() -> Self {
        let (logs, duration) = (Vec::new(), Duration::ZERO);
        Self { verdict: Ok(Verdict::Deliver), result: "pass", logs, duration, fuel: None }
    }
}

impl<A> Called<A> {
    /// A call that could not be made, and why.
    pub fn fault(kind: FaultKind, detail: impl Into<String>) -> Self {
        let verdict = Err(Fault { kind, detail: detail.into() });
        let (logs, duration) = (Vec::new(), Duration::ZERO);
        Self { verdict, result: kind.name(), logs, duration, fuel: None }
    }
}

impl<A: PartialEq> Called<A> {
    /// Whether another call said the same; how a fault is worded does not matter.
    pub fn says_as(&self, other: &Self) -> bool {
        match (&self.verdict, &other.verdict) {
            (Ok(one), Ok(other)) => one == other,
            (Err(one), Err(other)) => one.kind == other.kind,
            _ => false,
        }
    }
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

impl Fault {
    /// The plugin's own words.
    pub(super) fn failed(detail: String) -> Self {
        Self { kind: FaultKind::Failed, detail }
    }

    pub(super) fn invalid(detail: impl Into<String>) -> Self {
        Self { kind: FaultKind::OutputInvalid, detail: detail.into() }
    }

    pub(super) fn limit(detail: impl Into<String>) -> Self {
        Self { kind: FaultKind::Limit, detail: detail.into() }
    }
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
    /// It was not run: it failed too often in a row.
    Suspended,
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
            Self::Suspended => "plugin_suspended",
            Self::Overloaded => "plugin_overloaded",
        }
    }
}
