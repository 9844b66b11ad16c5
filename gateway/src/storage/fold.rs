//! From records to rows.
//!
//! **Invariant:** folding reads nothing but the records and the shard's counters, so the same
//! history gives the same view wherever and whenever it is folded.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{DeliveryKey, EndpointNo, Seq, TenantNo, Timestamp};
use crate::storage::audit::ALL;
use crate::storage::codec::encode;
use crate::storage::floors::Floors;
use crate::storage::keys::ShardNo;
use crate::storage::record::{EventRecord, HistoryRecord, Record};
use crate::storage::stats::StatsRow;
use crate::storage::time::TimeRow;
use crate::storage::{Changes, Table};

/// The kinds of rows in the catalog.
pub(super) mod kind {
    pub(in crate::storage) const DATA_KEY: u8 = 0;
    pub(in crate::storage) const TENANT: u8 = 1;
    pub(in crate::storage) const KEY: u8 = 2;
    pub(in crate::storage) const ENDPOINT: u8 = 3;
    pub(in crate::storage) const PLUGIN: u8 = 4;
    pub(in crate::storage) const DELETED_ENDPOINT: u8 = 5;
    pub(in crate::storage) const INGEST: u8 = 10;
    pub(in crate::storage) const EVENT_TYPE: u8 = 6;
    pub(in crate::storage) const REPLAY: u8 = 7;
    pub(in crate::storage) const RETENTION: u8 = 11;
    pub(in crate::storage) const FLOORS: u8 = 12;
    pub(in crate::storage) const TIME: u8 = 13;
    pub(in crate::storage) const STATS: u8 = 14;
}

/// The format of the store as a whole. A later one is refused.
pub(super) const FORMAT: u32 = 1;

/// The shard's counters and marks: one row, written with every batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) format: u32,
    /// How many shards the store was made with.
    pub(super) shards: u16,
    /// The last batch applied.
    pub(super) lsn: u64,
    /// A checksum over all batches up to here, each with the one before.
    pub(super) chain: u32,
    /// The last event accepted.
    pub(super) last_seq: u64,
    /// The last event fanned out.
    pub(super) fanned_out: u64,
    pub(super) last_tenant: u32,
    pub(super) last_endpoint: u32,
    pub(super) operator_key: Option<[u8; 32]>,
    /// Tells which master key the data keys are wrapped with.
    pub(super) master_key: Option<[u8; 32]>,
    /// The last audit record.
    pub(super) last_audit: u64,
}

impl Meta {
    pub(super) fn new(shards: u16) -> Self {
        Self {
            format: FORMAT,
            shards,
            lsn: 0,
            chain: 0,
            last_seq: 0,
            fanned_out: 0,
            last_tenant: 0,
            last_endpoint: 0,
            operator_key: None,
            master_key: None,
            last_audit: 0,
        }
    }
}

/// Folds one batch: its records into rows, and its number and checksum into the counters' row.
pub(super) fn fold_batch(shard: ShardNo, meta: &mut Meta, records: &[Record]) -> Changes {
    let mut changes = Changes::default();
    for record in records {
        fold(shard, meta, record, &mut changes);
    }
    let mut checksum = crc32fast::Hasher::new_with_initial(meta.chain);
    for (_, key, value) in &changes.rows {
        checksum.update(key);
        checksum.update(value.as_deref().unwrap_or_default());
    }
    meta.lsn += 1;
    meta.chain = checksum.finalize();
    changes.put(Table::Meta, shard.all(), encode(meta));
    changes
}

fn fold(shard: ShardNo, meta: &mut Meta, record: &Record, changes: &mut Changes) {
    match record {
        Record::EventsAccepted(events) => fold_events(shard, meta, events, changes),
        Record::FannedOut { upto, targets } => {
            meta.fanned_out = meta.fanned_out.max(*upto);
            fold_fanout(shard, targets, changes);
        }
        Record::Happened(it) => fold_history(shard, it, changes),
        Record::CursorsMoved(cursors) => {
            for (endpoint, seq) in cursors {
                changes.put(Table::Cursors, shard.endpoint(EndpointNo(*endpoint)), encode(seq));
            }
        }
        Record::Backfilled { endpoint, seqs } => {
            for seq in seqs {
                let key = shard.endpoint_seq(EndpointNo(*endpoint), Seq(*seq));
                changes.put(Table::Backfills, key, encode(&()));
                let key = DeliveryKey { seq: Seq(*seq), endpoint: EndpointNo(*endpoint) };
                changes.put(Table::Backfills, shard.backfill(key), encode(&()));
            }
        }
        Record::Audited(it) => {
            meta.last_audit += 1;
            let tenant = it.tenant.as_ref().map(|(_, no)| TenantNo(*no));
            for reader in tenant.into_iter().chain([ALL]) {
                let key = shard.audit(reader, Timestamp(it.at), meta.last_audit);
                changes.put(Table::Audit, key, encode(it));
            }
        }
        Record::HealthNoted { endpoint, health } => {
            let key = shard.endpoint(EndpointNo(*endpoint));
            match health {
                Some(health) => changes.put(Table::Health, key, encode(health)),
                None => changes.remove(Table::Health, key),
            }
        }
        Record::Trimmed(floors) => {
            changes.put(Table::Catalog, Floors::key(shard), encode(floors));
        }
        Record::StatsKept(Some(row)) => {
            changes.put(Table::Catalog, StatsRow::key(shard), encode(row));
        }
        Record::NameKept { tenant_no, name, row } => {
            changes.put(Table::Ids, shard.id(TenantNo(*tenant_no), name), encode(row));
        }
        Record::StatsKept(None) => changes.remove(Table::Catalog, StatsRow::key(shard)),
        Record::TimeNoted(row) => changes.put(Table::Catalog, TimeRow::key(shard), encode(row)),
        Record::OperatorKeySet(hash) => meta.operator_key = Some(*hash),
        Record::MasterKeySet(fingerprint) => meta.master_key = Some(*fingerprint),
        _ => {
            if let Record::EndpointDeleted { no, .. } = record {
                changes.remove(Table::Health, shard.endpoint(EndpointNo(*no)));
            }
            fold_catalog(shard, meta, record, changes);
        }
    }
}

