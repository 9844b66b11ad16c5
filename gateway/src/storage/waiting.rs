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
/// the earliest in memory, the rest on disk. Most endpoints have none: that takes the room of a
/// pointer.
#[derive(Debug, Default)]
pub(super) struct Waiting(Option<Box<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    rows: VecDeque<Due>,
    /// From here on they are only on disk.
    beyond: Option<Place>,
}

impl Kept {
    /// Most that have any have one.
    fn for_one() -> Box<Self> {
        Box::new(Self { rows: VecDeque::with_capacity(1), beyond: None })
    }
}

static NONE: Kept = Kept { rows: VecDeque::new(), beyond: None };

impl Waiting {
    fn kept(&self) -> &Kept {
        self.0.as_deref().unwrap_or(&NONE)
    }

    /// Adds one that is on disk already.
    pub(super) fn insert(&mut self, due: Due) {
        let Kept { rows, beyond } = &mut **self.0.get_or_insert_with(Kept::for_one);
        if beyond.is_some_and(|it| due.place() >= it) {
            return;
        }
        let Err(place) = rows.binary_search_by_key(&due.place(), Due::place) else { return };
        rows.insert(place, due);
        if rows.len() > WAITING_MAX {
            *beyond = rows.pop_back().map(|it| it.place());
        }
    }

    /// Takes one out before its time.
    pub(super) fn remove(&mut self, due: Timestamp, seq: Seq) -> bool {
        let Some(Kept { rows, beyond }) = self.0.as_deref_mut() else { return false };
        let Ok(place) = rows.binary_search_by_key(&(due, seq), Due::place) else {
            return beyond.is_some_and(|it| (due, seq) >= it);
        };
        rows.remove(place).is_some()
    }

    /// The first that is due and `free`.
    pub(super) fn take(&mut self, now: Timestamp, free: impl Fn(&Due) -> bool) -> Option<Due> {
        let rows = &mut self.0.as_mut()?.rows;
        let mut ready = rows.iter().take_while(|it| it.due <= now);
        let place = ready.position(free)?;
        rows.remove(place)
    }

    /// Whether one is due.
    pub(super) fn is_ready(&self, now: Timestamp) -> bool {
        self.first_due().is_some_and(|it| it <= now)
    }

    /// How many in memory are due.
    pub(super) fn ready(&self, now: Timestamp) -> usize {
        self.kept().rows.partition_point(|it| it.due <= now)
    }

    /// Whether one could be attempted now: it is due and `free`, or it may be and is on disk.
    pub(super) fn could_go(&self, now: Timestamp, free: impl Fn(&Due) -> bool) -> bool {
        let mut ready = self.rows().take_while(|it| it.due <= now);
        ready.any(free) || self.wants_loading(now).is_some()
    }

    /// How many are due; `None`: of those on disk alone are some due as well.
    pub(super) fn all_ready(&self, now: Timestamp) -> Option<usize> {
        let beyond = self.kept().beyond.is_some_and(|(due, _)| due <= now);
        (!beyond).then(|| self.ready(now))
    }

    /// Since when the first has been due.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        let Kept { rows, beyond } = self.kept();
        rows.front().map(|it| it.due).or(beyond.map(|(due, _)| due))
    }

    /// When the next one comes due that is not yet.
    pub(super) fn next_after(&self, now: Timestamp) -> Option<Timestamp> {
        let Kept { rows, beyond } = self.kept();
        let next = rows.get(self.ready(now)).map(|it| it.due);
        next.or_else(|| beyond.map(|(due, _)| due).filter(|it| *it > now))
    }

    /// From where on rows have to be read from disk, once those in memory are used up.
    pub(super) fn wants_loading(&self, now: Timestamp) -> Option<Place> {
        let Kept { rows, beyond } = self.kept();
        beyond.filter(|(due, _)| rows.is_empty() && *due <= now)
    }

    /// Takes what was read from disk; behind `beyond` there is more.
    pub(super) fn load(&mut self, rows: Vec<Due>, beyond: Option<Place>) {
        let kept = self.0.get_or_insert_default();
        kept.rows.extend(rows);
        kept.beyond = beyond;
    }

    /// Takes out all that is in memory, to be put in again.
    pub(super) fn drain(&mut self) -> VecDeque<Due> {
        self.0.as_mut().map(|it| std::mem::take(&mut it.rows)).unwrap_or_default()
    }

    /// Keeps the room that its rows need.
    pub(super) fn give_room_back(&mut self) {
        self.0 = self.0.take().filter(|it| !it.rows.is_empty() || it.beyond.is_some());
        if let Some(kept) = &mut self.0
            && kept.rows.capacity() > 2 * kept.rows.len()
        {
            kept.rows.shrink_to_fit();
        }
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.kept().rows.capacity()
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Due> {
        self.kept().rows.iter()
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
