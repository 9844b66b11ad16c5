//! What follows from how a plugin's calls go: statistics, the end of a trial, and giving a
//! version up for a while.

use serde_json::json;
use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::domain::{Canary, Endpoint, Event, Plugin, PluginVersion};
use crate::plugins::{Called, Change, Digest, Fault, Gate, Host, Noted, Subject};
use crate::storage::Refused;

/// One call of a plugin for one event.
pub(super) struct Watched<'a> {
    pub(super) work: &'a Dispatcher,
    pub(super) host: &'a Host,
    pub(super) endpoint: &'a Endpoint,
    pub(super) event: &'a Event,
    pub(super) plugin: &'a Plugin,
    pub(super) version: &'a PluginVersion,
}

impl Watched<'_> {
    /// Whether the call may be made now. A test is made always.
    pub(super) fn admit(&self) -> Gate {
        match self.event.only {
            Some(_) => Gate::Open,
            None => self.host.breakers().admit(&self.subject(), Instant::now()),
        }
    }

    /// Notes how the call went. `following` tells whether the endpoint follows the plugin rather
    /// than pins a version.
    pub(super) async fn note<A>(&self, called: &Called<A>, (following, on_trial): (bool, bool)) {
        let canary = self.plugin.canary.as_ref().filter(|_| following);
        let tenant = self.endpoint.tenant.shared();
        let over = self.host.diary().note(&self.noted(&tenant, canary), called);
        let mut failed = over.then_some("it fails more often than the active version");
        // What the gateway itself tells must not lead to more of it.
        if !self.event.event_type.is_operational() {
            let fault = called.verdict.as_ref().err();
            match self.host.breakers().note(&self.subject(), fault.is_some(), Instant::now()) {
                Change::Opened(_) if on_trial => failed = Some("it failed for every event"),
                Change::Opened(in_row) => self.tell_failing(fault, in_row).await,
                Change::Closed => self.tell("hookgate.plugin.recovered", json!({})).await,
                Change::None => {}
            }
        }
        if let Some((canary, why)) = canary.filter(|_| on_trial).zip(failed) {
            self.end_trial(canary, why).await;
        }
    }

    /// Notes what the version on trial and the active one said of the same event.
    pub(super) fn compare(&self, canary: &Called, active: &Called) {
        let tenant = self.endpoint.tenant.shared();
        let noted = self.noted(&tenant, self.plugin.canary.as_ref());
        self.host.diary().compare(&noted, canary, active);
    }

    fn subject(&self) -> Subject {
        let tenant = self.endpoint.tenant.shared();
        (tenant, self.plugin.name.clone(), self.version.version, Some(self.endpoint.no))
    }

    fn noted<'b>(
        &'b self,
        tenant: &'b std::sync::Arc<str>,
        canary: Option<&'b Canary>,
    ) -> Noted<'b> {
        Noted {
            tenant,
            plugin: &self.plugin.name,
            version: self.version.version,
            digest: Digest(self.version.digest),
            event_id: self.event.id.as_str(),
            at: self.work.clock.now(),
            canary,
        }
    }

    async fn tell_failing(&self, fault: Option<&Fault>, in_row: u32) {
        let standing = self.host.breakers().standing(&self.subject(), Instant::now());
        let more = json!({
            "failures": in_row,
            "error": fault.map(|it| json!({ "code": it.kind.name(), "detail": it.detail })),
            "paused_seconds": standing.reopens_in.map(|it| it.as_secs_f64().ceil()),
        });
        self.tell("hookgate.plugin.failing", more).await;
    }

    /// Ends the trial: the active version gets all events again.
    async fn end_trial(&self, canary: &Canary, why: &str) {
        let (shard, tenant) = (&self.work.shard, &self.endpoint.tenant);
        match shard.end_canary(tenant, &self.plugin.name, canary.version, false).await {
            Ok(_) => {
                self.host.breakers().forget(tenant.as_str(), Some(&self.plugin.name));
                let more = json!({ "reason": why, "active_version": self.plugin.active_version });
                self.tell("hookgate.plugin.canary_aborted", more).await;
            }
            // Another attempt was quicker, or somebody ended it by hand.
            Err(Refused::NotFound) => {}
            Err(error) => tracing::error!(%error, "a canary cannot be ended"),
        }
    }

    async fn tell(&self, event_type: &str, more: serde_json::Value) {
        let mut data = json!({
            "plugin": self.plugin.name.as_str(),
            "version": self.version.version,
            "sha256": Digest(self.version.digest).to_string(),
            "endpoint_id": self.endpoint.id.as_str(),
            "event_id": self.event.id.as_str(),
        });
        if let (Some(members), serde_json::Value::Object(more)) = (data.as_object_mut(), more) {
            members.extend(more);
        }
        // What kind of fault it is. The plugin's own words may hold what the event says.
        let error = data["error"]["code"].as_str();
        tracing::warn!(tenant = %self.endpoint.tenant, endpoint = %self.endpoint.id,
            plugin = %self.plugin.name, version = self.version.version, error, "{event_type}");
        self.work.shard.raise(&self.endpoint.tenant, event_type, &data).await;
    }
}
