use std::fmt::Display;

use axum::{
    body::Body,
    extract::{Extension, Request, State},
};
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::{Serialize, Serializer};
use serde_json::{json, value::RawValue};
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::api::caller::{Access, Need};
use crate::api::gateway::{Gateway, Limits};
use crate::api::incoming_trace::{self, Taking};
use crate::api::page::json_response;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::route::{Route, post};
use crate::api::router::RequestId;
use crate::api::{body, cloud_event, event_body, examine, hops, ndjson};
use crate::domain::{Budget, EventType, RateLimit, Scope, Timestamp, TraceContext};
use crate::storage::{Appended, NewEvent};
use crate::telemetry::{EVENT_SIZE, EVENTS_ACCEPTED, EVENTS_REJECTED};

const IDEMPOTENCY_KEY: &str = "idempotency-key";

const EVENTS: &str = "/v1/tenants/{tenant}/events";

pub(super) fn routes() -> Vec<Route> {
    vec![
        post(EVENTS, Need::Scope(Scope::Produce), accept, ("acceptEvents", "Takes events in."))
            .header("Idempotency-Key")
            .takes("EventsIn")
            .header("Content-Encoding")
            .header("Webhook-Hops")
            .takes_as("application/x-ndjson", "EventLines")
            .takes_as("application/cloudevents+json", "CloudEvent")
            .takes_as("application/cloudevents-batch+json", "CloudEvents")
            .compressible()
            .gives(202, "Accepted")
            .gives(200, "Accepted")
            .gives_as(200, "application/x-ndjson", "AcceptedLines")
            .refuses(400, "invalid_idempotency_key")
            .refuses(409, "id_conflict")
            .refuses(422, "invalid_event_type")
            .refuses(422, "invalid_cloudevent")
            .refuses(422, "json_limits")
            .refuses(422, "schema_violation")
            .refuses(422, "event_rejected")
            .refuses(429, "quota_exceeded")
            .refuses(503, "unavailable")
            .refuses(503, "plugin_suspended")
            .refuses(503, "plugin_overloaded")
            .refuses(503, "plugin_error")
            .refuses(508, "loop_detected"),
    ]
}

/// Whether it is the operation that takes events in.
pub(super) fn is_route(route: &Route) -> bool {
    route.path == EVENTS && route.method == Method::POST
}

/// The tenant whose events' path this is, where it is spelled plainly.
pub(super) fn tenant_in(path: &str) -> Option<&str> {
    let tenant = path.strip_prefix("/v1/tenants/")?.strip_suffix("/events")?;
    let plain = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_');
    tenant.as_bytes().iter().all(plain).then_some(tenant).filter(|it| !it.is_empty())
}

/// What became of an event.
#[derive(Serialize)]
struct Answer<'a> {
    id: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(serialize_with = "as_text")]
    timestamp: Timestamp,
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<FieldError>,
}

async fn accept(
    State(gateway): State<Gateway>,
    Extension(name): Extension<RequestId>,
    access: Access,
    request: Request,
) -> Result {
    take_in(gateway, name, access, request).await
}

/// Takes in what a request of this name brings for the tenant.
///
/// Not `async` as a whole, since it would keep the request twice.
pub(super) fn take_in(
    gateway: Gateway,
    name: RequestId,
    access: Access,
    request: Request,
) -> impl Future<Output = Result> + Send {
    // Whole, since headers alone would be a copy.
    let (head, body) = request.into_parts();
    let form = Form::of(&head.headers);
    let protocol = form.as_ref().map_or("json", |it| it.protocol());
    async move {
        let outcome = match form {
            Ok(form) => take_in_any(gateway, access, (name, &head.headers, form), body).await,
            Err(problem) => Err(problem),
        };
        outcome.inspect_err(|it| EVENTS_REJECTED.count(1, &[protocol, it.code()]))
    }
}

/// Counts a request with events that the door refuses: who may not come in is refused events too.
pub(super) fn count_refused(headers: &HeaderMap, code: &'static str) {
    let protocol = Form::of(headers).map_or("json", Form::protocol);
    EVENTS_REJECTED.count(1, &[protocol, code]);
}

