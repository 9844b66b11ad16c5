//! What a lane keeps, put under the keys of another ordering: somebody changed the endpoint's.

use std::ops::Bound;

use crate::domain::{DeliveryKey, Endpoint, EndpointNo, Ordering, Seq, Timestamp};
use crate::storage::Result;
use crate::storage::codec::decode;
use crate::storage::event_row::decode_event;
use crate::storage::journal::View;
use crate::storage::keys::{ShardNo, retry_at};
use crate::storage::lane::Lane;
use crate::storage::queue::Queue;
use crate::storage::record::{Record, RetryRow, WAITING_SHARES};
use crate::storage::shard::Shard;
use crate::storage::taken::{Fresh, OrderingKey, STRICT};
use crate::storage::{Catalog, Table};

impl Lane {
    /// The ordering key of what waits on disk, which may have been written under another ordering.
    /// `key` tells it from the event, and is asked where the row does not tell.
    pub(super) fn key_of(&self, row: &RetryRow, key: impl FnOnce() -> OrderingKey) -> OrderingKey {
        match self.ordering {
            Ordering::None => OrderingKey::NONE,
            Ordering::Strict => STRICT,
            Ordering::Key => match OrderingKey(row.ordering_key) {
                OrderingKey::NONE | STRICT => key(),
                written => written,
            },
        }
    }

    /// Keeps another order from now on. `key` tells a delivery's ordering key in it; `holding`
    /// are the new keys of all that waits for another attempt and holds its order.
    pub(super) fn reorder(
        &mut self,
        ordering: Ordering,
        key: &dyn Fn(Seq) -> OrderingKey,
        holding: &[OrderingKey],
    ) {
        self.ordering = ordering;
        let held = self.order.clear();
        let mut fresh: Vec<_> = std::mem::take(&mut self.fresh).into_iter().chain(held).collect();
        fresh.sort_unstable_by_key(|it| it.seq);
        let keyed = |it: Fresh| Fresh { key: key(it.seq), ..it };
        self.fresh = fresh.into_iter().map(keyed).collect();
        // A test keeps no order, and never did.
        for it in self.asked.iter_mut().filter(|it| it.key.is_ordered()) {
            it.key = key(it.seq);
        }
        for mut due in self.drain_waiting() {
            due.row.ordering_key = self.key_of(&due.row, || key(due.seq)).0;
            self.insert_waiting(due);
        }
        self.loans.iter_mut().for_each(|(seq, loan)| loan.key = key(*seq));
        for loan in self.loans.values().copied().collect::<Vec<_>>() {
            if loan.attempted {
                self.order.borrow(loan.key);
            }
            if loan.fresh {
                self.order.note_busy(loan.key);
            }
        }
        holding.iter().for_each(|it| self.order.note_busy(*it));
    }
}

impl Queue {
    /// Follows what was changed about an endpoint: whether anything may go there, and in which
    /// order. The view must show all that was followed, and nothing more.
    pub(super) fn follow_endpoint(
        &mut self,
        (view, shard): (&dyn View, ShardNo),
        endpoint: &Endpoint,
    ) -> Result<()> {
        self.close(endpoint.no, is_closed(endpoint));
        let lane = self.lane(endpoint.no);
        if lane.ordering == endpoint.ordering {
            return Ok(());
        }
        let rows = match lane.retrying {
            0 => Vec::new(),
            _ => waiting_rows(view, shard, endpoint.no)?,
        };
        let key = |seq| ordering_key(view, shard, endpoint.ordering, seq);
        lane.ordering = endpoint.ordering;
        let holding = rows.iter().filter(|(_, row)| row.holds);
        let holding: Vec<_> = holding.map(|(seq, row)| lane.key_of(row, || key(*seq))).collect();
        lane.reorder(endpoint.ordering, &key, &holding);
        Ok(())
    }
}

/// Whether nothing may go to it: what is for it is held, and not late.
pub(super) fn is_closed(endpoint: &Endpoint) -> bool {
    !endpoint.enabled || endpoint.secret_unavailable
}

impl Shard {
    /// Follows changed endpoints into the queue, once all of their batch has been followed.
    pub(super) fn follow_endpoints(&self, queue: &mut Queue, catalog: &Catalog, all: &[Record]) {
        for record in all {
            let Record::EndpointPut { endpoint, .. } = record else { continue };
            let Some(endpoint) = catalog.endpoint(EndpointNo(endpoint.no)) else { continue };
            if let Err(error) = queue.follow_endpoint((&*self.view, self.no), endpoint) {
                tracing::error!(%error, endpoint = %endpoint.id, "its order cannot be changed yet");
            }
        }
    }
}

