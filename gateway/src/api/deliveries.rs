use axum::{extract::Path, response::IntoResponse};
use http::StatusCode;
use serde_json::Value;

use crate::api::caller::{Access, Need};
use crate::api::events_out::parse_pattern;
use crate::api::page::{EXAMINED_MAX, Query, cursor, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, get, post};
use crate::api::wire;
use crate::domain::{
    Attempt, DeliveryKey, DeliveryState, EndpointNo, Event, Pattern, Scope, Seq, Timestamp,
    Trigger, delivery_id,
};
use crate::storage::Entry;
use crate::telemetry;

const DELIVERIES: &str = "/v1/tenants/{tenant}/deliveries";
const DELIVERY: &str = "/v1/tenants/{tenant}/deliveries/{id}";
const ATTEMPTS: &str = "/v1/tenants/{tenant}/deliveries/{id}/attempts";
const RETRY: &str = "/v1/tenants/{tenant}/deliveries/{id}/retry";
const CANCEL: &str = "/v1/tenants/{tenant}/deliveries/{id}/cancel";

pub(super) fn routes() -> Vec<Route> {
    let (read_, manage) = (Need::Scope(Scope::Read), Need::Scope(Scope::Manage));
    vec![
        get(DELIVERIES, read_, list, ("listDeliveries", "Deliveries, newest event first."))
            .query(&["endpoint", "status", "code", "type", "since", "until"])
            .gives_page("Delivery")
            .refuses(404, "endpoint_not_found"),
        get(DELIVERY, read_, read, ("getDelivery", "One delivery."))
            .gives(200, "Delivery")
            .refuses(404, "delivery_not_found"),
        get(
            ATTEMPTS,
            read_,
            attempts,
            ("listDeliveryAttempts", "The delivery's attempts, newest first."),
        )
        .gives_page("Attempt")
        .refuses(404, "delivery_not_found"),
        post(RETRY, manage, retry, ("retryDelivery", "Attempts it again now, even if delivered."))
            .gives(202, "Delivery")
            .refuses(404, "delivery_not_found")
            .refuses(409, "endpoint_deleted")
            .refuses(409, "endpoint_disabled"),
        post(CANCEL, manage, cancel, ("cancelDelivery", "Makes no further attempt of it."))
            .gives(200, "Delivery")
            .refuses(404, "delivery_not_found")
            .refuses(409, "delivery_not_waiting"),
        get(
            "/v1/tenants/{tenant}/endpoints/{id}/attempts",
            read_,
            endpoint_attempts,
            ("listEndpointAttempts", "Attempts at an endpoint, newest event first."),
        )
        .query(&["outcome", "code", "since", "until"])
        .gives_page("Attempt")
        .refuses(404, "endpoint_not_found"),
    ]
}

/// What an endpoint answered: `503`, or a class such as `5xx`.
#[derive(Debug, Clone, Copy)]
struct Code {
    from: u16,
    to: u16,
}

impl Code {
    fn parse(text: &str) -> Result<Self> {
        let class = text.strip_suffix("xx").and_then(|it| it.parse::<u16>().ok());
        let class =
            class.map(|it| Self { from: it.saturating_mul(100), to: it.saturating_mul(100) + 99 });
        let exact = || text.parse().ok().map(|it| Self { from: it, to: it });
        let found = class.or_else(exact).filter(|it| (100..=599).contains(&it.from));
        let detail = "`code` must be a status such as 503, or a class such as 5xx";
        found.ok_or_else(|| Problem::bad_request("invalid_parameter", detail))
    }

    fn fits(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }
}

