use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::dispatch::plugin_watch::Watched;
use crate::domain::{Endpoint, Event, OnError, Plugin, PluginRun, PluginUse, PluginVersion};
use crate::plugins::{
    Artifact, Asked, Busy, Call, Called, Class, Classified, Digest, EventIn, Fault, FaultKind,
    Gate, Hooks, Host, Outgoing, RequestIn, ResponseIn, Signed, Subject, Verdict,
};

/// Requests that a chain of plugins may make of one event.
const PARTS_MAX: usize = 64;

/// What an endpoint's plugins made of an event.
pub(super) enum Chained {
    /// Send this.
    Send(Made),
    /// Not for this endpoint, and why.
    Dropped(String),
    /// A plugin failed, and this is what the endpoint wants then.
    Failed(Fault, OnError),
    /// Not now: a plugin is given up for a while, or the tenant's calls have to wait. It is no
    /// attempt.
    Deferred(Duration),
}

/// What is to be sent.
pub(super) struct Made {
    /// The requests, in their order; never empty.
    pub(super) parts: Vec<Rewritten>,
    /// Whether a plugin made several of the event, each with an id of its own.
    pub(super) several: bool,
}

/// An event's data on its way through the chain.
#[derive(Clone)]
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

    /// Whether there are no plugins.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
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
        let rewritten = Rewritten {
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
        let (mut parts, mut several) = (vec![rewritten], false);
        for link in &self.links {
            let (mut next, mut dropped) = (Vec::with_capacity(parts.len()), None);
            for part in parts {
                let called = match link.call(work, (endpoint, event), &part).await {
                    Ok(called) => called,
                    Err(Busy { retry_after }) => return (Chained::Deferred(retry_after), runs),
                };
                runs.extend(link.run(&called));
                match (called.verdict, link.plugin_use.on_error) {
                    (Ok(Verdict::Deliver), _) | (Err(_), OnError::Pass) => next.push(part),
                    (Ok(Verdict::Drop(reason)), _) => dropped = Some(link.says(&reason)),
                    (Ok(Verdict::Replace(out)), _) => next.push(part.replaced(out)),
                    (Ok(Verdict::Split(made)), _) => {
                        several = true;
                        next.extend(made.into_iter().map(|it| part.clone().replaced(it)));
                    }
                    (Err(fault), OnError::Drop) => {
                        dropped = Some(link.says(&format!("failed: {}", fault.detail)));
                    }
                    (Err(fault), on_error) => {
                        let fault = Fault { detail: link.says(&fault.detail), ..fault };
                        return (Chained::Failed(fault, on_error), runs);
                    }
                }
            }
            if let (true, Some(reason)) = (next.is_empty(), dropped) {
                return (Chained::Dropped(reason), runs);
            }
            if next.len() > PARTS_MAX {
                let detail = link.says(&format!("{} requests of one event", next.len()));
                let fault = Fault { kind: FaultKind::Limit, detail };
                return (Chained::Failed(fault, link.plugin_use.on_error), runs);
            }
            parts = next;
        }
        (Chained::Send(Made { parts, several }), runs)
    }

    /// Asks the plugins that sign, in order: the headers they add.
    ///
    /// # Errors
    /// What an attempt comes to that cannot be signed.
    pub(super) async fn sign(
        &self,
        work: &Dispatcher,
        of: (&Endpoint, &Event),
        request: &RequestIn,
    ) -> Result<Signed, (Fault, OnError)> {
        let mut headers = Vec::new();
        for link in &self.links {
            let called = link.ask(work, of, |it| it.sign, request.clone()).await;
            match (called.map(|it| it.verdict), link.plugin_use.on_error) {
                (None, _) | (Some(Err(_)), OnError::Pass) => {}
                (Some(Ok(signed)), _) => headers.extend(signed),
                (Some(Err(fault)), on_error) => {
                    let fault = Fault { detail: link.says(&fault.detail), ..fault };
                    return Err((fault, on_error));
                }
            }
        }
        Ok(headers)
    }

    /// Asks the plugins what an answer means; the first that knows decides. Where one fails, its
    /// status does, since the endpoint may have taken it.
    pub(super) async fn classify(
        &self,
        work: &Dispatcher,
        of: (&Endpoint, &Event),
        response: &ResponseIn,
    ) -> Classified {
        for link in &self.links {
            let called = link.ask(work, of, |it| it.classify, response.clone()).await;
            match called.map(|it| it.verdict) {
                None | Some(Ok(Classified::Undecided) | Err(_)) => {}
                Some(Ok(Classified::Success)) => return Classified::Success,
                Some(Ok(Classified::Failure(it))) => return Classified::Failure(link.says(&it)),
                Some(Ok(Classified::Final(it))) => return Classified::Final(link.says(&it)),
            }
        }
        Classified::Undecided
    }
}

impl Rewritten {
    /// What a plugin made of it.
    fn replaced(mut self, out: Outgoing) -> Self {
        let json = out.content_type.starts_with("application/json");
        self.content_type = (!json).then_some(out.content_type);
        self.data = out.payload;
        self.headers.extend(out.headers);
        self.path_suffix.push_str(out.path_suffix.as_deref().unwrap_or_default());
        self
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
        part: &Rewritten,
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
            if !artifact.hooks().delivers() {
                return Ok(Called::passing());
            }
            let mut event_in = EventIn::new(event, part.data.clone());
            event_in.content_type = part.content_type.clone().unwrap_or(event_in.content_type);
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

impl Link<'_> {
    /// Asks the plugin another of its hooks; `None` when it does not have it. A call for which
    /// there is no room is a fault: parts of the attempt may have been made.
    async fn ask<Q: Asked>(
        &self,
        work: &Dispatcher,
        (endpoint, event): (&Endpoint, &Event),
        has: fn(Hooks) -> bool,
        question: Q,
    ) -> Option<Called<Q::Answer>> {
        let host = work.plugins.as_ref()?;
        let (plugin, version, on_trial) = self.resolved.as_ref()?;
        let artifact = match artifact(work, host, (event, plugin), version).await {
            Ok(artifact) => artifact,
            Err(fault) => return Some(Called::fault(fault.kind, fault.detail)),
        };
        if !has(artifact.hooks()) {
            return None;
        }
        let config = self.plugin_use.config.iter();
        let config = config.map(|(key, value)| (key.clone(), value.clone())).collect();
        let tenant = endpoint.tenant.shared();
        let call = Call { tenant, artifact, config, question, limits: None };
        let called = host.call(call).await;
        let watched = Watched { work, host, endpoint, event, plugin, version };
        watched.note(&called, (self.plugin_use.version.is_none(), *on_trial)).await;
        Some(called)
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