async fn take_in_any(
    gateway: Gateway,
    access: Access,
    (request, headers, form): (RequestId, &HeaderMap, Form),
    body: Body,
) -> Result {
    gateway.ready()?;
    let hops = hops::of(&gateway, &access, headers)?;
    if form == Form::Lines {
        let said = ndjson::Said {
            request,
            trace: incoming_trace::of(headers),
            hops,
            idempotency_key: idempotency_key(headers)?,
        };
        return Ok(ndjson::accept(gateway, access, said, body));
    }
    let limits = &gateway.limits;
    let max = limits.batch_bytes_max;
    let bytes = body::read_large(headers, body, max, &gateway.limits.bodies).await?;
    let many = match form {
        Form::Json => bytes.iter().find(|it| !it.is_ascii_whitespace()) == Some(&b'['),
        form => form == Form::Batch,
    };
    let key = idempotency_key(headers)?;
    let mut events = match form {
        Form::Binary => vec![cloud_event::binary(headers, bytes, limits.data_bytes_max)?],
        Form::Structured => {
            vec![cloud_event::structured(&bytes, &bytes, "", limits.data_bytes_max)?]
        }
        Form::Batch => read_many(&bytes, limits, cloud_event::structured)?,
        Form::Json if many => read_many(&bytes, limits, event_body::read)?,
        Form::Json | Form::Lines => {
            vec![event_body::read(&bytes, &bytes, "", limits.data_bytes_max)?]
        }
    };
    for event in &mut events {
        event.hops = hops;
    }
    if let Some(key) = key {
        for (place, event) in events.iter_mut().enumerate() {
            event.idempotency_key = Some(name_within(&key, place));
        }
        if many {
            NewEvent::seal_together(&mut events);
        }
    }
    gateway.meter(&access, events.len())?;
    let mut events = examine::all(&gateway, &access, events, many).await?;
    let warnings = check_types(&access, &events, many).await?;
    let taking = Taking::begin(incoming_trace::of(headers), &mut events);
    let facts: SmallVec<[_; 1]> = events.iter().map(Facts::of).collect();
    let appended = access.shard.append(&access.slug, events, true).await?;
    taking.end(&access, &appended);
    for (appended, facts) in appended.iter().zip(&facts) {
        count_new(&access, (form.protocol(), &request), appended, facts);
    }
    answer(&facts, &appended, warnings, many)
}

/// How a request carries its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Lines,
    Structured,
    Batch,
    Binary,
}

/// What is told of an event that is stored.
pub(super) struct Facts {
    event_type: EventType,
    bytes: usize,
    trace: Option<TraceContext>,
}

impl Facts {
    pub(super) fn of(event: &NewEvent) -> Self {
        let event_type = event.event_type.clone();
        Self { event_type, bytes: event.data.len(), trace: event.trace }
    }
}

/// Counts an event that is stored now, and which a request brought by this protocol.
pub(super) fn count_new(
    access: &Access,
    (protocol, request): (&'static str, &RequestId),
    appended: &Appended,
    facts: &Facts,
) {
    if let Appended::New { id, .. } = appended {
        tracing::debug!(
            tenant = access.slug.as_str(),
            request_id = request.as_str(),
            event_id = id.as_str(),
            trace_id = facts.trace.map(|it| it.trace_id()),
            bytes = facts.bytes,
            "an event was accepted"
        );
        EVENTS_ACCEPTED.count_for(&[protocol], access.slug.as_str(), None);
        EVENT_SIZE.observe(facts.bytes as f64, &[]);
    }
}

impl Form {
    /// Its name among the metrics.
    fn protocol(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Lines => "ndjson",
            Self::Structured | Self::Batch | Self::Binary => "cloudevents",
        }
    }

    fn of(headers: &HeaderMap) -> Result<Self> {
        let binary = headers.keys().any(|it| it.as_str().starts_with("ce-"));
        let typed = [
            ("application/x-ndjson", Self::Lines),
            ("application/cloudevents+json", Self::Structured),
            ("application/cloudevents-batch+json", Self::Batch),
        ];
        let typed = typed.into_iter().find(|(it, _)| body::is_type(headers, it));
        match typed {
            Some((_, form)) => Ok(form),
            None if binary => Ok(Self::Binary),
            None if body::is_type(headers, "application/json") => Ok(Self::Json),
            None => Err(body::unsupported(
                "application/json, application/x-ndjson, application/cloudevents+json or \
                 application/cloudevents-batch+json",
            )),
        }
    }
}

/// What schemas warn of, for each event up to the last that has a warning. A schema that is strict
/// refuses.
async fn check_types(
    access: &Access,
    events: &[NewEvent],
    many: bool,
) -> Result<Vec<Vec<FieldError>>> {
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    let mut budget = Budget::of_request();
    for (place, event) in events.iter().enumerate() {
        let base = if many { format!("/{place}") } else { String::new() };
        let opinion = access.opinion(event, &base, &mut budget).await;
        if budget.is_dented() {
            tokio::task::yield_now().await;
        }
        errors.extend(opinion.errors);
        if !opinion.warnings.is_empty() {
            warnings.resize_with(place, Vec::new);
            warnings.push(opinion.warnings);
        }
    }
    if errors.is_empty() { Ok(warnings) } else { Err(Problem::fields("schema_violation", errors)) }
}

