use std::sync::Arc;

use serde_json::json;
use tokio::{
    task::JoinSet,
    time::{Duration, Instant},
};

use crate::dispatch::Dispatcher;
use crate::dispatch::bulletins::Bulletins;
use crate::dispatch::crew::{Crew, Turn};
use crate::dispatch::dispatcher::Ended;
use crate::dispatch::lane::{Change, Limits, Tiding};
use crate::dispatch::scheduler::Scheduler;
use crate::dispatch::shares::Shares;
use crate::dispatch::watchdog::Watchdog;
use crate::domain::{Claim, DeadReason, Endpoint, EndpointNo, Slug, TenantNo};
use crate::storage::{Allowance, Ready, Refused};
use crate::telemetry::{BREAKER_TRANSITIONS, DELIVERIES, DIED, ENDPOINTS_DISABLED, IN_FLIGHT};

/// After a lane could not be read, it is left alone for so long.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often the backlog of a disabled endpoint is looked at for what has expired.
const EXPIRY_EVERY: Duration = Duration::from_secs(3600);
/// Deliveries that expire at once.
const EXPIRED_MAX: usize = 64;
/// The endpoint's limits where there is no endpoint any more.
const LIMITS: Limits = Limits { in_flight_max: 64, rate: None };

/// Where turns are given out and what comes of them is taken in: the one place that knows what is
/// in flight.
pub(super) struct Floor {
    pub(super) work: Arc<Dispatcher>,
    pub(super) scheduler: Scheduler,
    pub(super) watchdog: Watchdog,
    bulletins: Bulletins,
    /// What follows from attempts and is waited for by nobody: notes, events, disabling.
    chores: JoinSet<()>,
    /// Attempts of this shard under way, as they were shown last.
    shown_in_flight: usize,
}

impl Floor {
    pub(super) fn new(work: Arc<Dispatcher>) -> Self {
        let (shares, now) = (Shares::new(&work.config), (now(), work.clock.now()));
        let mut scheduler = Scheduler::new(shares, work.config.disable_after, now.0);
        for (no, health) in work.shard.unwell() {
            if let Some(tenant) = tenant_of(&work, no) {
                scheduler.restore(no, tenant, &health, now);
            }
        }
        let (watchdog, bulletins, chores) = Default::default();
        Self { work, scheduler, watchdog, bulletins, chores, shown_in_flight: 0 }
    }

    /// Whether there is nothing to do before something happens.
    pub(super) fn is_idle(&self) -> bool {
        !self.scheduler.has_turns()
    }

    pub(super) fn wakes_at(&self) -> Option<Instant> {
        let wake = [self.scheduler.wakes_at(), self.bulletins.wakes_at(), self.watchdog.wakes_at()];
        wake.into_iter().flatten().min()
    }

    pub(super) fn wake(&mut self) {
        self.scheduler.wake(now());
        self.look_after_lanes(now());
        for (tenant, data) in self.bulletins.take((now(), self.work.clock.now())) {
            self.tell(tenant, "hookgate.dead_letter", data);
        }
    }

    /// What deliveries were deferred for may be over.
    pub(super) fn wake_deferred(&mut self) {
        self.scheduler.wake_deferred();
    }

    /// Gives those a turn that may have something to do.
    pub(super) fn welcome(&mut self, ready: Vec<Ready>) {
        for Ready { endpoint, asked } in ready {
            if !self.scheduler.knows(endpoint) {
                // Deliveries of an endpoint that is gone are withdrawn in nobody's time.
                let tenant = tenant_of(&self.work, endpoint).unwrap_or(TenantNo(0));
                self.scheduler.meet(endpoint, tenant);
            }
            self.scheduler.queue(endpoint, asked);
        }
    }

    /// Begins as many attempts as there is room for.
    pub(super) async fn start_attempts(&mut self, crew: &mut Crew) {
        self.welcome(self.work.shard.ready_now());
        while let Some(no) = self.scheduler.next() {
            let endpoint = self.work.shard.catalog().endpoint(no).cloned();
            if endpoint.as_ref().is_some_and(|it| it.secret_unavailable) {
                // Unsigned, or without its headers, nothing may go: what is due waits.
                continue;
            }
            let limits = endpoint.as_deref().map_or(LIMITS, Limits::of);
            let now = now();
            let enabled = endpoint.as_ref().is_none_or(|it| it.enabled);
            if self.scheduler.notice(no, enabled) && enabled {
                let change = self.scheduler.renew(no, now);
                self.follow(no, None, &change);
            }
            let (mut allowed, asked) = self.scheduler.room(no, limits, now);
            if !enabled {
                allowed = Allowance::default();
                Box::pin(self.expire(no, endpoint.as_deref(), now)).await;
            }
            if allowed.any > 0 || asked {
                let what = (no, endpoint, limits);
                self.start_some(what, allowed, crew, now).await;
            }
        }
        self.watchdog.turns_are_used();
        self.show_in_flight(crew.under_way());
    }

