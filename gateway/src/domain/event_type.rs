use std::{fmt, sync::Arc};

const CHARS_MAX: usize = 256;
/// The first segment of the gateway's own types.
const OPERATIONAL: &str = "hookgate";

/// What happened, for example `invoice.paid`: segments of `A-Za-z0-9_-`, separated by dots, at
/// most 256 characters ([Standard Webhooks](https://www.standardwebhooks.com) asks for the dots).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(Arc<str>);

impl EventType {
    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() <= CHARS_MAX && text.split('.').all(is_segment);
        fits.then(|| Self(text.into()))
    }

    /// Checks a producer's type: the gateway's own can be trusted to come from it alone.
    pub fn choose(text: &str) -> Option<Self> {
        Self::parse(text).filter(|it| !it.is_operational())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is of an event that the gateway itself raises: `hookgate.…`.
    pub fn is_operational(&self) -> bool {
        self.0.split('.').next() == Some(OPERATIONAL)
    }
}

fn is_segment(text: &str) -> bool {
    let plain = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'_' | b'-');
    !text.is_empty() && text.bytes().all(plain)
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Selects event types, segment by segment: `*` takes one segment, a trailing `**` any number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// Checks the form.
    pub fn parse(text: &str) -> Option<Self> {
        let mut segments = text.split('.').peekable();
        let mut fits = text.len() <= CHARS_MAX;
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            fits &= is_segment(segment) || segment == "*" || (segment == "**" && last);
        }
        fits.then(|| Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it asks by name for what the gateway itself raises.
    pub fn is_operational(&self) -> bool {
        self.0.split('.').next() == Some(OPERATIONAL)
    }

    /// Whether events of this type are wanted.
    pub fn matches(&self, event_type: &EventType) -> bool {
        let mut segments = event_type.as_str().split('.');
        for wanted in self.0.split('.') {
            match (wanted, segments.next()) {
                ("**", _) => return true,
                ("*", Some(_)) => {}
                (wanted, Some(segment)) if wanted == segment => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_segment_by_segment() {
        for (pattern, event_type, expected) in [
            ("payment.*", "payment.success", true),
            ("payment.*", "payment.card.success", false),
            ("payment.*", "payment", false),
            ("payment.**", "payment.card.success", true),
            ("payment.**", "payment", true),
            ("payment.**", "payments.card", false),
            ("*.created", "order.created", true),
            ("order.created", "order.created", true),
            ("order.created", "order.created.eu", false),
            ("**", "anything.at.all", true),
            ("*", "anything", true),
            ("*", "anything.else", false),
        ] {
            let pattern_ = Pattern::parse(pattern).unwrap();
            let event_type_ = EventType::parse(event_type).unwrap();
            assert_eq!(pattern_.matches(&event_type_), expected, "{pattern} on {event_type}");
        }
    }

    #[test]
    fn malformed_names_are_refused() {
        let long = "a".repeat(257);
        for text in ["", "user..created", ".a", "a.", "user.créé", "a b", "*", long.as_str()] {
            assert!(EventType::parse(text).is_none(), "{text}");
        }
        for text in ["", "a..b", "**.a", "a.b*", "pay*.x"] {
            assert!(Pattern::parse(text).is_none(), "{text}");
        }
    }
}
