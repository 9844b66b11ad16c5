use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::domain::{
    DeadReason, DeliveryKey, Endpoint, EndpointId, Slug, TenantNo, Timestamp, delivery_id,
};
use crate::storage::Lease;

/// How long the first dead letter waits for others to be told together.
const GATHER: Duration = Duration::from_secs(1);
/// A tenant is told of dead letters no more often than this.
const EVERY: Duration = Duration::from_secs(60);
/// Examples in one event.
const EXAMPLES_MAX: usize = 20;

/// What tenants are told of their own endpoints and deliveries: ordinary signed events, for those
/// endpoints only that ask for `hookgate.…` by name.
#[derive(Debug, Default)]
pub(super) struct Bulletins {
    tenants: BTreeMap<TenantNo, Gathered>,
}

#[derive(Debug)]
struct Gathered {
    slug: Slug,
    due: Instant,
    count: u64,
    since: Timestamp,
    reasons: BTreeMap<&'static str, u64>,
    endpoints: BTreeMap<EndpointId, u64>,
    examples: Vec<String>,
}

/// A delivery that was given up.
#[derive(Debug, Clone)]
pub(super) struct Death {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) tenant: TenantNo,
    pub(super) key: DeliveryKey,
    pub(super) accepted_at: Timestamp,
    pub(super) reason: DeadReason,
}

impl Death {
    /// Deliveries of the gateway's own events are never told of: that would not end.
    pub(super) fn of(lease: &Lease, endpoint: &Arc<Endpoint>, reason: DeadReason) -> Option<Self> {
        (!lease.is_operational()).then(|| Self {
            endpoint: endpoint.clone(),
            tenant: lease.event.tenant_no,
            key: lease.key,
            accepted_at: lease.event.accepted_at,
            reason,
        })
    }
}

impl Bulletins {
    /// Gathers a dead letter, to be told with others.
    pub(super) fn dead_letter(&mut self, death: &Death, (now, at): (Instant, Timestamp)) {
        let gathered = self.tenants.entry(death.tenant).or_insert_with(|| Gathered {
            slug: death.endpoint.tenant.clone(),
            due: now + GATHER,
            count: 0,
            since: at,
            reasons: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            examples: Vec::new(),
        });
        if gathered.count == 0 {
            gathered.since = at;
        }
        gathered.count += 1;
        *gathered.reasons.entry(death.reason.name()).or_default() += 1;
        let known = gathered.endpoints.contains_key(&death.endpoint.id);
        if known || gathered.endpoints.len() < EXAMPLES_MAX {
            *gathered.endpoints.entry(death.endpoint.id.clone()).or_default() += 1;
        }
        if gathered.examples.len() < EXAMPLES_MAX {
            gathered.examples.push(delivery_id(death.key, death.accepted_at));
        }
    }

    /// When something is to be told next.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.tenants.values().map(|it| it.due).min()
    }

    /// What is to be told now.
    pub(super) fn take(&mut self, (now, at): (Instant, Timestamp)) -> Vec<(Slug, Value)> {
        let mut told = Vec::new();
        // Who had nothing new for a while is told at once the next time.
        self.tenants.retain(|_, it| now < it.due || it.count > 0);
        for gathered in self.tenants.values_mut().filter(|it| it.due <= now) {
            let (reasons, endpoints) =
                (std::mem::take(&mut gathered.reasons), std::mem::take(&mut gathered.endpoints));
            let endpoints = endpoints.iter().map(|(id, count)| (id.to_string(), (*count).into()));
            let data = json!({
                "count": gathered.count,
                "since": gathered.since.to_string(),
                "until": at.to_string(),
                "reasons": reasons,
                "endpoints": Value::Object(endpoints.collect()),
                "delivery_ids": std::mem::take(&mut gathered.examples),
            });
            told.push((gathered.slug.clone(), data));
            (gathered.count, gathered.due) = (0, now + EVERY);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointNo, Seq};
    use crate::storage::conformance;

    #[tokio::test(start_paused = true)]
    async fn dead_letters_are_told_together_and_not_too_often() {
        let mut bulletins = Bulletins::default();
        let death = |seq| Death {
            endpoint: Arc::new(conformance::endpoint(EndpointNo(1))),
            tenant: TenantNo(1),
            key: DeliveryKey { seq: Seq(seq), endpoint: EndpointNo(1) },
            accepted_at: Timestamp(1),
            reason: DeadReason::Gone,
        };
        let (start, at) = (Instant::now(), Timestamp(1_800_000_000_000));
        let mut told = Vec::new();
        for second in 0..180_u64 {
            let now = (start + Duration::from_secs(second), at);
            told.extend(bulletins.take(now).into_iter().map(|it| (second, it.1)));
            if second < 100 {
                for n in 0..10 {
                    bulletins.dead_letter(&death(second * 10 + n), now);
                }
            }
        }
        let counts: Vec<_> = told.iter().map(|it| (it.0, it.1["count"].as_u64())).collect();
        assert_eq!(counts, [(1, Some(10)), (61, Some(600)), (121, Some(390))]);
        assert_eq!(told[1].1["reasons"], json!({ "gone": 600 }));
        assert_eq!(told[1].1["delivery_ids"].as_array().unwrap().len(), EXAMPLES_MAX);
        assert_eq!(bulletins.wakes_at(), Some(start + Duration::from_secs(181)));
        assert!(bulletins.take((start + Duration::from_secs(181), at)).is_empty());
        assert_eq!(bulletins.wakes_at(), None);
    }
}
