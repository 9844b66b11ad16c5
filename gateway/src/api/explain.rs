use std::sync::Arc;

use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::caller::{Access, Need};
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::Result;
use crate::api::remedy::remedy;
use crate::api::route::{Route, get};
use crate::api::stats::breaker;
use crate::api::wire;
use crate::domain::{
    Breaker, DeliveryKey, DeliveryState, Endpoint, Event, Health, OnError, PluginUse, Scope,
    Timestamp, delivery_id,
};
use crate::plugins::Breakers;
use crate::storage::Entry;

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/tenants/{tenant}/events/{id}/explain",
            Need::Scope(Scope::Read),
            explain,
            ("explainEvent", "Why each endpoint of the tenant did or did not get the event."),
        )
        .gives(200, "Explanation")
        .refuses(404, "event_not_found"),
    ]
}

/// Why an endpoint did or did not get an event: a code for machines, a sentence for people, and
/// what belongs to it.
struct Reason {
    code: &'static str,
    why: String,
    facts: Value,
}

impl Reason {
    fn new(code: &'static str, why: impl Into<String>) -> Self {
        Self { code, why: why.into(), facts: json!({}) }
    }

    fn with(self, facts: Value) -> Self {
        Self { facts, ..self }
    }
}

async fn explain(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, id)): Path<(String, String)>,
) -> Result {
    let (event, now) = (access.event(&id)?, gateway.clock.now());
    let mut endpoints: Vec<Arc<Endpoint>> = {
        let catalog = access.shard.catalog();
        let all = catalog.tenant(&access.slug).into_iter().flat_map(|it| it.endpoints.values());
        all.cloned().collect()
    };
    endpoints.sort_by_key(|it| it.no);
    let fanned_out = access.shard.are_targets_known(event.seq);
    let targets = access.shard.targets(event.seq)?;
    let mut told = Vec::new();
    for endpoint in &endpoints {
        let key = DeliveryKey { seq: event.seq, endpoint: endpoint.no };
        let mut entry = json!({ "endpoint_id": endpoint.id.as_str(), "status": "not_sent" });
        let reason = match targets.contains(&endpoint.no) {
            true => {
                let delivery = wire::delivery(&access.shard, key, &event)?;
                for name in ["status", "attempts", "next_attempt_at", "last_error"] {
                    entry[name] = delivery[name].clone();
                }
                entry["delivery_id"] = delivery["id"].clone();
                let breakers = gateway.plugins.breakers();
                state_of(&access, (key, &event), (endpoint, breakers), now)?
            }
            false => missed(endpoint, &event, fanned_out),
        };
        (entry["code"], entry["why"]) = (reason.code.into(), reason.why.into());
        entry["remedy"] = remedy(reason.code).into();
        if let (Some(entry), Value::Object(facts)) = (entry.as_object_mut(), reason.facts) {
            entry.extend(facts);
        }
        told.push(entry);
    }
    let gone = targets.iter().filter(|it| !endpoints.iter().any(|known| known.no == **it));
    for no in gone {
        let key = DeliveryKey { seq: event.seq, endpoint: *no };
        let delivery = wire::delivery(&access.shard, key, &event)?;
        told.push(json!({
            "endpoint_id": delivery["endpoint_id"],
            "delivery_id": delivery["id"],
            "status": delivery["status"],
            "attempts": delivery["attempts"],
            "code": "endpoint_deleted",
            "why": "the endpoint was deleted since",
            "remedy": null,
        }));
    }
    let body = json!({
        "event_id": event.id.as_str(),
        "event_type": event.event_type.as_str(),
        "accepted_at": event.accepted_at.to_string(),
        "fanned_out": fanned_out,
        "endpoints": told,
    });
    Ok(json_response(StatusCode::OK, &body))
}

