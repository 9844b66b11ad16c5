//! Looks whether every lane with something overdue is really worked on. A lane is woken by what
//! happens to it, once: were that ever lost, its deliveries would wait for a restart of the
//! process, and nobody would know.
//!
//! Every ten seconds it looks at lanes that may have something overdue, at no others. One that at
//! three looks could have begun something, was held back by nothing, and has not begun or ended an
//! attempt for half a minute gets a turn. If it then begins one, it had been forgotten, which is
//! counted and logged; if not, nothing has happened.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::{Duration, Instant};

use crate::dispatch::floor::Floor;
use crate::dispatch::lane::{EPOCH, Waits};
use crate::dispatch::scheduler::Scheduler;
use crate::domain::EndpointNo;
use crate::storage::Late;
use crate::telemetry::LANES_RESTARTED;

const EVERY: Duration = Duration::from_secs(10);
/// Where there are many lanes to look at, between two parts of them.
const PART_EVERY: Duration = Duration::from_millis(10);
/// Looks in a row at which a lane is found late and idle.
const LOOKS: u8 = 3;
/// A lane whose attempts began or ended since is worked on.
const QUIET: Duration = Duration::from_secs(30);

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Watchdog {
    /// When it looks again; `None`: when there is something to look at.
    next: Option<Instant>,
    /// From where on it looks, where the lanes are too many for once.
    from: Option<EndpointNo>,
    round: u32,
    /// Lanes that were late and idle, in which round last, and in how many in a row.
    idle: BTreeMap<EndpointNo, (u32, u8)>,
    /// Those that were given a turn just now.
    restarted: BTreeSet<EndpointNo>,
}

impl Watchdog {
    /// Whether it sleeps until there is something to look at.
    pub(super) fn sleeps(&self) -> bool {
        self.next.is_none()
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.next
    }

    /// There is something to look at.
    pub(super) fn wake(&mut self, now: Instant) {
        self.next.get_or_insert(now + EVERY);
    }

    /// All turns are used: who was given one and began nothing had nothing, and what it begins from
    /// now on it would have begun.
    pub(super) fn turns_are_used(&mut self) {
        self.restarted.clear();
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|it| it <= now)
    }

    /// A lane is late and idle; whether it has been for long enough.
    fn saw(&mut self, endpoint: EndpointNo) -> bool {
        let (round, looks) = self.idle.entry(endpoint).or_insert((self.round, 0));
        let in_a_row = *round + 1 >= self.round;
        *looks = if in_a_row { looks.saturating_add(1) } else { 1 };
        *round = self.round;
        *looks >= LOOKS
    }

    fn went_on(&mut self, late: &Late, now: Instant) {
        self.from = late.next;
        if late.next.is_some() {
            self.next = Some(now + PART_EVERY);
            return;
        }
        let this = self.round;
        self.idle.retain(|_, (round, _)| *round == this);
        self.round = this + 1;
        self.next = late.watched.then_some(now + EVERY);
    }
}

impl Scheduler {
    /// Whether there is a reason that an endpoint with something overdue begins nothing now.
    fn holds_back(&self, endpoint: EndpointNo, now: Instant) -> bool {
        let (out, called, shares) = (&self.in_flight, &self.called, &self.shares);
        let Some(lane) = self.lanes.get(&endpoint) else { return !self.has_room() };
        let tenant = self.tenants.get(&lane.tenant);
        let rest = lane.rests_until.filter(|it| *it > now);
        let full = !self.has_room() || tenant.is_some_and(|it| it.is_full(shares));
        let doubted = out.doubtful + called.doubtful >= shares.doubtful
            || tenant.is_some_and(|it| it.is_full_of_doubtful(shares));
        full || lane.in_flight.total > 0
            || rest.is_some_and(|it| self.resting.contains(&(it, endpoint)))
            || lane.doubtful && doubted
            || lane.waits.retries && out.retries + called.retries >= shares.retries
            || lane.waits.bulk && out.bulk + called.bulk >= shares.bulk
    }

    fn is_quiet(&self, endpoint: EndpointNo, now: Instant) -> bool {
        let quiet = (QUIET.as_millis() / EPOCH.as_millis()) as u32;
        self.lanes.get(&endpoint).is_none_or(|it| it.quiet_for(self.epoch(now)) >= quiet)
    }

    /// Gives an endpoint a turn, whatever became of its places.
    fn restart(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if let Some(at) = lane.rests_until.take() {
            self.resting.remove(&(at, endpoint));
        }
        (lane.queued, lane.waits) = (false, Waits::default());
        let no = lane.tenant;
        let tenant = self.tenants.entry(no).or_default();
        let places = [&mut tenant.endpoints, &mut tenant.doubtful];
        let places = places.into_iter().chain([&mut self.retries, &mut self.bulk]);
        places.for_each(|it| it.retain(|it| *it != endpoint));
        tenant.queued = self.turns.contains(&no);
        if tenant.doubtful.is_empty() {
            self.doubtful.retain(|it| *it != no);
        }
        self.queue(endpoint, true);
    }
}

