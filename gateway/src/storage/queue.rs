//! The durable queue of deliveries, as it stands in memory: a lane for each endpoint and the
//! retries that wait for their time. All of it is derived from the view and can be made again.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use tokio::sync::Notify;

use crate::domain::{Claim, DeliveryKey, EndpointNo, Seq, TenantNo, Timestamp};
use crate::storage::Result;
use crate::storage::dead_hours::{DeadCounts, DeadHours};
use crate::storage::journal::View;
use crate::storage::keys::ShardNo;
use crate::storage::lane::Lane;
use crate::storage::queue_load::{load_fresh, load_waiting};
use crate::storage::record::{HistoryRecord, Record, RetryRow, WAITING_SHARES};
use crate::storage::taken::{Allowance, Fresh, OrderingKey, Taken};
use crate::storage::timers::Timers;
use crate::storage::waiting::Due;

/// The lanes and the timers of a shard.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By the endpoint's number, which counts up from 1.
    lanes: Vec<Option<Box<Lane>>>,
    /// Lanes that may have something to do since they were last looked at.
    pub(super) active: VecDeque<EndpointNo>,
    /// Lanes that may have something overdue: all that have, and some that had.
    pub(super) watched: BTreeSet<EndpointNo>,
    /// Told when there is one where there was none.
    pub(super) watching: Arc<Notify>,
    moved: Vec<EndpointNo>,
    pub(super) timers: Timers,
    pub(super) fresh: u64,
    pub(super) retrying: u64,
    pub(super) dead: DeadCounts,
    pub(super) dead_hours: DeadHours,
    /// What endpoints had not received when they were deleted, until that is counted.
    withdrawn: BTreeMap<EndpointNo, u64>,
}

/// A lane that may have something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// Whose.
    pub endpoint: EndpointNo,
    /// Whether somebody waits for one of its deliveries.
    pub asked: bool,
}

/// What could be attempted now and is not.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Overdue {
    pub(super) count: u64,
    pub(super) first: Option<Seq>,
    pub(super) due: Option<Timestamp>,
}

impl Queue {
    /// Looks at the lanes whose time has come; tells when the next one's comes.
    pub(super) fn advance(&mut self, now: Timestamp) -> Option<Timestamp> {
        while let Some(endpoint) = self.timers.pop(now) {
            self.lane(endpoint).timer = None;
            self.rearm(endpoint, now);
            self.activate(endpoint, now);
        }
        self.timers.next()
    }

    /// Sets the lane's timer to what comes due next.
    pub(super) fn rearm(&mut self, endpoint: EndpointNo, now: Timestamp) {
        let lane = self.lane(endpoint);
        let next = lane.next_due(now);
        let was = std::mem::replace(&mut lane.timer, next);
        self.timers.set(endpoint, was, next);
    }

    /// Lanes that may have something to do, each once.
    pub(super) fn take_active(&mut self, now: Timestamp) -> Vec<Ready> {
        let active = std::mem::take(&mut self.active);
        let ready = |endpoint: EndpointNo| {
            let lane = self.lane(endpoint);
            lane.listed = false;
            Ready { endpoint, asked: lane.has_asked(now) }
        };
        active.into_iter().map(ready).collect()
    }

    pub(super) fn activate(&mut self, endpoint: EndpointNo, now: Timestamp) {
        let lane = self.lane(endpoint);
        if !lane.may_have_work(now) {
            return;
        }
        let left_alone = lane.is_left_alone();
        let (listed, watched) = (lane.listed, lane.watched || left_alone);
        lane.listed = true;
        lane.watched |= !left_alone;
        if !listed {
            self.active.push_back(endpoint);
        }
        if !watched {
            self.look_after(endpoint);
        }
    }

    /// Hands over deliveries that were just fanned out. What somebody `asked` for goes first.
    pub(super) fn enqueue(
        &mut self,
        endpoint: EndpointNo,
        fresh: Fresh,
        asked: bool,
        now: Timestamp,
    ) {
        let lane = self.lane(endpoint);
        if fresh.seq <= lane.last {
            return;
        }
        let current = lane.is_current();
        lane.last = fresh.seq;
        lane.backlog += 1;
        match (asked, current) {
            (true, _) => lane.push_asked(fresh.seq, current),
            (false, true) => lane.push_fresh(fresh),
            (false, false) => {}
        }
        self.fresh += 1;
        self.activate(endpoint, now);
    }

    /// The next delivery of an endpoint that may be attempted now. `key` tells the ordering key
    /// of what is read back from disk.
    pub(super) fn take(
        &mut self,
        (view, shard): (&dyn View, ShardNo),
        endpoint: EndpointNo,
        allowed: &mut Allowance,
        now: Timestamp,
        key: &dyn Fn(Seq) -> OrderingKey,
    ) -> Result<Option<Taken>> {
        let Some(lane) = self.known(endpoint) else { return Ok(None) };
        while lane.wants_loading() && load_fresh(lane, view, shard, endpoint, key)? {}
        for (code, share) in WAITING_SHARES.into_iter().enumerate() {
            if let Some(from) = lane.waiting(share).wants_loading(now) {
                load_waiting(lane, (view, shard), (endpoint, code as u8), from, key)?;
            }
        }
        Ok(lane.take(now, allowed))
    }