/// Why an event never became a delivery for an endpoint. What the endpoint wanted then is not
/// kept, so this tells what it wants now, and whether it was changed since.
fn missed(endpoint: &Endpoint, event: &Event, fanned_out: bool) -> Reason {
    let changed = json!({ "changed_since": endpoint.updated_at > event.accepted_at });
    if event.only.is_some() {
        return Reason::new("test", "it was a test of another endpoint");
    }
    if !fanned_out {
        return Reason::new("not_fanned_out", "it was accepted just now and is about to be sent");
    }
    if endpoint.created_at > event.accepted_at {
        let why = format!("the endpoint was created later, at {}", endpoint.created_at);
        return Reason::new("created_later", why);
    }
    if !endpoint.wants_type(&event.event_type) {
        let patterns: Vec<_> = endpoint.event_types.iter().map(|it| it.as_str()).collect();
        let why = match (patterns.is_empty(), event.event_type.is_operational()) {
            (_, true) => "the gateway's own events go to those that ask for them by name: \
                          put `hookgate.**` into `event_types`"
                .to_owned(),
            _ => format!("it asks for {}", patterns.join(", ")),
        };
        let facts = json!({ "event_types": patterns, "changed_since": changed["changed_since"] });
        return Reason::new("type_mismatch", why).with(facts);
    }
    if let Some(filter) = &endpoint.filter {
        let source = filter.source();
        match filter.evaluate(event) {
            Ok(true) => {}
            Ok(false) => {
                let why = format!("its filter is false: {source}");
                return Reason::new("filter_false", why).with(changed);
            }
            Err(error) => {
                let why = format!("its filter cannot be evaluated, which counts as no: {error}");
                return Reason::new("filter_error", why).with(changed);
            }
        }
    }
    if !endpoint.enabled {
        let reason = endpoint.disabled_reason.as_deref().unwrap_or("somebody disabled it");
        return Reason::new("disabled", format!("the endpoint is disabled: {reason}"));
    }
    let why = "it would get it now; it was disabled or asked for something else then";
    Reason::new("changed_later", why).with(changed)
}

/// Where a delivery stands, and what it waits for.
fn state_of(
    access: &Access,
    (key, event): (DeliveryKey, &Event),
    (endpoint, breakers): (&Endpoint, &Breakers),
    now: Timestamp,
) -> crate::storage::Result<Reason> {
    Ok(match access.shard.state(key)? {
        DeliveryState::Delivered => Reason::new("delivered", "the endpoint accepted it"),
        DeliveryState::Filtered { reason } => Reason::new("filtered", reason),
        DeliveryState::Dead { reason } => {
            let why = match reason.name() {
                "retries_exhausted" => "every attempt of its schedule failed".to_owned(),
                "gone" => "the endpoint answered 410 Gone".to_owned(),
                "loop" => format!(
                    "the endpoint publishes what it receives: the event came back {} times, and \
                     a gateway refused it then (508 loop_detected)",
                    event.hops
                ),
                "plugin_error" => "a plugin of the endpoint failed".to_owned(),
                "expired" => "it was too old to be sent by the time that it could be".to_owned(),
                "endpoint_disabled" => "the endpoint was disabled".to_owned(),
                "internal_error" => {
                    "the gateway itself failed at it; its log tells more".to_owned()
                }
                name => name.replace('_', " "),
            };
            Reason::new(reason.name(), why)
        }
        DeliveryState::Cancelled => withdrawn(access, key)?,
        DeliveryState::Retrying { due } if due > now && is_sent_to(endpoint) => {
            let why = format!("the last attempt failed; the next is due at {due}");
            Reason::new("waiting_for_retry", why)
        }
        DeliveryState::Retrying { .. } | DeliveryState::Pending => {
            waiting(access, (key, event), (endpoint, breakers), now)?
        }
    })
}

/// A delivery that was withdrawn, or a dead letter that was thrown away.
fn withdrawn(access: &Access, key: DeliveryKey) -> crate::storage::Result<Reason> {
    let history = access.shard.history(key)?;
    Ok(match history.iter().rev().nth(1).map(Entry::state) {
        Some(DeliveryState::Dead { reason }) => {
            let why = format!("its dead letter was deleted; it had died of `{}`", reason.name());
            let facts = json!({ "dead_reason": reason.name() });
            Reason::new("cancelled", why).with(facts)
        }
        _ => Reason::new("cancelled", "it was withdrawn"),
    })
}

/// Whether attempts are made at all.
fn is_sent_to(endpoint: &Endpoint) -> bool {
    endpoint.enabled && !endpoint.secret_unavailable
}

