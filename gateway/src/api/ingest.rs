//! A tenant's ingest chain: plugins that see each event once, before it is stored.

use std::sync::Arc;

use axum::{body::Body, extract::State};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::caller::{Access, Need};
use crate::api::endpoint_body::{name_of, one_of};
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, get, put};
use crate::api::{body, event_body, invoke};
use crate::domain::{EventType, IngestUse, OnIngestError, PluginName, Scope};
use crate::plugins::{
    Change, Configure, Digest, Fault, FaultKind, Gate, Incoming, Ingested, Noted, Replacement,
    Subject,
};
use crate::storage::NewEvent;

/// The code of an event that the chain does not take.
pub(super) const REJECTED: &str = "event_rejected";
const PLUGINS_MAX: usize = 8;
/// Events of a request that are in the chain at once.
const EVENTS_AT_ONCE: usize = 16;

const INGEST: &str = "/v1/tenants/{tenant}/ingest";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(INGEST, Need::Scope(Scope::Read), read, ("getIngest", "The tenant's ingest chain."))
            .gives(200, "Ingest"),
        put(
            INGEST,
            Need::Scope(Scope::Manage),
            put_chain,
            ("putIngest", "Sets the plugins that see each event before it is stored."),
        )
        .takes("IngestPut")
        .gives(200, "Ingest")
        .refuses(404, "plugin_not_found")
        .refuses(422, "plugin_no_hook")
        .refuses(422, "plugin_config_refused"),
    ]
}

async fn read(access: Access) -> Result {
    Ok(json_response(StatusCode::OK, &render(&access.shard.ingest(&access.slug))))
}

async fn put_chain(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let mut fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let values = fields.array("plugins");
    let values = fields.need("plugins", values).unwrap_or_default();
    if values.len() > PLUGINS_MAX {
        fields.refuse("plugins", format!("at most {PLUGINS_MAX}"));
    }
    let mut chain = Vec::new();
    for (place, value) in values.into_iter().enumerate() {
        match read_use(&access, value, &format!("/plugins/{place}")) {
            Ok(it) => chain.extend(it),
            Err(errors) => fields.refuse_all(errors),
        }
    }
    fields.finish().map_err(Problem::invalid_fields)?;
    check(&gateway, &access, &chain).await?;
    let stored = access.shard.put_ingest(&access.slug, &chain).await;
    stored.map_err(|it| Problem::named(it, "plugin_not_found"))?;
    Ok(json_response(StatusCode::OK, &render(&chain)))
}

fn read_use(
    access: &Access,
    value: Value,
    base: &str,
) -> Result<Option<IngestUse>, Vec<FieldError>> {
    let mut fields = Fields::of(value, base)?;
    let name = fields.parsed("plugin", "a plugin's name", PluginName::parse);
    let name = fields.need("plugin", name);
    let version = fields.whole("version", 1, u32::MAX);
    let config = fields.strings("config").unwrap_or_default();
    let on_error = one_of(&mut fields, "on_error", &OnIngestError::NAMES);
    if let Some(name) = &name {
        match access.shard.plugin(&access.slug, name) {
            None => {
                fields.refuse("plugin", format!("there is no plugin `{name}`; upload it first"));
            }
            Some(plugin) if plugin.version(version).is_none() => {
                fields.refuse("version", format!("`{name}` has no such version"));
            }
            Some(_) => {}
        }
    }
    fields.finish()?;
    Ok(name.map(|plugin| IngestUse { plugin, version, config, on_error }))
}

/// Asks each plugin whether it ingests and takes its configuration.
async fn check(gateway: &Gateway, access: &Access, chain: &[IngestUse]) -> Result<()> {
    let (mut errors, mut code) = (Vec::new(), "plugin_config_refused");
    for (place, it) in chain.iter().enumerate() {
        let Some(plugin) = access.shard.plugin(&access.slug, &it.plugin) else { continue };
        let artifact = invoke::artifact(gateway, access, &plugin, it.version).await?;
        if !artifact.hooks().ingest {
            code = "plugin_no_hook";
            let pointer = format!("/plugins/{place}/plugin");
            errors.push(FieldError { pointer, detail: "has no `ingest` hook".to_owned() });
            continue;
        }
        let called = invoke::call(gateway, access, artifact, &it.config, Configure).await;
        if let Err(fault) = called.verdict {
            let pointer = format!("/plugins/{place}/config");
            errors.push(FieldError { pointer, detail: fault.detail });
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::fields(code, errors)) }
}

fn render(chain: &[IngestUse]) -> Value {
    let one = |it: &IngestUse| {
        json!({
            "plugin": it.plugin.as_str(),
            "version": it.version,
            "config": it.config,
            "on_error": name_of(&OnIngestError::NAMES, it.on_error),
        })
    };
    json!({ "plugins": chain.iter().map(one).collect::<Vec<_>>() })
}

/// Sends events through their tenant's chain, each to what is stored of it or to why it is not.
pub(super) async fn run(
    gateway: &Gateway,
    access: &Access,
    events: Vec<NewEvent>,
) -> Vec<Result<NewEvent>> {
    let chain = access.shard.ingest(&access.slug);
    if chain.is_empty() {
        return events.into_iter().map(Ok).collect();
    }
    let one = |event| through(gateway, access, chain.clone(), event);
    stream::iter(events).map(one).buffered(EVENTS_AT_ONCE).collect().await
}

