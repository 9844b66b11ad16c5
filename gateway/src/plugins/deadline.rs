use std::time::Duration;

use cpu_time::ThreadTime;
use tokio::time::Instant;

/// How often the engine's clock ticks while anything runs.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// After so many times its deadline a call ends, whatever it used.
const WALL_FACTOR: u32 = 10;

/// Until when a call may run. What counts is the processor's time that its thread used: on a
/// crowded machine a thread waits for its turn, and that is not the plugin's doing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    span: Duration,
    /// The thread's time at the beginning.
    cpu: Duration,
    wall: Instant,
}

impl Deadline {
    /// From now on, on this thread.
    pub(super) fn begin(span: Duration) -> Self {
        Self { span, cpu: ThreadTime::now().as_duration(), wall: Instant::now() }
    }

    /// Ticks until the end, if nothing but the call has the processor.
    pub(super) fn ticks(&self) -> u64 {
        // One more, since the first tick may come at once.
        ticks(self.span) + 1
    }

    /// After how many further ticks to look again; `None`: it is over. On the thread of the call.
    pub(super) fn left(&self) -> Option<u64> {
        self.left_of(ThreadTime::now().as_duration() - self.cpu, self.wall.elapsed())
    }

    fn left_of(&self, used: Duration, passed: Duration) -> Option<u64> {
        let left = self.span.checked_sub(used).filter(|it| !it.is_zero())?;
        (passed < self.span * WALL_FACTOR).then(|| ticks(left).max(1))
    }
}

fn ticks(span: Duration) -> u64 {
    u64::try_from(span.as_micros().div_ceil(TICK.as_micros())).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_used_counts_and_not_for_ever() {
        let ms = Duration::from_millis;
        let deadline = Deadline::begin(ms(50));
        assert_eq!(deadline.ticks(), 51);
        for (used, passed, left) in [
            (50_000, 50, None),
            (49_900, 50, Some(1)),
            (20_000, 50, Some(30)),
            (20_000, 499, Some(30)),
            (20_000, 500, None),
        ] {
            let left_of = deadline.left_of(Duration::from_micros(used), ms(passed));
            assert_eq!(left_of, left, "{used} µs of {passed} ms");
        }
    }

    #[test]
    fn waiting_is_not_using() {
        let deadline = Deadline::begin(Duration::from_millis(40));
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(60) {
            std::thread::park_timeout(Duration::from_millis(20));
        }
        assert!(deadline.left().is_some());
        while deadline.left().is_some() {
            assert!(started.elapsed() < Duration::from_secs(5), "it never ends");
        }
    }
}
