use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::dispatch::plugin_chain::{Chained, Rewritten};
use crate::dispatch::plugin_watch::Watched;
use crate::domain::{Endpoint, Event, OnError, Plugin, PluginRun, PluginUse, PluginVersion};
use crate::plugins::{
    Artifact, Asked, Busy, Call, Called, Class, Digest, EventIn, Fault, FaultKind, Gate, Host,
    Subject,
};

/// A call that belongs to an attempt under way waits so long for its turn.
const PATIENCE: Duration = Duration::from_secs(30);
const RESTS: &str = "it failed too often in a row and is not run for a while";

/// A plugin of an endpoint's chain.
pub(super) struct Link<'a> {
    pub(super) plugin_use: &'a PluginUse,
    /// The plugin, the version that meets the event, and whether that is there on trial; `None`
    /// when there is no such version.
    pub(super) resolved: Option<(Arc<Plugin>, PluginVersion, bool)>,
}

/// What a plugin left of one part.
pub(super) enum Left {
    Parts(Vec<Rewritten>),
    Nothing(String),
}

impl Link<'_> {
    fn has(&self, hook: &str) -> bool {
        let kind = self.resolved.as_ref().map_or("", |(_, it, _)| it.kind.as_str());
        kind.split('+').any(|it| it == hook)
    }

    /// Whether it decides about events or rewrites them. What does not exist is asked, too: that
    /// is how it is noticed.
    fn delivers(&self) -> bool {
        self.resolved.is_none() || self.has("filter") || self.has("transform")
    }

    /// Whether deliveries wait for this plugin while it is given up for a while; where the
    /// endpoint says what to do without it, that is done. What an answer means is told by its
    /// status then.
    pub(super) fn holds(&self) -> bool {
        let needed = matches!(self.plugin_use.on_error, OnError::Retry | OnError::DeadLetter);
        needed && (self.delivers() || self.has("sign"))
    }

    pub(super) fn subject(&self, endpoint: &Endpoint) -> Option<Subject> {
        let (plugin, version, _) = self.resolved.as_ref()?;
        let tenant = endpoint.tenant.shared();
        Some((tenant, plugin.name.clone(), version.version, Some(endpoint.no)))
    }

    pub(super) fn says(&self, what: &str) -> String {
        format!("plugin {}: {what}", self.plugin_use.plugin)
    }

    pub(super) fn run<A>(&self, called: &Called<A>) -> Option<PluginRun> {
        let (plugin, version, _) = self.resolved.as_ref()?;
        Some(PluginRun {
            plugin: plugin.name.clone(),
            version: version.version,
            digest: version.digest,
            outcome: called.result.to_owned(),
            duration: called.duration,
        })
    }

    /// What the endpoint wants where the plugin failed; `before`: what it was given.
    pub(super) fn without(&self, fault: Fault, before: Vec<Rewritten>) -> Result<Left, Chained> {
        match self.plugin_use.on_error {
            OnError::Pass => Ok(Left::Parts(before)),
            OnError::Drop => Ok(Left::Nothing(format!("failed: {}", fault.detail))),
            on_error @ (OnError::Retry | OnError::DeadLetter) => {
                let fault = Fault { detail: self.says(&fault.detail), ..fault };
                Err(Chained::Failed(fault, on_error))
            }
        }
    }

    /// Asks it about an event; `None` when it has no hook for that.
    ///
    /// # Errors
    /// When it cannot be asked yet, with when to try again.
    pub(super) async fn call(
        &self,
        work: &Dispatcher,
        (endpoint, event): (&Endpoint, &Event),
        part: &Rewritten,
    ) -> Result<Option<Called>, Busy> {
        let failed = |detail: &str| Ok(Some(Called::fault(FaultKind::Failed, detail)));
        let Some(host) = &work.plugins else { return failed("plugins are switched off") };
        let Some((plugin, version, on_trial)) = &self.resolved else {
            return failed("there is no such version");
        };
        let watched = Watched { work, host, endpoint, event, plugin, version };
        if !self.delivers() && !self.holds() {
            return Ok(None);
        }
        if let Gate::ShutUntil(until) = watched.admit() {
            if self.holds() {
                return Err(Busy { retry_after: until - Instant::now() });
            }
            return Ok(Some(Called::fault(FaultKind::Suspended, RESTS)));
        }
        if !self.delivers() {
            return Ok(None);
        }
        let call = async |version: &PluginVersion| {
            let artifact = match artifact(work, host, (event, plugin), version).await {
                Ok(artifact) => artifact,
                Err(fault) => return Ok(Called::fault(fault.kind, fault.detail)),
            };
            if !artifact.hooks().delivers() {
                return Ok(Called::passing());
            }
            let mut event_in = EventIn::new(event, part.data.clone());
            event_in.content_type = part.content_type.clone().unwrap_or(event_in.content_type);
            host.try_call(self.question(endpoint, artifact, event_in), Class::Live).await
        };
        let compare = *on_trial && plugin.canary.as_ref().is_some_and(|it| it.compare);
        let called = match plugin.version(None).filter(|_| compare) {
            None => call(version).await?,
            Some(active) => {
                let (called, shadow) = tokio::join!(call(version), call(active));
                let called = called?;
                // Without room for the second, the two are not compared this time.
                if let Ok(shadow) = shadow {
                    watched.compare(&called, &shadow);
                }
                called
            }
        };
        watched.note(&called, (self.plugin_use.version.is_none(), *on_trial)).await;
        Ok(Some(called))
    }

    /// Asks the plugin another of its hooks; `None` when it does not have it. It waits for its
    /// turn, since parts of the attempt may have been made.
    pub(super) async fn ask<Q: Asked + Clone>(
        &self,
        work: &Dispatcher,
        (endpoint, event): (&Endpoint, &Event),
        hook: &str,
        question: Q,
    ) -> Option<Called<Q::Answer>> {
        let host = work.plugins.as_ref()?;
        let (plugin, version, on_trial) = self.resolved.as_ref().filter(|_| self.has(hook))?;
        let watched = Watched { work, host, endpoint, event, plugin, version };
        // Where deliveries wait for it, that was looked at before.
        if !self.holds() && watched.admit() != Gate::Open {
            return Some(Called::fault(FaultKind::Suspended, RESTS));
        }
        let artifact = match artifact(work, host, (event, plugin), version).await {
            Ok(artifact) => artifact,
            Err(fault) => return Some(Called::fault(fault.kind, fault.detail)),
        };
        let (call, until) =
            (self.question(endpoint, artifact, question), Instant::now() + PATIENCE);
        let called = loop {
            match host.try_call(call.clone(), Class::Live).await {
                Ok(called) => break called,
                Err(Busy { retry_after }) if Instant::now() + retry_after < until => {
                    tokio::time::sleep(retry_after).await;
                }
                // It says nothing of the plugin.
                Err(busy) => return Some(Called::fault(FaultKind::Overloaded, busy.to_string())),
            }
        };
        watched.note(&called, (self.plugin_use.version.is_none(), *on_trial)).await;
        Some(called)
    }

    fn question<Q>(&self, endpoint: &Endpoint, artifact: Arc<Artifact>, question: Q) -> Call<Q> {
        let config = self.plugin_use.config.iter();
        let config = config.map(|(key, value)| (key.clone(), value.clone())).collect();
        Call {
            tenant: endpoint.tenant.shared(),
            artifact,
            config,
            question,
            limits: None,
            dry: false,
        }
    }
}

async fn artifact(
    work: &Dispatcher,
    host: &Host,
    (event, plugin): (&Event, &Plugin),
    version: &PluginVersion,
) -> Result<Arc<Artifact>, Fault> {
    let component = || {
        let read = work.shard.component(event.tenant_no, &plugin.name, version.version);
        let complain = |error: &_| tracing::error!(%error, "a plugin's component cannot be read");
        read.inspect_err(complain).ok()?
    };
    let artifact = host.artifact(Digest(version.digest), component).await;
    artifact.map_err(|it| Fault { kind: FaultKind::Failed, detail: it.detail })
}
