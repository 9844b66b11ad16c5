//! What whoever looks after lanes has to know of them: which have something that could be attempted
//! now and is not. Where a lane was forgotten, its entries are made anew.

use crate::domain::{EndpointNo, Timestamp};
use crate::storage::lane::Lane;
use crate::storage::queue::Queue;
use crate::storage::shard::Shard;
use crate::storage::taken::OrderingKey;
use crate::storage::waiting::Due;

/// Lanes that are looked at in one go, while the queue is held.
const PART: usize = 1000;

/// Endpoints with something that could be attempted now and is not, a part of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Late {
    /// Which: none that is left alone on purpose, and none that waits for its order alone.
    pub endpoints: Vec<EndpointNo>,
    /// Whether any lane is still to be watched.
    pub watched: bool,
    /// From where on there may be more.
    pub next: Option<EndpointNo>,
}

impl Lane {
    /// Whether something could be attempted now, as far as can be told without the disk.
    fn could_go(&self, now: Timestamp) -> bool {
        let free = |key: OrderingKey| !self.order.is_leased(key);
        let due = |it: &Due| free(OrderingKey(it.row.ordering_key));
        let waiting = [&self.retries, &self.asked_again, &self.bulk];
        self.asked.iter().any(|it| free(it.key))
            || self.fresh.iter().any(|it| self.order.is_free(it.key))
            || self.wants_loading()
            || waiting.into_iter().any(|it| it.could_go(now, due))
            || self.repeats.as_ref().is_some_and(|it| it.is_ready(now))
    }
}

impl Queue {
    /// Looks at lanes that may have something overdue, from `from` on; forgets those that have not.
    fn late(&mut self, from: EndpointNo, now: Timestamp) -> Late {
        let part: Vec<_> = self.watched.range(from..).take(PART).copied().collect();
        let next = part.last().filter(|_| part.len() == PART).map(|it| EndpointNo(it.0 + 1));
        let mut endpoints = Vec::new();
        for endpoint in part {
            let lane = self.lane(endpoint);
            lane.watched = !lane.is_left_alone() && lane.overdue(now) > 0;
            if !lane.watched {
                self.watched.remove(&endpoint);
            } else if lane.could_go(now) {
                endpoints.push(endpoint);
            }
        }
        Late { endpoints, watched: !self.watched.is_empty(), next }
    }

    /// Makes a lane's entries anew: its timer, and its place among those with something to do.
    fn relist(&mut self, endpoint: EndpointNo, now: Timestamp) {
        let listed = self.active.contains(&endpoint);
        let Some(lane) = self.known(endpoint) else { return };
        lane.listed = listed;
        let next = lane.next_due(now);
        let was = std::mem::replace(&mut lane.timer, next);
        self.timers.set(endpoint, was, None);
        self.timers.set(endpoint, None, next);
        self.activate(endpoint, now);
    }
}

impl Shard {
    /// Waits until a lane may have something overdue, where none had.
    pub async fn something_waits(&self) {
        let watching = self.queue().watching.clone();
        watching.notified().await;
    }

    /// Endpoints from `from` on with something that could be attempted now and is not. Looks at a
    /// part of those that may have, at no others and at nothing stored.
    pub fn late(&self, from: EndpointNo) -> Late {
        self.queue().late(from, self.clock.now())
    }

    /// Lists an endpoint's lane anew, whatever became of its entries.
    pub fn relist(&self, endpoint: EndpointNo) {
        self.queue().relist(endpoint, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Claim, Seq};
    use crate::storage::queue::Ready;
    use crate::storage::record::RetryRow;
    use crate::storage::taken::{Allowance, Fresh, STRICT};

    const NOW: Timestamp = Timestamp(1000);

    fn with(events: &[(u32, u64)], key: OrderingKey) -> Queue {
        let mut queue = Queue::default();
        for (endpoint, seq) in events {
            let fresh = Fresh { seq: Seq(*seq), key };
            queue.enqueue(EndpointNo(*endpoint), fresh, false, NOW);
        }
        queue
    }

    #[test]
    fn what_could_go_is_late_and_what_waits_for_its_order_is_not() {
        let mut queue = with(&[(1, 1), (1, 2), (2, 1)], STRICT);
        let all = Late { watched: true, endpoints: vec![EndpointNo(1), EndpointNo(2)], next: None };
        assert_eq!(queue.late(EndpointNo(0), NOW), all);
        queue.lane(EndpointNo(1)).take(NOW, &mut Allowance::of(1)).unwrap();
        queue.rest(EndpointNo(2), true);
        let waits = Late { watched: true, ..Late::default() };
        assert_eq!(queue.late(EndpointNo(0), NOW), waits, "one is out, the other left alone");
        queue.lane(EndpointNo(1)).settled(Seq(1), STRICT, None);
        assert_eq!(queue.late(EndpointNo(0), NOW).endpoints, [EndpointNo(1)]);
        queue.lane(EndpointNo(1)).take(NOW, &mut Allowance::of(1)).unwrap();
        assert_eq!(queue.late(EndpointNo(0), NOW), Late::default(), "nothing is left to watch");
    }

    #[test]
    fn a_part_is_looked_at_after_the_other() {
        let events: Vec<_> = (1..=PART as u32 + 5).map(|it| (it, 1)).collect();
        let mut queue = with(&events, OrderingKey::NONE);
        let first = queue.late(EndpointNo(0), NOW);
        assert_eq!((first.endpoints.len(), first.next), (PART, Some(EndpointNo(1001))));
        let second = queue.late(EndpointNo(1001), NOW);
        assert_eq!((second.endpoints.len(), second.next), (5, None));
    }

    #[test]
    fn a_lane_whose_entries_are_lost_gets_them_back() {
        let mut queue = with(&[(1, 1)], OrderingKey::NONE);
        let (endpoint, later) = (EndpointNo(1), NOW + std::time::Duration::from_secs(1));
        let due = Due { due: later, seq: Seq(9), row: RetryRow::of(Claim::Retry) };
        queue.lane(endpoint).insert_waiting(due);
        queue.rearm(endpoint, NOW);
        // Whatever that may have been.
        queue.active.clear();
        queue.timers = crate::storage::timers::Timers::default();
        queue.activate(endpoint, NOW);
        assert_eq!((queue.take_active(NOW), queue.advance(NOW)), (vec![], None));
        queue.lane(endpoint).listed = true;
        queue.relist(endpoint, NOW);
        assert_eq!(queue.take_active(NOW), [Ready { endpoint, asked: false }]);
        assert_eq!(queue.advance(NOW), Some(later));
    }
}
