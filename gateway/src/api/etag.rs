//! Versions of what can be changed: a digest of how the API shows it
//! ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-if-match)).

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    response::Response,
};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header, request::Parts};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::page::json_response;
use crate::api::problem::Problem;
use crate::storage::Refused;

/// The version of what is shown so.
fn etag(shown: &Value) -> String {
    let digest = Sha256::digest(shown.to_string().as_bytes());
    format!("\"{}\"", HEXLOWER.encode(&digest[..12]))
}

/// An answer that carries its version.
pub(super) fn tagged(status: StatusCode, shown: &Value) -> Response {
    let mut response = json_response(status, shown);
    let tag = HeaderValue::from_str(&etag(shown)).expect("a tag is plain");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// A header that lists tags.
fn listed(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let texts: Vec<_> =
        headers.get_all(name).iter().map(|it| it.to_str().unwrap_or_default()).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// Whether one of the tags is this one. A weak comparison, which is enough to read by.
fn names(listed: &str, tag: &str) -> bool {
    listed.split(',').map(str::trim).any(|it| it == "*" || it.trim_start_matches("W/") == tag)
}

/// What the reader has of what it asks for: its `If-None-Match`.
pub(super) fn had(request: &Request) -> Option<String> {
    request.method().is_safe().then(|| listed(request.headers(), header::IF_NONE_MATCH)).flatten()
}

/// Spares the reader what it has ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-if-none-match)).
pub(super) fn spare(had: Option<&str>, response: &mut Response) {
    let tag = response.headers().get(header::ETAG).and_then(|it| it.to_str().ok());
    let same = had.zip(tag).is_some_and(|(had, tag)| names(had, tag));
    if same && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
}

/// What the caller believes to change: its `If-Match`, and its `If-None-Match`, which is `*` where
/// it wants to make what is not there yet.
#[derive(Debug, Clone)]
pub(super) struct Belief {
    is: Option<String>,
    is_not: Option<String>,
}

impl Belief {
    fn of(headers: &HeaderMap) -> Self {
        let of = |name| listed(headers, name);
        Self { is: of(header::IF_MATCH), is_not: of(header::IF_NONE_MATCH) }
    }

    /// Whether the caller said what it believes.
    pub(super) fn is_said(&self) -> bool {
        self.is.is_some() || self.is_not.is_some()
    }

    /// Whether what is there is what the caller believes to change.
    pub(super) fn holds(&self, there: Option<&Value>) -> Result<(), Refused> {
        let tag = there.map(etag);
        if self.is_not.as_ref().zip(tag.as_ref()).is_some_and(|(not, tag)| names(not, tag)) {
            return Err(Refused::Stale);
        }
        let Some(given) = &self.is else { return Ok(()) };
        let fits = |it: &str| (it == "*" && tag.is_some()) || Some(it) == tag.as_deref();
        given.split(',').any(|it| fits(it.trim())).then_some(()).ok_or(Refused::Stale)
    }
}

impl<S: Sync> FromRequestParts<S> for Belief {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self::of(&parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_version_that_was_seen_may_be_changed() {
        let (old, new) = (json!({ "a": 1 }), json!({ "a": 2 }));
        let belief = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_MATCH, text.parse().unwrap());
            Belief::of(&headers)
        };
        assert!(Belief::of(&HeaderMap::new()).holds(None).is_ok());
        for (text, there, holds) in [
            (etag(&old), Some(&old), true),
            (etag(&old), Some(&new), false),
            (etag(&old), None, false),
            (format!("\"x\", {}", etag(&old)), Some(&old), true),
            (format!("W/{}", etag(&old)), Some(&old), false),
            ("*".to_owned(), Some(&new), true),
            ("*".to_owned(), None, false),
        ] {
            assert_eq!(belief(&text).holds(there).is_ok(), holds, "{text} on {there:?}");
        }
    }

    #[test]
    fn what_is_there_already_is_not_made_again_and_not_sent_again() {
        let (old, new) = (json!({ "a": 1 }), json!({ "a": 2 }));
        for (text, there, holds) in [
            ("*".to_owned(), None, true),
            ("*".to_owned(), Some(&new), false),
            (etag(&old), Some(&new), true),
            (etag(&old), Some(&old), false),
            (format!("W/{}", etag(&old)), Some(&old), false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, text.parse().unwrap());
            assert_eq!(Belief::of(&headers).holds(there).is_ok(), holds, "{text} on {there:?}");
        }
        for (had, status) in [
            (Some(etag(&old)), 304),
            (Some(format!("\"x\", W/{}", etag(&old))), 304),
            (Some("*".to_owned()), 304),
            (Some(etag(&new)), 200),
            (None, 200),
        ] {
            let mut response = tagged(StatusCode::OK, &old);
            spare(had.as_deref(), &mut response);
            assert_eq!(response.status().as_u16(), status, "{had:?}");
            assert!(response.headers().contains_key(header::ETAG));
        }
    }
}
