//! The body that an endpoint receives, in each format.

use bytes::Bytes;

use crate::domain::{Event, Format};

/// A body and the headers that belong to its format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// The bytes to sign and send.
    pub body: Bytes,
    /// Its content type.
    pub content_type: &'static str,
    /// Further headers of the format (CloudEvents' binary mode).
    pub headers: Vec<(&'static str, String)>,
}

/// Renders `event` with `data`, a JSON text, in place of the data it was published with.
pub fn render(format: Format, event: &Event, data: &Bytes) -> Payload {
    match format {
        Format::Envelope => json("application/json", envelope(event, data)),
        Format::Raw => json("application/json", data.clone()),
        Format::CloudEvents => {
            json("application/cloudevents+json; charset=utf-8", cloud_event(event, data))
        }
        Format::CloudEventsBinary => {
            let headers = vec![
                ("ce-specversion", "1.0".to_owned()),
                ("ce-id", event.id.to_string()),
                ("ce-source", source(event)),
                ("ce-type", event.event_type.to_string()),
                ("ce-time", event.timestamp.to_string()),
            ];
            Payload { body: data.clone(), content_type: "application/json", headers }
        }
    }
}

fn json(content_type: &'static str, body: Bytes) -> Payload {
    Payload { body, content_type, headers: Vec::new() }
}

/// Ids and types are of plain characters, so nothing needs to be escaped here.
fn envelope(event: &Event, data: &Bytes) -> Bytes {
    let mut body = Vec::with_capacity(data.len() + 128);
    body.extend_from_slice(br#"{"id":""#);
    body.extend_from_slice(event.id.as_str().as_bytes());
    body.extend_from_slice(br#"","type":""#);
    body.extend_from_slice(event.event_type.as_str().as_bytes());
    body.extend_from_slice(br#"","timestamp":""#);
    body.extend_from_slice(event.timestamp.to_string().as_bytes());
    body.extend_from_slice(br#"","data":"#);
    body.extend_from_slice(data);
    body.push(b'}');
    body.into()
}

fn cloud_event(event: &Event, data: &Bytes) -> Bytes {
    let head = format!(
        r#"{{"specversion":"1.0","id":"{}","source":"{}","type":"{}","time":"{}","datacontenttype":"application/json","data":"#,
        event.id,
        source(event),
        event.event_type,
        event.timestamp,
    );
    [head.as_bytes(), data, b"}"].concat().into()
}

fn source(event: &Event) -> String {
    format!("/tenants/{}", event.tenant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event_for_tests as event;

    #[test]
    fn each_format_carries_the_data_untouched() {
        let event = event("order.created", "");
        let data = Bytes::from_static(br#"{ "n" : 1.0 }"#);
        for (format, _) in Format::NAMES {
            let payload = render(format, &event, &data);
            let text = String::from_utf8(payload.body.to_vec()).unwrap();
            assert!(text.contains(r#"{ "n" : 1.0 }"#), "{format:?}: {text}");
            serde_json::from_slice::<serde_json::Value>(&payload.body).unwrap();
        }
    }

    #[test]
    fn the_envelope_is_that_of_standard_webhooks() {
        let payload = render(Format::Envelope, &event("a.b", ""), &Bytes::from_static(b"1"));
        let body: serde_json::Value = serde_json::from_slice(&payload.body).unwrap();
        assert_eq!(body["type"], "a.b");
        assert_eq!(body["timestamp"], "2027-01-15T08:00:00.000Z");
        assert_eq!(body["data"], 1);
    }
}
