//! How the queue is made again at a start, and how a lane is filled from disk.

use std::ops::Bound;

use crate::domain::{Claim, DeliveryKey, EndpointNo, Seq, TenantNo, Timestamp};
use crate::storage::catalog::Catalog;
use crate::storage::codec::decode;
use crate::storage::fold::undelta;
use crate::storage::journal::View;
use crate::storage::keys::{ShardNo, delivery_at, retry_at, u32_at, u64_at};
use crate::storage::lane::{FRESH_MAX, Lane};
use crate::storage::queue::Queue;
use crate::storage::record::{RetryRow, WAITING_SHARES};
use crate::storage::reorder::{is_closed, ordering_key};
use crate::storage::taken::{Fresh, OrderingKey};
use crate::storage::waiting::{Due, WAITING_MAX};
use crate::storage::{Floors, Result, Table};

impl Queue {
    /// Rebuilds it from the view. Reads what is unfinished, not what is stored.
    pub(super) fn load(
        view: &dyn View,
        shard: ShardNo,
        (catalog, floors): (&Catalog, &Floors),
        (fanned_out, now): (Seq, Timestamp),
    ) -> Result<Self> {
        let mut queue = Self::default();
        for endpoint in catalog.endpoints() {
            let cursor = match view.get(Table::Cursors, &shard.endpoint(endpoint.no))? {
                Some(row) => Seq(decode(&row)?),
                None => Seq(0),
            };
            // What is gone was finished, though it may have no history any more.
            let tenant = catalog.tenant(&endpoint.tenant).map(|it| it.tenant.no);
            let cursor = tenant.map_or(cursor, |it| cursor.max(floors.of(it)));
            let lane = queue.lane(endpoint.no);
            (lane.loaded_to, lane.last, lane.cursor_saved) = (cursor, cursor, cursor);
            lane.recovered_to = fanned_out;
            (lane.ordering, lane.closed) = (endpoint.ordering, is_closed(endpoint));
            for seqs in chunks_after(view, shard, endpoint.no, cursor) {
                for seq in seqs? {
                    lane.last = lane.last.max(seq);
                    let key = DeliveryKey { seq, endpoint: endpoint.no };
                    match has_history(view, shard, key)? {
                        // Up to the first that is not finished nothing is left to be read.
                        true if lane.backlog == 0 => lane.loaded_to = seq,
                        true => {}
                        false => lane.backlog += 1,
                    }
                }
            }
            if lane.backlog == 0 {
                lane.loaded_to = lane.last;
            }
            queue.fresh += queue.lane(endpoint.no).backlog;
        }
        queue.load_waiting(view, shard, catalog)?;
        for endpoint in catalog.endpoints() {
            queue.rearm(endpoint.no, now);
            queue.activate(endpoint.no, now);
        }
        let (from, to) = (shard.all(), shard.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        for row in view.range(Table::Dead, range.0, range.1) {
            let (key, _) = row?;
            let (tenant, died_at) = (TenantNo(u32_at(&key, 0)?), Timestamp(u64_at(&key, 4)?));
            let seq = delivery_at(&key, 12)?.seq;
            queue.dead_hours.note(tenant, died_at, seq);
            let counts = seq > floors.of(tenant) && catalog.has_tenant(tenant);
            queue.dead.add(tenant, u64::from(counts));
        }
        Ok(queue)
    }

    /// Counts what waits for another attempt and keeps the head of each lane.
    fn load_waiting(&mut self, view: &dyn View, shard: ShardNo, catalog: &Catalog) -> Result<()> {
        let (from, to) = (shard.all(), shard.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        for row in view.range(Table::Retries, range.0, range.1) {
            let (key, value) = row?;
            let (_, due, key) = retry_at(&key)?;
            if catalog.endpoint(key.endpoint).is_none() {
                continue;
            }
            let mut row: RetryRow = decode(&value)?;
            self.retrying += 1;
            let lane = self.lane(key.endpoint);
            let ordering = lane.ordering;
            let ordered = || ordering_key(view, shard, ordering, key.seq);
            row.ordering_key = lane.key_of(&row, ordered).0;
            lane.retrying += 1;
            lane.waits_from = lane.waits_from.into_iter().chain([key.seq]).min();
            if row.holds {
                lane.order.note_busy(OrderingKey(row.ordering_key));
            }
            lane.insert_waiting(Due { due, seq: key.seq, row });
        }
        Ok(())
    }
}

/// Reads the next rows of one share, up to what is kept in memory.
pub(super) fn load_waiting(
    lane: &mut Lane,
    (view, shard): (&dyn View, ShardNo),
    (endpoint, share): (EndpointNo, u8),
    (due, seq): (Timestamp, Seq),
    ordered: &dyn Fn(Seq) -> OrderingKey,
) -> Result<()> {
    let from = shard.retry(share, due, DeliveryKey { seq, endpoint });
    let last = DeliveryKey { seq: Seq(u64::MAX), endpoint };
    let to = shard.retry(share, Timestamp(u64::MAX), last);
    let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
    let (mut rows, mut beyond) = (Vec::new(), None);
    for row in view.range(Table::Retries, range.0, range.1) {
        let (key, value) = row?;
        let (_, due, key) = retry_at(&key)?;
        if rows.len() == WAITING_MAX {
            beyond = Some((due, key.seq));
            break;
        }
        // What is on loan is still on disk; its lease tells what becomes of it.
        if !lane.knows(key.seq) && !lane.keeps(due, key.seq) {
            let mut row: RetryRow = decode(&value)?;
            row.ordering_key = lane.key_of(&row, || ordered(key.seq)).0;
            rows.push(Due { due, seq: key.seq, row });
        }
    }
    let share = WAITING_SHARES.get(usize::from(share)).copied().unwrap_or(Claim::Retry);
    lane.waiting(share).load(rows, beyond);
    Ok(())
}

/// Fills an empty lane from disk; false: nothing was there yet.
pub(super) fn load_fresh(
    lane: &mut Lane,
    view: &dyn View,
    shard: ShardNo,
    endpoint: EndpointNo,
    key: &dyn Fn(Seq) -> OrderingKey,
) -> Result<bool> {
    let before = lane.loaded_to;
    // What lies behind it is about to be handed over.
    let last = lane.last;
    let mut loaded = 0;
    for seqs in chunks_after(view, shard, endpoint, before) {
        for seq in seqs?.into_iter().take_while(|it| *it <= last) {
            let delivery = DeliveryKey { seq, endpoint };
            let met = seq <= lane.recovered_to
                && (lane.knows(seq) || has_history(view, shard, delivery)?);
            if met {
                lane.loaded_to = seq;
                continue;
            }
            lane.push_fresh(Fresh { seq, key: key(seq) });
            loaded += 1;
        }
        if loaded >= FRESH_MAX {
            break;
        }
    }
    Ok(lane.loaded_to > before)
}

/// The endpoint's deliveries behind `after`, in chunks as they were written.
fn chunks_after<'a>(
    view: &'a dyn View,
    shard: ShardNo,
    endpoint: EndpointNo,
    after: Seq,
) -> impl Iterator<Item = Result<Vec<Seq>>> + 'a {
    let least = shard.endpoint_seq(endpoint, Seq(0));
    let at = shard.endpoint_seq(endpoint, after);
    let end = shard.endpoint_seq(endpoint, Seq(u64::MAX));
    // The chunk that begins at or before `after` may reach beyond it.
    let (low, high) = (Bound::Included(&least[..]), Bound::Included(&at[..]));
    let reaching = view.range_back(Table::ByEndpoint, low, high).next();
    let (low, high) = (Bound::Excluded(&at[..]), Bound::Included(&end[..]));
    let later = view.range(Table::ByEndpoint, low, high);
    reaching.into_iter().chain(later).map(move |row| {
        let (_, value) = row?;
        let deltas: Vec<u64> = decode(&value)?;
        Ok(undelta(&deltas).into_iter().filter(|it| *it > after).collect())
    })
}

