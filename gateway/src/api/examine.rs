//! Events on their way through the tenant's ingest chain.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::{event_body, invoke};
use crate::domain::{EventType, IngestUse, OnIngestError};
use crate::plugins::{
    Artifact, Call, Called, Change, Digest, Fault, FaultKind, Gate, Incoming, Ingested, Noted,
    Replacement, Subject,
};
use crate::storage::NewEvent;

/// The code of an event that the chain does not take.
pub(super) const REJECTED: &str = "event_rejected";
/// Events of a request that are in the chain at once.
const EVENTS_AT_ONCE: usize = 16;
/// How long an event waits at most for its turn at a plugin. A producer, or a proxy before it,
/// would take a longer silence for a dead connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long all events of a request that is stored whole may take.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// For how long lines are examined before they are stored and answered.
const SLICE: Duration = Duration::from_secs(1);
/// A plugin that rests no longer is waited for: another event is trying it.
const PROBE_WAIT: Duration = Duration::from_millis(500);
/// For how long an event has to be known yet where the chain's word does not count for it.
const KNOWN_FOR: Duration = Duration::from_secs(60);
/// When to come again where nothing tells.
const LATER: Duration = Duration::from_secs(5);

/// What a plugin says of an event.
enum Said {
    Accept,
    Reject(String),
    Replace(Box<NewEvent>),
}

