//! From an event to its deliveries. Where that is quick, the writer does it in the event's own
//! batch, which saves a record, a batch, and waking somebody; the rest is left to who follows the
//! shard, a moment later.

use std::sync::{Arc, atomic::Ordering};

use crate::domain::{Endpoint, Event, Seq, Timestamp};
use crate::storage::Result;
use crate::storage::fold::Meta;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::taken::{Fresh, OrderingKey};
use crate::storage::writer::Command;
use crate::telemetry::{DELIVERIES_CREATED, FAN_OUT, ended, tracing_is_on};

/// Deliveries that the writer makes with one batch at most, so that it is not held up for long.
const AT_ONCE_MAX: usize = 4096;
/// Events that share a row. Who looks one up reads them all.
const ROW_EVENTS_MAX: usize = 256;

/// Events in order, each with the endpoints that it becomes a delivery for.
pub type Wanted = Vec<(Arc<Event>, Vec<Arc<Endpoint>>)>;

/// What becomes of a batch's events once they are on disk.
pub(super) enum FanOut {
    /// Their deliveries are in the same batch.
    AtOnce(Wanted),
    /// Somebody else is to fan them out.
    Later(Vec<Arc<Event>>),
}

/// What is written of a fan-out.
pub(super) fn fanned_out(
    wanted: &[(Arc<Event>, Vec<Arc<Endpoint>>)],
) -> impl Iterator<Item = Record> {
    let numbers = |(event, endpoints): &(Arc<Event>, Vec<Arc<Endpoint>>)| {
        (event.seq.0, endpoints.iter().map(|it| it.no.0).collect())
    };
    wanted.chunks(ROW_EVENTS_MAX).map(move |row| {
        let targets = row.iter().filter(|(_, endpoints)| !endpoints.is_empty());
        let upto = row.last().map_or(0, |(event, _)| event.seq.0);
        Record::FannedOut { upto, targets: targets.map(numbers).collect() }
    })
}

impl Shard {
    /// The deliveries of these events, in order, each with the endpoints that want it. They can
    /// be leased at once; they are on disk with the next batch, before anything that is settled.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn enqueue(&self, wanted: &[(Arc<Event>, Vec<Arc<Endpoint>>)]) -> Result<()> {
        for record in fanned_out(wanted) {
            self.send(Command::Note { record, leased: false }).await?;
        }
        self.hand_over(wanted);
        Ok(())
    }

    /// The last event that was fanned out.
    pub fn fanned_out(&self) -> Seq {
        Seq(self.fanned_out.load(Ordering::Acquire))
    }

    /// The next events that are to be fanned out, at most `limit`; waits until there is one.
    ///
    /// # Errors
    /// When the store has stopped or cannot be read.
    pub async fn left_to_fan_out(&self, limit: usize) -> Result<Vec<Arc<Event>>> {
        loop {
            let fanned_out = self.fanned_out();
            if self.last_seq() > fanned_out {
                return self.read_after(fanned_out, limit).await;
            }
            self.left_over.notified().await;
        }
    }

    /// How the events of a batch that is about to be written are fanned out. The writer can do it
    /// where nobody else is at it, no filter is to be asked, and the batch changes no endpoint.
    pub(super) fn fan_out(
        &self,
        meta: &Meta,
        records: &[Record],
        events: Vec<Arc<Event>>,
    ) -> FanOut {
        if events.is_empty() {
            return FanOut::Later(events);
        }
        let marks = records.iter().filter_map(|it| match it {
            Record::FannedOut { upto, .. } => Some(*upto),
            _ => None,
        });
        // What was fanned out is in the lanes, and its record is in this batch or before it.
        let written = marks.fold(meta.fanned_out, u64::max);
        let in_step = written.min(self.fanned_out().0) >= meta.last_seq;
        if !in_step || records.iter().any(Record::is_catalog) {
            return FanOut::Later(events);
        }
        let catalog = self.catalog();
        let mut room = AT_ONCE_MAX;
        let wanted = |event: &Arc<Event>| {
            let endpoints = catalog.wanting_unasked(event, room)?;
            room = room.checked_sub(endpoints.len())?;
            Some((event.clone(), endpoints))
        };
        let all: Option<Wanted> = events.iter().map(wanted).collect();
        all.map_or(FanOut::Later(events), FanOut::AtOnce)
    }

    /// Shows committed events up to `last` to who reads, and their deliveries to who makes them.
    pub(super) fn show(&self, fan_out: FanOut, last: Seq) {
        let is_left = match fan_out {
            FanOut::AtOnce(wanted) => {
                self.show_events(wanted.iter().map(|(event, _)| event));
                self.hand_over(&wanted);
                false
            }
            FanOut::Later(events) => {
                self.show_events(events.iter());
                !events.is_empty()
            }
        };
        // Only now: what is fanned out already is not to be seen as left.
        self.show_last(last);
        if is_left {
            self.left_over.notify_one();
        }
    }

    /// Gives deliveries to their lanes.
    fn hand_over(&self, wanted: &[(Arc<Event>, Vec<Arc<Endpoint>>)]) {
        let Some((last, _)) = wanted.last() else { return };
        let now = self.clock.now();
        let made = wanted.iter().map(|(_, endpoints)| endpoints.len() as u64).sum();
        DELIVERIES_CREATED.count(made, &[]);
        let mut queue = self.queue();
        for (event, endpoints) in wanted {
            FAN_OUT.observe((now - event.accepted_at).as_secs_f64(), &[]);
            for endpoint in endpoints {
                // The lane's own order: it may have been changed since these were looked up.
                let lane = queue.peek(endpoint.no);
                let ordering = lane.map_or(endpoint.ordering, |it| it.ordering);
                let key = OrderingKey::of(ordering, event.ordering_key.as_deref());
                let fresh = Fresh { seq: event.seq, key };
                queue.enqueue(endpoint.no, fresh, event.only.is_some(), now);
            }
        }
        // While the queue is held: whoever looks there sees all that this tells of.
        self.fanned_out.store(last.seq.0, Ordering::Release);
        drop(queue);
        if made > 0 {
            self.queue_changed.notify_one();
        }
        if tracing_is_on() {
            wanted.iter().for_each(|(event, endpoints)| trace(event, endpoints.len(), now));
        }
    }
}

