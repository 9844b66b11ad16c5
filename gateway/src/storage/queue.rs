//! The durable queue of deliveries, as it stands in memory: a lane for each endpoint and the
//! retries that wait for their time. All of it is derived from the view and can be made again.

use std::{collections::VecDeque, ops::Bound};

use crate::domain::{DeliveryKey, EndpointNo, Seq, Timestamp};
use crate::storage::catalog::Catalog;
use crate::storage::codec::decode;
use crate::storage::fold::undelta;
use crate::storage::journal::View;
use crate::storage::keys::{ShardNo, delivery_at, u64_at};
use crate::storage::lane::{Due, FRESH_MAX, Fresh, Lane, OrderingKey, Taken};
use crate::storage::record::{HistoryRecord, Record, RetryRow};
use crate::storage::timers::Timers;
use crate::storage::{Result, Table};

/// Retries read from disk at once when those in memory are used up.
const RETRIES_LOADED: usize = 50_000;

/// The lanes and the timers of a shard.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// By the endpoint's number, which counts up from 1.
    lanes: Vec<Option<Box<Lane>>>,
    /// Lanes that may have something to do since they were last looked at.
    active: VecDeque<EndpointNo>,
    moved: Vec<EndpointNo>,
    timers: Timers,
    retrying: u64,
    dead: u64,
}

impl Queue {
    /// Rebuilds it from the view. Reads what is unfinished, not what is stored.
    pub(super) fn load(
        view: &dyn View,
        shard: ShardNo,
        catalog: &Catalog,
        fanned_out: Seq,
    ) -> Result<Self> {
        let mut queue = Self::default();
        for endpoint in catalog.endpoints() {
            let cursor = match view.get(Table::Cursors, &shard.endpoint(endpoint.no))? {
                Some(row) => Seq(decode(&row)?),
                None => Seq(0),
            };
            let lane = queue.lane(endpoint.no);
            (lane.loaded_to, lane.last, lane.cursor_saved) = (cursor, cursor, cursor);
            lane.recovered_to = fanned_out;
            for seqs in chunks_after(view, shard, endpoint.no, cursor) {
                for seq in seqs? {
                    lane.last = lane.last.max(seq);
                    let key = DeliveryKey { seq, endpoint: endpoint.no };
                    lane.backlog += u64::from(!has_history(view, shard, key)?);
                }
            }
            if lane.backlog == 0 {
                lane.loaded_to = lane.last;
            }
            queue.activate(endpoint.no);
        }
        queue.load_retries(view, shard, Timestamp(0), usize::MAX)?;
        let (from, to) = (shard.all(), shard.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        queue.dead = view.range(Table::Dead, range.0, range.1).count() as u64;
        Ok(queue)
    }

    /// Reads retries into the timers; on the first load also counts them and notes their keys.
    fn load_retries(
        &mut self,
        view: &dyn View,
        shard: ShardNo,
        from: Timestamp,
        limit: usize,
    ) -> Result<()> {
        let least = DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) };
        let (from, to) = (shard.retry(from, least), shard.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let first_load = limit == usize::MAX;
        let mut last = None;
        for (read, row) in view.range(Table::Retries, range.0, range.1).enumerate() {
            let (key, value) = row?;
            let (due, key) = (Timestamp(u64_at(&key, 0)?), delivery_at(&key, 8)?);
            // Rows of one instant stay together, so that none is left behind.
            if read >= limit && last != Some(due) {
                self.timers.stop_at(due);
                break;
            }
            last = Some(due);
            let row: RetryRow = decode(&value)?;
            if first_load {
                self.retrying += 1;
                self.lane(key.endpoint).retrying += 1;
                self.lane(key.endpoint).note_retry(OrderingKey(row.ordering_key));
            }
            self.timers.insert(due, key, row);
        }
        Ok(())
    }

