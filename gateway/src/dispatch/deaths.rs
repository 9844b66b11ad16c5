//! Dead letters in the log: the one thing about deliveries that is always logged. An endpoint that
//! is gone for good must not fill it.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex, PoisonError},
};

use tokio::time::{Duration, Instant};

use crate::domain::{Attempt, DeadReason, Endpoint, EndpointNo, Slug, delivery_id};
use crate::storage::Lease;

const MINUTE: Duration = Duration::from_secs(60);
/// How many of an endpoint are logged within a minute. `debug` has all attempts.
const TOLD_A_MINUTE: u32 = 10;
/// Endpoints that are remembered before those are forgotten whose minute is over.
const ENDPOINTS_KEPT: usize = 1024;

/// A delivery is given up, perhaps after an attempt.
pub(super) fn log_death(
    lease: &Lease,
    endpoint: &Endpoint,
    reason: DeadReason,
    last: Option<&Attempt>,
) {
    static TOLD: LazyLock<Mutex<Told>> = LazyLock::new(Mutex::default);
    let which = (endpoint.tenant.clone(), endpoint.no);
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner).one_more(which, Instant::now());
    let Some(left_out) = told else { return };
    tracing::warn!(
        tenant = endpoint.tenant.as_str(),
        event_id = lease.event.id.as_str(),
        delivery_id = delivery_id(lease.key, lease.event.accepted_at),
        endpoint_id = endpoint.id.as_str(),
        reason = reason.name(),
        attempt = last.map(|it| it.number),
        status_code = last.and_then(|it| it.outcome.status_code),
        error = last.and_then(|it| it.outcome.error.as_deref()),
        trace_id = lease.event.trace.map(|it| it.trace_id()),
        left_out = (left_out > 0).then_some(left_out),
        "a delivery became a dead letter"
    );
}

/// What was logged of each endpoint lately.
#[derive(Default)]
struct Told(BTreeMap<(Slug, EndpointNo), Recent>);

struct Recent {
    since: Instant,
    told: u32,
    left_out: u64,
}

impl Told {
    /// Another death of this endpoint: how many were left out before it, if it is to be logged.
    fn one_more(&mut self, which: (Slug, EndpointNo), now: Instant) -> Option<u64> {
        if self.0.len() >= ENDPOINTS_KEPT {
            self.0.retain(|_, it| now - it.since < MINUTE);
        }
        let new = Recent { since: now, told: 0, left_out: 0 };
        let recent = self.0.entry(which).or_insert(new);
        if now - recent.since >= MINUTE {
            (recent.since, recent.told) = (now, 0);
        }
        if recent.told == TOLD_A_MINUTE {
            recent.left_out += 1;
            return None;
        }
        recent.told += 1;
        Some(std::mem::take(&mut recent.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_that_is_gone_does_not_fill_the_log() {
        let (mut told, start) = (Told::default(), Instant::now());
        let which = |tenant: &str| (Slug::parse(tenant).unwrap(), EndpointNo(1));
        let logged = |told: &mut Told, at: u64| {
            let at = start + Duration::from_secs(at);
            (0..1000).filter_map(|_| told.one_more(which("one"), at)).collect::<Vec<_>>()
        };
        assert_eq!(logged(&mut told, 0), [0; 10]);
        assert!(logged(&mut told, 59).is_empty());
        assert_eq!(told.one_more(which("other"), start), Some(0), "each endpoint has its own");
        let later = logged(&mut told, 60);
        assert_eq!((later.len(), later[0], later[1]), (10, 1990, 0), "what was left out is told");
        for tenant in 0..2000 {
            let at = start + Duration::from_secs(120 + tenant);
            told.one_more(which(&format!("t{tenant}")), at);
        }
        assert!(told.0.len() <= ENDPOINTS_KEPT, "{}", told.0.len());
    }
}
