//! Whatever bytes lie on the disk, reading them ends in a value or an error.

use bytes::Bytes;

use crate::domain::{
    DeliveryKey, EndpointNo, Event, EventId, EventType, Seq, Slug, TenantNo, TraceContext,
};
use crate::storage::audit::AuditRow;
use crate::storage::catalog_row::{EndpointRow, KeyRow, TenantRow};
use crate::storage::codec::decode;
use crate::storage::event_row::{decode_event, encode_event};
use crate::storage::floors::{Floors, RetentionRow};
use crate::storage::fold::{Meta, undelta};
use crate::storage::health::HealthRow;
use crate::storage::history_row::{decode_entry, encode_entry};
use crate::storage::ingest::IngestUseRow;
use crate::storage::keys::{delivery_at, retry_at, u32_at, u64_at};
use crate::storage::known_row::{KnownTypeRow, ReplayRow};
use crate::storage::plugin_row::PluginRow;
use crate::storage::record::{
    EventRecord, IdRow, Record, RetryRow, decode_records, encode_records,
};
use crate::storage::{Entry, fjall};

pub use fjall::fuzz::{backup, backup_seeds, files, files_seeds, marks, marks_seeds};

const DELIVERY: DeliveryKey = DeliveryKey { seq: Seq(1), endpoint: EndpointNo(1) };

/// A row of any table, and a key.
pub fn row(bytes: &[u8]) {
    let row = Bytes::copy_from_slice(bytes);
    if let Ok(event) = decode_event(Seq(1), &row) {
        let again = decode_event(Seq(1), &encode_event(&event));
        assert_eq!(again.expect("it was written just now"), event);
    }
    if let Ok(entry) = decode_entry(DELIVERY, &row) {
        let again = decode_entry(DELIVERY, &encode_entry(&entry));
        assert_eq!(again.expect("it was written just now"), entry);
    }
    let _ = decode::<Meta>(&row);
    let _ = decode::<Floors>(&row);
    let _ = decode::<RetentionRow>(&row).map(RetentionRow::into_noun);
    let _ = decode::<IdRow>(&row);
    let _ = decode::<RetryRow>(&row).map(|it| it.share());
    let _ = decode::<HealthRow>(&row);
    let _ = decode::<Vec<IngestUseRow>>(&row);
    let _ = decode::<TenantRow>(&row).map(|it| it.into_noun().is_ok());
    let _ = decode::<KeyRow>(&row).map(|it| it.into_noun().is_ok());
    let _ = decode::<PluginRow>(&row).map(|it| it.into_noun().is_ok());
    let _ = decode::<KnownTypeRow>(&row).map(|it| it.into_noun().is_ok());
    let _ = decode::<ReplayRow>(&row).map(|it| it.into_noun().is_ok());
    let _ = decode::<AuditRow>(&row).map(|it| it.into_noun(1).is_ok());
    // Without its tenant's key it stays sealed.
    let _ = decode::<EndpointRow>(&row).map(|it| it.into_noun(None).is_ok());
    let _ = decode::<Vec<(u64, Vec<u32>)>>(&row);
    let _ = decode::<Vec<u64>>(&row).map(|it| undelta(&it).len());
    let _ = (u64_at(&row, 0), u32_at(&row, 12), delivery_at(&row, 8), retry_at(&row).is_ok());
}

/// An event, an entry, and what has only a version.
pub fn row_seeds() -> Vec<Vec<u8>> {
    let at = crate::domain::Timestamp(1_800_000_000_000);
    let withdrawn = encode_entry(&Entry::Cancelled { at });
    vec![encode_event(&event()).to_vec(), withdrawn.to_vec(), vec![1], vec![1, 20, 0, 0, 0]]
}

/// The records of a batch.
pub fn records(bytes: &[u8]) {
    if let Ok(records) = decode_records(bytes) {
        // Compared as they are written: a number that is none is not like itself.
        let written = encode_records(&records);
        let again = decode_records(&written).expect("they were written just now");
        assert_eq!(encode_records(&again), written);
    }
}

/// A batch as a producer, the fan-out and a delivery make it.
pub fn record_seeds() -> Vec<Vec<u8>> {
    let (row, ids) = (encode_event(&event()), Vec::new());
    let accepted = EventRecord { seq: 1, tenant_no: 1, row, ids };
    let records = [
        Record::EventsAccepted(vec![accepted]),
        Record::FannedOut { upto: 1, targets: vec![(1, vec![1, 2])] },
        Record::CursorsMoved(vec![(1, 1)]),
        Record::HealthNoted { endpoint: 1, health: None },
        Record::TenantDeleted { slug: "acme".to_owned(), no: 1 },
        Record::Trimmed(Floors::default()),
    ];
    vec![encode_records(&records).to_vec(), encode_records(&[]).to_vec()]
}

fn event() -> Event {
    let at = crate::domain::Timestamp(1_800_000_000_000);
    Event {
        seq: Seq(1),
        id: EventId::derived(at, Seq(1), 0),
        tenant: Slug::default_tenant(),
        tenant_no: TenantNo(1),
        event_type: EventType::parse("order.created").expect("a type"),
        timestamp: at,
        accepted_at: at,
        ordering_key: Some("k".to_owned()),
        metadata: [("region".to_owned(), "eu".to_owned())].into(),
        data: Bytes::from_static(b"{\"n\":1}"),
        only: None,
        trace: TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        hops: 2,
        literals: ["region".to_owned()].into(),
    }
}
