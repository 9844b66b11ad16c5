//! Whatever a producer or a tenant sends, reading it ends in a value or in a problem that says
//! what is wrong.

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::api::endpoint_body::{Surroundings, Wish, render};
use crate::api::fields::Fields;
use crate::api::page::Query;
use crate::api::{cloud_event, event_body, wire};
use crate::storage::conformance;
use crate::world::egress::{EgressPolicy, Target};
use crate::world::{Request, SendResult, Transport};

const DATA_BYTES_MAX: usize = 64 * 1024;

/// An event, and each line as one.
pub fn event(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    let lines = whole.split(|it| *it == b'\n');
    for text in std::iter::once(&whole[..]).chain(lines) {
        if let Ok(event) = event_body::read(&whole, text, "", DATA_BYTES_MAX) {
            let data = serde_json::from_slice::<serde_json::Value>(&event.data);
            data.expect("what is stored is JSON");
        }
    }
}

/// Events with all there is to say.
pub fn event_seeds() -> Vec<Vec<u8>> {
    let full = r#"{"id": "o-1", "type": "order.created", "timestamp": "2026-01-31T12:00:00Z",
        "ordering_key": "k", "metadata": {"region": "eu"}, "data": {"amount": 1.50}}"#;
    let lines = "{\"type\":\"a.b\",\"data\":1}\n\n{\"type\":\"a.b\",\"data\":[null]}\n";
    [full, lines].map(|it| it.as_bytes().to_vec()).into()
}

/// A CloudEvent: structured, or in headers with its data behind an empty line.
pub fn cloud_event(bytes: &[u8]) {
    let whole = Bytes::copy_from_slice(bytes);
    let _ = cloud_event::structured(&whole, &whole, "", DATA_BYTES_MAX);
    let text = String::from_utf8_lossy(bytes);
    let (head, data) = text.split_once("\n\n").unwrap_or((&text, ""));
    let mut headers = HeaderMap::new();
    for (name, value) in head.lines().filter_map(|it| it.split_once(": ")) {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.append(name, value);
        }
    }
    let _ = cloud_event::binary(&headers, data.to_owned().into(), DATA_BYTES_MAX);
}

/// One in each form.
pub fn cloud_event_seeds() -> Vec<Vec<u8>> {
    let structured = r#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "a.b",
        "time": "2026-01-31T12:00:00Z", "partitionkey": "k", "x": true, "data_base64": "MQ=="}"#;
    let binary = "ce-specversion: 1.0\nce-id: 1\nce-source: /a%20b\nce-type: a.b\n\n{\"a\":1}";
    [structured, binary].map(|it| it.as_bytes().to_vec()).into()
}

/// An endpoint's JSON.
pub fn endpoint(bytes: &[u8]) {
    let Ok(value) = serde_json::from_slice(bytes) else { return };
    let Ok(fields) = Fields::of(value, "") else { return };
    let around = Surroundings { transport: &Nowhere(EgressPolicy::default()), plugin: &|_| None };
    if let Ok(wish) = Wish::read(fields, &around) {
        render(&wish.write(conformance::endpoint(crate::domain::EndpointNo(1))));
    }
}

/// An endpoint with all there is to say.
pub fn endpoint_seeds() -> Vec<Vec<u8>> {
    let full = r#"{"url": "https://shop.example.com/hooks", "event_types": ["order.*", "a.**"],
        "filter": "data.amount > 10 && type.startsWith('order')", "format": "raw",
        "headers": {"x-team": "billing"}, "signature": {"scheme": "github"},
        "retry": {"schedule": ["5s", "1m"], "jitter": 0.2}, "timeout": "10s",
        "ordering": "key", "max_in_flight": 8, "rate_limit": {"per_second": 10, "burst": 20},
        "metadata": {"a": "b"}, "description": "d", "plugins": []}"#;
    let backoff = r#"{"url": "https://8.8.8.8/", "retry": {"backoff": {"base": "1s",
        "factor": 2.0, "max_delay": "1h", "max_attempts": 8}}, "secret": "whsec_AAAA"}"#;
    [full, backoff].map(|it| it.as_bytes().to_vec()).into()
}

/// A query with a cursor, a time and a limit; a duration.
pub fn query(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    // Parts that are near the greatest add up to more than it.
    let known = wire::parse_duration(&text).filter(|it| it.as_millis() < 1 << 53);
    if let Some(duration) = known {
        assert_eq!(wire::parse_duration(&wire::duration_exact(duration)), Some(duration));
    }
    if let Some(time) = wire::parse_time(&text) {
        assert_eq!(wire::parse_time(&time.to_string()), Some(time));
    }
    let Ok(uri) = format!("/?{text}").parse() else { return };
    let Ok(query) = Query::parse(&uri, &["cursor", "limit", "since"]) else { return };
    let _ = (query.limit().is_ok(), query.time("since").is_ok());
    let _ = query.cursor::<1>("list").is_ok();
    if let Ok(Some(numbers)) = query.cursor::<2>("list") {
        let cursor = crate::api::page::cursor("list", &numbers);
        assert_eq!(crate::api::page::parse_cursor("list", &cursor), Some(numbers));
    }
}

/// Each of them.
pub fn query_seeds() -> Vec<Vec<u8>> {
    let cursor = crate::api::page::cursor("list", &[1, u64::MAX]);
    let query = format!("cursor={cursor}&limit=10&since=2026-01-31T12:00:00Z");
    let others = ["1h30m", "250ms", "2026-01-31T12:00:00.123+02:00"].map(str::to_owned);
    std::iter::once(query).chain(others).map(String::into_bytes).collect()
}

/// Knows where requests may go, and makes none.
pub(super) struct Nowhere(pub(super) EgressPolicy);

#[async_trait]
impl Transport for Nowhere {
    async fn send(&self, _: Request) -> SendResult {
        unreachable!("nothing is sent")
    }

    fn check_url(&self, url: &str) -> Result<Url, (&'static str, String)> {
        let target = Target::parse(url, &self.0).map_err(|it| (it.code, it.detail))?;
        Ok(target.url)
    }
}
