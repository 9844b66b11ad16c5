//! Whose turn it is. Tenants take turns first, the endpoints of one among themselves; what is in
//! flight is bounded in all, by tenant, by kind of work, and for all endpoints together that fail,
//! are slow or are not known yet. So nobody's traffic, dead endpoint or backlog costs others more
//! than a turn.
//!
//! **Invariant:** nothing is looked through: each step takes what is at the front of a queue.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::time::{Duration, Instant};

use crate::dispatch::lane::{Change, EPOCH, Lane};
use crate::dispatch::shares::{InFlight, Shares};
use crate::domain::{EndpointNo, Health, TenantNo, Timestamp};
use crate::world::forgets;

/// What a tenant may begin in one turn, by the weight of its attempts.
const QUANTUM: i64 = 16;
/// The state of all turns.
#[derive(Debug)]
pub(super) struct Scheduler {
    pub(super) shares: Shares,
    pub(super) disable_after: Duration,
    pub(super) started: Instant,
    pub(super) tenants: BTreeMap<TenantNo, TenantTurn>,
    pub(super) turns: VecDeque<TenantNo>,
    pub(super) lanes: BTreeMap<EndpointNo, Box<Lane>>,
    /// Endpoints that are looked at again then.
    pub(super) resting: BTreeSet<(Instant, EndpointNo)>,
    /// Tenants whose doubtful endpoints wait for others' attempts to end.
    pub(super) doubtful: VecDeque<TenantNo>,
    /// Endpoints that wait for a retry, a replay to end.
    pub(super) retries: VecDeque<EndpointNo>,
    pub(super) bulk: VecDeque<EndpointNo>,
    pub(super) in_flight: InFlight,
    /// Room that is kept for those who were called up and have not had their turn.
    pub(super) called: Called,
    /// Endpoints with attempts that began in this epoch, to be looked at when they are old.
    pub(super) young: VecDeque<(u32, EndpointNo)>,
}

#[derive(Debug, Default)]
pub(super) struct TenantTurn {
    pub(super) endpoints: VecDeque<EndpointNo>,
    /// Endpoints that wait for doubtful attempts to end.
    pub(super) doubtful: VecDeque<EndpointNo>,
    pub(super) deficit: i64,
    pub(super) queued: bool,
    pub(super) in_flight: InFlight,
    pub(super) called_doubtful: usize,
}

impl TenantTurn {
    /// Whether it has all in flight that one tenant may.
    pub(super) fn is_full(&self, shares: &Shares) -> bool {
        self.in_flight.total >= shares.tenant || self.in_flight.bytes >= shares.tenant_bytes
    }

    /// Whether no further one of its doubtful attempts may begin.
    pub(super) fn is_full_of_doubtful(&self, shares: &Shares) -> bool {
        self.in_flight.doubtful + self.called_doubtful >= shares.tenant_doubtful
    }
}

/// How many were called up from each line.
#[derive(Debug, Default)]
pub(super) struct Called {
    pub(super) doubtful: usize,
    pub(super) retries: usize,
    pub(super) bulk: usize,
}

impl Scheduler {
    pub(super) fn new(shares: Shares, disable_after: Duration, now: Instant) -> Self {
        Self {
            shares,
            disable_after,
            started: now,
            tenants: BTreeMap::new(),
            turns: VecDeque::new(),
            lanes: BTreeMap::new(),
            resting: BTreeSet::new(),
            doubtful: VecDeque::new(),
            retries: VecDeque::new(),
            bulk: VecDeque::new(),
            in_flight: InFlight::default(),
            called: Called::default(),
            young: VecDeque::new(),
        }
    }

    /// What is remembered of an endpoint from before a restart.
    pub(super) fn restore(
        &mut self,
        endpoint: EndpointNo,
        tenant: TenantNo,
        health: &Health,
        now: (Instant, Timestamp),
    ) {
        self.lanes.insert(endpoint, Box::new(Lane::restored(tenant, health, now)));
    }

