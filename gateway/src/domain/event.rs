use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use bytes::Bytes;

use crate::domain::{EventType, Slug, TenantNo, Timestamp, TraceContext, TypeId};

/// From so many hops on an event is a loop: it has been delivered as often and was published again
/// each time. Chains of gateways are shorter.
pub const HOPS_MAX: u32 = 3;
const ID_CHARS_MAX: usize = 64;
/// Bits of a derived id that hold the sequence number; the rest tell siblings apart.
const SEQ_BITS: u32 = 44;

/// An event's place in its shard's log. Later events have greater numbers; the first is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

impl Seq {
    /// The place after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An event's id: drawn by the gateway (`evt_…`) or chosen by the producer, 1 to 64 of
/// `A-Za-z0-9._-`. A dot would make the signed content ambiguous, but producers' ids have them
/// and all verifiers accept them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        has_id_form(text).then(|| Self(text.into()))
    }

    /// Checks a producer's own id for a new event.
    pub fn choose(text: &str) -> Option<Self> {
        Self::parse(text).filter(|_| can_be_chosen(text))
    }

    /// The id of the event at `seq`. It carries its place, so that looking it up needs no index.
    pub fn derived(at: Timestamp, seq: Seq, salt: u64) -> Self {
        let low = u128::from(salt) & ((1 << (TypeId::TAIL_BITS - SEQ_BITS)) - 1);
        let tail = (u128::from(seq.0) << (TypeId::TAIL_BITS - SEQ_BITS)) | low;
        Self(TypeId::new("evt", at, tail).with_text(|it| it.into()))
    }

    /// Where an event of this id lies if the gateway drew the id.
    pub fn place(&self) -> Option<Seq> {
        let id = TypeId::parse("evt", &self.0)?;
        Some(Seq((id.tail() >> (TypeId::TAIL_BITS - SEQ_BITS)) as u64))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id of the request at `place` among those that a plugin made of the event.
    pub fn part(&self, place: usize) -> Self {
        Self(part_id(&self.0, place).into())
    }
}

/// Whether a caller may give this id to something new. URLs cannot say `.` and `..`, nor
/// percent-encoded (<https://url.spec.whatwg.org/#double-dot-path-segment>).
pub(crate) fn can_be_chosen(id: &str) -> bool {
    !matches!(id, "." | "..")
}

/// Whether an event's or an endpoint's id looks like this.
pub(crate) fn has_id_form(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'.' | b'_' | b'-');
    (1..=ID_CHARS_MAX).contains(&text.len()) && text.bytes().all(plain)
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The `webhook-id` of the request at `place`, from 0, where a plugin made several of one event:
/// `order-7~1`. It is the same on each retry and cannot be another event's, since no event's id
/// has a `~` or `:`; and it has no dot, which would make the signed content ambiguous.
pub fn part_id(event_id: &str, place: usize) -> String {
    format!("{}~{}", event_id.replace('.', ":"), place + 1)
}

/// Something that happened at a tenant, as published. Immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its place in the shard's log.
    pub seq: Seq,
    /// Unique within its tenant.
    pub id: EventId,
    /// Whose event it is.
    pub tenant: Slug,
    /// The tenant's number.
    pub tenant_no: TenantNo,
    /// What happened.
    pub event_type: EventType,
    /// When it happened, as the producer says; else when it was accepted.
    pub timestamp: Timestamp,
    /// When the gateway accepted it.
    pub accepted_at: Timestamp,
    /// Events with the same key keep their order at endpoints that ask for it.
    pub ordering_key: Option<String>,
    /// Facts beside the data, for filters and plugins.
    pub metadata: BTreeMap<String, String>,
    /// Which of them, attributes of a CloudEvent, came as a JSON number or boolean.
    pub literals: BTreeSet<String>,
    /// The data as it came: a JSON text.
    pub data: Bytes,
    /// The only endpoint that shall have it (a test event); `None`: whoever subscribes.
    pub only: Option<crate::domain::EndpointNo>,
    /// The trace it belongs to, if its producer or the gateway makes one.
    pub trace: Option<TraceContext>,
    /// How many deliveries, each published again, led to it; 0 for what begins here. Below
    /// [`HOPS_MAX`].
    pub hops: u32,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An event of the default tenant, for other tests.
    pub(crate) fn event(event_type: &str, data: &str) -> Event {
        Event {
            seq: Seq(1),
            id: EventId::derived(Timestamp(1_800_000_000_000), Seq(1), 0),
            tenant: Slug::default_tenant(),
            tenant_no: TenantNo(1),
            event_type: EventType::parse(event_type).unwrap(),
            timestamp: Timestamp(1_800_000_000_000),
            accepted_at: Timestamp(1_800_000_000_000),
            ordering_key: None,
            metadata: BTreeMap::new(),
            literals: BTreeSet::new(),
            data: Bytes::copy_from_slice(data.as_bytes()),
            only: None,
            trace: None,
            hops: 0,
        }
    }

    #[test]
    fn a_derived_id_carries_its_place() {
        let id = EventId::derived(Timestamp(1_800_000_000_000), Seq(123_456_789), u64::MAX);
        assert_eq!(id.place(), Some(Seq(123_456_789)));
        assert_eq!(EventId::parse("order-1").unwrap().place(), None);
    }

    #[test]
    fn parts_have_ids_of_their_own() {
        assert_eq!(part_id("order-7", 0), "order-7~1");
        assert_ne!(part_id("a.b", 1), part_id("a_b", 1));
        assert!(!part_id("a.b", 1).contains('.') && EventId::parse(&part_id("a.b", 1)).is_none());
    }

    #[test]
    fn chosen_ids() {
        for (text, fits) in [("a", true), ("A.b_c-9", true), ("", false), ("a b", false)] {
            assert_eq!(EventId::parse(text).is_some(), fits, "{text}");
        }
        assert!(EventId::parse(&"x".repeat(65)).is_none());
        for (text, fits) in [(".", false), ("..", false), ("...", true), (".a", true), ("", false)]
        {
            assert_eq!(EventId::choose(text).is_some(), fits, "{text}");
        }
    }
}