/// Why a plugin says nothing.
enum Silent {
    /// It failed on this event.
    Failed(Fault),
    /// It is not to be had now, whatever the event is.
    Away { code: &'static str, detail: String, again: Duration },
}

/// What the tenant's ingest chain leaves of a request's events, all or none. `many`: they stand in a
/// list, by whose places it tells of what is wrong.
pub(super) async fn all(
    gateway: &Gateway,
    access: &Access,
    events: Vec<NewEvent>,
    many: bool,
) -> Result<Vec<NewEvent>> {
    let chain = access.shard.ingest(&access.slug);
    if chain.is_empty() {
        return Ok(events);
    }
    let (mut taken, mut errors) = (Vec::with_capacity(events.len()), Vec::new());
    let through = Box::pin(through(gateway, access, chain, events)).await;
    for (place, event) in through.into_iter().enumerate() {
        let base = if many { format!("/{place}") } else { String::new() };
        match event.map_err(|it| it.at(&base)) {
            Ok(event) => taken.push(event),
            Err(problem) if problem.code() == REJECTED => {
                errors.extend(problem.into_errors(&base)?);
            }
            Err(problem) => return Err(problem),
        }
    }
    if errors.is_empty() { Ok(taken) } else { Err(Problem::fields(REJECTED, errors)) }
}

/// Sends a request's events through their tenant's chain, each to what is stored of it or to why
/// it is not. It ends with the first that could not be examined: then none is stored.
async fn through(
    gateway: &Gateway,
    access: &Access,
    chain: Arc<[IngestUse]>,
    events: Vec<NewEvent>,
) -> Vec<Result<NewEvent>> {
    let mut through = Vec::with_capacity(events.len());
    let one = |event| pass(gateway, access, chain.clone(), event);
    let mut coming = stream::iter(events).map(one).buffered(EVENTS_AT_ONCE);
    let until = Instant::now() + REQUEST_TIME_MAX;
    loop {
        match tokio::time::timeout_at(until, coming.next()).await {
            Ok(None) => return through,
            Ok(Some(event)) => {
                let away = event.as_ref().is_err_and(|it| it.code() != REJECTED);
                through.push(event);
                if away {
                    return through;
                }
            }
            Err(_) => {
                through.push(Err(too_long()));
                return through;
            }
        }
    }
}

fn too_long() -> Problem {
    let detail = format!(
        "the tenant's plugins did not examine all in {} s: send fewer events at once, or as NDJSON",
        REQUEST_TIME_MAX.as_secs()
    );
    Problem::unavailable(FaultKind::Overloaded.name(), detail)
}

/// Sends lines through the chain for a while, at the pace of its plugins; those that it did not
/// come to are given back.
pub(super) async fn some(
    gateway: &Gateway,
    access: &Access,
    events: Vec<NewEvent>,
) -> (Vec<Result<NewEvent>>, Vec<NewEvent>) {
    let chain = access.shard.ingest(&access.slug);
    if chain.is_empty() {
        return (events.into_iter().map(Ok).collect(), Vec::new());
    }
    let one = |event| pass(gateway, access, chain.clone(), event);
    let (until, mut left) = (Instant::now() + SLICE, events.into_iter());
    let next = std::iter::from_fn(|| (Instant::now() < until).then(|| left.next()).flatten());
    let through = stream::iter(next).map(one).buffered(EVENTS_AT_ONCE).collect().await;
    (through, left.collect())
}

/// One event. What was accepted before is not refused when it comes again, whatever the chain says
/// of it now: storing it will tell that it is known.
async fn pass(
    gateway: &Gateway,
    access: &Access,
    chain: Arc<[IngestUse]>,
    mut event: NewEvent,
) -> Result<NewEvent> {
    // What tells a repeated event is what was published, not what became of it.
    event.seal();
    match examined(gateway, access, chain, event.clone()).await {
        Err(_) if access.shard.knows(access.no, &event, KNOWN_FOR)? => Ok(event),
        examined => examined,
    }
}

async fn examined(
    gateway: &Gateway,
    access: &Access,
    chain: Arc<[IngestUse]>,
    mut event: NewEvent,
) -> Result<NewEvent> {
    for it in chain.iter() {
        let (name, passes) = (&it.plugin, it.on_error == OnIngestError::Pass);
        match ask(gateway, access, it, &event).await {
            Ok(Said::Accept) => {}
            Ok(Said::Replace(made)) => event = *made,
            Ok(Said::Reject(reason)) => {
                let reason = if reason.is_empty() { "it gives no reason" } else { &reason };
                return Err(rejected(format!("plugin {name}: {reason}")));
            }
            Err(_) if passes => {}
            Err(Silent::Failed(fault)) => {
                return Err(rejected(format!("plugin {name} failed: {}", fault.detail)));
            }
            Err(Silent::Away { code, detail, again }) => {
                let detail = format!("plugin {name} {detail}; send it again later");
                return Err(Problem::unavailable(code, detail).after(again));
            }
        }
    }
    Ok(event)
}

fn rejected(detail: String) -> Problem {
    Problem::fields(REJECTED, vec![FieldError { pointer: String::new(), detail }])
}

async fn ask(
    gateway: &Gateway,
    access: &Access,
    it: &IngestUse,
    event: &NewEvent,
) -> Result<Said, Silent> {
    let (artifact, version) = resolved(gateway, access, it).await?;
    let tenant = access.slug.shared();
    let subject = (tenant.clone(), it.plugin.clone(), version, None);
    admitted(gateway, &subject).await?;
    let question = question(gateway, event);
    let id = question.id.clone().unwrap_or_default();
    let config = it.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let call =
        Call { tenant, artifact: artifact.clone(), config, question, limits: None, dry: false };
    let called =
        gateway.plugins.call_within(call, PATIENCE).await.map_err(|busy| Silent::Away {
            code: FaultKind::Overloaded.name(),
            detail: format!("did not get to run: {busy}"),
            again: busy.retry_after,
        })?;
    let (called, said) = judged(gateway, event, called);
    let digest = artifact.digest();
    let noted = Noted {
        tenant: &access.slug.shared(),
        plugin: &it.plugin,
        version,
        digest,
        event_id: &id,
        at: gateway.clock.now(),
        canary: None,
    };
    gateway.plugins.diary().note(&noted, &called);
    follow(gateway, access, &subject, (said.as_ref().err(), digest)).await;
    said.map_err(Silent::Failed)
}

/// The version that examines, with its number.
async fn resolved(
    gateway: &Gateway,
    access: &Access,
    it: &IngestUse,
) -> Result<(Arc<Artifact>, u32), Silent> {
    let away = |what: String| {
        let detail = format!("cannot examine it: {what}");
        Silent::Away { code: FaultKind::Failed.name(), detail, again: LATER }
    };
    let plugin = access.shard.plugin(&access.slug, &it.plugin);
    let plugin = plugin.ok_or_else(|| away("there is no such plugin".to_owned()))?;
    let artifact = invoke::artifact(gateway, access, &plugin, it.version).await;
    let artifact = artifact.map_err(|it| away(format!("its version is gone ({})", it.code())))?;
    let version = plugin.version(it.version).map_or(0, |it| it.version);
    match artifact.hooks().ingest {
        true => Ok((artifact, version)),
        false => Err(away(format!("version {version} has no `ingest` hook: activate another"))),
    }
}

/// Waits for whoever tries a plugin that has failed, but not for one that rests.
async fn admitted(gateway: &Gateway, subject: &Subject) -> Result<(), Silent> {
    let patience = Instant::now() + PATIENCE;
    loop {
        let now = Instant::now();
        let Gate::ShutUntil(until) = gateway.plugins.breakers().admit(subject, now) else {
            return Ok(());
        };
        if until - now > PROBE_WAIT || until > patience {
            let rest = (until - now).as_secs_f64().ceil();
            let detail = format!("failed again and again, and rests for {rest} s");
            let code = FaultKind::Suspended.name();
            return Err(Silent::Away { code, detail, again: until - now });
        }
        tokio::time::sleep_until(until).await;
    }
}

fn question(gateway: &Gateway, event: &NewEvent) -> Incoming {
    let at = event.timestamp.unwrap_or_else(|| gateway.clock.now());
    Incoming {
        id: event.id.as_ref().map(ToString::to_string),
        event_type: event.event_type.to_string(),
        timestamp_ms: at.0,
        metadata: event.metadata.clone().into_iter().collect(),
        ordering_key: event.ordering_key.clone(),
        payload: event.data.clone(),
    }
}

/// What a call came to. What a plugin puts in an event's place has to pass as if a producer had
/// sent it; else the plugin has failed.
fn judged(
    gateway: &Gateway,
    event: &NewEvent,
    called: Called<Ingested>,
) -> (Called<Ingested>, Result<Said, Fault>) {
    let said = match &called.verdict {
        Ok(Ingested::Accept) => Ok(Said::Accept),
        Ok(Ingested::Reject(reason)) => Ok(Said::Reject(reason.clone())),
        Ok(Ingested::Replace(made)) => {
            let made = replaced(gateway, event, made).map(|it| Said::Replace(Box::new(it)));
            made.map_err(|detail| Fault { kind: FaultKind::OutputInvalid, detail })
        }
        Err(fault) => Err(fault.clone()),
    };
    match &said {
        Err(fault) if called.verdict.is_ok() => {
            let Called { logs, duration, fuel, .. } = called;
            let failed = Called::fault(fault.kind, fault.detail.clone());
            (Called { logs, duration, fuel, ..failed }, said)
        }
        _ => (called, said),
    }
}

/// The event with what a plugin made of it.
fn replaced(
    gateway: &Gateway,
    event: &NewEvent,
    made: &Replacement,
) -> std::result::Result<NewEvent, String> {
    let event_type = EventType::choose(&made.event_type).ok_or_else(|| {
        format!("`{}` is no event type of a producer: {}", made.event_type, event_body::TYPE_FORM)
    })?;
    let metadata = made.metadata.iter().cloned().collect();
    if !event_body::fits(&metadata, made.ordering_key.as_deref()) {
        return Err("its metadata or ordering key is too long".to_owned());
    }
    let checked = event_body::check_data(&made.payload, 0, gateway.limits.data_bytes_max);
    checked.map_err(Problem::into_detail)?;
    let mut event = event.clone();
    (event.event_type, event.metadata) = (event_type, metadata);
    (event.ordering_key, event.data) = (made.ordering_key.clone(), made.payload.clone());
    Ok(event)
}

/// Gives up for a while what fails for every event, and tells who asked to be told.
async fn follow(
    gateway: &Gateway,
    access: &Access,
    subject: &Subject,
    (fault, digest): (Option<&Fault>, Digest),
) {
    let breakers = gateway.plugins.breakers();
    let change = breakers.note(subject, fault.is_some(), Instant::now());
    let event_type = match change {
        Change::None => return,
        Change::Opened(_) => "hookgate.plugin.failing",
        Change::Closed => "hookgate.plugin.recovered",
    };
    let (_, plugin, version, _) = subject;
    let mut data = json!({
        "plugin": plugin.as_str(),
        "version": version,
        "sha256": digest.to_string(),
        "hook": "ingest",
    });
    if let (Change::Opened(in_row), Some(fault)) = (change, fault) {
        data["failures"] = in_row.into();
        data["error"] = json!({ "code": fault.kind.name(), "detail": fault.detail });
        let rest = breakers.standing(subject, Instant::now()).reopens_in;
        data["paused_seconds"] = rest.map(|it| it.as_secs_f64().ceil()).into();
    }
    // What kind of fault it is. The plugin's own words may hold what the event says.
    let error = data["error"]["code"].as_str();
    tracing::warn!(tenant = %access.slug, %plugin, version, error, "{event_type}");
    access.shard.raise(&access.slug, event_type, &data).await;
}
