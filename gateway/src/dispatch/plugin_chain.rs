use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};
use tokio::time::Instant;

use crate::dispatch::Dispatcher;
use crate::dispatch::plugin_link::{Left, Link};
use crate::domain::{Endpoint, Event, OnError, PluginRun, PluginUse};
use crate::plugins::{
    Classified, Fault, FaultKind, Gate, Host, Outgoing, RequestIn, ResponseIn, Signed, Verdict,
    is_json, is_path,
};
use crate::storage::{Entry, Lease};

/// Requests that a chain of plugins may make of one event.
pub(super) const PARTS_MAX: usize = 64;

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
    pub(super) parts: SmallVec<[Rewritten; 1]>,
    /// Whether a plugin made several of the event, each with an id of its own.
    pub(super) several: bool,
}

impl Made {
    fn untouched(event: &Event) -> Self {
        Self { parts: smallvec![Rewritten::of(event)], several: false }
    }
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
#[derive(Default)]
pub(super) struct Chain<'a> {
    links: Vec<Link<'a>>,
    runs: Mutex<Vec<PluginRun>>,
}

impl<'a> Chain<'a> {
    /// The plugins of `endpoint` as they are now for the event of `lease`. Where requests of it
    /// were taken already, the same versions make the rest.
    pub(super) fn resolve(work: &Dispatcher, endpoint: &'a Endpoint, lease: &Lease) -> Self {
        if endpoint.plugins.is_empty() {
            return Self::default();
        }
        let began = match lease.parts_delivered {
            0 => Vec::new(),
            _ => last_runs(work, lease),
        };
        let catalog = work.shard.catalog();
        let tenant = catalog.tenant(&endpoint.tenant);
        let link = |plugin_use: &'a PluginUse| {
            let plugin = tenant.and_then(|it| it.plugins.get(&plugin_use.plugin));
            let began = began.iter().find(|it| it.plugin == plugin_use.plugin);
            let pin = plugin_use.version.or(began.map(|it| it.version));
            let resolved = plugin.and_then(|it| {
                let met = it.version_for(pin, &lease.event.id, endpoint.no);
                met.map(|(version, on_trial)| (it.clone(), version.clone(), on_trial))
            });
            Link { plugin_use, resolved }
        };
        let links = endpoint.plugins.iter().map(link).collect();
        Self { links, runs: Mutex::default() }
    }

    /// Whether there are no plugins.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// Which plugins ran, in order.
    pub(super) fn into_runs(self) -> Vec<PluginRun> {
        self.runs.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, run: Option<PluginRun>) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).extend(run);
    }

    /// How long a delivery must wait before it makes sense to begin with the chain.
    fn shut_for(&self, host: &Host, endpoint: &Endpoint) -> Option<Duration> {
        let now = Instant::now();
        let shut = |link: &Link<'_>| match host.breakers().peek(&link.subject(endpoint)?, now) {
            Gate::ShutUntil(until) if link.holds() => Some(until - now),
            Gate::ShutUntil(_) | Gate::Open => None,
        };
        self.links.iter().filter_map(shut).max()
    }

    /// Runs the plugins in order, each on what the one before left. Most endpoints have none.
    pub(super) async fn run(&self, work: &Dispatcher, of: (&Endpoint, &Event)) -> Chained {
        match self.is_empty() {
            true => Chained::Send(Made::untouched(of.1)),
            false => Box::pin(self.run_some(work, of)).await,
        }
    }

    async fn run_some(&self, work: &Dispatcher, of: (&Endpoint, &Event)) -> Chained {
        let (endpoint, event) = of;
        // A test is made now, come what may.
        let shut = work.plugins.as_ref().filter(|_| event.only.is_none());
        if let Some(wait) = shut.and_then(|it| self.shut_for(it, endpoint)) {
            return Chained::Deferred(wait);
        }
        let mut made = Made::untouched(event);
        for link in &self.links {
            made = match Box::pin(self.through(link, work, of, made)).await {
                Ok(made) => made,
                Err(ended) => return ended,
            };
        }
        Chained::Send(made)
    }

    /// What one plugin makes of what the one before left.
    async fn through(
        &self,
        link: &Link<'_>,
        work: &Dispatcher,
        of: (&Endpoint, &Event),
        before: Made,
    ) -> Result<Made, Chained> {
        let mut several = before.several;
        let (mut parts, mut dropped) = (SmallVec::with_capacity(before.parts.len()), None);
        for part in &before.parts {
            let called = link.call(work, of, part).await;
            let called = called.map_err(|busy| Chained::Deferred(busy.retry_after))?;
            let Some(called) = called else {
                parts.push(part.clone());
                continue;
            };
            self.note(link.run(&called));
            several |= matches!(called.verdict, Ok(Verdict::Split(_)));
            let left = called.verdict.and_then(|it| part.after(it));
            match left.or_else(|fault| link.without(fault, vec![part.clone()]))? {
                Left::Parts(left) => parts.extend(left),
                Left::Nothing(reason) => dropped = Some(link.says(&reason)),
            }
        }
        if parts.len() > PARTS_MAX {
            let detail = format!("{} requests of one event; at most {PARTS_MAX}", parts.len());
            let fault = Fault { kind: FaultKind::Limit, detail };
            return match link.without(fault, before.parts.into_vec())? {
                Left::Parts(parts) => Ok(Made { parts: parts.into(), several: before.several }),
                Left::Nothing(reason) => Err(Chained::Dropped(link.says(&reason))),
            };
        }
        match dropped.filter(|_| parts.is_empty()) {
            Some(reason) => Err(Chained::Dropped(reason)),
            None => Ok(Made { parts, several }),
        }
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
            let Some(called) = link.ask(work, of, "sign", request.clone()).await else { continue };
            self.note(link.run(&called));
            match (called.verdict, link.plugin_use.on_error) {
                (Ok(signed), _) => headers.extend(signed),
                (Err(_), OnError::Pass) => {}
                (Err(fault), on_error) => {
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
            let called = link.ask(work, of, "classify", response.clone()).await;
            let Some(called) = called else { continue };
            self.note(link.run(&called));
            match called.verdict {
                Ok(Classified::Undecided) | Err(_) => {}
                Ok(Classified::Success) => return Classified::Success,
                Ok(Classified::Failure(it)) => return Classified::Failure(link.says(&it)),
                Ok(Classified::Final(it)) => return Classified::Final(link.says(&it)),
            }
        }
        Classified::Undecided
    }
}

