//! Up to where events are beyond retention, and which rows that leaves without a reader.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Retention, Seq, TenantNo};
use crate::storage::codec::decode;
use crate::storage::fold::kind;
use crate::storage::journal::View;
use crate::storage::keys::{ShardNo, u32_at, u64_at};
use crate::storage::record::IdRow;
use crate::storage::{Result, Table};

/// Up to where the events of a shard are beyond retention. They only ever rise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floors {
    /// The last event that is gone, for each tenant that `others` does not name.
    pub(super) common: u64,
    /// The same for tenants with another mark.
    pub(super) others: BTreeMap<u32, u64>,
    /// Up to here no tenant has an event that is kept.
    pub(super) shard: u64,
    /// Audit records of before this time are gone.
    pub(super) audit: u64,
    /// Names that were given before this time do not keep an event from being accepted again.
    pub(super) names: u64,
}

/// How a table's keys go on behind the shard.
struct Order {
    /// Bytes of an owner before the number.
    owner: usize,
    /// Whether a row tells of several numbers, the first of which its key has.
    chunks: bool,
}

impl Floors {
    /// Those of a shard, as they were committed last.
    pub(super) fn load(view: &dyn View, shard: ShardNo) -> Result<Self> {
        let row = view.get(Table::Catalog, &Self::key(shard))?;
        row.map_or_else(|| Ok(Self::default()), |it| decode(&it))
    }

    /// Where they lie.
    pub(super) fn key(shard: ShardNo) -> Bytes {
        shard.catalog(kind::FLOORS, TenantNo(0), "")
    }

    /// The last event of the tenant that is gone.
    pub(super) fn of(&self, tenant: TenantNo) -> Seq {
        Seq(self.others.get(&tenant.0).copied().unwrap_or(self.common))
    }

    /// Above it nothing is gone.
    pub(super) fn highest(&self) -> Seq {
        Seq(self.others.values().copied().chain([self.common]).max().unwrap_or_default())
    }

    /// Whether rows of the table may ever be excluded.
    pub(super) fn concern(table: Table) -> bool {
        table == Table::Ids || order(table).is_some()
    }

    /// Whether nothing asks for a row any more. Those of [`Table::Dead`] are counted, and so
    /// removed one by one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn exclude(
        &self,
        table: Table,
        key: &[u8],
        value: impl FnOnce() -> Result<Bytes>,
    ) -> Result<bool> {
        if table == Table::Ids {
            let row: IdRow = decode(&value()?)?;
            let gone = Seq(row.seq) <= self.of(TenantNo(u32_at(key, 0)?));
            return Ok(gone && row.accepted_at < self.names);
        }
        let Some(order) = order(table) else { return Ok(false) };
        let last = self.last_excluded(table, key)?;
        if u64_at(key, order.owner)? > last {
            return Ok(false);
        }
        Ok(!order.chunks || last_of(table, &value()?)? <= last)
    }

    /// Whether nothing asks for any row from the key `min` to the key `max`: they have one owner,
    /// and all that they tell of lies below its mark. `is_any` tells whether there is a row behind
    /// the first key and not behind the second.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn exclude_all(
        &self,
        table: Table,
        (min, max): (&[u8], &[u8]),
        is_any: impl FnOnce(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<bool> {
        let Some(order) = order(table) else { return Ok(false) };
        let owner = 2 + order.owner;
        if min.get(..owner) != max.get(..owner) {
            return Ok(false);
        }
        let (number, last) = (u64_at(max, order.owner)?, self.last_excluded(table, max)?);
        if !order.chunks || number > last {
            return Ok(number <= last);
        }
        // A chunk ends before the next one begins.
        let end = [&max[..owner], &(last + 1).to_be_bytes()].concat();
        is_any(max, &end)
    }

    /// What the table's keys begin with for one owner, where rows go with events or with time.
    pub(super) fn owner(table: Table, key: &[u8]) -> Option<&[u8]> {
        key.get(..2 + order(table)?.owner)
    }

    /// The last number of the key's owner that nothing asks for.
    fn last_excluded(&self, table: Table, key: &[u8]) -> Result<u64> {
        Ok(match table {
            Table::ByTenant => self.of(TenantNo(u32_at(key, 0)?)).0,
            Table::Audit => self.audit.saturating_sub(1),
            _ => self.shard,
        })
    }
}

/// Tables whose rows go with events or with time, and are in order of it.
fn order(table: Table) -> Option<Order> {
    let (owner, chunks) = match table {
        Table::Events | Table::History => (0, false),
        Table::Fanout => (0, true),
        Table::ByTenant | Table::ByEndpoint => (4, true),
        Table::Backfills | Table::Audit => (4, false),
        Table::Ids
        | Table::Retries
        | Table::Dead
        | Table::Cursors
        | Table::Health
        | Table::Catalog
        | Table::Components
        | Table::Meta => return None,
    };
    Some(Order { owner, chunks })
}

/// The last event that a chunk tells of.
fn last_of(table: Table, value: &Bytes) -> Result<u64> {
    if table == Table::Fanout {
        let targets: Vec<(u64, Vec<u32>)> = decode(value)?;
        return Ok(targets.last().map_or(0, |it| it.0));
    }
    let deltas: Vec<u64> = decode(value)?;
    Ok(deltas.into_iter().fold(0, u64::saturating_add))
}

