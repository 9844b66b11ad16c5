use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::api::examine::REJECTED;
use crate::api::pace::TooFast;
use crate::storage;

/// Errors that a refusal lists, and those that its sentence names: an answer must not be many times
/// as long as the request.
const ERRORS_MAX: usize = 1000;
const ERRORS_NAMED_MAX: usize = 20;

/// The result of a handler.
pub(super) type Result<T = Response, E = Problem> = std::result::Result<T, E>;

/// A refusal as [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) writes it.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(super) struct Problem(Box<Content>);

#[derive(Debug, Clone, Serialize)]
struct Content {
    #[serde(rename = "type")]
    kind: String,
    title: &'static str,
    #[serde(serialize_with = "number")]
    status: StatusCode,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldError>,
    #[serde(skip)]
    retry_after: Option<u64>,
    /// The limit that was reached.
    #[serde(skip)]
    limit: Option<TooFast>,
}

/// What is wrong with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FieldError {
    /// Where, as a JSON pointer.
    pub(super) pointer: String,
    /// What.
    pub(super) detail: String,
}

fn number<S: serde::Serializer>(
    status: &StatusCode,
    to: S,
) -> std::result::Result<S::Ok, S::Error> {
    to.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self(Box::new(Content {
            kind: format!("urn:hookgate:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status,
            detail: detail.into(),
            code,
            errors: Vec::new(),
            retry_after: None,
            limit: None,
        }))
    }

    /// How a refusal looks, for the document.
    pub(super) fn example(status: u16, code: &'static str) -> serde_json::Value {
        let status = StatusCode::from_u16(status).expect("the table has real ones");
        let problem = Self::new(status, code, "what is wrong, and what to do");
        serde_json::to_value(&problem).expect("a problem is plain data")
    }

    pub(super) fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(super) fn not_found(code: &'static str) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, "there is no such thing, or it is not yours")
    }

    pub(super) fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, detail)
    }

    pub(super) fn unprocessable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    }

    /// Fields that cannot be taken, each with its reason.
    pub(super) fn invalid_fields(errors: Vec<FieldError>) -> Self {
        Self::fields("invalid_field", errors)
    }

    /// The same under a code that says more.
    pub(super) fn fields(code: &'static str, mut errors: Vec<FieldError>) -> Self {
        let place = |it: &FieldError| match it.pointer.as_str() {
            "" => "the body".to_owned(),
            pointer => pointer.to_owned(),
        };
        let named = errors.iter().take(ERRORS_NAMED_MAX);
        let sentence = |it: &FieldError| match (code, it.pointer.as_str()) {
            // It begins with the plugin that says it.
            (REJECTED, "") => it.detail.clone(),
            (REJECTED, pointer) => format!("{pointer}: {}", it.detail),
            _ => format!("{} {}", place(it), it.detail),
        };
        let mut named: Vec<_> = named.map(sentence).collect();
        if errors.len() > ERRORS_NAMED_MAX {
            named.push(format!("and {} more", errors.len() - ERRORS_NAMED_MAX));
        }
        errors.truncate(ERRORS_MAX);
        let mut problem = Self::unprocessable(code, named.join("; "));
        problem.0.errors = errors;
        problem
    }

    pub(super) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    }

    pub(super) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        problem.0.retry_after = Some(5);
        problem
    }

    /// The limit is reached: come again later.
    pub(super) fn too_fast(what: &str, it: &TooFast) -> Self {
        let seconds = it.wait.as_secs_f64().ceil().max(1.0) as u64;
        let detail = format!("too many {what}; try again in {seconds} s");
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        problem.0.retry_after = Some(seconds);
        problem.0.limit = Some(*it);
        problem
    }

    /// The tenant has as much as it may have.
    pub(super) fn quota(detail: impl Into<String>) -> Self {
        let mut problem = Self::new(StatusCode::TOO_MANY_REQUESTS, "quota_exceeded", detail);
        problem.0.retry_after = Some(5);
        problem
    }

    /// The code under which it stands among those of several events: its own, where it is about
    /// what an event says, as it would be alone.
    pub(super) fn code_among(&self) -> &'static str {
        match self.0.status {
            StatusCode::UNPROCESSABLE_ENTITY => self.0.code,
            _ => "invalid_field",
        }
    }

    /// How long to wait until a limit lets more through, if it is one of pace.
    pub(super) fn wait(&self) -> Option<std::time::Duration> {
        self.0.limit.map(|it| it.wait)
    }

    pub(super) fn code(&self) -> &'static str {
        self.0.code
    }

    /// The same, with when to come again.
    pub(super) fn after(mut self, wait: std::time::Duration) -> Self {
        self.0.retry_after = Some(wait.as_secs_f64().ceil().max(1.0) as u64);
        self
    }

    /// What is wrong, as a sentence.
    pub(super) fn into_detail(self) -> String {
        self.0.detail
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem is plain data");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.0.status;
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, json);
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        // draft-ietf-httpapi-ratelimit-headers-10; Retry-After is what clients should heed.
        if let (Some(TooFast { limit, .. }), Some(seconds)) = (self.0.limit, self.0.retry_after) {
            let window = (f64::from(limit.burst) / limit.per_second).ceil().max(1.0) as u64;
            let policy = format!("\"default\";q={};w={window}", limit.burst);
            for (name, text) in [
                ("ratelimit-policy", policy),
                ("ratelimit", format!("\"default\";r=0;t={seconds}")),
            ] {
                headers.insert(name, HeaderValue::from_str(&text).expect("it is plain"));
            }
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl From<storage::Error> for Problem {
    fn from(error: storage::Error) -> Self {
        tracing::error!(%error, "storage failed");
        Self::unavailable("storage_unavailable", "the store cannot be used now; try again")
    }
}

impl From<storage::Refused> for Problem {
    fn from(refused: storage::Refused) -> Self {
        match refused {
            storage::Refused::NotFound => Self::not_found("not_found"),
            storage::Refused::Exists => Self::conflict("exists", "the id is taken"),
            storage::Refused::InUse(users) => {
                Self::conflict("plugin_in_use", format!("endpoints use it: {users:?}"))
            }
            refused @ storage::Refused::SecretUnavailable => {
                Self::conflict("secret_unavailable", refused.to_string())
            }
            storage::Refused::Ingests => {
                let detail = "the tenant's ingest chain uses it; take it out there first";
                Self::conflict("plugin_in_use", detail)
            }
            storage::Refused::Stale => {
                let detail = "it is not as `If-Match` or `If-None-Match` says: read it again";
                Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", detail)
            }
            storage::Refused::Limit(max) => {
                let detail = format!("there are {max} already, which is the limit");
                Self::unprocessable("limit_reached", detail)
            }
            storage::Refused::Invalid(detail) => Self::unprocessable("invalid_field", detail),
            storage::Refused::Storage(error) => error.into(),
        }
    }
}

impl Problem {
    /// A refusal by storage, with the code of what was not found.
    pub(super) fn named(refused: storage::Refused, code: &'static str) -> Self {
        match refused {
            storage::Refused::NotFound => Self::not_found(code),
            other => other.into(),
        }
    }
}

impl Problem {
    /// The same, with the place of what it is about.
    pub(super) fn at(mut self, base: &str) -> Self {
        for error in &mut self.0.errors {
            error.pointer.insert_str(0, base);
        }
        self
    }

    /// What is wrong with the fields below `base`; a problem that is about more than fields stays
    /// what it is.
    pub(super) fn into_errors(self, base: &str) -> Result<Vec<FieldError>> {
        match (self.0.errors.is_empty(), self.0.status) {
            (false, _) => Ok(self.0.errors),
            (true, StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST) => {
                Ok(vec![FieldError { pointer: base.to_owned(), detail: self.0.detail }])
            }
            (true, _) => Err(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_not_many_times_as_long_as_what_it_refuses() {
        let error =
            |place| FieldError { pointer: format!("/{place}"), detail: "is bad".to_owned() };
        let shown = |count: usize| {
            let problem = Problem::invalid_fields((0..count).map(error).collect());
            serde_json::to_value(&problem).unwrap()
        };
        let all = shown(2);
        assert_eq!(all["detail"], "/0 is bad; /1 is bad");
        let many = shown(5000);
        assert_eq!(many["errors"].as_array().unwrap().len(), 1000);
        let detail = many["detail"].as_str().unwrap();
        assert!(detail.ends_with("; /19 is bad; and 4980 more"), "{detail}");
    }
}
