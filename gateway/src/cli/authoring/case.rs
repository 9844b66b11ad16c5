//! One case: what is asked, and what came of it in the form that cases are written in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::plugins::{
    Artifact, Asked, Call, Called, Classified, EventIn, Host, Incoming, Ingested, Outgoing,
    RequestIn, ResponseIn, Signed, Verdict,
};

const JSON: &str = "application/json";

/// What came of a case.
pub(super) struct Came {
    pub(super) answer: Value,
    pub(super) logs: Vec<String>,
    pub(super) duration: Duration,
}

/// Asks a plugin what the case says.
pub(super) async fn ask(host: &Host, artifact: &Arc<Artifact>, case: &Value) -> Result<Came> {
    let hooks = artifact.hooks();
    let known = ["config", "event", "response", "request", "secrets", "hook", "expect"];
    let members = case.as_object().context("a case is a JSON object")?;
    if let Some(unknown) = members.keys().find(|it| !known.contains(&it.as_str())) {
        bail!("`{unknown}` is no part of a case; there are {}", known.join(", "));
    }
    let (response, request) = (&case["response"], &case["request"]);
    let chosen = case["hook"].as_str();
    let config = texts(&case["config"], "config")?;
    let (artifact, expect) = (artifact.clone(), &case["expect"]);
    if !response.is_null() {
        let called = call(host, artifact, config, response_in(response)?).await;
        return Ok(came(called, expect, classified));
    }
    if !request.is_null() {
        let question = request_in(request, &case["secrets"])?;
        let called = call(host, artifact, config, question).await;
        return Ok(came(called, expect, signed));
    }
    let event = &case["event"];
    if event.is_null() {
        bail!("a case has an `event`, a `response` (to classify) or a `request` (to sign)");
    }
    let on_the_way = hooks.filter || hooks.transform;
    if chosen == Some("ingest") || (chosen.is_none() && !on_the_way) {
        let called = call(host, artifact, config, incoming(event)?).await;
        return Ok(came(called, expect, ingested));
    }
    let question = event_in(event)?;
    let data = event["data"].clone();
    let called = call(host, artifact, config, question).await;
    Ok(came(called, expect, |it| verdict(it, expect, data)))
}

async fn call<Q: Asked>(
    host: &Host,
    artifact: Arc<Artifact>,
    config: Vec<(String, String)>,
    question: Q,
) -> Called<Q::Answer> {
    host.call(Call {
        tenant: "author".into(),
        artifact,
        config,
        question,
        limits: None,
        dry: false,
    })
    .await
}

/// A case that expects `logs` is told them; otherwise they are only for showing.
fn came<A>(called: Called<A>, expect: &Value, render: impl FnOnce(A) -> Value) -> Came {
    let logs: Vec<_> = called.logs.into_iter().map(|it| it.message).collect();
    let mut answer = match called.verdict {
        Ok(answer) => render(answer),
        Err(fault) => json!({ "outcome": "error", "error": fault.detail }),
    };
    if expect.get("logs").is_some() {
        answer["logs"] = logs.clone().into();
    }
    Came { answer, logs, duration: called.duration }
}

fn event_in(event: &Value) -> Result<EventIn> {
    Ok(EventIn {
        id: text(event, "id").unwrap_or_else(|| "evt_case".to_owned()),
        event_type: text(event, "type").context("the event has no `type`")?,
        timestamp_ms: event["timestamp"].as_u64().unwrap_or_default(),
        content_type: text(event, "content_type").unwrap_or_else(|| JSON.to_owned()),
        metadata: texts(&event["metadata"], "metadata")?,
        ordering_key: text(event, "ordering_key"),
        payload: payload(event),
    })
}

fn incoming(event: &Value) -> Result<Incoming> {
    Ok(Incoming {
        id: text(event, "id"),
        event_type: text(event, "type").context("the event has no `type`")?,
        timestamp_ms: event["timestamp"].as_u64().unwrap_or_default(),
        metadata: texts(&event["metadata"], "metadata")?,
        ordering_key: text(event, "ordering_key"),
        payload: payload(event),
    })
}

fn response_in(response: &Value) -> Result<ResponseIn> {
    let status = response["status"].as_u64().and_then(|it| u16::try_from(it).ok());
    Ok(ResponseIn {
        event_id: "evt_case".to_owned(),
        timestamp_ms: 0,
        status: status.context("the response has no `status`")?,
        headers: texts(&response["headers"], "headers")?,
        body: body(response),
    })
}