/// How long a tenant's events are kept, on disk: milliseconds, or for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RetentionRow(Option<u64>);

impl From<Retention> for RetentionRow {
    fn from(it: Retention) -> Self {
        match it {
            Retention::For(kept) => Self(Some(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX))),
            Retention::Forever => Self(None),
        }
    }
}

impl RetentionRow {
    pub(super) fn into_noun(self) -> Retention {
        let Self(millis) = self;
        millis.map_or(Retention::Forever, |it| Retention::For(Duration::from_millis(it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DeliveryKey, EndpointNo, Timestamp};
    use crate::storage::codec::encode;

    const SHARD: ShardNo = ShardNo(3);

    fn floors() -> Floors {
        let others = [(7, 20), (8, 5)].into();
        Floors { common: 10, others, shard: 5, audit: 1000, names: 500 }
    }

    #[test]
    fn rows_go_with_the_last_that_they_tell_of() {
        let (one, other) = (TenantNo(7), TenantNo(9));
        let chunk = |seqs: &[u64]| encode(&seqs);
        let id = |seq: u64, accepted_at: u64| {
            let (event_id, digest) = (String::new(), [0; 16]);
            encode(&IdRow { seq, event_id, digest, timestamp: 0, accepted_at })
        };
        let delivery = |seq| DeliveryKey { seq: Seq(seq), endpoint: EndpointNo(1) };
        let (endpoint, nothing) = (EndpointNo(1), encode(&()));
        for (table, key, value, gone) in [
            (Table::Events, SHARD.seq(Seq(5)), nothing.clone(), true),
            (Table::Events, SHARD.seq(Seq(6)), nothing.clone(), false),
            (Table::History, SHARD.history(delivery(5), 9), nothing.clone(), true),
            (Table::History, SHARD.history(delivery(6), 0), nothing.clone(), false),
            (Table::ByTenant, SHARD.tenant_seq(one, Seq(18)), chunk(&[18, 2]), true),
            (Table::ByTenant, SHARD.tenant_seq(one, Seq(18)), chunk(&[18, 3]), false),
            (Table::ByTenant, SHARD.tenant_seq(other, Seq(10)), chunk(&[10]), true),
            (Table::ByTenant, SHARD.tenant_seq(other, Seq(11)), chunk(&[11]), false),
            (Table::ByEndpoint, SHARD.endpoint_seq(endpoint, Seq(1)), chunk(&[1, 4]), true),
            (Table::ByEndpoint, SHARD.endpoint_seq(endpoint, Seq(1)), chunk(&[1, 5]), false),
            (
                Table::Fanout,
                SHARD.seq(Seq(4)),
                encode(&vec![(4_u64, vec![1_u32]), (5, vec![1])]),
                true,
            ),
            (
                Table::Fanout,
                SHARD.seq(Seq(4)),
                encode(&vec![(4_u64, vec![1_u32]), (6, vec![1])]),
                false,
            ),
            (Table::Backfills, SHARD.backfill(delivery(5)), nothing.clone(), true),
            (Table::Backfills, SHARD.endpoint_seq(endpoint, Seq(6)), nothing.clone(), false),
            (Table::Ids, SHARD.id(one, "i:a"), id(20, 499), true),
            (Table::Ids, SHARD.id(one, "i:a"), id(20, 500), false),
            (Table::Ids, SHARD.id(one, "i:a"), id(21, 1), false),
            (Table::Audit, SHARD.audit(one, Timestamp(999), 1), nothing.clone(), true),
            (Table::Audit, SHARD.audit(one, Timestamp(1000), 1), nothing.clone(), false),
            (Table::Cursors, SHARD.endpoint(endpoint), encode(&1_u64), false),
        ] {
            let excluded = floors().exclude(table, &key, || Ok(value.clone())).unwrap();
            assert_eq!(excluded, gone, "{table:?} {key:?}");
        }
        assert!(floors().exclude(Table::Events, b"abc", || Ok(nothing)).is_err());
    }

    #[test]
    fn files_go_when_all_that_they_tell_of_is_gone() {
        let whole = |table, min: &Bytes, max: &Bytes, more: bool| {
            floors().exclude_all(table, (&min[..], &max[..]), |_, _| Ok(more)).unwrap()
        };
        let seq = |it| SHARD.seq(Seq(it));
        assert!(whole(Table::Events, &seq(1), &seq(5), false));
        assert!(!whole(Table::Events, &seq(1), &seq(6), true));
        assert!(!whole(Table::Events, &ShardNo(2).seq(Seq(1)), &seq(5), false), "two shards");
        let of = |tenant, seq| SHARD.tenant_seq(TenantNo(tenant), Seq(seq));
        assert!(whole(Table::ByTenant, &of(7, 1), &of(7, 20), true));
        assert!(!whole(Table::ByTenant, &of(7, 1), &of(7, 20), false), "the chunk may go on");
        assert!(!whole(Table::ByTenant, &of(7, 1), &of(7, 21), true));
        assert!(!whole(Table::ByTenant, &of(6, 1), &of(7, 2), true), "two tenants");
        assert!(!whole(Table::Ids, &of(7, 1), &of(7, 2), true));
        let until = |_: &[u8], end: &[u8]| Ok(end == &of(8, 6)[..]);
        assert!(floors().exclude_all(Table::ByTenant, (&of(8, 1), &of(8, 4)), until).unwrap());
    }
}
