use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::domain::ClientTls;
use crate::world::client::connect::{Connection, now};
use crate::world::egress::EgressPolicy;

/// A kept connection is closed at this age, so that a changed address or policy takes effect.
const AGE_MAX: Duration = Duration::from_secs(60);
const IDLE_MAX: Duration = Duration::from_secs(30);
const PER_ENDPOINT_MAX: usize = 64;
/// Pools in one place share a lock; endpoints are spread over these.
const PLACES: usize = 16;

/// Kept connections, endpoint by endpoint, never shared between two.
pub(super) struct Pool {
    places: [Mutex<Place>; PLACES],
}

/// By endpoint.
type Place = BTreeMap<u64, Vec<Idle>>;

struct Idle {
    connection: Connection,
    route: Route,
    since: tokio::time::Instant,
}

/// Where a connection leads, and as whom: only the same may use it again. An endpoint that moves
/// or changes its certificates does not go on talking as before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Scheme, host and port.
    pub(super) origin: String,
    /// The port.
    pub(super) port: u16,
    /// Whether by TLS.
    pub(super) secured: bool,
    /// What the endpoint's TLS has of its own.
    pub(super) tls: Option<Arc<ClientTls>>,
}

impl Route {
    /// Whether the policy lets a connection of this route go on.
    pub(super) fn is_permitted(&self, policy: &EgressPolicy, connection: &Connection) -> bool {
        let permits = |it: &IpAddr| policy.judge(*it, self.port, self.secured).is_ok();
        connection.addresses.iter().all(permits)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Pool {
    /// The connection that was used last and still works. Those that lead elsewhere are closed.
    pub(super) fn take(&self, endpoint: u64, route: &Route) -> Option<Connection> {
        let mut place = self.place(endpoint);
        let kept = place.get_mut(&endpoint)?;
        let fits = |it: &Idle| it.route == *route && it.is_fit();
        let found = std::iter::from_fn(|| kept.pop()).find(fits);
        if kept.is_empty() {
            place.remove(&endpoint);
        }
        found.map(|it| it.connection)
    }

    pub(super) fn put(&self, endpoint: u64, route: Route, connection: Connection) {
        if connection.sender.is_closed() || connection.opened_at.elapsed() >= AGE_MAX {
            return;
        }
        let mut place = self.place(endpoint);
        let kept = place.entry(endpoint).or_default();
        if kept.len() < PER_ENDPOINT_MAX {
            kept.push(Idle { connection, route, since: now() });
        }
    }

    /// Closes what has been idle too long, and what leads where it must not lead any more.
    pub(super) fn sweep(&self, policy: &EgressPolicy) {
        for place in 0..PLACES {
            self.place(place as u64).retain(|_, kept| {
                kept.retain(|it| it.is_fit() && it.route.is_permitted(policy, &it.connection));
                !kept.is_empty()
            });
        }
    }

    /// Where an endpoint's kept connections lead.
    #[cfg(test)]
    pub(super) fn origins(&self, endpoint: u64) -> Vec<String> {
        let place = self.place(endpoint);
        place.get(&endpoint).into_iter().flatten().map(|it| it.route.origin.clone()).collect()
    }

    fn place(&self, endpoint: u64) -> MutexGuard<'_, Place> {
        let place = &self.places[(endpoint % PLACES as u64) as usize];
        place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_fit(&self) -> bool {
        let young =
            self.since.elapsed() < IDLE_MAX && self.connection.opened_at.elapsed() < AGE_MAX;
        young && !self.connection.sender.is_closed() && self.connection.sender.is_ready()
    }
}
