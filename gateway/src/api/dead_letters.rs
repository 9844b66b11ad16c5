use std::collections::BTreeSet;

use axum::{
    body::Body,
    extract::{Path, State},
    response::IntoResponse,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::api::caller::{Access, Need};
use crate::api::events_out::parse_pattern;
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::{EXAMINED_MAX, Query, cursor, json_response, page};
use crate::api::problem::{Problem, Result};
use crate::api::route::{Route, delete, get, post};
use crate::api::{body, wire};
use crate::domain::{
    DeadLetter, DeadReason, DeliveryKey, EndpointNo, Scope, Seq, Timestamp, Trigger,
};

const IDS_MAX: usize = 1000;

const DEAD_LETTERS: &str = "/v1/tenants/{tenant}/dead-letters";

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            DEAD_LETTERS,
            Need::Scope(Scope::Read),
            list,
            ("listDeadLetters", "Deliveries that were given up, newest first, each with why."),
        )
        .query(&["endpoint", "reason", "type", "since", "until"])
        .gives_page("DeadLetter")
        .refuses(404, "endpoint_not_found"),
        post(
            "/v1/tenants/{tenant}/dead-letters/redrive",
            Need::Scope(Scope::Manage),
            redrive,
            ("redriveDeadLetters", "Attempts dead letters again."),
        )
        .takes("Redrive")
        .gives(202, "Redriven")
        .refuses(404, "endpoint_not_found")
        .refuses(404, "delivery_not_found")
        .refuses(422, "selection_required"),
        delete(
            "/v1/tenants/{tenant}/dead-letters/{id}",
            Need::Scope(Scope::Manage),
            discard,
            ("deleteDeadLetter", "Throws a dead letter away."),
        )
        .gives_nothing()
        .refuses(404, "dead_letter_not_found"),
    ]
}

const LATEST: (Timestamp, DeliveryKey) =
    (Timestamp(u64::MAX), DeliveryKey { seq: Seq(u64::MAX), endpoint: EndpointNo(u32::MAX) });

async fn list(access: Access, query: Query) -> Result {
    let endpoint = query.get("endpoint").map(|it| access.endpoint(it)).transpose()?;
    let (limit, since) = (query.limit()?, query.time("since")?);
    let until = query.time("until")?;
    let event_type = query.get("type").map(parse_pattern).transpose()?;
    let reason = query.get("reason");
    if reason.is_some_and(|it| !DeadReason::NAMES.iter().any(|(_, name)| *name == it)) {
        return Err(Problem::bad_request("invalid_parameter", "there is no such `reason`"));
    }
    let fits = |it: &DeadLetter| {
        endpoint.as_ref().is_none_or(|wanted| wanted.no == it.delivery.endpoint)
            && reason.is_none_or(|wanted| wanted == it.reason.name())
            && until.is_none_or(|until| it.died_at < until)
    };
    let list = access.list("dead-letters");
    let before = query.cursor(&list)?.map_or(LATEST, |[at, seq, endpoint]| {
        let endpoint = EndpointNo(u32::try_from(endpoint).unwrap_or(u32::MAX));
        (Timestamp(at), DeliveryKey { seq: Seq(seq), endpoint })
    });
    let mut data: Vec<Value> = Vec::new();
    let mut last = before;
    for (examined, dead) in access.shard.dead_before(access.no, before).enumerate() {
        let dead = dead?;
        if since.is_some_and(|it| dead.died_at < it) {
            break;
        }
        if data.len() == limit || examined == EXAMINED_MAX {
            let (at, key) = last;
            let next = cursor(&list, &[at.0, key.seq.0, key.endpoint.0.into()]);
            return Ok(page(&data, Some(next)));
        }
        last = (dead.died_at, dead.delivery);
        if fits(&dead)
            && let Some(event) = access.shard.event(dead.delivery.seq)?
            && event_type.as_ref().is_none_or(|it| it.matches(&event.event_type))
        {
            data.push(wire::dead_letter(&access.shard, &dead, &event)?);
        }
    }
    Ok(page(&data, None))
}

/// Which dead letters to redrive.
struct Selection {
    ids: Option<Vec<String>>,
    endpoint: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Selection {
    fn read(mut fields: Fields) -> Result<Self> {
        let ids = fields.read("ids", |it| {
            let ids = it.as_array().filter(|it| it.len() <= IDS_MAX);
            let ids =
                ids.and_then(|it| it.iter().map(|it| Some(it.as_str()?.to_owned())).collect());
            ids.ok_or_else(|| format!("must be a list of at most {IDS_MAX} ids"))
        });
        let endpoint = fields.string("endpoint");
        let form = "a time such as 2026-01-31T12:00:00Z";
        let since = fields.parsed("since", form, wire::parse_time);
        let until = fields.parsed("until", form, wire::parse_time);
        if ids.is_some() && (endpoint.is_some() || since.is_some() || until.is_some()) {
            fields.refuse("ids", "goes alone: leave `endpoint`, `since` and `until` out");
        }
        fields.finish().map_err(Problem::invalid_fields)?;
        let selection = Self { ids, endpoint, since, until };
        if selection.ids.is_none()
            && selection.endpoint.is_none()
            && since.is_none()
            && until.is_none()
        {
            let detail = "say which: `ids`, `endpoint`, `since` or `until`";
            return Err(Problem::unprocessable("selection_required", detail));
        }
        Ok(selection)
    }

    fn fits(&self, dead: &DeadLetter, endpoint: Option<EndpointNo>) -> bool {
        endpoint.is_none_or(|it| it == dead.delivery.endpoint)
            && self.since.is_none_or(|it| it <= dead.died_at)
            && self.until.is_none_or(|it| dead.died_at < it)
    }

    fn find(&self, access: &Access) -> Result<Vec<DeliveryKey>> {
        if let Some(ids) = &self.ids {
            let key = |id: &String| Ok(access.delivery(id)?.0);
            return ids.iter().map(key).collect();
        }
        let endpoint = self.endpoint.as_ref().map(|it| access.endpoint(it)).transpose()?;
        let endpoint = endpoint.map(|it| it.no);
        let mut found = Vec::new();
        for dead in access.shard.dead_before(access.no, LATEST) {
            let dead = dead?;
            if self.fits(&dead, endpoint) {
                found.push(dead.delivery);
            }
        }
        Ok(found)
    }
}

async fn redrive(
    State(gateway): State<Gateway>,
    access: Access,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let fields = body::object(&headers, body, gateway.limits.body_bytes_max).await?;
    let selection = Selection::read(fields)?;
    // The oldest first, in the order they were accepted.
    let mut keys = selection.find(&access)?;
    keys.reverse();
    let mut dead = Vec::with_capacity(keys.len());
    let mut seen = BTreeSet::new();
    for key in keys.into_iter().filter(|it| seen.insert(*it)) {
        let is_dead = matches!(access.shard.state(key)?, crate::domain::DeliveryState::Dead { .. });
        if is_dead && access.shard.catalog().endpoint(key.endpoint).is_some() {
            dead.push(key);
        }
    }
    let redriven = access.shard.requeue_many(access.no, &dead, Trigger::Manual).await?;
    Ok(json_response(StatusCode::ACCEPTED, &json!({ "redriven": redriven })))
}

async fn discard(access: Access, Path((_, id)): Path<(String, String)>) -> Result {
    let missing = || Problem::not_found("dead_letter_not_found");
    let (key, _) = access.delivery(&id).map_err(|_| missing())?;
    match access.shard.discard(access.no, key).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(missing()),
    }
}
