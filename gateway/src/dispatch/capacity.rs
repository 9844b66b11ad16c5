//! What the one whose turn it is may begin, and what follows when it ends.

use tokio::time::{Duration, Instant};

use crate::dispatch::lane::{Change, Limits, Told, Waits};
use crate::dispatch::scheduler::Scheduler;
use crate::domain::{Claim, EndpointNo, Timestamp};
use crate::storage::Allowance;

/// An attempt weighs one, and one more for each of these bytes of its event.
const WEIGHT_BYTES: usize = 16 * 1024;
/// Endpoints of which it is remembered that they are well.
const LANES_KEPT: usize = 50_000;
/// Tenants without room of their own that are passed over at once in the line of the doubtful.
const DOUBTFUL_TRIES: usize = 8;

/// An attempt that was begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Begun {
    pub(super) endpoint: EndpointNo,
    pub(super) share: Claim,
    pub(super) bytes: usize,
    pub(super) epoch: u32,
}

impl Scheduler {
    /// What an endpoint may begin now; and whether to look for what somebody asked for.
    pub(super) fn room(
        &mut self,
        endpoint: EndpointNo,
        limits: Limits,
        now: Instant,
    ) -> (Allowance, bool) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return Default::default() };
        let asked = std::mem::take(&mut lane.asked);
        lane.wants = true;
        let own = match lane.room(limits, now) {
            Ok(own) => own,
            Err(until) => {
                self.rest(endpoint, until);
                return (Allowance::default(), asked);
            }
        };
        let tenant = self.tenants.entry(lane.tenant).or_default();
        let any = own
            .min(usize::try_from(tenant.deficit).unwrap_or_default())
            .min(self.shares.total.saturating_sub(self.in_flight.total))
            .min(self.shares.tenant.saturating_sub(tenant.in_flight.total));
        let bytes = self.shares.bytes.saturating_sub(self.in_flight.bytes);
        let bytes = bytes.min(self.shares.tenant_bytes.saturating_sub(tenant.in_flight.bytes));
        let any = any.min((bytes / lane.event_bytes.max(1) as usize).max(1));
        let doubtful = if lane.doubtful {
            let all = self.shares.doubtful.saturating_sub(self.in_flight.doubtful);
            all.min(self.shares.tenant_doubtful.saturating_sub(tenant.in_flight.doubtful))
        } else {
            any
        };
        if any > 0 && doubtful == 0 && !std::mem::replace(&mut lane.waits.doubtful, true) {
            if tenant.doubtful.is_empty() {
                self.doubtful.push_back(lane.tenant);
            }
            tenant.doubtful.push_back(endpoint);
        }
        let any = any.min(doubtful);
        let part = |of: usize| (limits.in_flight_max / of).max(1);
        let retries = self.shares.retries.saturating_sub(self.in_flight.retries);
        let bulk = self.shares.bulk.saturating_sub(self.in_flight.bulk);
        let retries = retries.min(part(2).saturating_sub(lane.in_flight.retries)).min(any);
        let bulk = bulk.min(part(5).saturating_sub(lane.in_flight.bulk)).min(any);
        (Allowance { any, retries, bulk }, asked)
    }

    /// Begins an attempt.
    pub(super) fn begin(
        &mut self,
        endpoint: EndpointNo,
        (share, bytes): (Claim, usize),
        now: Instant,
    ) -> Begun {
        let begun = Begun { endpoint, share, bytes, epoch: self.epoch(now) };
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return begun };
        let tenant = self.tenants.entry(lane.tenant).or_default();
        tenant.deficit -= 1 + (bytes / WEIGHT_BYTES) as i64;
        lane.event_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        for it in [&mut self.in_flight, &mut tenant.in_flight, &mut lane.in_flight] {
            it.add(share, bytes);
            it.doubtful += usize::from(lane.doubtful);
        }
        begun
    }

    /// So many were begun, and of those so many of what was allowed: what somebody asked for goes
    /// beside the endpoint's rate and is no debt of it. What is left waits for its turn.
    pub(super) fn lent(
        &mut self,
        endpoint: EndpointNo,
        (allowed, begun, charged): (usize, usize, usize),
        (more, retries_left, bulk_left): (bool, bool, bool),
        now: Instant,
    ) {
        let epoch = self.epoch(now);
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if allowed > 0 {
            lane.wants = more || retries_left || bulk_left;
        }
        if begun > 0 {
            lane.started((begun, charged), epoch, now);
            if self.young.back() != Some(&(epoch, endpoint)) {
                self.young.push_back((epoch, endpoint));
            }
        }
        let retries_left = retries_left && self.in_flight.retries >= self.shares.retries;
        if retries_left && !std::mem::replace(&mut lane.waits.retries, true) {
            self.retries.push_back(endpoint);
        }
        let bulk_left = bulk_left && self.in_flight.bulk >= self.shares.bulk;
        if bulk_left && !std::mem::replace(&mut lane.waits.bulk, true) {
            self.bulk.push_back(endpoint);
        }
        if more {
            self.queue(endpoint, false);
        } else {
            self.forget_if_plain(endpoint);
        }
    }

    /// An attempt ended, and `told` something of its endpoint.
    pub(super) fn ended(
        &mut self,
        begun: Begun,
        told: Told,
        (latency, limits): (Duration, Limits),
        (now, at): (Instant, Timestamp),
    ) -> Change {
        let epoch = self.epoch(now);
        let Some(lane) = self.lanes.get_mut(&begun.endpoint) else { return Change::default() };
        let tenant_no = lane.tenant;
        let tenant = self.tenants.entry(tenant_no).or_default();
        for it in [&mut self.in_flight, &mut tenant.in_flight, &mut lane.in_flight] {
            it.remove(begun.share, begun.bytes);
            it.doubtful = it.doubtful.saturating_sub(usize::from(lane.doubtful));
        }
        if !tenant.endpoints.is_empty() && !std::mem::replace(&mut tenant.queued, true) {
            self.turns.push_back(tenant_no);
        }
        lane.ended(begun.epoch, epoch);
        let change = lane.learn(told, (latency, limits.rate), (now, at), self.disable_after);
        let wants = lane.wants;
        self.weigh(begun.endpoint);
        if wants {
            self.queue(begun.endpoint, false);
        }
        self.forget_if_plain(begun.endpoint);
        change
    }

    /// Gives those a turn that stand in a line, as many as there is room for what they wait for.
    /// Room is kept for who is called up until its turn comes; it may have nothing to begin then.
    pub(super) fn call_up(&mut self) {
        self.call_up_doubtful();
        while self.in_flight.retries + self.called.retries < self.shares.retries {
            let Some(endpoint) = self.retries.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            (lane.waits.retries, lane.called.retries) = (false, true);
            self.called.retries += 1;
            self.queue(endpoint, false);
        }
        while self.in_flight.bulk + self.called.bulk < self.shares.bulk {
            let Some(endpoint) = self.bulk.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            (lane.waits.bulk, lane.called.bulk) = (false, true);
            self.called.bulk += 1;
            self.queue(endpoint, false);
        }
    }

    fn call_up_doubtful(&mut self) {
        let mut tries = DOUBTFUL_TRIES;
        while tries > 0 && self.in_flight.doubtful + self.called.doubtful < self.shares.doubtful {
            let Some(no) = self.doubtful.pop_front() else { return };
            let tenant = self.tenants.entry(no).or_default();
            if tenant.is_full(&self.shares) || tenant.is_full_of_doubtful(&self.shares) {
                // One of its own attempts is to end first.
                tries -= 1;
                self.doubtful.push_back(no);
                continue;
            }
            let endpoint = tenant.doubtful.pop_front();
            if !tenant.doubtful.is_empty() {
                self.doubtful.push_back(no);
            }
            let Some(endpoint) = endpoint else { continue };
            let Some(lane) = self.lanes.get_mut(&endpoint) else { continue };
            (lane.waits.doubtful, lane.called.doubtful) = (false, true);
            tenant.called_doubtful += 1;
            self.called.doubtful += 1;
            self.queue(endpoint, false);
        }
    }

    /// Its turn has come, or it is gone: what was kept for it is for all.
    pub(super) fn give_place_back(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let Waits { doubtful, retries, bulk } = std::mem::take(&mut lane.called);
        if doubtful && let Some(tenant) = self.tenants.get_mut(&lane.tenant) {
            tenant.called_doubtful -= 1;
        }
        self.called.doubtful -= usize::from(doubtful);
        self.called.retries -= usize::from(retries);
        self.called.bulk -= usize::from(bulk);
    }

    /// Counts an endpoint's attempts where they belong now.
    pub(super) fn weigh(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        let doubtful = lane.is_doubtful();
        if doubtful == std::mem::replace(&mut lane.doubtful, doubtful) {
            return;
        }
        let out = lane.in_flight.total;
        lane.in_flight.doubtful = if doubtful { out } else { 0 };
        let tenant = self.tenants.entry(lane.tenant).or_default();
        for it in [&mut self.in_flight, &mut tenant.in_flight] {
            it.doubtful =
                if doubtful { it.doubtful + out } else { it.doubtful.saturating_sub(out) };
        }
    }

    fn forget_if_plain(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get(&endpoint) else { return };
        if lane.gone {
            self.forget(endpoint);
        } else if self.lanes.len() > LANES_KEPT && lane.is_plain() {
            self.lanes.remove(&endpoint);
        }
    }
}
