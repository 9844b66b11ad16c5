use std::collections::VecDeque;

use crate::domain::{Seq, Timestamp};
use crate::storage::record::RetryRow;

/// Repeated deliveries of one endpoint and one share that are kept in memory; later ones stay on
/// disk until these are used up.
pub(super) const WAITING_MAX: usize = 128;

/// A delivery that waits for another attempt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Due {
    pub(super) due: Timestamp,
    pub(super) seq: Seq,
    pub(super) row: RetryRow,
}

impl Due {
    fn place(&self) -> Place {
        (self.due, self.seq)
    }
}

/// When it is due, and which event: the order of the rows on disk.
type Place = (Timestamp, Seq);

/// The deliveries of one endpoint and one share that wait for another attempt, by their time:
/// the earliest in memory, the rest on disk.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    rows: VecDeque<Due>,
    /// From here on they are only on disk.
    beyond: Option<Place>,
}

impl Waiting {
    /// Adds one that is on disk already.
    pub(super) fn insert(&mut self, due: Due) {
        if self.beyond.is_some_and(|it| due.place() >= it) {
            return;
        }
        let Err(place) = self.rows.binary_search_by_key(&due.place(), Due::place) else { return };
        self.rows.insert(place, due);
        if self.rows.len() > WAITING_MAX {
            self.beyond = self.rows.pop_back().map(|it| it.place());
        }
    }

    /// Takes one out before its time.
    pub(super) fn remove(&mut self, due: Timestamp, seq: Seq) -> bool {
        let Ok(place) = self.rows.binary_search_by_key(&(due, seq), Due::place) else {
            return self.beyond.is_some_and(|it| (due, seq) >= it);
        };
        self.rows.remove(place).is_some()
    }

    /// The first that is due and `free`.
    pub(super) fn take(&mut self, now: Timestamp, free: impl Fn(&Due) -> bool) -> Option<Due> {
        let mut ready = self.rows.iter().take_while(|it| it.due <= now);
        let place = ready.position(free)?;
        self.rows.remove(place)
    }

    /// Whether one is due.
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        let first = self.rows.front().map(|it| it.due);
        first.or(self.beyond.map(|(due, _)| due)).is_some_and(|it| it <= now)
    }

    /// How many in memory are due.
    pub(super) fn ready(&self, now: Timestamp) -> usize {
        self.rows.partition_point(|it| it.due <= now)
    }

    /// Whether one could be attempted now: it is due and `free`, or it may be and is on disk.
    pub(super) fn could_go(&self, now: Timestamp, free: impl Fn(&Due) -> bool) -> bool {
        let mut ready = self.rows.iter().take_while(|it| it.due <= now);
        ready.any(free) || self.wants_loading(now).is_some()
    }

    /// How many are due; `None`: of those on disk alone are some due as well.
    pub(super) fn all_ready(&self, now: Timestamp) -> Option<usize> {
        let beyond = self.beyond.is_some_and(|(due, _)| due <= now);
        (!beyond).then(|| self.ready(now))
    }

    /// Since when the first has been due.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.rows.front().map(|it| it.due).or(self.beyond.map(|(due, _)| due))
    }

    /// When the next one comes due that is not yet.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let next = self.rows.get(self.ready(now)).map(|it| it.due);
        next.or_else(|| self.beyond.map(|(due, _)| due).filter(|it| *it > now))
    }

    /// From where on rows have to be read from disk, once those in memory are used up.
    pub(super) fn wants_loading(&self, now: Timestamp) -> Option<Place> {
        self.beyond.filter(|(due, _)| self.rows.is_empty() && *due <= now)
    }

    /// Takes what was read from disk; behind `beyond` there is more.
    pub(super) fn load(&mut self, rows: Vec<Due>, beyond: Option<Place>) {
        self.rows.extend(rows);
        self.beyond = beyond;
    }

    /// Takes out all that is in memory, to be put in again.
    pub(super) fn drain(&mut self) -> VecDeque<Due> {
        std::mem::take(&mut self.rows)
    }

    /// Keeps the room that its rows need.
    pub(super) fn give_room_back(&mut self) {
        if self.rows.capacity() > 2 * self.rows.len() {
            self.rows.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.rows.capacity()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Due> {
        self.rows.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(at: u64) -> Due {
        Due { due: Timestamp(at), seq: Seq(at), row: RetryRow::default() }
    }

    #[test]
    fn the_earliest_stay_in_memory() {
        let mut waiting = Waiting::default();
        let count = WAITING_MAX as u64 + 10;
        for at in (0..count).rev() {
            waiting.insert(due(at));
            waiting.insert(due(at));
        }
        for at in 0..WAITING_MAX as u64 {
            assert_eq!(waiting.wants_loading(Timestamp(count)), None);
            assert_eq!(waiting.take(Timestamp(count), |_| true), Some(due(at)));
        }
        assert_eq!(waiting.take(Timestamp(count), |_| true), None);
        let from = WAITING_MAX as u64;
        assert_eq!(
            (waiting.all_ready(Timestamp(from)), waiting.ready(Timestamp(count))),
            (None, 0)
        );
        assert!(waiting.is_ready(Timestamp(count)));
        assert_eq!(waiting.wants_loading(Timestamp(count)), Some((Timestamp(from), Seq(from))));
        waiting.load(vec![due(from)], None);
        assert_eq!(waiting.take(Timestamp(count), |_| true), Some(due(from)));
        assert!(!waiting.is_ready(Timestamp(count)));
    }

    #[test]
    fn nothing_is_due_early() {
        let mut waiting = Waiting::default();
        waiting.insert(due(10));
        waiting.insert(due(20));
        assert_eq!(waiting.take(Timestamp(9), |_| true), None);
        assert_eq!(waiting.next_after(Timestamp(9)), Some(Timestamp(10)));
        assert_eq!(waiting.next_after(Timestamp(10)), Some(Timestamp(20)));
        assert!(waiting.remove(Timestamp(20), Seq(20)) && !waiting.remove(Timestamp(20), Seq(20)));
        assert_eq!(waiting.next_after(Timestamp(10)), None);
        assert_eq!(waiting.take(Timestamp(10), |it| it.seq != Seq(10)), None, "it is not free");
        assert_eq!(waiting.take(Timestamp(10), |_| true), Some(due(10)));
    }
}
