use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::{Attempt, EndpointNo, TenantNo, Timestamp, Verdict};
use crate::storage::codec::decode;
use crate::storage::fold::kind;
use crate::storage::journal::View;
use crate::storage::keys::ShardNo;
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

/// What one bucket covers.
const BUCKET: Duration = Duration::from_secs(60);
/// How far back can be looked.
const KEPT: Duration = Duration::from_secs(3600);
/// Buckets of all endpoints together; beyond, the oldest go.
const BUCKETS_MAX: usize = 200_000;
/// Steps by which the latency doubles.
const STEPS: u32 = 4;

/// What came of an endpoint's attempts in a while.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Figures {
    /// Since when they are counted: the window's beginning, or when the gateway began to count.
    pub since: Timestamp,
    /// Deliveries that were accepted.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Attempts that were not the first of their delivery.
    pub retried: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// Deliveries that a plugin dropped.
    pub filtered: u64,
    /// How long half, 95 % and 99 % of the attempts took at most, to a fifth.
    pub latency: Option<[Duration; 3]>,
}

/// What was counted of an endpoint in a minute; also as a stop leaves it for the start behind it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Bucket {
    minute: u64,
    delivered: u32,
    failed: u32,
    retried: u32,
    dead: u32,
    filtered: u32,
    /// How many attempts took so many steps, in order of the steps.
    latency: Vec<(u8, u32)>,
}

/// All that was counted in the last hour, and since when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct StatsRow {
    since: u64,
    /// Each behind its endpoint's number, as they were begun.
    buckets: Vec<(u32, Bucket)>,
}

impl StatsRow {
    /// Where it lies.
    pub(super) fn key(shard: ShardNo) -> Bytes {
        shard.catalog(kind::STATS, TenantNo(0), "")
    }
}

/// The last hour of all endpoints, in memory. A clean stop leaves it to the next start; behind a
/// crash it begins empty, which is told by `since`.
#[derive(Debug, Default)]
pub(super) struct Stats {
    /// By endpoint and minute. In one map, not in one for each endpoint: short-lived things of the
    /// size that its nodes would have leave pages between them that hardly hold anything.
    buckets: BTreeMap<(EndpointNo, u64), Bucket>,
    /// The buckets in the order they were begun.
    order: VecDeque<(EndpointNo, u64)>,
    started_at: Option<Timestamp>,
}

impl Stats {
    /// What a clean stop has left.
    pub(super) fn load(view: &dyn View, shard: ShardNo) -> Result<Self> {
        let row = view.get(Table::Catalog, &StatsRow::key(shard))?;
        row.map_or_else(|| Ok(Self::default()), |it| Ok(Self::restored(decode(&it)?)))
    }

    fn restored(row: StatsRow) -> Self {
        let mut stats = Self { started_at: Some(Timestamp(row.since)), ..Self::default() };
        for (endpoint, bucket) in row.buckets {
            let key = (EndpointNo(endpoint), bucket.minute);
            stats.order.push_back(key);
            stats.buckets.insert(key, bucket);
        }
        stats
    }

    /// What is left for the next start; `None` where nothing was counted.
    fn kept(&self) -> Option<StatsRow> {
        let all = self.buckets.iter().map(|((endpoint, _), it)| (endpoint.0, it.clone()));
        let mut buckets: Vec<_> = all.collect();
        buckets.sort_by_key(|(endpoint, it)| (it.minute, *endpoint));
        Some(StatsRow { since: self.started_at?.0, buckets })
    }

    fn bucket(&mut self, endpoint: EndpointNo, at: Timestamp) -> &mut Bucket {
        self.started_at.get_or_insert(at);
        let newest = self.buckets.range(of(endpoint)).next_back();
        // A clock that was set back goes on in the newest bucket.
        let minute = newest.map_or(0, |((_, minute), _)| *minute).max(minute(at));
        if newest.is_none_or(|(_, it)| it.minute < minute) {
            self.order.push_back((endpoint, minute));
            self.tidy(minute);
        }
        let new = || Bucket { minute, ..Bucket::default() };
        self.buckets.entry((endpoint, minute)).or_insert_with(new)
    }

