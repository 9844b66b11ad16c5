//! The body that an endpoint receives, in each format.

use std::{borrow::Cow, io::Write};

use bytes::Bytes;
use data_encoding::BASE64;

use crate::domain::{Event, Format, Timestamp};

const JSON: &str = "application/json";
/// Metadata of this prefix are attributes of CloudEvents: what came as one goes as one.
const ATTRIBUTE_PREFIX: &str = "ce-";
const ATTRIBUTE_CHARS_MAX: usize = 20;
/// What keeps its order, as CloudEvents'
/// [partitioning](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/partitioning.md)
/// says it: an event's ordering key goes out as what it comes in as.
const PARTITION_KEY: &str = "partitionkey";
/// Attributes that the gateway says itself.
const ATTRIBUTES_OWN: [&str; 7] =
    ["specversion", "id", "type", "time", "datacontenttype", "data", "data_base64"];

/// A body and the headers that belong to its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes to sign and send.
    pub body: Bytes,
    /// Its content type.
    pub content_type: Cow<'static, str>,
    /// Further headers of the format (CloudEvents' binary mode).
    pub headers: Vec<(String, String)>,
}

/// Renders `event` with `data` in place of the data it was published with. `content_type` is that
/// of the data if a plugin made something else than JSON of it: such data cannot stand in an
/// envelope and goes as it is.
pub fn render(format: Format, event: &Event, data: &Bytes, content_type: Option<&str>) -> Payload {
    match (format, content_type) {
        (Format::Envelope, None) => plain(JSON, envelope(event, data)),
        (Format::Raw, None) => plain(JSON, data.clone()),
        (Format::Envelope | Format::Raw, Some(other)) => plain(other.to_owned(), data.clone()),
        (Format::CloudEvents, other) => {
            let content_type = "application/cloudevents+json; charset=utf-8";
            plain(content_type, structured(event, data, other))
        }
        (Format::CloudEventsBinary, other) => {
            let header = |(name, value): (&str, String)| {
                (format!("{ATTRIBUTE_PREFIX}{name}"), percent_encoded(&value))
            };
            let headers = attributes(event).into_iter().map(header).collect();
            let content_type = other.unwrap_or_else(|| json_type(event)).to_owned();
            Payload { headers, ..plain(content_type, data.clone()) }
        }
    }
}

fn plain(content_type: impl Into<Cow<'static, str>>, body: Bytes) -> Payload {
    Payload { body, content_type: content_type.into(), headers: Vec::new() }
}

