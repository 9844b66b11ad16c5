use axum::{
    Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::{get, post},
};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

use crate::api::caller::Access;
use crate::api::events_out::parse_pattern;
use crate::api::gateway::Gateway;
use crate::api::page::{EXAMINED_MAX, Query, cursor, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::wire;
use crate::domain::{
    DeliveryKey, DeliveryState, EndpointNo, Event, Pattern, Scope, Seq, Timestamp, Trigger,
    delivery_id,
};
use crate::storage::Entry;

pub(super) fn routes() -> Router<Gateway> {
    let base = "/v1/tenants/{tenant}/deliveries";
    Router::new()
        .route(base, get(list))
        .route(&format!("{base}/{{id}}"), get(read))
        .route(&format!("{base}/{{id}}/attempts"), get(attempts))
        .route(&format!("{base}/{{id}}/retry"), post(retry))
        .route("/v1/tenants/{tenant}/endpoints/{id}/attempts", get(endpoint_attempts))
}

/// What a list of deliveries is narrowed by.
struct Narrowing {
    endpoint: Option<EndpointNo>,
    status: Option<String>,
    event_type: Option<Pattern>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Narrowing {
    fn read(query: &Query, access: &Access) -> Result<Self> {
        let endpoint = query.get("endpoint").map(|it| access.endpoint(it)).transpose()?;
        let status = query.get("status").map(str::to_owned);
        if status.as_ref().is_some_and(|it| !DeliveryState::NAMES.contains(&it.as_str())) {
            let detail = format!("`status` must be one of {}", DeliveryState::NAMES.join(", "));
            return Err(Problem::bad_request("invalid_parameter", detail));
        }
        Ok(Self {
            endpoint: endpoint.map(|it| it.no),
            status,
            event_type: query.get("type").map(parse_pattern).transpose()?,
            since: query.time("since")?,
            until: query.time("until")?,
        })
    }

    fn fits(&self, event: &Event) -> bool {
        self.event_type.as_ref().is_none_or(|it| it.matches(&event.event_type))
            && self.until.is_none_or(|it| event.accepted_at < it)
    }
}

async fn list(
    State(gateway): State<Gateway>,
    Path(slug): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let query = Query::parse(&uri, &["endpoint", "status", "type", "since", "until"])?;
    let narrowing = Narrowing::read(&query, &access)?;
    let [before_seq, before_endpoint] = query.cursor("dl")?.unwrap_or([u64::MAX, 0]);
    let limit = query.limit()?;
    let mut data: Vec<Value> = Vec::new();
    for (examined, key) in keys_before(&access, &narrowing, Seq(before_seq)).enumerate() {
        let key = key?;
        // The cursor names the first delivery that is still to come.
        if key.seq.0 + 1 == before_seq && u64::from(key.endpoint.0) < before_endpoint {
            continue;
        }
        if data.len() == limit || examined >= EXAMINED_MAX {
            let next = cursor("dl", &[key.seq.0 + 1, key.endpoint.0.into()]);
            return Ok(page(&data, Some(next)));
        }
        let Some(event) = access.shard.event(key.seq)? else { continue };
        if narrowing.since.is_some_and(|it| event.accepted_at < it) {
            break;
        }
        let wanted =
            |state: &DeliveryState| narrowing.status.as_ref().is_none_or(|it| it == state.name());
        if narrowing.fits(&event) && wanted(&access.shard.state(key)?) {
            data.push(wire::delivery(&access.shard, key, &event)?);
        }
    }
    Ok(page(&data, None))
}

/// The deliveries to look at, newest event first, endpoints of one event in order.
fn keys_before<'a>(
    access: &'a Access,
    narrowing: &Narrowing,
    before: Seq,
) -> Box<dyn Iterator<Item = crate::storage::Result<DeliveryKey>> + 'a> {
    if let Some(endpoint) = narrowing.endpoint {
        return Box::new(access.shard.deliveries_before(endpoint, before));
    }
    let events = access.shard.events_before(access.no, before);
    Box::new(events.flat_map(|event| {
        let keys = event.and_then(|event| {
            let mut endpoints = access.shard.targets(event.seq)?;
            endpoints.sort_unstable();
            let key = |endpoint| Ok(DeliveryKey { seq: event.seq, endpoint });
            Ok(endpoints.into_iter().map(key).collect::<Vec<_>>())
        });
        keys.unwrap_or_else(|error| vec![Err(error)])
    }))
}

impl Access {
    /// A delivery of the tenant, with its event.
    pub(super) fn delivery(&self, id: &str) -> Result<(DeliveryKey, std::sync::Arc<Event>)> {
        let missing = || Problem::not_found("delivery_not_found");
        let key = DeliveryKey::parse(id).ok_or_else(missing)?;
        let event = self.shard.event(key.seq)?.filter(|it| it.tenant_no == self.no);
        let event =
            event.filter(|it| delivery_id(key, it.accepted_at) == id).ok_or_else(missing)?;
        let known = self.shard.targets(key.seq)?.contains(&key.endpoint);
        known.then_some((key, event)).ok_or_else(missing)
    }
}

async fn read(
    State(gateway): State<Gateway>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let (key, event) = access.delivery(&id)?;
    Ok(json_response(StatusCode::OK, &wire::delivery(&access.shard, key, &event)?))
}

async fn attempts(
    State(gateway): State<Gateway>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let (key, event) = access.delivery(&id)?;
    let mut data: Vec<_> = attempts_of(&access, key, &event)?;
    data.reverse();
    Ok(page(&data, None))
}

fn attempts_of(access: &Access, key: DeliveryKey, event: &Event) -> Result<Vec<Value>> {
    let history = access.shard.history(key)?;
    let attempts = history.iter().filter_map(|it| match it {
        Entry::Attempt(attempt) => Some(wire::attempt(&access.shard, attempt, event)),
        _ => None,
    });
    Ok(attempts.collect())
}

async fn endpoint_attempts(
    State(gateway): State<Gateway>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
    uri: Uri,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Read)?;
    let endpoint = access.endpoint(&id)?;
    let query = Query::parse(&uri, &[])?;
    let (limit, [before]) = (query.limit()?, query.cursor("at")?.unwrap_or([u64::MAX]));
    let mut data = Vec::new();
    for (examined, key) in access.shard.deliveries_before(endpoint.no, Seq(before)).enumerate() {
        let key = key?;
        if data.len() >= limit || examined == EXAMINED_MAX {
            return Ok(page(&data, Some(cursor("at", &[key.seq.0 + 1]))));
        }
        let Some(event) = access.shard.event(key.seq)? else { continue };
        data.extend(attempts_of(&access, key, &event)?.into_iter().rev());
    }
    Ok(page(&data, None))
}

async fn retry(
    State(gateway): State<Gateway>,
    Path((slug, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result {
    let access = gateway.tenant(&headers, &slug, Scope::Manage)?;
    let (key, event) = access.delivery(&id)?;
    if access.shard.catalog().endpoint(key.endpoint).is_none() {
        return Err(Problem::conflict("endpoint_deleted", "its endpoint was deleted"));
    }
    access.shard.requeue(access.no, key, Trigger::Manual).await?;
    let rendered = wire::delivery(&access.shard, key, &event)?;
    Ok(json_response(StatusCode::ACCEPTED, &rendered).into_response())
}
