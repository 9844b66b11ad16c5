//! Retention: up to where events are gone. What is decided here is committed as one record, and
//! from that moment on nobody is shown what lies below; the room that it takes is given back at
//! leisure.
//!
//! **Invariant:** below a mark lies no event with a delivery that is not finished, none that a
//! running replay is still to see, and none with a dead letter younger than the retention.

use std::{collections::BTreeMap, ops::Bound, time::Duration};

use crate::domain::{DeliveryKey, EndpointNo, ReplayState, Retention, Seq, TenantNo, Timestamp};
use crate::storage::dead_hours::HOUR;
use crate::storage::floors::Floors;
use crate::storage::journal::Row;
use crate::storage::keys::{retry_at, u64_at};
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

/// Lanes looked at before the queue is let go for a moment.
const LANES_AT_ONCE: usize = 256;
/// Rows removed at once.
const ROWS_AT_ONCE: usize = 500;

/// How long what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Events with their deliveries, attempts and dead letters, unless their tenant's own
    /// retention says otherwise.
    pub events: Retention,
    /// Audit records.
    pub audit: Retention,
}

impl Default for Keep {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self { events: Retention::For(30 * DAY), audit: Retention::For(400 * DAY) }
    }
}

/// What came of a look at what is too old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed {
    /// Events that are gone since the look before.
    pub events: u64,
    /// The age of the oldest event that is there.
    pub oldest: Option<Duration>,
}

/// What decides up to where a tenant's events may go.
struct Stake {
    tenant: TenantNo,
    retention: Retention,
    endpoints: Vec<EndpointNo>,
    /// Up to where its running replays have come.
    replayed: Option<Seq>,
}

