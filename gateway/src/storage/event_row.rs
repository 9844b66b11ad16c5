use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{SeqAccess, Visitor},
};

use crate::domain::{
    EndpointNo, Event, EventId, EventType, Seq, Slug, TenantNo, Timestamp, TraceContext,
};
use crate::storage::codec::{decode_with_tail, encode_with_tail};
use crate::storage::{Error, Result};

/// An event as it is stored: this head, then the data byte for byte.
#[derive(Serialize, Deserialize)]
struct Head<'a> {
    id: &'a str,
    tenant: &'a str,
    tenant_no: u32,
    event_type: &'a str,
    timestamp: u64,
    accepted_at: u64,
    ordering_key: Option<&'a str>,
    metadata: BTreeMap<&'a str, &'a str>,
    only: Option<u32>,
}

/// What came later: it stands behind the head where it says something. A reader that does not
/// know it reads the head alone.
#[derive(Serialize, Deserialize)]
struct More {
    trace: Option<([u8; 16], [u8; 8], u8)>,
}

/// What came later still: the number of hops, behind `More`.
type Hops = u32;

/// And later than that, behind the hops: which metadata came as a JSON number or boolean.
type Literals<'a> = Vec<&'a str>;

/// Head, and what stands behind it.
struct Whole<'a>(Head<'a>, Option<More>, Hops, Literals<'a>);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        let Self(head, more, hops, literals) = self;
        let some = || more.as_ref().unwrap_or(&More { trace: None });
        match (more, hops, &literals[..]) {
            (None, 0, []) => head.serialize(to),
            (Some(more), 0, []) => (head, more).serialize(to),
            (_, _, []) => (head, some(), hops).serialize(to),
            _ => (head, some(), hops, literals).serialize(to),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Whole<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Parts<'a>(std::marker::PhantomData<&'a ()>);
        impl<'de: 'a, 'a> Visitor<'de> for Parts<'a> {
            type Value = Whole<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an event's head")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut parts: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let head = parts.next_element()?;
                let head = head.ok_or_else(|| serde::de::Error::invalid_length(0, &self))?;
                // A row of before ends here, or behind the next.
                let more = parts.next_element().unwrap_or_default();
                let hops = parts.next_element().ok().flatten().unwrap_or_default();
                let literals = parts.next_element().ok().flatten().unwrap_or_default();
                Ok(Whole(head, more, hops, literals))
            }
        }
        from.deserialize_tuple(4, Parts(std::marker::PhantomData))
    }
}

pub(super) fn encode_event(event: &Event) -> Bytes {
    let metadata = event.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let head = Head {
        id: event.id.as_str(),
        tenant: event.tenant.as_str(),
        tenant_no: event.tenant_no.0,
        event_type: event.event_type.as_str(),
        timestamp: event.timestamp.0,
        accepted_at: event.accepted_at.0,
        ordering_key: event.ordering_key.as_deref(),
        metadata: metadata.collect(),
        only: event.only.map(|it| it.0),
    };
    let trace = event.trace.map(|it| More { trace: Some((it.trace, it.span, it.flags)) });
    let literals = event.literals.iter().map(String::as_str).collect();
    encode_with_tail(&Whole(head, trace, event.hops, literals), &event.data)
}

pub(super) fn decode_event(seq: Seq, row: &Bytes) -> Result<Event> {
    let (Whole(head, more, hops, literals), data): (Whole<'_>, _) = decode_with_tail(row)?;
    let trace = more.and_then(|it| it.trace);
    let text = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
    Ok(Event {
        seq,
        id: EventId::parse(head.id).ok_or_else(|| Error::corrupt("event id"))?,
        tenant: Slug::parse(head.tenant).ok_or_else(|| Error::corrupt("tenant"))?,
        tenant_no: TenantNo(head.tenant_no),
        event_type: EventType::parse(head.event_type)
            .ok_or_else(|| Error::corrupt("event type"))?,
        timestamp: Timestamp(head.timestamp),
        accepted_at: Timestamp(head.accepted_at),
        ordering_key: head.ordering_key.map(str::to_owned),
        metadata: head.metadata.into_iter().map(text).collect(),
        literals: literals.into_iter().map(str::to_owned).collect(),
        data,
        only: head.only.map(EndpointNo),
        trace: trace.map(|(trace, span, flags)| TraceContext { trace, span, flags }),
        hops,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_for_tests;

    #[test]
    fn an_event_comes_back_as_it_was() {
        let mut event = event_for_tests("order.created", r#"{"n": 1.0}"#);
        event.metadata.insert("region".into(), "eu".into());
        event.ordering_key = Some("k".into());
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
        event.trace = Some(TraceContext { trace: [7; 16], span: [8; 8], flags: 1 });
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
        event.hops = 2;
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
        event.trace = None;
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
        event.literals.insert("ce-attempt".into());
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
        event.hops = 0;
        assert_eq!(decode_event(event.seq, &encode_event(&event)).unwrap(), event);
    }

    #[test]
    fn rows_without_what_came_later_are_read_and_the_other_way_round() {
        let mut event = event_for_tests("order.created", "{}");
        let before = encode_event(&event);
        event.trace = Some(TraceContext { trace: [7; 16], span: [8; 8], flags: 1 });
        let after = encode_event(&event);
        // The head is as it was; what is new stands behind it.
        assert_eq!(after[5..before.len() - 2], before[5..before.len() - 2]);
        let (head, data): (Head<'_>, _) = decode_with_tail(&after).unwrap();
        assert_eq!((head.id, &data[..]), (event.id.as_str(), &b"{}"[..]));
        let read = decode_event(event.seq, &before).unwrap();
        assert_eq!((read.trace, read.hops), (None, 0));
        // Of before there were hops.
        let read = decode_event(event.seq, &after).unwrap();
        assert_eq!((read.trace, read.hops), (event.trace, 0));
        event.hops = 1;
        let latest = encode_event(&event);
        let trace_ends = 5 + head_len(&after);
        assert_eq!(latest[5..trace_ends], after[5..trace_ends]);
        assert_eq!(head_len(&latest), head_len(&after) + 1);
        // And of before numbers were told from texts.
        let read = decode_event(event.seq, &latest).unwrap();
        assert_eq!((read.hops, read.literals.len()), (1, 0));
        event.literals.insert("ce-n".into());
        let last = encode_event(&event);
        assert_eq!(last[5..5 + head_len(&latest)], latest[5..5 + head_len(&latest)]);
    }

    fn head_len(row: &Bytes) -> usize {
        u32::from_le_bytes(row[1..5].try_into().unwrap()) as usize
    }
}
