use std::collections::BTreeMap;

use crate::domain::{DeliveryKey, Timestamp};
use crate::storage::record::RetryRow;

/// Retries whose time is kept in memory; later ones stay on disk until these are used up.
const IN_MEMORY_MAX: usize = 100_000;

/// The retries that wait for their time: the earliest in memory, the rest on disk.
#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: BTreeMap<(Timestamp, DeliveryKey), RetryRow>,
    /// From here on retries are only on disk.
    beyond: Option<Timestamp>,
}

impl Timers {
    /// Adds a retry; whether it is on disk already is the caller's care.
    pub(super) fn insert(&mut self, due: Timestamp, key: DeliveryKey, row: RetryRow) {
        if self.beyond.is_some_and(|it| due >= it) {
            return;
        }
        self.waiting.insert((due, key), row);
        if self.waiting.len() > IN_MEMORY_MAX {
            let (&(last, _), _) = self.waiting.last_key_value().expect("it is not empty");
            self.beyond = Some(last);
            self.waiting.retain(|(due, _), _| *due < last);
        }
    }

    /// From `due` on retries are only on disk.
    pub(super) fn stop_at(&mut self, due: Timestamp) {
        self.beyond = Some(self.beyond.map_or(due, |it| it.min(due)));
    }

    /// Takes a retry out before its time.
    pub(super) fn remove(&mut self, due: Timestamp, key: DeliveryKey) -> bool {
        let on_disk = self.beyond.is_some_and(|it| due >= it);
        self.waiting.remove(&(due, key)).is_some() || on_disk
    }

    /// The next retry that is due at `now`.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<(Timestamp, DeliveryKey, RetryRow)> {
        let entry = self.waiting.first_entry().filter(|it| it.key().0 <= now)?;
        let ((due, key), row) = entry.remove_entry();
        Some((due, key, row))
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.waiting.first_key_value().map(|((due, _), _)| *due).or(self.beyond)
    }

    /// From where on retries have to be read from disk, if those in memory are used up.
    pub(super) fn wants_loading(&mut self) -> Option<Timestamp> {
        if self.waiting.is_empty() { self.beyond.take() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointNo, Seq};

    #[test]
    fn the_earliest_stay_in_memory() {
        let mut timers = Timers::default();
        let key = |seq| DeliveryKey { seq: Seq(seq), endpoint: EndpointNo(1) };
        let count = IN_MEMORY_MAX as u64 + 10;
        for seq in (0..count).rev() {
            timers.insert(Timestamp(seq), key(seq), RetryRow::default());
        }
        for seq in 0..IN_MEMORY_MAX as u64 {
            assert_eq!(timers.wants_loading(), None);
            assert_eq!(timers.pop(Timestamp(count)).unwrap().0, Timestamp(seq));
        }
        assert_eq!(timers.pop(Timestamp(count)), None);
        assert_eq!(timers.wants_loading(), Some(Timestamp(IN_MEMORY_MAX as u64)));
    }

    #[test]
    fn nothing_is_due_early() {
        let mut timers = Timers::default();
        let key = DeliveryKey { seq: Seq(1), endpoint: EndpointNo(1) };
        timers.insert(Timestamp(10), key, RetryRow::default());
        assert_eq!(timers.pop(Timestamp(9)), None);
        assert_eq!(timers.next(), Some(Timestamp(10)));
        assert!(timers.remove(Timestamp(10), key));
        assert_eq!(timers.next(), None);
    }
}
