//! What a plugin gives out is checked before anything is done with it.

use crate::plugins::{Answer, Fault, Ingested, Limits, Outgoing, Replacement, Verdict};

/// Header names that belong to HTTP, to the connection or to the signature.
const HEADERS_DENIED: [&str; 10] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
];
const HEADERS_MAX: usize = 32;
const HEADER_BYTES_MAX: usize = 8 * 1024;
const PATH_SUFFIX_BYTES_MAX: usize = 1024;
/// Of a reason that is kept in history.
const REASON_BYTES_MAX: usize = 1024;

/// Refuses what must not be sent, stored or kept.
pub(super) fn check(answer: Answer, limits: &Limits) -> Result<Answer, Fault> {
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
            check_headers(&headers, &|name| name.starts_with("webhook-"))?;
            Ok(Answer::Request(headers))
        }
        answer @ (Answer::Configured | Answer::Event(_) | Answer::Incoming(_)) => Ok(answer),
        Answer::Response(it) => Ok(Answer::Response(match it {
            crate::plugins::Classified::Failure(it) => crate::plugins::Classified::Failure(cut(it)),
            crate::plugins::Classified::Final(it) => crate::plugins::Classified::Final(cut(it)),
            plain @ (crate::plugins::Classified::Undecided
            | crate::plugins::Classified::Success) => plain,
        })),
    }
}

fn check_parts(parts: &[Outgoing], limits: &Limits) -> Result<(), Fault> {
    check_size(parts.iter().map(|it| it.payload.len()).sum(), limits)?;
    for part in parts {
        if part.content_type.starts_with("application/json") {
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
        let denied = HEADERS_DENIED.contains(&lower.as_str())
            || lower.starts_with("proxy-")
            || (lower.starts_with("webhook-") && !also(&lower));
        let plain = value.bytes().all(|it| (0x20..0x7f).contains(&it) || it == b'\t');
        if denied || !plain || http::HeaderName::from_bytes(lower.as_bytes()).is_err() {
            return Err(Fault::invalid(format!("the header `{name}` must not be set so")));
        }
    }
    Ok(())
}

fn is_path(suffix: &str) -> bool {
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
