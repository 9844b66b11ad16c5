use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::domain::{EndpointNo, EventId, EventType, Seq, Slug, TenantNo, Timestamp, TraceContext};
use crate::storage::codec::decode;
use crate::storage::names::compare;
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

/// An event on its way in.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The producer's own id, if it chose one.
    pub id: Option<EventId>,
    /// The id it gets unless another event has it.
    pub preferred_id: Option<EventId>,
    /// Where it comes from with its name there: what comes from there again is the same event.
    pub origin: Option<String>,
    /// The request's `Idempotency-Key`, if it had one.
    pub idempotency_key: Option<String>,
    /// What happened.
    pub event_type: EventType,
    /// When, if the producer says.
    pub timestamp: Option<Timestamp>,
    /// What keeps its order.
    pub ordering_key: Option<String>,
    /// Facts beside the data.
    pub metadata: BTreeMap<String, String>,
    /// Which of them came as a JSON number or boolean. That does not tell a repeated event from
    /// another.
    pub literals: BTreeSet<String>,
    /// A JSON text.
    pub data: Bytes,
    /// The only endpoint that shall have it.
    pub only: Option<EndpointNo>,
    /// The trace it belongs to. It does not tell a repeated event from another.
    pub trace: Option<TraceContext>,
    /// How many deliveries, each published again, led to it. It does not tell a repeated event from
    /// another either.
    pub hops: u32,
    pub(super) digest: Option<[u8; 16]>,
}

impl NewEvent {
    /// An event with nothing but what it needs.
    pub fn new(event_type: EventType, data: Bytes) -> Self {
        Self {
            id: None,
            preferred_id: None,
            origin: None,
            idempotency_key: None,
            event_type,
            timestamp: None,
            ordering_key: None,
            metadata: BTreeMap::new(),
            literals: BTreeSet::new(),
            data,
            only: None,
            trace: None,
            hops: 0,
            digest: None,
        }
    }

    /// The names under which it must be stored only once. Ids and keys have separate spaces.
    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        let id = self.id.as_ref().map(|it| format!("i:{it}"));
        let key = self.key_name();
        let origin = self.origin.as_ref().map(|it| format!("o:{it}"));
        id.into_iter().chain(key).chain(origin)
    }

    /// The name that its idempotency key is.
    pub(super) fn key_name(&self) -> Option<String> {
        self.idempotency_key.as_ref().map(|it| format!("k:{it}"))
    }

    /// Takes the digests of events of one list: under the same key another list is another body.
    /// What has an id of its own is the same event in any list.
    pub fn seal_together(events: &mut [Self]) {
        let mut whole = Sha256::new();
        for event in events.iter_mut() {
            event.seal();
            whole.update(event.digest.unwrap_or_default());
        }
        for event in events.iter_mut().filter(|it| it.id.is_none() && it.origin.is_none()) {
            let mut digest = whole.clone();
            digest.update(event.digest.unwrap_or_default());
            event.digest = Some(shortened(&digest.finalize()));
        }
    }

    /// Takes the digest that tells a repeated event from another one under the same name.
    /// Taken once: what a plugin makes of the event afterwards does not count.
    pub fn seal(&mut self) {
        let unnamed = self.id.is_none() && self.idempotency_key.is_none() && self.origin.is_none();
        if unnamed || self.digest.is_some() {
            return;
        }
        let mut digest = Sha256::new();
        let mut part = |bytes: &[u8]| {
            digest.update((bytes.len() as u64).to_le_bytes());
            digest.update(bytes);
        };
        part(self.event_type.as_str().as_bytes());
        part(&self.data);
        part(self.id.as_ref().map_or("", EventId::as_str).as_bytes());
        part(self.ordering_key.as_deref().unwrap_or_default().as_bytes());
        part(&self.timestamp.map_or([0; 8], |it| it.0.to_le_bytes()));
        for (key, value) in &self.metadata {
            part(key.as_bytes());
            part(value.as_bytes());
        }
        let digest = digest.finalize();
        self.digest = Some(shortened(&digest));
    }
}

fn shortened(digest: &[u8]) -> [u8; 16] {
    digest[..16].try_into().expect("sixteen bytes")
}

/// What became of an event that was to be accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    New {
        /// Its id.
        id: EventId,
        /// Its time.
        timestamp: Timestamp,
        /// Its place.
        seq: Seq,
    },
    /// It was accepted before, within the tenant's window.
    Duplicate {
        /// The id it has.
        id: EventId,
        /// The time it has.
        timestamp: Timestamp,
    },
    /// Another event has this name already.
    Conflict,
    /// Nothing is wrong with it, but it was to be stored with others or not at all.
    NotStored,
}

/// Events to be accepted for one tenant.
pub(super) struct Append {
    pub(super) tenant: Slug,
    pub(super) tenant_no: TenantNo,
    pub(super) events: Vec<NewEvent>,
    /// All or none.
    pub(super) atomic: bool,
}

impl Shard {
    /// Whether storing a sealed event would find its name taken, and will for as long as this: what
    /// it comes to is then a duplicate or a conflict.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn knows(
        &self,
        tenant_no: TenantNo,
        event: &NewEvent,
        for_at_least: Duration,
    ) -> Result<bool> {
        if event.digest.is_none() {
            return Ok(false);
        }
        let window = self.config.idempotency_window.saturating_sub(for_at_least);
        for name in event.names() {
            let row = self.view.get(Table::Ids, &self.no.id(tenant_no, &name))?;
            let Some(row) = row else { continue };
            if compare(&decode(&row)?, event, self.clock.now(), window).is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
