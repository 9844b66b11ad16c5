//! How plugins, their versions, statistics and logs look on the wire.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::domain::{Canary, Plugin, PluginRun, PluginVersion};
use crate::plugins::{Called, Digest, Logged, Outgoing, Tally, Trial, Verdict, is_json};

/// A plugin with its versions, who uses it, and what it did.
pub(super) fn plugin(gateway: &Gateway, access: &Access, plugin: &Plugin) -> Value {
    let (tenant, diary) = (access.slug.shared(), gateway.plugins.diary());
    let tallies = diary.versions(&tenant, &plugin.name);
    let none = Tally::default();
    let version = |it: &PluginVersion| {
        let breakers = gateway.plugins.breakers();
        let standing = breakers.worst(&tenant, &plugin.name, it.version, Instant::now());
        let mut rendered = self::version(it);
        rendered["stats"] = stats(tallies.get(&it.version).unwrap_or(&none));
        rendered["breaker"] = json!({
            "state": standing.name,
            "failures_in_row": standing.failures,
            "reopens_in": standing.reopens_in.map(|it| format!("{}s", it.as_secs())),
        });
        rendered
    };
    let uses = access.shard.plugin_uses(&access.slug, &plugin.name);
    let mut used_by: Vec<_> = uses.iter().map(|(id, ..)| id.as_str()).collect();
    used_by.dedup();
    let pins = uses.iter().filter_map(|(id, _, it)| Some((id.to_string(), it.version?.into())));
    let sha256 = plugin.version(None).map(|it| Digest(it.digest).to_string());
    json!({
        "name": plugin.name.as_str(),
        "kind": plugin.kind(),
        "active_version": plugin.active_version,
        "sha256": sha256,
        "canary": plugin.canary.as_ref().map(canary),
        "versions": plugin.versions.iter().rev().map(version).collect::<Vec<_>>(),
        "used_by": used_by,
        "ingests": access.shard.ingests(&access.slug, &plugin.name),
        "pins": Value::Object(pins.collect()),
        "stats": stats(&diary.stats(&tenant, &plugin.name)),
    })
}

pub(super) fn version(it: &PluginVersion) -> Value {
    json!({
        "version": it.version,
        "sha256": Digest(it.digest).to_string(),
        "kind": it.kind,
        "size": it.size,
        "created_at": it.created_at.to_string(),
    })
}

/// What calls came to. Times are in microseconds, which is what plugins take.
pub(super) fn stats(it: &Tally) -> Value {
    let micros = |it: Duration| u64::try_from(it.as_micros()).unwrap_or(u64::MAX);
    let kinds: Map<_, _> =
        it.errors.iter().map(|(kind, count)| ((*kind).to_owned(), (*count).into())).collect();
    let last = it.last_error.as_ref().map(|it| {
        json!({
            "at": it.at.to_string(),
            "event_id": named(&it.event_id),
            "code": it.kind.name(),
            "detail": it.detail,
        })
    });
    let metered = it.fuel.1 > 0;
    json!({
        "calls": it.calls,
        "drops": it.drops,
        "rewrites": it.rewrites,
        "errors": it.failed(),
        "errors_by_code": kinds,
        "error_rate": it.error_rate().as_f64(),
        "duration_us": {
            "p50": it.durations.at(0.5).map(micros),
            "p99": it.durations.at(0.99).map(micros),
        },
        "fuel_mean": metered.then(|| it.fuel.0 / it.fuel.1),
        "last_error": last,
    })
}

pub(super) fn canary(it: &Canary) -> Value {
    json!({
        "version": it.version,
        "share": it.share.as_f64(),
        "compare": it.compare,
        "abort_on_error_rate": it.abort_on_error_rate.map(|it| it.as_f64()),
        "started_at": it.started_at.to_string(),
    })
}

