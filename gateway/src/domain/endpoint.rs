use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use crate::domain::event::{can_be_chosen, has_id_form};
use crate::domain::{
    ClientTls, Event, EventType, Filter, Pattern, PluginName, Retry, Secret, Signature,
    SigningSecret, Slug, Timestamp, TracePolicy, TypeId,
};

/// An endpoint's number within its shard: short enough for every key, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointNo(pub u32);

/// An endpoint's id: drawn by the gateway (`ep_…`) or chosen by the caller.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointId(Arc<str>);

impl EndpointId {
    /// Checks the form: 1 to 64 of `A-Za-z0-9._-`.
    pub fn parse(text: &str) -> Option<Self> {
        has_id_form(text).then(|| Self(text.into()))
    }

    /// Checks a caller's own id for a new endpoint: no URL can say `.` and `..`.
    pub fn choose(text: &str) -> Option<Self> {
        Self::parse(text).filter(|_| can_be_chosen(text))
    }

    /// A new id from 74 random bits.
    pub fn drawn(at: Timestamp, random: u128) -> Self {
        Self(TypeId::new("ep", at, random).to_string().into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What becomes of a delivery when one of its plugins fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// A failed attempt, to be repeated.
    #[default]
    Retry,
    /// A dead letter at once.
    DeadLetter,
    /// Deliver what went into the plugin.
    Pass,
    /// As if the plugin had dropped it.
    Drop,
}

impl OnError {
    /// Each policy with its name in the API.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Retry, "retry"),
        (Self::DeadLetter, "dead_letter"),
        (Self::Pass, "pass"),
        (Self::Drop, "drop"),
    ];
}

/// A plugin in an endpoint's chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginUse {
    /// Which plugin of the tenant.
    pub plugin: PluginName,
    /// A fixed version; `None` follows the active one.
    pub version: Option<u32>,
    /// What the plugin is configured with.
    pub config: BTreeMap<String, String>,
    /// What becomes of the delivery when it fails.
    pub on_error: OnError,
}

/// The shape of the body an endpoint receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `{"id","type","timestamp","data"}`.
    #[default]
    Envelope,
    /// The data alone, byte for byte.
    Raw,
    /// CloudEvents 1.0, structured mode.
    CloudEvents,
    /// CloudEvents 1.0, binary mode.
    CloudEventsBinary,
}

impl Format {
    /// Each format with its name in the API.
    pub const NAMES: [(Self, &'static str); 4] = [
        (Self::Envelope, "envelope"),
        (Self::Raw, "raw"),
        (Self::CloudEvents, "cloudevents"),
        (Self::CloudEventsBinary, "cloudevents-binary"),
    ];
}

/// Which order an endpoint's deliveries keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ordering {
    /// None: whatever is ready goes.
    #[default]
    None,
    /// One at a time, in order of acceptance; later events wait for retries.
    Strict,
    /// Strict within an event's ordering key; events without one are not ordered.
    Key,
}

impl Ordering {
    /// Each order with its name in the API.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::None, "none"), (Self::Strict, "strict"), (Self::Key, "key")];
}

/// How fast an endpoint may be sent to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Attempts a second, over time.
    pub per_second: f64,
    /// Attempts at once after a rest.
    pub burst: u32,
}

/// An address that listens, with what it wants and how it wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// Its number in storage keys.
    pub no: EndpointNo,
    /// Unique within its tenant.
    pub id: EndpointId,
    /// Whose endpoint it is.
    pub tenant: Slug,
    /// Where to POST, normalised.
    pub url: String,
    /// For people.
    pub description: String,
    /// The tenant's own notes.
    pub metadata: BTreeMap<String, String>,
    /// The types it wants; none: all.
    pub event_types: Vec<Pattern>,
    /// A further condition.
    pub filter: Option<Filter>,
    /// Its plugins, in the order they run.
    pub plugins: Vec<PluginUse>,
    /// The shape of the body.
    pub format: Format,
    /// Static headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// How deliveries are signed.
    pub signature: Signature,
    /// Signing secrets, newest first; never empty unless they are unavailable.
    pub secrets: Vec<SigningSecret>,
    /// Its secrets, headers and keys lie on disk but cannot be decrypted: nothing can be sent.
    pub secret_unavailable: bool,
    /// What its TLS has of its own.
    pub tls: Option<Arc<ClientTls>>,
    /// Waits between attempts.
    pub retry: Retry,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Which order its deliveries keep.
    pub ordering: Ordering,
    /// Attempts at once.
    pub max_in_flight: u32,
    /// Attempts a second.
    pub rate_limit: Option<RateLimit>,
    /// Whether it is told which trace a delivery belongs to.
    pub trace: TracePolicy,
    /// Whether it takes part.
    pub enabled: bool,
    /// Why the gateway disabled it, if it did.
    pub disabled_reason: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

impl Endpoint {
    /// Whether this event becomes a delivery for this endpoint.
    pub fn wants(&self, event: &Event) -> bool {
        if let Some(only) = event.only {
            return only == self.no;
        }
        self.enabled
            && self.wants_type(&event.event_type)
            && self.filter.as_ref().is_none_or(|it| it.wants(event))
    }

    /// Whether it wants events of this type. The gateway's own events go to those only that ask
    /// for `hookgate.…` by name: whoever asks for everything means everything of the tenant's.
    pub fn wants_type(&self, event_type: &EventType) -> bool {
        let operational = event_type.is_operational();
        let fits = |it: &Pattern| (!operational || it.is_operational()) && it.matches(event_type);
        (self.event_types.is_empty() && !operational) || self.event_types.iter().any(fits)
    }

    /// The secrets that sign at `now`, newest first.
    pub fn secrets_at(&self, now: Timestamp) -> impl Iterator<Item = &Secret> {
        let live = self.secrets.iter().filter(move |it| it.until.is_none_or(|it| now < it));
        live.map(|it| &it.secret)
    }
}
