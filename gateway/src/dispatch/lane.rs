use tokio::time::{Duration, Instant};

use crate::dispatch::attempt::PAUSE_MAX;
use crate::dispatch::breaker::Breaker;
use crate::dispatch::pace::Pace;
use crate::dispatch::shares::InFlight;
use crate::domain::{Breaker as BreakerState, Endpoint, Health, RateLimit, TenantNo, Timestamp};

/// Attempts that are out for longer than one to two of these make an endpoint a slow one.
pub(super) const EPOCH: Duration = Duration::from_millis(500);
/// An endpoint that takes longer than this on average is slow.
const SLOW: Duration = Duration::from_secs(1);
/// Failures in a row from which on an endpoint is a failing one.
const FAILING: u32 = 3;
/// Failures in a row from which on it is shown and remembered since when.
const SHOWN: u32 = 2;
/// Failures in a row without which nobody is warned and nothing disabled.
const WARNED: u32 = 5;
/// After so long with nothing but failures, its tenant is warned.
const WARNINGS: [Duration; 2] = [Duration::from_secs(3600), Duration::from_secs(24 * 3600)];
/// A pause that lasts so much longer than the one before is remembered over a restart.
const PAUSE_KEPT: Duration = Duration::from_secs(5);
/// What the average of the latency remembers of each further attempt.
const LATENCY_WEIGHT: f32 = 0.2;

/// An endpoint's own limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Attempts at once.
    pub(super) in_flight_max: usize,
    /// Attempts a second.
    pub(super) rate: Option<RateLimit>,
}

impl Limits {
    pub(super) fn of(endpoint: &Endpoint) -> Self {
        Self { in_flight_max: endpoint.max_in_flight as usize, rate: endpoint.rate_limit }
    }
}

/// What an attempt told of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: a plugin dropped it, or it was not sent.
    Nothing,
    /// It took it.
    Took,
    /// It did not; `slower`: it asked for less, and to be left alone for `pause`.
    Failed { slower: bool, pause: Option<Duration> },
}

/// What the tenant should be told of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tiding {
    /// Nothing but failures for a while.
    Failing { since: Timestamp, failures: u32 },
    /// Nothing but failures for so long that it is to be disabled.
    Hopeless { since: Timestamp, failures: u32 },
    /// It takes deliveries again.
    Recovered { since: Timestamp, failures: u32 },
}

/// What a finished attempt changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// What to show from now on; the inner `None`: nothing, it is well.
    pub(super) health: Option<Option<Health>>,
    /// Whether that should survive a restart.
    pub(super) keep: bool,
    /// What to tell.
    pub(super) tiding: Option<Tiding>,
    /// The breaker has opened (more) or closed (less).
    pub(super) opened: i8,
}

/// The lines an endpoint can stand in: for an attempt of such a kind to end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Waits {
    pub(super) doubtful: bool,
    pub(super) retries: bool,
    pub(super) bulk: bool,
}

/// One endpoint's share of the capacity, and how it does.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) tenant: TenantNo,
    pub(super) in_flight: InFlight,
    pub(super) breaker: Breaker,
    pub(super) pace: Pace,
    /// How large its last event was.
    pub(super) event_bytes: u32,
    /// Whether it has a turn.
    pub(super) queued: bool,
    /// Whether somebody waits for one of its deliveries.
    pub(super) asked: bool,
    /// Whether there may be more than it was let have.
    pub(super) wants: bool,
    /// Whether its attempts count as doubtful.
    pub(super) doubtful: bool,
    /// What it stands in line for.
    pub(super) waits: Waits,
    /// The lines it was called up from since its last turn.
    pub(super) called: Waits,
    /// Until when its deliveries are deferred.
    pub(super) deferred: Option<Instant>,
    /// Whether it was deleted.
    pub(super) gone: bool,
    /// Whether it was disabled when it was last looked at.
    pub(super) disabled: bool,
    /// When it is to be looked at again.
    pub(super) rests_until: Option<Instant>,
    /// Attempts out since this epoch, since the one before, and for longer. An endpoint has 1024 at
    /// most.
    out: [u16; 3],
    epoch: u32,
    latency: f32,
    failing_since: Option<Timestamp>,
    warnings: u8,
    shown: bool,
    kept: bool,
}

/// Every endpoint that fails has one: a byte more, and each takes the next larger block, of 320.
const _: () = assert!(size_of::<Lane>() <= 256);

