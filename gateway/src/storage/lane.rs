use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::domain::{Ordering, Seq, Timestamp};
use crate::storage::record::RetryRow;

/// First attempts of one endpoint that are kept in memory; more stay on disk.
pub(super) const FRESH_MAX: usize = 1024;
/// Events that wait behind a busy ordering key in memory; beyond, the lane waits as a whole.
const HELD_MAX: usize = 1024;
/// The ordering key of all events of a strictly ordered endpoint.
const STRICT: OrderingKey = OrderingKey(1);

/// A digest of an event's ordering key at an endpoint: deliveries with the same one go one at a
/// time. Zero is unordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct OrderingKey(pub(super) u64);

impl OrderingKey {
    pub(super) fn of(ordering: Ordering, key: Option<&str>) -> Self {
        match (ordering, key) {
            (Ordering::None, _) | (Ordering::Key, None) => Self(0),
            (Ordering::Strict, _) => STRICT,
            (Ordering::Key, Some(key)) => {
                // Two keys with one digest only wait for each other without need.
                let low = crc32fast::hash(key.as_bytes());
                let high = crc32fast::hash(format!("{key}{low}").as_bytes());
                Self((u64::from(high) << 32 | u64::from(low)).max(2))
            }
        }
    }

    fn is_ordered(self) -> bool {
        self != Self(0)
    }
}

/// A delivery that has no attempt yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fresh {
    pub(super) seq: Seq,
    pub(super) key: OrderingKey,
}

/// A delivery whose retry is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due {
    pub(super) seq: Seq,
    pub(super) due: Timestamp,
    pub(super) row: RetryRow,
}

/// What a lane gives out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Taken {
    Fresh(Fresh),
    Due(Due),
}

impl Taken {
    pub(super) fn seq(&self) -> Seq {
        match self {
            Self::Fresh(it) => it.seq,
            Self::Due(it) => it.seq,
        }
    }

    pub(super) fn key(&self) -> OrderingKey {
        match self {
            Self::Fresh(it) => it.key,
            Self::Due(it) => OrderingKey(it.row.ordering_key),
        }
    }
}

/// One endpoint's deliveries that are not finished: the head in memory, the rest on disk.
#[derive(Debug, Default)]
pub(super) struct Lane {
    fresh: VecDeque<Fresh>,
    held: BTreeMap<OrderingKey, VecDeque<Fresh>>,
    held_len: usize,
    due: VecDeque<Due>,
    /// First attempts on loan.
    leased: BTreeSet<Seq>,
    /// Ordering keys on loan.
    leased_keys: BTreeSet<OrderingKey>,
    /// Ordering keys with an unfinished delivery ahead of the fresh ones, and how many.
    busy: BTreeMap<OrderingKey, u32>,
    /// Up to here deliveries were taken from the disk or the fan-out.
    pub(super) loaded_to: Seq,
    /// The last delivery there is.
    pub(super) last: Seq,
    /// Up to here deliveries may have history although they are behind the cursor.
    pub(super) recovered_to: Seq,
    /// The cursor on disk.
    pub(super) cursor_saved: Seq,
    /// First attempts not finished, those on disk included.
    pub(super) backlog: u64,
    /// Retries that wait for their time.
    pub(super) retrying: u64,
    /// Whether it stands in the list of lanes with something to do.
    pub(super) listed: bool,
    /// Whether its cursor may have moved since it was saved.
    pub(super) moved: bool,
    turn: bool,
}

impl Lane {
    /// Whether the fan-out may hand deliveries over in memory: nothing older is left on disk.
    pub(super) fn is_current(&self) -> bool {
        self.loaded_to == self.last && self.fresh.len() < FRESH_MAX
    }

    pub(super) fn wants_loading(&self) -> bool {
        self.fresh.is_empty() && self.loaded_to < self.last
    }

    pub(super) fn push_fresh(&mut self, fresh: Fresh) {
        self.loaded_to = fresh.seq;
        self.fresh.push_back(fresh);
    }

    pub(super) fn due_len(&self) -> usize {
        self.due.len()
    }

    pub(super) fn push_due(&mut self, due: Due) {
        self.due.push_back(due);
    }

    /// A retry waits for its time: its ordering key stays busy.
    pub(super) fn note_retry(&mut self, key: OrderingKey) {
        if key.is_ordered() {
            *self.busy.entry(key).or_default() += 1;
        }
    }

    pub(super) fn may_have_work(&self) -> bool {
        !self.fresh.is_empty() || !self.due.is_empty() || self.loaded_to < self.last
    }

