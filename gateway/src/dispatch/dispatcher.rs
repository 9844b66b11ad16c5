use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::dispatch::attempt;
use crate::dispatch::lanes::Lanes;
use crate::domain::{DeadReason, Endpoint, EndpointNo, Ordering};
use crate::plugins::Host;
use crate::storage::{Lease, Result, Shard};
use crate::world::{Clock, Entropy, Transport};

/// Deliveries that an endpoint gets in one turn.
const QUANTUM: usize = 16;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Whose attempt ended; when it could not be made, until when the endpoint rests.
type Ended = (EndpointNo, Option<Instant>);

/// How much is attempted at once.
#[derive(Debug, Clone)]
pub struct Config {
    /// Attempts in flight, all endpoints of a shard together.
    pub in_flight_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { in_flight_max: 1024 }
    }
}

/// What attempts are made with.
#[derive(Clone)]
pub struct Dispatcher {
    /// Where deliveries are lent and settled.
    pub shard: Arc<Shard>,
    /// Runs the endpoints' plugins; without it, endpoints that have some fail.
    pub plugins: Option<Host>,
    /// Reaches the endpoints.
    pub transport: Arc<dyn Transport>,
    /// Stamps attempts.
    pub clock: Arc<dyn Clock>,
    /// Draws ids and jitter.
    pub entropy: Arc<dyn Entropy>,
    /// How much at once.
    pub config: Config,
}

impl Dispatcher {
    /// Works until told to stop, then finishes what is in flight.
    pub async fn run(self, stopping: CancellationToken) {
        let this = Arc::new(self);
        let mut lanes = Lanes::default();
        let mut in_flight = JoinSet::new();
        // Plugins that were given up for a while and can be run again.
        let mut recovered = this.plugins.as_ref().map(|it| it.breakers().watch_closed());
        loop {
            if let Err(error) = this.start_attempts(&mut lanes, &mut in_flight) {
                tracing::error!(%error, "deliveries cannot be read; trying again");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            let wake = lanes.wakes_at();
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                Some(ended) = in_flight.join_next() => {
                    lanes.ended(ended.expect("attempts catch their panics"));
                    while let Some(ended) = in_flight.try_join_next() {
                        lanes.ended(ended.expect("attempts catch their panics"));
                    }
                }
                () = changed(&mut recovered) => lanes.wake_deferred(),
                () = until(wake) => lanes.wake(now()),
                ready = this.shard.ready(), if !lanes.has_turns() => match ready {
                    Ok(endpoints) => endpoints.into_iter().for_each(|it| lanes.queue(it)),
                    Err(error) => {
                        tracing::error!(%error, "the queue cannot be read; trying again");
                        tokio::time::sleep(TRY_AGAIN_AFTER).await;
                    }
                },
            }
        }
        while in_flight.join_next().await.is_some() {}
    }

    fn start_attempts(
        self: &Arc<Self>,
        lanes: &mut Lanes,
        in_flight: &mut JoinSet<Ended>,
    ) -> Result<()> {
        while in_flight.len() < self.config.in_flight_max {
            let Some(no) = lanes.next() else { return Ok(()) };
            let endpoint = self.shard.catalog().endpoint(no).cloned();
            if endpoint.as_ref().is_some_and(|it| it.secret_unavailable) {
                // Unsigned, or without its headers, nothing may go: what is due waits.
                lanes.rest(no);
                continue;
            }
            let limits =
                endpoint.as_ref().map_or((64, None), |it| (it.max_in_flight, it.rate_limit));
            let ordering = endpoint.as_ref().map_or(Ordering::None, |it| it.ordering);
            let wanted = QUANTUM.min(self.config.in_flight_max - in_flight.len());
            let room = lanes.room(no, limits, wanted, now());
            let leases = self.shard.lease((no, ordering), room)?;
            lanes.started(no, leases.len());
            match leases.len() {
                0 => lanes.rest(no),
                taken if taken == room => lanes.queue(no),
                _ => {}
            }
            for lease in leases {
                in_flight.spawn(self.clone().guarded(lease, endpoint.clone()));
            }
        }
        Ok(())
    }

    /// A panic in an attempt is a fault of ours: it must not take the others along.
    async fn guarded(self: Arc<Self>, lease: Lease, endpoint: Option<Arc<Endpoint>>) -> Ended {
        let no = lease.key.endpoint;
        let work = AssertUnwindSafe(self.work(lease, endpoint)).catch_unwind().await;
        match work {
            Ok(Ok(deferred)) => return (no, deferred),
            Ok(Err(error)) => {
                tracing::warn!(%error, "an attempt could not be recorded; it will be repeated");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            Err(_) => {
                tracing::error!(endpoint = no.0, "an attempt panicked; it will be repeated");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
        (no, None)
    }

    async fn work(&self, lease: Lease, endpoint: Option<Arc<Endpoint>>) -> Result<Option<Instant>> {
        match endpoint {
            None => self.shard.cancel(lease).await.map(|()| None),
            // A test reaches a disabled endpoint too.
            Some(it) if !it.enabled && lease.event.only.is_none() => {
                metrics::counter!("hookgate_deliveries_total", "outcome" => "dead").increment(1);
                self.shard.give_up(lease, DeadReason::EndpointDisabled).await.map(|()| None)
            }
            Some(endpoint) => attempt::make(self, lease, &endpoint).await,
        }
    }
}

/// Waits until something changes; without a source, for ever.
async fn changed(source: &mut Option<watch::Receiver<u64>>) {
    let told = match source {
        Some(source) => source.changed().await.is_ok(),
        None => false,
    };
    if !told {
        std::future::pending().await
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    Instant::now()
}
