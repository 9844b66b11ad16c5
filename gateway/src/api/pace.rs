//! How fast producers may go: a bucket for each tenant and each key that has a limit.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::RateLimit;

/// Buckets that are kept; full ones are as good as none and go first.
const BUCKETS_MAX: usize = 10_000;

/// Whose pace it is: `tenant 0/7` or `key key_…`.
pub(super) type Owner = String;

/// All buckets.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<BTreeMap<Owner, Bucket>>>);

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
    full: f64,
    per_second: f64,
}

/// The limit is reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct TooFast {
    /// The limit.
    pub(super) limit: RateLimit,
    /// When as much as was asked for may come.
    pub(super) wait: Duration,
}

impl Pace {
    /// Takes `count` out of the owner's bucket. More than the bucket holds can be taken at once
    /// when it is full, and is then paid back by waiting.
    pub(super) fn take(
        &self,
        owner: &str,
        limit: RateLimit,
        count: usize,
        now: Instant,
    ) -> Result<(), TooFast> {
        let full = f64::from(limit.burst.max(1));
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(owner) {
            buckets.retain(|_, it| it.at(now) < it.full);
        }
        let new = Bucket { tokens: full, filled_at: now, full, per_second: limit.per_second };
        let bucket = buckets.entry(owner.to_owned()).or_insert(new);
        (bucket.full, bucket.per_second) = (full, limit.per_second);
        (bucket.tokens, bucket.filled_at) = (bucket.at(now), now);
        let needed = (count as f64).min(full);
        if bucket.tokens < needed {
            let wait = (needed - bucket.tokens) / limit.per_second;
            let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(3600));
            return Err(TooFast { limit, wait });
        }
        bucket.tokens -= count as f64;
        Ok(())
    }
}

impl Bucket {
    fn at(&self, now: Instant) -> f64 {
        let filled = (now - self.filled_at).as_secs_f64() * self.per_second;
        (self.tokens + filled).min(self.full)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_the_rate_and_each_for_himself() {
        let (pace, now) = (Pace::default(), Instant::now());
        let limit = RateLimit { per_second: 10.0, burst: 3 };
        let take = |owner, count, after| {
            let now = now + Duration::from_millis(after);
            pace.take(owner, limit, count, now).map_err(|it| it.wait.as_millis())
        };
        assert_eq!(take("a", 3, 0), Ok(()));
        assert_eq!(take("a", 1, 0), Err(100));
        assert_eq!(take("b", 1, 0), Ok(()), "another owner has a bucket of its own");
        assert_eq!(take("a", 1, 100), Ok(()));
        assert_eq!(take("a", 9, 100), Err(300));
        assert_eq!(take("a", 9, 400), Ok(()), "a full bucket lets a large batch through");
        assert_eq!(take("a", 1, 500), Err(600), "and it is paid back");
    }
}