impl Lane {
    pub(super) fn new(tenant: TenantNo) -> Self {
        Self {
            tenant,
            in_flight: InFlight::default(),
            breaker: Breaker::default(),
            pace: Pace::default(),
            event_bytes: 0,
            queued: false,
            asked: false,
            wants: false,
            doubtful: true,
            waits: Waits::default(),
            called: Waits::default(),
            deferred: None,
            gone: false,
            disabled: false,
            rests_until: None,
            out: [0; 3],
            epoch: 0,
            latency: 0.0,
            failing_since: None,
            warnings: 0,
            shown: false,
            kept: false,
        }
    }

    /// As it was before a restart.
    pub(super) fn restored(
        tenant: TenantNo,
        health: &Health,
        (now, at): (Instant, Timestamp),
    ) -> Self {
        let open = health.breaker != BreakerState::Closed;
        let mut pace = Pace::default();
        if let Some(until) = health.paused_until.filter(|it| *it > at) {
            // A clock may have been wrong then.
            pace.pause(now + (until - at).min(PAUSE_MAX));
        }
        Self {
            pace,
            breaker: Breaker::restored(health.failures, health.trips, open, now),
            failing_since: health.failing_since,
            warnings: health.warnings,
            shown: true,
            kept: true,
            ..Self::new(tenant)
        }
    }

    /// Attempts that may be begun now, or when there may be one again.
    pub(super) fn room(&mut self, limits: Limits, now: Instant) -> Result<usize, Instant> {
        let out = self.in_flight.total;
        self.deferred = self.deferred.filter(|it| now < *it);
        if let Some(until) = self.deferred {
            return Err(until);
        }
        if let Some(at) = self.breaker.probe_at() {
            // A probe goes alone.
            return if now < at { Err(at) } else { Ok(1_usize.saturating_sub(out)) };
        }
        let tokens = self.pace.tokens(limits.rate, now)?;
        let window = self.pace.window(limits.in_flight_max.max(1), now);
        Ok(window.saturating_sub(out).min(tokens))
    }

    /// So many attempts have begun; so many of them count against its rate.
    pub(super) fn started(
        &mut self,
        (attempts, charged): (usize, usize),
        epoch: u32,
        now: Instant,
    ) {
        self.shift(epoch);
        let attempts = u16::try_from(attempts).unwrap_or(u16::MAX);
        self.out[0] = self.out[0].saturating_add(attempts);
        self.pace.started(charged, now);
    }

    /// An attempt that began in `began` is over.
    pub(super) fn ended(&mut self, began: u32, epoch: u32) {
        self.shift(epoch);
        let age = epoch.saturating_sub(began).min(2) as usize;
        self.out[age] = self.out[age].saturating_sub(1);
    }

    /// Whether attempts have been out for long.
    pub(super) fn hangs(&mut self, epoch: u32) -> bool {
        self.shift(epoch);
        self.out[2] > 0
    }

    /// For how many epochs no attempt has begun or ended.
    pub(super) fn quiet_for(&self, epoch: u32) -> u32 {
        epoch.saturating_sub(self.epoch)
    }

    fn shift(&mut self, epoch: u32) {
        match epoch.saturating_sub(self.epoch) {
            0 => return,
            1 => self.out = [0, self.out[0], self.out[1] + self.out[2]],
            _ => self.out = [0, 0, self.out.iter().sum()],
        }
        self.epoch = epoch;
    }