/// What the last attempt that ran plugins ran.
fn last_runs(work: &Dispatcher, lease: &Lease) -> Vec<PluginRun> {
    let history = work.shard.history(lease.key);
    let complain = |error: &_| tracing::error!(%error, "a delivery's history cannot be read");
    let history = history.inspect_err(complain).unwrap_or_default();
    let runs = |it| match it {
        Entry::Attempt(it) => Some(it.plugins).filter(|it| !it.is_empty()),
        _ => None,
    };
    history.into_iter().rev().find_map(runs).unwrap_or_default()
}

impl Rewritten {
    fn of(event: &Event) -> Self {
        let (headers, path_suffix) = Default::default();
        Self { data: event.data.clone(), content_type: None, headers, path_suffix }
    }

    /// What a plugin's verdict leaves of it.
    fn after(&self, verdict: Verdict) -> Result<Left, Fault> {
        Ok(match verdict {
            Verdict::Deliver => Left::Parts(vec![self.clone()]),
            Verdict::Drop(reason) => Left::Nothing(reason),
            Verdict::Replace(out) => Left::Parts(vec![self.replaced(out)?]),
            Verdict::Split(made) => {
                let parts = made.into_iter().map(|it| self.replaced(it));
                Left::Parts(parts.collect::<Result<_, _>>()?)
            }
        })
    }

    /// What a plugin made of it.
    fn replaced(&self, out: Outgoing) -> Result<Self, Fault> {
        let mut made = self.clone();
        made.content_type = (!is_json(&out.content_type)).then_some(out.content_type);
        made.data = out.payload;
        made.headers.extend(out.headers);
        made.path_suffix.push_str(out.path_suffix.as_deref().unwrap_or_default());
        // Two that are harmless can make one together that climbs.
        if !is_path(&made.path_suffix) {
            let detail = format!("the path becomes `{}`", made.path_suffix);
            return Err(Fault { kind: FaultKind::OutputInvalid, detail });
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_for_tests;

    fn out(content_type: &str, path_suffix: Option<&str>) -> Outgoing {
        let (payload, headers) = (Bytes::from_static(b"1"), Vec::new());
        let path_suffix = path_suffix.map(str::to_owned);
        Outgoing { payload, content_type: content_type.to_owned(), headers, path_suffix }
    }

    #[test]
    fn paths_of_two_plugins_do_not_climb_together() {
        let plain = Rewritten::of(&event_for_tests("a.b", "{}"));
        for (first, second, fits) in [
            ("/orders", "/1", true),
            ("/.", "./admin", false),
            ("/%2", "e./admin", false),
            ("/a", "/..", false),
        ] {
            let first = plain.replaced(out("application/json", Some(first))).unwrap();
            let both = first.replaced(out("application/json", Some(second)));
            let fault = both.err().map(|it| it.kind);
            assert_eq!(fault, (!fits).then_some(FaultKind::OutputInvalid), "{second}");
        }
    }

    #[test]
    fn only_json_is_json() {
        let plain = Rewritten::of(&event_for_tests("a.b", "{}"));
        for (content_type, is_json) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json-seq", false),
            ("application/jsonlines", false),
            ("text/plain", false),
        ] {
            let made = plain.replaced(out(content_type, None)).unwrap();
            assert_eq!(made.content_type.is_none(), is_json, "{content_type}");
        }
    }
}
