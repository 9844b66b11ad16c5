use std::collections::{BTreeMap, VecDeque};

use crate::domain::{Claim, Ordering, Seq, Timestamp};
use crate::storage::order::Order;
use crate::storage::repeats::Repeats;
use crate::storage::taken::{Allowance, Fresh, OrderingKey, Taken};
use crate::storage::waiting::{Due, Waiting};

/// First attempts of one endpoint that are kept in memory; more stay on disk.
pub(super) const FRESH_MAX: usize = 1024;
/// Where first attempts and retries are both ready, every so many-th is a retry.
const RETRY_EVERY: u8 = 4;
/// Where something live is ready, every so many-th is a replay or redrive.
const BULK_EVERY: u8 = 5;
/// What is remembered of a delivery on loan.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Loan {
    pub(super) fresh: bool,
    pub(super) holds: bool,
    pub(super) key: OrderingKey,
    /// Whether it is attempted, with its ordering key to itself, and not only withdrawn.
    pub(super) attempted: bool,
    /// Whether somebody asked for another attempt since it began.
    pub(super) wanted: bool,
    /// Whether it is being decided what follows: who asks now comes too late for that.
    pub(super) closing: bool,
}

/// One endpoint's deliveries that are not finished: the head in memory, the rest on disk.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The order that all of it is kept in.
    pub(super) ordering: Ordering,
    pub(super) fresh: VecDeque<Fresh>,
    /// The ordering keys that are not free, and who waits for them.
    pub(super) order: Order,
    /// First attempts that somebody waits for: tests, and what was asked for early.
    pub(super) asked: VecDeque<Fresh>,
    pub(super) retries: Waiting,
    pub(super) asked_again: Waiting,
    pub(super) bulk: Waiting,
    /// Those of `bulk` that failed and keep an order.
    pub(super) repeats: Option<Box<Repeats>>,
    pub(super) loans: BTreeMap<Seq, Loan>,
    /// Faults of ours while a delivery was attempted.
    pub(super) strikes: BTreeMap<Seq, u8>,
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
    /// Deliveries that wait for another attempt, those on disk included.
    pub(super) retrying: u64,
    /// No delivery of an event before this one waits for another attempt; `None`: none waits.
    pub(super) waits_from: Option<Seq>,
    /// The lane's entry among the timers.
    pub(super) timer: Option<Timestamp>,
    /// Whether it stands in the list of lanes with something to do.
    pub(super) listed: bool,
    /// Whether it stands in the list of lanes that may be overdue.
    pub(super) watched: bool,
    /// Whether its endpoint is left alone for a while, so that nothing counts as overdue.
    pub(super) resting: bool,
    /// Whether nothing may go to its endpoint: all but tests is held, and nothing is overdue.
    pub(super) closed: bool,
    /// Whether its cursor may have moved since it was saved.
    pub(super) moved: bool,
    turn: u8,
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

    /// Puts a delivery before all others. Where older ones are still on disk, it will be met
    /// again when they are read, and must be known then.
    pub(super) fn push_asked(&mut self, seq: Seq, current: bool) {
        self.asked.push_back(Fresh { seq, key: OrderingKey::NONE });
        if current {
            self.loaded_to = seq;
        } else {
            self.recovered_to = self.recovered_to.max(seq);
        }
    }

    /// Lets a waiting first attempt go next, past what it waits behind. False: it is on its way.
    pub(super) fn promote(&mut self, fresh: Fresh) -> bool {
        if self.knows(fresh.seq) || self.last < fresh.seq {
            return false;
        }
        self.remove_fresh(fresh);
        self.asked.push_back(fresh);
        true
    }

    /// Takes a first attempt out of its place. Where it is still on disk, it will be met when it
    /// is read, and must be known then.
    fn remove_fresh(&mut self, fresh: Fresh) {
        let waiting = [&mut self.fresh, &mut self.asked].into_iter();
        waiting.for_each(|it| it.retain(|it| it.seq != fresh.seq));
        self.order.remove_held(fresh);
        self.recovered_to = self.recovered_to.max(fresh.seq);
    }

    /// Whether it is in memory or on loan already.
    pub(super) fn knows(&self, seq: Seq) -> bool {
        self.loans.contains_key(&seq) || self.asked.iter().any(|it| it.seq == seq)
    }

    pub(super) fn waiting(&mut self, share: Claim) -> &mut Waiting {
        match share {
            Claim::First | Claim::Retry => &mut self.retries,
            Claim::Asked => &mut self.asked_again,
            Claim::Bulk => &mut self.bulk,
        }
    }

    fn all_waiting(&self) -> [&Waiting; 3] {
        [&self.retries, &self.asked_again, &self.bulk]
    }

    fn has_fresh(&self) -> bool {
        !self.fresh.is_empty() || self.loaded_to < self.last
    }

    pub(super) fn has_asked(&self, now: Timestamp) -> bool {
        !self.asked.is_empty() || (!self.closed && self.asked_again.is_ready(now))
    }

    pub(super) fn may_have_work(&self, now: Timestamp) -> bool {
        self.has_fresh() || self.has_asked(now) || self.retries.is_ready(now) || self.has_bulk(now)
    }

    /// When a waiting delivery comes due next.
    pub(super) fn next_due(&self, now: Timestamp) -> Option<Timestamp> {
        let repeat = self.repeats.as_ref().and_then(|it| it.next_after(now));
        self.all_waiting().iter().filter_map(|it| it.next_after(now)).chain(repeat).min()
    }

    /// The next delivery that may be attempted now: what somebody waits for, then first attempts
    /// with retries in between, then replays. Nothing starves, and nothing crowds out what is new.
    pub(super) fn take(&mut self, now: Timestamp, allowed: &mut Allowance) -> Option<Taken> {
        let taken = self.choose(now, *allowed)?;
        allowed.spend(taken.share());
        self.lend(&taken, true);
        Some(taken)
    }

    fn lend(&mut self, taken: &Taken, attempted: bool) {
        let (fresh, holds, key) = (matches!(taken, Taken::Fresh(..)), taken.holds(), taken.key());
        let (wanted, closing) = (false, !attempted);
        let loan = Loan { fresh, holds, key, attempted, wanted, closing };
        self.loans.insert(taken.seq(), loan);
        if attempted {
            self.order.borrow(key);
        }
        if fresh {
            self.order.note_busy(key);
        }
    }

    /// Takes a first attempt out of turn, so that it is never made; `None` while it is on loan.
    pub(super) fn withdraw_fresh(&mut self, fresh: Fresh) -> Option<Taken> {
        if self.loans.contains_key(&fresh.seq) || self.last < fresh.seq {
            return None;
        }
        self.remove_fresh(fresh);
        let taken = Taken::Fresh(fresh, Claim::First);
        self.lend(&taken, false);
        Some(taken)
    }

    /// Takes a delivery that waits for another attempt, so that it is never made; `None` while it
    /// is on loan.
    pub(super) fn withdraw_due(&mut self, due: Due) -> Option<Taken> {
        let waits = !self.loans.contains_key(&due.seq);
        if !waits || !self.remove_waiting(due.row.share(), due.due, due.seq) {
            return None;
        }
        let taken = Taken::Due(due);
        self.lend(&taken, false);
        Some(taken)
    }

    fn choose(&mut self, now: Timestamp, allowed: Allowance) -> Option<Taken> {
        let asked = self.asked.iter().position(|it| !self.order.is_leased(it.key));
        if let Some(fresh) = asked.and_then(|it| self.asked.remove(it)) {
            return Some(Taken::Fresh(fresh, Claim::Asked));
        }
        let asked = (!self.closed).then(|| self.take_waiting(Claim::Asked, now)).flatten();
        if asked.is_some() || allowed.any == 0 {
            return asked;
        }
        self.turn = (self.turn + 1) % (RETRY_EVERY * BULK_EVERY);
        let (retries, bulk) = (allowed.retries > 0, allowed.bulk > 0);
        let first = |it: &mut Self| it.take_fresh().map(|fresh| Taken::Fresh(fresh, Claim::First));
        let retry = |it: &mut Self| retries.then(|| it.take_waiting(Claim::Retry, now)).flatten();
        let repeat = |it: &mut Self| bulk.then(|| it.take_waiting(Claim::Bulk, now)).flatten();
        let early = match self.turn {
            turn if turn % BULK_EVERY == 0 => repeat(self),
            turn if turn % RETRY_EVERY == 0 => retry(self),
            _ => None,
        };
        early.or_else(|| first(self)).or_else(|| retry(self)).or_else(|| repeat(self))
    }

    fn take_waiting(&mut self, share: Claim, now: Timestamp) -> Option<Taken> {
        let order = std::mem::take(&mut self.order);
        let free = |it: &Due| !order.is_leased(OrderingKey(it.row.ordering_key));
        let taken = match share {
            Claim::Bulk => self.take_repeat(now, free),
            _ => self.waiting(share).take(now, free),
        };
        self.order = order;
        taken.map(Taken::Due)
    }

    fn take_fresh(&mut self) -> Option<Fresh> {
        while let Some(fresh) = self.fresh.front().copied() {
            let free = self.order.is_free(fresh.key);
            if !free && !self.order.hold(fresh) {
                return None;
            }
            self.fresh.pop_front();
            if free {
                return Some(fresh);
            }
        }
        None
    }

    /// Whether what waits for it is late by nobody's fault.
    pub(super) fn is_left_alone(&self) -> bool {
        self.resting || self.closed
    }

    /// Keeps the room that what is there needs, and not what a busy time needed.
    pub(super) fn give_room_back(&mut self) {
        empty(&mut self.fresh);
        empty(&mut self.asked);
        empty(&mut self.loans);
        empty(&mut self.strikes);
        self.order.give_room_back();
        self.repeats = self.repeats.take().filter(|it| !it.is_empty());
        for waiting in [&mut self.retries, &mut self.asked_again, &mut self.bulk] {
            waiting.give_room_back();
        }
    }

    /// A fault of ours hit this delivery once more; how often by now.
    pub(super) fn strike(&mut self, seq: Seq) -> u8 {
        let strikes = self.strikes.entry(seq).or_default();
        *strikes = strikes.saturating_add(1);
        *strikes
    }

    pub(super) fn strikes(&self, seq: Seq) -> u8 {
        self.strikes.get(&seq).copied().unwrap_or_default()
    }

    /// Up to here every delivery has history.
    pub(super) fn cursor(&self) -> Seq {
        let on_disk = (self.loaded_to < self.last).then(|| self.loaded_to.next());
        let held = self.order.first_held();
        let fresh = self.fresh.iter().chain(&self.asked).map(|it| it.seq).min();
        let leased = self.loans.iter().find(|(_, it)| it.fresh).map(|(seq, _)| *seq);
        let first = [on_disk, held, fresh, leased].into_iter().flatten().min();
        first.map_or(self.last, |it| Seq(it.0 - 1))
    }

    /// Up to here, or further than `wanted`, every first attempt is finished.
    pub(super) fn finished_up_to(&self, wanted: Seq) -> Seq {
        if wanted <= self.cursor_saved || self.cursor_saved >= self.last {
            return wanted;
        }
        let cursor = self.cursor();
        if cursor < self.last { cursor } else { wanted }
    }

    /// How many could be attempted now and are not.
    pub(super) fn overdue(&self, now: Timestamp) -> u64 {
        let lent = self.loans.values().filter(|it| it.fresh).count() as u64;
        let ready: usize = self.all_waiting().iter().map(|it| it.ready(now)).sum();
        self.backlog.saturating_sub(lent) + ready as u64
    }

    /// The first delivery that could be attempted and is not.
    pub(super) fn first_overdue(&self) -> Option<Seq> {
        let on_disk = (self.loaded_to < self.last).then(|| self.loaded_to.next());
        let fresh = self.fresh.front().into_iter().chain(self.asked.front()).map(|it| it.seq).min();
        fresh.or(on_disk)
    }

    /// The delivery that `seq` waits for because of its ordering key.
    pub(super) fn behind(&self, seq: Seq, key: OrderingKey) -> Option<Seq> {
        if !key.is_ordered() {
            return None;
        }
        let lent = self.loans.iter().filter(|(_, it)| it.key == key).map(|(seq, _)| *seq);
        let holding = |it: &&Due| it.row.holds && it.row.ordering_key == key.0;
        let waiting = self.retries.rows().filter(holding).map(|it| it.seq);
        let fresh = self.fresh.iter().filter(|it| it.key == key).map(|it| it.seq);
        lent.chain(waiting).chain(fresh).filter(|it| *it < seq).min()
    }
}