async fn through(
    gateway: &Gateway,
    access: &Access,
    chain: Arc<[IngestUse]>,
    mut event: NewEvent,
) -> Result<NewEvent> {
    // What tells a repeated event is what was published, not what became of it.
    event.seal();
    for it in chain.iter() {
        match ask(gateway, access, it, &event).await {
            Ok(Ingested::Accept) => {}
            Ok(Ingested::Reject(reason)) => {
                return Err(rejected(&format!("plugin {}: {reason}", it.plugin)));
            }
            Ok(Ingested::Replace(made)) => match replace(gateway, &mut event, made) {
                Ok(()) => {}
                Err(_) if it.on_error == OnIngestError::Pass => {}
                Err(detail) => {
                    return Err(rejected(&format!("plugin {} failed: {detail}", it.plugin)));
                }
            },
            Err(_) if it.on_error == OnIngestError::Pass => {}
            Err(fault) if fault.kind == FaultKind::Overloaded => {
                let detail = format!("plugin {} did not get to run: {}", it.plugin, fault.detail);
                return Err(Problem::unavailable(fault.kind.name(), detail));
            }
            Err(fault) => {
                return Err(rejected(&format!("plugin {} failed: {}", it.plugin, fault.detail)));
            }
        }
    }
    Ok(event)
}

fn rejected(detail: &str) -> Problem {
    let errors = vec![FieldError { pointer: String::new(), detail: detail.to_owned() }];
    Problem::fields(REJECTED, errors)
}

async fn ask(
    gateway: &Gateway,
    access: &Access,
    it: &IngestUse,
    event: &NewEvent,
) -> std::result::Result<Ingested, Fault> {
    let failed = |detail: &str| Fault { kind: FaultKind::Failed, detail: detail.to_owned() };
    let plugin = access.shard.plugin(&access.slug, &it.plugin);
    let plugin = plugin.ok_or_else(|| failed("there is no such plugin"))?;
    let artifact = invoke::artifact(gateway, access, &plugin, it.version).await;
    let artifact = artifact.map_err(|it| failed(it.code()))?;
    let at = event.timestamp.unwrap_or_else(|| gateway.clock.now());
    let question = Incoming {
        id: event.id.as_ref().map(ToString::to_string),
        event_type: event.event_type.to_string(),
        timestamp_ms: at.0,
        metadata: event.metadata.clone().into_iter().collect(),
        ordering_key: event.ordering_key.clone(),
        payload: event.data.clone(),
    };
    let id = question.id.clone().unwrap_or_default();
    let tenant = access.slug.shared();
    let version = plugin.version(it.version).map_or(0, |it| it.version);
    let breakers = gateway.plugins.breakers();
    let subject = (tenant.clone(), plugin.name.clone(), version, None);
    if let Gate::ShutUntil(until) = breakers.admit(&subject, Instant::now()) {
        let rest = (until - Instant::now()).as_secs_f64().ceil();
        return Err(failed(&format!("it failed again and again, and rests for {rest} s")));
    }
    let called = invoke::call(gateway, access, artifact.clone(), &it.config, question).await;
    let noted = Noted {
        tenant: &tenant,
        plugin: &plugin.name,
        version,
        digest: artifact.digest(),
        event_id: &id,
        at: gateway.clock.now(),
        canary: None,
    };
    gateway.plugins.diary().note(&noted, &called);
    follow(gateway, access, &subject, (&called.verdict, noted.digest)).await;
    called.verdict
}

/// Gives up for a while what fails for every event, and tells who asked to be told.
async fn follow(
    gateway: &Gateway,
    access: &Access,
    subject: &Subject,
    (verdict, digest): (&std::result::Result<Ingested, Fault>, Digest),
) {
    let breakers = gateway.plugins.breakers();
    let fault = verdict.as_ref().err();
    let change = match fault {
        // It did not get to run, which says nothing of it.
        Some(it) if it.kind == FaultKind::Overloaded => Change::None,
        fault => breakers.note(subject, fault.is_some(), Instant::now()),
    };
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
    tracing::warn!(tenant = %access.slug, %plugin, version, "{event_type}");
    access.shard.raise(&access.slug, event_type, &data).await;
}

/// Puts what a plugin made into an event, if it is one.
fn replace(
    gateway: &Gateway,
    event: &mut NewEvent,
    made: Replacement,
) -> std::result::Result<(), String> {
    let event_type = EventType::parse(&made.event_type);
    let event_type = event_type.ok_or_else(|| format!("`{}` is no event type", made.event_type))?;
    let metadata = made.metadata.into_iter().collect();
    if !event_body::fits(&metadata, made.ordering_key.as_deref()) {
        return Err("its metadata or ordering key is too long".to_owned());
    }
    if made.payload.len() > gateway.limits.data_bytes_max {
        return Err(format!("its data is over {} bytes", gateway.limits.data_bytes_max));
    }
    event.event_type = event_type;
    event.metadata = metadata;
    event.ordering_key = made.ordering_key;
    event.data = made.payload;
    Ok(())
}