fn request_in(request: &Value, secrets: &Value) -> Result<RequestIn> {
    let secrets = secrets.as_array().into_iter().flatten().map(|it| it.as_str());
    let key = |it: Option<&str>| it.map(|it| it.as_bytes().to_vec());
    let keys: Option<Vec<_>> = secrets.map(key).collect();
    let keys = keys.filter(|it| !it.is_empty());
    Ok(RequestIn {
        id: text(request, "id").unwrap_or_else(|| "evt_case".to_owned()),
        timestamp: request["timestamp"].as_u64().unwrap_or_default(),
        path: text(request, "path").unwrap_or_else(|| "/".to_owned()),
        headers: texts(&request["headers"], "headers")?,
        body: body(request),
        keys: keys.context("`secrets` must list the texts to sign with, newest first")?,
    })
}

/// `raw`: these very bytes, which a signature may be over; else `data` as JSON.
fn payload(event: &Value) -> Bytes {
    text(event, "raw").unwrap_or_else(|| event["data"].to_string()).into()
}

/// A text as it is, anything else as JSON.
fn body(it: &Value) -> Bytes {
    match &it["body"] {
        Value::Null => Bytes::new(),
        Value::String(text) => Bytes::from(text.clone()),
        json => Bytes::from(json.to_string()),
    }
}

fn text(of: &Value, name: &str) -> Option<String> {
    of[name].as_str().map(str::to_owned)
}

fn texts(value: &Value, what: &str) -> Result<Vec<(String, String)>> {
    let members = value.as_object().cloned().unwrap_or_else(Map::new);
    let pair = |(key, value): (String, Value)| {
        let value = value.as_str().ok_or_else(|| anyhow!("`{key}` in `{what}` must be a string"));
        Ok((key, value?.to_owned()))
    };
    members.into_iter().map(pair).collect()
}

/// A case whose event is delivered as it was need not repeat the data.
fn verdict(verdict: Verdict, expect: &Value, data: Value) -> Value {
    match verdict {
        Verdict::Drop(reason) => json!({ "outcome": "drop", "reason": reason }),
        Verdict::Deliver if expect.get("data").is_some() => {
            json!({ "outcome": "deliver", "data": data })
        }
        Verdict::Deliver => json!({ "outcome": "deliver" }),
        Verdict::Replace(out) => {
            let mut came = outgoing(out);
            came["outcome"] = "deliver".into();
            came
        }
        Verdict::Split(parts) => {
            let parts: Vec<_> = parts.into_iter().map(outgoing).collect();
            json!({ "outcome": "split", "parts": parts })
        }
    }
}

fn outgoing(out: Outgoing) -> Value {
    let mut came = json!({ "data": data(&out.payload) });
    if out.content_type != JSON {
        came["content_type"] = out.content_type.into();
    }
    if !out.headers.is_empty() {
        came["headers"] = object(out.headers);
    }
    if let Some(path) = out.path_suffix {
        came["path"] = path.into();
    }
    came
}

fn ingested(ingested: Ingested) -> Value {
    match ingested {
        Ingested::Accept => json!({ "outcome": "accept" }),
        Ingested::Reject(reason) => json!({ "outcome": "reject", "reason": reason }),
        Ingested::Replace(it) => {
            let mut came = json!({ "outcome": "accept", "type": it.event_type });
            came["data"] = data(&it.payload);
            if !it.metadata.is_empty() {
                came["metadata"] = object(it.metadata);
            }
            if let Some(key) = it.ordering_key {
                came["ordering_key"] = key.into();
            }
            came
        }
    }
}

fn classified(classified: Classified) -> Value {
    match classified {
        Classified::Undecided => json!({ "outcome": "undecided" }),
        Classified::Success => json!({ "outcome": "success" }),
        Classified::Failure(reason) => json!({ "outcome": "failure", "reason": reason }),
        Classified::Final(reason) => json!({ "outcome": "final", "reason": reason }),
    }
}

fn signed(headers: Signed) -> Value {
    json!({ "outcome": "signed", "headers": object(headers) })
}

fn data(payload: &[u8]) -> Value {
    let text = || Value::String(String::from_utf8_lossy(payload).into_owned());
    serde_json::from_slice(payload).unwrap_or_else(|_| text())
}

fn object(pairs: Vec<(String, String)>) -> Value {
    pairs.into_iter().map(|(name, it)| (name, Value::String(it))).collect()
}