    fn tidy(&mut self, now: u64) {
        let kept = KEPT.as_secs() / BUCKET.as_secs();
        while let Some((endpoint, minute)) = self.order.front().copied() {
            if self.order.len() <= BUCKETS_MAX && minute + kept >= now {
                return;
            }
            self.order.pop_front();
            self.buckets.remove(&(endpoint, minute));
        }
    }

    fn note(&mut self, attempt: &Attempt) {
        let at = attempt.started_at + attempt.duration;
        let bucket = self.bucket(attempt.delivery.endpoint, at);
        bucket.retried += u32::from(attempt.number > 1);
        match attempt.verdict {
            Verdict::Delivered => bucket.delivered += 1,
            Verdict::Filtered(_) => {
                bucket.filtered += 1;
                return;
            }
            Verdict::RetryAt(_) => bucket.failed += 1,
            Verdict::Dead(_) => {
                bucket.failed += 1;
                bucket.dead += 1;
            }
        }
        let step = step(attempt.duration);
        match bucket.latency.binary_search_by_key(&step, |it| it.0) {
            Ok(place) => bucket.latency[place].1 += 1,
            Err(place) => {
                if bucket.latency.is_empty() {
                    // Most endpoints have one attempt a minute, or none.
                    bucket.latency.reserve_exact(1);
                }
                bucket.latency.insert(place, (step, 1));
            }
        }
    }

    fn figures(&self, endpoint: EndpointNo, now: Timestamp, window: Duration) -> Figures {
        let from = Timestamp(now.0.saturating_sub(window.as_millis() as u64));
        let since = self.started_at.map_or(now, |it| it.max(from));
        let mut sum = Figures { since, ..Figures::default() };
        let mut latency = BTreeMap::<u8, u64>::new();
        // Of the whole hour the minute that it begins in belongs to it.
        let first = minute(from) + u64::from(window < KEPT);
        for (_, bucket) in self.buckets.range((endpoint, first)..=*of(endpoint).end()) {
            sum.delivered += u64::from(bucket.delivered);
            sum.failed += u64::from(bucket.failed);
            sum.retried += u64::from(bucket.retried);
            sum.dead += u64::from(bucket.dead);
            sum.filtered += u64::from(bucket.filtered);
            for (step, count) in &bucket.latency {
                *latency.entry(*step).or_default() += u64::from(*count);
            }
        }
        let total: u64 = latency.values().sum();
        if total > 0 {
            sum.latency = Some([0.5, 0.95, 0.99].map(|share| quantile(&latency, total, share)));
        }
        sum
    }
}

/// Where an endpoint's buckets are.
fn of(endpoint: EndpointNo) -> RangeInclusive<(EndpointNo, u64)> {
    (endpoint, 0)..=(endpoint, u64::MAX)
}

fn minute(at: Timestamp) -> u64 {
    at.as_secs() / BUCKET.as_secs()
}

/// A logarithm of the duration in microseconds.
fn step(duration: Duration) -> u8 {
    let micros = (duration.as_micros().max(1)) as f64;
    (micros.log2() * f64::from(STEPS)).ceil().clamp(0.0, 255.0) as u8
}

fn quantile(latency: &BTreeMap<u8, u64>, total: u64, share: f64) -> Duration {
    let wanted = (total as f64 * share).ceil() as u64;
    let mut seen = 0;
    let reached = latency.iter().find(|(_, count)| {
        seen += **count;
        seen >= wanted
    });
    let step = reached.map_or(0, |(step, _)| *step);
    Duration::from_micros((f64::from(step) / f64::from(STEPS)).exp2() as u64)
}

impl Shard {
    /// What came of an endpoint's attempts in the last `window`, an hour at most, by the minute.
    pub fn figures(&self, endpoint: EndpointNo, window: Duration) -> Figures {
        self.stats().figures(endpoint, self.clock.now(), window)
    }

