//! [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) on
//! their way in, in the three forms of its HTTP binding. What an event says beside its data is
//! kept as metadata named `ce-…`, so that nothing of it is lost.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
};

use bytes::Bytes;
use data_encoding::BASE64;
use http::HeaderMap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Value, value::RawValue};

use crate::api::problem::{FieldError, Problem, Result};
use crate::api::wire::parse_time;
use crate::api::{body, event_body, fields};
use crate::domain::{EventId, EventType};
use crate::storage::NewEvent;

const EXTENSION_CHARS_MAX: usize = 20;
/// The extension that keeps events in order
/// ([partitioning](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/partitioning.md)).
const PARTITION_KEY: &str = "partitionkey";

/// Attributes that are texts whatever they look like; others may be numbers or booleans.
const TEXTS: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    PARTITION_KEY,
];

/// An event's attributes as text, with what was wrong with them.
struct Attributes {
    texts: BTreeMap<String, String>,
    /// Those that came as a number or boolean of JSON.
    literals: BTreeSet<String>,
    errors: Vec<FieldError>,
    base: String,
}

/// An object's members; a map would keep one of those with the same name and hide the others.
#[derive(Default)]
struct Members<'a> {
    members: BTreeMap<String, &'a RawValue>,
    twice: Vec<String>,
}

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(from: D) -> std::result::Result<Self, D::Error> {
        struct Reader;
        impl<'a> Visitor<'a> for Reader {
            type Value = Members<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(
                self,
                mut from: A,
            ) -> std::result::Result<Self::Value, A::Error> {
                let mut read = Members::default();
                while let Some((name, value)) = from.next_entry::<String, &RawValue>()? {
                    match read.members.entry(name) {
                        Entry::Vacant(place) => drop(place.insert(value)),
                        Entry::Occupied(place) => read.twice.push(place.key().clone()),
                    }
                }
                Ok(read)
            }
        }
        from.deserialize_map(Reader)
    }
}

/// Reads one event in structured mode.
pub(super) fn structured(
    whole: &Bytes,
    text: &[u8],
    base: &str,
    data_bytes_max: usize,
) -> Result<NewEvent> {
    // Packed data is a third longer. What is wrong is told of what could be an event.
    let bytes_max = 2 * data_bytes_max + event_body::SURPLUS_BYTES_MAX;
    if text.len() > bytes_max {
        return Err(Problem::too_large(format!("the event is over {bytes_max} bytes")));
    }
    let Members { members, twice } = match serde_json::from_slice(text) {
        Ok(members) => members,
        Err(error) if error.is_data() => {
            let detail = "must be an object".to_owned();
            return Err(invalid(vec![FieldError { pointer: base.to_owned(), detail }]));
        }
        Err(error) => return Err(body::invalid_json(&error, text)),
    };
    let mut attributes = Attributes::new(base);
    for name in twice {
        attributes.refuse(&name, "comes twice");
    }
    let mut data = None;
    let given = |name: &str| members.get(name).is_some_and(|it| it.get() != "null");
    if given("data") && given("data_base64") {
        attributes.refuse("data_base64", "comes beside `data`: send one of them");
    }
    for (name, value) in members {
        match name.as_str() {
            "data" => {
                let value = value.get().as_bytes();
                data = Some((whole.slice_ref(value), event_body::place_of(value, text)));
            }
            "data_base64" if value.get() == "null" => {}
            "data_base64" => match unpacked(value.get()) {
                Some(bytes) => data = Some((bytes, 0)),
                None => attributes.refuse(&name, "must be base64 of a JSON text"),
            },
            _ => attributes.read(&name, value.get()),
        }
    }
    attributes.finish(data, data_bytes_max)
}

/// Base64 of JSON, which is what this gateway carries.
fn unpacked(json: &str) -> Option<Bytes> {
    let text: String = serde_json::from_str(json).ok()?;
    let bytes = BASE64.decode(text.as_bytes()).ok()?;
    serde_json::from_slice::<&RawValue>(&bytes).ok()?;
    Some(bytes.into())
}

/// Reads one event in binary mode: its attributes are headers, its data is the body.
pub(super) fn binary(headers: &HeaderMap, data: Bytes, data_bytes_max: usize) -> Result<NewEvent> {
    let mut attributes = Attributes::new("");
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix("ce-") else { continue };
        match value.to_str().ok().and_then(|it| percent_decoded(&unquoted(it))) {
            Some(text) => attributes.put(name, text),
            None => attributes.refuse(name, "is not percent-encoded UTF-8"),
        }
    }
    if let Some(content_type) = headers.get(http::header::CONTENT_TYPE) {
        let text = content_type.to_str().unwrap_or_default().to_owned();
        attributes.put("datacontenttype", text);
    }
    // Of anything but JSON, what is wrong is its type.
    let carried = attributes.texts.get("datacontenttype").is_none_or(|it| is_json(it));
    if carried
        && !data.is_empty()
        && let Err(error) = serde_json::from_slice::<&RawValue>(&data)
    {
        return Err(body::invalid_json(&error, &data));
    }
    attributes.finish((!data.is_empty()).then_some((data, 0)), data_bytes_max)
}