    /// After lending: keeps the timer right, and tells what of a share is ready and was not lent
    /// because its allowance is used up.
    pub(super) fn lent(
        &mut self,
        endpoint: EndpointNo,
        allowed: Allowance,
        now: Timestamp,
    ) -> (bool, bool) {
        let Some(lane) = self.known(endpoint) else { return (false, false) };
        let retries = allowed.retries == 0 && lane.retries.is_ready(now);
        let bulk = allowed.bulk == 0 && lane.has_bulk(now);
        self.rearm(endpoint, now);
        (retries, bulk)
    }

    pub(super) fn give_back(&mut self, endpoint: EndpointNo, taken: Taken, now: Timestamp) {
        self.lane(endpoint).give_back(taken);
        self.activate(endpoint, now);
    }

    /// Takes a waiting delivery out, to be put elsewhere. False: it is due or on loan already.
    pub(super) fn withdraw(&mut self, share: Claim, due: Timestamp, key: DeliveryKey) -> bool {
        let lane = self.lane(key.endpoint);
        !lane.knows(key.seq) && lane.remove_waiting(share, due, key.seq)
    }

    /// Takes out a delivery that waits, so that no attempt is made of it; `None` while one is.
    pub(super) fn call_off(&mut self, endpoint: EndpointNo, waits: Taken) -> Option<Taken> {
        let lane = self.lane(endpoint);
        match waits {
            Taken::Fresh(fresh, _) => lane.withdraw_fresh(fresh),
            Taken::Due(due) => lane.withdraw_due(due),
        }
    }

    /// Lets a waiting first attempt go before the others.
    pub(super) fn promote(&mut self, endpoint: EndpointNo, it: Fresh, now: Timestamp) -> bool {
        let promoted = self.lane(endpoint).promote(it);
        if promoted {
            self.activate(endpoint, now);
        }
        promoted
    }

    /// Whether the endpoint is left alone for a while.
    pub(super) fn rest(&mut self, endpoint: EndpointNo, resting: bool) {
        let Some(lane) = self.known(endpoint) else { return };
        lane.resting = resting;
        self.watch(endpoint);
    }

    /// Whether anything may go to the endpoint.
    pub(super) fn close(&mut self, endpoint: EndpointNo, closed: bool) {
        if closed != std::mem::replace(&mut self.lane(endpoint).closed, closed) {
            self.watch(endpoint);
        }
    }

    fn watch(&mut self, endpoint: EndpointNo) {
        let lane = self.lane(endpoint);
        if !lane.is_left_alone() && !std::mem::replace(&mut lane.watched, true) {
            self.look_after(endpoint);
        }
    }

    fn look_after(&mut self, endpoint: EndpointNo) {
        if self.watched.is_empty() {
            self.watching.notify_one();
        }
        self.watched.insert(endpoint);
    }

    /// Follows a committed record; whether somebody should look for work.
    pub(super) fn follow(&mut self, record: &Record, leased: bool, now: Timestamp) -> bool {
        match record {
            Record::Happened(it) => self.follow_history(it, leased, now),
            Record::FannedOut { targets, .. } => {
                // A lane that waits for its rows to be on disk can go on now.
                for endpoint in targets.iter().flat_map(|(_, endpoints)| endpoints) {
                    self.activate(EndpointNo(*endpoint), now);
                }
                !self.active.is_empty()
            }
            // It has a lane from now on: without one it would count as deleted. And it may have
            // been enabled, or may take more now.
            Record::EndpointPut { endpoint, .. } => {
                let endpoint = EndpointNo(endpoint.no);
                if !std::mem::replace(&mut self.lane(endpoint).listed, true) {
                    self.active.push_back(endpoint);
                }
                !self.active.is_empty()
            }
            Record::EndpointDeleted { no, .. } => {
                self.forget(EndpointNo(*no));
                false
            }
            Record::TenantDeleted { no, .. } => {
                self.dead.forget(TenantNo(*no));
                false
            }
            _ => false,
        }
    }

    /// Its endpoint is gone, and with it all that it has not received.
    fn forget(&mut self, endpoint: EndpointNo) {
        let place = self.lanes.get_mut(endpoint.0 as usize);
        let Some(lane) = place.and_then(Option::take) else { return };
        self.timers.set(endpoint, lane.timer, None);
        self.watched.remove(&endpoint);
        self.active.retain(|it| *it != endpoint);
        // What is on loan ends by itself.
        let withdrawn = (lane.backlog + lane.retrying).saturating_sub(lane.loans.len() as u64);
        self.withdrawn.insert(endpoint, withdrawn);
        self.fresh = self.fresh.saturating_sub(lane.backlog);
        self.retrying = self.retrying.saturating_sub(lane.retrying);
    }

