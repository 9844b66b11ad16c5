//! How nouns look on the wire.

use std::time::Duration;

use serde_json::{Value, json, value::RawValue};

use crate::api::{plugin_wire, quota_body};
use crate::domain::{
    ApiKey, Attempt, DeadLetter, DeliveryKey, DeliveryState, Event, KeptHeader, Tenant, Timestamp,
    delivery_id,
};
pub(super) use crate::domain::{duration, parse_duration};
use crate::storage::{Entry, Result, Shard};

/// A short duration, to the microsecond.
pub(super) fn duration_exact(it: Duration) -> String {
    let micros = it.as_micros();
    match micros % 1000 {
        0 => format!("{}ms", micros / 1000),
        rest => format!("{}.{rest:03}ms", micros / 1000),
    }
}

/// A time of RFC 3339.
pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    Timestamp::parse(text)
}

pub(super) fn tenant(it: &Tenant) -> Value {
    json!({
        "id": it.slug.as_str(),
        "name": it.name,
        "quota": quota_body::render(&it.quota),
        "created_at": it.created_at.to_string(),
        "updated_at": it.updated_at.to_string(),
    })
}

/// A key without its secret.
pub(super) fn key(it: &ApiKey) -> Value {
    json!({
        "id": it.id,
        "name": it.name,
        "scopes": it.scopes.iter().map(|it| it.name()).collect::<Vec<_>>(),
        "created_at": it.created_at.to_string(),
        "expires_at": it.expires_at.map(|it| it.to_string()),
        "rate_limit": it.rate_limit.map(|it| {
            json!({ "per_second": it.per_second, "burst": it.burst })
        }),
    })
}

/// An event; its data only where it was asked for by name.
pub(super) fn event(it: &Event, with_data: bool) -> Value {
    let mut rendered = json!({
        "id": it.id.as_str(),
        "type": it.event_type.as_str(),
        "timestamp": it.timestamp.to_string(),
        "accepted_at": it.accepted_at.to_string(),
        "ordering_key": it.ordering_key,
        "metadata": it.metadata,
        "trace_id": it.trace.map(|it| it.trace_id()),
        "hops": it.hops,
    });
    if with_data {
        rendered["data"] = serde_json::from_slice(&it.data).unwrap_or(Value::Null);
    }
    rendered
}

/// An event with its data byte for byte, as the gateway keeps it.
pub(super) fn event_exact(it: &Event) -> String {
    let data = std::str::from_utf8(&it.data).ok();
    let data = data.and_then(|it| RawValue::from_string(it.to_owned()).ok());
    let mut head = event(it, false).to_string();
    head.pop();
    format!("{head},\"data\":{}}}", data.as_deref().map_or("null", RawValue::get))
}

/// A delivery with where it stands.
pub(super) fn delivery(shard: &Shard, key: DeliveryKey, event: &Event) -> Result<Value> {
    let history = shard.history(key)?;
    // Of the same moment: an attempt that ends meanwhile is in both or in none.
    let state = shard.state_after(key, history.last());
    let attempts = history.iter().filter(|it| matches!(it, Entry::Attempt(_))).count();
    let last = history.iter().rev().find_map(|it| match it {
        Entry::Attempt(attempt) => Some(attempt),
        _ => None,
    });
    let next = match &state {
        DeliveryState::Retrying { due } => Some(due.to_string()),
        _ => None,
    };
    let reason = match &state {
        DeliveryState::Filtered { reason } => Some(reason.clone()),
        DeliveryState::Dead { reason } => Some(reason.name().to_owned()),
        _ => None,
    };
    Ok(json!({
        "id": delivery_id(key, event.accepted_at),
        "event_id": event.id.as_str(),
        "event_type": event.event_type.as_str(),
        "endpoint_id": endpoint_id(shard, key),
        "status": state.name(),
        "reason": reason,
        "attempts": attempts,
        "created_at": event.accepted_at.to_string(),
        "next_attempt_at": next,
        "last_attempt_at": last.map(|it| it.started_at.to_string()),
        "last_status_code": last.and_then(|it| it.outcome.status_code),
        "last_error": last.and_then(|it| it.outcome.error.clone()),
    }))
}

pub(super) fn attempt(shard: &Shard, it: &Attempt, event: &Event) -> Value {
    let object = |headers: &[KeptHeader]| {
        let headers = headers.iter().map(|(name, value)| (name.to_string(), value.clone().into()));
        Value::Object(headers.collect())
    };
    json!({
        "id": it.id,
        "delivery_id": delivery_id(it.delivery, event.accepted_at),
        "event_id": event.id.as_str(),
        "endpoint_id": endpoint_id(shard, it.delivery),
        "number": it.number,
        "trigger": it.trigger.name(),
        "started_at": it.started_at.to_string(),
        "duration": format!("{}ms", it.duration.as_millis()),
        "timings": timings(it),
        "outcome": it.outcome.name,
        "status_code": it.outcome.status_code,
        "error": it.outcome.error,
        "plugins": it.plugins.iter().map(plugin_wire::run).collect::<Vec<_>>(),
        "parts": it.parts.map(|it| json!({ "delivered": it.delivered, "of": it.of })),
        "request_headers": object(&it.request_headers),
        "response_headers": object(&it.response_headers),
        "response_body": String::from_utf8_lossy(&it.response_body),
        "response_truncated": it.response_truncated,
    })
}

/// Where an attempt's time went; null where a part did not happen.
fn timings(it: &Attempt) -> Value {
    let part = |it: Option<Duration>| it.map(duration_exact);
    json!({
        "queue": duration_exact(it.spent.queue),
        "plugin": part(it.spent.plugin),
        "resolve": part(it.spent.resolve),
        "connect": part(it.spent.connect),
        "tls": part(it.spent.tls),
        "first_byte": part(it.spent.first_byte),
        "total": duration_exact(it.duration),
    })
}

pub(super) fn dead_letter(shard: &Shard, it: &DeadLetter, event: &Event) -> Result<Value> {
    let mut rendered = delivery(shard, it.delivery, event)?;
    let id = rendered["id"].clone();
    let members = rendered.as_object_mut().expect("it is an object");
    for name in ["status", "next_attempt_at", "created_at"] {
        members.remove(name);
    }
    members.insert("delivery_id".to_owned(), id);
    members.insert("reason".to_owned(), it.reason.name().into());
    members.insert("died_at".to_owned(), it.died_at.to_string().into());
    Ok(rendered)
}

fn endpoint_id(shard: &Shard, key: DeliveryKey) -> Option<String> {
    shard.catalog().endpoint_id(key.endpoint).map(|it| it.to_string())
}