pub(super) fn has_history(view: &dyn View, shard: ShardNo, key: DeliveryKey) -> Result<bool> {
    let first = shard.history(key, 0);
    Ok(view.get(Table::History, &first)?.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::domain::{Ordering, Quota, Slug, Verdict};
    use crate::storage::conformance::Bench;
    use crate::storage::memory::Disk;
    use crate::storage::record::Record;
    use crate::storage::{Config, Store};
    use crate::world::{Clock, SeededEntropy};

    #[tokio::test(start_paused = true)]
    async fn a_lane_begins_behind_what_is_gone_and_what_is_finished() {
        let (disk, tenant) = (Disk::default(), Slug::default_tenant());
        let open = |clock: Arc<dyn Clock>| {
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::simulated(&disk, &Config::default(), world)
        };
        let mut bench = Bench::start(&open).unwrap();
        let made = |_: Option<&_>| Ok(("T".into(), Quota::default()));
        bench.shard().put_tenant(&tenant, made).await.unwrap();
        let endpoint = bench.endpoint_with(Ordering::None, 6).await.unwrap();
        // Two are gone, of which nothing tells any more that they were finished.
        let floors = Floors { common: 2, shard: 2, ..Floors::default() };
        bench.shard().commit(vec![Record::Trimmed(floors)]).await.unwrap();
        bench.crash().await.unwrap();
        assert_eq!(bench.shard().unfinished(), (4, 0));
        let mut leases = bench.lease(&endpoint, 4).await.unwrap();
        let seqs: Vec<_> = leases.iter().map(|it| it.key.seq.0).collect();
        assert_eq!(seqs, [3, 4, 5, 6]);

        // One in between stays; the cursor is not saved yet.
        drop(leases.remove(2));
        for lease in leases {
            bench.settle(lease, Verdict::Delivered).await.unwrap();
        }
        bench.written().await.unwrap();
        bench.crash().await.unwrap();
        assert_eq!(bench.shard().unfinished(), (1, 0));
        {
            let queue = bench.shard().queue();
            let lane = queue.peek(endpoint.no).unwrap();
            assert_eq!((lane.cursor_saved, lane.finished_up_to(Seq(6))), (Seq(2), Seq(4)));
        }
        let leases = bench.lease(&endpoint, 4).await.unwrap();
        let seqs: Vec<_> = leases.iter().map(|it| it.key.seq.0).collect();
        assert_eq!(seqs, [5]);
    }
}
