//! What a plugin gives out is checked before anything is done with it.

use crate::domain::header;
use crate::plugins::{Answer, Classified, Fault, Ingested, Limits, Outgoing, Replacement, Verdict};

const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 8 * 1024;
const PATH_SUFFIX_BYTES_MAX: usize = 1024;
/// Of a reason that is kept in history.
const REASON_BYTES_MAX: usize = 1024;

/// Looks at what a plugin gave out before anything is done with it.
///
/// # Errors
/// When it must not be sent, stored or kept.
pub fn check_answer(answer: Answer, limits: &Limits) -> Result<Answer, Fault> {
    match answer {
        Answer::Event(Verdict::Drop(reason)) => Ok(Answer::Event(Verdict::Drop(cut(reason)))),
        Answer::Event(Verdict::Replace(out)) => {
            check_parts(std::slice::from_ref(&out), limits)?;
            Ok(Answer::Event(Verdict::Replace(out)))
        }
        Answer::Event(Verdict::Split(parts)) => {
            if parts.is_empty() {
                return Err(Fault::invalid("it split the event into nothing; drop it instead"));
            }
            if parts.len() > limits.parts_max {
                let (parts, max) = (parts.len(), limits.parts_max);
                return Err(Fault::limit(format!("{parts} parts; at most {max}")));
            }
            check_parts(&parts, limits)?;
            Ok(Answer::Event(Verdict::Split(parts)))
        }
        Answer::Incoming(Ingested::Replace(it)) => {
            check_replacement(&it, limits)?;
            Ok(Answer::Incoming(Ingested::Replace(it)))
        }
        Answer::Incoming(Ingested::Reject(reason)) => {
            Ok(Answer::Incoming(Ingested::Reject(cut(reason))))
        }
        Answer::Request(headers) => {
            // The id and the time are the gateway's; a signature of the same name is replaced.
            check_headers(&headers, &|name| name == "webhook-signature")?;
            Ok(Answer::Request(headers))
        }
        Answer::Response(Classified::Failure(reason)) => {
            Ok(Answer::Response(Classified::Failure(cut(reason))))
        }
        Answer::Response(Classified::Final(reason)) => {
            Ok(Answer::Response(Classified::Final(cut(reason))))
        }
        plain @ (Answer::Configured
        | Answer::Event(Verdict::Deliver)
        | Answer::Incoming(Ingested::Accept)
        | Answer::Response(Classified::Undecided | Classified::Success)) => Ok(plain),
    }
}

fn check_parts(parts: &[Outgoing], limits: &Limits) -> Result<(), Fault> {
    check_size(parts.iter().map(|it| it.payload.len()).sum(), limits)?;
    for part in parts {
        if !is_media_type(&part.content_type) {
            let shown = cut(part.content_type.clone());
            return Err(Fault::invalid(format!(
                "the content type `{shown}` is none: say a type such as `text/plain`"
            )));
        }
        if is_json(&part.content_type) {
            check_json(&part.payload)?;
        }
        let content_type = [("content-type".to_owned(), part.content_type.clone())];
        check_headers(&content_type, &|_| false)?;
        check_headers(&part.headers, &|_| false)?;
        if let Some(suffix) = part.path_suffix.as_ref().filter(|it| !is_path(it)) {
            return Err(Fault::invalid(format!("`{}` is no part of a path", cut(suffix.clone()))));
        }
    }
    Ok(())
}

fn essence(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or_default().trim()
}

/// Whether it is a type and a subtype (RFC 9110, 8.3.1).
fn is_media_type(content_type: &str) -> bool {
    let token = |it: &str| {
        let plain = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
        !it.is_empty() && it.bytes().all(plain)
    };
    let parts = essence(content_type).split_once('/');
    parts.is_some_and(|(kind, subtype)| token(kind) && token(subtype))
}

fn check_replacement(it: &Replacement, limits: &Limits) -> Result<(), Fault> {
    let metadata = it.metadata.iter().map(|(key, value)| key.len() + value.len());
    check_size(it.payload.len() + metadata.sum::<usize>(), limits)?;
    check_json(&it.payload)
}

fn check_size(bytes: usize, limits: &Limits) -> Result<(), Fault> {
    let max = limits.output_bytes_max;
    if bytes > max {
        return Err(Fault::limit(format!("the output has {bytes} bytes; at most {max}")));
    }
    Ok(())
}

fn check_json(payload: &[u8]) -> Result<(), Fault> {
    let json = serde_json::from_slice::<&serde_json::value::RawValue>(payload);
    json.map(|_| ()).map_err(|_| Fault::invalid("the output says it is JSON and is not"))
}

/// `also`: which of the gateway's own headers this hook may set.
fn check_headers(headers: &[(String, String)], also: &dyn Fn(&str) -> bool) -> Result<(), Fault> {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers.len() > HEADERS_MAX || bytes > HEADER_BYTES_MAX {
        let detail = format!("at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes in all");
        return Err(Fault::limit(detail));
    }
    for (name, value) in headers {
        let lower = name.to_ascii_lowercase();
        let ours = lower.starts_with("webhook-") && !also(&lower);
        if ours || header::is_reserved(&lower) || !header::is_plain(value) {
            return Err(Fault::invalid(format!("the header `{name}` must not be set so")));
        }
    }
    Ok(())
}

/// Whether this is JSON, whatever is said beside it: `application/json; charset=utf-8`.
pub fn is_json(content_type: &str) -> bool {
    essence(content_type).eq_ignore_ascii_case("application/json")
}

