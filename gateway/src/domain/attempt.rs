use std::{borrow::Cow, time::Duration};

use bytes::Bytes;

use crate::domain::{DeadReason, DeliveryKey, PluginName, Timestamp};

/// What set an attempt off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// The delivery's own schedule.
    #[default]
    Schedule,
    /// Somebody asked for it.
    Manual,
    /// A replay.
    Replay,
    /// A test of the endpoint.
    Test,
}

impl Trigger {
    /// Each trigger with its name in the API.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Schedule, "schedule"),
        (Self::Manual, "manual"),
        (Self::Replay, "replay"),
        (Self::Test, "test"),
    ];

    /// Its name in the API.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(it, _)| *it == self).expect("each trigger has a name").1
    }
}

/// How an attempt ended, in the API's words: `delivered`, `filtered`, `http_status`,
/// `redirect_refused`, `timeout`, `dns_failed`, `blocked_address`, `connect_failed`, `tls_expired`,
/// `tls_untrusted`, `tls_wrong_name`, `tls_handshake`, `connection_closed`, `protocol_error`, `response_too_large`, `plugin_…`, `endpoint_disabled`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The word.
    pub name: Cow<'static, str>,
    /// The status the endpoint answered with, if it answered.
    pub status_code: Option<u16>,
    /// A sentence for people.
    pub error: Option<String>,
}

/// A header that is kept as evidence: its name, in small letters, and its value.
pub type KeptHeader = (Cow<'static, str>, String);

/// A plugin that an attempt ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginRun {
    /// Which.
    pub plugin: PluginName,
    /// Which version of it.
    pub version: u32,
    /// SHA-256 of that version's component.
    pub digest: [u8; 32],
    /// `pass`, `drop`, `modified`, `split`, or the kind of its fault: `plugin_timeout`, ….
    pub outcome: String,
    /// How long it ran.
    pub duration: Duration,
}

/// Where the time of an attempt went. A part that did not happen is `None`: a kept connection
/// needs neither look-up nor handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// From when it could have been made to when it was.
    pub queue: Duration,
    /// The endpoint's plugins.
    pub plugin: Option<Duration>,
    /// Name resolution.
    pub resolve: Option<Duration>,
    /// TCP connect.
    pub connect: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// From the request's last byte to the head of the answer.
    pub first_byte: Option<Duration>,
}

/// One request made for a delivery: history, never edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `att_…`.
    pub id: String,
    /// For which delivery.
    pub delivery: DeliveryKey,
    /// 1 for the first.
    pub number: u32,
    /// What set it off.
    pub trigger: Trigger,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, plugins included.
    pub duration: Duration,
    /// Where that time went.
    pub spent: Spent,
    /// How it ended.
    pub outcome: Outcome,
    /// The plugins it ran, in their order.
    pub plugins: Vec<PluginRun>,
    /// How many requests a plugin made of the event, and how many are delivered by now; `None`
    /// where it is one request.
    pub parts: Option<Parts>,
    /// The head of the request as it was sent, if it failed; what may be secret is masked.
    pub request_headers: Vec<KeptHeader>,
    /// The head of the answer, in the order it came.
    pub response_headers: Vec<KeptHeader>,
    /// The first 4 KiB of the answer's body.
    pub response_body: Bytes,
    /// Whether there was more of it.
    pub response_truncated: bool,
    /// What followed.
    pub verdict: Verdict,
}

/// How far a delivery is that consists of several requests. They go in order, so the delivered
/// ones are the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parts {
    /// Delivered, by this attempt and those before.
    pub delivered: u32,
    /// All.
    pub of: u32,
}

/// What follows from an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint accepted it.
    Delivered,
    /// A plugin dropped it, and said why.
    Filtered(String),
    /// Try again then.
    RetryAt(Timestamp),
    /// Given up.
    Dead(DeadReason),
}

#[cfg(test)]
impl Attempt {
    /// An attempt of nothing in particular.
    pub(crate) fn for_tests() -> Self {
        Self {
            id: "att_1".into(),
            delivery: DeliveryKey {
                seq: crate::domain::Seq(1),
                endpoint: crate::domain::EndpointNo(1),
            },
            number: 1,
            trigger: Trigger::Schedule,
            started_at: Timestamp(0),
            duration: Duration::ZERO,
            spent: Spent::default(),
            outcome: Outcome { name: "delivered".into(), status_code: Some(200), error: None },
            plugins: Vec::new(),
            parts: None,
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            response_body: Bytes::new(),
            response_truncated: false,
            verdict: Verdict::Delivered,
        }
    }
}
