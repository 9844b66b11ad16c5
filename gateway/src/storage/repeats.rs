//! The order of what is delivered once more: replays and redrives of ordered endpoints.

use std::collections::BTreeMap;

use crate::domain::{Claim, Seq, Timestamp};
use crate::storage::lane::Lane;
use crate::storage::taken::OrderingKey;
use crate::storage::waiting::{Due, Waiting};

/// Ordering keys with a replayed delivery that failed; with so many, replays wait as a whole.
const KEYS_MAX: usize = 1024;

/// Replayed deliveries that failed, the first of each ordering key: those of the same key that are
/// replayed too wait for it.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    by_due: BTreeMap<(Timestamp, Seq), Due>,
    by_key: BTreeMap<OrderingKey, (Timestamp, Seq)>,
}

impl Repeats {
    /// Adds one; gives back the one that is to wait behind the other where its key has two.
    fn put(&mut self, due: Due) -> Option<Due> {
        let (key, place) = (OrderingKey(due.row.ordering_key), (due.due, due.seq));
        let behind = match self.by_key.get(&key) {
            Some((_, first)) if *first < due.seq => return Some(due),
            Some(first) => self.by_due.remove(first),
            None => None,
        };
        self.by_key.insert(key, place);
        self.by_due.insert(place, due);
        behind
    }

    fn remove(&mut self, place: (Timestamp, Seq)) -> Option<Due> {
        let due = self.by_due.remove(&place)?;
        self.by_key.remove(&OrderingKey(due.row.ordering_key));
        Some(due)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_due.is_empty()
    }

    /// Whether one is due.
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        self.by_due.first_key_value().is_some_and(|((due, _), _)| *due <= now)
    }

    /// When the next one comes due that is not yet.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let later = self.by_due.range((now, Seq(u64::MAX))..).next();
        later.map(|((due, _), _)| *due).filter(|it| *it > now)
    }
}

impl Lane {
    /// Adds a delivery that is on disk already and waits for its time.
    pub(super) fn insert_waiting(&mut self, due: Due) {
        let holds = due.row.share() == Claim::Bulk
            && due.row.round > 0
            && OrderingKey(due.row.ordering_key).is_ordered();
        let waits = match holds {
            true => self.repeats.get_or_insert_default().put(due),
            false => Some(due),
        };
        if let Some(due) = waits {
            self.waiting(due.row.share()).insert(due);
        }
    }

    /// Takes out all that waits in memory, to be put in again.
    pub(super) fn drain_waiting(&mut self) -> Vec<Due> {
        let repeats = self.repeats.take().into_iter().flat_map(|it| it.by_due.into_values());
        let waiting = [&mut self.retries, &mut self.asked_again, &mut self.bulk];
        repeats.chain(waiting.into_iter().flat_map(Waiting::drain)).collect()
    }

    /// Whether a replay or redrive is due.
    pub(super) fn has_bulk(&self, now: Timestamp) -> bool {
        self.bulk.is_ready(now) || self.repeats.as_ref().is_some_and(|it| it.is_ready(now))
    }

    /// Whether a replayed delivery is kept beside those that are read from disk.
    pub(super) fn keeps(&self, due: Timestamp, seq: Seq) -> bool {
        self.repeats.as_ref().is_some_and(|it| it.by_due.contains_key(&(due, seq)))
    }

    /// Takes a waiting delivery out before its time.
    pub(super) fn remove_waiting(&mut self, share: Claim, due: Timestamp, seq: Seq) -> bool {
        let repeats = self.repeats.as_mut().filter(|_| share == Claim::Bulk);
        let held = repeats.and_then(|it| it.remove((due, seq))).is_some();
        held || self.waiting(share).remove(due, seq)
    }

    /// The next replayed delivery that is due, and not behind another of its key.
    pub(super) fn take_repeat(
        &mut self,
        now: Timestamp,
        free: impl Fn(&Due) -> bool,
    ) -> Option<Due> {
        let Some(repeats) = &mut self.repeats else { return self.bulk.take(now, free) };
        let mut due = repeats.by_due.range(..=(now, Seq(u64::MAX)));
        if let Some(place) = due.find(|(_, it)| free(it)).map(|(place, _)| *place) {
            return repeats.remove(place);
        }
        if repeats.by_key.len() >= KEYS_MAX {
            return None;
        }
        let first = |it: &Due| !repeats.by_key.contains_key(&OrderingKey(it.row.ordering_key));
        self.bulk.take(now, |it| first(it) && free(it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::EndpointNo;
    use crate::storage::queue::Queue;
    use crate::storage::record::RetryRow;
    use crate::storage::taken::Allowance;

    #[test]
    fn a_replay_that_failed_waits_for_room_as_others_do() {
        let (mut queue, endpoint, now) = (Queue::default(), EndpointNo(0), Timestamp(1000));
        let row = RetryRow { ordering_key: 7, round: 1, ..RetryRow::of(Claim::Bulk) };
        queue.lane(endpoint).insert_waiting(Due { due: now, seq: Seq(1), row });
        let full = Allowance { bulk: 0, ..Allowance::of(1) };
        assert_eq!(queue.lane(endpoint).take(now, &mut full.clone()), None);
        assert_eq!(queue.lent(endpoint, full, now), (false, true));
    }
}
