use axum::{body::Body, extract::Path, response::Response};
use http::{HeaderValue, header};
use serde_json::Value;

use crate::api::caller::{Access, Need};
use crate::api::page::{EXAMINED_MAX, Query, cursor, page};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, get};
use crate::api::wire;
use crate::domain::{DeliveryKey, Event, EventId, Pattern, Scope, Seq};

const EVENTS: &str = "/v1/tenants/{tenant}/events";
const EVENT: &str = "/v1/tenants/{tenant}/events/{id}";
const DELIVERIES: &str = "/v1/tenants/{tenant}/events/{id}/deliveries";

pub(super) fn routes() -> Vec<Route> {
    let read_ = Need::Scope(Scope::Read);
    vec![
        get(EVENTS, read_, list, ("listEvents", "Events, newest first."))
            .query(&["type", "since", "until"])
            .gives_page("Event"),
        get(EVENT, read_, read, ("getEvent", "One event, its data byte for byte."))
            .gives(200, "Event")
            .refuses(404, "event_not_found"),
        get(
            DELIVERIES,
            read_,
            deliveries,
            ("listEventDeliveries", "The event's deliveries, one for each endpoint."),
        )
        .gives_list("Delivery")
        .refuses(404, "event_not_found"),
    ]
}

async fn list(access: Access, query: Query) -> Result {
    let list = access.list("events");
    let (limit, [before]) = (query.limit()?, query.cursor(&list)?.unwrap_or([u64::MAX]));
    let wanted = query.get("type").map(parse_pattern).transpose()?;
    let (since, until) = (query.time("since")?, query.time("until")?);
    let mut data: Vec<Value> = Vec::new();
    let mut next = None;
    for (examined, event) in access.shard.events_before(access.no, Seq(before)).enumerate() {
        let event = event?;
        if data.len() == limit || examined == EXAMINED_MAX {
            next = Some(cursor(&list, &[event.seq.0 + 1]));
            break;
        }
        if since.is_some_and(|it| event.accepted_at < it) {
            break;
        }
        let fits = wanted.as_ref().is_none_or(|it| it.matches(&event.event_type))
            && until.is_none_or(|it| event.accepted_at < it);
        if fits {
            data.push(wire::event(&event, true));
        }
    }
    Ok(page(&data, next))
}

pub(super) fn parse_pattern(text: &str) -> Result<Pattern> {
    let detail = "`type` must be an event type or a pattern such as payment.*";
    Pattern::parse(text).ok_or_else(|| Problem::bad_request("invalid_parameter", detail))
}

impl Access {
    /// An event of the tenant.
    pub(super) fn event(&self, id: &str) -> Result<std::sync::Arc<Event>> {
        let missing = || Problem::not_found("event_not_found");
        let id = EventId::parse(id).ok_or_else(missing)?;
        self.shard.event_by_id(self.no, &id)?.ok_or_else(missing)
    }
}

async fn read(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let event = access.event(&id)?;
    let mut response = Response::new(Body::from(wire::event_exact(&event)));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

async fn deliveries(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let event = access.event(&id)?;
    let mut data = Vec::new();
    for endpoint in access.shard.receivers(event.seq)? {
        let key = DeliveryKey { seq: event.seq, endpoint };
        data.push(wire::delivery(&access.shard, key, &event)?);
    }
    Ok(page(&data, None))
}
