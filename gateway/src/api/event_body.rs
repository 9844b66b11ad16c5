//! An event's JSON on its way in.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::api::body::{self, invalid_json};
use crate::api::fields::Fields;
use crate::api::json_limits;
use crate::api::problem::{FieldError, Problem, Result};
use crate::api::wire::parse_time;
use crate::domain::{EventId, EventType};
use crate::storage::NewEvent;

const ORDERING_KEY_BYTES_MAX: usize = 256;
const METADATA_BYTES_MAX: usize = 8 * 1024;
/// Room beside the data: the event's other members, and how its JSON is laid out.
pub(super) const SURPLUS_BYTES_MAX: usize = 64 * 1024;
/// How a producer's types look.
pub(super) const TYPE_FORM: &str = "segments of A-Za-z0-9_- with dots between, at most 256 \
                                    characters, but not hookgate.…, which the gateway raises itself";
/// How a caller's own ids look.
pub(super) const ID_FORM: &str = "1 to 64 of A-Za-z0-9._-, but not . or ..";

/// The form most events have. Whatever does not fit it is read again, slowly, to say why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain<'a> {
    #[serde(borrow, rename = "type")]
    event_type: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    timestamp: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    ordering_key: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    metadata: Option<&'a RawValue>,
}

/// Reads one event out of `whole`; `text` is the part of it that holds the event, and `base` its
/// pointer. The data stays in `whole`, uncopied.
pub(super) fn read(
    whole: &Bytes,
    text: &[u8],
    base: &str,
    data_bytes_max: usize,
) -> Result<NewEvent> {
    let plain = match serde_json::from_slice::<Plain<'_>>(text) {
        Ok(plain) => plain,
        // What is wrong with every member is told of what could be an event, not of anything.
        Err(_) if text.len() > data_bytes_max + SURPLUS_BYTES_MAX => {
            let max = data_bytes_max + SURPLUS_BYTES_MAX;
            return Err(Problem::too_large(format!("the event is over {max} bytes, and is none")));
        }
        Err(error) => return Err(explain(text, base, &error)),
    };
    let data = plain.data.get().as_bytes();
    check_data(data, place_of(data, text), data_bytes_max)?;
    let metadata = match plain.metadata {
        Some(raw) => read_metadata(raw, text)?,
        None => Some(BTreeMap::new()),
    };
    let event_type = EventType::choose(&plain.event_type);
    let id = plain.id.as_deref().map(EventId::choose);
    let timestamp = plain.timestamp.as_deref().map(parse_time);
    let ordering_key = plain.ordering_key.as_deref();
    let metadata = metadata.filter(|it| fits(it, ordering_key));
    match (event_type, id, timestamp, metadata) {
        (
            Some(event_type),
            id @ (None | Some(Some(_))),
            timestamp @ (None | Some(Some(_))),
            Some(metadata),
        ) => {
            let mut event = NewEvent::new(event_type, slice_of(whole, data));
            event.id = id.flatten();
            event.timestamp = timestamp.flatten();
            event.ordering_key = plain.ordering_key.map(Cow::into_owned);
            event.metadata = metadata;
            Ok(event)
        }
        _ => Err(explain_fields(text, base)),
    }
}

/// The event's metadata; nothing where it is no object of strings.
fn read_metadata(raw: &RawValue, text: &[u8]) -> Result<Option<BTreeMap<String, String>>> {
    let raw = raw.get().as_bytes();
    json_limits::check(raw)
        .map_err(|it| body::refused_json(it.of("metadata"), place_of(raw, text)))?;
    Ok(serde_json::from_slice::<Option<_>>(raw).map(Option::unwrap_or_default).ok())
}

/// At which byte of the whole a part of it begins.
pub(super) fn place_of(part: &[u8], whole: &[u8]) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

/// Whether an event may have these beside its data.
pub(super) fn fits(metadata: &BTreeMap<String, String>, ordering_key: Option<&str>) -> bool {
    let bytes: usize = metadata.iter().map(|(key, value)| key.len() + value.len()).sum();
    bytes <= METADATA_BYTES_MAX && ordering_key.is_none_or(|it| it.len() <= ORDERING_KEY_BYTES_MAX)
}

/// Whether data may be taken: its size, and what JSON should not look like. It begins at this byte
/// of the event.
pub(super) fn check_data(data: &[u8], from: usize, data_bytes_max: usize) -> Result<()> {
    if data.len() > data_bytes_max {
        return Err(Problem::too_large(format!("the event's data is over {data_bytes_max} bytes")));
    }
    json_limits::check(data).map_err(|it| body::refused_json(it.of("data"), from))
}

/// Whether metadata and ordering key are short enough.
pub(super) fn check_metadata(event: &NewEvent) -> Result<()> {
    if event.ordering_key.as_ref().is_some_and(|it| it.len() > ORDERING_KEY_BYTES_MAX) {
        let detail = format!("`partitionkey` is over {ORDERING_KEY_BYTES_MAX} bytes");
        return Err(Problem::unprocessable("invalid_cloudevent", detail));
    }
    match fits(&event.metadata, None) {
        true => Ok(()),
        false => {
            let detail = format!("the attributes are over {METADATA_BYTES_MAX} bytes");
            Err(Problem::unprocessable("invalid_cloudevent", detail))
        }
    }
}