    /// Whether its attempts should count as doubtful.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.pace.proven
            || self.out[2] > 0
            || self.breaker.failures >= FAILING
            || self.latency > SLOW.as_secs_f32()
    }

    /// Learns from a finished attempt.
    pub(super) fn learn(
        &mut self,
        told: Told,
        (latency, rate): (Duration, Option<RateLimit>),
        (now, at): (Instant, Timestamp),
        disable_after: Duration,
    ) -> Change {
        match told {
            Told::Nothing => Change::default(),
            Told::Took => {
                self.latency += (latency.as_secs_f32() - self.latency) * LATENCY_WEIGHT;
                self.took((now, at))
            }
            Told::Failed { slower, pause } => {
                self.latency += (latency.as_secs_f32() - self.latency) * LATENCY_WEIGHT;
                if slower {
                    self.pace.slow_down(rate, now);
                }
                let longer = pause.is_some_and(|it| self.pause(now + it, now));
                self.failed((now, at), disable_after, (slower, longer))
            }
        }
    }

    /// Leaves it alone until then; whether that is news that should survive a restart.
    fn pause(&mut self, until: Instant, now: Instant) -> bool {
        let before = self.pace.paused_until().map_or(now, |it| it.max(now));
        self.pace.pause(until);
        until >= before + PAUSE_KEPT
    }

    fn took(&mut self, (now, at): (Instant, Timestamp)) -> Change {
        self.pace.proven = true;
        let failures = self.breaker.failures;
        let closed = self.breaker.succeeded(now);
        if closed {
            self.pace.ramp(now);
        }
        let since = self.failing_since.take();
        let warned = std::mem::take(&mut self.warnings) > 0;
        let tiding = since.filter(|_| warned).map(|since| Tiding::Recovered { since, failures });
        let (shown, kept) = (std::mem::take(&mut self.shown), std::mem::take(&mut self.kept));
        // Well again, but for a rate that has not climbed back yet.
        self.shown = (shown || kept) && self.pace.slowed_until().is_some_and(|it| it > now);
        let health = self.shown.then(|| self.health((now, at)));
        let health = (shown || kept).then_some(health);
        Change { health, keep: kept, tiding, opened: -i8::from(closed) }
    }

    fn failed(
        &mut self,
        (now, at): (Instant, Timestamp),
        disable_after: Duration,
        (slower, longer): (bool, bool),
    ) -> Change {
        let was_open = self.breaker.probe_at().is_some();
        let opened = self.breaker.failed(now);
        let failures = self.breaker.failures;
        // A clock may have been wrong then.
        let since = *self.failing_since.insert(self.failing_since.map_or(at, |it| it.min(at)));
        let mut change = Change { opened: i8::from(opened && !was_open), ..Change::default() };
        if failures >= WARNED {
            let warned = WARNINGS.iter().filter(|it| at - since >= **it).count() as u8;
            if at - since >= disable_after {
                change.tiding = Some(Tiding::Hopeless { since, failures });
            } else if warned > self.warnings {
                self.warnings = warned;
                change.tiding = Some(Tiding::Failing { since, failures });
            }
        }
        let news = opened || failures == SHOWN || change.tiding.is_some() || longer;
        if news || slower {
            self.shown = true;
            self.kept |= news;
            change.keep = news;
            change.health = Some(Some(self.health((now, at))));
        }
        change
    }

    /// How it does, as the API shows it.
    pub(super) fn health(&self, (now, at): (Instant, Timestamp)) -> Health {
        let wall = |it: Instant| at + (it - now);
        let probe_at = self.breaker.probe_at();
        Health {
            breaker: match probe_at {
                None => BreakerState::Closed,
                Some(it) if it <= now => BreakerState::HalfOpen,
                Some(_) => BreakerState::Open,
            },
            trips: self.breaker.trips,
            probe_at: probe_at.map(wall),
            failures: self.breaker.failures,
            failing_since: self.failing_since,
            warnings: self.warnings,
            paused_until: self.pace.paused_until().filter(|it| *it > now).map(wall),
            slowed_until: self.pace.slowed_until().filter(|it| *it > now).map(wall),
        }
    }

    /// Somebody enabled it again: what was is forgotten, and it begins with little.
    pub(super) fn renew(&mut self, now: Instant) -> Change {
        let opened = -i8::from(self.breaker.probe_at().is_some());
        self.breaker = Breaker::default();
        (self.failing_since, self.warnings) = (None, 0);
        (self.shown, self.kept) = (false, false);
        self.pace.ramp(now);
        Change { health: Some(None), keep: true, tiding: None, opened }
    }

    /// Whether nothing has to be remembered of it.
    pub(super) fn is_plain(&self) -> bool {
        self.in_flight.total == 0
            && !self.queued
            && !self.wants
            && self.rests_until.is_none()
            && self.breaker.failures == 0
            && self.pace.is_plain()
            && !self.shown
            && !self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIVE_DAYS: Duration = Duration::from_secs(5 * 24 * 3600);
    const FAILED: Told = Told::Failed { slower: false, pause: None };

    fn learn(lane: &mut Lane, told: Told, after: Duration, start: Instant) -> Change {
        let at = Timestamp(1_800_000_000_000) + after;
        lane.learn(told, (Duration::from_millis(5), None), (start + after, at), FIVE_DAYS)
    }

    #[tokio::test(start_paused = true)]
    async fn days_of_nothing_but_failure_are_told_and_end_it() {
        let (mut lane, start) = (Lane::new(TenantNo(1)), Instant::now());
        let mut told = Vec::new();
        for minute in 0..10_000_u64 {
            let after = Duration::from_secs(minute * 60);
            if let Some(tiding) = learn(&mut lane, FAILED, after, start).tiding {
                told.push((minute, tiding));
                if matches!(tiding, Tiding::Hopeless { .. }) {
                    break;
                }
            }
        }
        let minutes: Vec<_> = told.iter().map(|it| it.0).collect();
        assert_eq!(minutes, [60, 24 * 60, 5 * 24 * 60]);
        let change = learn(&mut lane, Told::Took, FIVE_DAYS * 2, start);
        assert!(matches!(change.tiding, Some(Tiding::Recovered { failures: 7201, .. })));
        assert_eq!((change.health, change.keep, change.opened), (Some(None), true, -1));
        assert_eq!(learn(&mut lane, Told::Took, FIVE_DAYS * 2, start), Change::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_failures_long_apart_are_no_reason() {
        let (mut lane, start) = (Lane::new(TenantNo(1)), Instant::now());
        for day in [0, 2, 4, 6] {
            let change = learn(&mut lane, FAILED, Duration::from_secs(day * 86_400), start);
            assert_eq!(change.tiding, None);
        }
        let health = lane.health((start, Timestamp(0)));
        assert_eq!((health.failures, health.breaker), (4, BreakerState::Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_hang_make_it_doubtful() {
        let (mut lane, now) = (Lane::new(TenantNo(1)), Instant::now());
        learn(&mut lane, Told::Took, Duration::ZERO, now);
        assert!(!lane.is_doubtful());
        lane.started((2, 2), 5, now);
        assert!(!lane.hangs(6) && lane.hangs(7) && lane.is_doubtful());
        lane.ended(5, 8);
        assert!(lane.is_doubtful());
        lane.ended(5, 9);
        assert!(!lane.is_doubtful());
        for _ in 0..3 {
            learn(&mut lane, FAILED, Duration::ZERO, now);
        }
        assert!(lane.is_doubtful());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_over_a_restart_and_a_lowered_rate_is_shown() {
        let (mut lane, now) = (Lane::new(TenantNo(1)), Instant::now());
        let asked =
            |seconds| Told::Failed { slower: true, pause: Some(Duration::from_secs(seconds)) };
        let change = learn(&mut lane, asked(60), Duration::ZERO, now);
        assert!(change.keep, "it is remembered");
        let health = change.health.unwrap().unwrap();
        let later = Duration::from_secs(10);
        learn(&mut lane, asked(60), later, now);
        assert!(!learn(&mut lane, asked(61), later, now).keep, "it says hardly more");
        let at = Timestamp(1_800_000_000_000) + later;
        let mut back = Lane::restored(TenantNo(1), &health, (now + later, at));
        let limits = Limits { in_flight_max: 10, rate: None };
        assert_eq!(back.room(limits, now + later), Err(now + Duration::from_secs(60)));
        let change = learn(&mut lane, Told::Took, later, now);
        let shown = change.health.unwrap().unwrap();
        assert!(shown.slowed_until.is_some() && change.keep && shown.failures == 0);
        let change = learn(&mut lane, Told::Took, Duration::from_secs(300), now);
        assert_eq!((change.health, change.keep), (Some(None), false));
    }

    #[tokio::test(start_paused = true)]
    async fn one_probe_goes_while_it_is_open() {
        let (mut lane, start) = (Lane::new(TenantNo(1)), Instant::now());
        let limits = Limits { in_flight_max: 10, rate: None };
        for _ in 0..20 {
            learn(&mut lane, FAILED, Duration::ZERO, start);
        }
        let at = lane.room(limits, start).unwrap_err();
        assert_eq!(lane.room(limits, at), Ok(1));
        lane.in_flight.total = 1;
        assert_eq!(lane.room(limits, at), Ok(0));
        lane.in_flight.total = 0;
        learn(&mut lane, Told::Took, at - start, start);
        assert_eq!(lane.room(limits, at), Ok(1), "it is ramped up");
        assert_eq!(lane.room(limits, at + Duration::from_secs(20)), Ok(4));
    }
}