/// What a delivery waits for that could be attempted by its own schedule.
fn waiting(
    access: &Access,
    (key, event): (DeliveryKey, &Event),
    (endpoint, breakers): (&Endpoint, &Breakers),
    now: Timestamp,
) -> crate::storage::Result<Reason> {
    if !endpoint.enabled {
        let reason = endpoint.disabled_reason.as_deref().unwrap_or("somebody disabled it");
        let why = format!("it is held until the endpoint is enabled again: {reason}");
        return Ok(Reason::new("held_disabled", why));
    }
    if endpoint.secret_unavailable {
        let why = "it is held: the endpoint's secrets cannot be read; rotate its signing secret";
        return Ok(Reason::new("secret_unavailable", why));
    }
    let (is_sent, in_flight) = access.shard.under_way(key);
    if is_sent {
        let why = "it is being sent: an attempt is under way";
        return Ok(Reason::new("queued", why).with(json!({ "in_flight": in_flight })));
    }
    if let Some(first) = access.shard.waits_behind(key)? {
        let ahead = access.shard.event(first.seq)?;
        let id = ahead.map(|it| delivery_id(first, it.accepted_at));
        let why = "an earlier event of the same order has to be delivered first";
        return Ok(Reason::new("behind", why).with(json!({ "behind": id })));
    }
    let health = access.shard.health(endpoint.no);
    if let Some(reason) = left_alone(&health, now).or_else(|| resting(access, endpoint, breakers)) {
        return Ok(reason);
    }
    let backlog = access.shard.backlog(key.endpoint)?;
    if let Some(until) = health.slowed_until.filter(|it| *it > now) {
        let why = format!(
            "it waits its turn: the endpoint asked for less (429 or Retry-After) and is sent to \
             more slowly until about {until}"
        );
        let (until, backlog) = (until.to_string(), backlog.first + backlog.again);
        let facts = json!({ "slowed_until": until, "backlog": backlog });
        return Ok(Reason::new("slowed", why).with(facts));
    }
    let age = wire::duration(now - event.accepted_at);
    Ok(queued(endpoint, &age, in_flight, backlog.first + backlog.again))
}

/// Nothing goes to the endpoint, because of how it did.
fn left_alone(health: &Health, now: Timestamp) -> Option<Reason> {
    if breaker(health, now) == Breaker::Open {
        let at = health.probe_at.map(|it| it.to_string());
        let why = format!(
            "the endpoint failed {} times in a row and is left alone until a probe goes",
            health.failures
        );
        return Some(Reason::new("breaker_open", why).with(json!({ "next_probe_at": at })));
    }
    let until = health.paused_until.filter(|it| *it > now)?;
    let why = format!("the endpoint asked by Retry-After to be left alone until {until}");
    Some(Reason::new("paused", why).with(json!({ "paused_until": until.to_string() })))
}

/// Nothing goes to the endpoint without a plugin that failed too often and is not run for a while.
fn resting(access: &Access, endpoint: &Endpoint, breakers: &Breakers) -> Option<Reason> {
    let needed = |it: &&PluginUse| !matches!(it.on_error, OnError::Pass | OnError::Drop);
    endpoint.plugins.iter().filter(needed).find_map(|it| {
        let plugin = access.shard.plugin(&access.slug, &it.plugin)?;
        let version = plugin.version(it.version)?.version;
        let subject = (access.slug.shared(), it.plugin.clone(), version, Some(endpoint.no));
        let standing = breakers.standing(&subject, Instant::now());
        let left = standing.reopens_in?;
        let why = format!(
            "the endpoint's plugin `{}` (version {version}) failed {} times in a row and is not \
             run for another {}s",
            it.plugin,
            standing.failures,
            left.as_secs() + 1
        );
        let facts = json!({ "plugin": it.plugin.as_str(), "version": version });
        Some(Reason::new("plugin_resting", why).with(facts))
    })
}

/// It waits for nothing but others of the endpoint, or of all.
fn queued(endpoint: &Endpoint, age: &str, in_flight: usize, backlog: u64) -> Reason {
    let facts = json!({ "backlog": backlog, "in_flight": in_flight });
    let waits = format!("it waits its turn since {age}");
    let (code, why) = match endpoint.rate_limit {
        Some(limit) => {
            ("rate_limited", format!("{waits}; the endpoint takes {} a second", limit.per_second))
        }
        None if in_flight >= endpoint.max_in_flight as usize => {
            let why = format!(
                "{waits}; {in_flight} attempts are under way, which is the endpoint's \
                 `max_in_flight`"
            );
            ("queued", why)
        }
        None => ("queued", waits),
    };
    Reason::new(code, why).with(facts)
}
