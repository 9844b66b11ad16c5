use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::dispatch::plugin_watch::Watched;
use crate::domain::{Endpoint, Event, OnError, Plugin, PluginRun, PluginUse, PluginVersion};
use crate::plugins::{
    Artifact, Busy, Call, Called, Class, Digest, EventIn, Fault, FaultKind, Gate, Host, Subject,
    Verdict,
};

/// What an endpoint's plugins made of an event.
pub(super) enum Chained {
    /// Send this.
    Send(Rewritten),
    /// Not for this endpoint, and why.
    Dropped(String),
    /// A plugin failed, and this is what the endpoint wants then.
    Failed(Fault, OnError),
    /// Not now: a plugin is given up for a while, or the tenant's calls have to wait. It is no
    /// attempt.
    Deferred(Duration),
}

/// An event's data on its way through the chain.
pub(super) struct Rewritten {
    pub(super) data: Bytes,
    /// What the data is, if a plugin made something else than JSON of it.
    pub(super) content_type: Option<String>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) path_suffix: String,
}

/// An endpoint's plugins as one attempt runs them: **which versions those are is decided once**,
/// so that a switch happens between two events and never within one.
pub(super) struct Chain<'a> {
    links: Vec<Link<'a>>,
}

/// A plugin of the chain.
pub(super) struct Link<'a> {
    pub(super) plugin_use: &'a PluginUse,
    /// The plugin, the version that meets the event, and whether that is there on trial; `None`
    /// when there is no such version.
    pub(super) resolved: Option<(Arc<Plugin>, PluginVersion, bool)>,
}

impl<'a> Chain<'a> {
    /// The plugins of `endpoint` as they are now for `event`.
    pub(super) fn resolve(work: &Dispatcher, endpoint: &'a Endpoint, event: &Event) -> Self {
        if endpoint.plugins.is_empty() {
            return Self { links: Vec::new() };
        }
        let catalog = work.shard.catalog();
        let tenant = catalog.tenant(&endpoint.tenant);
        let link = |plugin_use: &'a PluginUse| {
            let plugin = tenant.and_then(|it| it.plugins.get(&plugin_use.plugin));
            let resolved = plugin.and_then(|it| {
                let met = it.version_for(plugin_use.version, &event.id, endpoint.no);
                met.map(|(version, on_trial)| (it.clone(), version.clone(), on_trial))
            });
            Link { plugin_use, resolved }
        };
        Self { links: endpoint.plugins.iter().map(link).collect() }
    }

    /// How long a delivery must wait before it makes sense to begin with the chain.
    fn shut_for(&self, host: &Host, endpoint: &Endpoint) -> Option<Duration> {
        let now = Instant::now();
        let shut = |link: &Link<'_>| match host.breakers().peek(&link.subject(endpoint)?, now) {
            Gate::ShutUntil(until) if link.waits() => Some(until - now),
            Gate::ShutUntil(_) | Gate::Open => None,
        };
        self.links.iter().filter_map(shut).max()
    }

    /// Runs the plugins in order, each on what the one before left; tells which it ran.
    pub(super) async fn run(
        &self,
        work: &Dispatcher,
        (endpoint, event): (&Endpoint, &Event),
    ) -> (Chained, Vec<PluginRun>) {
        let mut runs = Vec::with_capacity(self.links.len());
        let mut rewritten = Rewritten {
            data: event.data.clone(),
            content_type: None,
            headers: Vec::new(),
            path_suffix: String::new(),
        };
        // A test is made now, come what may.
        let shut = work.plugins.as_ref().filter(|_| event.only.is_none());
        if let Some(wait) = shut.and_then(|it| self.shut_for(it, endpoint)) {
            return (Chained::Deferred(wait), runs);
        }
        for link in &self.links {
            let data = rewritten.data.clone();
            let called = link.call(work, (endpoint, event), data).await;
            let called = match called {
                Ok(called) => called,
                Err(Busy { retry_after }) => return (Chained::Deferred(retry_after), runs),
            };
            runs.extend(link.run(&called));
            match (called.verdict, link.plugin_use.on_error) {
                (Ok(Verdict::Deliver), _) | (Err(_), OnError::Pass) => {}
                (Ok(Verdict::Drop(reason)), _) => {
                    return (Chained::Dropped(link.says(&reason)), runs);
                }
                (Ok(Verdict::Replace(out)), _) => {
                    let json = out.content_type.starts_with("application/json");
                    rewritten.content_type = (!json).then_some(out.content_type);
                    rewritten.data = out.payload;
                    rewritten.headers.extend(out.headers);
                    rewritten.path_suffix.push_str(out.path_suffix.as_deref().unwrap_or_default());
                }
                (Ok(Verdict::Split(_)), _) => {
                    let (kind, detail) = (FaultKind::OutputInvalid, "split is not sent yet");
                    let fault = Fault { kind, detail: link.says(detail) };
                    return (Chained::Failed(fault, OnError::DeadLetter), runs);
                }
                (Err(fault), OnError::Drop) => {
                    let name = &link.plugin_use.plugin;
                    let reason = format!("plugin {name} failed: {}", fault.detail);
                    return (Chained::Dropped(reason), runs);
                }
                (Err(fault), on_error) => {
                    let fault = Fault { detail: link.says(&fault.detail), ..fault };
                    return (Chained::Failed(fault, on_error), runs);
                }
            }
        }
        (Chained::Send(rewritten), runs)
    }
}

