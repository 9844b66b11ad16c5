//! What can be told of the queue as it stands, without looking at what is stored.

use std::time::Duration;

use crate::domain::{DeliveryKey, EndpointNo, Slug};
use crate::storage::Result;
use crate::storage::shard::Shard;
use crate::storage::taken::OrderingKey;

/// What an endpoint has not received yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Deliveries without an attempt.
    pub first: u64,
    /// Deliveries that wait for another attempt.
    pub again: u64,
    /// How long ago the oldest of those without an attempt was accepted.
    pub oldest: Option<Duration>,
}

/// What could be attempted now and is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overdue {
    /// How many deliveries.
    pub count: u64,
    /// For how long the first of them.
    pub oldest: Duration,
}

impl Shard {
    /// Deliveries not finished: first attempts, and those that wait for another.
    pub fn unfinished(&self) -> (u64, u64) {
        self.queue().unfinished()
    }

    /// Dead letters.
    pub fn dead(&self) -> u64 {
        self.queue().dead()
    }

    /// Deliveries of a tenant that are not finished.
    pub fn tenant_backlog(&self, tenant: &Slug) -> u64 {
        let endpoints: Vec<_> = {
            let catalog = self.catalog();
            let endpoints = catalog.tenant(tenant).into_iter().flat_map(|it| it.endpoints.values());
            endpoints.map(|it| it.no).collect()
        };
        let queue = self.queue();
        let lanes = endpoints.into_iter().filter_map(|it| queue.peek(it));
        lanes.map(|it| it.backlog + it.retrying).sum()
    }

    /// What an endpoint has not received yet.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn backlog(&self, endpoint: EndpointNo) -> Result<Backlog> {
        let (first, again, oldest) = {
            let queue = self.queue();
            let Some(lane) = queue.peek(endpoint) else { return Ok(Backlog::default()) };
            let oldest = (lane.backlog > 0).then(|| lane.cursor().next());
            (lane.backlog, lane.retrying, oldest)
        };
        let event = oldest.map(|it| self.event(it)).transpose()?.flatten();
        let oldest = event.map(|it| self.clock.now() - it.accepted_at);
        Ok(Backlog { first, again, oldest })
    }

    /// What could be attempted now and is not, of endpoints that are not left alone on purpose.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn overdue(&self) -> Result<Overdue> {
        let now = self.clock.now();
        let found = self.queue().overdue(now);
        let event = found.first.map(|it| self.event(it)).transpose()?.flatten();
        let since = event.map(|it| it.accepted_at).into_iter().chain(found.due).min();
        let oldest = since.map_or(Duration::ZERO, |it| now - it);
        Ok(Overdue { count: found.count, oldest })
    }

    /// Whether an attempt of it is under way, and how many of its endpoint's are.
    pub fn under_way(&self, key: DeliveryKey) -> (bool, usize) {
        let queue = self.queue();
        let loans = queue.peek(key.endpoint).map(|it| &it.loans);
        loans.map_or((false, 0), |it| (it.contains_key(&key.seq), it.len()))
    }

    /// The delivery that this one waits for because of the endpoint's ordering.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn waits_behind(&self, key: DeliveryKey) -> Result<Option<DeliveryKey>> {
        let ordering_key = OrderingKey(self.ordering_key(key)?);
        let queue = self.queue();
        let seq = queue.peek(key.endpoint).and_then(|it| it.behind(key.seq, ordering_key));
        Ok(seq.map(|seq| DeliveryKey { seq, endpoint: key.endpoint }))
    }
}