fn answer(
    facts: &[Facts],
    appended: &[Appended],
    warnings: Vec<Vec<FieldError>>,
    many: bool,
) -> Result {
    let mut answers = SmallVec::<[_; 1]>::with_capacity(appended.len());
    let mut new = 0;
    // Where none has any, there is no list of them.
    let warnings = warnings.into_iter().chain(std::iter::repeat_with(Vec::new));
    for ((facts, appended), warnings) in facts.iter().zip(appended).zip(warnings) {
        let (id, timestamp, status) = match appended {
            Appended::New { id, timestamp, .. } => {
                new += 1;
                (id, timestamp, "accepted")
            }
            Appended::Duplicate { id, timestamp } => (id, timestamp, "duplicate"),
            Appended::Conflict => {
                let detail = "another event has this id or idempotency key; nothing was stored";
                return Err(Problem::conflict("id_conflict", detail));
            }
            // A conflict follows, which is what to tell.
            Appended::NotStored => continue,
        };
        let (id, event_type) = (id.as_str(), facts.event_type.as_str());
        answers.push(Answer { id, event_type, timestamp: *timestamp, status, warnings });
    }
    let status =
        if new == 0 && !answers.is_empty() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(match (many, answers.first()) {
        (false, Some(answer)) => json_response(status, answer),
        _ => json_response(status, &json!({ "events": &*answers })),
    })
}

/// Writes what shows itself as a text, which has no string of its own for that.
fn as_text<S>(it: &impl Display, serializer: S) -> std::result::Result<S::Ok, S::Error>
where
    S: Serializer,
{
    serializer.collect_str(it)
}

/// Reads one event out of a body: the whole, the event's part of it, its pointer, and how much
/// data it may have.
type Read = fn(&Bytes, &[u8], &str, usize) -> Result<NewEvent>;

fn read_many(bytes: &Bytes, limits: &Limits, read: Read) -> Result<Vec<NewEvent>> {
    let texts: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|error| {
        let detail = "must be an array of events".to_owned();
        match error.is_data() {
            true => Problem::invalid_fields(vec![FieldError { pointer: String::new(), detail }]),
            false => body::invalid_json(&error, bytes),
        }
    })?;
    if texts.len() > limits.batch_events_max {
        let detail = format!("{} events; at most {} at once", texts.len(), limits.batch_events_max);
        return Err(Problem::too_large(detail));
    }
    let (mut events, mut errors) = (Vec::with_capacity(texts.len()), Vec::new());
    let mut codes = Vec::new();
    for (place, text) in texts.into_iter().enumerate() {
        let base = format!("/{place}");
        match read(bytes, text.get().as_bytes(), &base, limits.data_bytes_max) {
            Ok(event) => events.push(event),
            Err(problem) => {
                codes.push(problem.code_among());
                errors.extend(problem.into_errors(&base)?);
            }
        }
    }
    codes.dedup();
    match codes[..] {
        [] => Ok(events),
        // What is wrong with all of them is what is wrong with each.
        [code] => Err(Problem::fields(code, errors)),
        _ => Err(Problem::invalid_fields(errors)),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    // Quoted, as a structured field writes it, or bare.
    let text = text.strip_prefix('"').map_or(Some(text), |it| it.strip_suffix('"'));
    let text = text.unwrap_or_default();
    let fits = (1..=255).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_graphic());
    let detail = "an Idempotency-Key is 1 to 255 visible ASCII characters";
    let invalid = || Problem::bad_request("invalid_idempotency_key", detail);
    fits.then(|| Some(text.to_owned())).ok_or_else(invalid)
}

/// The key names the request; each event of it has a name of its own. No key has a blank in it.
pub(super) fn name_within(key: &str, place: usize) -> String {
    format!("{key} {place}")
}

impl Gateway {
    /// Whether the tenant may bring so many events now.
    pub(super) fn meter(&self, access: &Access, count: usize) -> Result<()> {
        let quota = access.shard.catalog().tenant(&access.slug).map(|it| it.tenant.quota);
        let Some(quota) = quota else { return Ok(()) };
        if let Some(max) = quota.backlog_max
            && access.shard.tenant_backlog(&access.slug) >= max
        {
            let detail = format!("{max} deliveries wait already, which is the tenant's limit");
            return Err(Problem::quota(detail));
        }
        let Some(per_second) = quota.events_per_second else { return Ok(()) };
        let burst = quota.burst.unwrap_or(per_second.ceil().max(1.0) as u32);
        let limit = RateLimit { per_second, burst };
        let owner = format!("tenant {}/{}", access.shard.number(), access.no.0);
        let taken = self.pace.take(&owner, limit, count, Instant::now());
        taken.map_err(|it| Problem::too_fast("events of this tenant", &it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_path_of_events_names_its_tenant() {
        assert_eq!(tenant_in(&EVENTS.replace("{tenant}", "acme-2")), Some("acme-2"));
        let others = [
            "/v1/tenants//events",
            "/v1/tenants/acme/events/",
            "/v1/tenants/acme/events/evt_1",
            "/v1/tenants/a%20b/events",
            "/v1/tenants/a/b/events",
            "/v1/tenants/events",
            "/v1/events",
        ];
        for path in others {
            assert_eq!(tenant_in(path), None, "{path}");
        }
    }
}
