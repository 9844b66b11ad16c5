use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::telemetry::CLOCK_SKEWED;

/// Tells the time. To wait, use `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    /// The time now, by which everything is planned. It never goes back.
    fn now(&self) -> Timestamp;

    /// What the machine's clock says, right or wrong: for those who compare it with their own.
    fn wall(&self) -> Timestamp {
        self.now()
    }

    /// From now on it is not before `at`, because something is known to have happened then. A
    /// clock that shows what it is told to ignores this.
    fn not_before(&self, _at: Timestamp) {}
}

/// The clock of the machine.
#[derive(Debug, Default)]
pub struct SystemClock;

impl SystemClock {
    /// Microseconds since 1970: for those who measure what begins in one process and ends in
    /// another.
    pub fn microseconds() -> u64 {
        Self::since_epoch().as_micros() as u64
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn since_epoch() -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO)
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp(0) + Self::since_epoch()
    }
}

/// The machine's clock without its jumps. It starts with the machine's time and follows it, but
/// gains or loses at most an eighth: if somebody sets the clock a year ahead, nothing is due or
/// expires at once, and if it is set back, nothing stands still.
#[derive(Debug)]
pub struct SteadyClock<C = SystemClock> {
    machine: C,
    started: Instant,
    last: Mutex<Shown>,
    /// What `last` says, for those who ask again within its millisecond: every event asks a dozen
    /// times, from threads that would wait for each other.
    shown: AtomicU64,
    shown_for: AtomicU64,
}

/// What a clock showed last.
#[derive(Debug)]
struct Shown {
    now: Timestamp,
    /// Milliseconds after its start, in which it showed that.
    at: u64,
    skewed: bool,
}

/// A difference beyond this is told.
const SKEW_MAX_MS: u64 = 30_000;
/// The part of the time that has passed that may be gained or lost.
const FOLLOWING: u64 = 8;

impl<C: Clock> SteadyClock<C> {
    /// Shows what `machine` shows now.
    pub fn following(machine: C) -> Self {
        let now = machine.now();
        let last = Mutex::new(Shown { now, at: 0, skewed: false });
        let (shown, shown_for) = (AtomicU64::new(now.0), AtomicU64::new(0));
        Self { machine, started: tokio_now(), last, shown, shown_for }
    }

    fn since_start(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Follows the machine for as long as has passed since it was last asked.
    fn follow(&self) -> Timestamp {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let at = self.since_start();
        let elapsed = at - last.at;
        if elapsed == 0 {
            return last.now;
        }
        let (machine, steady) = (self.machine.now().0, last.now.0 + elapsed);
        let most = elapsed / FOLLOWING;
        let now = machine.clamp(steady - most, steady + most);
        let skewed = machine.abs_diff(now) > SKEW_MAX_MS;
        if skewed != last.skewed {
            let seconds = machine.abs_diff(now) / 1000;
            tracing::warn!(
                seconds,
                skewed,
                "the machine's clock has jumped; it is followed slowly"
            );
            CLOCK_SKEWED.show(f64::from(u8::from(skewed)), &[]);
        }
        *last = Shown { now: Timestamp(now), at, skewed };
        self.shown.store(now, Ordering::Relaxed);
        // Whoever sees this sees the other.
        self.shown_for.store(at, Ordering::Release);
        last.now
    }
}

impl<C: Clock> Clock for SteadyClock<C> {
    fn now(&self) -> Timestamp {
        if self.shown_for.load(Ordering::Acquire) == self.since_start() {
            return Timestamp(self.shown.load(Ordering::Relaxed));
        }
        self.follow()
    }

    fn wall(&self) -> Timestamp {
        self.machine.now()
    }

    fn not_before(&self, at: Timestamp) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.now = last.now.max(at);
        self.shown.store(last.now.0, Ordering::Relaxed);
    }
}

/// A clock that follows tokio's, so that pausing or advancing tokio moves wall time too.
#[derive(Debug)]
pub struct SimClock {
    epoch: Timestamp,
    started: Instant,
}

impl SimClock {
    /// Shows `epoch` now.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: tokio_now() }
    }
}

fn tokio_now() -> Instant {
    Instant::now()
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Wrong(AtomicU64);

    impl Clock for &'static Wrong {
        fn now(&self) -> Timestamp {
            Timestamp(self.0.load(Ordering::Relaxed))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_jump_is_followed_slowly_and_time_never_goes_back() {
        static MACHINE: Wrong = Wrong(AtomicU64::new(1_000_000));
        let clock = SteadyClock::following(&MACHINE);
        for (machine, least, most) in [
            // A year ahead: in a second at most a second and an eighth passes.
            (40_000_000_000, 1_000_875, 1_001_125),
            // An hour back: time goes on, a little slower.
            (1, 1_001_750, 1_002_250),
        ] {
            MACHINE.0.store(machine, Ordering::Relaxed);
            tokio::time::advance(Duration::from_secs(1)).await;
            let now = clock.now().0;
            assert!((least..=most).contains(&now), "{now}");
            assert_eq!(clock.wall(), Timestamp(machine));
            assert_eq!(clock.now().0, now, "the same millisecond is the same time");
        }
        MACHINE.0.store(1_010_000, Ordering::Relaxed);
        for _ in 0..200 {
            tokio::time::advance(Duration::from_secs(1)).await;
            MACHINE.0.fetch_add(1000, Ordering::Relaxed);
            clock.now();
        }
        assert_eq!(clock.now().0, 1_210_000, "in the end it is right");
        clock.not_before(Timestamp(1_211_000));
        assert_eq!(clock.now().0, 1_211_000, "and what has happened has happened");
    }
}
