//! What is written on the command line, read before anything is sent.

use std::time::Duration;

use crate::domain::{EventType, Timestamp, parse_duration};
use crate::world::{Clock, SystemClock};

/// A duration: `90s`, `1h30m`.
pub(super) fn span(text: &str) -> Result<Duration, String> {
    let span = parse_duration(text).filter(|it| !it.is_zero());
    span.ok_or_else(|| "write a duration such as 30s or 5m".to_owned())
}

/// A point in the past: a time, or how long ago. The gateway is told a time.
pub(super) fn past(text: &str) -> Result<String, String> {
    let before = |ago| Timestamp(SystemClock.now().0.saturating_sub(ago));
    point(text, before).ok_or_else(|| format!("write {TIME}, or how long ago: 6h"))
}

/// A point in the future: a time, or in how long.
pub(super) fn future(text: &str) -> Result<String, String> {
    let behind = |ahead| Timestamp(SystemClock.now().0.saturating_add(ahead));
    point(text, behind).ok_or_else(|| format!("write {TIME}, or in how long: 90d"))
}

const TIME: &str = "a time such as 2026-01-31T12:00:00Z";

fn point(text: &str, at: impl Fn(u64) -> Timestamp) -> Option<String> {
    // As it was written: what the gateway takes is for the gateway to say.
    if Timestamp::parse(text).is_some() {
        return Some(text.to_owned());
    }
    let millis = u64::try_from(parse_duration(text)?.as_millis()).ok()?;
    Some(at(millis).to_string())
}

/// The type of one event.
pub(super) fn event_type(text: &str) -> Result<String, String> {
    let known = EventType::parse(text).map(|it| it.as_str().to_owned());
    known.ok_or_else(|| "write words with dots between: order.created".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_points_or_spans() {
        let time = "2026-01-31T12:00:00+01:00";
        assert_eq!((past(time), future(time)), (Ok(time.to_owned()), Ok(time.to_owned())));
        let now = SystemClock.now().0;
        let read = |it: Result<String, String>| Timestamp::parse(&it.unwrap()).unwrap().0;
        assert!((now - 21_600_000..=now - 21_590_000).contains(&read(past("6h"))));
        assert!((now + 86_400_000..=now + 86_410_000).contains(&read(future("1d"))));
        for text in ["", "garbage", "6", "yesterday", "2026-01-31"] {
            assert!(past(text).is_err() && future(text).is_err(), "{text}");
        }
        assert!(span("0s").is_err() && span("30").is_err());
        assert_eq!(span("1m30s"), Ok(Duration::from_secs(90)));
        assert!(event_type("").is_err() && event_type("a..b").is_err());
    }
}