/// The span of an event's fan-out: from its acceptance to its deliveries.
fn trace(event: &Event, deliveries: usize, now: Timestamp) {
    let Some(trace) = event.trace else { return };
    let facts = vec![
        ("hookgate.tenant", event.tenant.as_str().to_owned().into()),
        ("hookgate.event_id", event.id.as_str().to_owned().into()),
        ("hookgate.deliveries", (deliveries as i64).into()),
    ];
    ended("fan out", trace, now - event.accepted_at, facts);
}

#[cfg(test)]
mod tests {
    use std::ops::Bound;

    use crate::domain::{EndpointNo, Ordering, Quota, Slug, Verdict};
    use crate::storage::conformance::{Bench, endpoint, endpoint_by_hand, event};
    use crate::storage::memory::Disk;
    use crate::storage::{Allowance, Config, Store, Table};
    use crate::world::{Clock, SeededEntropy};

    use super::*;

    type Open = Box<dyn Fn(Arc<dyn Clock>) -> Result<(Store, crate::storage::Writers)>>;

    fn on(disk: Disk) -> Open {
        Box::new(move |clock: Arc<dyn Clock>| {
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::simulated(&disk, &Config::default(), world)
        })
    }

    async fn made(bench: &Bench<'_>, make: fn(EndpointNo) -> Endpoint) -> Arc<Endpoint> {
        let tenant = Slug::default_tenant();
        let named = |_: Option<&_>| Ok(("T".to_owned(), Quota::default()));
        bench.shard().put_tenant(&tenant, named).await.unwrap();
        Arc::new(bench.shard().create_endpoint(&tenant, make).await.unwrap())
    }

    async fn publish(bench: &Bench<'_>, events: usize) -> Vec<Arc<Event>> {
        let (tenant, before) = (Slug::default_tenant(), bench.shard().last_seq());
        let new = (0..events).map(|_| event()).collect();
        bench.shard().append(&tenant, new, false).await.unwrap();
        bench.shard().read_after(before, events).await.unwrap()
    }

