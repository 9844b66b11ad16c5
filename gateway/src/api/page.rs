use axum::{body::Body, response::Response};
use data_encoding::BASE64URL_NOPAD;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use sha2::{Digest, Sha256};

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
    /// Reads the query; only `known` names may occur.
    pub(super) fn parse(uri: &http::Uri, known: &[&str]) -> Result<Self> {
        let pairs: Vec<(String, String)> =
            url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        match pairs.iter().find(|(name, _)| !known.contains(&&**name)) {
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
        // A query has a blank where somebody wrote the plus of an offset as it is.
        let time = wire::parse_time(text).or_else(|| wire::parse_time(&text.replace(' ', "+")));
        time.map(Some).ok_or_else(|| Problem::bad_request("invalid_parameter", detail))
    }

    /// The numbers that a cursor of this list holds.
    pub(super) fn cursor<const N: usize>(&self, list: &str) -> Result<Option<[u64; N]>> {
        let Some(text) = self.get("cursor") else { return Ok(None) };
        let invalid = || Problem::bad_request("invalid_cursor", "this cursor is not of this list");
        parse_cursor(list, text).map(Some).ok_or_else(invalid)
    }
}

impl Query {
    /// A page of a list that is there as a whole; the cursor tells how many came before.
    pub(super) fn page_of<T: Serialize>(
        &self,
        list: &str,
        whole: impl IntoIterator<Item = T>,
    ) -> Result {
        let (limit, [skip]) = (self.limit()?, self.cursor(list)?.unwrap_or([0]));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let mut rest = whole.into_iter().skip(skip);
        let data: Vec<_> = rest.by_ref().take(limit).collect();
        let next = rest.next().map(|_| cursor(list, &[(skip + limit) as u64]));
        Ok(page(&data, next))
    }
}

const MARK_BYTES: usize = 8;

/// The numbers that a cursor of this list holds.
pub(super) fn parse_cursor<const N: usize>(list: &str, text: &str) -> Option<[u64; N]> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (mark, rest) = bytes.split_first_chunk::<MARK_BYTES>()?;
    let numbers = rest.as_chunks::<8>().0.iter().map(|it| u64::from_be_bytes(*it));
    let numbers: Vec<_> = numbers.collect();
    let whole = numbers.len() * 8 == rest.len();
    (whole && *mark == mark_of(list, &numbers)).then_some(())?;
    numbers.try_into().ok()
}

/// What binds a cursor to its list: a list is named with its tenant.
fn mark_of(list: &str, numbers: &[u64]) -> [u8; MARK_BYTES] {
    let mut digest = Sha256::new();
    digest.update(list.as_bytes());
    for number in numbers {
        digest.update(number.to_be_bytes());
    }
    digest.finalize()[..MARK_BYTES].try_into().expect("a digest is long enough")
}

/// A cursor of this list.
pub(super) fn cursor(list: &str, numbers: &[u64]) -> String {
    let bytes: Vec<u8> = numbers.iter().flat_map(|it| it.to_be_bytes()).collect();
    BASE64URL_NOPAD.encode(&[&mark_of(list, numbers)[..], &bytes].concat())
}

/// A page of a list.
pub(super) fn page<T: Serialize>(data: &[T], next_cursor: Option<String>) -> Response {
    json_response(StatusCode::OK, &json!({ "data": data, "next_cursor": next_cursor }))
}

/// An answer that tells where what was made can be read.
pub(super) fn made_at(path: &str, mut response: Response) -> Response {
    // Ids are letters, digits and `._-`.
    if let Ok(path) = HeaderValue::from_str(path) {
        response.headers_mut().insert(header::LOCATION, path);
    }
    response
}

/// A JSON answer with a secret in it: nobody on its way, nor a browser, may keep it (RFC 9111,
/// 5.2.2.5).
pub(super) fn secret_response(status: StatusCode, body: &impl Serialize) -> Response {
    let mut response = json_response(status, body);
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, never);
    response
}

/// A JSON answer.
pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("an answer is plain data");
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_opens_its_own_list_only() {
        let query = |text: &str| {
            let uri = format!("/x?cursor={text}").parse().unwrap();
            Query::parse(&uri, &["cursor"]).unwrap()
        };
        let text = cursor("events of 0/1", &[7, 8]);
        assert_eq!(query(&text).cursor("events of 0/1").unwrap(), Some([7, 8]));
        for (list, text) in [
            ("events of 0/2", text.clone()),
            ("deliveries of 0/1", text.clone()),
            ("events of 0/1", cursor("events of 0/1", &[7])),
            ("events of 0/1", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".to_owned()),
            ("events of 0/1", format!("{text}AA")),
            ("events of 0/1", "x".to_owned()),
        ] {
            let refused = query(&text).cursor::<2>(list).unwrap_err();
            assert_eq!(refused.code(), "invalid_cursor", "{list} {text}");
        }
    }
}