/// Whether this can stand behind an endpoint's path without leading elsewhere.
pub fn is_path(suffix: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || b"-._~/%".contains(&it);
    suffix.len() <= PATH_SUFFIX_BYTES_MAX
        && suffix.bytes().all(plain)
        && !suffix.contains("..")
        && !suffix.to_ascii_lowercase().contains("%2e")
}

fn cut(mut reason: String) -> String {
    let mut end = reason.len().min(REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason.truncate(end);
    reason
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::plugins::FaultKind;

    fn outgoing(payload: &str, header: (&str, &str), path_suffix: Option<&str>) -> Outgoing {
        Outgoing {
            payload: Bytes::copy_from_slice(payload.as_bytes()),
            content_type: "application/json".to_owned(),
            headers: vec![(header.0.to_owned(), header.1.to_owned())],
            path_suffix: path_suffix.map(str::to_owned),
        }
    }

    fn kind(answer: Answer) -> Option<FaultKind> {
        check_answer(answer, &Limits::default()).err().map(|it| it.kind)
    }

    #[test]
    fn a_content_type_is_one_and_says_what_the_payload_is() {
        for (content_type, payload, expected) in [
            ("application/json", "nj", Some(FaultKind::OutputInvalid)),
            ("Application/JSON; charset=utf-8", "nj", Some(FaultKind::OutputInvalid)),
            ("application/json;charset=utf-8", "{}", None),
            ("application/json-seq", "\u{1e}{}\n", None),
            ("application/jsonlines", "1\n2", None),
            ("application/json-patch+json", "[]", None),
            ("text/plain; charset=utf-8", "x", None),
            ("", "x", Some(FaultKind::OutputInvalid)),
            ("nonsense", "x", Some(FaultKind::OutputInvalid)),
            ("text/", "x", Some(FaultKind::OutputInvalid)),
            ("te xt/plain", "x", Some(FaultKind::OutputInvalid)),
        ] {
            let mut out = outgoing(payload, ("x", "y"), None);
            out.content_type = content_type.to_owned();
            let came = kind(Answer::Event(Verdict::Replace(out)));
            assert_eq!(came, expected, "{content_type:?}");
        }
        assert!(is_json("application/json") && !is_json("application/json-patch+json"));
    }

    #[test]
    fn what_must_not_be_sent_is_refused() {
        let (invalid, limit) = (Some(FaultKind::OutputInvalid), Some(FaultKind::Limit));
        let (long, big) = ("x".repeat(9000), format!("\"{}\"", "x".repeat(1 << 20)));
        for (payload, header, suffix, expected) in [
            (r#"{"a": 1}"#, ("x-team", "billing"), Some("/orders/1"), None),
            ("{", ("x", "y"), None, invalid),
            ("1", ("webhook-id", "another"), None, invalid),
            ("1", ("Webhook-Signature", "v1,…"), None, invalid),
            ("1", ("Host", "internal"), None, invalid),
            ("1", ("Transfer-Encoding", "chunked"), None, invalid),
            ("1", ("Proxy-Authorization", "x"), None, invalid),
            ("1", ("x", "a\r\nhost: b"), None, invalid),
            ("1", ("a b", "x"), None, invalid),
            ("1", ("x", "y"), Some("//other.example/"), None),
            ("1", ("x", "y"), Some("/../admin"), invalid),
            ("1", ("x", "y"), Some("/%2e%2E/admin"), invalid),
            ("1", ("x", "y"), Some("?a=b"), invalid),
            ("1", ("x", &long), None, limit),
            (&big, ("x", "y"), None, limit),
        ] {
            let out = outgoing(payload, header, suffix);
            let came = kind(Answer::Event(Verdict::Replace(out)));
            assert_eq!(came, expected, "{header:?} {suffix:?}");
        }
        assert_eq!(kind(Answer::Event(Verdict::Split(Vec::new()))), invalid);
        let many = vec![outgoing("1", ("x", "y"), None); 17];
        assert_eq!(kind(Answer::Event(Verdict::Split(many))), limit);
        let own = |name: &str| Answer::Request(vec![(name.to_owned(), "x".to_owned())]);
        assert_eq!(kind(own("webhook-signature")), None);
        assert_eq!(kind(own("webhook-id")), invalid);
    }

    proptest! {
        #[test]
        fn what_passes_can_be_sent(
            payload in proptest::collection::vec(any::<u8>(), 0..64),
            content_type in ".{0,40}",
            headers in proptest::collection::vec((".{0,20}", ".{0,20}"), 0..4),
            path_suffix in proptest::option::of(".{0,40}"),
        ) {
            let payload = Bytes::from(payload);
            let out = Outgoing { payload, content_type, headers, path_suffix };
            if let Ok(Answer::Event(Verdict::Replace(out))) =
                check_answer(Answer::Event(Verdict::Replace(out)), &Limits::default())
            {
                for (name, value) in &out.headers {
                    prop_assert!(http::HeaderName::from_bytes(name.as_bytes()).is_ok());
                    prop_assert!(http::HeaderValue::from_str(value).is_ok());
                }
                prop_assert!(http::HeaderValue::from_str(&out.content_type).is_ok());
                let url: url::Url = "https://a.example/hooks".parse().unwrap();
                let mut there = url.clone();
                there.set_path(&format!("{}{}", url.path(), out.path_suffix.unwrap_or_default()));
                prop_assert_eq!(there.host_str(), url.host_str());
                prop_assert!(there.path().starts_with(url.path()));
            }
        }

        #[test]
        fn a_reason_is_cut_between_characters(reason in "\\PC{0,1200}") {
            prop_assert!(cut(reason).len() <= REASON_BYTES_MAX);
        }
    }
}
