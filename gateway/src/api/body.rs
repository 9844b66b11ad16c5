use std::{future::poll_fn, pin::Pin, task::Poll, time::Duration};

use axum::{body::Body, extract::Request};
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use crate::api::body_memory::{BodyMemory, Held};
use crate::api::fields::Fields;
use crate::api::json_limits::{self, Fault};
use crate::api::problem::{Problem, Result};
use crate::api::unpack;

/// How long a client may pause in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a body may come as slowly as it likes. From then on it has to have come at
/// `BYTES_PER_SECOND_MIN` on the whole: a byte now and then would hold a connection for ever.
const SLOW_FOR: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: f64 = 1024.0;

/// What is read and dropped of a body that is refused for its size: a client that is still
/// writing when the connection closes would not see why.
const REST_BYTES_MAX: usize = 64 * 1024 * 1024;
const REST_PATIENCE: Duration = Duration::from_secs(5);
/// How much a body may have that says nothing.
const NOTHING_BYTES_MAX: usize = 1024;
/// What the parser says of JSON that is nested deeper than 128.
const TOO_DEEP: &str = "recursion limit exceeded";

/// Reads a whole body of at most `bytes_max` bytes, which is no lot.
pub(super) async fn read(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Bytes> {
    read_within(headers, body, bytes_max, None).await
}

/// Reads a whole body that may be large, as far as there is memory for it.
pub(super) async fn read_large(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    memory: &BodyMemory,
) -> Result<Bytes> {
    read_within(headers, body, bytes_max, Some(memory.hold())).await
}

async fn read_within(
    headers: &HeaderMap,
    mut body: Body,
    bytes_max: usize,
    mut held: Option<Held<'_>>,
) -> Result<Bytes> {
    let too_large = || Problem::too_large(format!("the body is over {bytes_max} bytes"));
    if headers.get(header::CONTENT_ENCODING).is_some_and(|it| it != "identity" && !it.is_empty()) {
        let detail = "this operation takes no packed body: send it without `Content-Encoding`";
        return Err(unpack::unsupported(detail));
    }
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    if announced.is_some_and(|it: u64| it > bytes_max as u64) {
        // Who asked first has sent nothing yet, and need not.
        if !headers.contains_key(header::EXPECT) {
            Box::pin(drop_rest(body)).await;
        }
        return Err(too_large());
    }
    // When it first had to be waited for.
    let mut started = None;
    let mut whole: Option<Bytes> = None;
    let mut parts = BytesMut::new();
    loop {
        let bytes = whole.as_ref().map_or(0, Bytes::len) + parts.len();
        let Some(frame) = next_frame(&mut body, bytes, &mut started).await? else { break };
        let Ok(data) = frame.map_err(|it| unpack::broken(&it))?.into_data() else { continue };
        if bytes + data.len() > bytes_max {
            Box::pin(drop_rest(body)).await;
            return Err(too_large());
        }
        if let Some(held) = &mut held {
            held.grow_to(bytes + data.len()).await?;
        }
        // Most bodies come in one piece, which is not copied.
        match whole.take() {
            None if parts.is_empty() => whole = Some(data),
            first => {
                parts.extend_from_slice(&first.unwrap_or_default());
                parts.extend_from_slice(&data);
            }
        }
    }
    let whole = whole.unwrap_or_else(|| parts.freeze());
    Ok(match held {
        Some(held) => held.with(whole),
        None => whole,
    })
}

/// What comes next, if it comes in time.
async fn next_frame(
    body: &mut Body,
    bytes: usize,
    started: &mut Option<Instant>,
) -> Result<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
    if body.is_end_stream() {
        return Ok(None);
    }
    if let Some(frame) = asked_twice(body.frame()).await {
        return Ok(frame);
    }
    let now = Instant::now();
    let (started, pause_ends) = (*started.get_or_insert(now), now + PATIENCE);
    let pace_ends =
        started + SLOW_FOR + Duration::from_secs_f64(bytes as f64 / BYTES_PER_SECOND_MIN);
    timeout_at(pause_ends.min(pace_ends), body.frame()).await.map_err(|_| {
        let detail = match pause_ends <= pace_ends {
            true => "the body did not go on for 10 s",
            false => "the body came at less than 1 KiB/s: send it at once",
        };
        Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
    })
}

