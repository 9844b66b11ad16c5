use std::{borrow::Cow, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{
    Attempt, DeadReason, DeliveryKey, DeliveryState, KeptHeader, Outcome, Parts, PluginName,
    PluginRun, Spent, Timestamp, Trigger, Verdict,
};
use crate::storage::codec::{decode_with_tail, encode_with_tail};
use crate::storage::{Error, Result};

/// Something that happened to a delivery. Its last entry tells its state.
#[expect(clippy::large_enum_variant, reason = "attempts are what most entries are")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// An attempt ended.
    Attempt(Attempt),
    /// Somebody asked for another attempt.
    Requeued {
        /// When.
        at: Timestamp,
        /// On whose behalf.
        trigger: Trigger,
        /// When the attempt is due.
        due: Timestamp,
    },
    /// Given up without an attempt.
    GivenUp {
        /// When.
        at: Timestamp,
        /// Why.
        reason: DeadReason,
    },
    /// Withdrawn: the endpoint or the dead letter was deleted.
    Cancelled {
        /// When.
        at: Timestamp,
    },
    /// What was asked for was withdrawn before it was attempted: it stands as it stood.
    Restored {
        /// When.
        at: Timestamp,
        /// How it had ended.
        verdict: Verdict,
    },
}

impl Entry {
    /// Where a delivery with this last entry stands.
    pub fn state(&self) -> DeliveryState {
        match self {
            Self::Attempt(Attempt { verdict, .. }) | Self::Restored { verdict, .. } => {
                match verdict {
                    Verdict::Delivered => DeliveryState::Delivered,
                    Verdict::Filtered(reason) => DeliveryState::Filtered { reason: reason.clone() },
                    Verdict::RetryAt(due) => DeliveryState::Retrying { due: *due },
                    Verdict::Dead(reason) => DeliveryState::Dead { reason: *reason },
                }
            }
            Self::Requeued { due, .. } => DeliveryState::Retrying { due: *due },
            Self::GivenUp { reason, .. } => DeliveryState::Dead { reason: *reason },
            Self::Cancelled { .. } => DeliveryState::Cancelled,
        }
    }

    /// When it happened.
    pub fn at(&self) -> Timestamp {
        match self {
            Self::Attempt(it) => it.started_at + it.duration,
            Self::Requeued { at, .. }
            | Self::GivenUp { at, .. }
            | Self::Cancelled { at }
            | Self::Restored { at, .. } => *at,
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "the large one is the one that comes in masses")]
#[derive(Serialize, Deserialize)]
enum Head<'a> {
    #[serde(borrow)]
    Attempt(AttemptHead<'a>),
    Requeued {
        at: u64,
        trigger: u8,
        due: u64,
    },
    GivenUp {
        at: u64,
        reason: u8,
    },
    Cancelled {
        at: u64,
    },
    Restored {
        at: u64,
        verdict: VerdictRow,
    },
}

/// Written from what an attempt has, without copies of it.
#[derive(Serialize, Deserialize)]
struct AttemptHead<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    number: u32,
    trigger: u8,
    started_at: u64,
    duration_us: u64,
    spent_us: SpentRow,
    #[serde(borrow)]
    outcome: Cow<'a, str>,
    status_code: Option<u16>,
    #[serde(borrow)]
    error: Option<Cow<'a, str>>,
    plugins: Vec<PluginRunRow>,
    /// Delivered, and all.
    parts: Option<(u32, u32)>,
    request_headers: Cow<'a, [KeptHeader]>,
    response_headers: Cow<'a, [KeptHeader]>,
    response_truncated: bool,
    verdict: VerdictRow,
}

/// Queue, plugin, resolve, connect, TLS, first byte; in microseconds.
type SpentRow = (u64, [Option<u64>; 5]);

#[derive(Serialize, Deserialize)]
struct PluginRunRow {
    plugin: String,
    version: u32,
    digest: [u8; 32],
    outcome: String,
    duration_us: u64,
}

#[derive(Serialize, Deserialize)]
enum VerdictRow {
    Delivered,
    Filtered(String),
    RetryAt(u64),
    Dead(u8),
}

