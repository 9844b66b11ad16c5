use tokio::time::{Duration, Instant};

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 20;
/// What share of attempts is counted over.
const WINDOW: Duration = Duration::from_secs(30);
/// So many attempts in a window make a share.
const WINDOW_ATTEMPTS_MIN: u32 = 20;
/// It opens when this many in a hundred of a window's attempts failed.
const WINDOW_FAILED_MAX: u32 = 80;
/// When the first probe goes; each that fails doubles the wait for the next.
const PROBE_FIRST: Duration = Duration::from_secs(1);
/// The longest wait for a probe.
const PROBE_LAST: Duration = Duration::from_secs(300);
/// The longest wait for the first probe after a restart: things may have changed meanwhile.
const PROBE_RESTARTED: Duration = Duration::from_secs(30);

/// Whether an endpoint is sent to. Opens when it fails often, so that its deliveries wait instead
/// of using up their attempts; probes tell when it is back.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// Failures since the last success.
    pub(super) failures: u32,
    /// How often it has opened since the last success.
    pub(super) trips: u32,
    /// While it is open: when a probe may go.
    probe_at: Option<Instant>,
    window: Option<Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    attempts: u32,
    failed: u32,
}

impl Window {
    fn from(now: Instant) -> Self {
        Self { began: now, attempts: 0, failed: 0 }
    }
}

impl Breaker {
    /// As it was before a restart.
    pub(super) fn restored(failures: u32, trips: u32, open: bool, now: Instant) -> Self {
        let probe_at = open.then(|| now + wait(trips).min(PROBE_RESTARTED));
        Self { failures, trips, probe_at, window: None }
    }

    /// While it is open: when a probe may go.
    pub(super) fn probe_at(&self) -> Option<Instant> {
        self.probe_at
    }

    /// An attempt failed; whether that opened it.
    pub(super) fn failed(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        self.count(now, true);
        if self.probe_at.is_some_and(|it| now < it) {
            // It was under way when the breaker opened.
            return false;
        }
        let window = self.window.as_ref();
        let share = window.is_some_and(|it| {
            it.attempts >= WINDOW_ATTEMPTS_MIN && it.failed * 100 >= it.attempts * WINDOW_FAILED_MAX
        });
        if self.failures < FAILURES_MAX && !share && self.probe_at.is_none() {
            return false;
        }
        self.trips = self.trips.saturating_add(1);
        self.probe_at = Some(now + wait(self.trips));
        self.window = None;
        true
    }

    /// An attempt succeeded; whether that closed it.
    pub(super) fn succeeded(&mut self, now: Instant) -> bool {
        self.count(now, false);
        (self.failures, self.trips) = (0, 0);
        self.probe_at.take().is_some()
    }

    fn count(&mut self, now: Instant, failed: bool) {
        // Nothing is counted of an endpoint that never fails.
        if self.window.as_ref().is_some_and(|it| now - it.began >= WINDOW) {
            self.window = None;
        }
        if failed || self.window.is_some() {
            let window = self.window.get_or_insert_with(|| Window::from(now));
            window.attempts += 1;
            window.failed += u32::from(failed);
        }
    }
}

/// How long the first probe after so many openings waits.
fn wait(trips: u32) -> Duration {
    let doubled = 2_u32.saturating_pow(trips.saturating_sub(1).min(16));
    PROBE_FIRST.saturating_mul(doubled).min(PROBE_LAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_probes_grow_rare() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.failed(now));
            now += Duration::from_secs(60);
        }
        assert!(breaker.failed(now));
        let mut waits = Vec::new();
        for _ in 0..11 {
            let at = breaker.probe_at().unwrap();
            waits.push((at - now).as_secs());
            assert!(!breaker.failed(now), "it was under way");
            now = at;
            assert!(breaker.failed(now));
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(breaker.succeeded(now));
        assert_eq!((breaker.probe_at(), breaker.failures), (None, 0));
        assert!(!breaker.succeeded(now));
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_failures_opens_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for n in 1..=60 {
            let opened = if n % 5 == 2 { breaker.succeeded(now) } else { breaker.failed(now) };
            // The first failure begins the window: four of five are reached at its 20th.
            assert_eq!(opened, n == 20, "at {n}");
            if opened {
                return;
            }
        }
        panic!("it never opened");
    }

    #[tokio::test(start_paused = true)]
    async fn some_failures_do_not() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for n in 0..1000 {
            now += Duration::from_millis(20);
            let opened = if n % 2 == 0 { breaker.succeeded(now) } else { breaker.failed(now) };
            assert!(!opened);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_probes_soon() {
        let now = Instant::now();
        let breaker = Breaker::restored(500, 12, true, now);
        assert_eq!(breaker.probe_at(), Some(now + PROBE_RESTARTED));
        assert_eq!(Breaker::restored(3, 0, false, now).probe_at(), None);
    }
}
