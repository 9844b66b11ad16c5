use std::time::Duration;

use crate::domain::{DeadReason, Retry, Timestamp, Verdict};

/// The longest an endpoint may ask to be left alone by `Retry-After`.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// What is known of a finished attempt when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Judgement<'a> {
    /// The endpoint's waits.
    pub retry: &'a Retry,
    /// Attempts made since the delivery (re)started, this one included.
    pub attempts: u32,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// What the answer's `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// When the attempt ended, by the clock that tells what is due.
    pub now: Timestamp,
    /// Chance in `0..1`, for the jitter.
    pub chance: f64,
}

/// Decides what follows an attempt that reached, or tried to reach, the endpoint: 2xx delivers,
/// 410 gives up, anything else is repeated by the schedule; a 429 or 503 not before what its
/// `Retry-After` asks for (RFC 9110, 10.2.3; RFC 6585, 4).
pub fn judge(it: &Judgement<'_>) -> Verdict {
    match it.status {
        Some(200..=299) => return Verdict::Delivered,
        Some(410) => return Verdict::Dead(DeadReason::Gone),
        _ => {}
    }
    let Some(wait) = it.retry.wait_after(it.attempts, it.chance) else {
        return Verdict::Dead(DeadReason::RetriesExhausted);
    };
    let asked = it.retry_after.filter(|_| matches!(it.status, Some(429 | 503)));
    Verdict::RetryAt(it.now + wait.max(asked.unwrap_or_default().min(RETRY_AFTER_MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        let retry = Retry::default();
        let now = Timestamp(1_000_000);
        let at = |secs: u64| Verdict::RetryAt(now + Duration::from_secs(secs));
        let (exhausted, gone) = (DeadReason::RetriesExhausted, DeadReason::Gone);
        for (status, attempts, retry_after, expected) in [
            (Some(200), 1, None, Verdict::Delivered),
            (Some(204), 8, None, Verdict::Delivered),
            (Some(302), 1, None, at(5)),
            (Some(500), 2, None, at(300)),
            (Some(500), 8, None, Verdict::Dead(exhausted)),
            (None, 1, None, at(5)),
            (Some(410), 1, None, Verdict::Dead(gone)),
            (Some(503), 1, Some(7), at(7)),
            (Some(429), 2, Some(7), at(300)),
            (Some(500), 1, Some(7), at(5)),
            (Some(429), 1, Some(10_u64.pow(9)), at(24 * 3600)),
        ] {
            let retry_after = retry_after.map(Duration::from_secs);
            let verdict = judge(&Judgement {
                retry: &retry,
                attempts,
                status,
                retry_after,
                now,
                chance: 0.0,
            });
            assert_eq!(verdict, expected, "{status:?} at attempt {attempts}");
        }
    }
}