impl From<&Verdict> for VerdictRow {
    fn from(it: &Verdict) -> Self {
        match it {
            Verdict::Delivered => Self::Delivered,
            Verdict::Filtered(reason) => Self::Filtered(reason.clone()),
            Verdict::RetryAt(due) => Self::RetryAt(due.0),
            Verdict::Dead(reason) => Self::Dead(reason_code(*reason)),
        }
    }
}

impl From<VerdictRow> for Verdict {
    fn from(it: VerdictRow) -> Self {
        match it {
            VerdictRow::Delivered => Self::Delivered,
            VerdictRow::Filtered(reason) => Self::Filtered(reason),
            VerdictRow::RetryAt(due) => Self::RetryAt(Timestamp(due)),
            VerdictRow::Dead(reason) => Self::Dead(reason_of(reason)),
        }
    }
}

pub(super) fn encode_entry(entry: &Entry) -> Bytes {
    match entry {
        Entry::Attempt(it) => {
            encode_with_tail(&Head::Attempt(AttemptHead::from(it)), &it.response_body)
        }
        Entry::Requeued { at, trigger, due } => {
            let head = Head::Requeued { at: at.0, trigger: trigger_code(*trigger), due: due.0 };
            encode_with_tail(&head, &[])
        }
        Entry::GivenUp { at, reason } => {
            encode_with_tail(&Head::GivenUp { at: at.0, reason: reason_code(*reason) }, &[])
        }
        Entry::Cancelled { at } => encode_with_tail(&Head::Cancelled { at: at.0 }, &[]),
        Entry::Restored { at, verdict } => {
            encode_with_tail(&Head::Restored { at: at.0, verdict: verdict.into() }, &[])
        }
    }
}

pub(super) fn decode_entry(delivery: DeliveryKey, row: &Bytes) -> Result<Entry> {
    let (head, body) = decode_with_tail(row)?;
    Ok(match head {
        Head::Attempt(head) => Entry::Attempt(head.into_attempt(delivery, body)?),
        Head::Requeued { at, trigger, due } => {
            Entry::Requeued { at: Timestamp(at), trigger: trigger_of(trigger), due: Timestamp(due) }
        }
        Head::GivenUp { at, reason } => {
            Entry::GivenUp { at: Timestamp(at), reason: reason_of(reason) }
        }
        Head::Cancelled { at } => Entry::Cancelled { at: Timestamp(at) },
        Head::Restored { at, verdict } => {
            Entry::Restored { at: Timestamp(at), verdict: verdict.into() }
        }
    })
}

impl<'a> From<&'a Attempt> for AttemptHead<'a> {
    fn from(it: &'a Attempt) -> Self {
        Self {
            id: it.id.as_str().into(),
            number: it.number,
            trigger: trigger_code(it.trigger),
            started_at: it.started_at.0,
            duration_us: micros(it.duration),
            spent_us: spent_row(&it.spent),
            outcome: (&*it.outcome.name).into(),
            status_code: it.outcome.status_code,
            error: it.outcome.error.as_deref().map(Cow::from),
            request_headers: it.request_headers.as_slice().into(),
            plugins: it.plugins.iter().map(PluginRunRow::from).collect(),
            parts: it.parts.map(|it| (it.delivered, it.of)),
            response_headers: it.response_headers.as_slice().into(),
            response_truncated: it.response_truncated,
            verdict: (&it.verdict).into(),
        }
    }
}

impl AttemptHead<'_> {
    fn into_attempt(self, delivery: DeliveryKey, response_body: Bytes) -> Result<Attempt> {
        Ok(Attempt {
            id: self.id.into_owned(),
            delivery,
            number: self.number,
            trigger: trigger_of(self.trigger),
            started_at: Timestamp(self.started_at),
            duration: Duration::from_micros(self.duration_us),
            spent: spent_of(self.spent_us),
            outcome: Outcome {
                name: self.outcome.into_owned().into(),
                status_code: self.status_code,
                error: self.error.map(Cow::into_owned),
            },
            parts: self.parts.map(|(delivered, of)| Parts { delivered, of }),
            plugins: self
                .plugins
                .into_iter()
                .map(PluginRunRow::into_noun)
                .collect::<Result<_>>()?,
            request_headers: self.request_headers.into_owned(),
            response_headers: self.response_headers.into_owned(),
            response_body,
            response_truncated: self.response_truncated,
            verdict: self.verdict.into(),
        })
    }
}