/// A trial with both sides' statistics.
pub(super) fn trial(plugin: &Plugin, canary: &Canary, trial: &Trial) -> Value {
    let sha256 = |version| plugin.version(version).map(|it| Digest(it.digest).to_string());
    let mut rendered = self::canary(canary);
    let examples = trial
        .examples
        .iter()
        .rev()
        .map(|it| json!({ "event_id": it.event_id, "canary": it.canary, "active": it.active }));
    rendered["sides"] = json!({
        "canary": {
            "version": canary.version,
            "sha256": sha256(Some(canary.version)),
            "stats": stats(&trial.canary),
        },
        "active": {
            "version": plugin.active_version,
            "sha256": sha256(None),
            "stats": stats(&trial.active),
        },
    });
    rendered["compared"] = match canary.compare {
        false => Value::Null,
        true => json!({
            "same": trial.same,
            "different": trial.different,
            "examples": examples.collect::<Vec<_>>(),
        }),
    };
    rendered
}

/// An event's id; nothing for one that its producer gave none, and that was not stored yet.
fn named(event_id: &str) -> Option<&str> {
    (!event_id.is_empty()).then_some(event_id)
}

/// A line of a plugin's log.
pub(super) fn logged(it: &Logged) -> Value {
    json!({
        "number": it.number,
        "at": it.at.to_string(),
        "level": it.line.level,
        "event_id": named(&it.event_id),
        "version": it.version,
        "sha256": it.digest.to_string(),
        "message": it.line.message,
    })
}

/// What a call came to, and what it cost.
pub(super) fn outcome(called: &Called) -> Value {
    let mut rendered = json!({
        "outcome": match &called.verdict {
            Ok(Verdict::Drop(_)) => "drop",
            Ok(Verdict::Split(_)) => "split",
            Ok(Verdict::Deliver | Verdict::Replace(_)) => "deliver",
            Err(_) => "error",
        },
        "duration_us": u64::try_from(called.duration.as_micros()).unwrap_or(u64::MAX),
        "fuel": called.fuel,
    });
    match &called.verdict {
        Ok(Verdict::Drop(reason)) => rendered["reason"] = reason.as_str().into(),
        Err(fault) => {
            rendered["error"] = json!({ "code": fault.kind.name(), "detail": fault.detail });
        }
        Ok(_) => {}
    }
    rendered
}

/// What becomes of an event with this `data`, in a form in which two versions can be compared:
/// without what they cost.
pub(super) fn verdict(called: &Called, data: &Value) -> Value {
    let mut rendered = outcome(called);
    let members = rendered.as_object_mut().expect("it is an object");
    members.remove("duration_us");
    members.remove("fuel");
    let sent = match &called.verdict {
        Ok(Verdict::Deliver) => json!({ "data": data }),
        Ok(Verdict::Replace(out)) => outgoing(out),
        Ok(Verdict::Split(parts)) => {
            json!({ "parts": parts.iter().map(outgoing).collect::<Vec<_>>() })
        }
        Ok(Verdict::Drop(_)) | Err(_) => json!({}),
    };
    members.extend(sent.as_object().cloned().unwrap_or_default());
    rendered
}

fn outgoing(out: &Outgoing) -> Value {
    let text = || Value::String(String::from_utf8_lossy(&out.payload).into_owned());
    let mut rendered = json!({
        "data": serde_json::from_slice(&out.payload).unwrap_or_else(|_| text()),
    });
    if !is_json(&out.content_type) {
        rendered["content_type"] = out.content_type.as_str().into();
    }
    if !out.headers.is_empty() {
        let headers = out.headers.iter().map(|(name, it)| (name.clone(), it.clone().into()));
        rendered["headers"] = Value::Object(headers.collect());
    }
    if let Some(suffix) = &out.path_suffix {
        rendered["path_suffix"] = suffix.as_str().into();
    }
    rendered
}

/// A plugin that an attempt ran.
pub(super) fn run(it: &PluginRun) -> Value {
    json!({
        "plugin": it.plugin.as_str(),
        "version": it.version,
        "sha256": Digest(it.digest).to_string(),
        "outcome": it.outcome,
        "duration_us": u64::try_from(it.duration.as_micros()).unwrap_or(u64::MAX),
    })
}
