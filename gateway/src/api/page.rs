use axum::response::{IntoResponse, Response};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::Serialize;
use serde_json::json;

use crate::api::problem::{Problem, Result};
use crate::api::wire;
use crate::domain::Timestamp;

const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 250;
/// Rows that a filtered page looks at; then it ends, perhaps short, with a cursor to go on.
pub(super) const EXAMINED_MAX: usize = 5000;

/// The query of a list, as far as all lists have it.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query; only `known` names and those of pages may occur.
    pub(super) fn parse(uri: &http::Uri, known: &[&str]) -> Result<Self> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let paging = ["limit", "cursor"];
        let unknown =
            pairs.iter().find(|(name, _)| !known.contains(&&**name) && !paging.contains(&&**name));
        match unknown {
            Some((name, _)) => {
                let detail = format!("the query has no `{name}`; there are {}", known.join(", "));
                Err(Problem::bad_request("unknown_parameter", detail))
            }
            None => Ok(Self(pairs)),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn limit(&self) -> Result<usize> {
        let Some(text) = self.get("limit") else { return Ok(LIMIT_DEFAULT) };
        let limit = text.parse().ok().filter(|it| (1..=LIMIT_MAX).contains(it));
        let detail = format!("`limit` must be 1 to {LIMIT_MAX}");
        limit.ok_or_else(|| Problem::bad_request("invalid_parameter", detail))
    }

    /// A point in time.
    pub(super) fn time(&self, name: &str) -> Result<Option<Timestamp>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let detail = format!("`{name}` must be a time such as 2026-01-31T12:00:00Z");
        let time = wire::parse_time(text);
        time.map(Some).ok_or_else(|| Problem::bad_request("invalid_parameter", detail))
    }

    /// The numbers that a cursor of this kind holds.
    pub(super) fn cursor<const N: usize>(&self, kind: &str) -> Result<Option<[u64; N]>> {
        let Some(text) = self.get("cursor") else { return Ok(None) };
        let invalid = || Problem::bad_request("invalid_cursor", "this cursor is of no list here");
        parse_cursor(kind, text).map(Some).ok_or_else(invalid)
    }
}

/// The numbers that a cursor of this kind holds.
pub(super) fn parse_cursor<const N: usize>(kind: &str, text: &str) -> Option<[u64; N]> {
    let text = String::from_utf8(BASE64URL_NOPAD.decode(text.as_bytes()).ok()?).ok()?;
    let rest = text.strip_prefix(kind)?.strip_prefix(':')?;
    let numbers: Option<Vec<u64>> = rest.split(':').map(|it| it.parse().ok()).collect();
    numbers?.try_into().ok()
}

/// A cursor of this kind.
pub(super) fn cursor(kind: &str, numbers: &[u64]) -> String {
    let numbers: Vec<_> = numbers.iter().map(u64::to_string).collect();
    BASE64URL_NOPAD.encode(format!("{kind}:{}", numbers.join(":")).as_bytes())
}

/// A page of a list.
pub(super) fn page<T: Serialize>(data: &[T], next_cursor: Option<String>) -> Response {
    json_response(StatusCode::OK, &json!({ "data": data, "next_cursor": next_cursor }))
}

/// A JSON answer.
pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    (status, axum::Json(body)).into_response()
}
