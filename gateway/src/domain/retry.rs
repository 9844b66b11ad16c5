use std::time::Duration;

/// An endpoint's waits between attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// How the waits follow from the number of the attempt.
    pub policy: RetryPolicy,
    /// Up to which share of a wait is added by chance, so that many retries do not come at once.
    /// Nothing is ever taken away: a retry does not come early.
    pub jitter: f64,
}

/// How waits follow from the number of the attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum RetryPolicy {
    /// The wait after the first attempt, after the second, …; then no more.
    Schedule(Vec<Duration>),
    /// Exponential: base × factor^(n-1), at most `max_delay`, until `max_attempts` were made.
    Backoff {
        /// The first wait.
        base: Duration,
        /// By what each wait is longer than the one before.
        factor: f64,
        /// The longest wait.
        max_delay: Duration,
        /// Attempts in all.
        max_attempts: u32,
    },
}

impl Default for Retry {
    /// Eight attempts over 28 hours.
    fn default() -> Self {
        let waits = [5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(Duration::from_secs);
        Self { policy: RetryPolicy::Schedule(waits.into()), jitter: 0.2 }
    }
}

impl Retry {
    /// The wait after failed attempt number `attempts`, counted since the delivery (re)started,
    /// with `chance` in `0..1`; `None` when that was the last.
    pub fn wait_after(&self, attempts: u32, chance: f64) -> Option<Duration> {
        let wait = match &self.policy {
            RetryPolicy::Schedule(waits) => *waits.get(attempts.max(1) as usize - 1)?,
            RetryPolicy::Backoff { base, factor, max_delay, max_attempts } => {
                if attempts >= *max_attempts {
                    return None;
                }
                let power = factor.powf(f64::from(attempts.max(1) - 1));
                let millis = base.as_secs_f64() * power * 1000.0;
                // A saturating cast: an infinite product becomes the longest wait.
                Duration::from_millis(millis as u64).min(*max_delay)
            }
        };
        Some(wait + wait.mul_f64(self.jitter.clamp(0.0, 1.0) * chance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(wait: Option<Duration>) -> Option<u64> {
        wait.map(|it| it.as_secs())
    }

    #[test]
    fn the_default_makes_eight_attempts() {
        let retry = Retry::default();
        let waits: Vec<_> = (1..=8).map(|it| secs(retry.wait_after(it, 0.0))).collect();
        let hours = [5, 300, 1800, 7200, 18_000, 36_000, 36_000].map(Some);
        assert_eq!(waits, [&hours[..], &[None]].concat());
    }

    #[test]
    fn backoff_grows_to_its_maximum_and_ends() {
        let policy = RetryPolicy::Backoff {
            base: Duration::from_secs(1),
            factor: 10.0,
            max_delay: Duration::from_secs(50),
            max_attempts: 4,
        };
        let retry = Retry { policy, jitter: 0.0 };
        let waits: Vec<_> = (1..=4).map(|it| secs(retry.wait_after(it, 0.9))).collect();
        assert_eq!(waits, [Some(1), Some(10), Some(50), None]);
    }

    #[test]
    fn jitter_only_adds() {
        let retry = Retry::default();
        for chance in [0.0, 0.3, 0.999_999] {
            let wait = retry.wait_after(1, chance).unwrap();
            assert!((5.0..6.0).contains(&wait.as_secs_f64()), "{chance}: {wait:?}");
        }
    }
}
