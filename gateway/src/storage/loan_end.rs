//! How a loan of a lane ends: it is settled, or given back.

use crate::domain::{Claim, Seq};
use crate::storage::lane::Lane;
use crate::storage::record::RetryRow;
use crate::storage::taken::{Fresh, OrderingKey, Taken};

impl Lane {
    /// Takes back what was given out and not settled.
    pub(super) fn give_back(&mut self, taken: Taken) {
        let loan = self.loans.remove(&taken.seq());
        let key = loan.map_or(taken.key(), |it| it.key);
        if loan.is_some_and(|it| it.attempted) {
            self.order.give_back(key);
        }
        match taken {
            Taken::Fresh(Fresh { seq, .. }, mut share) => {
                if loan.is_some_and(|it| it.wanted) && !self.closed {
                    share = Claim::Asked;
                }
                self.free(key);
                self.put_back(Fresh { seq, key }, share);
            }
            Taken::Due(mut due) => {
                due.row.ordering_key = key.0;
                self.insert_waiting(due);
                self.release(key);
            }
        }
    }

    /// Puts a first attempt back before those that come after it.
    fn put_back(&mut self, fresh: Fresh, share: Claim) {
        if share == Claim::Asked {
            return self.asked.push_front(fresh);
        }
        if self.loaded_to < fresh.seq {
            // It was taken out before it was read, and comes when it is.
            return;
        }
        self.unhold(fresh.key);
        let rival = |it: &Fresh| it.key == fresh.key || !fresh.key.is_ordered();
        let later = self.fresh.iter().position(|it| it.seq > fresh.seq && rival(it));
        self.fresh.insert(later.unwrap_or(self.fresh.len()), fresh);
    }

    /// An attempt of `seq` has been recorded, and `next` follows. The key it was kept under.
    pub(super) fn settled(
        &mut self,
        seq: Seq,
        key: OrderingKey,
        next: Option<&RetryRow>,
    ) -> OrderingKey {
        let loan = self.loans.remove(&seq);
        let key = loan.map_or(key, |it| it.key);
        if loan.is_some_and(|it| it.fresh) {
            self.backlog = self.backlog.saturating_sub(1);
        }
        if loan.is_some_and(|it| it.attempted) {
            self.order.give_back(key);
        }
        self.strikes.remove(&seq);
        let held = loan.is_none_or(|it| it.holds);
        match next.is_some_and(|it| it.holds) {
            false if held => self.free(key),
            _ => self.release(key),
        }
        key
    }

    /// One delivery less of this key is ahead of the fresh ones.
    fn free(&mut self, key: OrderingKey) {
        self.order.free(key);
        self.release(key);
    }

    /// Lets the fresh ones of a key that is free again back into their places.
    fn release(&mut self, key: OrderingKey) {
        if !self.order.is_busy(key) {
            self.unhold(key);
        }
    }

    fn unhold(&mut self, key: OrderingKey) {
        for fresh in self.order.unhold(key).into_iter().rev() {
            self.fresh.push_front(fresh);
        }
    }
}
