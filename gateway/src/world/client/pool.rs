use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use url::Url;

use crate::domain::ClientTls;
use crate::world::client::connect::{Connection, Failure, now};
use crate::world::client::route::{Prepared, Route};
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
type Place = BTreeMap<u64, Entry>;

struct Entry {
    /// What its URL comes to.
    prepared: Arc<Prepared>,
    kept: Vec<Idle>,
    used_at: Instant,
}

struct Idle {
    connection: Connection,
    route: Route,
    since: Instant,
}

impl Default for Pool {
    fn default() -> Self {
        Self { places: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Pool {
    /// The way to a URL, and the connection that was used last and still works. Connections that
    /// lead elsewhere are closed.
    pub(super) fn enter(
        &self,
        endpoint: u64,
        url: &Url,
        (policy, tls): (&Arc<EgressPolicy>, Option<Arc<ClientTls>>),
    ) -> Result<(Route, Option<Connection>), Failure> {
        let mut place = self.place(endpoint);
        let entry = match place.entry(endpoint) {
            btree_map::Entry::Occupied(known) => {
                let entry = known.into_mut();
                if !entry.prepared.is_of(url, policy) {
                    entry.prepared = Arc::new(Prepared::new(url, policy)?);
                }
                entry.used_at = now();
                entry
            }
            btree_map::Entry::Vacant(vacant) => {
                let prepared = Arc::new(Prepared::new(url, policy)?);
                vacant.insert(Entry { prepared, kept: Vec::new(), used_at: now() })
            }
        };
        let route = Route { prepared: entry.prepared.clone(), tls };
        // One that was put back while the policy changed is judged here.
        let permitted =
            |it: &Idle| it.route.is_under(policy) || it.route.is_permitted(policy, &it.connection);
        let fits = |it: &Idle| it.route.shares_with(&route) && it.is_fit() && permitted(it);
        let found = std::iter::from_fn(|| entry.kept.pop()).find(fits);
        Ok((route, found.map(|it| it.connection)))
    }

    pub(super) fn put(&self, endpoint: u64, route: Route, connection: Connection) {
        if connection.sender.is_closed() || connection.opened_at.elapsed() >= AGE_MAX {
            return;
        }
        // Without an entry it has been idle for long, or its endpoint is gone.
        if let Some(entry) = self.place(endpoint).get_mut(&endpoint)
            && entry.kept.len() < PER_ENDPOINT_MAX
        {
            entry.kept.push(Idle { connection, route, since: now() });
        }
    }

    /// Closes what has been idle too long, and what leads where it must not lead any more.
    pub(super) fn sweep(&self, policy: &EgressPolicy) {
        for place in 0..PLACES {
            self.place(place as u64).retain(|_, entry| {
                entry
                    .kept
                    .retain(|it| it.is_fit() && it.route.is_permitted(policy, &it.connection));
                !entry.kept.is_empty() || entry.used_at.elapsed() < AGE_MAX
            });
        }
    }

    /// Where an endpoint's kept connections lead.
    #[cfg(test)]
    pub(super) fn origins(&self, endpoint: u64) -> Vec<String> {
        let place = self.place(endpoint);
        let kept = place.get(&endpoint).into_iter().flat_map(|it| &it.kept);
        kept.map(|it| it.route.prepared.origin().to_owned()).collect()
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
