use std::collections::{BTreeMap, VecDeque};

use tokio::time::{Duration, Instant};

use crate::domain::{EndpointNo, RateLimit};

/// Which endpoint is served next: those with something to do take turns.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<EndpointNo, Lane>,
    turns: VecDeque<EndpointNo>,
    /// Endpoints that may go on then: their rate limit or their plugins let them.
    resting: BTreeMap<(Instant, EndpointNo), ()>,
}

#[derive(Debug, Default)]
struct Lane {
    in_flight: usize,
    queued: bool,
    bucket: Option<Bucket>,
    /// Until when its deliveries are deferred.
    deferred: Option<Instant>,
}

/// Attempts that may be made at once, filled up over time.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

impl Lanes {
    /// Gives an endpoint a turn, if it has none yet.
    pub(super) fn queue(&mut self, endpoint: EndpointNo) {
        let lane = self.lanes.entry(endpoint).or_default();
        if !std::mem::replace(&mut lane.queued, true) {
            self.turns.push_back(endpoint);
        }
    }

    pub(super) fn next(&mut self) -> Option<EndpointNo> {
        let endpoint = self.turns.pop_front()?;
        self.lanes.entry(endpoint).or_default().queued = false;
        Some(endpoint)
    }

    /// How many attempts an endpoint may start now, at most `wanted`; when its rate limit lets
    /// none, it rests until one is free.
    pub(super) fn room(
        &mut self,
        endpoint: EndpointNo,
        (in_flight_max, rate): (u32, Option<RateLimit>),
        wanted: usize,
        now: Instant,
    ) -> usize {
        let lane = self.lanes.entry(endpoint).or_default();
        lane.deferred = lane.deferred.filter(|it| now < *it);
        if let Some(until) = lane.deferred {
            self.resting.insert((until, endpoint), ());
            return 0;
        }
        let room = (in_flight_max as usize).saturating_sub(lane.in_flight).min(wanted);
        let Some(rate) = rate else {
            lane.bucket = None;
            return room;
        };
        let full = f64::from(rate.burst.max(1));
        let bucket = lane.bucket.get_or_insert(Bucket { tokens: full, filled_at: now });
        let filled = (now - bucket.filled_at).as_secs_f64() * rate.per_second;
        bucket.tokens = (bucket.tokens + filled).min(full);
        bucket.filled_at = now;
        if room > 0 && bucket.tokens < 1.0 {
            let wait = (1.0 - bucket.tokens) / rate.per_second;
            let wait = Duration::try_from_secs_f64(wait).unwrap_or(Duration::from_secs(3600));
            self.resting.insert((now + wait, endpoint), ());
            return 0;
        }
        room.min(bucket.tokens as usize)
    }

    pub(super) fn started(&mut self, endpoint: EndpointNo, attempts: usize) {
        let lane = self.lanes.entry(endpoint).or_default();
        lane.in_flight += attempts;
        if let Some(bucket) = &mut lane.bucket {
            bucket.tokens -= attempts as f64;
        }
    }

    /// An attempt ended: the endpoint may have more to do, if not before `deferred`.
    pub(super) fn ended(&mut self, (endpoint, deferred): (EndpointNo, Option<Instant>)) {
        let lane = self.lanes.entry(endpoint).or_default();
        lane.in_flight = lane.in_flight.saturating_sub(1);
        lane.deferred = lane.deferred.max(deferred);
        self.queue(endpoint);
    }

    /// What deliveries were deferred for may be over: those endpoints get a turn now.
    pub(super) fn wake_deferred(&mut self) {
        let mut deferred = Vec::new();
        for (endpoint, lane) in &mut self.lanes {
            deferred.extend(lane.deferred.take().map(|_| *endpoint));
        }
        deferred.into_iter().for_each(|it| self.queue(it));
    }

    /// Forgets an endpoint that has nothing to do.
    pub(super) fn rest(&mut self, endpoint: EndpointNo) {
        let idle = |it: &Lane| {
            it.in_flight == 0 && !it.queued && it.bucket.is_none() && it.deferred.is_none()
        };
        if self.lanes.get(&endpoint).is_some_and(idle) {
            self.lanes.remove(&endpoint);
        }
    }

    /// When a resting endpoint may go on.
    pub(super) fn wakes_at(&self) -> Option<Instant> {
        self.resting.first_key_value().map(|((at, _), ())| *at)
    }

    /// Gives those their turn whose rest is over.
    pub(super) fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|it| it.key().0 <= now) {
            let ((_, endpoint), ()) = entry.remove_entry();
            self.queue(endpoint);
        }
    }

    pub(super) fn has_turns(&self) -> bool {
        !self.turns.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: EndpointNo = EndpointNo(1);
    const B: EndpointNo = EndpointNo(2);

    #[tokio::test(start_paused = true)]
    async fn endpoints_take_turns_within_their_limits() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        lanes.queue(A);
        lanes.queue(A);
        lanes.queue(B);
        assert_eq!([lanes.next(), lanes.next(), lanes.next()], [Some(A), Some(B), None]);
        assert_eq!(lanes.room(A, (3, None), 10, now), 3);
        lanes.started(A, 3);
        assert_eq!(lanes.room(A, (3, None), 10, now), 0);
        lanes.ended((A, None));
        assert_eq!((lanes.next(), lanes.room(A, (3, None), 10, now)), (Some(A), 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_limit_makes_an_endpoint_rest() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let limits = (100, Some(RateLimit { per_second: 10.0, burst: 2 }));
        assert_eq!(lanes.room(A, limits, 10, now), 2);
        lanes.started(A, 2);
        assert_eq!(lanes.room(A, limits, 10, now), 0);
        let at = lanes.wakes_at().unwrap();
        assert_eq!(at - now, Duration::from_millis(100));
        lanes.wake(at);
        assert_eq!((lanes.next(), lanes.room(A, limits, 10, at)), (Some(A), 1));
    }
    #[tokio::test(start_paused = true)]
    async fn a_deferred_endpoint_rests_until_its_time_or_until_it_is_woken() {
        let (mut lanes, now) = (Lanes::default(), Instant::now());
        let until = now + Duration::from_secs(30);
        assert_eq!(lanes.room(A, (3, None), 10, now), 3);
        lanes.started(A, 1);
        lanes.ended((A, Some(until)));
        assert_eq!((lanes.next(), lanes.room(A, (3, None), 10, now)), (Some(A), 0));
        lanes.rest(A);
        assert_eq!(lanes.wakes_at(), Some(until));
        lanes.wake(until);
        assert_eq!((lanes.next(), lanes.room(A, (3, None), 10, until)), (Some(A), 3));
        lanes.started(A, 1);
        lanes.ended((A, Some(until + Duration::from_secs(30))));
        assert_eq!((lanes.next(), lanes.room(A, (3, None), 10, until)), (Some(A), 0));
        lanes.wake_deferred();
        assert_eq!((lanes.next(), lanes.room(A, (3, None), 10, until)), (Some(A), 3));
    }
}
