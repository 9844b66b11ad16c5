use std::{panic::AssertUnwindSafe, pin::pin, sync::Arc};

use futures_util::FutureExt;
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use crate::dispatch::attempt;
use crate::dispatch::bulletins::Death;
use crate::dispatch::capacity::Begun;
use crate::dispatch::crew::{Crew, Turn};
use crate::dispatch::deaths::log_death;
use crate::dispatch::floor::{Floor, count_death};
use crate::dispatch::lane::{Limits, Told};
use crate::domain::{Claim, DeadReason, Endpoint, Timestamp};
use crate::plugins::Host;
use crate::storage::{Lease, Result, Shard};
use crate::telemetry::DELIVERIES;
use crate::world::{Alarm, Clock, Entropy, Transport};

const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How much is attempted at once, and for how long.
#[derive(Debug, Clone)]
pub struct Config {
    /// Attempts in flight, all endpoints of a shard together.
    pub in_flight_max: usize,
    /// Bytes of the events in flight.
    pub in_flight_bytes_max: usize,
    /// How much of that one tenant may hold, in percent.
    pub tenant_percent: usize,
    /// How much all endpoints may hold that fail, are slow or have not taken anything yet.
    pub doubtful_percent: usize,
    /// How much retries may hold.
    pub retry_percent: usize,
    /// How much replays and redrives may hold.
    pub bulk_percent: usize,
    /// An endpoint is disabled after so long with nothing but failures.
    pub disable_after: Duration,
    /// A delivery is given up when its event is as old as this.
    pub expire_after: Duration,
}

impl Default for Config {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        Self {
            in_flight_max: 1024,
            in_flight_bytes_max: 64 * 1024 * 1024,
            tenant_percent: 50,
            doubtful_percent: 50,
            retry_percent: 25,
            bulk_percent: 20,
            disable_after: 5 * DAY,
            expire_after: 30 * DAY,
        }
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

/// What became of an attempt that was begun.
pub(super) struct Ended {
    pub(super) begun: Begun,
    pub(super) limits: Limits,
    pub(super) told: Told,
    pub(super) latency: Duration,
    pub(super) death: Option<Death>,
    /// When it could not be made: until when its endpoint rests.
    pub(super) deferred: Option<Instant>,
    /// Whether it was for one of the gateway's own events.
    pub(super) operational: bool,
}

impl Dispatcher {
    /// Works until told to stop, then finishes what is in flight.
    pub async fn run(self, stopping: CancellationToken) {
        let work = Arc::new(self);
        let mut floor = Floor::new(work.clone());
        let mut crew = Crew::new();
        // Plugins that were given up for a while and can be run again. To begin to wait for what
        // hardly ever comes costs as much as it does for what comes all the time.
        let closed = work.plugins.as_ref().map(|it| it.breakers().watch_closed());
        let (mut recovered, mut stopped) = (pin!(changed(closed)), pin!(stopping.cancelled()));
        loop {
            floor.start_attempts(&mut crew).await;
            let (wake, idle) = (floor.wakes_at(), floor.is_idle());
            let unwatched = floor.watchdog.sleeps();
            tokio::select! {
                biased;
                () = &mut stopped => break,
                ended = crew.ended() => {
                    // Who is about to end is taken in with it.
                    tokio::task::yield_now().await;
                    floor.ended(ended);
                    while let Some(ended) = crew.ended_already() {
                        floor.ended(ended);
                    }
                }
                () = floor.chores_done() => {}
                closed = &mut recovered => {
                    floor.wake_deferred();
                    recovered.set(changed(closed));
                }
                () = until(wake) => floor.wake(),
                () = work.shard.something_waits(), if unwatched => {
                    floor.watchdog.wake(Instant::now());
                }
                ready = work.shard.ready(), if idle => floor.welcome(ready),
            }
        }
        while crew.under_way() > 0 {
            floor.ended(crew.ended().await);
        }
        floor.finish().await;
    }

    /// A panic in an attempt is a fault of ours: it must not take the others along, and is not
    /// repeated for ever.
    pub(super) async fn guarded(&self, turn: Turn, alarm: &mut Alarm) -> Ended {
        let Turn { lease, endpoint, begun, limits } = turn;
        let (key, operational) = (lease.key, lease.is_operational());
        let (told, latency) = (Told::Nothing, Duration::ZERO);
        let (death, deferred) = (None, None);
        let mut ended = Ended { begun, limits, told, latency, death, deferred, operational };
        let work = AssertUnwindSafe(self.work((lease, endpoint), &mut ended, alarm));
        match work.catch_unwind().await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "an attempt could not be recorded; it will be repeated");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
            Err(_) => {
                let strikes = self.shard.strike(key.endpoint, key.seq);
                tracing::error!(endpoint = key.endpoint.0, strikes, "an attempt panicked");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
        ended
    }

    async fn work(
        &self,
        (lease, endpoint): (Lease, Option<Arc<Endpoint>>),
        ended: &mut Ended,
        alarm: &mut Alarm,
    ) -> Result<()> {
        let Some(endpoint) = endpoint else {
            let (tenant, no) = (lease.event.tenant.as_str(), lease.key.endpoint);
            let id = self.shard.catalog().endpoint_id(no);
            let id = id.as_ref().map_or("", |it| it.as_str());
            DELIVERIES.count_for(&["cancelled"], tenant, Some(id));
            return self.shard.cancel(lease).await;
        };
        // Somebody asked for it before the endpoint was disabled: it goes back and is held as the
        // rest is. A test reaches a disabled endpoint too.
        if !endpoint.enabled && lease.event.only.is_none() {
            return Ok(());
        }
        let reason = self.hopeless(&lease);
        let Some(reason) = reason else {
            return attempt::make(self, (lease, &endpoint), ended, alarm).await;
        };
        count_death(&endpoint, reason);
        log_death(&lease, &endpoint, reason, None);
        ended.death = Death::of(&lease, &endpoint, reason);
        self.shard.give_up(lease, reason).await
    }

    /// Why there is to be no attempt.
    fn hopeless(&self, lease: &Lease) -> Option<DeadReason> {
        let live = matches!(lease.share, Claim::First | Claim::Retry);
        let old = |at: Timestamp| at - lease.event.accepted_at >= self.config.expire_after;
        if live && old(self.clock.now()) && self.shard.time_of_expiry().is_some_and(old) {
            return Some(DeadReason::Expired);
        }
        self.shard.is_poison(lease.key).then_some(DeadReason::InternalError)
    }
}

/// Waits until something changes; without a source, for ever.
async fn changed(source: Option<watch::Receiver<u64>>) -> Option<watch::Receiver<u64>> {
    if let Some(mut told) = source
        && told.changed().await.is_ok()
    {
        return Some(told);
    }
    std::future::pending().await
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