    /// Moves what is due into its lane; tells when something will be due next.
    pub(super) fn advance(
        &mut self,
        view: &dyn View,
        shard: ShardNo,
        now: Timestamp,
    ) -> Result<Option<Timestamp>> {
        loop {
            while let Some((due, key, row)) = self.timers.pop(now) {
                self.lane(key.endpoint).push_due(Due { seq: key.seq, due, row });
                self.activate(key.endpoint);
            }
            let Some(from) = self.timers.wants_loading() else { break };
            self.load_retries(view, shard, from, RETRIES_LOADED)?;
        }
        Ok(self.timers.next())
    }

    /// Lanes that may have something to do, each once.
    pub(super) fn take_active(&mut self) -> Vec<EndpointNo> {
        let active: Vec<_> = self.active.drain(..).collect();
        for endpoint in &active {
            self.lane(*endpoint).listed = false;
        }
        active
    }

    pub(super) fn activate(&mut self, endpoint: EndpointNo) {
        let lane = self.lane(endpoint);
        if lane.may_have_work() && !std::mem::replace(&mut lane.listed, true) {
            self.active.push_back(endpoint);
        }
    }

    /// Hands over deliveries that were just fanned out.
    pub(super) fn enqueue(&mut self, endpoint: EndpointNo, fresh: Fresh) {
        let lane = self.lane(endpoint);
        if fresh.seq <= lane.last {
            return;
        }
        let current = lane.is_current();
        lane.last = fresh.seq;
        lane.backlog += 1;
        if current {
            lane.push_fresh(fresh);
        }
        self.activate(endpoint);
    }

    /// The next delivery of an endpoint that may be attempted now. `key` tells the ordering key
    /// of what is read back from disk.
    pub(super) fn take(
        &mut self,
        view: &dyn View,
        shard: ShardNo,
        endpoint: EndpointNo,
        key: &dyn Fn(Seq) -> OrderingKey,
    ) -> Result<Option<Taken>> {
        loop {
            let lane = self.lane(endpoint);
            if let Some(taken) = lane.take() {
                return Ok(Some(taken));
            }
            if !lane.wants_loading() || !load_fresh(lane, view, shard, endpoint, key)? {
                return Ok(None);
            }
        }
    }

    pub(super) fn give_back(&mut self, endpoint: EndpointNo, taken: Taken) {
        self.lane(endpoint).give_back(taken);
        self.activate(endpoint);
    }

    /// Takes a waiting retry out, to be put elsewhere. False: it is due or on loan already.
    pub(super) fn withdraw(&mut self, due: Timestamp, key: DeliveryKey) -> bool {
        self.timers.remove(due, key)
    }

    /// Follows a committed record; whether somebody should look for work.
    pub(super) fn follow(&mut self, record: &Record, leased: bool) -> bool {
        match record {
            Record::Happened(it) => self.follow_history(it, leased),
            Record::FannedOut { targets, .. } => {
                // A lane that waits for its rows to be on disk can go on now.
                for endpoint in targets.iter().flat_map(|(_, endpoints)| endpoints) {
                    self.activate(EndpointNo(*endpoint));
                }
                !self.active.is_empty()
            }
            Record::EndpointDeleted { no, .. } => {
                if let Some(lane) = self.lanes.get_mut(*no as usize) {
                    *lane = None;
                }
                false
            }
            _ => false,
        }
    }

    fn follow_history(&mut self, it: &HistoryRecord, leased: bool) -> bool {
        let key = DeliveryKey { seq: Seq(it.seq), endpoint: EndpointNo(it.endpoint) };
        self.dead = self.dead + u64::from(it.dead.is_some()) - u64::from(it.dead_was.is_some());
        self.retrying += u64::from(it.retry.is_some());
        self.retrying = self.retrying.saturating_sub(u64::from(it.retry_was.is_some()));
        let ordering_key = OrderingKey(it.ordering_key);
        let lane = self.lane(key.endpoint);
        lane.retrying += u64::from(it.retry.is_some());
        lane.retrying = lane.retrying.saturating_sub(u64::from(it.retry_was.is_some()));
        if leased {
            lane.settled(key.seq, ordering_key, it.retry.is_some());
        } else if it.retry_was.is_none() && it.retry.is_some() {
            lane.note_retry(ordering_key);
        }
        if let Some((due, row)) = it.retry {
            self.timers.insert(Timestamp(due), key, row);
        }
        if leased && !std::mem::replace(&mut self.lane(key.endpoint).moved, true) {
            self.moved.push(key.endpoint);
        }
        self.activate(key.endpoint);
        true
    }