    /// Whether it knows whose an endpoint is.
    pub(super) fn knows(&self, endpoint: EndpointNo) -> bool {
        self.lanes.contains_key(&endpoint)
    }

    pub(super) fn meet(&mut self, endpoint: EndpointNo, tenant: TenantNo) {
        self.lanes.entry(endpoint).or_insert_with(|| Box::new(Lane::new(tenant)));
    }

    /// Gives an endpoint that is known a turn, if it has none yet.
    pub(super) fn queue(&mut self, endpoint: EndpointNo, asked: bool) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        lane.asked |= asked;
        if std::mem::replace(&mut lane.queued, true) || forgets("turn") {
            return;
        }
        let no = lane.tenant;
        let tenant = self.tenants.entry(no).or_default();
        tenant.endpoints.push_back(endpoint);
        if !std::mem::replace(&mut tenant.queued, true) {
            self.turns.push_back(no);
        }
    }

    /// The endpoint whose turn it is. Ask [`room`](Self::room) what it may do with it.
    pub(super) fn next(&mut self) -> Option<EndpointNo> {
        if !self.has_room() {
            return None;
        }
        self.call_up();
        while let Some(no) = self.turns.front().copied() {
            let tenant = self.tenants.entry(no).or_default();
            if tenant.is_full(&self.shares) || tenant.endpoints.is_empty() {
                // It gets its turn back when one of its attempts ends, or has something to do.
                (tenant.queued, tenant.deficit) = (false, 0);
                self.turns.pop_front();
                if tenant.endpoints.is_empty() && tenant.in_flight == InFlight::default() {
                    self.forget_tenant(no);
                }
                continue;
            }
            if tenant.deficit <= 0 {
                tenant.deficit += QUANTUM;
                self.turns.rotate_left(1);
                continue;
            }
            let endpoint = tenant.endpoints.pop_front()?;
            self.give_place_back(endpoint);
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.queued = false;
                return Some(endpoint);
            }
        }
        None
    }

    fn forget_tenant(&mut self, no: TenantNo) {
        if self.tenants.get(&no).is_some_and(|it| it.doubtful.is_empty()) {
            self.tenants.remove(&no);
        }
    }

    /// Looks at an endpoint again then.
    pub(super) fn rest(&mut self, endpoint: EndpointNo, until: Instant) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        if let Some(was) = lane.rests_until.replace(until) {
            self.resting.remove(&(was, endpoint));
        }
        self.resting.insert((until, endpoint));
    }

    /// Notes whether an endpoint is enabled; whether it was disabled before.
    pub(super) fn notice(&mut self, endpoint: EndpointNo, enabled: bool) -> bool {
        let lane = self.lanes.get_mut(&endpoint);
        lane.is_some_and(|it| std::mem::replace(&mut it.disabled, !enabled))
    }

    /// Whether nothing says when an endpoint is to be looked at again.
    pub(super) fn may_look(&self, endpoint: EndpointNo) -> bool {
        self.lanes.get(&endpoint).is_none_or(|it| it.rests_until.is_none())
    }

    /// An attempt could not be made: its endpoint's deliveries are deferred until then.
    pub(super) fn defer(&mut self, endpoint: EndpointNo, until: Instant) {
        if let Some(lane) = self.lanes.get_mut(&endpoint) {
            lane.deferred = lane.deferred.max(Some(until));
            lane.wants = true;
        }
    }

    /// What deliveries were deferred for may be over: those endpoints get a turn now.
    pub(super) fn wake_deferred(&mut self) {
        let mut deferred = Vec::new();
        for (endpoint, lane) in &mut self.lanes {
            deferred.extend(lane.deferred.take().map(|_| *endpoint));
        }
        deferred.into_iter().for_each(|it| self.queue(it, false));
    }

    /// Somebody enabled an endpoint again.
    pub(super) fn renew(&mut self, endpoint: EndpointNo, now: Instant) -> Change {
        let lane = self.lanes.get_mut(&endpoint);
        let change = lane.map(|it| it.renew(now)).unwrap_or_default();
        self.weigh(endpoint);
        change
    }

    /// When there is something to look at.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let rested = self.resting.first().map(|(at, _)| *at);
        let old = self.young.front().map(|(epoch, _)| self.started + EPOCH * (epoch + 2));
        rested.into_iter().chain(old).min()
    }

    /// Gives those a turn whose rest is over, and notices attempts that hang.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some((at, endpoint)) = self.resting.first().copied().filter(|it| it.0 <= now) {
            self.resting.remove(&(at, endpoint));
            if let Some(lane) = self.lanes.get_mut(&endpoint) {
                lane.rests_until = None;
            }
            self.queue(endpoint, false);
        }
        let epoch = self.epoch(now);
        while self.young.front().is_some_and(|(began, _)| began + 2 <= epoch) {
            let Some((_, endpoint)) = self.young.pop_front() else { break };
            if self.lanes.get_mut(&endpoint).is_some_and(|it| it.hangs(epoch)) {
                self.weigh(endpoint);
            }
        }
    }

    /// Its endpoint is gone.
    pub(super) fn forget(&mut self, endpoint: EndpointNo) {
        let Some(lane) = self.lanes.get_mut(&endpoint) else { return };
        (lane.wants, lane.gone) = (false, true);
        if lane.in_flight.total == 0 {
            if let Some(at) = lane.rests_until {
                self.resting.remove(&(at, endpoint));
            }
            self.give_place_back(endpoint);
            self.lanes.remove(&endpoint);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.in_flight.total < self.shares.total && self.in_flight.bytes < self.shares.bytes
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty() && self.has_room()
    }

    pub(super) fn epoch(&self, now: Instant) -> u32 {
        ((now - self.started).as_millis() / EPOCH.as_millis()) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::Config;
    use crate::dispatch::capacity::Begun;
    use crate::dispatch::lane::{Limits, Told};
    use crate::domain::Claim;

    const FAR: Duration = Duration::from_secs(5 * 24 * 3600);
    const LIMITS: Limits = Limits { in_flight_max: 64, rate: None };
    const AT: Timestamp = Timestamp(1_800_000_000_000);

    /// A scheduler with endpoints that always have more to do.
    struct Bench {
        scheduler: Scheduler,
        out: VecDeque<Begun>,
        bytes: usize,
    }

    impl Bench {
        fn new(in_flight_max: usize) -> Self {
            let config = Config { in_flight_max, ..Config::default() };
            let scheduler = Scheduler::new(Shares::new(&config), FAR, Instant::now());
            Self { scheduler, out: VecDeque::new(), bytes: 100 }
        }

        fn endpoint(&mut self, no: u32, tenant: u32) {
            self.scheduler.meet(EndpointNo(no), TenantNo(tenant));
            self.scheduler.queue(EndpointNo(no), false);
        }

        fn proven(&mut self, no: u32, tenant: u32) {
            self.scheduler.meet(EndpointNo(no), TenantNo(tenant));
            let begun = self.scheduler.begin(EndpointNo(no), (Claim::First, 1), Instant::now());
            self.end(begun, Told::Took);
            self.scheduler.queue(EndpointNo(no), false);
        }

        fn end(&mut self, begun: Begun, told: Told) {
            let now = (Instant::now(), AT);
            self.scheduler.ended(begun, told, (Duration::ZERO, LIMITS), now);
        }

        /// Begins what may be begun; which endpoints' attempts, in order.
        fn fill(&mut self) -> Vec<u32> {
            let (mut begun, now) = (Vec::new(), Instant::now());
            while let Some(endpoint) = self.scheduler.next() {
                let (allowed, _) = self.scheduler.room(endpoint, LIMITS, now);
                for _ in 0..allowed.any {
                    let what = (Claim::First, self.bytes);
                    self.out.push_back(self.scheduler.begin(endpoint, what, now));
                    begun.push(endpoint.0);
                }
                let more = (allowed.any > 0, false, false);
                let counts = (allowed.any, allowed.any, allowed.any);
                self.scheduler.lent(endpoint, counts, more, now);
            }
            begun
        }

        fn end_first(&mut self, told: Told) -> u32 {
            let begun = self.out.pop_front().unwrap();
            self.end(begun, told);
            begun.endpoint.0
        }
    }

    fn count(all: &[u32], of: impl Fn(u32) -> bool) -> usize {
        all.iter().filter(|it| of(**it)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_take_turns_whatever_they_have() {
        let mut bench = Bench::new(128);
        for no in 0..100 {
            bench.proven(no, 1);
        }
        bench.proven(1000, 2);
        bench.fill();
        let mut served = Vec::new();
        for _ in 0..2000 {
            bench.end_first(Told::Took);
            served.extend(bench.fill());
        }
        let two = count(&served, |it| it == 1000);
        assert!((850..1150).contains(&two), "one endpoint beside a hundred got {two} of 2000");
        for no in 0..100 {
            let got = count(&served, |it| it == no);
            assert!((1..60).contains(&got), "endpoint {no} got {got}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_never_holds_everything() {
        let mut bench = Bench::new(100);
        for no in 0..100 {
            bench.proven(no, 1);
        }
        assert_eq!(bench.fill().len(), 50);
        bench.proven(1000, 2);
        assert_eq!(bench.fill(), [1000; 50]);
        assert_eq!(bench.fill(), [0; 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn endpoints_that_hang_leave_room() {
        let mut bench = Bench::new(100);
        for no in 0..50 {
            bench.endpoint(no, no);
        }
        assert_eq!(bench.fill().len(), 50, "nobody knows them yet");
        for no in 1000..1003 {
            bench.proven(no, no);
        }
        assert_eq!(bench.fill().len(), 50);
        for _ in 0..200 {
            let begun = bench.out.pop_back().unwrap();
            bench.end(begun, Told::Took);
            let begun = bench.fill();
            assert_eq!(
                (begun.len(), count(&begun, |it| it < 1000)),
                (1, 0),
                "they have their part"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_endpoint_that_begins_to_hang_is_noticed() {
        let mut bench = Bench::new(100);
        bench.proven(1, 1);
        assert_eq!(bench.fill().len(), 50);
        assert_eq!(bench.scheduler.in_flight.doubtful, 0);
        let at = bench.scheduler.wakes_at().unwrap();
        assert!(at - Instant::now() <= 2 * EPOCH);
        tokio::time::sleep_until(at).await;
        bench.scheduler.wake(at);
        assert_eq!(bench.scheduler.in_flight.doubtful, 50);
        bench.end_first(Told::Took);
        assert_eq!(bench.fill(), [0; 0], "it waits for its own attempts to end");
        while !bench.out.is_empty() {
            bench.end_first(Told::Took);
        }
        assert_eq!(bench.scheduler.in_flight, InFlight::default());
        assert_eq!(bench.fill().len(), 50, "and goes on when it does");
    }

    #[tokio::test(start_paused = true)]
    async fn large_events_weigh_more_and_are_bounded() {
        let mut bench = Bench::new(100);
        bench.bytes = 4 * 1024 * 1024;
        bench.proven(1, 1);
        bench.fill();
        // How large they are is known once some were begun.
        while !bench.out.is_empty() {
            bench.end_first(Told::Took);
        }
        bench.fill();
        assert_eq!(bench.scheduler.in_flight.bytes, 32 * 1024 * 1024);
        bench.proven(2, 2);
        bench.bytes = 1000;
        assert!(count(&bench.fill(), |it| it == 2) > 10, "others have room");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_and_replays_keep_to_their_shares() {
        let mut bench = Bench::new(100);
        let now = Instant::now();
        for no in 0..20 {
            bench.proven(no, no);
        }
        let (mut retries, mut bulk, mut waiting) = (Vec::new(), 0, 0);
        while let Some(endpoint) = bench.scheduler.next() {
            let (allowed, _) = bench.scheduler.room(endpoint, LIMITS, now);
            for _ in 0..allowed.retries {
                retries.push(bench.scheduler.begin(endpoint, (Claim::Retry, 1), now));
            }
            for _ in 0..allowed.bulk.min(allowed.any - allowed.retries) {
                bench.scheduler.begin(endpoint, (Claim::Bulk, 1), now);
                bulk += 1;
            }
            waiting += usize::from(allowed.retries == 0);
            let left = (false, allowed.retries == 0, true);
            bench.scheduler.lent(endpoint, (allowed.any, 1, 1), left, now);
        }
        assert_eq!((retries.len(), bulk), (25, 20));
        assert!(waiting > 0);
        bench.end(retries.remove(0), Told::Took);
        assert!(bench.scheduler.next().is_some(), "one that waits for a retry goes on");
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_endpoint_costs_one_timer() {
        let mut bench = Bench::new(100);
        bench.endpoint(1, 1);
        for _ in 0..30 {
            bench.fill();
            while !bench.out.is_empty() {
                bench.end_first(Told::Failed { slower: false, pause: None });
            }
        }
        assert_eq!(bench.fill(), [0; 0]);
        for _ in 0..1000 {
            bench.scheduler.queue(EndpointNo(1), false);
            assert_eq!(bench.fill(), [0; 0]);
        }
        assert_eq!(bench.scheduler.resting.len(), 1);
        let (at, _) = *bench.scheduler.resting.first().unwrap();
        tokio::time::sleep_until(at).await;
        bench.scheduler.wake(Instant::now());
        assert_eq!(bench.fill(), [1], "one probe");
        bench.end_first(Told::Took);
        assert_eq!(bench.fill(), [1], "and then a little");
    }

    #[tokio::test(start_paused = true)]
    async fn no_room_is_kept_for_a_tenant_that_may_begin_nothing() {
        let mut bench = Bench::new(100);
        bench.proven(1, 1);
        assert_eq!(bench.fill().len(), 50, "it has all that one may");
        for (no, tenant) in [(2, 1), (3, 2)] {
            bench.scheduler.meet(EndpointNo(no), TenantNo(tenant));
            bench.scheduler.doubtful.push_back(TenantNo(tenant));
            let turn = bench.scheduler.tenants.entry(TenantNo(tenant)).or_default();
            turn.doubtful.push_back(EndpointNo(no));
        }
        bench.scheduler.call_up();
        assert_eq!(bench.scheduler.called.doubtful, 1);
        assert_eq!(bench.scheduler.next(), Some(EndpointNo(3)));
        bench.end_first(Told::Took);
        let begun: Vec<_> = std::iter::from_fn(|| bench.scheduler.next()).collect();
        assert!(begun.contains(&EndpointNo(2)), "{begun:?}");
    }

    /// First attempts, retries and replays that an endpoint has.
    type Work = [usize; 3];

    /// Endpoints with work of their own, as a shard hands it out.
    struct Shop {
        bench: Bench,
        work: BTreeMap<u32, Work>,
        dice: u64,
    }

    impl Shop {
        /// A number below `sides` (Knuth's constants of a linear congruential generator).
        fn roll(&mut self, sides: u64) -> usize {
            const FACTOR: u64 = 6_364_136_223_846_793_005;
            self.dice = self.dice.wrapping_mul(FACTOR).wrapping_add(1_442_695_040_888_963_407);
            ((self.dice >> 33) % sides) as usize
        }

        fn bring(&mut self, no: u32) {
            let kind = self.roll(3);
            self.work.entry(no).or_default()[kind] += 1 + self.roll(3);
            self.bench.endpoint(no, no % 7);
        }

        fn serve(&mut self) {
            let now = Instant::now();
            while let Some(endpoint) = self.bench.scheduler.next() {
                let (allowed, _) = self.bench.scheduler.room(endpoint, LIMITS, now);
                if allowed.any == 0 {
                    continue;
                }
                let work = self.work.entry(endpoint.0).or_default();
                let shares = [Claim::First, Claim::Retry, Claim::Bulk];
                let (mut left, mut begun) = ([allowed.any, allowed.retries, allowed.bulk], 0);
                for (kind, share) in shares.into_iter().enumerate() {
                    let count = work[kind].min(left[kind]).min(allowed.any - begun);
                    (work[kind], left[kind], begun) =
                        (work[kind] - count, left[kind] - count, begun + count);
                    for _ in 0..count {
                        let it = self.bench.scheduler.begin(endpoint, (share, 100), now);
                        self.bench.out.push_back(it);
                    }
                }
                let waits = |kind: usize| left[kind] == 0 && work[kind] > 0;
                let more = (begun == allowed.any, waits(1), waits(2));
                self.bench.scheduler.lent(endpoint, (allowed.any, begun, begun), more, now);
            }
        }

        fn end_any(&mut self) {
            let Some(last) = self.bench.out.len().checked_sub(1) else { return };
            let it = self.roll(last as u64 + 1);
            self.bench.out.swap(it, last);
            let Some(begun) = self.bench.out.pop_back() else { return };
            let fails = begun.endpoint.0 % 3 == 0 || self.roll(4) == 0;
            let told = Told::Failed { slower: false, pause: None };
            self.bench.end(begun, if fails { told } else { Told::Took });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_forgotten_in_a_line() {
        for seed in 1..200 {
            let mut shop = Shop { bench: Bench::new(16), work: BTreeMap::new(), dice: seed };
            for _ in 0..400 {
                match shop.roll(4) {
                    0 => shop.end_any(),
                    1 => shop.serve(),
                    _ => {
                        let no = shop.roll(40) as u32;
                        shop.bring(no);
                    }
                }
            }
            // Nothing comes any more: what is there is begun as others end and time goes by.
            loop {
                shop.serve();
                if !shop.bench.out.is_empty() {
                    shop.end_any();
                } else if let Some(at) = shop.bench.scheduler.wakes_at() {
                    tokio::time::sleep_until(at).await;
                    shop.bench.scheduler.wake(at);
                } else {
                    break;
                }
            }
            let left: Vec<_> = shop.work.iter().filter(|it| *it.1 != [0; 3]).collect();
            assert!(left.is_empty(), "seed {seed}: {left:?} wait for ever");
            let Called { doubtful, retries, bulk } = shop.bench.scheduler.called;
            assert_eq!(
                (doubtful, retries, bulk),
                (0, 0, 0),
                "seed {seed}: room is kept for nobody"
            );
            assert_eq!(shop.bench.scheduler.in_flight, InFlight::default());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_told_twice_costs_nobody_a_turn() {
        for seed in 1..50 {
            let mut shop = Shop { bench: Bench::new(16), work: BTreeMap::new(), dice: seed };
            for no in 0..400 {
                shop.work.insert(no, [1, 0, 0]);
                shop.bench.endpoint(no, no % 7);
                if shop.roll(3) == 0 {
                    shop.serve();
                    shop.end_any();
                }
                // Told once more, as when its rows are on disk.
                let again = no - shop.roll(u64::from(no) + 1) as u32;
                shop.bench.endpoint(again, again % 7);
            }
            loop {
                shop.serve();
                if shop.bench.out.is_empty() {
                    break;
                }
                shop.end_any();
            }
            let left = shop.work.values().filter(|it| it[0] > 0).count();
            assert_eq!(left, 0, "seed {seed}");
        }
    }
}
