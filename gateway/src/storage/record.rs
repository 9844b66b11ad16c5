//! The logical records: what happened, as the history tells it. Everything that chance, clocks
//! or reading decide (ids, due times, numbers) is decided before a record is made, so that
//! folding it is the same each time.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Claim, DeliveryKey, EndpointNo, Seq};
use crate::storage::Result;
use crate::storage::audit::AuditRow;
use crate::storage::catalog_row::{EndpointRow, KeyRow, TenantRow};
use crate::storage::codec::{decode, encode};
use crate::storage::floors::{Floors, RetentionRow};
use crate::storage::health::HealthRow;
use crate::storage::history_row::{Entry, decode_entry};
use crate::storage::ingest::IngestUseRow;
use crate::storage::known_row::{KnownTypeRow, ReplayRow};
use crate::storage::plugin_row::PluginRow;
use crate::storage::stats::StatsRow;
use crate::storage::time::TimeRow;

/// One change of a shard. What is large and comes seldom is boxed: attempts come in masses, and are
/// copied as often as their record is handed on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Record {
    /// Events were accepted, in this order.
    EventsAccepted(Vec<EventRecord>),
    /// All events up to `upto` were given to these endpoints.
    FannedOut { upto: u64, targets: Vec<(u64, Vec<u32>)> },
    /// An attempt ended, or somebody intervened.
    Happened(HistoryRecord),
    /// All deliveries of these endpoints up to these events have history.
    CursorsMoved(Vec<(u32, u64)>),
    /// An endpoint's health changed; nothing is remembered of one that is well.
    HealthNoted { endpoint: u32, health: Option<HealthRow> },
    /// A tenant was made or changed.
    TenantPut(Box<TenantRow>),
    /// A tenant and its catalog are gone.
    TenantDeleted { slug: String, no: u32 },
    /// A key was made.
    KeyPut { tenant_no: u32, key: Box<KeyRow> },
    /// A key was revoked.
    KeyRevoked { tenant_no: u32, id: String },
    /// An endpoint was made or changed.
    EndpointPut { tenant_no: u32, endpoint: Box<EndpointRow> },
    /// An endpoint is gone; its name is kept for its history.
    EndpointDeleted { tenant_no: u32, id: String, no: u32 },
    /// A plugin got a version, or another active one.
    PluginPut { tenant_no: u32, plugin: PluginRow, component: Option<(u32, Bytes)> },
    /// A plugin is gone.
    PluginDeleted { tenant_no: u32, name: String, versions: Vec<u32> },
    /// The operator's key, as SHA-256.
    OperatorKeySet([u8; 32]),
    /// A tenant's data key, wrapped with the master key.
    DataKeyPut { tenant_no: u32, tenant: String, wrapped: Vec<u8> },
    /// The fingerprint of the master key that data keys are wrapped with from now on.
    MasterKeySet([u8; 32]),
    /// A tenant's ingest chain was set.
    IngestPut { tenant_no: u32, chain: Vec<IngestUseRow> },
    /// An event type was described, or described anew.
    EventTypePut { tenant_no: u32, known: KnownTypeRow },
    /// An event type's description is gone.
    EventTypeDeleted { tenant_no: u32, name: String },
    /// A replay was asked for, came further, or ended.
    ReplayPut { tenant_no: u32, replay: Box<ReplayRow> },
    /// Events that a replay gave to an endpoint for the first time.
    Backfilled { endpoint: u32, seqs: Vec<u64> },
    /// Somebody changed something.
    Audited(Box<AuditRow>),
    /// Replays that ended long ago are remembered no more.
    ReplaysForgotten { tenant_no: u32, ids: Vec<String> },
    /// How long a tenant's events are kept was set, or no longer is.
    RetentionPut { tenant_no: u32, kept: Option<RetentionRow> },
    /// Events up to these are beyond retention: nobody is shown them from now on.
    Trimmed(Floors),
    /// The store was in use at this time, by a clock that was believed.
    TimeNoted(TimeRow),
    /// What was counted of attempts until a clean stop; none from the start behind it on.
    StatsKept(Option<StatsRow>),
    /// An event that was accepted before came under a further name.
    NameKept { tenant_no: u32, name: String, row: IdRow },
}

