use std::collections::{BTreeMap, VecDeque};

use crate::domain::Seq;
use crate::storage::taken::{Fresh, OrderingKey, STRICT};

/// Events that wait behind a busy ordering key in memory; beyond, the lane waits as a whole.
const HELD_MAX: usize = 1024;

/// The ordering keys of one endpoint that are not free, and who waits for them. Most endpoints
/// keep no order: that takes the room of a pointer.
#[derive(Debug, Default)]
pub(super) struct Order(Option<Box<Keys>>);

#[derive(Debug, Default)]
struct Keys {
    /// First attempts whose key was busy when their turn came.
    held: BTreeMap<OrderingKey, VecDeque<Fresh>>,
    held_len: usize,
    /// Keys on loan. One delivery each, unless the order was changed meanwhile.
    leased: BTreeMap<OrderingKey, u32>,
    /// Keys with an unfinished delivery ahead of the fresh ones, and how many.
    busy: BTreeMap<OrderingKey, u32>,
}

impl Order {
    /// Whether a delivery of this key is being attempted.
    pub(super) fn is_leased(&self, key: OrderingKey) -> bool {
        self.0.as_ref().is_some_and(|it| it.leased.contains_key(&key))
    }

    /// Whether a delivery of this key is ahead of the fresh ones.
    pub(super) fn is_busy(&self, key: OrderingKey) -> bool {
        self.0.as_ref().is_some_and(|it| it.busy.contains_key(&key))
    }

    /// Whether a fresh delivery of this key may go.
    pub(super) fn is_free(&self, key: OrderingKey) -> bool {
        !self.is_busy(key) && !self.is_leased(key)
    }

    /// A delivery of this key is attempted.
    pub(super) fn borrow(&mut self, key: OrderingKey) {
        if key.is_ordered() {
            *self.keys().leased.entry(key).or_default() += 1;
        }
    }

    /// One less is.
    pub(super) fn give_back(&mut self, key: OrderingKey) {
        self.0.iter_mut().for_each(|it| one_less(&mut it.leased, key));
    }

    /// One delivery more of this key is ahead of the fresh ones.
    pub(super) fn note_busy(&mut self, key: OrderingKey) {
        if key.is_ordered() {
            *self.keys().busy.entry(key).or_default() += 1;
        }
    }

    /// One less is.
    pub(super) fn free(&mut self, key: OrderingKey) {
        self.0.iter_mut().for_each(|it| one_less(&mut it.busy, key));
    }

    /// Sets aside a first attempt whose key is not free, so that others pass it. False: it has to
    /// wait where it is, and those behind it too.
    pub(super) fn hold(&mut self, fresh: Fresh) -> bool {
        let keys = self.keys();
        let held = fresh.key != STRICT && keys.held_len < HELD_MAX;
        if held {
            keys.held.entry(fresh.key).or_default().push_back(fresh);
            keys.held_len += 1;
        }
        held
    }

    /// Takes out those that were set aside for a key.
    pub(super) fn unhold(&mut self, key: OrderingKey) -> VecDeque<Fresh> {
        let Some(keys) = &mut self.0 else { return VecDeque::new() };
        let held = keys.held.remove(&key).unwrap_or_default();
        keys.held_len -= held.len();
        held
    }

    /// Takes out one that was set aside, if it was.
    pub(super) fn remove_held(&mut self, Fresh { seq, key }: Fresh) {
        let mut held = self.unhold(key);
        held.retain(|it| it.seq != seq);
        if let (Some(keys), false) = (&mut self.0, held.is_empty()) {
            keys.held_len += held.len();
            keys.held.insert(key, held);
        }
    }

    /// Takes out all that were set aside, and forgets which keys are not free.
    pub(super) fn clear(&mut self) -> impl Iterator<Item = Fresh> + use<> {
        self.0.take().into_iter().flat_map(|it| it.held.into_values().flatten())
    }

    /// The first delivery that was set aside.
    pub(super) fn first_held(&self) -> Option<Seq> {
        let held = self.0.iter().flat_map(|it| it.held.values());
        held.filter_map(|it| it.front()).map(|it| it.seq).min()
    }

    /// Keeps the room that what is there needs, and not what a busy time needed.
    pub(super) fn give_room_back(&mut self) {
        self.0 = self.0.take().filter(|it| !it.is_empty());
    }

    #[cfg(test)]
    pub(super) fn is_all_free(&self) -> bool {
        self.0.as_ref().is_none_or(|it| it.is_empty())
    }

    fn keys(&mut self) -> &mut Keys {
        self.0.get_or_insert_default()
    }
}

impl Keys {
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.leased.is_empty() && self.busy.is_empty()
    }
}

/// Counts one less; none is nothing.
fn one_less(counts: &mut BTreeMap<OrderingKey, u32>, key: OrderingKey) {
    let Some(count) = counts.get_mut(&key) else { return };
    *count -= 1;
    if *count == 0 {
        counts.remove(&key);
    }
}
