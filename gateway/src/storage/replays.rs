use std::{ops::Bound, sync::Arc};

use crate::domain::{
    Claim, DeliveryKey, DeliveryState, Endpoint, EndpointNo, Event, Replay, ReplayState, Seq, Slug,
    TenantNo, Timestamp, Trigger,
};
use crate::storage::audit::{Change, Noun};
use crate::storage::codec::decode;
use crate::storage::fold::undelta;
use crate::storage::history_row::Entry;
use crate::storage::keys::u64_at;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::waiting::WAITING_MAX;
use crate::storage::{Refused, Result, Table};

/// Events that one step of a replay looks at.
const EXAMINED_MAX: usize = 512;
/// Replays of a tenant that run at the same time.
const RUNNING_MAX: u32 = 10;
/// Replays of a tenant that ended and are remembered: the last so many.
const ENDED_KEPT: usize = 100;

impl Shard {
    /// Stores a new replay, which runs from then on. What ended long before is forgotten.
    ///
    /// # Errors
    /// `NotFound` when the tenant does not exist, `Limit` when too many run, or when storage
    /// fails.
    pub async fn start_replay(&self, replay: &Replay) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(&replay.tenant)?;
        let running = |it: &&Arc<Replay>| it.tenant == replay.tenant;
        if self.running_replays().iter().filter(running).count() >= RUNNING_MAX as usize {
            return Err(Refused::Limit(RUNNING_MAX));
        }
        let forgotten = self.long_ended(&replay.tenant);
        let forget = Record::ReplaysForgotten { tenant_no: no.0, ids: forgotten };
        self.put_replay(no, replay, Some(forget)).await
    }

    /// The ids of replays that ended before the last hundred which did.
    fn long_ended(&self, tenant: &Slug) -> Vec<String> {
        let catalog = self.catalog();
        let all = catalog.tenant(tenant).into_iter().flat_map(|it| it.replays.values());
        let mut ended: Vec<_> = all.filter(|it| it.state != ReplayState::Running).collect();
        ended.sort_by_key(|it| std::cmp::Reverse((it.updated_at, &it.id)));
        ended.into_iter().skip(ENDED_KEPT).map(|it| it.id.clone()).collect()
    }

    /// Stops a replay: nothing more of it is attempted for the first time, and what waits for
    /// that stands as it stood before. One of which nothing waits any more stays as it is.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn stop_replay(self: &Arc<Self>, tenant: &Slug, id: &str) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().tenant(tenant).and_then(|it| it.replays.get(id).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        let leases = self.called_off(&known)?;
        let mut replay = Replay::clone(&known);
        if replay.state == ReplayState::Running || !leases.is_empty() {
            replay.state = ReplayState::Stopped;
            replay.updated_at = self.clock.now();
            replay.replayed = replay.replayed.saturating_sub(leases.len() as u64);
        }
        self.call_off_many(leases, self.replay_put(no, (Some(&known), &replay))).await?;
        self.replays_changed.notify_one();
        Ok(())
    }

    async fn put_replay(
        &self,
        no: TenantNo,
        replay: &Replay,
        also: Option<Record>,
    ) -> Result<(), Refused> {
        let records = self.replay_put(no, (None, replay)).into_iter().chain(also).collect();
        self.commit(records).await?;
        self.replays_changed.notify_one();
        Ok(())
    }

    /// A replay as it is now, and who made it so.
    fn replay_put(
        &self,
        no: TenantNo,
        (before, replay): (Option<&Replay>, &Replay),
    ) -> Vec<Record> {
        let change = Change {
            tenant: Some((&replay.tenant, no)),
            subject: format!("replay {}", replay.id),
            before: before.map(Noun::Replay),
            after: Some(Noun::Replay(replay)),
        };
        let record = Record::ReplayPut { tenant_no: no.0, replay: Box::new(replay.into()) };
        vec![record, self.audited(&change)]
    }

    /// The replays that are to go on.
    pub fn running_replays(&self) -> Vec<Arc<Replay>> {
        let catalog = self.catalog();
        let all = catalog.tenants().flat_map(|it| it.replays.values());
        all.filter(|it| it.state == ReplayState::Running).cloned().collect()
    }

    /// Waits until a replay is asked for or stopped.
    pub async fn replays_changed(&self) {
        self.replays_changed.notified().await;
    }

    /// How many deliveries a replay may set off for an endpoint now. What waits fits into memory,
    /// and half of that is free first, because each step costs the disk a batch.
    pub fn replay_room(&self, endpoint: EndpointNo) -> usize {
        let (now, queue) = (self.clock.now(), self.queue());
        let ready = queue.peek(endpoint).map_or(Some(0), |it| it.bulk.all_ready(now));
        ready.filter(|it| *it <= WAITING_MAX / 2).map_or(0, |it| WAITING_MAX - it)
    }

    /// Takes a replay further by at most `limit` deliveries.
    ///
    /// # Errors
    /// When storage cannot be read or has stopped.
    pub async fn advance_replay(&self, replay: &Replay, limit: usize) -> Result<()> {
        let _one_at_a_time = self.configuring.lock().await;
        let (tenant_no, known, endpoint) = {
            let catalog = self.catalog();
            let Some(entry) = catalog.tenant(&replay.tenant) else { return Ok(()) };
            let endpoint = catalog.endpoint(replay.endpoint_no).cloned();
            (entry.tenant.no, entry.replays.get(&replay.id).cloned(), endpoint)
        };
        // It may have been stopped since it was listed.
        let Some(known) = known.filter(|it| it.state == ReplayState::Running) else {
            return Ok(());
        };
        let mut replay = Replay::clone(&known);
        let mut records = Vec::new();
        match endpoint {
            Some(endpoint) => self.take_part(&mut replay, &endpoint, limit, &mut records)?,
            None => replay.state = ReplayState::Stopped,
        }
        replay.updated_at = self.clock.now();
        records
            .push(Record::ReplayPut { tenant_no: tenant_no.0, replay: Box::new((&replay).into()) });
        self.commit(records).await
    }

    fn take_part(
        &self,
        replay: &mut Replay,
        endpoint: &Endpoint,
        limit: usize,
        records: &mut Vec<Record>,
    ) -> Result<()> {
        let tenant = self.catalog().tenant(&replay.tenant).map(|it| it.tenant.no);
        let Some(tenant) = tenant else { return Ok(()) };
        let mut backfilled = Vec::new();
        let seqs = self.seqs_after(tenant, replay.cursor, replay.last, EXAMINED_MAX)?;
        let mut ended = seqs.len() < EXAMINED_MAX;
        for seq in seqs {
            if records.len() >= limit {
                ended = false;
                break;
            }
            replay.cursor = seq;
            replay.examined += 1;
            let Some(event) = self.event(seq)? else { continue };
            if !wanted(replay, endpoint, &event) {
                continue;
            }
            let key = DeliveryKey { seq, endpoint: endpoint.no };
            if let Some((record, new)) = self.replayed(replay, tenant, key)? {
                replay.replayed += 1;
                records.push(record);
                backfilled.extend(new.then_some(seq.0));
            }
        }
        if ended {
            replay.cursor = replay.last;
            replay.state = ReplayState::Finished;
        }
        if !backfilled.is_empty() {
            records.push(Record::Backfilled { endpoint: endpoint.no.0, seqs: backfilled });
        }
        Ok(())
    }

    /// The record that sets a delivery off once more, and whether the endpoint never had it.
    fn replayed(
        &self,
        replay: &Replay,
        tenant: TenantNo,
        key: DeliveryKey,
    ) -> Result<Option<(Record, bool)>> {
        let Some((history, new)) = self.set_off(replay, key)? else { return Ok(None) };
        let asked = (Trigger::Replay, Claim::Bulk, None);
        let record = self.requeue_record(tenant, key, &history, asked)?;
        Ok(Some((Record::Happened(record), new)))
    }

    /// What a delivery that the replay sets off has behind it, and whether the endpoint never had
    /// it; `None`: it is left alone, since one is on its way, or it has it.
    fn set_off(&self, replay: &Replay, key: DeliveryKey) -> Result<Option<(Vec<Entry>, bool)>> {
        let history = self.history(key)?;
        let new = match history.last().map(|it| it.state()) {
            None if self.targets(key.seq)?.contains(&key.endpoint) => return Ok(None),
            None => true,
            Some(DeliveryState::Pending | DeliveryState::Retrying { .. }) => return Ok(None),
            Some(DeliveryState::Delivered) if replay.undelivered_only => return Ok(None),
            Some(_) => false,
        };
        Ok(Some((history, new)))
    }

    /// How far a replay would come if it ran now, and what it would set off, by the rule that it
    /// follows. It looks at so many events at most; nothing is changed.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub async fn preview_replay(
        &self,
        tenant: TenantNo,
        mut replay: Replay,
        examined_max: u64,
    ) -> Result<Replay> {
        let endpoint = self.catalog().endpoint(replay.endpoint_no).cloned();
        let Some(endpoint) = endpoint else { return Ok(replay) };
        while replay.examined < examined_max {
            let seqs = self.seqs_after(tenant, replay.cursor, replay.last, EXAMINED_MAX)?;
            if seqs.is_empty() {
                replay.state = ReplayState::Finished;
                break;
            }
            for seq in seqs {
                (replay.cursor, replay.examined) = (seq, replay.examined + 1);
                let Some(event) = self.event(seq)? else { continue };
                let key = DeliveryKey { seq, endpoint: endpoint.no };
                let sent =
                    wanted(&replay, &endpoint, &event) && self.set_off(&replay, key)?.is_some();
                replay.replayed += u64::from(sent);
            }
            tokio::task::yield_now().await;
        }
        Ok(replay)
    }

    /// The places of the tenant's events behind `after` up to `last`, at most `limit`, oldest
    /// first.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn seqs_after(
        &self,
        tenant: TenantNo,
        after: Seq,
        last: Seq,
        limit: usize,
    ) -> Result<Vec<Seq>> {
        let after = after.max(self.floors().of(tenant));
        let least = self.no.tenant_seq(tenant, Seq(0));
        let at = self.no.tenant_seq(tenant, after);
        let end = self.no.tenant_seq(tenant, last);
        // The chunk that begins at or before `after` may reach beyond it.
        let (low, high) = (Bound::Included(&least[..]), Bound::Included(&at[..]));
        let reaching = self.view.range_back(Table::ByTenant, low, high).next();
        let (low, high) = (Bound::Excluded(&at[..]), Bound::Included(&end[..]));
        let later = match after < last {
            true => Some(self.view.range(Table::ByTenant, low, high)),
            false => None,
        };
        let mut seqs = Vec::new();
        for row in reaching.into_iter().chain(later.into_iter().flatten()) {
            let deltas: Vec<u64> = decode(&row?.1)?;
            seqs.extend(undelta(&deltas).into_iter().filter(|it| *it > after && *it <= last));
            if seqs.len() >= limit {
                break;
            }
        }
        seqs.truncate(limit);
        Ok(seqs)
    }

    /// The first place in the log from which on events were accepted at `at` or later.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn seq_at(&self, at: Timestamp) -> Result<Seq> {
        let kept = self.floors().shard + 1..self.last_seq().0 + 1;
        let std::ops::Range { start: mut low, end: mut high } = self.stretch(at, kept);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.stored_from(Seq(middle))? {
                Some(event) if event.accepted_at < at => low = event.seq.0 + 1,
                _ => high = middle,
            }
        }
        Ok(Seq(low))
    }

    /// The first event at `seq` or behind it: some may be gone.
    pub(super) fn stored_from(&self, seq: Seq) -> Result<Option<Arc<Event>>> {
        if let Some(event) = self.stored(seq)? {
            return Ok(Some(event));
        }
        let (from, to) = (self.no.seq(seq), self.no.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let Some(row) = self.view.range(Table::Events, range.0, range.1).next() else {
            return Ok(None);
        };
        self.stored(Seq(u64_at(&row?.0, 0)?))
    }
}