/// All that waits for another attempt at an endpoint, as it lies on disk.
fn waiting_rows(
    view: &dyn View,
    shard: ShardNo,
    endpoint: EndpointNo,
) -> Result<Vec<(Seq, RetryRow)>> {
    let mut rows = Vec::new();
    for share in 0..WAITING_SHARES.len() as u8 {
        let place = |due, seq| shard.retry(share, Timestamp(due), DeliveryKey { seq, endpoint });
        let (from, to) = (place(0, Seq(0)), place(u64::MAX, Seq(u64::MAX)));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        for row in view.range(Table::Retries, range.0, range.1) {
            let (key, value) = row?;
            rows.push((retry_at(&key)?.2.seq, decode(&value)?));
        }
    }
    Ok(rows)
}

/// The ordering key of an event's delivery. Looks at the event only where it matters; one that
/// cannot be read keeps no order.
pub(super) fn ordering_key(
    view: &dyn View,
    shard: ShardNo,
    ordering: Ordering,
    seq: Seq,
) -> OrderingKey {
    let key = || {
        let row = view.get(Table::Events, &shard.seq(seq)).ok().flatten()?;
        decode_event(seq, &row).ok()?.ordering_key
    };
    match ordering {
        Ordering::Key => OrderingKey::of(ordering, key().as_deref()),
        _ => OrderingKey::of(ordering, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Claim;
    use crate::storage::taken::Allowance;
    use crate::storage::waiting::Due;

    const NOW: Timestamp = Timestamp(1000);

    fn lane(ordering: Ordering, keys: &[u64]) -> Lane {
        let mut lane = Lane::default();
        lane.reorder(ordering, &|_| OrderingKey::NONE, &[]);
        for (seq, key) in (1..).zip(keys) {
            lane.last = Seq(seq);
            lane.backlog += 1;
            lane.push_fresh(Fresh { seq: Seq(seq), key: OrderingKey(*key) });
        }
        lane
    }

    fn take(lane: &mut Lane) -> Option<u64> {
        lane.take(NOW, &mut Allowance::of(1)).map(|it| it.seq().0)
    }

    fn retry(seq: u64, key: u64, due: u64) -> Due {
        let row = RetryRow { ordering_key: key, holds: true, ..RetryRow::of(Claim::Retry) };
        Due { seq: Seq(seq), due: Timestamp(due), row }
    }

    fn settle(lane: &mut Lane, seq: u64, key: u64) {
        lane.settled(Seq(seq), OrderingKey(key), None);
    }

    #[test]
    fn without_an_order_nobody_waits_for_the_head_any_more() {
        let mut lane = lane(Ordering::Strict, &[1, 1, 1]);
        assert_eq!(take(&mut lane), Some(1));
        let head = retry(1, 1, 5000);
        lane.settled(Seq(1), STRICT, Some(&head.row));
        lane.insert_waiting(head);
        assert_eq!(take(&mut lane), None);
        lane.reorder(Ordering::None, &|_| OrderingKey::NONE, &[OrderingKey::NONE]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(2), Some(3)]);
        let head = lane.take(Timestamp(5000), &mut Allowance::of(1)).unwrap();
        assert_eq!((head.seq(), head.key()), (Seq(1), OrderingKey::NONE));
        [2, 3, 1].into_iter().for_each(|it| settle(&mut lane, it, 1));
        assert!(lane.cursor() == Seq(3) && lane.order.is_all_free());
    }

    #[test]
    fn with_an_order_each_waits_for_all_that_are_on_their_way() {
        let mut lane = lane(Ordering::None, &[0; 6]);
        assert_eq!([0; 4].map(|_| take(&mut lane)), [Some(1), Some(2), Some(3), Some(4)]);
        let failed = retry(2, 0, 0);
        lane.settled(Seq(2), OrderingKey::NONE, Some(&failed.row));
        lane.insert_waiting(failed);
        lane.reorder(Ordering::Strict, &|_| STRICT, &[STRICT]);
        // What is settled was begun under the old key, and one goes back.
        settle(&mut lane, 1, 0);
        lane.give_back(crate::storage::taken::Taken::Fresh(
            Fresh { seq: Seq(3), key: OrderingKey::NONE },
            Claim::First,
        ));
        assert_eq!(take(&mut lane), None, "the fourth is still under way");
        settle(&mut lane, 4, 0);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(2), None], "what failed goes first");
        settle(&mut lane, 2, 0);
        for seq in [3, 5, 6] {
            assert_eq!([take(&mut lane), take(&mut lane)], [Some(seq), None]);
            settle(&mut lane, seq, 1);
        }
        assert_eq!((lane.cursor(), lane.backlog), (Seq(6), 0));
        assert!(lane.order.is_all_free());
    }

    #[test]
    fn by_key_only_those_of_one_key_wait() {
        let mut lane = lane(Ordering::Strict, &[1, 1, 1, 1]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), None]);
        let key = |seq: Seq| OrderingKey(7 + seq.0 % 2);
        lane.reorder(Ordering::Key, &key, &[]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(2), None]);
        settle(&mut lane, 1, 1);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(3), None]);
        // Back again: those held by their keys are in their places.
        lane.reorder(Ordering::Strict, &|_| STRICT, &[]);
        settle(&mut lane, 3, 7);
        assert_eq!(take(&mut lane), None);
        settle(&mut lane, 2, 8);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(4), None]);
    }
}
