use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{EndpointNo, Event, EventId, EventType, Seq, Slug, TenantNo, Timestamp};
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
    encode_with_tail(&head, &event.data)
}

pub(super) fn decode_event(seq: Seq, row: &Bytes) -> Result<Event> {
    let (head, data): (Head<'_>, _) = decode_with_tail(row)?;
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
        data,
        only: head.only.map(EndpointNo),
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
    }
}
