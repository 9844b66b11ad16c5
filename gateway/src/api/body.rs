use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::timeout;

use crate::api::fields::Fields;
use crate::api::problem::{Problem, Result};
use crate::api::unpack;

/// How long a client may pause in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is read and dropped of a body that is refused for its size: a client that is still
/// writing when the connection closes would not see why.
const REST_BYTES_MAX: usize = 64 * 1024 * 1024;
const REST_PATIENCE: Duration = Duration::from_secs(5);

/// Reads a whole body of at most `bytes_max` bytes.
pub(super) async fn read(headers: &HeaderMap, mut body: Body, bytes_max: usize) -> Result<Bytes> {
    let too_large = || Problem::too_large(format!("the body is over {bytes_max} bytes"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|it| it.to_str().ok()?.parse().ok());
    if announced.is_some_and(|it: u64| it > bytes_max as u64) {
        drop_rest(body).await;
        return Err(too_large());
    }
    let mut whole: Option<Bytes> = None;
    let mut parts = BytesMut::new();
    loop {
        let frame = timeout(PATIENCE, body.frame()).await.map_err(|_| {
            let detail = "the body did not go on for 10 s";
            Problem::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
        })?;
        let Some(frame) = frame else { break };
        let Ok(data) = frame.map_err(|it| unpack::broken(&it))?.into_data() else { continue };
        if whole.as_ref().map_or(0, Bytes::len) + parts.len() + data.len() > bytes_max {
            drop_rest(body).await;
            return Err(too_large());
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
    Ok(whole.unwrap_or_else(|| parts.freeze()))
}

async fn drop_rest(mut body: Body) {
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
    let json =
        is_type(headers, "application/json") || is_type(headers, "application/merge-patch+json");
    if !json {
        return Err(unsupported("application/json"));
    }
    let bytes = read(headers, body, bytes_max).await?;
    parse(&bytes)
}

pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| invalid_json(&error, bytes))
}

pub(super) fn invalid_json(error: &serde_json::Error, bytes: &[u8]) -> Problem {
    let lines = bytes.split(|it| *it == b'\n').take(error.line().saturating_sub(1));
    let offset = lines.map(|it| it.len() + 1).sum::<usize>() + error.column().saturating_sub(1);
    Problem::bad_request("invalid_json", format!("{error} (byte {offset})"))
}