/// Ids and types are of plain characters, so nothing needs to be escaped here.
fn envelope(event: &Event, data: &Bytes) -> Bytes {
    const AROUND: usize = r#"{"id":"","type":"","timestamp":"","data":}"#.len();
    let (id, event_type) = (event.id.as_str(), event.event_type.as_str());
    // As long as it gets: bytes made of a vector with room left have that noted apart.
    let length = AROUND + id.len() + event_type.len() + Timestamp::CHARS + data.len();
    let mut body = Vec::with_capacity(length);
    body.extend_from_slice(br#"{"id":""#);
    body.extend_from_slice(id.as_bytes());
    body.extend_from_slice(br#"","type":""#);
    body.extend_from_slice(event_type.as_bytes());
    body.extend_from_slice(br#"","timestamp":""#);
    write!(body, "{}", event.timestamp).expect("a vector takes all");
    body.extend_from_slice(br#"","data":"#);
    body.extend_from_slice(data);
    body.push(b'}');
    body.into()
}

/// An event in the
/// [JSON format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md)
/// of CloudEvents: data that is no JSON is in `data_base64`.
fn structured(event: &Event, data: &Bytes, content_type: Option<&str>) -> Bytes {
    let mut body = String::from("{");
    for (name, value) in attributes(event) {
        match is_literal(event, name, &value) {
            true => body.push_str(&format!("\"{name}\":{value},")),
            false => push_member(&mut body, name, &value),
        }
    }
    let data_type = content_type.unwrap_or_else(|| json_type(event));
    push_member(&mut body, "datacontenttype", data_type);
    match content_type {
        None => [body.as_bytes(), b"\"data\":", data, b"}"].concat().into(),
        Some(_) => {
            body.push_str("\"data_base64\":\"");
            BASE64.encode_append(data, &mut body);
            body.push_str("\"}");
            body.into()
        }
    }
}

/// What JSON calls itself in this event: as it came, where it came as a CloudEvent.
fn json_type(event: &Event) -> &str {
    let brought = event.metadata.get("ce-datacontenttype").map(String::as_str);
    let is_json = |it: &&str| {
        let essence = it.split(';').next().unwrap_or_default().trim_end();
        essence.ends_with("json") && it.bytes().all(|it| (0x20..0x7f).contains(&it))
    };
    brought.filter(is_json).unwrap_or(JSON)
}

/// Whether an attribute came as a number or boolean of JSON, and still is one: those that the format
/// has (2.2, Integer and Boolean).
fn is_literal(event: &Event, name: &str, value: &str) -> bool {
    let came = || event.literals.contains(&format!("{ATTRIBUTE_PREFIX}{name}"));
    let whole = || value.parse::<i32>().is_ok_and(|it| it.to_string() == value);
    !event.literals.is_empty() && came() && (matches!(value, "true" | "false") || whole())
}

fn push_member(body: &mut String, name: &str, value: &str) {
    let escaped = serde_json::Value::from(value).to_string();
    body.push_str(&format!("\"{name}\":{escaped},"));
}

/// The attributes of an event, those that it came with included. `source` and `id` together are
/// what a CloudEvent is known by: with the producer's source goes the producer's id, be it one that
/// could not be ours.
fn attributes(event: &Event) -> Vec<(&str, String)> {
    let brought = |name: &str| event.metadata.get(name).filter(|it| !it.is_empty());
    let id = brought("ce-source").and_then(|_| brought("ce-id"));
    let mut attributes = vec![
        ("specversion", "1.0".to_owned()),
        ("id", id.cloned().unwrap_or_else(|| event.id.to_string())),
        ("type", event.event_type.to_string()),
        ("time", event.timestamp.to_string()),
    ];
    let brought = event.metadata.iter();
    let brought = brought.filter_map(|(name, value)| Some((name.strip_prefix("ce-")?, value)));
    let brought = brought.filter(|(name, value)| {
        let plain = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit();
        let named = (1..=ATTRIBUTE_CHARS_MAX).contains(&name.len()) && name.bytes().all(plain);
        named && !ATTRIBUTES_OWN.contains(name) && !value.is_empty()
    });
    attributes.extend(brought.map(|(name, value)| (name, value.clone())));
    if let Some(key) = event.ordering_key.as_deref().filter(|it| !it.is_empty())
        && !attributes.iter().any(|(name, _)| *name == PARTITION_KEY)
    {
        attributes.push((PARTITION_KEY, key.to_owned()));
    }
    if !attributes.iter().any(|(name, _)| *name == "source") {
        attributes.push(("source", format!("/tenants/{}", event.tenant)));
    }
    attributes
}

/// As the
/// [HTTP binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values)
/// writes attributes in headers.
fn percent_encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'"' | b'%' | ..=0x20 | 0x7f.. => text.push_str(&format!("%{byte:02X}")),
            plain => text.push(char::from(plain)),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_for_tests as event;

    #[test]
    fn json_keeps_the_media_type_that_it_came_with() {
        let mut event = event("order.created", "");
        for (brought, told) in [
            ("application/vnd.shop+json", "application/vnd.shop+json"),
            ("application/json; charset=utf-8", "application/json; charset=utf-8"),
            ("text/plain", JSON),
            ("application/json\n", JSON),
        ] {
            event.metadata.insert("ce-datacontenttype".to_owned(), brought.to_owned());
            let data = Bytes::from_static(b"1");
            let binary = render(Format::CloudEventsBinary, &event, &data, None);
            assert_eq!(binary.content_type, told);
            let structured = render(Format::CloudEvents, &event, &data, None);
            let body: serde_json::Value = serde_json::from_slice(&structured.body).unwrap();
            assert_eq!(body["datacontenttype"], told);
        }
    }

    #[test]
    fn each_format_carries_the_data_untouched() {
        let event = event("order.created", "");
        let data = Bytes::from_static(br#"{ "n" : 1.0 }"#);
        for (format, _) in Format::NAMES {
            let payload = render(format, &event, &data, None);
            let text = String::from_utf8(payload.body.to_vec()).unwrap();
            assert!(text.contains(r#"{ "n" : 1.0 }"#), "{format:?}: {text}");
            serde_json::from_slice::<serde_json::Value>(&payload.body).unwrap();
        }
    }

    #[test]
    fn the_envelope_is_that_of_standard_webhooks() {
        let payload = render(Format::Envelope, &event("a.b", ""), &Bytes::from_static(b"1"), None);
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(body["type"], "a.b");
        assert_eq!(body["timestamp"], "2027-01-15T08:00:00.000Z");
        assert_eq!(body["data"], 1);
    }

    #[test]
    fn what_is_no_json_goes_as_it_is_or_in_base64() {
        let (event, data) = (event("a.b", ""), Bytes::from_static(b"a,b\n1,2\n"));
        for (format, content_type) in [
            (Format::Envelope, "text/csv"),
            (Format::Raw, "text/csv"),
            (Format::CloudEventsBinary, "text/csv"),
        ] {
            let payload = render(format, &event, &data, Some("text/csv"));
            assert_eq!((payload.body, &*payload.content_type), (data.clone(), content_type));
        }
        let payload = render(Format::CloudEvents, &event, &data, Some("text/csv"));
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(body["datacontenttype"], "text/csv");
        assert_eq!(body["data_base64"], BASE64.encode(&data));
        assert_eq!(body.get("data"), None);
    }

    #[test]
    fn attributes_that_came_go_on() {
        let mut event = event("a.b", "");
        for (name, value) in [
            ("ce-source", "/shop/\u{20ac}"),
            ("ce-subject", "a \"b\" 100%"),
            ("ce-id", "another"),
            ("ce-Bad", "x"),
            ("plain", "x"),
        ] {
            event.metadata.insert(name.to_owned(), value.to_owned());
        }
        let data = Bytes::from_static(b"{}");
        let payload = render(Format::CloudEventsBinary, &event, &data, None);
        let header = |name: &str| payload.headers.iter().find(|(it, _)| it == name);
        assert_eq!(header("ce-source").unwrap().1, "/shop/%E2%82%AC");
        assert_eq!(header("ce-subject").unwrap().1, "a%20%22b%22%20100%25");
        assert_eq!(header("ce-id").unwrap().1, "another");
        assert_eq!(payload.headers.len(), 6);
        let payload = render(Format::CloudEvents, &event, &data, None);
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(
            (&body["source"], &body["data"]),
            (&"/shop/\u{20ac}".into(), &serde_json::json!({}))
        );
        assert_eq!(body["subject"], "a \"b\" 100%");
        event.metadata.remove("ce-source");
        let payload = render(Format::CloudEventsBinary, &event, &data, None);
        let id = payload.headers.iter().find(|(it, _)| it == "ce-id");
        assert_eq!(id.unwrap().1, event.id.as_str(), "of our source, our id");
        event.metadata.clear();
        let payload = render(Format::CloudEvents, &event, &data, None);
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(body["source"], format!("/tenants/{}", event.tenant));
    }

    #[test]
    fn what_came_as_a_number_or_boolean_goes_as_one() {
        let mut event = event("a.b", "");
        for (name, value, literal) in [
            ("attempt", "-5", true),
            ("sampled", "true", true),
            ("zip", "01234", false),
            ("text", "5", false),
            // A plugin may have made something else of it.
            ("padded", "05", true),
            ("word", "many", true),
            ("vast", "2147483648", true),
        ] {
            event.metadata.insert(format!("ce-{name}"), value.to_owned());
            if literal {
                event.literals.insert(format!("ce-{name}"));
            }
        }
        let payload = render(Format::CloudEvents, &event, &Bytes::from_static(b"{}"), None);
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!((&body["attempt"], &body["sampled"]), (&(-5).into(), &true.into()));
        for (name, text) in [
            ("zip", "01234"),
            ("text", "5"),
            ("padded", "05"),
            ("word", "many"),
            ("vast", "2147483648"),
        ] {
            assert_eq!(body[name], text);
        }
        let payload = render(Format::CloudEventsBinary, &event, &Bytes::from_static(b"{}"), None);
        assert!(payload.headers.contains(&("ce-attempt".to_owned(), "-5".to_owned())));
    }

    #[test]
    fn an_ordering_key_goes_out_as_what_it_comes_in_as() {
        let (mut event, data) = (event("a.b", ""), Bytes::from_static(b"{}"));
        let keys = |event: &Event| {
            let payload = render(Format::CloudEventsBinary, event, &data, None);
            let keys = payload.headers.into_iter().filter(|(name, _)| name == "ce-partitionkey");
            keys.map(|it| it.1).collect::<Vec<_>>()
        };
        event.ordering_key = None;
        assert!(keys(&event).is_empty());
        event.ordering_key = Some("customer 7".to_owned());
        assert_eq!(keys(&event), ["customer%207"]);
        let payload = render(Format::CloudEvents, &event, &data, None);
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(body["partitionkey"], "customer 7");
        event.metadata.insert("ce-partitionkey".to_owned(), "its own".to_owned());
        assert_eq!(keys(&event), ["its%20own"]);
    }
}