impl From<&PluginRun> for PluginRunRow {
    fn from(it: &PluginRun) -> Self {
        Self {
            plugin: it.plugin.to_string(),
            version: it.version,
            digest: it.digest,
            outcome: it.outcome.clone(),
            duration_us: micros(it.duration),
        }
    }
}

impl PluginRunRow {
    fn into_noun(self) -> Result<PluginRun> {
        Ok(PluginRun {
            plugin: PluginName::parse(&self.plugin).ok_or_else(|| Error::corrupt("plugin name"))?,
            version: self.version,
            digest: self.digest,
            outcome: self.outcome,
            duration: Duration::from_micros(self.duration_us),
        })
    }
}

fn micros(it: Duration) -> u64 {
    u64::try_from(it.as_micros()).unwrap_or(u64::MAX)
}

fn spent_row(it: &Spent) -> SpentRow {
    let parts = [it.plugin, it.resolve, it.connect, it.tls, it.first_byte];
    (micros(it.queue), parts.map(|it| it.map(micros)))
}

fn spent_of((queue, parts): SpentRow) -> Spent {
    let [plugin, resolve, connect, tls, first_byte] = parts.map(|it| it.map(Duration::from_micros));
    let queue = Duration::from_micros(queue);
    Spent { queue, plugin, resolve, connect, tls, first_byte }
}

/// The place in the table of names is the code on disk: new names go to the end.
pub(super) fn trigger_code(trigger: Trigger) -> u8 {
    Trigger::NAMES.iter().position(|(it, _)| *it == trigger).expect("each has a name") as u8
}

pub(super) fn trigger_of(code: u8) -> Trigger {
    Trigger::NAMES.get(usize::from(code)).map_or(Trigger::Schedule, |(it, _)| *it)
}

pub(super) fn reason_code(reason: DeadReason) -> u8 {
    DeadReason::NAMES.iter().position(|(it, _)| *it == reason).expect("each has a name") as u8
}

pub(super) fn reason_of(code: u8) -> DeadReason {
    DeadReason::NAMES.get(usize::from(code)).map_or(DeadReason::Expired, |(it, _)| *it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointNo, Seq};

    #[test]
    fn entries_come_back_as_they_were() {
        let delivery = DeliveryKey { seq: Seq(3), endpoint: EndpointNo(4) };
        let attempt = Attempt {
            id: "att_1".into(),
            delivery,
            number: 2,
            trigger: Trigger::Replay,
            started_at: Timestamp(5),
            duration: Duration::from_micros(77),
            spent: Spent {
                queue: Duration::from_millis(3),
                first_byte: Some(Duration::from_micros(60)),
                ..Spent::default()
            },
            outcome: Outcome {
                name: "http_status".into(),
                status_code: Some(500),
                error: Some("no".into()),
            },
            parts: Some(Parts { delivered: 1, of: 3 }),
            plugins: vec![PluginRun {
                plugin: PluginName::parse("redact").unwrap(),
                version: 3,
                digest: [7; 32],
                outcome: "rewrite".into(),
                duration: Duration::from_micros(21),
            }],
            request_headers: vec![("content-type".into(), "application/json".into())],
            response_headers: vec![("server".into(), "x".into())],
            response_body: Bytes::from_static(b"\x00\xff"),
            response_truncated: true,
            verdict: Verdict::Dead(DeadReason::Gone),
        };
        let at = Timestamp(9);
        for entry in [
            Entry::Attempt(attempt),
            Entry::Requeued { at, trigger: Trigger::Manual, due: Timestamp(10) },
            Entry::GivenUp { at, reason: DeadReason::EndpointDisabled },
            Entry::Cancelled { at },
            Entry::Restored { at, verdict: Verdict::Filtered("odd".into()) },
        ] {
            assert_eq!(decode_entry(delivery, &encode_entry(&entry)).unwrap(), entry);
        }
    }
}