fn fold_events(shard: ShardNo, meta: &mut Meta, events: &[EventRecord], changes: &mut Changes) {
    let mut by_tenant = BTreeMap::<u32, Vec<u64>>::new();
    for event in events {
        changes.put(Table::Events, shard.seq(Seq(event.seq)), event.row.clone());
        for (id, row) in &event.ids {
            changes.put(Table::Ids, shard.id(TenantNo(event.tenant_no), id), encode(row));
        }
        by_tenant.entry(event.tenant_no).or_default().push(event.seq);
        meta.last_seq = event.seq;
    }
    for (tenant, seqs) in by_tenant {
        let key = shard.tenant_seq(TenantNo(tenant), Seq(seqs[0]));
        changes.put(Table::ByTenant, key, encode(&deltas(&seqs)));
    }
}

fn fold_fanout(shard: ShardNo, targets: &[(u64, Vec<u32>)], changes: &mut Changes) {
    let Some((first, _)) = targets.first() else { return };
    let mut by_endpoint = BTreeMap::<u32, Vec<u64>>::new();
    for (seq, endpoints) in targets {
        for endpoint in endpoints {
            by_endpoint.entry(*endpoint).or_default().push(*seq);
        }
    }
    changes.put(Table::Fanout, shard.seq(Seq(*first)), encode(&targets));
    for (endpoint, seqs) in by_endpoint {
        let key = shard.endpoint_seq(EndpointNo(endpoint), Seq(seqs[0]));
        changes.put(Table::ByEndpoint, key, encode(&deltas(&seqs)));
    }
}

fn fold_history(shard: ShardNo, it: &HistoryRecord, changes: &mut Changes) {
    let key = DeliveryKey { seq: Seq(it.seq), endpoint: EndpointNo(it.endpoint) };
    let tenant = TenantNo(it.tenant_no);
    changes.put(Table::History, shard.history(key, it.entry), it.row.clone());
    if let Some((share, due)) = it.retry_was {
        changes.remove(Table::Retries, shard.retry(share, Timestamp(due), key));
    }
    if let Some((due, retry)) = &it.retry {
        let row = shard.retry(retry.share, Timestamp(*due), key);
        changes.put(Table::Retries, row, encode(retry));
    }
    if let Some(died_at) = it.dead_was {
        changes.remove(Table::Dead, shard.dead(tenant, Timestamp(died_at), key));
    }
    if let Some((died_at, reason)) = it.dead {
        changes.put(Table::Dead, shard.dead(tenant, Timestamp(died_at), key), encode(&reason));
    }
}