/// Whether a replay is about this event: a test's event is for nobody else, and of the rest what
/// the replay names, or else what the endpoint wants.
fn wanted(replay: &Replay, endpoint: &Endpoint, event: &Event) -> bool {
    let in_time = replay.since <= event.accepted_at && event.accepted_at < replay.until;
    let types = match replay.event_types.is_empty() {
        true => &endpoint.event_types,
        false => &replay.event_types,
    };
    event.only.is_none()
        && in_time
        && (types.is_empty() || types.iter().any(|it| it.matches(&event.event_type)))
        && endpoint.filter.as_ref().is_none_or(|it| it.wants(event))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointId, EndpointNo, Quota};
    use crate::storage::memory::Disk;
    use crate::storage::{Config, Store, Writers};
    use crate::world::{SeededEntropy, SimClock};

    fn open(disk: &Disk) -> (Store, Writers) {
        let clock = Arc::new(SimClock::starting_at(Timestamp(1_800_000_000_000)));
        let world = (clock as Arc<dyn crate::world::Clock>, Arc::new(SeededEntropy::new(1)) as _);
        Store::simulated(disk, &Config::default(), world).unwrap()
    }

    fn running(writers: Writers) -> tokio::task::JoinSet<()> {
        let mut tasks = tokio::task::JoinSet::new();
        writers.into_futures().for_each(|it| drop(tasks.spawn(it)));
        tasks
    }

    fn replay(n: u64) -> Replay {
        Replay {
            id: format!("rpl_{n:03}"),
            tenant: Slug::default_tenant(),
            endpoint: EndpointId::parse("e").unwrap(),
            endpoint_no: EndpointNo(1),
            since: Timestamp(0),
            until: Timestamp(1),
            event_types: Vec::new(),
            undelivered_only: false,
            state: ReplayState::Running,
            first: Seq(1),
            last: Seq(1),
            cursor: Seq(0),
            examined: 0,
            replayed: 0,
            created_at: Timestamp(n),
            updated_at: Timestamp(n),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn of_replays_that_ended_the_last_hundred_are_kept() {
        let (disk, tenant) = (Disk::default(), Slug::default_tenant());
        let ids = |store: &Store| -> Vec<String> {
            let catalog = store.shard(&tenant).catalog();
            catalog.tenant(&tenant).unwrap().replays.keys().cloned().collect()
        };
        let before = {
            let (store, writers) = open(&disk);
            let _running = running(writers);
            let shard = store.shard(&tenant);
            shard.put_tenant(&tenant, |_| Ok(("T".into(), Quota::default()))).await.unwrap();
            // One runs all the time: it is the oldest, and none of those that ended.
            shard.start_replay(&replay(0)).await.unwrap();
            for n in 1..=130 {
                shard.start_replay(&replay(n)).await.unwrap();
                if n < 130 {
                    shard.stop_replay(&tenant, &replay(n).id).await.unwrap();
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            ids(&store)
        };
        let expected: Vec<_> = [0].into_iter().chain(30..=130).map(|n| replay(n).id).collect();
        assert_eq!(before, expected, "two that run, and a hundred");
        assert_eq!(ids(&open(&disk).0), expected, "the same after a restart");
    }
}