    async fn lent(bench: &Bench<'_>, endpoint: &Endpoint) -> Vec<u64> {
        let lent = bench.shard().lease(endpoint.no, Allowance::of(100)).await.unwrap();
        lent.leases.iter().map(|it| it.key.seq.0).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_and_its_deliveries_are_one_batch() {
        let disk = Disk::default();
        let open = on(disk.clone());
        let mut bench = Bench::start(&*open).unwrap();
        let endpoint = made(&bench, endpoint).await;
        publish(&bench, 3).await;
        assert_eq!((bench.shard().fanned_out(), bench.shard().unfinished()), (Seq(3), (3, 0)));
        assert!(bench.shard().are_targets_known(Seq(3)));
        bench.crash().await.unwrap();
        assert_eq!(bench.shard().fanned_out(), Seq(3), "what was acknowledged has them on disk");
        assert_eq!(lent(&bench, &endpoint).await, [1, 2, 3]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_events_a_few_share_a_row() {
        let disk = Disk::default();
        let open = on(disk.clone());
        let bench = Bench::start(&*open).unwrap();
        let endpoint = made(&bench, endpoint).await;
        let events = publish(&bench, 2 * ROW_EVENTS_MAX + 1).await;
        let shard = bench.shard();
        let (from, to) = (shard.no.all(), shard.no.end());
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        assert_eq!(shard.view.range(Table::Fanout, from, to).count(), 3);
        for event in [&events[0], &events[ROW_EVENTS_MAX], &events[2 * ROW_EVENTS_MAX]] {
            assert_eq!(shard.targets(event.seq).unwrap(), [endpoint.no]);
        }
        assert_eq!(shard.unfinished(), (events.len() as u64, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_filter_is_asked_about_is_left_and_so_is_what_comes_behind_it() {
        let disk = Disk::default();
        let open = on(disk.clone());
        let bench = Bench::start(&*open).unwrap();
        let shard = bench.shard();
        let endpoint = made(&bench, endpoint_by_hand).await;
        let first = publish(&bench, 2).await;
        assert_eq!((shard.fanned_out(), shard.unfinished()), (Seq(0), (0, 0)));
        assert_eq!(shard.left_to_fan_out(100).await.unwrap(), first);

        // Nobody is to be asked any more, but these two come first.
        let unasked = |it| Ok(Endpoint { filter: None, ..it });
        shard.update_endpoint(&Slug::default_tenant(), &endpoint.id, unasked).await.unwrap();
        publish(&bench, 1).await;
        assert_eq!(shard.fanned_out(), Seq(0));
        let left = shard.left_to_fan_out(100).await.unwrap();
        let wanted: Wanted = left.into_iter().map(|it| (it, vec![endpoint.clone()])).collect();
        shard.enqueue(&wanted).await.unwrap();

        // What fanned these out is in the same batch, so the writer is in step again.
        publish(&bench, 1).await;
        assert_eq!(shard.fanned_out(), Seq(4));
        assert_eq!(lent(&bench, &endpoint).await, [1, 2, 3, 4]);
        let asked =
            tokio::time::timeout(std::time::Duration::from_secs(60), shard.left_to_fan_out(9));
        assert!(asked.await.is_err(), "nothing is left");
    }

    #[tokio::test(start_paused = true)]
    async fn masses_are_left_as_well() {
        let disk = Disk::default();
        let open = on(disk.clone());
        let bench = Bench::start(&*open).unwrap();
        let tenant = Slug::default_tenant();
        for _ in 0..=AT_ONCE_MAX / 100 {
            made(&bench, endpoint).await;
        }
        bench.shard().append(&tenant, (0..100).map(|_| event()).collect(), false).await.unwrap();
        assert_eq!(bench.shard().fanned_out(), Seq(0));
        assert_eq!(bench.shard().left_to_fan_out(1000).await.unwrap().len(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_reads_nothing_that_it_is_about_to_be_handed() {
        let disk = Disk::default();
        let open = on(disk.clone());
        let bench = Bench::start(&*open).unwrap();
        made(&bench, endpoint_by_hand).await;
        let endpoint = bench.endpoint_with(Ordering::None, 2).await.unwrap();
        {
            let mut queue = bench.shard().queue();
            let lane = queue.lane(endpoint.no);
            lane.fresh.clear();
            lane.loaded_to = Seq(0);
        }
        let wanted: Wanted =
            publish(&bench, 1).await.into_iter().map(|it| (it, vec![endpoint.clone()])).collect();
        bench.shard().commit(fanned_out(&wanted).collect()).await.unwrap();
        assert_eq!(bench.shard().unfinished(), (2, 0));
        let leases = bench.shard().lease(endpoint.no, Allowance::of(9)).await.unwrap().leases;
        assert_eq!(leases.iter().map(|it| it.key.seq.0).collect::<Vec<_>>(), [1, 2]);
        for lease in leases {
            bench.settle(lease, Verdict::Delivered).await.unwrap();
        }
        bench.shard().hand_over(&wanted);
        assert_eq!(lent(&bench, &endpoint).await, [3]);
    }
}
