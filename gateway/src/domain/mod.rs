//! The nouns of the gateway and the rules between them.
//!
//! **Invariant:** nothing here does I/O, awaits, logs, or reads a clock. Time and chance arrive
//! as arguments, so every rule can be tested with plain values.

mod time;
pub use time::Timestamp;

mod span;
pub use span::{duration, parse_duration};

mod retention;
pub use retention::Retention;

mod type_id;
pub use type_id::TypeId;

mod secret;
pub use secret::Secret;

mod signature;
pub use signature::{Scheme, Signature};

mod signing_secret;
pub use signing_secret::SigningSecret;

mod client_tls;
pub use client_tls::ClientTls;

mod quota;
pub use quota::{PluginQuota, Quota};

mod tenant;
pub use tenant::{Slug, Tenant, TenantNo};

mod api_key;
pub use api_key::{ApiKey, Scope};

mod schema_cost;

mod known_type;
pub use known_type::{Budget, KnownType, Schema, Violation};

mod event_type;
pub use event_type::{EventType, Pattern};

mod event;
#[cfg(test)]
pub(crate) use event::tests::event as event_for_tests;
pub use event::{Event, EventId, HOPS_MAX, Seq, part_id};

mod filter;
mod filter_cost;
pub use filter::Filter;

mod endpoint;
pub use endpoint::{
    Endpoint, EndpointId, EndpointNo, Format, OnError, Ordering, PluginUse, RateLimit,
};

mod ingest;
pub use ingest::{IngestUse, OnIngestError};

mod trace;
pub use trace::{TraceContext, TracePolicy};

mod retry;
pub use retry::{Retry, RetryPolicy};

mod delivery;
pub use delivery::{Claim, DeliveryKey, DeliveryState, delivery_id};

mod attempt;
pub use attempt::{Attempt, KeptHeader, Outcome, Parts, PluginRun, Spent, Trigger, Verdict};

mod dead_letter;
pub use dead_letter::{DeadLetter, DeadReason};

mod replay;
pub use replay::{Replay, ReplayState};

mod audit;
pub use audit::AuditRecord;

mod judge;
pub use judge::{Judgement, judge};

mod share;
pub use share::Share;

mod health;
pub use health::{Breaker, Health};

mod plugin;
pub use plugin::{Canary, Plugin, PluginName, PluginVersion};

pub mod header;
pub mod payload;