impl Link<'_> {
    /// Whether deliveries wait for this plugin while it is given up for a while; where the
    /// endpoint says what to do without it, that is done.
    fn waits(&self) -> bool {
        matches!(self.plugin_use.on_error, OnError::Retry | OnError::DeadLetter)
    }

    fn subject(&self, endpoint: &Endpoint) -> Option<Subject> {
        let (plugin, version, _) = self.resolved.as_ref()?;
        Some((endpoint.tenant.shared(), plugin.name.clone(), version.version))
    }

    fn says(&self, what: &str) -> String {
        format!("plugin {}: {what}", self.plugin_use.plugin)
    }

    fn run(&self, called: &Called) -> Option<PluginRun> {
        let (plugin, version, _) = self.resolved.as_ref()?;
        Some(PluginRun {
            plugin: plugin.name.clone(),
            version: version.version,
            digest: version.digest,
            outcome: called.result.to_owned(),
            duration: called.duration,
        })
    }

    async fn call(
        &self,
        work: &Dispatcher,
        (endpoint, event): (&Endpoint, &Event),
        data: Bytes,
    ) -> Result<Called, Busy> {
        let failed = |detail: &str| Ok(Called::fault(FaultKind::Failed, detail));
        let Some(host) = &work.plugins else { return failed("plugins are switched off") };
        let Some((plugin, version, on_trial)) = &self.resolved else {
            return failed("there is no such version");
        };
        let watched = Watched { work, host, endpoint, event, plugin, version };
        if let Gate::ShutUntil(until) = watched.admit() {
            if self.waits() {
                return Err(Busy { retry_after: until - Instant::now() });
            }
            let detail = "it failed too often in a row and is not run for a while";
            return Ok(Called::fault(FaultKind::Suspended, detail));
        }
        let call = async |version: &PluginVersion| {
            let artifact = match artifact(work, host, (event, plugin), version).await {
                Ok(artifact) => artifact,
                Err(fault) => return Ok(Called::fault(fault.kind, fault.detail)),
            };
            let config = self.plugin_use.config.iter();
            let config = config.map(|(key, value)| (key.clone(), value.clone())).collect();
            let event_in = EventIn::new(event, data.clone());
            let tenant = endpoint.tenant.shared();
            let call = Call { tenant, artifact, config, question: event_in, limits: None };
            host.try_call(call, Class::Live).await
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
        Ok(called)
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
