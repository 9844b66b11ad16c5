//! What the hooks are given.

use rquickjs::{Ctx, Exception, Function, Object, Result, TypedArray, Value};

use crate::bindings::hookgate::plugin::keys::{Algorithm, hmac, hmac_each};
use crate::bindings::hookgate::plugin::types::{Event, Incoming, Request, Response};

/// `{id, type, timestamp, contentType, metadata, orderingKey, data}`.
pub(crate) fn event<'js>(ctx: &Ctx<'js>, it: &Event) -> Result<Object<'js>> {
    let event = Object::new(ctx.clone())?;
    event.set("id", it.id.as_str())?;
    event.set("type", it.event_type.as_str())?;
    event.set("timestamp", it.timestamp_ms as f64)?;
    event.set("contentType", it.content_type.as_str())?;
    event.set("metadata", object(ctx, &it.metadata)?)?;
    event.set("orderingKey", it.ordering_key.as_deref())?;
    event.set("data", data(ctx, &it.content_type, &it.payload)?)?;
    Ok(event)
}

/// As an event, but that it has no content type, and an id only if the producer gave one. `raw`
/// is the text of the data as it came, which a signature of the producer's may be over.
pub(crate) fn incoming<'js>(ctx: &Ctx<'js>, it: &Incoming) -> Result<Object<'js>> {
    let event = Object::new(ctx.clone())?;
    event.set("id", it.id.as_deref())?;
    event.set("type", it.event_type.as_str())?;
    event.set("timestamp", it.timestamp_ms as f64)?;
    event.set("metadata", object(ctx, &it.metadata)?)?;
    event.set("orderingKey", it.ordering_key.as_deref())?;
    event.set("raw", &*String::from_utf8_lossy(&it.payload))?;
    event.set("data", ctx.json_parse(it.payload.as_slice())?)?;
    Ok(event)
}

/// `{status, headers, body, data}`; `data` where the body is JSON.
pub(crate) fn response<'js>(ctx: &Ctx<'js>, it: &Response) -> Result<Object<'js>> {
    let response = Object::new(ctx.clone())?;
    response.set("status", it.status)?;
    response.set("headers", object(ctx, &it.headers)?)?;
    response.set("body", &*String::from_utf8_lossy(&it.body))?;
    match ctx.json_parse(it.body.as_slice()) {
        Ok(data) => response.set("data", data)?,
        // What the parser threw is of no interest.
        Err(_) => drop(ctx.catch()),
    }
    Ok(response)
}

/// `{id, timestamp, path, headers, body, bytes}`; `timestamp` in seconds, as in the header.
pub(crate) fn request<'js>(ctx: &Ctx<'js>, it: &Request) -> Result<Object<'js>> {
    let request = Object::new(ctx.clone())?;
    request.set("id", it.id.as_str())?;
    request.set("timestamp", it.timestamp as f64)?;
    request.set("path", it.path.as_str())?;
    request.set("headers", object(ctx, &it.headers)?)?;
    request.set("body", &*String::from_utf8_lossy(&it.body))?;
    request.set("bytes", TypedArray::<u8>::new_copy(ctx.clone(), &it.body)?)?;
    Ok(request)
}

/// `keys.hmac(algorithm, message)`, in hexadecimal digits; `hmacBase64`; and `hmacEach`,
/// `hmacEachBase64`, which give one for each secret that signs now.
pub(crate) fn keys<'js>(ctx: &Ctx<'js>) -> Result<Object<'js>> {
    let keys = Object::new(ctx.clone())?;
    for (name, show) in [("hmac", hex as fn(&[u8]) -> String), ("hmacBase64", base64)] {
        let one = move |ctx: Ctx<'js>, algorithm: String, message: Value<'js>| {
            let mac = hmac(algorithm_of(&ctx, &algorithm)?, &bytes_of(&ctx, &message)?);
            Result::Ok(show(&mac))
        };
        keys.set(name, Function::new(ctx.clone(), one)?)?;
    }
    for (name, show) in [("hmacEach", hex as fn(&[u8]) -> String), ("hmacEachBase64", base64)] {
        let each = move |ctx: Ctx<'js>, algorithm: String, message: Value<'js>| {
            let macs = hmac_each(algorithm_of(&ctx, &algorithm)?, &bytes_of(&ctx, &message)?);
            Result::Ok(macs.iter().map(|it| show(it)).collect::<Vec<_>>())
        };
        keys.set(name, Function::new(ctx.clone(), each)?)?;
    }
    Ok(keys)
}

/// Names and texts as an object.
pub(crate) fn object<'js>(ctx: &Ctx<'js>, pairs: &[(String, String)]) -> Result<Object<'js>> {
    let object = Object::new(ctx.clone())?;
    for (name, text) in pairs {
        object.set(name.as_str(), text.as_str())?;
    }
    Ok(object)
}

/// JSON as what it says, anything else as text.
fn data<'js>(ctx: &Ctx<'js>, content_type: &str, payload: &[u8]) -> Result<Value<'js>> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    match essence == "application/json" || essence.ends_with("+json") {
        true => ctx.json_parse(payload),
        false => {
            let text = String::from_utf8_lossy(payload);
            Ok(rquickjs::String::from_str(ctx.clone(), &text)?.into_value())
        }
    }
}

fn algorithm_of(ctx: &Ctx<'_>, name: &str) -> Result<Algorithm> {
    match name {
        "sha1" => Ok(Algorithm::Sha1),
        "sha256" => Ok(Algorithm::Sha256),
        "sha512" => Ok(Algorithm::Sha512),
        _ => Err(Exception::throw_range(ctx, "the algorithm is sha1, sha256 or sha512")),
    }
}

fn bytes_of(ctx: &Ctx<'_>, message: &Value<'_>) -> Result<Vec<u8>> {
    if let Some(text) = message.as_string() {
        return Ok(text.to_string()?.into_bytes());
    }
    let array = message.as_object().and_then(|it| it.as_typed_array::<u8>());
    let wrong = || Exception::throw_type(ctx, "a message is a string or a Uint8Array");
    let array = array.ok_or_else(wrong)?;
    (0..array.len() as u32).map(|place| array.as_object().get(place)).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let whole = group.iter().fold(0_u32, |it, byte| it << 8 | u32::from(*byte));
        let whole = whole << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(whole >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { digit as char } else { '=' });
        }
    }
    text
}
