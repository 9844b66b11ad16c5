//! Trying a plugin: nothing is sent, nothing is stored.

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State},
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::api::caller::Access;
use crate::api::fields::Fields;
use crate::api::gateway::Gateway;
use crate::api::page::json_response;
use crate::api::problem::{Problem, Result};
use crate::api::{body, event_body, plugin_follow};
use crate::domain::{Plugin, Seq, part_id};
use crate::plugins::{
    Artifact, Asked, Call, Called, Digest, EventIn, FaultKind, LogLine, Outgoing, Verdict,
};
use crate::storage::NewEvent;

const EVENTS_MAX: usize = 100;
/// How long a call waits at most for its turn.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn invoke(
    State(gateway): State<Gateway>,
    access: Access,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result {
    let plugin = access.plugin(&name)?;
    body::need_json(&headers)?;
    let max = gateway.limits.batch_bytes_max;
    let text = body::read_large(&headers, body, max, &gateway.limits.bodies).await?;
    let fields = Fields::of(body::value_of(&text)?, "").map_err(Problem::invalid_fields)?;
    let wish = Wish::read(fields, &text, gateway.limits.data_bytes_max)?;
    let events = match wish.recent {
        Some(recent) => recent_events(&access, recent)?,
        None => wish.events,
    };
    let artifact = artifact(&gateway, &access, &plugin, wish.version).await?;
    plugin_follow::need_delivering(&artifact)?;
    let mut data = Vec::with_capacity(events.len());
    for event in events {
        let id = event.id.clone();
        let event_type = event.event_type.clone();
        let called = call(&gateway, &access, artifact.clone(), (&wish.config, true), event).await;
        data.push(render(&id, &event_type, &called));
    }
    let digest = artifact.digest().to_string();
    Ok(json_response(StatusCode::OK, &json!({ "data": data, "sha256": digest })))
}

/// The events of a body, unread.
#[derive(Default, Deserialize)]
struct Texts<'a> {
    #[serde(borrow)]
    events: Vec<&'a RawValue>,
}

struct Wish {
    version: Option<u32>,
    config: BTreeMap<String, String>,
    events: Vec<EventIn>,
    recent: Option<u32>,
}

