use axum::{
    Router,
    body::Body,
    extract::{Path, State},
    routing::post,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::{json, value::RawValue};

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{Problem, Result};
use crate::api::{body, event_body, events_out, ingest, ndjson};
use crate::domain::{EventId, EventType, Scope, Timestamp};
use crate::storage::{Appended, NewEvent};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

pub(super) fn routes() -> Router<Gateway> {
    Router::new().route("/v1/tenants/{tenant}/events", post(accept).get(events_out::list))
}

/// What became of an event.
#[derive(Serialize)]
pub(super) struct Answer {
    id: String,
    #[serde(rename = "type")]
    event_type: String,
    timestamp: String,
    status: &'static str,
}

impl Answer {
    fn new(id: &EventId, event_type: &EventType, at: Timestamp, status: &'static str) -> Self {
        let (id, event_type) = (id.to_string(), event_type.to_string());
        Self { id, event_type, timestamp: at.to_string(), status }
    }
}

async fn accept(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let outcome = accept_any(gateway, &slug, &headers, body).await;
    outcome.inspect_err(|it| {
        metrics::counter!("hookgate_events_rejected_total", "reason" => it.code()).increment(1);
    })
}

async fn accept_any(gateway: Gateway, slug: &str, headers: &HeaderMap, body: Body) -> Result {
    let access = gateway.tenant(headers, slug, Scope::Produce)?;
    gateway.ready()?;
    if body::is_type(headers, "application/x-ndjson") {
        return Ok(ndjson::accept(gateway, access, body));
    }
    if !body::is_type(headers, "application/json") {
        return Err(body::unsupported("application/json or application/x-ndjson"));
    }
    let limits = &gateway.limits;
    let bytes = body::read(headers, body, limits.batch_bytes_max).await?;
    let many = bytes.iter().find(|it| !it.is_ascii_whitespace()) == Some(&b'[');
    let key = idempotency_key(headers)?;
    let mut events = match many {
        true => read_many(&bytes, limits.batch_events_max, limits.data_bytes_max)?,
        false => vec![event_body::read(&bytes, &bytes, "", limits.data_bytes_max)?],
    };
    if let Some(key) = key {
        for (place, event) in events.iter_mut().enumerate() {
            // The key names the request; each event of it has a name of its own.
            event.idempotency_key = Some(if many { format!("{key}#{place}") } else { key.clone() });
        }
    }
    let events = ingested(&gateway, &access, events, many).await?;
    let types: Vec<_> = events.iter().map(|it| it.event_type.clone()).collect();
    let appended = access.shard.append(&access.slug, events, true).await?;
    answer(&types, &appended, many)
}

/// What the tenant's ingest chain leaves of events, all or none.
async fn ingested(
    gateway: &Gateway,
    access: &Access,
    events: Vec<NewEvent>,
    many: bool,
) -> Result<Vec<NewEvent>> {
    let (mut taken, mut errors) = (Vec::with_capacity(events.len()), Vec::new());
    for (place, event) in ingest::run(gateway, access, events).await.into_iter().enumerate() {
        let base = if many { format!("/{place}") } else { String::new() };
        match event.map_err(|it| it.at(&base)) {
            Ok(event) => taken.push(event),
            Err(problem) if problem.code() == ingest::REJECTED => {
                errors.extend(problem.into_errors(&base)?);
            }
            Err(problem) => return Err(problem),
        }
    }
    if errors.is_empty() { Ok(taken) } else { Err(Problem::fields(ingest::REJECTED, errors)) }
}

fn answer(types: &[EventType], appended: &[Appended], many: bool) -> Result {
    let mut answers = Vec::with_capacity(appended.len());
    let mut new = 0;
    for (event_type, appended) in types.iter().zip(appended) {
        match appended {
            Appended::New { id, timestamp, .. } => {
                new += 1;
                answers.push(Answer::new(id, event_type, *timestamp, "accepted"));
            }
            Appended::Duplicate { id, timestamp } => {
                answers.push(Answer::new(id, event_type, *timestamp, "duplicate"));
            }
            Appended::Conflict => {
                let detail = "another event has this id or idempotency key; nothing was stored";
                return Err(Problem::conflict("id_conflict", detail));
            }
            // A conflict follows, which is what to tell.
            Appended::NotStored => {}
        }
    }
    metrics::counter!("hookgate_events_accepted_total").increment(new);
    let status =
        if new == 0 && !answers.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(match (many, answers.first()) {
        (false, Some(answer)) => json_response(status, answer),
        _ => json_response(status, &json!({ "events": answers })),
    })
}

fn read_many(bytes: &Bytes, events_max: usize, data_bytes_max: usize) -> Result<Vec<NewEvent>> {
    let texts: Vec<&RawValue> = body::parse(bytes)?;
    if texts.len() > events_max {
        let detail = format!("{} events; at most {events_max} at once", texts.len());
        return Err(Problem::too_large(detail));
    }
    let (mut events, mut errors) = (Vec::with_capacity(texts.len()), Vec::new());
    for (place, text) in texts.into_iter().enumerate() {
        match event_body::read(bytes, text.get().as_bytes(), &format!("/{place}"), data_bytes_max) {
            Ok(mut event) => {
                // On its own, so that one event does not keep the whole body in memory.
                event.data = Bytes::copy_from_slice(&event.data);
                events.push(event);
            }
            Err(problem) => errors.extend(problem.into_errors(&format!("/{place}"))?),
        }
    }
    if errors.is_empty() { Ok(events) } else { Err(Problem::invalid_fields(errors)) }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    let detail = "an Idempotency-Key is 1 to 255 visible ASCII characters";
    let invalid = || Problem::bad_request("invalid_idempotency_key", detail);
    fits.then(|| Some(text.to_owned())).ok_or_else(invalid)
}

impl Gateway {
    /// Whether events can be taken.
    pub(super) fn ready(&self) -> Result<()> {
        let reason = *self.unready.borrow();
        match reason {
            Some(reason) => Err(Problem::unavailable("unavailable", reason)),
            None if !self.store.is_well() => {
                Err(Problem::unavailable("storage_unavailable", "the store has failed"))
            }
            None => Ok(()),
        }
    }
}