/// What a list of deliveries is narrowed by.
struct Narrowing {
    endpoint: Option<EndpointNo>,
    status: Option<String>,
    code: Option<Code>,
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
            code: query.get("code").map(Code::parse).transpose()?,
            event_type: query.get("type").map(parse_pattern).transpose()?,
            since: query.time("since")?,
            until: query.time("until")?,
        })
    }

    fn fits_state(&self, access: &Access, key: DeliveryKey) -> Result<bool> {
        let wanted = |it: &DeliveryState| self.status.as_ref().is_none_or(|name| name == it.name());
        if !wanted(&access.shard.state(key)?) {
            return Ok(false);
        }
        let Some(code) = self.code else { return Ok(true) };
        let history = access.shard.history(key)?;
        let last = history.iter().rev().find_map(|it| match it {
            Entry::Attempt(attempt) => Some(attempt.outcome.status_code),
            _ => None,
        });
        Ok(last.flatten().is_some_and(|it| code.fits(it)))
    }

    fn fits(&self, event: &Event) -> bool {
        self.event_type.as_ref().is_none_or(|it| it.matches(&event.event_type))
            && self.until.is_none_or(|it| event.accepted_at < it)
    }
}

async fn list(access: Access, query: Query) -> Result {
    let list = access.list("deliveries");
    let narrowing = Narrowing::read(&query, &access)?;
    let [before_seq, before_endpoint] = query.cursor(&list)?.unwrap_or([u64::MAX, 0]);
    let limit = query.limit()?;
    let mut data: Vec<Value> = Vec::new();
    for (examined, step) in steps_before(&access, &narrowing, Seq(before_seq)).enumerate() {
        let (seq, endpoint) = step?;
        let first = endpoint.map_or(0, |it| u64::from(it.0));
        // The cursor names the first delivery that is still to come.
        if seq.0 + 1 == before_seq && first < before_endpoint {
            continue;
        }
        if data.len() == limit || examined >= EXAMINED_MAX {
            return Ok(page(&data, Some(cursor(&list, &[seq.0 + 1, first]))));
        }
        let Some(event) = access.shard.event(seq)? else { continue };
        if narrowing.since.is_some_and(|it| event.accepted_at < it) {
            break;
        }
        let Some(endpoint) = endpoint.filter(|_| narrowing.fits(&event)) else { continue };
        let key = DeliveryKey { seq, endpoint };
        if narrowing.fits_state(&access, key)? {
            data.push(wire::delivery(&access.shard, key, &event)?);
        }
    }
    Ok(page(&data, None))
}

/// A place to look at: an event, and an endpoint that it was given to, if there is one.
type Step = (Seq, Option<EndpointNo>);