impl Shard {
    /// Lets go of what is beyond retention.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn trim(&self, keep: Keep) -> Result<Trimmed> {
        // Nobody may ask for an old delivery again between the look and the mark.
        let _one_at_a_time = self.configuring.lock().await;
        let before = self.floors().clone();
        let Some(now) = self.time_of_expiry() else {
            let oldest = self.stored_from(Seq(before.shard + 1))?;
            let oldest = oldest.map(|it| self.clock.now() - it.accepted_at);
            return Ok(Trimmed { events: 0, oldest });
        };
        let floors = self.floors_at(keep, now, &before)?;
        if floors != before {
            self.commit(vec![Record::Trimmed(floors.clone())]).await?;
            self.view.let_go(self.no.0, &floors);
        }
        self.sweep_dead(keep, now, &before).await?;
        self.sweep_deleted().await?;
        let oldest = self.stored_from(Seq(floors.shard + 1))?;
        Ok(Trimmed {
            events: floors.shard - before.shard,
            oldest: oldest.map(|it| now - it.accepted_at),
        })
    }

    fn stakes(&self, keep: Keep) -> Vec<Stake> {
        let catalog = self.catalog();
        let stake = |it: &crate::storage::TenantEntry| {
            let running = it.replays.values().filter(|it| it.state == ReplayState::Running);
            Stake {
                tenant: it.tenant.no,
                retention: it.tenant.quota.retention.unwrap_or(keep.events),
                endpoints: it.endpoints.values().map(|it| it.no).collect(),
                replayed: running.map(|it| it.cursor).min(),
            }
        };
        catalog.tenants().map(stake).collect()
    }

    fn floors_at(&self, keep: Keep, now: Timestamp, before: &Floors) -> Result<Floors> {
        // What is handed over is in its lane, and seen there.
        let handed_over = {
            let _queue = self.queue();
            self.fanned_out()
        };
        let mut reached = BTreeMap::new();
        let mut reach =
            |retention: Retention| match (reached.get(&retention), retention.cutoff(now)) {
                (Some(seq), _) => Ok(*seq),
                (None, None) => Ok(0),
                (None, Some(cutoff)) => {
                    let seq = (self.seq_at(cutoff)?.0 - 1).min(handed_over.0);
                    reached.insert(retention, seq);
                    Ok::<_, crate::storage::Error>(seq)
                }
            };
        let common = before.common.max(reach(keep.events)?);
        // A tenant that was deleted keeps its mark while it is above the others'.
        let (mut others, mut kept_from) = (before.others.clone(), u64::MAX);
        others.retain(|_, floor| *floor > common);
        for stake in self.stakes(keep) {
            let wanted = reach(stake.retention)?;
            let known = before.of(stake.tenant).0;
            let floor = match wanted > known {
                true => known.max(self.free_up_to(&stake, Seq(wanted), now)?.0),
                false => known,
            };
            match floor == common {
                true => others.remove(&stake.tenant.0),
                false => others.insert(stake.tenant.0, floor),
            };
            if floor + 1 < kept_from {
                let first = self.seqs_after(stake.tenant, Seq(floor), self.last_seq(), 1)?;
                kept_from = kept_from.min(first.first().map_or(u64::MAX, |it| it.0));
            }
        }
        // What belongs to nobody any more is kept as long as what is kept for the least time.
        let shortest = reached.values().copied().max().unwrap_or(0);
        let shard = before.shard.max(shortest.min(kept_from - 1));
        let hour = |it: Timestamp| it.0 / HOUR * HOUR;
        let audit = keep.audit.cutoff(now).map_or(0, hour);
        let window = Retention::For(self.idempotency_window()).cutoff(now);
        let names = if shard == 0 { 0 } else { window.map_or(0, hour) };
        let (audit, names) = (before.audit.max(audit), before.names.max(names));
        Ok(Floors { common, others, shard, audit, names })
    }

    /// Up to where nothing of a tenant's is needed any more, at most up to `wanted`.
    fn free_up_to(&self, stake: &Stake, wanted: Seq, now: Timestamp) -> Result<Seq> {
        let mut floor = stake.replayed.map_or(wanted, |it| it.min(wanted));
        let mut doubtful = Vec::new();
        for endpoints in stake.endpoints.chunks(LANES_AT_ONCE) {
            let queue = self.queue();
            for endpoint in endpoints {
                let Some(lane) = queue.peek(*endpoint) else { continue };
                floor = floor.min(lane.finished_up_to(floor));
                let waits = lane.waits_from.is_some_and(|it| it <= floor);
                doubtful.extend(waits.then_some(*endpoint));
            }
        }
        for endpoint in doubtful {
            let first = self.first_waiting(endpoint)?;
            floor = floor.min(first.map_or(floor, |it| Seq(it.0 - 1)));
        }
        // Behind the lanes: what dies meanwhile is seen there or here.
        if let Some(cutoff) = stake.retention.cutoff(now) {
            let first = self.queue().dead_hours.first_since(stake.tenant, cutoff, now);
            floor = floor.min(first.map_or(floor, |it| Seq(it.0 - 1)));
        }
        Ok(floor)
    }

    /// The first event of which the endpoint waits for another attempt. What the lane remembers
    /// may have been long ago, so this looks; it need not be asked again before that is too old.
    fn first_waiting(&self, endpoint: EndpointNo) -> Result<Option<Seq>> {
        self.queue().lane(endpoint).waits_from = None;
        let from = self.no.endpoint(endpoint);
        let to = self.no.endpoint(EndpointNo(endpoint.0.saturating_add(1)));
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let mut first = None;
        for row in self.view.range(Table::Retries, range.0, range.1) {
            let (_, _, key) = retry_at(&row?.0)?;
            first = first.into_iter().chain([key.seq]).min();
        }
        let mut queue = self.queue();
        let lane = queue.lane(endpoint);
        // One that came meanwhile has been noted.
        lane.waits_from = lane.waits_from.into_iter().chain(first).min();
        Ok(lane.waits_from)
    }

    /// Removes dead letters whose events are gone. Those of before `before` were not counted.
    async fn sweep_dead(&self, keep: Keep, now: Timestamp, before: &Floors) -> Result<()> {
        let stakes = self.stakes(keep);
        let own: BTreeMap<_, _> = stakes.iter().map(|it| (it.tenant.0, it.retention)).collect();
        let cutoff = |it: TenantNo| own.get(&it.0).copied().unwrap_or(keep.events).cutoff(now);
        let hours = self.queue().dead_hours.outside(cutoff, now);
        for (tenant, hour) in hours {
            self.sweep_hour(tenant, hour, before.of(tenant)).await?;
        }
        Ok(())
    }

    async fn sweep_hour(&self, tenant: TenantNo, hour: u64, uncounted: Seq) -> Result<()> {
        let key = |hour: u64| {
            let least = DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) };
            self.no.dead(tenant, Timestamp(hour * HOUR), least)
        };
        let (mut from, to) = (Bound::Included(key(hour)), key(hour + 1));
        let (floor, mut empty) = (self.floors().of(tenant), true);
        loop {
            let range = (from.as_ref().map(|it| &it[..]), Bound::Excluded(&to[..]));
            let rows = self.view.range(Table::Dead, range.0, range.1).take(ROWS_AT_ONCE);
            let seq_of = |row: Result<Row>| {
                let (key, _) = row?;
                Ok((u64_at(&key, 12)?, key))
            };
            let rows: Vec<_> = rows.map(seq_of).collect::<Result<_>>()?;
            let Some((_, last)) = rows.last().cloned() else { break };
            let (mut gone, mut counted) = (Vec::new(), 0);
            for (seq, key) in rows {
                if Seq(seq) <= floor {
                    counted += u64::from(Seq(seq) > uncounted);
                    gone.push(key);
                } else {
                    empty = false;
                }
            }
            self.view.remove(Table::Dead, gone)?;
            self.queue().dead.remove(tenant, counted);
            from = Bound::Excluded(last);
            tokio::task::yield_now().await;
        }
        if empty {
            self.queue().dead_hours.forget(tenant, hour);
        }
        Ok(())
    }
}