/// What a quoted string says (RFC 9110, 5.6.4), which a header of an attribute may be (CloudEvents'
/// HTTP binding 1.0.2, 3.1.3.2); anything else is itself.
fn unquoted(text: &str) -> Cow<'_, str> {
    let inner = text.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let Some(inner) = inner else { return text.into() };
    let (mut said, mut chars) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(char) = chars.next() {
        match char {
            '\\' => match chars.next() {
                Some(escaped) => said.push(escaped),
                None => return text.into(),
            },
            '"' => return text.into(),
            char => said.push(char),
        }
    }
    said.into()
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail.split_at_checked(2)) {
            (b'%', Some((digits, behind))) => {
                let digits = std::str::from_utf8(digits).ok()?;
                if !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
                    return None;
                }
                bytes.push(u8::from_str_radix(digits, 16).ok()?);
                rest = behind;
            }
            (b'%', None) => return None,
            _ => bytes.push(*first),
        }
    }
    String::from_utf8(bytes).ok()
}

fn invalid(errors: Vec<FieldError>) -> Problem {
    let only_type = errors.len() == 1 && errors[0].pointer.ends_with("/type");
    Problem::fields(if only_type { "invalid_event_type" } else { "invalid_cloudevent" }, errors)
}

impl Attributes {
    fn new(base: &str) -> Self {
        let (texts, literals, errors) = Default::default();
        Self { texts, literals, errors, base: base.to_owned() }
    }

    fn refuse(&mut self, name: &str, detail: impl Into<String>) {
        let name = fields::shown(name).replace('~', "~0").replace('/', "~1");
        let pointer = format!("{}/{name}", self.base);
        self.errors.push(FieldError { pointer, detail: detail.into() });
    }

    /// An attribute of the JSON format: a string, a boolean or a whole number; `null` is none.
    fn read(&mut self, name: &str, json: &str) {
        match serde_json::from_str(json) {
            Ok(Value::Null) => {}
            Ok(Value::String(text)) => self.put(name, text),
            Ok(Value::Bool(it)) => self.put_literal(name, it.to_string()),
            Ok(Value::Number(it)) if it.is_i64() => self.put_literal(name, it.to_string()),
            _ => self.refuse(name, "must be a string, a boolean or a whole number"),
        }
    }

    fn put_literal(&mut self, name: &str, text: String) {
        if !TEXTS.contains(&name) {
            self.literals.insert(name.to_owned());
        }
        self.put(name, text);
    }

    fn put(&mut self, name: &str, text: String) {
        let plain = name.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit());
        if name == "data" {
            self.refuse(name, "is no name for an attribute; the data is the body");
            return;
        }
        let known = name == "datacontenttype";
        if !plain || name.is_empty() || (name.len() > EXTENSION_CHARS_MAX && !known) {
            self.refuse(name, "is no attribute: 1 to 20 of a-z0-9");
            return;
        }
        self.texts.insert(name.to_owned(), text);
    }

    fn need(&mut self, name: &str) -> String {
        match self.texts.get(name) {
            Some(text) if !text.is_empty() => return text.clone(),
            Some(_) => self.refuse(name, "must not be empty"),
            None if self.errors.iter().any(|it| it.pointer.ends_with(&format!("/{name}"))) => {}
            None => self.refuse(name, "is required"),
        }
        String::new()
    }

    /// The event, with its data and the byte of the event that this begins at.
    fn finish(mut self, data: Option<(Bytes, usize)>, data_bytes_max: usize) -> Result<NewEvent> {
        if !matches!(self.need("specversion").as_str(), "" | "1.0") {
            self.refuse("specversion", "this gateway takes CloudEvents 1.0");
        }
        let (id, source, named) = (self.need("id"), self.need("source"), self.need("type"));
        let event_type = EventType::choose(&named);
        if event_type.is_none() && !named.is_empty() {
            self.refuse("type", format!("must be {}", event_body::TYPE_FORM));
        }
        let timestamp = self.texts.get("time").map(|it| parse_time(it));
        if timestamp == Some(None) {
            self.refuse("time", "must be a time such as 2026-01-31T12:00:00Z");
        }
        if !self.texts.get("datacontenttype").is_none_or(|it| is_json(it)) {
            self.refuse("datacontenttype", "this gateway carries JSON: application/json or …+json");
        }
        let Some(event_type) = event_type.filter(|_| self.errors.is_empty()) else {
            return Err(invalid(self.errors));
        };
        let (data, from) = data.unwrap_or_else(|| (Bytes::from_static(b"null"), 0));
        event_body::check_data(&data, from, data_bytes_max)?;
        let mut event = NewEvent::new(event_type, data);
        event.preferred_id = EventId::choose(&id);
        event.origin = Some(format!("{source}\n{id}"));
        event.timestamp = timestamp.flatten();
        event.ordering_key = self.texts.get(PARTITION_KEY).cloned();
        // Plain JSON is what there is without saying so.
        let kept = |name: &str, text: &str| match name {
            "specversion" | "type" | "time" => false,
            "datacontenttype" => !text.eq_ignore_ascii_case("application/json"),
            _ => true,
        };
        let kept = self.texts.into_iter().filter(|(name, text)| kept(name, text));
        event.metadata = kept.map(|(name, text)| (format!("ce-{name}"), text)).collect();
        event.literals = self.literals.into_iter().map(|name| format!("ce-{name}")).collect();
        event_body::check_metadata(&event)?;
        Ok(event)
    }
}

fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<NewEvent> {
        let whole = Bytes::from(value.to_string());
        structured(&whole, &whole, "", 1024)
    }

    #[test]
    fn a_structured_event_keeps_all_it_says() {
        let event = read(&json!({
            "specversion": "1.0", "id": "A234-1234", "source": "https://shop.example/orders",
            "type": "order.created", "time": "2018-04-05T17:31:00Z", "subject": 123,
            "datacontenttype": "application/json", "partitionkey": "eu", "comexampleothervalue": 5,
            "sampled": true, "unsetextension": null, "data": { "n": 1 },
        }));
        let event = event.unwrap();
        assert_eq!(event.event_type.as_str(), "order.created");
        assert_eq!(event.preferred_id.as_ref().map(EventId::as_str), Some("A234-1234"));
        assert_eq!(event.origin.as_deref(), Some("https://shop.example/orders\nA234-1234"));
        assert_eq!(event.timestamp.unwrap().to_string(), "2018-04-05T17:31:00.000Z");
        assert_eq!(event.ordering_key.as_deref(), Some("eu"));
        assert_eq!(event.data, br#"{"n":1}"#[..]);
        for (name, text) in [
            ("ce-id", "A234-1234"),
            ("ce-source", "https://shop.example/orders"),
            ("ce-subject", "123"),
            ("ce-comexampleothervalue", "5"),
            ("ce-sampled", "true"),
        ] {
            assert_eq!(event.metadata[name], text);
        }
        assert!(!event.metadata.contains_key("ce-unsetextension"));
        let literals: Vec<_> = event.literals.iter().map(String::as_str).collect();
        assert_eq!(literals, ["ce-comexampleothervalue", "ce-sampled"]);
    }

    #[test]
    fn every_bad_attribute_is_named() {
        let problem = read(&json!({
            "specversion": "0.3", "id": "", "type": "a..b", "time": "yesterday", "Extension": "x",
            "nested": {}, "datacontenttype": "text/xml", "data": "<x/>",
        }));
        let errors = problem.unwrap_err().into_errors("").unwrap();
        let mut places: Vec<_> = errors.iter().map(|it| it.pointer.as_str()).collect();
        places.sort_unstable();
        let expected = ["/Extension", "/datacontenttype", "/id", "/nested", "/source"];
        assert_eq!(places, [&expected[..], &["/specversion", "/time", "/type"]].concat());
        let twice = r#"{"specversion":"1.0","id":"1","source":"a","type":"t","source":"b"}"#;
        let whole = Bytes::from_static(twice.as_bytes());
        let errors = structured(&whole, &whole, "/3", 10).unwrap_err().into_errors("").unwrap();
        assert_eq!((errors.len(), errors[0].pointer.as_str()), (1, "/3/source"));
        let vast = Bytes::from(format!(r#"{{"{}":1}}"#, "k".repeat(65 * 1024)));
        assert_eq!(structured(&vast, &vast, "", 10).unwrap_err().code(), "body_too_large");
    }

    #[test]
    fn a_binary_event_is_headers_and_a_body() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/a%20b/%E2%82%AC"),
            ("ce-type", "a.b"),
            ("content-type", "application/json; charset=utf-8"),
        ] {
            headers.insert(name, value.parse().unwrap());
        }
        let event = binary(&headers, Bytes::from_static(b"[1]"), 10).unwrap();
        assert_eq!(
            (event.data.as_ref(), event.metadata["ce-source"].as_str()),
            (&b"[1]"[..], "/a b/€")
        );
        let none = binary(&headers, Bytes::new(), 10).unwrap();
        assert_eq!(none.data, b"null"[..]);
        assert_eq!(
            binary(&headers, Bytes::from_static(b"[1"), 10).unwrap_err().code(),
            "invalid_json"
        );
        headers.insert("ce-subject", "%zz".parse().unwrap());
        assert!(binary(&headers, Bytes::new(), 10).is_err());
    }

    #[test]
    fn packed_data_is_taken_when_it_is_json() {
        let event = |data: &str| {
            read(&json!({
                "specversion": "1.0", "id": "1", "source": "/a", "type": "a.b", "data_base64": data,
            }))
        };
        assert_eq!(event("eyJhIjoxfQ==").unwrap().data, br#"{"a":1}"#[..]);
        assert!(event("/w==").is_err());
    }
}