/// The places to look at, newest event first, endpoints of one event in order. An event that
/// nobody was given is a place too, so that looking has an end.
fn steps_before<'a>(
    access: &'a Access,
    narrowing: &Narrowing,
    before: Seq,
) -> Box<dyn Iterator<Item = crate::storage::Result<Step>> + 'a> {
    if let Some(endpoint) = narrowing.endpoint {
        let keys = access.shard.deliveries_before(endpoint, before);
        return Box::new(keys.map(|it| it.map(|it| (it.seq, Some(it.endpoint)))));
    }
    let events = access.shard.events_before(access.no, before);
    Box::new(events.flat_map(|event| {
        let steps = event.and_then(|event| {
            let endpoints = access.shard.receivers(event.seq)?;
            let steps = endpoints.into_iter().map(|it| Ok((event.seq, Some(it))));
            let steps: Vec<_> = steps.collect();
            Ok(if steps.is_empty() { vec![Ok((event.seq, None))] } else { steps })
        });
        steps.unwrap_or_else(|error| vec![Err(error)])
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
        let known = self.shard.receivers(key.seq)?.contains(&key.endpoint);
        known.then_some((key, event)).ok_or_else(missing)
    }
}

async fn read(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let (key, event) = access.delivery(&id)?;
    Ok(json_response(StatusCode::OK, &wire::delivery(&access.shard, key, &event)?))
}

async fn attempts(access: Access, Path((_, id)): Path<(String, String)>, query: Query) -> Result {
    let (key, event) = access.delivery(&id)?;
    let list = format!("{} {id}", access.list("attempts of a delivery"));
    let (limit, [below]) = (query.limit()?, query.cursor(&list)?.unwrap_or([u64::MAX]));
    let mut data = Vec::new();
    let mut last = below;
    for (place, attempt) in attempts_of(&access, key, below, |_| true)? {
        if data.len() == limit {
            return Ok(page(&data, Some(cursor(&list, &[last]))));
        }
        data.push(wire::attempt(&access.shard, &attempt, &event));
        last = place;
    }
    Ok(page(&data, None))
}

/// A delivery's attempts, newest first, each with its place in the history; only those before a
/// place.
fn attempts_of(
    access: &Access,
    key: DeliveryKey,
    below: u64,
    fits: impl Fn(&Attempt) -> bool,
) -> Result<Vec<(u64, Attempt)>> {
    let history = access.shard.history(key)?;
    let attempts = (0_u64..).zip(history).filter_map(|(place, it)| match it {
        Entry::Attempt(attempt) if place < below && fits(&attempt) => Some((place, attempt)),
        _ => None,
    });
    let mut attempts: Vec<_> = attempts.collect();
    attempts.reverse();
    Ok(attempts)
}

async fn endpoint_attempts(
    access: Access,
    Path((_, id)): Path<(String, String)>,
    query: Query,
) -> Result {
    let endpoint = access.endpoint(&id)?;
    let list = format!("{} {}", access.list("attempts"), endpoint.no.0);
    let [before, below] = query.cursor(&list)?.unwrap_or([u64::MAX; 2]);
    let limit = query.limit()?;
    let code = query.get("code").map(Code::parse).transpose()?;
    let outcome = query.get("outcome");
    let (since, until) = (query.time("since")?, query.time("until")?);
    let fits = |it: &Attempt| {
        code.is_none_or(|code| it.outcome.status_code.is_some_and(|it| code.fits(it)))
            && outcome.is_none_or(|outcome| it.outcome.name == outcome)
            && since.is_none_or(|since| since <= it.started_at)
            && until.is_none_or(|until| it.started_at < until)
    };
    let mut data = Vec::new();
    for (examined, key) in access.shard.deliveries_before(endpoint.no, Seq(before)).enumerate() {
        let key = key?;
        if data.len() == limit || examined == EXAMINED_MAX {
            return Ok(page(&data, Some(cursor(&list, &[key.seq.0 + 1, u64::MAX]))));
        }
        let Some(event) = access.shard.event(key.seq)? else { continue };
        // The page before may have ended within this delivery.
        let below = if key.seq.0 + 1 == before { below } else { u64::MAX };
        for (place, attempt) in attempts_of(&access, key, below, fits)? {
            if data.len() == limit {
                return Ok(page(&data, Some(cursor(&list, &[key.seq.0 + 1, place + 1]))));
            }
            data.push(wire::attempt(&access.shard, &attempt, &event));
        }
    }
    Ok(page(&data, None))
}

async fn retry(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let (key, event) = access.delivery(&id)?;
    let enabled = access.shard.catalog().endpoint(key.endpoint).map(|it| it.enabled);
    match enabled {
        Some(true) => {}
        Some(false) => {
            let detail = "its endpoint is disabled; enable it, and what it has not received is \
                          sent";
            return Err(Problem::conflict("endpoint_disabled", detail));
        }
        None => return Err(Problem::conflict("endpoint_deleted", "its endpoint was deleted")),
    }
    access.shard.requeue(access.no, key, Trigger::Manual).await?;
    let rendered = wire::delivery(&access.shard, key, &event)?;
    Ok(json_response(StatusCode::ACCEPTED, &rendered).into_response())
}

async fn cancel(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let (key, event) = access.delivery(&id)?;
    if !access.shard.cancel_delivery(key).await? {
        let state = access.shard.state(key)?;
        let detail = match state {
            DeliveryState::Pending | DeliveryState::Retrying { .. } => {
                "an attempt is under way; ask again when it has ended".to_owned()
            }
            DeliveryState::Dead { .. } => {
                "it is a dead letter; DELETE it under dead-letters instead".to_owned()
            }
            _ => format!("it is {} already", state.name()),
        };
        return Err(Problem::conflict("delivery_not_waiting", detail));
    }
    let endpoint = access.shard.catalog().endpoint_id(key.endpoint);
    let endpoint = endpoint.as_ref().map_or("", |it| it.as_str());
    telemetry::DELIVERIES.count_for(&["cancelled"], access.slug.as_str(), Some(endpoint));
    Ok(json_response(StatusCode::OK, &wire::delivery(&access.shard, key, &event)?))
}
