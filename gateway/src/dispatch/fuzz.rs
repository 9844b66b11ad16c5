//! Whatever an endpoint answers.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, header};

use crate::dispatch::evidence;
use crate::domain::Timestamp;

/// The value of `Retry-After`.
pub fn retry_after(bytes: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let headers: HeaderMap = [(header::RETRY_AFTER, value)].into_iter().collect();
    let now = Timestamp(1_800_000_000_000);
    if let Some(wait) = evidence::retry_after(&headers, || now) {
        // Whatever it is, it can be waited for and added up.
        let _ = now + wait.min(Duration::from_secs(3600)) + wait;
    }
}

/// Seconds, and the three forms of a date.
pub fn retry_after_seeds() -> Vec<Vec<u8>> {
    let forms = [
        "120",
        "99999999999999999999",
        "Sun, 06 Nov 2094 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
    ];
    forms.map(|it| it.as_bytes().to_vec()).into()
}
