//! Bodies that come packed, as gzip (several members are read as one) or zstd (several frames, and
//! what is to be skipped between them). Limits count what they unpack to.

use std::{error::Error, fmt, io};

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::{body::Body, extract::Request};
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::io::AsyncRead;
use tokio_util::io::{ReaderStream, StreamReader};

use crate::api::problem::{Problem, Result};

/// The largest window of a zstd frame, as a power of two: 8 MiB, which is what
/// [RFC 9659](https://www.rfc-editor.org/rfc/rfc9659) lets a frame ask for in HTTP. It is memory
/// that each request may take.
const WINDOW_LOG_MAX: u32 = 23;
/// What libzstd says of a frame that asks for more.
const WINDOW_TOO_LARGE: &str = "Frame requires too much memory for decoding";
/// Bytes that are unpacked at once.
const PIECE_BYTES: usize = 16 * 1024;

/// A zstd frame asks for a window that is too large.
#[derive(Debug)]
struct WindowTooLarge;

impl fmt::Display for WindowTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a zstd frame asks for a window over 8 MiB")
    }
}

impl Error for WindowTooLarge {}

/// The request with a body that is unpacked while it is read.
pub(super) fn unpacked(request: Request) -> Result<Request> {
    if !request.headers().contains_key(header::CONTENT_ENCODING) {
        return Ok(request);
    }
    let (mut head, body) = request.into_parts();
    let body = match encoding(&head.headers).as_deref() {
        Some("" | "identity") => body,
        Some("gzip" | "x-gzip") => {
            let mut decoder = GzipDecoder::new(reader(body));
            decoder.multiple_members(true);
            body_of(decoder)
        }
        Some("zstd") => {
            let limits = [DParameter::window_log_max(WINDOW_LOG_MAX)];
            let mut decoder = ZstdDecoder::with_params(reader(body), &limits);
            decoder.multiple_members(true);
            body_of(decoder)
        }
        _ => return Err(unsupported("`Content-Encoding` may be gzip or zstd")),
    };
    head.headers.remove(header::CONTENT_ENCODING);
    head.headers.remove(header::CONTENT_LENGTH);
    Ok(Request::from_parts(head, body))
}

/// Why a body did not come to its end.
pub(super) fn broken(error: &axum::Error) -> Problem {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(it) = cause {
        // An I/O error shows what it carries, not as its source.
        let carried = it.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if carried.is_some_and(|it| it.is::<WindowTooLarge>()) {
            let detail = format!(
                "{WindowTooLarge}, and HTTP allows no more (RFC 9659): pack it without --long, \
                 or with --zstd=wlog={WINDOW_LOG_MAX}"
            );
            return unsupported(detail);
        }
        cause = it.source();
    }
    Problem::bad_request("body_broken", "the body ended before its end, or cannot be unpacked")
}

pub(super) fn unsupported(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_encoding", detail)
}

/// The one encoding that a body has, in lower case; nothing where there are several.
fn encoding(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
    let first = values.next().map_or(Ok(""), HeaderValue::to_str).ok()?;
    values.next().is_none().then(|| first.trim().to_ascii_lowercase())
}

type Reader = StreamReader<Pieces, bytes::Bytes>;
type Pieces =
    futures_util::stream::MapErr<axum::body::BodyDataStream, fn(axum::Error) -> io::Error>;

fn reader(body: Body) -> Reader {
    let failed: fn(axum::Error) -> io::Error = io::Error::other;
    StreamReader::new(body.into_data_stream().map_err(failed))
}

fn body_of(decoder: impl AsyncRead + Send + 'static) -> Body {
    let pieces = ReaderStream::with_capacity(decoder, PIECE_BYTES);
    Body::from_stream(pieces.map_err(|error| match error.to_string() == WINDOW_TOO_LARGE {
        true => io::Error::other(WindowTooLarge),
        false => error,
    }))
}