fn fold_catalog(shard: ShardNo, meta: &mut Meta, record: &Record, changes: &mut Changes) {
    let row = |kind, tenant: u32, name: &str| shard.catalog(kind, TenantNo(tenant), name);
    match record {
        Record::TenantPut(tenant) => {
            meta.last_tenant = meta.last_tenant.max(tenant.no);
            changes.put(Table::Catalog, row(kind::TENANT, 0, &tenant.slug), encode(tenant));
        }
        Record::TenantDeleted { slug, no } => {
            changes.remove(Table::Catalog, row(kind::TENANT, 0, slug));
            changes.remove(Table::Catalog, row(kind::DATA_KEY, *no, ""));
            changes.remove(Table::Catalog, row(kind::RETENTION, *no, ""));
        }
        Record::KeyPut { tenant_no, key } => {
            changes.put(Table::Catalog, row(kind::KEY, *tenant_no, &key.id), encode(key));
        }
        Record::KeyRevoked { tenant_no, id } => {
            changes.remove(Table::Catalog, row(kind::KEY, *tenant_no, id));
        }
        Record::EndpointPut { tenant_no, endpoint } => {
            meta.last_endpoint = meta.last_endpoint.max(endpoint.no);
            let key = row(kind::ENDPOINT, *tenant_no, &endpoint.id);
            changes.put(Table::Catalog, key, encode(endpoint));
        }
        Record::EndpointDeleted { tenant_no, id, no } => {
            changes.remove(Table::Catalog, row(kind::ENDPOINT, *tenant_no, id));
            let key = row(kind::DELETED_ENDPOINT, *tenant_no, &format!("{no:010}"));
            changes.put(Table::Catalog, key, encode(&(no, id)));
        }
        Record::PluginPut { .. } | Record::PluginDeleted { .. } => {
            fold_plugin(shard, record, changes);
        }
        Record::DataKeyPut { .. }
        | Record::IngestPut { .. }
        | Record::RetentionPut { .. }
        | Record::EventTypePut { .. }
        | Record::EventTypeDeleted { .. }
        | Record::ReplayPut { .. }
        | Record::ReplaysForgotten { .. } => fold_known(shard, record, changes),
        Record::EventsAccepted(_)
        | Record::FannedOut { .. }
        | Record::Happened(_)
        | Record::CursorsMoved(_)
        | Record::HealthNoted { .. }
        | Record::Backfilled { .. }
        | Record::Audited(_)
        | Record::Trimmed(_)
        | Record::TimeNoted(_)
        | Record::StatsKept(_)
        | Record::NameKept { .. }
        | Record::OperatorKeySet(_)
        | Record::MasterKeySet(_) => unreachable!("folded by `fold`"),
    }
}

fn fold_plugin(shard: ShardNo, record: &Record, changes: &mut Changes) {
    let row = |tenant, name: &str| shard.catalog(kind::PLUGIN, TenantNo(tenant), name);
    match record {
        Record::PluginPut { tenant_no, plugin, component } => {
            let key = row(*tenant_no, &plugin.name);
            changes.put(Table::Catalog, key, encode(plugin));
            if let Some((version, bytes)) = component {
                let key = shard.component(TenantNo(*tenant_no), &plugin.name, *version);
                changes.put(Table::Components, key, bytes.clone());
            }
        }
        Record::PluginDeleted { tenant_no, name, versions } => {
            changes.remove(Table::Catalog, row(*tenant_no, name));
            for version in versions {
                let key = shard.component(TenantNo(*tenant_no), name, *version);
                changes.remove(Table::Components, key);
            }
        }
        _ => unreachable!("folded by `fold_catalog`"),
    }
}

/// What stands in rows beside a tenant's own: its data key, ingest chain, retention, event types
/// and replays.
fn fold_known(shard: ShardNo, record: &Record, changes: &mut Changes) {
    let row = |kind, tenant: u32, name: &str| shard.catalog(kind, TenantNo(tenant), name);
    match record {
        Record::DataKeyPut { tenant_no, tenant, wrapped } => {
            let key = row(kind::DATA_KEY, *tenant_no, "");
            changes.put(Table::Catalog, key, encode(&(tenant, wrapped)));
        }
        Record::IngestPut { tenant_no, chain } => {
            let key = row(kind::INGEST, *tenant_no, "");
            match chain.is_empty() {
                true => changes.remove(Table::Catalog, key),
                false => changes.put(Table::Catalog, key, encode(chain)),
            }
        }
        Record::RetentionPut { tenant_no, kept } => {
            let key = row(kind::RETENTION, *tenant_no, "");
            match kept {
                Some(kept) => changes.put(Table::Catalog, key, encode(kept)),
                None => changes.remove(Table::Catalog, key),
            }
        }
        Record::EventTypePut { tenant_no, known } => {
            let key = row(kind::EVENT_TYPE, *tenant_no, &known.name);
            changes.put(Table::Catalog, key, encode(known));
        }
        Record::EventTypeDeleted { tenant_no, name } => {
            changes.remove(Table::Catalog, row(kind::EVENT_TYPE, *tenant_no, name));
        }
        Record::ReplayPut { tenant_no, replay } => {
            changes.put(Table::Catalog, row(kind::REPLAY, *tenant_no, &replay.id), encode(replay));
        }
        Record::ReplaysForgotten { tenant_no, ids } => {
            for id in ids {
                changes.remove(Table::Catalog, row(kind::REPLAY, *tenant_no, id));
            }
        }
        _ => unreachable!("folded by `fold_catalog`"),
    }
}

/// Ascending numbers as distances: a byte each when they are close.
fn deltas(seqs: &[u64]) -> Vec<u64> {
    let mut last = 0;
    let distance = |it: &u64| {
        let distance = it - last;
        last = *it;
        distance
    };
    seqs.iter().map(distance).collect()
}

/// The numbers behind [`deltas`].
pub(super) fn undelta(deltas: &[u64]) -> Vec<Seq> {
    let sum = |last: &mut u64, it: &u64| {
        *last = last.saturating_add(*it);
        Some(Seq(*last))
    };
    deltas.iter().scan(0, sum).collect()
}
