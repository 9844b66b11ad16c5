use axum::{body::Body, extract::Path, response::Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::api::caller::{Access, Need};
use crate::api::page::{EXAMINED_MAX, Query, cursor, json_response};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, get};
use crate::api::wire;
use crate::domain::{DeliveryKey, Event, EventId, Pattern, Scope, Seq, Timestamp};

const EVENTS: &str = "/v1/tenants/{tenant}/events";
const EVENT: &str = "/v1/tenants/{tenant}/events/{id}";
const DELIVERIES: &str = "/v1/tenants/{tenant}/events/{id}/deliveries";

/// Bytes of events behind which a page of them ends, perhaps short.
const PAGE_BYTES: usize = 8 * 1024 * 1024;

pub(super) fn routes() -> Vec<Route> {
    let read_ = Need::Scope(Scope::Read);
    vec![
        get(EVENTS, read_, list, ("listEvents", "Events, newest first, or oldest first."))
            .query(&["type", "since", "until", "order", "after"])
            .gives_page("Event")
            .refuses(404, "event_not_found"),
        get(EVENT, read_, read, ("getEvent", "One event, its data byte for byte."))
            .gives(200, "Event")
            .refuses(404, "event_not_found"),
        get(
            DELIVERIES,
            read_,
            deliveries,
            ("listEventDeliveries", "The event's deliveries, one for each endpoint."),
        )
        .gives_page("Delivery")
        .refuses(404, "event_not_found"),
    ]
}

/// Which events a list is about, and what of it is gathered.
struct Listing {
    wanted: Option<Pattern>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    limit: usize,
    data: Vec<Box<RawValue>>,
    bytes: usize,
}

/// A page whose data is as it was published, byte for byte.
#[derive(Serialize)]
struct Page {
    data: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

async fn list(access: Access, query: Query) -> Result {
    let listing = Listing {
        limit: query.limit()?,
        wanted: query.get("type").map(parse_pattern).transpose()?,
        since: query.time("since")?,
        until: query.time("until")?,
        data: Vec::new(),
        bytes: 0,
    };
    let oldest_first = match query.get("order") {
        None | Some("newest") => false,
        Some("oldest") => true,
        Some(_) => return Err(invalid("`order` must be newest or oldest")),
    };
    match (oldest_first, query.get("after")) {
        (true, after) => {
            let behind = after.map(|id| access.event(id)).transpose()?.map(|it| it.seq);
            oldest(&access, &query, listing, behind)
        }
        (false, None) => newest(&access, &query, listing),
        (false, Some(_)) => Err(invalid("`after` goes with order=oldest")),
    }
}

fn invalid(detail: &str) -> Problem {
    Problem::bad_request("invalid_parameter", detail)
}

impl Listing {
    fn is_full(&self) -> bool {
        self.data.len() == self.limit || self.bytes > PAGE_BYTES
    }

    fn take(&mut self, event: &Event) {
        let fits = self.wanted.as_ref().is_none_or(|it| it.matches(&event.event_type))
            && self.since.is_none_or(|it| it <= event.accepted_at)
            && self.until.is_none_or(|it| event.accepted_at < it);
        if fits {
            let rendered = RawValue::from_string(wire::event_exact(event));
            let rendered = rendered.expect("what is stored is JSON");
            self.bytes += rendered.get().len();
            self.data.push(rendered);
        }
    }

    fn answer(self, next_cursor: Option<String>) -> Result {
        Ok(json_response(StatusCode::OK, &Page { data: self.data, next_cursor }))
    }
}

fn newest(access: &Access, query: &Query, mut listing: Listing) -> Result {
    let list = access.list("events");
    let [before] = query.cursor(&list)?.unwrap_or([u64::MAX]);
    let mut next = None;
    for (examined, event) in access.shard.events_before(access.no, Seq(before)).enumerate() {
        let event = event?;
        if listing.is_full() || examined == EXAMINED_MAX {
            next = Some(cursor(&list, &[event.seq.0 + 1]));
            break;
        }
        if listing.since.is_some_and(|it| event.accepted_at < it) {
            break;
        }
        listing.take(&event);
    }
    listing.answer(next)
}

fn oldest(access: &Access, query: &Query, mut listing: Listing, behind: Option<Seq>) -> Result {
    let (list, shard) = (access.list("events, oldest first"), &access.shard);
    let from = match (query.cursor(&list)?, listing.since) {
        (Some([after]), _) => Seq(after),
        (None, Some(since)) => Seq(shard.seq_at(since)?.0.saturating_sub(1)),
        (None, None) => Seq(0),
    };
    let mut after = from.max(behind.unwrap_or_default());
    let seqs = shard.seqs_after(access.no, after, shard.last_seq(), EXAMINED_MAX)?;
    let mut more = seqs.len() == EXAMINED_MAX;
    for seq in seqs {
        if listing.is_full() {
            more = true;
            break;
        }
        after = seq;
        let Some(event) = shard.event(seq)? else { continue };
        if listing.until.is_some_and(|it| it <= event.accepted_at) {
            more = false;
            break;
        }
        listing.take(&event);
    }
    listing.answer(more.then(|| cursor(&list, &[after.0])))
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

async fn deliveries(access: Access, Path((_, id)): Path<(String, String)>, query: Query) -> Result {
    let event = access.event(&id)?;
    let list = format!("{} {}", access.list("deliveries of an event"), event.seq.0);
    let mut data = Vec::new();
    for endpoint in access.shard.receivers(event.seq)? {
        let key = DeliveryKey { seq: event.seq, endpoint };
        data.push(wire::delivery(&access.shard, key, &event)?);
    }
    query.page_of(&list, data)
}
