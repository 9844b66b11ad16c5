//! Names that producers choose, ids and idempotency keys: under each an event is stored once.

use std::{collections::BTreeMap, time::Duration};

use crate::domain::{EventId, TenantNo, Timestamp};
use crate::storage::append::{Append, Appended, NewEvent};
use crate::storage::codec::decode;
use crate::storage::record::{IdRow, Record};
use crate::storage::writer::{Making, Writer};
use crate::storage::{Result, Table};

impl Writer {
    /// Whether it was accepted before, or has a name that is another's.
    pub(super) fn known(
        &self,
        append: &Append,
        event: &NewEvent,
        making: &Making,
        now: Timestamp,
        window: Duration,
    ) -> Result<Option<Appended>> {
        if event.digest.is_none() {
            return Ok(None);
        }
        let tenant_no = append.tenant_no;
        let mut known = None;
        for name in event.names() {
            let Some(row) = self.row_of(tenant_no, name, making)? else { continue };
            match compare(&row, event, now, window) {
                Some(Appended::Conflict) => return Ok(Some(Appended::Conflict)),
                found => known = known.or(found),
            }
        }
        Ok(known)
    }

    fn row_of(&self, tenant_no: TenantNo, name: String, making: &Making) -> Result<Option<IdRow>> {
        let key = self.shard.no.id(tenant_no, &name);
        if let Some(row) = making.ids.get(&(tenant_no.0, name)) {
            return Ok(Some(row.clone()));
        }
        let row = self.shard.view.get(Table::Ids, &key)?;
        row.map(|it| decode(&it)).transpose()
    }

    /// An event that was accepted before comes under an idempotency key: from now on this is a
    /// name of its, so that no other event is taken under it.
    pub(super) fn keep_key(
        &self,
        tenant_no: TenantNo,
        event: &NewEvent,
        making: &mut Making,
        (now, window): (Timestamp, Duration),
    ) -> Result<()> {
        let Some(key) = event.key_name() else { return Ok(()) };
        let mut known = None;
        for name in event.names() {
            let is_key = name == key;
            let row = self.row_of(tenant_no, name, making)?;
            let row = row.filter(|it| compare(it, event, now, window).is_some());
            if is_key && row.is_some() {
                return Ok(());
            }
            known = known.or(row);
        }
        let Some(row) = known else { return Ok(()) };
        let row = IdRow { accepted_at: now.0, ..row };
        making.ids.insert((tenant_no.0, key.clone()), row.clone());
        making.push(Record::NameKept { tenant_no: tenant_no.0, name: key, row }, false);
        Ok(())
    }

    pub(super) fn known_in_batch(
        &self,
        tenant_no: u32,
        event: &NewEvent,
        making: &Making,
        now: Timestamp,
        window: Duration,
    ) -> Option<Appended> {
        let mut rows = event.names().filter_map(|it| making.ids.get(&(tenant_no, it)));
        rows.find_map(|row| compare(row, event, now, window))
    }

    /// Whether an event has this id; if that cannot be told, it counts as taken.
    pub(super) fn is_taken(&self, tenant_no: TenantNo, id: &EventId, making: &Making) -> bool {
        let name = format!("i:{id}");
        let row = self.shard.view.get(Table::Ids, &self.shard.no.id(tenant_no, &name));
        !matches!(row, Ok(None)) || making.ids.contains_key(&(tenant_no.0, name))
    }
}

/// One name cannot stand for two events of a request.
pub(super) fn find_contradictions(events: &[NewEvent], known: &mut [Option<Appended>]) {
    let mut first = BTreeMap::new();
    for (event, known) in events.iter().zip(known) {
        let Some(digest) = event.digest else { continue };
        for name in event.names() {
            if *first.entry(name).or_insert(digest) != digest {
                *known = Some(Appended::Conflict);
            }
        }
    }
}

/// What a name that is known means for an event that comes with it.
pub(super) fn compare(
    row: &IdRow,
    event: &NewEvent,
    now: Timestamp,
    window: Duration,
) -> Option<Appended> {
    if now - Timestamp(row.accepted_at) >= window {
        return None;
    }
    if event.digest != Some(row.digest) {
        return Some(Appended::Conflict);
    }
    let id = EventId::parse(&row.event_id)?;
    Some(Appended::Duplicate { id, timestamp: Timestamp(row.timestamp) })
}
