use tokio::time::{Duration, Instant};

use crate::domain::RateLimit;

/// Attempts at once at an endpoint that has not taken anything yet.
const UNPROVEN_MAX: usize = 8;
/// An endpoint that is back gets one attempt at once, and twice as many each time this passes.
const RAMP_STEP: Duration = Duration::from_secs(10);
/// A rate that was lowered climbs evenly, and would come from nothing to the whole in this time.
/// Halving at once and climbing evenly is what lets senders find a receiver's own pace (additive
/// increase, multiplicative decrease, RFC 5681 section 3.1): who now and then asks for less ends
/// near what it takes, not at nothing.
const CLIMB: Duration = Duration::from_secs(60);
/// Answers that ask for less within this time count as one.
const SLOWED_ONCE: Duration = Duration::from_secs(1);
/// The slowest an endpoint is sent to, in attempts a second. One that wants less says until when
/// to wait.
const RATE_MIN: f64 = 1.0;
/// What an endpoint without a limit is taken to bear at least, in attempts a second: before it
/// has had that much to do, its own rate says nothing of it.
const MEASURED_MIN: f64 = 10.0;
/// Over how long the rate of an endpoint without a limit is measured.
const MEASURED_OVER: Duration = Duration::from_secs(2);
const REST_MAX: Duration = Duration::from_secs(3600);

/// How fast an endpoint may be sent to now: its own limits, and less while it recovers or asked
/// for less.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Whether it has taken something.
    pub(super) proven: bool,
    bucket: Option<Box<Bucket>>,
    ramp_from: Option<Instant>,
    paused_until: Option<Instant>,
    slowed: Option<Box<Slowed>>,
    /// Attempts since then.
    measured: Option<(Instant, u32)>,
    /// The rate of the time measured before.
    rate_before: f32,
}

/// Attempts that may be made at once, filled up over time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// It asked for less.
#[derive(Debug, Clone, Copy)]
struct Slowed {
    rate: f64,
    full: f64,
    since: Instant,
    /// What it has climbed since is in the rate up to here.
    climbed_at: Instant,
}

impl Bucket {
    fn full(tokens: f64, now: Instant) -> Box<Self> {
        Box::new(Self { tokens, filled_at: now })
    }
}

impl Slowed {
    fn climb(&mut self, now: Instant) {
        let climbed = (now - self.climbed_at).as_secs_f64() / CLIMB.as_secs_f64();
        self.rate = (self.rate + climbed * self.full).min(self.full);
        self.climbed_at = now;
    }
}

impl Pace {
    /// Attempts at once, of at most `max`.
    pub(super) fn window(&mut self, max: usize, now: Instant) -> usize {
        let max = if self.proven { max } else { max.min(UNPROVEN_MAX) };
        let Some(from) = self.ramp_from else { return max };
        let steps = (now - from).as_secs() / RAMP_STEP.as_secs();
        let reached = 1_usize.checked_shl(u32::try_from(steps).unwrap_or(u32::MAX));
        let reached = reached.unwrap_or(usize::MAX);
        if reached >= max && self.proven {
            self.ramp_from = None;
        }
        reached.min(max)
    }

    /// How many attempts the rate lets go now, or when it lets the next one.
    pub(super) fn tokens(
        &mut self,
        rate: Option<RateLimit>,
        now: Instant,
    ) -> Result<usize, Instant> {
        if let Some(until) = self.paused_until {
            if now < until {
                return Err(until);
            }
            self.paused_until = None;
        }
        let Some((per_second, burst)) = self.rate(rate, now) else {
            self.bucket = None;
            return Ok(usize::MAX);
        };
        let bucket = self.bucket.get_or_insert_with(|| Bucket::full(burst, now));
        let filled = (now - bucket.filled_at).as_secs_f64() * per_second;
        bucket.tokens = (bucket.tokens + filled).min(burst);
        bucket.filled_at = now;
        if bucket.tokens >= 1.0 {
            return Ok(bucket.tokens as usize);
        }
        let wait = Duration::try_from_secs_f64((1.0 - bucket.tokens) / per_second);
        // Rounded up, so that a token is there then.
        Err(now + wait.unwrap_or(REST_MAX).min(REST_MAX) + Duration::from_millis(1))
    }