    /// Several shards share the gauge.
    fn show_in_flight(&mut self, now: usize) {
        let before = std::mem::replace(&mut self.shown_in_flight, now);
        if now != before {
            IN_FLIGHT.shift(now as f64 - before as f64, &[]);
        }
    }

    async fn start_some(
        &mut self,
        (no, endpoint, limits): (EndpointNo, Option<Arc<Endpoint>>, Limits),
        allowed: Allowance,
        crew: &mut Crew,
        now: Instant,
    ) {
        let lent = match self.work.shard.lease(no, allowed).await {
            Ok(lent) => lent,
            Err(error) => {
                tracing::error!(%error, endpoint = no.0, "deliveries cannot be read");
                self.scheduler.rest(no, now + TRY_AGAIN_AFTER);
                return;
            }
        };
        let begun = lent.leases.len();
        let charged = lent.leases.iter().filter(|it| it.share != Claim::Asked).count();
        for lease in lent.leases {
            let what = (lease.share, lease.event.data.len());
            let begun = self.scheduler.begin(no, what, now);
            crew.begin(&self.work, Turn { lease, endpoint: endpoint.clone(), begun, limits });
        }
        if begun > 0 {
            self.note_begun(no);
        }
        let left = (lent.more, lent.retries_left, lent.bulk_left);
        self.scheduler.lent(no, (allowed.any, begun, charged), left, now);
        if endpoint.is_none() && begun == 0 {
            self.scheduler.forget(no);
        }
    }

    /// Gives up what a disabled endpoint was to have and is too old by now. The rest waits until
    /// somebody enables it again.
    async fn expire(&mut self, no: EndpointNo, endpoint: Option<&Endpoint>, now: Instant) {
        let Some(endpoint) = endpoint else { return };
        if !self.scheduler.may_look(no) {
            return;
        }
        let keep = self.work.config.expire_after;
        let Some(at) = self.work.shard.time_of_expiry() else {
            return self.scheduler.rest(no, now + EXPIRY_EVERY);
        };
        let mut left = None;
        while left.is_none() {
            let allowed = Allowance::of(EXPIRED_MAX);
            let lent = self.work.shard.lease(no, allowed).await;
            let Ok(lent) = lent.inspect_err(|it| tracing::error!(error = %it, "expiry")) else {
                left = Some(TRY_AGAIN_AFTER);
                continue;
            };
            if lent.leases.is_empty() {
                return;
            }
            for lease in lent.leases {
                // What is to be sent once more is as old as the wish.
                let live = matches!(lease.share, Claim::First | Claim::Retry);
                let age = at - if live { lease.event.accepted_at } else { lease.due };
                if age < keep {
                    left = Some(left.unwrap_or(EXPIRY_EVERY).min(keep - age));
                    continue;
                }
                count_death(endpoint, DeadReason::Expired);
                if self.work.shard.give_up(lease, DeadReason::Expired).await.is_err() {
                    return;
                }
            }
        }
        self.scheduler.rest(no, now + left.unwrap_or(EXPIRY_EVERY));
    }

    /// An attempt ended: there is room for another, and something to learn.
    pub(super) fn ended(&mut self, ended: Ended) {
        let (no, now) = (ended.begun.endpoint, (now(), self.work.clock.now()));
        if let Some(until) = ended.deferred {
            self.scheduler.defer(no, until);
        }
        let of = (ended.latency, ended.limits);
        let change = self.scheduler.ended(ended.begun, ended.told, of, now);
        if let Some(death) = &ended.death {
            self.bulletins.dead_letter(death, now);
        }
        if change != Change::default() {
            self.follow(no, Some(ended.operational), &change);
        }
    }

