//! What is stored once on every backend: a part of [`check`](super::conformance::check).

use std::time::Duration;

use bytes::Bytes;

use crate::domain::{EventId, EventType, Slug};
use crate::storage::conformance::{Bench, event};
use crate::storage::{Appended, NewEvent, Result};

pub(super) async fn a_name_is_stored_once(bench: &Bench<'_>) -> Result<()> {
    let named = |data: &'static [u8]| NewEvent {
        id: EventId::parse("mine.1"),
        ..NewEvent::new(EventType::parse("a.b").expect("a type"), Bytes::from_static(data))
    };
    assert!(matches!(bench.append(named(b"1")).await?, Appended::New { .. }));
    assert!(matches!(bench.append(named(b"1")).await?, Appended::Duplicate { .. }));
    assert_eq!(bench.append(named(b"2")).await?, Appended::Conflict);
    let under = |key: &str, it| NewEvent { idempotency_key: Some(key.to_owned()), ..it };
    assert!(matches!(bench.append(under("z", named(b"1"))).await?, Appended::Duplicate { .. }));
    assert_eq!(bench.append(under("z", event())).await?, Appended::Conflict, "a key is a name too");
    assert!(matches!(bench.append(under("y", event())).await?, Appended::New { .. }));
    assert_eq!(bench.append(under("y", named(b"1"))).await?, Appended::Conflict);
    let twice = vec![named(b"1"), NewEvent { idempotency_key: Some("k".into()), ..event() }];
    let tenant = Slug::default_tenant();
    let first = bench.shard().append(&tenant, twice.clone(), true).await?;
    let again = bench.shard().append(&tenant, twice, true).await?;
    assert!(matches!(first[1], Appended::New { .. }));
    assert!(matches!(again[1], Appended::Duplicate { .. }));
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(matches!(bench.append(named(b"2")).await?, Appended::New { .. }));
    Ok(())
}