impl Record {
    /// Whether it changes what tenants have configured.
    pub(super) fn is_catalog(&self) -> bool {
        !matches!(
            self,
            Self::EventsAccepted(_)
                | Self::FannedOut { .. }
                | Self::Happened(_)
                | Self::CursorsMoved(_)
                | Self::Backfilled { .. }
                | Self::Audited(_)
                | Self::HealthNoted { .. }
                | Self::Trimmed(_)
                | Self::TimeNoted(_)
                | Self::StatsKept(_)
                | Self::NameKept { .. }
        )
    }
}

/// An accepted event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct EventRecord {
    pub(super) seq: u64,
    pub(super) tenant_no: u32,
    /// The event's row.
    pub(super) row: Bytes,
    /// Names under which it must not be accepted again.
    pub(super) ids: Vec<(String, IdRow)>,
}

/// What is remembered of a name that the producer chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct IdRow {
    pub(super) seq: u64,
    pub(super) event_id: String,
    /// The beginning of SHA-256 over what was published.
    pub(super) digest: [u8; 16],
    pub(super) timestamp: u64,
    pub(super) accepted_at: u64,
}

/// A new entry in a delivery's history, and what it moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct HistoryRecord {
    pub(super) seq: u64,
    pub(super) endpoint: u32,
    pub(super) tenant_no: u32,
    /// The entry's number within the delivery; the first is 0.
    pub(super) entry: u32,
    /// The entry's row.
    pub(super) row: Bytes,
    /// The digest of its ordering key, or zero.
    pub(super) ordering_key: u64,
    /// The wait that is over now: the share's code and the due time.
    pub(super) retry_was: Option<(u8, u64)>,
    /// The retry that follows.
    pub(super) retry: Option<(u64, RetryRow)>,
    /// Since when it was a dead letter, which is over now.
    pub(super) dead_was: Option<u64>,
    /// It is a dead letter from now on: when, and the reason's code.
    pub(super) dead: Option<(u64, u8)>,
}

impl HistoryRecord {
    /// What happened.
    pub(super) fn entry(&self) -> Result<Entry> {
        let endpoint = EndpointNo(self.endpoint);
        decode_entry(DeliveryKey { seq: Seq(self.seq), endpoint }, &self.row)
    }
}

/// A delivery that waits for another attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct RetryRow {
    /// Attempts made.
    pub(super) attempts: u32,
    /// Attempts made since it was last started over.
    pub(super) round: u32,
    /// Entries in its history.
    pub(super) entries: u32,
    /// What sets the next attempt off, as a code.
    pub(super) trigger: u8,
    /// The digest of its ordering key, or zero.
    pub(super) ordering_key: u64,
    /// Whose capacity the next attempt uses, as a code.
    pub(super) share: u8,
    /// Whether later deliveries of the same ordering key wait for it.
    pub(super) holds: bool,
    /// Requests of it that are delivered, where a plugin made several of the event.
    pub(super) parts_delivered: u32,
}

/// The shares that wait on disk. The place is the code: new ones go to the end.
pub(super) const WAITING_SHARES: [Claim; 3] = [Claim::Retry, Claim::Asked, Claim::Bulk];

impl RetryRow {
    /// A row of this share, with nothing else set.
    pub(super) fn of(share: Claim) -> Self {
        let code = WAITING_SHARES.iter().position(|it| *it == share).unwrap_or_default();
        Self { share: code as u8, ..Self::default() }
    }

    pub(super) fn share(&self) -> Claim {
        WAITING_SHARES.get(usize::from(self.share)).copied().unwrap_or(Claim::Retry)
    }
}

/// The records of one batch, as a journal of records keeps them.
pub(super) fn encode_records(records: &[Record]) -> Bytes {
    encode(&records)
}

pub(super) fn decode_records(bytes: &[u8]) -> Result<Vec<Record>> {
    decode(bytes)
}