    /// How many deliveries went with an endpoint that was deleted; told once.
    pub(super) fn take_withdrawn(&mut self, endpoint: EndpointNo) -> u64 {
        self.withdrawn.remove(&endpoint).unwrap_or_default()
    }

    fn follow_history(&mut self, it: &HistoryRecord, leased: bool, now: Timestamp) -> bool {
        let key = DeliveryKey { seq: Seq(it.seq), endpoint: EndpointNo(it.endpoint) };
        let tenant = TenantNo(it.tenant_no);
        self.dead.add(tenant, u64::from(it.dead.is_some()));
        self.dead.remove(tenant, u64::from(it.dead_was.is_some()));
        if let Some((died_at, _)) = it.dead {
            self.dead_hours.note(tenant, Timestamp(died_at), key.seq);
        }
        let known = self.lanes.get(key.endpoint.0 as usize).is_some_and(Option::is_some);
        if !known {
            // The endpoint was deleted while this was under way.
            return false;
        }
        let mut ordering_key = OrderingKey(it.ordering_key);
        let (more, less) = (u64::from(it.retry.is_some()), u64::from(it.retry_was.is_some()));
        self.retrying = (self.retrying + more).saturating_sub(less);
        let lane = self.lane(key.endpoint);
        if it.retry.is_some() {
            lane.waits_from = lane.waits_from.into_iter().chain([key.seq]).min();
        }
        lane.retrying = (lane.retrying + more).saturating_sub(less);
        let backlog = lane.backlog;
        if leased {
            let next = it.retry.as_ref().map(|(_, row)| row);
            ordering_key = lane.settled(key.seq, ordering_key, next);
        } else if it.retry_was.is_none() && it.retry.is_some_and(|(_, row)| row.holds) {
            lane.order.note_busy(ordering_key);
        }
        if let Some((due, row)) = it.retry
            && !lane.knows(key.seq)
        {
            let row = RetryRow { ordering_key: ordering_key.0, ..row };
            lane.insert_waiting(Due { due: Timestamp(due), seq: key.seq, row });
        }
        let finished = backlog - lane.backlog;
        let moved = leased && !std::mem::replace(&mut lane.moved, true);
        self.fresh = self.fresh.saturating_sub(finished);
        if moved {
            self.moved.push(key.endpoint);
        }
        if it.retry.is_some() {
            self.rearm(key.endpoint, now);
        }
        self.activate(key.endpoint, now);
        true
    }

    /// The cursors that moved since they were last saved.
    pub(super) fn take_moved_cursors(&mut self) -> Vec<(u32, u64)> {
        let mut cursors = Vec::new();
        for endpoint in std::mem::take(&mut self.moved) {
            let Some(lane) = self.known(endpoint) else { continue };
            lane.moved = false;
            lane.give_room_back();
            let cursor = lane.cursor();
            if cursor > lane.cursor_saved {
                lane.cursor_saved = cursor;
                cursors.push((endpoint.0, cursor.0));
            }
        }
        cursors
    }

    /// Deliveries that are not finished: first attempts and retries.
    pub(super) fn unfinished(&self) -> (u64, u64) {
        (self.fresh, self.retrying)
    }

    pub(super) fn dead(&self) -> u64 {
        self.dead.total()
    }

    /// What could be attempted now and is not, of endpoints that are not left alone on purpose.
    /// Looks at lanes that have something to do, at no others and at nothing stored.
    pub(super) fn overdue(&mut self, now: Timestamp) -> Overdue {
        let mut sum = Overdue::default();
        for endpoint in std::mem::take(&mut self.watched) {
            let lane = self.lane(endpoint);
            let count = lane.overdue(now);
            lane.watched = count > 0 && !lane.is_left_alone();
            if !lane.watched {
                continue;
            }
            let first = lane.first_overdue();
            let due = lane.retries.first_due().filter(|it| *it <= now);
            sum.count += count;
            sum.first = sum.first.into_iter().chain(first).min();
            sum.due = sum.due.into_iter().chain(due).min();
            self.watched.insert(endpoint);
        }
        sum
    }

    /// An endpoint's lane, if it has one.
    pub(super) fn peek(&self, endpoint: EndpointNo) -> Option<&Lane> {
        self.lanes.get(endpoint.0 as usize).and_then(Option::as_deref)
    }

    pub(super) fn known(&mut self, endpoint: EndpointNo) -> Option<&mut Lane> {
        self.lanes.get_mut(endpoint.0 as usize).and_then(Option::as_deref_mut)
    }

    pub(super) fn lane(&mut self, endpoint: EndpointNo) -> &mut Lane {
        let place = endpoint.0 as usize;
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, || None);
        }
        self.lanes[place].get_or_insert_default()
    }
}