    /// The next delivery that may be attempted now. Retries and first attempts take turns, so
    /// that neither starves the other.
    pub(super) fn take(&mut self) -> Option<Taken> {
        self.turn = !self.turn;
        let taken = match self.turn {
            true => self.take_fresh().map(Taken::Fresh).or_else(|| self.take_due()),
            false => self.take_due().or_else(|| self.take_fresh().map(Taken::Fresh)),
        }?;
        if let Taken::Fresh(fresh) = taken {
            self.leased.insert(fresh.seq);
            self.note_retry(fresh.key);
        }
        if taken.key().is_ordered() {
            self.leased_keys.insert(taken.key());
        }
        Some(taken)
    }

    fn take_due(&mut self) -> Option<Taken> {
        let free = |it: &Due| !self.leased_keys.contains(&OrderingKey(it.row.ordering_key));
        let place = self.due.iter().position(free)?;
        self.due.remove(place).map(Taken::Due)
    }

    fn take_fresh(&mut self) -> Option<Fresh> {
        while let Some(fresh) = self.fresh.front().copied() {
            if !self.busy.contains_key(&fresh.key) {
                self.fresh.pop_front();
                return Some(fresh);
            }
            if fresh.key == STRICT || self.held_len >= HELD_MAX {
                return None;
            }
            self.fresh.pop_front();
            self.held.entry(fresh.key).or_default().push_back(fresh);
            self.held_len += 1;
        }
        None
    }

    /// Takes back what was given out and not settled.
    pub(super) fn give_back(&mut self, taken: Taken) {
        self.leased_keys.remove(&taken.key());
        match taken {
            Taken::Fresh(fresh) => {
                self.leased.remove(&fresh.seq);
                self.free(fresh.key);
                self.fresh.push_front(fresh);
            }
            Taken::Due(due) => self.due.push_front(due),
        }
    }

    /// An attempt of `seq` has been recorded; `retrying` tells whether another follows.
    pub(super) fn settled(&mut self, seq: Seq, key: OrderingKey, retrying: bool) {
        if self.leased.remove(&seq) {
            self.backlog = self.backlog.saturating_sub(1);
        }
        self.leased_keys.remove(&key);
        if !retrying {
            self.free(key);
        }
    }

    fn free(&mut self, key: OrderingKey) {
        let Some(count) = self.busy.get_mut(&key) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        self.busy.remove(&key);
        let Some(held) = self.held.remove(&key) else { return };
        self.held_len -= held.len();
        for fresh in held.into_iter().rev() {
            self.fresh.push_front(fresh);
        }
    }

    /// Up to here every delivery has history.
    pub(super) fn cursor(&self) -> Seq {
        let on_disk = (self.loaded_to < self.last).then(|| self.loaded_to.next());
        let held = self.held.values().filter_map(|it| it.front()).map(|it| it.seq).min();
        let fresh = self.fresh.iter().map(|it| it.seq).min();
        let leased = self.leased.first().copied();
        let first = [on_disk, held, fresh, leased].into_iter().flatten().min();
        first.map_or(self.last, |it| Seq(it.0 - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(keys: &[u64]) -> Lane {
        let mut lane = Lane::default();
        for (seq, key) in (1..).zip(keys) {
            lane.last = Seq(seq);
            lane.backlog += 1;
            lane.push_fresh(Fresh { seq: Seq(seq), key: OrderingKey(*key) });
        }
        lane
    }

    fn take(lane: &mut Lane) -> Option<u64> {
        lane.take().map(|it| it.seq().0)
    }

    #[test]
    fn unordered_deliveries_go_side_by_side() {
        let mut lane = lane(&[0, 0, 0]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), Some(2)]);
        lane.settled(Seq(2), OrderingKey(0), false);
        assert_eq!(lane.cursor(), Seq(0));
        lane.settled(Seq(1), OrderingKey(0), false);
        assert_eq!(lane.cursor(), Seq(2));
    }

    #[test]
    fn a_strict_lane_waits_for_the_retry() {
        let mut lane = lane(&[1, 1]);
        assert_eq!(take(&mut lane), Some(1));
        assert_eq!(take(&mut lane), None);
        lane.settled(Seq(1), STRICT, true);
        assert_eq!(take(&mut lane), None, "the first waits for its retry");
        let row = RetryRow { ordering_key: 1, ..RetryRow::default() };
        lane.push_due(Due { seq: Seq(1), due: Timestamp(0), row });
        assert_eq!(take(&mut lane), Some(1));
        lane.settled(Seq(1), STRICT, false);
        assert_eq!(take(&mut lane), Some(2));
    }

    #[test]
    fn only_the_same_key_waits() {
        let mut lane = lane(&[7, 7, 8, 0]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), Some(3)]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(4), None]);
        assert_eq!(lane.cursor(), Seq(0));
        lane.settled(Seq(1), OrderingKey(7), false);
        assert_eq!(lane.cursor(), Seq(1), "the second is held, not forgotten");
        assert_eq!(take(&mut lane), Some(2));
    }

    #[test]
    fn what_is_given_back_comes_again() {
        let mut lane = lane(&[1, 1]);
        let taken = lane.take().unwrap();
        lane.give_back(taken);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), None]);
    }
}