    /// Shows, keeps and tells what changed about an endpoint.
    fn follow(&mut self, no: EndpointNo, operational: Option<bool>, change: &Change) {
        match change.opened {
            0 => {}
            opened => {
                let to = if opened > 0 { "open" } else { "closed" };
                BREAKER_TRANSITIONS.count(1, &[to]);
            }
        }
        match (change.health, change.keep) {
            (Some(health), true) => {
                let work = self.work.clone();
                self.chores.spawn(async move {
                    if let Err(error) = work.shard.note_health(no, health, true).await {
                        tracing::warn!(%error, "an endpoint's health could not be noted");
                    }
                });
            }
            (Some(health), false) => self.work.shard.show_health(no, health),
            (None, _) => {}
        }
        // Deliveries of the gateway's own events are never told of: that would not end.
        let told = change.tiding.filter(|_| operational == Some(false));
        let endpoint = self.work.shard.catalog().endpoint(no).cloned();
        let Some(endpoint) = endpoint else { return };
        if let Some(Tiding::Hopeless { since, failures }) = change.tiding {
            let at = self.work.shard.time_of_expiry();
            if at.is_none_or(|it| it - since < self.work.config.disable_after) {
                // By a clock that may be wrong; the next failure tells again.
                return;
            }
            let reason = format!("nothing but failures since {since}, {failures} in a row");
            let work = self.work.clone();
            self.scheduler.notice(no, false);
            self.chores.spawn(async move { disable(&work, &endpoint, reason).await });
            return;
        }
        let (event_type, since, failures) = match told {
            Some(Tiding::Failing { since, failures }) => {
                ("hookgate.endpoint.failing", since, failures)
            }
            Some(Tiding::Recovered { since, failures }) => {
                ("hookgate.endpoint.recovered", since, failures)
            }
            _ => return,
        };
        let mut data = json!({
            "endpoint_id": endpoint.id.as_str(),
            "failing_since": since.to_string(),
            "failures": failures,
        });
        if event_type == "hookgate.endpoint.failing" {
            let disabled_at = since + self.work.config.disable_after;
            data["disabled_at"] = disabled_at.to_string().into();
        }
        self.tell(endpoint.tenant.clone(), event_type, data);
    }

    fn tell(&mut self, tenant: Slug, event_type: &'static str, data: serde_json::Value) {
        let work = self.work.clone();
        self.chores.spawn(async move {
            work.shard.raise(&tenant, event_type, &data).await;
        });
    }

    /// Waits until a chore is done; for ever where there is none.
    pub(super) async fn chores_done(&mut self) {
        match self.chores.join_next().await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "a chore panicked"),
            None => std::future::pending().await,
        }
    }

    /// Finishes what follows from the last attempts.
    pub(super) async fn finish(mut self) {
        self.show_in_flight(0);
        while self.chores.join_next().await.is_some() {}
    }
}

/// A delivery is given up without an attempt.
pub(super) fn count_death(endpoint: &Endpoint, reason: DeadReason) {
    DIED.count(1, &[reason.name()]);
    DELIVERIES.count_for(&["dead"], endpoint.tenant.as_str(), Some(endpoint.id.as_str()));
}

/// Disables an endpoint and tells its tenant. What it has not received is held until somebody
/// enables it again, or until it expires.
pub(super) async fn disable(work: &Dispatcher, endpoint: &Endpoint, reason: String) {
    let (tenant, endpoint_id) = (&endpoint.tenant, &endpoint.id);
    tracing::warn!(%tenant, %endpoint_id, reason, "the endpoint is disabled");
    let told = reason.clone();
    let change = |mut endpoint: Endpoint| {
        if !endpoint.enabled {
            return Err(Refused::Invalid(String::new()));
        }
        endpoint.enabled = false;
        endpoint.disabled_reason = Some(reason);
        Ok(endpoint)
    };
    match work.shard.update_endpoint(&endpoint.tenant, &endpoint.id, change).await {
        Ok(_) => ENDPOINTS_DISABLED.count(1, &[]),
        Err(Refused::Storage(error)) => {
            tracing::warn!(%error, "the endpoint could not be disabled; the next failure will");
            return;
        }
        Err(_) => return,
    }
    let data = json!({ "endpoint_id": endpoint.id.as_str(), "reason": told });
    work.shard.raise(&endpoint.tenant, "hookgate.endpoint.disabled", &data).await;
}

fn tenant_of(work: &Dispatcher, no: EndpointNo) -> Option<TenantNo> {
    let catalog = work.shard.catalog();
    let slug = &catalog.endpoint(no)?.tenant;
    catalog.tenant(slug).map(|it| it.tenant.no)
}

fn now() -> Instant {
    Instant::now()
}