    pub(super) fn note_attempt(&self, attempt: &Attempt) {
        self.stats().note(attempt);
    }

    pub(super) fn note_death(&self, endpoint: EndpointNo, at: Timestamp) {
        self.stats().bucket(endpoint, at).dead += 1;
    }

    /// What a clean stop should leave of it.
    pub(super) fn stats_kept(&self) -> Option<StatsRow> {
        self.stats().kept()
    }

    fn stats(&self) -> MutexGuard<'_, Stats> {
        self.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::domain::{DeadReason, DeliveryKey, Seq};

    fn attempt(at: u64, endpoint: u32, millis: u64, verdict: Verdict) -> Attempt {
        Attempt {
            delivery: DeliveryKey { seq: Seq(1), endpoint: EndpointNo(endpoint) },
            started_at: Timestamp(at * 1000),
            duration: Duration::from_millis(millis),
            verdict,
            ..Attempt::for_tests()
        }
    }

    #[test]
    fn a_window_sums_its_minutes() {
        let mut stats = Stats::default();
        let start = 1_800_000_000;
        for n in 0..100 {
            stats.note(&attempt(start + n * 6, 1, n + 1, Verdict::Delivered));
        }
        stats.note(&attempt(start + 599, 1, 5000, Verdict::RetryAt(Timestamp(0))));
        stats.note(&attempt(start + 599, 2, 1, Verdict::Dead(DeadReason::Gone)));
        stats.note(&attempt(start + 599, 2, 1, Verdict::Filtered(String::new())));
        let now = Timestamp((start + 599) * 1000);
        let one = stats.figures(EndpointNo(1), now, Duration::from_secs(3600));
        assert_eq!((one.delivered, one.failed, one.dead), (100, 1, 0));
        assert_eq!(one.since.as_secs(), start, "nothing is known from before the start");
        let [p50, _, p99] = one.latency.unwrap().map(|it| it.as_millis());
        assert!((50..62).contains(&p50) && (99..125).contains(&p99), "{p50} {p99}");
        let last = stats.figures(EndpointNo(1), now, Duration::from_secs(120));
        assert_eq!((last.delivered, last.failed), (20, 1));
        let two = stats.figures(EndpointNo(2), now, Duration::from_secs(600));
        assert_eq!((two.failed, two.dead, two.filtered), (1, 1, 1));
        // And so after a stop.
        let restored = Stats::restored(stats.kept().unwrap());
        let all = |it: &Stats| it.figures(EndpointNo(1), now, Duration::from_secs(3600));
        assert_eq!((all(&restored), restored.kept()), (one, stats.kept()));
        assert_eq!(Stats::default().kept(), None);
        let later = Timestamp(now.0 + 3_600_000);
        let late = restored.figures(EndpointNo(1), later, Duration::from_secs(3600));
        assert_eq!((late.delivered, late.failed, late.latency.is_some()), (10, 1, true));
        let later = Timestamp(later.0 + 120_000);
        let late = restored.figures(EndpointNo(1), later, Duration::from_secs(3600));
        assert_eq!((late.delivered, late.latency), (0, None), "though nothing came since");
        let none = stats.figures(EndpointNo(3), now, Duration::from_secs(600));
        assert_eq!((none.delivered, none.latency), (0, None));
    }

    #[test]
    fn an_hour_is_kept_and_no_more() {
        let mut stats = Stats::default();
        for minute in 0..200 {
            for endpoint in 0..50 {
                stats.note(&attempt(minute * 60, endpoint, 1, Verdict::Delivered));
            }
        }
        assert!(stats.order.len() <= 62 * 50, "{}", stats.order.len());
        assert_eq!(stats.buckets.len(), stats.order.len());
        stats.note(&attempt(1_000_000, 1, 1, Verdict::Delivered));
        assert_eq!((stats.order.len(), stats.buckets.len()), (1, 1));
    }
}
