use std::{
    collections::{BTreeMap, btree_map},
    ops::Bound,
    sync::atomic::{AtomicUsize, Ordering},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::domain::ClientTls;
use crate::world::client::connect::{Connection, Failure, now};
use crate::world::client::route::{Prepared, Route};
use crate::world::egress::EgressPolicy;

/// A kept connection is closed at this age, so that a changed address or policy takes effect.
const AGE_MAX: Duration = Duration::from_secs(60);
const IDLE_MAX: Duration = Duration::from_secs(30);
/// As many as an endpoint may have requests out at once; those that are too many are idle soon.
const PER_ENDPOINT_MAX: usize = 1024;
/// Pools in one place share a lock; endpoints are spread over these.
const PLACES: usize = 16;
/// Endpoints that are looked at for a connection to close before a new one is not kept.
const LOOKED_AT_MAX: usize = 16;

/// Kept connections, endpoint by endpoint, never shared between two.
pub(super) struct Pool {
    places: [Mutex<Place>; PLACES],
    /// Idle connections of all places.
    idle: AtomicUsize,
    /// So many of them may be anywhere.
    anywhere_max: usize,
    /// So many a place may have in any case, however many the others have.
    share: usize,
}

#[derive(Default)]
struct Place {
    /// By endpoint.
    entries: BTreeMap<u64, Entry>,
    /// Idle connections of all entries.
    idle: usize,
    /// The endpoint that last gave one up to make room.
    hand: u64,
}

struct Entry {
    /// What its URL comes to.
    prepared: Arc<Prepared>,
    kept: Vec<Idle>,
    used_at: Instant,
}

struct Idle {
    connection: Connection,
    route: Route,
}

impl Pool {
    /// Keeps about so many idle connections at most, of all endpoints together.
    pub(super) fn new(idle_max: usize) -> Self {
        let anywhere_max = idle_max / 2;
        Self {
            places: std::array::from_fn(|_| Mutex::default()),
            idle: AtomicUsize::new(0),
            anywhere_max,
            share: (idle_max - anywhere_max).div_ceil(PLACES),
        }
    }

    /// The way to a URL, and the connection that was used last and still works. Connections that
    /// lead elsewhere are closed.
    pub(super) fn enter(
        &self,
        endpoint: u64,
        url: &str,
        (policy, tls): (&Arc<EgressPolicy>, Option<Arc<ClientTls>>),
        now: Instant,
    ) -> Result<(Route, Option<Connection>), Failure> {
        let mut place = self.place(endpoint);
        let Place { entries, idle, .. } = &mut *place;
        let entry = match entries.entry(endpoint) {
            btree_map::Entry::Occupied(known) => {
                let entry = known.into_mut();
                if !entry.prepared.is_of(url, policy) {
                    entry.prepared = Arc::new(Prepared::new(url, policy)?);
                }
                entry.used_at = now;
                entry
            }
            btree_map::Entry::Vacant(vacant) => {
                let prepared = Arc::new(Prepared::new(url, policy)?);
                vacant.insert(Entry { prepared, kept: Vec::new(), used_at: now })
            }
        };
        let route = Route { prepared: entry.prepared.clone(), tls };
        // One that was put back while the policy changed is judged here.
        let permitted =
            |it: &Idle| it.route.is_under(policy) || it.route.is_permitted(policy, &it.connection);
        let fits = |it: &mut Idle| it.route.shares_with(&route) && it.is_fit(now) && permitted(it);
        let before = entry.kept.len();
        let found =
            std::iter::from_fn(|| entry.kept.pop()).find_map(|mut it| fits(&mut it).then_some(it));
        let gone = before - entry.kept.len();
        *idle -= gone;
        self.idle.fetch_sub(gone, Ordering::Relaxed);
        Ok((route, found.map(|it| it.connection)))
    }

    pub(super) fn put(&self, endpoint: u64, route: Route, mut connection: Connection) {
        let now = now();
        if connection.sender.is_closed() || now - connection.opened_at >= AGE_MAX {
            return;
        }
        let mut place = self.place(endpoint);
        // Without an entry it has been idle for long, or its endpoint is gone.
        let kept = place.entries.get(&endpoint).map_or(usize::MAX, |it| it.kept.len());
        if kept >= PER_ENDPOINT_MAX {
            return;
        }
        let has_room =
            place.idle < self.share || self.idle.load(Ordering::Relaxed) < self.anywhere_max;
        if !has_room {
            if !place.make_room() {
                return;
            }
            self.idle.fetch_sub(1, Ordering::Relaxed);
        }
        if let Some(entry) = place.entries.get_mut(&endpoint) {
            connection.idle_since = now;
            entry.kept.push(Idle { connection, route });
            place.idle += 1;
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Closes what has been idle too long, and what leads where it must not lead any more.
    pub(super) fn sweep(&self, policy: &EgressPolicy) {
        let now = now();
        for place in 0..PLACES {
            let mut place = self.place(place as u64);
            let (before, mut idle) = (place.idle, 0);
            place.entries.retain(|_, entry| {
                entry.kept.retain_mut(|it| {
                    it.is_fit(now) && it.route.is_permitted(policy, &it.connection)
                });
                idle += entry.kept.len();
                !entry.kept.is_empty() || now - entry.used_at < AGE_MAX
            });
            place.idle = idle;
            self.idle.fetch_sub(before - idle, Ordering::Relaxed);
        }
    }

    /// Where an endpoint's kept connections lead.
    #[cfg(test)]
    pub(super) fn origins(&self, endpoint: u64) -> Vec<String> {
        let place = self.place(endpoint);
        let kept = place.entries.get(&endpoint).into_iter().flat_map(|it| &it.kept);
        kept.map(|it| it.route.prepared.origin().to_owned()).collect()
    }

    fn place(&self, endpoint: u64) -> MutexGuard<'_, Place> {
        let place = &self.places[(endpoint % PLACES as u64) as usize];
        place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Closes the oldest idle connection of the next endpoint that has one, so that those that
    /// are used now keep theirs. False: none of the next few has one.
    fn make_room(&mut self) -> bool {
        for _ in 0..LOOKED_AT_MAX {
            let behind = (Bound::Excluded(self.hand), Bound::Unbounded);
            let next = match self.entries.range_mut(behind).next() {
                Some(next) => Some(next),
                None => self.entries.iter_mut().next(),
            };
            let Some((endpoint, entry)) = next else { return false };
            self.hand = *endpoint;
            if !entry.kept.is_empty() {
                entry.kept.remove(0);
                self.idle -= 1;
                return true;
            }
        }
        false
    }
}

impl Idle {
    fn is_fit(&mut self, now: Instant) -> bool {
        let young = now - self.connection.idle_since < IDLE_MAX
            && now - self.connection.opened_at < AGE_MAX;
        young && self.connection.is_at_rest()
    }
}
