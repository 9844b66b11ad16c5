//! Versions of what can be changed: a digest of how the API shows it
//! ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-if-match)).

use axum::{extract::FromRequestParts, response::Response};
use data_encoding::HEXLOWER;
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};
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

/// What the caller believes to change: its `If-Match`.
#[derive(Debug, Clone)]
pub(super) struct Belief(Option<String>);

impl Belief {
    fn of(headers: &HeaderMap) -> Self {
        let given = headers.get_all(header::IF_MATCH).iter();
        let texts: Vec<_> = given.map(|it| it.to_str().unwrap_or_default()).collect();
        Self((!texts.is_empty()).then(|| texts.join(",")))
    }

    /// Whether the caller said what it believes.
    pub(super) fn is_said(&self) -> bool {
        self.0.is_some()
    }

    /// Whether what is there is what the caller believes to change.
    pub(super) fn holds(&self, there: Option<&Value>) -> Result<(), Refused> {
        let Some(given) = &self.0 else { return Ok(()) };
        let tag = there.map(etag);
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
}