/// What has become empty keeps no room: a tree would keep a leaf.
fn empty<T: Default + PartialEq>(it: &mut T) {
    if *it == T::default() {
        *it = T::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::record::RetryRow;
    use crate::storage::taken::STRICT;

    const NOW: Timestamp = Timestamp(1000);

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
        lane.take(NOW, &mut Allowance::of(1)).map(|it| it.seq().0)
    }

    fn again(seq: u64, share: Claim, key: u64) -> Due {
        let holds = share == Claim::Retry && key != 0;
        let row = RetryRow { ordering_key: key, holds, ..RetryRow::of(share) };
        Due { seq: Seq(seq), due: Timestamp(0), row }
    }

    #[test]
    fn a_lane_at_rest_keeps_what_waits_and_no_room_beside() {
        let mut lane = lane(&[7; 40]);
        for seq in 1..=40 {
            assert_eq!(take(&mut lane), Some(seq));
            let retry = (seq == 40).then(|| again(seq, Claim::Retry, 7));
            lane.settled(Seq(seq), OrderingKey(7), retry.as_ref().map(|it| &it.row));
            retry.into_iter().for_each(|it| lane.retries.insert(it));
        }
        assert!(lane.fresh.capacity() >= 40);
        lane.give_room_back();
        assert_eq!((lane.fresh.capacity(), lane.asked.capacity()), (0, 0));
        assert_eq!(lane.retries.capacity(), 1);
        assert_eq!(lane.behind(Seq(41), OrderingKey(7)), Some(Seq(40)), "its key is still busy");
        assert_eq!((take(&mut lane), lane.cursor()), (Some(40), Seq(40)));
        lane.give_room_back();
        assert_eq!(lane.retries.capacity(), 0);
        assert!(lane.knows(Seq(40)), "it is on loan");
    }

    #[test]
    fn unordered_deliveries_go_side_by_side() {
        let mut lane = lane(&[0, 0, 0]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), Some(2)]);
        lane.settled(Seq(2), OrderingKey(0), None);
        assert_eq!(lane.cursor(), Seq(0));
        lane.settled(Seq(1), OrderingKey(0), None);
        assert_eq!(lane.cursor(), Seq(2));
    }

    #[test]
    fn a_strict_lane_waits_for_the_retry() {
        let mut lane = lane(&[1, 1]);
        assert_eq!(take(&mut lane), Some(1));
        assert_eq!(take(&mut lane), None);
        let retry = again(1, Claim::Retry, 1);
        lane.settled(Seq(1), STRICT, Some(&retry.row));
        assert_eq!(take(&mut lane), None, "the first waits for its retry");
        assert_eq!(lane.behind(Seq(2), STRICT), None, "where it waits is not told yet");
        lane.retries.insert(retry);
        assert_eq!(lane.behind(Seq(2), STRICT), Some(Seq(1)));
        assert_eq!(take(&mut lane), Some(1));
        lane.settled(Seq(1), STRICT, None);
        assert_eq!(take(&mut lane), Some(2));
    }

    #[test]
    fn only_the_same_key_waits() {
        let mut lane = lane(&[7, 7, 8, 0]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), Some(3)]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(4), None]);
        assert_eq!(lane.cursor(), Seq(0));
        lane.settled(Seq(1), OrderingKey(7), None);
        assert_eq!(lane.cursor(), Seq(1), "the second is held, not forgotten");
        assert_eq!(take(&mut lane), Some(2));
    }

    #[test]
    fn a_replay_goes_alone_but_holds_nobody_back() {
        let mut lane = lane(&[1, 1]);
        lane.bulk.insert(again(90, Claim::Bulk, 1));
        assert_eq!(take(&mut lane), Some(1));
        assert_eq!(take(&mut lane), None, "one at a time");
        lane.settled(Seq(1), STRICT, None);
        assert_eq!(take(&mut lane), Some(2), "what is new goes first");
        lane.settled(Seq(2), STRICT, None);
        assert_eq!(take(&mut lane), Some(90));
        lane.settled(Seq(90), STRICT, Some(&again(90, Claim::Bulk, 1).row));
        lane.last = Seq(91);
        lane.push_fresh(Fresh { seq: Seq(91), key: STRICT });
        assert_eq!(take(&mut lane), Some(91), "its retry does not hold the order");
    }

    #[test]
    fn replays_of_a_key_keep_their_order_while_one_fails() {
        let mut lane = lane(&[]);
        lane.loaded_to = Seq(200);
        lane.last = Seq(200);
        for (seq, key) in [(90, 7), (91, 7), (92, 8), (93, 0)] {
            lane.insert_waiting(again(seq, Claim::Bulk, key));
        }
        let failed = |seq, due| {
            let row = RetryRow { round: 1, ..again(seq, Claim::Bulk, 7).row };
            Due { due: Timestamp(due), seq: Seq(seq), row }
        };
        let at = |lane: &mut Lane, now| {
            lane.take(Timestamp(now), &mut Allowance::of(1)).map(|it| it.seq().0)
        };
        assert_eq!(at(&mut lane, 1000), Some(90));
        let first = failed(90, 2000);
        lane.settled(Seq(90), OrderingKey(7), Some(&first.row));
        lane.insert_waiting(first);
        assert_eq!([at(&mut lane, 1000), at(&mut lane, 1000)], [Some(92), Some(93)]);
        assert_eq!(at(&mut lane, 1999), None, "the next of the key waits");
        assert_eq!(lane.next_due(Timestamp(1999)), Some(Timestamp(2000)));
        lane.push_fresh(Fresh { seq: Seq(201), key: OrderingKey(7) });
        assert_eq!(at(&mut lane, 1999), Some(201), "what is new does not");
        lane.settled(Seq(201), OrderingKey(7), None);
        let taken = lane.take(Timestamp(2000), &mut Allowance::of(1)).unwrap();
        assert_eq!(taken.seq(), Seq(90));
        lane.give_back(taken);
        lane.give_room_back();
        assert!(lane.keeps(Timestamp(2000), Seq(90)) && lane.may_have_work(Timestamp(2000)));
        // Where two have failed, as before a restart: whichever is met first.
        lane.insert_waiting(failed(89, 2500));
        assert_eq!(at(&mut lane, 2499), None);
        assert_eq!(at(&mut lane, 2500), Some(89));
        lane.settled(Seq(89), OrderingKey(7), None);
        assert!(lane.withdraw_due(failed(90, 2000)).is_some());
        lane.settled(Seq(90), OrderingKey(7), None);
        assert_eq!([at(&mut lane, 2500), at(&mut lane, 2500)], [Some(91), None]);
        lane.give_room_back();
        assert!(lane.repeats.is_none());
    }

    #[test]
    fn what_is_given_back_comes_again() {
        let mut lane = lane(&[1, 1]);
        let taken = lane.take(NOW, &mut Allowance::of(1)).unwrap();
        lane.give_back(taken);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), None]);
    }

    #[test]
    fn shares_take_turns_and_keep_their_bounds() {
        let mut lane = lane(&[0; 40]);
        for seq in 0..20 {
            lane.retries.insert(again(100 + seq, Claim::Retry, 0));
            lane.bulk.insert(again(200 + seq, Claim::Bulk, 0));
        }
        let mut allowed = Allowance { any: 20, retries: 20, bulk: 20 };
        let taken: Vec<_> = std::iter::from_fn(|| {
            (allowed.any > 0).then(|| lane.take(NOW, &mut allowed).unwrap().share())
        })
        .collect();
        let count = |share| taken.iter().filter(|it| **it == share).count();
        assert_eq!([Claim::First, Claim::Retry, Claim::Bulk].map(count), [12, 4, 4]);
        let mut allowed = Allowance { any: 40, retries: 1, bulk: 0 };
        while lane.take(NOW, &mut allowed).is_some() {}
        assert_eq!(allowed, Allowance { any: 40 - 28 - 1, retries: 0, bulk: 0 });
        lane.asked_again.insert(again(300, Claim::Asked, 0));
        let asked = lane.take(NOW, &mut Allowance::default()).unwrap();
        assert_eq!(asked.share(), Claim::Asked, "it goes beside every bound");
    }

    #[test]
    fn a_waiting_delivery_can_be_asked_for() {
        let mut lane = lane(&[0, 0, 0]);
        let third = Fresh { seq: Seq(3), key: OrderingKey(0) };
        assert!(lane.promote(third) && !lane.promote(third));
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(3), Some(1)]);
        assert_eq!(lane.cursor(), Seq(0));
        lane.settled(Seq(3), OrderingKey(0), None);
        assert_eq!(lane.backlog, 2);
    }

    #[test]
    fn one_that_is_not_in_memory_can_be_asked_for() {
        let mut lane = lane(&[0]);
        lane.last = Seq(2000);
        let far = Fresh { seq: Seq(1500), key: OrderingKey(0) };
        assert!(lane.promote(far) && lane.knows(Seq(1500)));
        assert!(lane.recovered_to >= Seq(1500), "it is known when it is read");
        let taken = lane.take(NOW, &mut Allowance::of(1)).unwrap();
        assert_eq!((taken.seq(), taken.share()), (Seq(1500), Claim::Asked));
        // Held instead, it is read in its place.
        lane.give_back(Taken::Fresh(far, Claim::First));
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), None]);
        assert!(!lane.knows(Seq(1500)));
    }

    #[test]
    fn what_is_asked_for_goes_past_the_order_and_not_beside_another() {
        let mut lane = lane(&[1, 1, 1]);
        assert_eq!(take(&mut lane), Some(1));
        let third = Fresh { seq: Seq(3), key: STRICT };
        assert!(lane.promote(third));
        assert_eq!(take(&mut lane), None, "one at a time");
        let retry = again(1, Claim::Retry, 1);
        lane.settled(Seq(1), STRICT, Some(&retry.row));
        let later = Due { due: NOW + std::time::Duration::from_secs(9), ..retry };
        lane.insert_waiting(later);
        let taken = lane.take(NOW, &mut Allowance::of(1)).unwrap();
        assert_eq!((taken.seq(), take(&mut lane)), (Seq(3), None));
        lane.give_back(Taken::Fresh(third, Claim::First));
        assert_eq!(lane.fresh.iter().map(|it| it.seq.0).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(take(&mut lane), None, "given back, it waits for the first again");
    }

    #[test]
    fn a_withdrawn_delivery_lets_the_next_of_its_key_go() {
        let mut lane = lane(&[7, 7, 7, 8]);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(1), Some(4)]);
        let fresh = |seq| Fresh { seq: Seq(seq), key: OrderingKey(7) };
        assert_eq!(lane.withdraw_fresh(fresh(1)), None, "it is on loan");
        assert!(lane.withdraw_fresh(fresh(2)).is_some());
        lane.settled(Seq(2), OrderingKey(7), None);
        assert_eq!(take(&mut lane), None, "the first is still on loan");
        let retry = again(1, Claim::Retry, 7);
        lane.settled(Seq(1), OrderingKey(7), Some(&retry.row));
        lane.retries.insert(retry);
        assert!(lane.withdraw_due(retry).is_some());
        assert_eq!(take(&mut lane), None, "it is not written down yet");
        lane.settled(Seq(1), OrderingKey(7), None);
        assert_eq!([take(&mut lane), take(&mut lane)], [Some(3), None]);
        assert_eq!(lane.backlog, 2);
    }

    #[test]
    fn withdrawing_beside_a_replay_of_its_key_does_not_let_another_go() {
        let mut lane = lane(&[]);
        lane.last = Seq(200);
        lane.loaded_to = Seq(200);
        lane.bulk.insert(again(90, Claim::Bulk, 7));
        lane.bulk.insert(again(91, Claim::Bulk, 7));
        assert_eq!(take(&mut lane), Some(90));
        assert!(lane.withdraw_due(again(91, Claim::Bulk, 7)).is_some());
        lane.bulk.insert(again(92, Claim::Bulk, 7));
        lane.settled(Seq(91), OrderingKey(7), None);
        assert_eq!(take(&mut lane), None, "one of a key at a time");
    }
}
