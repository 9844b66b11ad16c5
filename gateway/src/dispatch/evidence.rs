//! What is kept of an attempt, and what its answer means.

use std::{
    borrow::Cow,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::domain::{DeadReason, KeptHeader, OnError, Parts, Timestamp, Verdict};
use crate::plugins::Fault;
use crate::world::{Response, SendResult, Timings};

const HEADERS_KEPT_MAX: usize = 16;
const HEADER_BYTES_KEPT_MAX: usize = 256;
const ERROR_BYTES_KEPT_MAX: usize = 1024;
/// Headers of a request that tell no secret; of all others only the name is kept.
const PLAIN: [&str; 7] = [
    "content-type",
    "traceparent",
    "user-agent",
    "webhook-hops",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// What is told of a loop.
const LOOP: &str = "the endpoint published the event to a gateway again, and so on in a circle; \
                    have it publish another type than it receives, or nothing";

/// What an attempt came to, before it is judged.
pub(super) struct Finished {
    pub(super) name: &'static str,
    pub(super) status: Option<u16>,
    pub(super) error: Option<String>,
    pub(super) retry_after: Option<Duration>,
    pub(super) request_headers: Vec<KeptHeader>,
    pub(super) headers: Vec<KeptHeader>,
    pub(super) body: Bytes,
    pub(super) truncated: bool,
    pub(super) timings: Timings,
    /// How far it came, where it is several requests.
    pub(super) parts: Option<Parts>,
    /// A plugin says that it was not taken, whatever the status.
    pub(super) refused: bool,
    /// Set where there is nothing to judge.
    pub(super) verdict: Option<Verdict>,
}

impl Finished {
    /// It was sent, or tried to: this came of it.
    pub(super) fn answered(sent: SendResult, now: impl FnOnce() -> Timestamp) -> Self {
        let timings = sent.timings;
        let response = match sent.answer {
            Ok(response) => response,
            Err((class, error)) => {
                return Self { timings, ..Self::failed(class.name(), error) };
            }
        };
        let status = response.status.as_u16();
        let name = match status {
            200..=299 => "delivered",
            301..=303 | 307 | 308 => "redirect_refused",
            508 if is_loop(&response) => "loop_detected",
            _ => "http_status",
        };
        let error = match name {
            "delivered" => None,
            "loop_detected" => Some(LOOP.to_owned()),
            "redirect_refused" => Some(format!(
                "the endpoint answered {}; redirects are not followed: give it the URL that it \
                 moved to",
                response.status
            )),
            _ if response.status.canonical_reason().is_none() => {
                Some(format!("the endpoint answered {status}"))
            }
            _ => Some(format!("the endpoint answered {}", response.status)),
        };
        let verdict = (name == "loop_detected").then_some(Verdict::Dead(DeadReason::Loop));
        Self {
            status: Some(status),
            error,
            verdict,
            retry_after: retry_after(&response.headers, now),
            headers: kept_headers(&response),
            body: response.body,
            truncated: response.body_truncated,
            timings,
            ..Self::failed(name, String::new())
        }
    }

    /// A plugin failed, and this is what the endpoint wants then.
    pub(super) fn plugin_failed(fault: Fault, on_error: OnError) -> Self {
        let Fault { kind, detail } = fault;
        let (name, verdict) = match on_error {
            OnError::Retry | OnError::Pass => (kind.name(), None),
            OnError::DeadLetter => (kind.name(), Some(Verdict::Dead(DeadReason::PluginError))),
            OnError::Drop => ("filtered", Some(Verdict::Filtered(detail.clone()))),
        };
        Self { verdict, ..Self::failed(name, detail) }
    }

    /// Nothing was sent, or nothing answered.
    pub(super) fn failed(name: &'static str, error: String) -> Self {
        Self {
            name,
            status: None,
            error: Some(cut(error)),
            retry_after: None,
            request_headers: Vec::new(),
            headers: Vec::new(),
            body: Bytes::new(),
            truncated: false,
            timings: Timings::default(),
            parts: None,
            refused: false,
            verdict: None,
        }
    }

    /// Whether the endpoint wants to be sent less: by 429 in any case
    /// ([RFC 6585](https://www.rfc-editor.org/rfc/rfc6585#section-4)), by 503 where it says for
    /// how long ([RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#section-15.6.4)). A 503 alone
    /// is a failure as any other.
    pub(super) fn asks_for_less(&self) -> bool {
        match self.status {
            Some(429) => true,
            Some(503) => self.retry_after.is_some(),
            _ => false,
        }
    }

    /// Whether the endpoint itself was asked and did not take it.
    pub(super) fn blames_endpoint(&self) -> bool {
        let ours = self.name == "internal" || self.name == "filtered";
        !ours && !self.name.starts_with("plugin_") && self.name != "delivered"
    }
}

/// Whether a gateway says that what it was sent goes in a circle. The status alone does not tell:
/// hosting providers answer 508 where an account has used up what it may.
fn is_loop(response: &Response) -> bool {
    #[derive(serde::Deserialize)]
    struct Problem {
        code: String,
    }
    let problem = serde_json::from_slice::<Problem>(&response.body);
    problem.is_ok_and(|it| it.code == "loop_detected")
}

/// A sentence that somebody else wrote, as much of it as is kept.
fn cut(mut text: String) -> String {
    if text.len() > ERROR_BYTES_KEPT_MAX {
        let end = (0..=ERROR_BYTES_KEPT_MAX).rev().find(|it| text.is_char_boundary(*it));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}

/// Seconds, or a date in one of the forms of
/// [RFC 9110](https://www.rfc-editor.org/rfc/rfc9110#name-retry-after); anything else is as if it
/// were not there. A number too large to read is a long time all the same.
pub(super) fn retry_after(
    headers: &HeaderMap,
    now: impl FnOnce() -> Timestamp,
) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((Timestamp(0) + date) - now())
}

fn kept_headers(response: &Response) -> Vec<KeptHeader> {
    let kept = response.headers.iter().take(HEADERS_KEPT_MAX);
    kept.map(|(name, value)| (kept_name(name), text(value))).collect()
}

/// Most answers have few other headers than these, whose names need no copy.
fn kept_name(name: &HeaderName) -> Cow<'static, str> {
    static USUAL: [HeaderName; 5] = [
        header::DATE,
        header::CONTENT_LENGTH,
        header::CONTENT_TYPE,
        header::SERVER,
        header::CONNECTION,
    ];
    let usual = USUAL.iter().find(|it| *it == name);
    usual.map_or_else(|| name.to_string().into(), |it| it.as_str().into())
}

/// The head of a request as it was sent; values that may be secret are masked.
pub(super) fn masked_headers(headers: &HeaderMap) -> Vec<KeptHeader> {
    let masked = |(name, value): (&HeaderName, &HeaderValue)| {
        let plain = PLAIN.contains(&name.as_str()) || name.as_str().starts_with("ce-");
        (kept_name(name), if plain { text(value) } else { "***".to_owned() })
    };
    headers.iter().take(HEADERS_KEPT_MAX * 2).map(masked).collect()
}

fn text(value: &HeaderValue) -> String {
    let value = value.as_bytes();
    String::from_utf8_lossy(&value[..value.len().min(HEADER_BYTES_KEPT_MAX)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::FaultKind;

    #[test]
    fn a_503_asks_for_less_only_where_it_says_for_how_long() {
        let wait = Some(Duration::from_secs(7));
        for (status, retry_after, expected) in [
            (Some(429), None, true),
            (Some(429), wait, true),
            (Some(503), wait, true),
            (Some(503), None, false),
            (Some(500), wait, false),
            (None, None, false),
        ] {
            let failed = Finished::failed("http_status", String::new());
            let finished = Finished { status, retry_after, ..failed };
            assert_eq!(finished.asks_for_less(), expected, "{status:?} {retry_after:?}");
        }
    }

    #[test]
    fn an_answer_that_is_no_success_is_told_with_what_to_do() {
        for (status, name, expected) in [
            (
                301,
                "redirect_refused",
                "the endpoint answered 301 Moved Permanently; redirects are not followed: give it \
                 the URL that it moved to",
            ),
            (500, "http_status", "the endpoint answered 500 Internal Server Error"),
            (999, "http_status", "the endpoint answered 999"),
        ] {
            let status = http::StatusCode::from_u16(status).unwrap();
            let (headers, body) = (HeaderMap::new(), Bytes::new());
            let response = Response { status, headers, body, body_truncated: false };
            let sent = SendResult { answer: Ok(response), timings: Timings::default() };
            let finished = Finished::answered(sent, || Timestamp(0));
            assert_eq!((finished.name, finished.error.as_deref()), (name, Some(expected)));
        }
    }

    #[test]
    fn every_kind_of_retry_after_is_understood() {
        // 2027-01-15T08:00:00Z
        let now = Timestamp(1_800_000_000_000);
        let capped = u64::from(u32::MAX);
        for (text, expected) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("0", Some(0)),
            ("1000000000", Some(1_000_000_000)),
            ("99999999999999999999999999", Some(capped)),
            ("-1", None),
            ("1.5", None),
            ("+5", None),
            ("soon", None),
            ("", None),
            ("Fri, 15 Jan 2027 08:01:00 GMT", Some(60)),
            ("Friday, 15-Jan-27 08:01:00 GMT", Some(60)),
            ("Fri Jan 15 08:01:00 2027", Some(60)),
            ("Fri, 15 Jan 2027 07:00:00 GMT", Some(0)),
            ("Fri, 99 Jan 2027 07:00:00 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            let got = retry_after(&headers, || now).map(|it| it.as_secs());
            assert_eq!(got, expected, "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_bytes(b"\xff7").unwrap());
        assert_eq!(retry_after(&headers, || now), None);
    }

    #[test]
    fn what_may_be_secret_is_masked() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("authorization", "Bearer abc"), ("x-api-key", "abc"), ("webhook-id", "evt_1")]
        {
            headers.insert(name, value.parse().unwrap());
        }
        let kept = masked_headers(&headers);
        assert!(kept.iter().all(|(_, value)| !value.contains("abc")), "{kept:?}");
        assert!(kept.contains(&("webhook-id".into(), "evt_1".to_owned())));
    }

    #[test]
    fn what_becomes_of_a_plugins_failure_is_the_endpoints_choice() {
        let fault = Fault { kind: FaultKind::Trap, detail: "it fell".to_owned() };
        for (on_error, name, verdict) in [
            (OnError::Retry, "plugin_trap", None),
            (OnError::DeadLetter, "plugin_trap", Some(Verdict::Dead(DeadReason::PluginError))),
            (OnError::Drop, "filtered", Some(Verdict::Filtered("it fell".to_owned()))),
        ] {
            let finished = Finished::plugin_failed(fault.clone(), on_error);
            assert_eq!((finished.name, finished.verdict), (name, verdict));
        }
    }

    #[test]
    fn long_sentences_are_cut() {
        let failed = Finished::failed("plugin_failed", "ä".repeat(5000));
        let error = failed.error.unwrap();
        assert!(error.len() <= ERROR_BYTES_KEPT_MAX + 4 && error.ends_with("ä…"));
    }
}