fn slice_of(whole: &Bytes, part: &[u8]) -> Bytes {
    whole.slice_ref(part)
}

fn explain(text: &[u8], base: &str, error: &serde_json::Error) -> Problem {
    match error.classify() {
        serde_json::error::Category::Data => explain_fields(text, base),
        _ => invalid_json(error, text),
    }
}

/// Reads an event field by field, to name all that is wrong.
fn explain_fields(text: &[u8], base: &str) -> Problem {
    let value = match serde_json::from_slice::<Value>(text) {
        Ok(value) => value,
        Err(error) => return invalid_json(&error, text),
    };
    let mut fields = match Fields::of(value, base) {
        Ok(fields) => fields,
        Err(errors) => return Problem::invalid_fields(errors),
    };
    let event_type = fields.parsed("type", TYPE_FORM, EventType::choose);
    fields.need("type", event_type.as_ref());
    let has_data = fields.has("data");
    fields.take("data");
    if !has_data {
        fields.refuse("data", "is required");
    }
    fields.parsed("id", ID_FORM, EventId::choose);
    fields.parsed("timestamp", "a time such as 2026-01-31T12:00:00Z", parse_time);
    let fits = |it: &str| (it.len() <= ORDERING_KEY_BYTES_MAX).then_some(());
    fields.parsed("ordering_key", "a string of at most 256 bytes", fits);
    let metadata = fields.strings("metadata").unwrap_or_default();
    if metadata.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
        > METADATA_BYTES_MAX
    {
        fields.refuse("metadata", format!("is over {METADATA_BYTES_MAX} bytes"));
    }
    let only_type = |errors: &[FieldError]| {
        errors.len() == 1 && errors[0].pointer.ends_with("/type") && event_type.is_none()
    };
    match fields.finish() {
        Err(errors) if only_type(&errors) && errors[0].detail != "is required" => {
            Problem::fields("invalid_event_type", errors)
        }
        Err(errors) => Problem::invalid_fields(errors),
        // A member that comes twice, which a map does not show.
        Ok(()) => Problem::unprocessable("json_limits", "a member of the event comes twice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<NewEvent> {
        let whole = Bytes::copy_from_slice(text.as_bytes());
        read(&whole, &whole, "", 64)
    }

    #[test]
    fn an_event_is_read_without_copying_its_data() {
        let whole = Bytes::from_static(br#"{"type":"a.b","data":{ "n" : 1.0 },"id":"x"}"#);
        let event = read(&whole, &whole, "", 64).unwrap();
        assert_eq!(event.data, br#"{ "n" : 1.0 }"#[..]);
        assert!(whole.as_ptr_range().contains(&event.data.as_ptr()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let deep = format!(r#"{{"type":"a","dat":{}1{}}}"#, "[".repeat(200), "]".repeat(200));
        let vast = format!(r#"{{"type":"a","data":1,"{}":1}}"#, "k".repeat(65 * 1024));
        let big = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(80));
        for (text, code) in [
            (r#"{"type":"a..b","data":1}"#, "invalid_event_type"),
            (r#"{"type":"hookgate.dead_letter","data":1}"#, "invalid_event_type"),
            (r#"{"data":1}"#, "invalid_field"),
            (r#"{"type":"a"}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"dat":2}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"id":"a b"}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"id":".."}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"timestamp":"yesterday"}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"data":2}"#, "json_limits"),
            (r#"{"type":"a","data":1,"metadata":{"a":"1","a":"2"}}"#, "json_limits"),
            (r#"{"type":"a","data":1,"metadata":{"a":"\ud800"}}"#, "invalid_json"),
            (r#"{"type":"a","data":1,"metadata":{"a":1}}"#, "invalid_field"),
            (r#"{"type":"a","data":1,"metadata":[]}"#, "invalid_field"),
            (&deep, "json_limits"),
            (&vast, "body_too_large"),
            (r#"{"type":"a","#, "invalid_json"),
            (r#"[]"#, "invalid_field"),
            (&big, "body_too_large"),
        ] {
            assert_eq!(read_text(text).unwrap_err().code(), code, "{text}");
        }
        assert!(read_text(r#"{"type":"a","data":null}"#).is_ok());
        assert!(read_text(r#"{"type":"a","data":1,"metadata":null}"#).is_ok());
    }

    #[test]
    fn the_byte_that_is_told_is_one_of_the_event() {
        for text in [r#"{"type":"a","data":["\ud800"]}"#, r#"{"data":{"\ud800":1},"type":"a"}"#] {
            let problem = serde_json::to_value(read_text(text).unwrap_err()).unwrap();
            let place = text.find(r#""\ud800"#).unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&format!("at byte {place} ")), "{text}: {detail}");
        }
    }
}
