use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use crate::dispatch::plugin_chain::Rewritten;
use crate::domain::payload::{self, Payload};
use crate::domain::{Endpoint, Event, Timestamp, TraceContext, Trigger};
use crate::world::Request;

const USER_AGENT: HeaderValue =
    HeaderValue::from_static(concat!("hookgate/", env!("CARGO_PKG_VERSION")));
const WEBHOOK_REPLAY: HeaderName = HeaderName::from_static("webhook-replay");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// How many deliveries led to this request, itself counted. Who publishes what it received, and
/// sends this along, ends a loop.
const WEBHOOK_HOPS: HeaderName = HeaderName::from_static("webhook-hops");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const FORBIDDEN: &str = "a header's value has forbidden characters";

/// The request of an attempt at `now`, signed afresh.
///
/// # Errors
/// A sentence when the endpoint's settings make no request; they were checked when it was saved.
pub(super) fn build(
    endpoint: &Endpoint,
    event: &Event,
    rewritten: &Rewritten,
    (shard, now): (u16, Timestamp),
) -> Result<Request, String> {
    let url = match rewritten.path_suffix.as_str() {
        "" => endpoint.url.clone(),
        suffix => {
            let mut url: Url = endpoint.url.parse().map_err(|it| format!("the URL: {it}"))?;
            url.set_path(&format!("{}{suffix}", url.path()));
            url.into()
        }
    };
    let (body, headers) = body_and_headers(endpoint, event, rewritten)?;
    let headers = signed(endpoint, event, headers, &body, now)?;
    let pool = u64::from(shard) << 32 | u64::from(endpoint.no.0);
    let (tls, timeout) = (endpoint.tls.clone(), endpoint.timeout);
    Ok(Request { pool, url, headers, body, timeout, tls })
}

/// Tells the receiver which trace this belongs to. What other systems put beside it (`tracestate`,
/// `baggage`) is not ours to hand on.
pub(super) fn trace(request: &mut Request, trace: Option<TraceContext>) {
    let value = trace.and_then(|it| HeaderValue::try_from(it.to_string()).ok());
    if let Some(value) = value {
        request.headers.insert(TRACEPARENT, value);
    }
}

/// A replayed event says so, to receivers that must not do everything twice.
pub(super) fn mark(request: &mut Request, trigger: Trigger) {
    if trigger == Trigger::Replay {
        request.headers.insert(WEBHOOK_REPLAY, HeaderValue::from_static("true"));
    }
}

fn body_and_headers(
    endpoint: &Endpoint,
    event: &Event,
    rewritten: &Rewritten,
) -> Result<(Bytes, HeaderMap), String> {
    let mut headers = HeaderMap::with_capacity(8 + endpoint.headers.len());
    headers.insert(header::USER_AGENT, USER_AGENT);
    for (name, value) in &endpoint.headers {
        headers.insert(parse_name(name)?, parse_value(value)?);
    }
    for (name, value) in &rewritten.headers {
        headers.insert(parse_name(name)?, parse_value(value)?);
    }
    // What the format says of the event is not a plugin's to change.
    let content_type = rewritten.content_type.as_deref();
    let Payload { body, content_type, headers: of_format } =
        payload::render(endpoint.format, event, &rewritten.data, content_type);
    let content_type = match content_type {
        Cow::Borrowed(known) => HeaderValue::from_static(known),
        Cow::Owned(brought) => own_value(brought)?,
    };
    headers.insert(header::CONTENT_TYPE, content_type);
    for (name, value) in of_format {
        headers.insert(parse_name(&name)?, parse_value(&value)?);
    }
    Ok((body, headers))
}

fn signed(
    endpoint: &Endpoint,
    event: &Event,
    mut headers: HeaderMap,
    body: &Bytes,
    now: Timestamp,
) -> Result<HeaderMap, String> {
    let hops = match event.hops {
        0 => HeaderValue::from_static("1"),
        some => HeaderValue::from(some + 1),
    };
    headers.insert(WEBHOOK_HOPS, hops);
    let (signature, of) = (&endpoint.signature, (event.id.as_str(), now.as_secs()));
    // Every endpoint is told both, whatever its signature tells.
    if !signature.tells_usual_id() {
        headers.insert(WEBHOOK_ID, parse_value(event.id.as_str())?);
        headers.insert(WEBHOOK_TIMESTAMP, own_value(now.as_secs().to_string())?);
    }
    for (name, value) in signature.headers(endpoint.secrets_at(now), of, body) {
        let name = match name.as_ref() {
            "webhook-id" => WEBHOOK_ID,
            "webhook-timestamp" => WEBHOOK_TIMESTAMP,
            "webhook-signature" => WEBHOOK_SIGNATURE,
            other => parse_name(other)?,
        };
        let value = match value {
            Cow::Borrowed(value) => parse_value(value),
            Cow::Owned(value) => own_value(value),
        };
        headers.insert(name, value?);
    }
    Ok(headers)
}

pub(super) fn parse_name(name: &str) -> Result<HeaderName, String> {
    name.parse().map_err(|_| format!("`{name}` is no header name"))
}

/// Of a text that is not needed any more, so that it is not copied.
fn own_value(value: String) -> Result<HeaderValue, String> {
    HeaderValue::try_from(value).map_err(|_| FORBIDDEN.to_owned())
}

pub(super) fn parse_value(value: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(value).map_err(|_| FORBIDDEN.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{EndpointNo, Scheme, Signature, event_for_tests};
    use crate::storage::conformance;

    #[test]
    fn every_endpoint_is_told_id_and_time_whatever_its_signature_tells() {
        let (event, now) = (event_for_tests("a.b", "1"), Timestamp(1_800_000_000_123));
        let rewritten = Rewritten {
            data: event.data.clone(),
            content_type: None,
            headers: Default::default(),
            path_suffix: String::new(),
        };
        let other = Signature { prefix: "svix".to_owned(), ..Signature::default() };
        let stripe = Signature { scheme: Scheme::Stripe, ..Signature::default() };
        for signature in [Signature::default(), other, stripe] {
            let endpoint = Endpoint { signature, ..conformance::endpoint(EndpointNo(1)) };
            let request = build(&endpoint, &event, &rewritten, (0, now)).unwrap();
            assert_eq!(request.headers[WEBHOOK_ID], event.id.as_str());
            assert_eq!(request.headers[WEBHOOK_TIMESTAMP], "1800000000");
            assert_eq!(request.headers[WEBHOOK_HOPS], "1");
        }
    }
}