/// What `work` comes to at once, or when it is asked again: only who was asked hands over a body that
/// came together with its head. To wait for that needs no clock.
async fn asked_twice<T>(mut work: impl Future<Output = T> + Unpin) -> Option<T> {
    let mut again = false;
    poll_fn(|context| match (Pin::new(&mut work).poll(context), again) {
        (Poll::Ready(it), _) => Poll::Ready(Some(it)),
        (Poll::Pending, true) => Poll::Ready(None),
        (Poll::Pending, false) => {
            again = true;
            context.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await
}

/// Reads on and drops what comes, within bounds.
pub(super) async fn drop_rest(mut body: Body) {
    let rest = timeout(REST_PATIENCE, async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > REST_BYTES_MAX {
                return;
            }
        }
    });
    // Too slow or too long: then the connection closes on whoever sends it.
    let _ = rest.await;
}

/// Sees that a request says nothing where nothing is taken: what it says would be ignored. Blanks, and
/// JSON without anything in it, are nothing.
pub(super) async fn need_none(request: Request) -> Result<Request> {
    if request.body().is_end_stream() {
        return Ok(request);
    }
    let (head, body) = request.into_parts();
    let bytes = read(&head.headers, body, NOTHING_BYTES_MAX).await.ok();
    let none = bytes.is_some_and(|it| match serde_json::from_slice(&it) {
        Ok(Value::Null) => true,
        Ok(Value::Object(members)) => members.is_empty(),
        Ok(Value::Array(_) | Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
        Err(_) => it.trim_ascii().is_empty(),
    });
    let detail = "this operation takes no body: send it without one; nothing was done";
    match none {
        true => Ok(Request::from_parts(head, Body::empty())),
        false => Err(Problem::bad_request("unexpected_body", detail)),
    }
}

/// Whether the body is of this media type; parameters do not matter.
pub(super) fn is_type(headers: &HeaderMap, media_type: &str) -> bool {
    let given = headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let given = given.map(|it| it.split(';').next().unwrap_or_default().trim());
    given.is_some_and(|it| it.eq_ignore_ascii_case(media_type))
}

pub(super) fn unsupported(expected: &str) -> Problem {
    let detail = format!("send it with `Content-Type: {expected}`");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail)
}

/// Reads a JSON object.
pub(super) async fn object(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Fields> {
    let value = value(headers, body, bytes_max).await?;
    Fields::of(value, "").map_err(Problem::invalid_fields)
}

/// Reads any JSON.
pub(super) async fn value(headers: &HeaderMap, body: Body, bytes_max: usize) -> Result<Value> {
    need_json(headers)?;
    value_of(&read(headers, body, bytes_max).await?)
}

/// Whether the body is said to be JSON.
pub(super) fn need_json(headers: &HeaderMap) -> Result<()> {
    let json =
        is_type(headers, "application/json") || is_type(headers, "application/merge-patch+json");
    if json { Ok(()) } else { Err(unsupported("application/json")) }
}

/// The JSON of a body.
pub(super) fn value_of(bytes: &[u8]) -> Result<Value> {
    let value = parse(bytes)?;
    // Of a member that comes twice one would be ignored, and who sent it would not know which.
    json_limits::check_body(bytes).map_err(|it| refused_json(it, 0))?;
    Ok(value)
}

/// JSON that breaks a limit, or is no text; it begins at this byte of what the caller sent.
pub(super) fn refused_json(fault: Fault, from: usize) -> Problem {
    match fault {
        Fault::Limit(detail) => Problem::unprocessable("json_limits", detail),
        Fault::Text(at) => {
            let detail = format!("the string at byte {} is no Unicode text", from + at);
            Problem::bad_request("invalid_json", detail)
        }
    }
}

pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| invalid_json(&error, bytes))
}

pub(super) fn invalid_json(error: &serde_json::Error, bytes: &[u8]) -> Problem {
    let lines = bytes.split(|it| *it == b'\n').take(error.line().saturating_sub(1));
    let offset = lines.map(|it| it.len() + 1).sum::<usize>() + error.column().saturating_sub(1);
    let detail = format!("{error} (byte {offset})");
    match detail.starts_with(TOO_DEEP) {
        true => Problem::unprocessable("json_limits", format!("it is nested too deep: {detail}")),
        false => Problem::bad_request("invalid_json", detail),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;

    use super::*;

    /// A body that comes piece by piece, so long apart.
    fn dripping(piece: &'static [u8], pieces: usize, pause: Duration) -> Body {
        Body::from_stream(stream::unfold(0, move |sent| async move {
            tokio::time::sleep(pause).await;
            (sent < pieces).then_some((Ok::<_, Infallible>(piece), sent + 1))
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_has_to_go_on_and_to_come_at_some_pace() {
        let second = Duration::from_secs(1);
        for (name, piece, pieces, pause, expected) in [
            ("a byte a second", 1, 100_000, second, Some(30)),
            ("a byte a second, not for long", 1, 25, second, None),
            ("nothing for long", 1, 10, 11 * second, Some(10)),
            ("1 KiB/s", 1024, 200, second, None),
            ("less", 512, 20_000, second, Some(60)),
        ] {
            let started = Instant::now();
            let body = dripping(&[b' '; 1024][..piece], pieces, pause);
            let read = read(&HeaderMap::new(), body, 1 << 24).await;
            let took = started.elapsed().as_secs();
            let refused = read.err().map(|it| (it.code(), took));
            match expected {
                Some(after) => {
                    let (code, took) = refused.expect(name);
                    assert_eq!(code, "body_too_slow", "{name}");
                    assert!(took.abs_diff(after) <= 2, "{name}: after {took} s");
                }
                None => assert_eq!(refused, None, "{name}"),
            }
        }
    }

    #[tokio::test]
    async fn what_is_packed_is_not_taken_for_what_it_is_not() {
        let read = async |encoding: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            read(&headers, Body::from("{}"), 100).await.map_err(|it| it.code())
        };
        assert_eq!(read("gzip").await, Err("unsupported_encoding"));
        assert_eq!(read("identity").await, Ok(Bytes::from("{}")));
    }
}