impl Floor {
    /// Looks after lanes with something overdue, when it is time.
    pub(super) fn look_after_lanes(&mut self, now: Instant) {
        if !self.watchdog.is_due(now) {
            return;
        }
        let late = self.work.shard.late(self.watchdog.from.unwrap_or(EndpointNo(0)));
        for endpoint in &late.endpoints {
            let held = self.scheduler.holds_back(*endpoint, now);
            if !held && self.watchdog.saw(*endpoint) && self.scheduler.is_quiet(*endpoint, now) {
                self.watchdog.idle.remove(endpoint);
                self.watchdog.restarted.insert(*endpoint);
                self.scheduler.restart(*endpoint);
                self.work.shard.relist(*endpoint);
            }
        }
        self.watchdog.went_on(&late, now);
    }

    /// An endpoint has begun attempts: if only because it was given a turn, it had been forgotten.
    pub(super) fn note_begun(&mut self, no: EndpointNo) {
        if self.watchdog.restarted.is_empty() || !self.watchdog.restarted.remove(&no) {
            return;
        }
        LANES_RESTARTED.count(1, &[]);
        let endpoint = self.work.shard.catalog().endpoint(no).cloned();
        let (id, tenant) = match &endpoint {
            Some(it) => (it.id.as_str(), it.tenant.as_str()),
            None => ("", ""),
        };
        tracing::warn!(
            endpoint = id,
            tenant,
            "deliveries were overdue and nobody worked on them: their lane was started anew"
        );
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use bytes::Bytes;
    use tokio::task::JoinSet;

    use super::*;
    use crate::dispatch::crew::Crew;
    use crate::dispatch::lane::{Limits, Told};
    use crate::dispatch::{Config, Dispatcher};
    use crate::domain::{
        Claim, Endpoint, EventType, Ordering, Quota, Seq, Slug, TenantNo, Timestamp,
    };
    use crate::storage::memory::Disk;
    use crate::storage::{self, NewEvent, Store, conformance};
    use crate::world::{Clock, Entropy, Request, SeededEntropy, SendResult, SimClock, Transport};

    const SECOND: Duration = Duration::from_secs(1);
    const AT: Timestamp = Timestamp(1_800_000_000_000);
    const LIMITS: Limits = Limits { in_flight_max: 64, rate: None };

    /// Nobody answers.
    struct Silent;

    #[async_trait]
    impl Transport for Silent {
        async fn send(&self, _: Request) -> SendResult {
            std::future::pending().await
        }

        fn check_url(&self, url: &str) -> Result<url::Url, (&'static str, String)> {
            url.parse().map_err(|_| ("url_invalid", String::new()))
        }
    }

    /// A shard and those who give out its turns, which nobody drives but the test.
    pub(in crate::dispatch) struct Bench {
        pub(in crate::dispatch) floor: Floor,
        pub(in crate::dispatch) crew: Crew,
        seq: Seq,
        _writers: JoinSet<()>,
    }

    impl Bench {
        pub(in crate::dispatch) async fn new() -> Self {
            let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(AT));
            let entropy: Arc<dyn Entropy> = Arc::new(SeededEntropy::new(1));
            let world = (clock.clone(), entropy.clone());
            let config = storage::Config::default();
            let (store, running) = Store::simulated(&Disk::default(), &config, world).unwrap();
            let mut writers = JoinSet::new();
            running.into_futures().for_each(|it| drop(writers.spawn(it)));
            let shard = store.shard(&Slug::default_tenant()).clone();
            let tenant = Slug::default_tenant();
            shard.put_tenant(&tenant, |_| Ok(("T".into(), Quota::default()))).await.unwrap();
            let (plugins, config) = (None, Config::default());
            let transport = Arc::new(Silent);
            let work = Dispatcher { shard, plugins, transport, clock, entropy, config };
            let (floor, crew) = (Floor::new(Arc::new(work)), Crew::new());
            Self { floor, crew, seq: Seq(0), _writers: writers }
        }

        async fn endpoint(&mut self) -> Endpoint {
            self.endpoint_with(Ordering::Strict).await
        }

        pub(in crate::dispatch) async fn endpoint_with(&mut self, ordering: Ordering) -> Endpoint {
            let (shard, tenant) = (&self.floor.work.shard, Slug::default_tenant());
            let make = |no| Endpoint { ordering, ..conformance::endpoint_by_hand(no) };
            let made = shard.create_endpoint(&tenant, make).await.unwrap();
            self.floor.start_attempts(&mut self.crew).await;
            made
        }

        pub(in crate::dispatch) async fn publish(&mut self, endpoint: &Endpoint) {
            let event = NewEvent::new(EventType::parse("a.b").unwrap(), Bytes::from_static(b"1"));
            let shard = self.floor.work.shard.clone();
            shard.append(&Slug::default_tenant(), vec![event], true).await.unwrap();
            let event = shard.read_after(self.seq, 1).await.unwrap().remove(0);
            self.seq = event.seq;
            shard.enqueue(&[(event, vec![Arc::new(endpoint.clone())])]).await.unwrap();
            // Until it is on disk as well, which lists it once more.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.floor.watchdog.wake(Instant::now());
        }

        /// As a dispatcher does until an attempt is begun, for `most`; how long it took.
        async fn until_begun(&mut self, most: Duration) -> Option<Duration> {
            let started = Instant::now();
            while started.elapsed() < most {
                self.floor.start_attempts(&mut self.crew).await;
                if self.crew.under_way() > 0 {
                    return Some(started.elapsed());
                }
                let wake = self.floor.wakes_at().unwrap_or(started + most);
                tokio::time::sleep_until(wake).await;
                self.floor.wake();
            }
            None
        }

        fn lane(&mut self, endpoint: &Endpoint) -> &mut crate::dispatch::lane::Lane {
            self.floor.scheduler.lanes.get_mut(&endpoint.no).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_lane_that_was_forgotten_is_started_anew() {
        let forget: [fn(&mut Bench, &Endpoint); 4] = [
            |bench, it| bench.lane(it).queued = true,
            |bench, it| {
                bench.lane(it).queued = true;
                let tenant = bench.lane(it).tenant;
                let tenant = bench.floor.scheduler.tenants.entry(tenant).or_default();
                (tenant.queued, tenant.endpoints) = (true, [it.no].into());
            },
            |bench, it| {
                let until = Instant::now() + SECOND * 7200;
                bench.lane(it).rests_until = Some(until);
                bench.lane(it).queued = true;
            },
            // The queue told of it, and nobody listened.
            |bench, _| drop(bench.floor.work.shard.ready_now()),
        ];
        for (place, forget) in forget.into_iter().enumerate() {
            let mut bench = Bench::new().await;
            let endpoint = bench.endpoint().await;
            tokio::time::sleep(SECOND * 60).await;
            bench.publish(&endpoint).await;
            forget(&mut bench, &endpoint);
            let took = bench.until_begun(SECOND * 120).await;
            let took = took.unwrap_or_else(|| panic!("{place}: it is still forgotten"));
            assert!(took >= SECOND * 20 && took <= SECOND * 40, "{place}: {took:?}");
            assert!(bench.floor.watchdog.restarted.is_empty(), "{place}: it is counted");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_for_a_reason_is_let_wait() {
        let mut bench = Bench::new().await;
        let endpoint = bench.endpoint().await;
        tokio::time::sleep(SECOND * 60).await;
        bench.floor.scheduler.rest(endpoint.no, Instant::now() + SECOND * 100);
        bench.lane(&endpoint).deferred = Some(Instant::now() + SECOND * 100);
        bench.publish(&endpoint).await;
        assert_eq!(bench.until_begun(SECOND * 75).await, None);
        assert!(bench.floor.watchdog.idle.is_empty(), "it rests, and is not idle");
        let took = bench.until_begun(SECOND * 300).await.unwrap();
        assert!(took <= SECOND * 25, "{took:?}");
        // One is out, and the next waits for it.
        bench.publish(&endpoint).await;
        for _ in 0..10 {
            tokio::time::sleep_until(bench.floor.wakes_at().unwrap()).await;
            bench.floor.wake();
            bench.floor.start_attempts(&mut bench.crew).await;
            assert_eq!(bench.crew.under_way(), 1);
        }
        assert!(bench.floor.watchdog.idle.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_when_nothing_is_left_to_look_at() {
        let mut bench = Bench::new().await;
        let endpoint = bench.endpoint().await;
        bench.publish(&endpoint).await;
        assert!(bench.until_begun(SECOND).await.is_some() && !bench.floor.watchdog.sleeps());
        tokio::time::sleep(EVERY).await;
        bench.floor.wake();
        assert!(bench.floor.watchdog.sleeps());
        bench.floor.work.shard.something_waits().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_stands_in_line_is_left_there_while_the_line_is_full() {
        let mut bench = Bench::new().await;
        let (scheduler, now) = (&mut bench.floor.scheduler, Instant::now());
        for no in 1..=2 {
            scheduler.meet(EndpointNo(no), TenantNo(1));
        }
        let mut out = Vec::new();
        for _ in 0..scheduler.shares.retries {
            out.push(scheduler.begin(EndpointNo(1), (Claim::Retry, 1), now));
        }
        scheduler.ended(out.pop().unwrap(), Told::Took, (Duration::ZERO, LIMITS), (now, AT));
        out.push(scheduler.begin(EndpointNo(1), (Claim::Retry, 1), now));
        scheduler.lent(EndpointNo(2), (1, 0, 0), (false, true, false), now);
        assert!(scheduler.holds_back(EndpointNo(2), now));
        let begun = out.pop().unwrap();
        scheduler.ended(begun, Told::Took, (Duration::ZERO, LIMITS), (now, AT));
        scheduler.lanes.get_mut(&EndpointNo(2)).unwrap().waits.retries = true;
        scheduler.retries.push_back(EndpointNo(2));
        assert!(!scheduler.holds_back(EndpointNo(2), now), "nobody calls it any more");
        scheduler.restart(EndpointNo(2));
        assert!(scheduler.retries.is_empty() && scheduler.next() == Some(EndpointNo(2)));
    }
}