    /// The cursors that moved since they were last saved.
    pub(super) fn take_moved_cursors(&mut self) -> Vec<(u32, u64)> {
        let mut cursors = Vec::new();
        for endpoint in std::mem::take(&mut self.moved) {
            let lane = self.lane(endpoint);
            lane.moved = false;
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
        let fresh = self.lanes.iter().flatten().map(|it| it.backlog).sum();
        (fresh, self.retrying)
    }

    pub(super) fn dead(&self) -> u64 {
        self.dead
    }

    /// Retries of an endpoint that are ready to be attempted.
    pub(super) fn due(&self, endpoint: EndpointNo) -> usize {
        let lane = self.lanes.get(endpoint.0 as usize).and_then(Option::as_ref);
        lane.map_or(0, |it| it.due_len())
    }

    /// Deliveries of an endpoint that are not finished.
    pub(super) fn waiting(&self, endpoint: EndpointNo) -> u64 {
        let lane = self.lanes.get(endpoint.0 as usize).and_then(Option::as_ref);
        lane.map_or(0, |it| it.backlog + it.retrying)
    }

    pub(super) fn backlog(&self, endpoint: EndpointNo) -> u64 {
        let lane = self.lanes.get(endpoint.0 as usize).and_then(Option::as_ref);
        lane.map_or(0, |it| it.backlog)
    }

    fn lane(&mut self, endpoint: EndpointNo) -> &mut Lane {
        let place = endpoint.0 as usize;
        if self.lanes.len() <= place {
            self.lanes.resize_with(place + 1, || None);
        }
        self.lanes[place].get_or_insert_default()
    }
}

/// Fills an empty lane from disk; false: nothing was there yet.
fn load_fresh(
    lane: &mut Lane,
    view: &dyn View,
    shard: ShardNo,
    endpoint: EndpointNo,
    key: &dyn Fn(Seq) -> OrderingKey,
) -> Result<bool> {
    let before = lane.loaded_to;
    let mut loaded = 0;
    for seqs in chunks_after(view, shard, endpoint, before) {
        for seq in seqs? {
            let delivery = DeliveryKey { seq, endpoint };
            if seq <= lane.recovered_to && has_history(view, shard, delivery)? {
                lane.loaded_to = seq;
                continue;
            }
            lane.push_fresh(Fresh { seq, key: key(seq) });
            loaded += 1;
        }
        if loaded >= FRESH_MAX {
            break;
        }
    }
    Ok(lane.loaded_to > before)
}

/// The endpoint's deliveries behind `after`, in chunks as they were written.
fn chunks_after<'a>(
    view: &'a dyn View,
    shard: ShardNo,
    endpoint: EndpointNo,
    after: Seq,
) -> impl Iterator<Item = Result<Vec<Seq>>> + 'a {
    let least = shard.endpoint_seq(endpoint, Seq(0));
    let at = shard.endpoint_seq(endpoint, after);
    let end = shard.endpoint_seq(endpoint, Seq(u64::MAX));
    // The chunk that begins at or before `after` may reach beyond it.
    let (low, high) = (Bound::Included(&least[..]), Bound::Included(&at[..]));
    let reaching = view.range_back(Table::ByEndpoint, low, high).next();
    let (low, high) = (Bound::Excluded(&at[..]), Bound::Included(&end[..]));
    let later = view.range(Table::ByEndpoint, low, high);
    reaching.into_iter().chain(later).map(move |row| {
        let (_, value) = row?;
        let deltas: Vec<u64> = decode(&value)?;
        Ok(undelta(&deltas).into_iter().filter(|it| *it > after).collect())
    })
}

pub(super) fn has_history(view: &dyn View, shard: ShardNo, key: DeliveryKey) -> Result<bool> {
    let first = shard.history(key, 0);
    Ok(view.get(Table::History, &first)?.is_some())
}