impl Wish {
    fn read(mut fields: Fields, whole: &Bytes, data_bytes_max: usize) -> Result<Self> {
        let version = fields.whole("version", 1, u32::MAX);
        let config = fields.strings("config").unwrap_or_default();
        let recent = fields.whole("recent", 1, EVENTS_MAX as u32);
        let mut events = Vec::new();
        let given = fields.array("events");
        if given.is_some() && recent.is_some() {
            fields.refuse("recent", "goes without `events`");
        }
        // The plugin sees them as they were written, as it would those that are published.
        let texts = given.and_then(|_| body::parse::<Texts<'_>>(whole).ok()).unwrap_or_default();
        for (place, text) in texts.events.iter().enumerate() {
            let (text, base) = (text.get().as_bytes(), format!("/events/{place}"));
            match event_body::read(whole, text, &base, data_bytes_max) {
                Ok(event) => events.push(event_in(event)),
                Err(problem) => fields.refuse_all(problem.into_errors("/events")?),
            }
        }
        if events.len() > EVENTS_MAX {
            fields.refuse("events", format!("at most {EVENTS_MAX}"));
        }
        fields.finish().map_err(Problem::invalid_fields)?;
        if events.is_empty() && recent.is_none() {
            let detail = "give `events`, or `recent` for that many stored ones";
            return Err(Problem::unprocessable("events_required", detail));
        }
        Ok(Self { version, config, events, recent })
    }
}

fn event_in(new: NewEvent) -> EventIn {
    EventIn {
        id: new.id.map_or_else(|| "evt_dry_run".to_owned(), |it| it.to_string()),
        event_type: new.event_type.to_string(),
        timestamp_ms: new.timestamp.unwrap_or_default().0,
        content_type: "application/json".to_owned(),
        metadata: new.metadata.into_iter().collect(),
        ordering_key: new.ordering_key,
        payload: new.data,
    }
}

fn recent_events(access: &Access, count: u32) -> Result<Vec<EventIn>> {
    let recent = access.shard.events_before(access.no, Seq(u64::MAX)).take(count as usize);
    let events = recent.map(|it| it.map(|it| EventIn::new(&it, it.data.clone())));
    Ok(events.collect::<crate::storage::Result<_>>()?)
}

/// The artifact of a version; `None`: of the active one.
pub(super) async fn artifact(
    gateway: &Gateway,
    access: &Access,
    plugin: &Plugin,
    version: Option<u32>,
) -> Result<std::sync::Arc<Artifact>> {
    let version = plugin.version(version);
    let version = version.ok_or_else(|| Problem::not_found("plugin_version_not_found"))?;
    let component = || access.shard.component(access.no, &plugin.name, version.version).ok()?;
    let artifact = gateway.plugins.artifact(Digest(version.digest), component).await;
    artifact.map_err(|it| Problem::unprocessable(it.code, it.detail))
}

/// Asks a version something, on the tenant's account, perhaps only to try it; when there is no turn for it in time, that is
/// a fault.
pub(super) async fn call<Q: Asked + Clone>(
    gateway: &Gateway,
    access: &Access,
    artifact: std::sync::Arc<Artifact>,
    (config, dry): (&BTreeMap<String, String>, bool),
    question: Q,
) -> Called<Q::Answer> {
    let config = config.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    let tenant = access.slug.shared();
    let call = Call { tenant, artifact, config, question, limits: None, dry };
    let called = gateway.plugins.call_within(call, PATIENCE).await;
    called.unwrap_or_else(|busy| Called::fault(FaultKind::Overloaded, busy.to_string()))
}

fn render(id: &str, event_type: &str, called: &Called) -> Value {
    let line = |it: &LogLine| json!({ "level": it.level, "message": it.message });
    let mut rendered = json!({
        "outcome": "deliver",
        "logs": called.logs.iter().map(line).collect::<Vec<_>>(),
        "duration_us": called.duration.as_micros() as u64,
        "fuel": called.fuel,
    });
    match &called.verdict {
        Ok(Verdict::Deliver) => {}
        Ok(Verdict::Drop(reason)) => {
            rendered["outcome"] = "drop".into();
            rendered["reason"] = reason.as_str().into();
        }
        Ok(Verdict::Replace(out)) => rendered["event"] = render_outgoing(id, event_type, out),
        Ok(Verdict::Split(parts)) => {
            let part = |(place, out): (usize, &Outgoing)| {
                render_outgoing(&part_id(id, place), event_type, out)
            };
            rendered["events"] = parts.iter().enumerate().map(part).collect();
        }
        Err(fault) => {
            rendered["outcome"] = "error".into();
            rendered["error"] = json!({ "code": fault.kind.name(), "detail": fault.detail });
        }
    }
    rendered
}

fn render_outgoing(id: &str, event_type: &str, out: &Outgoing) -> Value {
    let text = || Value::String(String::from_utf8_lossy(&out.payload).into_owned());
    let data = serde_json::from_slice(&out.payload).unwrap_or_else(|_| text());
    let headers = out.headers.iter().map(|(name, it)| (name.clone(), it.clone().into()));
    json!({
        "id": id,
        "type": event_type,
        "data": data,
        "content_type": out.content_type,
        "headers": Value::Object(headers.collect()),
        "path_suffix": out.path_suffix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_shown_as_they_are_written() {
        let text = r#"{"events": [{"type": "a", "data": {"b": 1, "a": 2.50} }], "version": 1}"#;
        let fields = Fields::of(serde_json::from_str(text).unwrap(), "").unwrap();
        let wish = Wish::read(fields, &Bytes::from_static(text.as_bytes()), 100).unwrap();
        assert_eq!(wish.events[0].payload, r#"{"b": 1, "a": 2.50}"#);
    }
}