    /// Attempts a second and at once; `None`: as many as there are.
    fn rate(&mut self, limit: Option<RateLimit>, now: Instant) -> Option<(f64, f64)> {
        let own = limit.map(|it| (it.per_second, f64::from(it.burst.max(1))));
        let Some(slowed) = &mut self.slowed else { return own };
        slowed.climb(now);
        let (rate, full) = (slowed.rate, slowed.full);
        if rate >= full {
            self.slowed = None;
            return own;
        }
        match own {
            Some((per_second, burst)) => Some((rate.min(per_second), (rate.min(burst)).max(1.0))),
            None => Some((rate, 1.0)),
        }
    }

    pub(super) fn started(&mut self, attempts: usize, now: Instant) {
        if let Some(bucket) = &mut self.bucket {
            bucket.tokens -= attempts as f64;
        }
        let (since, count) = self.measured.get_or_insert((now, 0));
        let span = now - *since;
        if span >= MEASURED_OVER {
            self.rate_before = *count as f32 / span.as_secs_f32();
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(attempts as u32);
    }

    /// It is back: begin with little.
    pub(super) fn ramp(&mut self, now: Instant) {
        self.ramp_from = Some(now);
    }

    /// It asked to be left alone until then.
    pub(super) fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |it| it.max(until)));
        self.ramp_from = self.paused_until;
    }

    /// Until when it asked to be left alone.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// It asked for less: half of its rate for a while, whether it has a limit or not.
    pub(super) fn slow_down(&mut self, limit: Option<RateLimit>, now: Instant) {
        if self.slowed.as_ref().is_some_and(|it| now - it.since < SLOWED_ONCE) {
            return;
        }
        let measured = self.measured.map_or(MEASURED_MIN, |(since, count)| {
            let span = (now - since).as_secs_f64().max(1.0);
            (f64::from(count) / span).max(f64::from(self.rate_before)).max(MEASURED_MIN)
        });
        let full = limit.map_or(measured, |it| it.per_second.min(measured));
        let (rate, full) = match &mut self.slowed {
            Some(it) => {
                it.climb(now);
                (it.rate, it.full.max(full))
            }
            None => (full, full),
        };
        let rate = (rate / 2.0).max(RATE_MIN.min(full));
        self.slowed = Some(Box::new(Slowed { rate, full, since: now, climbed_at: now }));
    }

    /// Until about when it is sent to more slowly, because it asked for less.
    pub(super) fn slowed_until(&self) -> Option<Instant> {
        let Slowed { rate, full, climbed_at, .. } = **self.slowed.as_ref()?;
        let left = CLIMB.as_secs_f64() * (1.0 - rate / full);
        Some(climbed_at + Duration::try_from_secs_f64(left).unwrap_or_default())
    }

    /// Whether there is anything to remember.
    pub(super) fn is_plain(&self) -> bool {
        self.bucket.is_none()
            && self.ramp_from.is_none()
            && self.paused_until.is_none()
            && self.slowed.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(it: u64) -> Duration {
        Duration::from_secs(it)
    }

    #[tokio::test(start_paused = true)]
    async fn a_recovering_endpoint_is_ramped_up() {
        let (mut pace, now) = (Pace { proven: true, ..Pace::default() }, Instant::now());
        assert_eq!(pace.window(64, now), 64);
        pace.ramp(now);
        let windows: Vec<_> =
            [0, 9, 10, 25, 30, 59, 60].map(|it| pace.window(64, now + seconds(it))).into();
        assert_eq!(windows, [1, 1, 2, 4, 8, 32, 64]);
        assert_eq!(pace.window(64, now), 64, "it is over");
        assert_eq!(Pace::default().window(64, now), UNPROVEN_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_is_kept() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let limit = Some(RateLimit { per_second: 10.0, burst: 2 });
        assert_eq!(pace.tokens(limit, now), Ok(2));
        pace.started(2, now);
        let at = pace.tokens(limit, now).unwrap_err();
        assert!((at - now) >= Duration::from_millis(100));
        assert_eq!(pace.tokens(limit, at), Ok(1));
        assert_eq!(pace.tokens(None, at), Ok(usize::MAX));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_less_gets_half_for_a_while() {
        let mut now = Instant::now();
        for (limit, full) in [(Some(RateLimit { per_second: 8.0, burst: 8 }), 8.0), (None, 20.0)] {
            let mut pace = Pace::default();
            for _ in 0..60 {
                pace.started(1, now);
                now += Duration::from_millis(50);
            }
            pace.slow_down(limit, now);
            pace.slow_down(limit, now);
            let rate = |pace: &mut Pace, at| pace.rate(limit, at).map(|it| it.0);
            let half = rate(&mut pace, now).unwrap();
            assert!((half - full / 2.0).abs() < full / 10.0, "{half} of {full}");
            assert!((pace.tokens(limit, now).unwrap() as f64) <= half.max(1.0));
            now += seconds(2);
            pace.slow_down(limit, now);
            let quarter = rate(&mut pace, now).unwrap();
            assert!((quarter - half / 2.0).abs() < full / 30.0, "{quarter} of {full}");
            assert!((rate(&mut pace, now + seconds(15)).unwrap() - half).abs() < full / 30.0);
            assert_eq!(rate(&mut pace, now + seconds(61)), limit.map(|it| it.per_second));
        }
    }

    /// Attempts that go in `span` to an endpoint that asks for less where `asks` says so.
    fn attempts(span: Duration, asks: impl Fn(u32) -> bool) -> u32 {
        let (mut pace, start) = (Pace { proven: true, ..Pace::default() }, Instant::now());
        let (mut now, mut attempts) = (start, 0);
        while now < start + span {
            now += Duration::from_millis(10);
            if pace.tokens(None, now).is_err() {
                continue;
            }
            pace.started(1, now);
            attempts += 1;
            if asks(attempts) {
                pace.slow_down(None, now);
            }
        }
        attempts
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_less_now_and_then_still_gets_something() {
        let minutes = attempts(seconds(600), |it| it.is_multiple_of(7));
        assert!(minutes > 800, "{minutes} attempts in ten minutes");
        let always = attempts(seconds(600), |_| true);
        assert!((500..1500).contains(&always), "{always} attempts in ten minutes");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_less_at_once_is_not_held_to_what_it_had_by_then() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.started(1, now);
        pace.slow_down(None, now);
        let rate = pace.rate(None, now).unwrap().0;
        assert!((rate - MEASURED_MIN / 2.0).abs() < f64::EPSILON, "{rate}");
        assert_eq!(pace.rate(None, now + seconds(31)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_told_when_a_slowed_endpoint_has_its_rate_again() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert_eq!(pace.slowed_until(), None);
        pace.slow_down(Some(RateLimit { per_second: 8.0, burst: 8 }), now);
        let until = pace.slowed_until().unwrap();
        assert!(pace.rate(None, until - seconds(1)).is_some());
        assert_eq!(pace.slowed_until(), Some(until), "it climbs evenly");
        assert_eq!(pace.rate(None, until + seconds(1)), None);
        assert_eq!(pace.slowed_until(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_to_be_left_alone_is() {
        let (mut pace, now) = (Pace { proven: true, ..Pace::default() }, Instant::now());
        pace.pause(now + seconds(7));
        pace.pause(now + seconds(3));
        assert_eq!(pace.tokens(None, now + seconds(6)), Err(now + seconds(7)));
        assert_eq!(pace.tokens(None, now + seconds(7)), Ok(usize::MAX));
        assert_eq!(pace.window(64, now + seconds(7)), 1, "and ramped up then");
    }
}
