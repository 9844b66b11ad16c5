use std::{fmt, time::Duration};

use crate::domain::{Timestamp, duration, parse_duration};

/// How long something is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Retention {
    /// So long.
    For(Duration),
    /// It is never removed.
    Forever,
}

impl Retention {
    /// Nothing that is kept at all is kept for less.
    pub const LEAST: Duration = Duration::from_secs(3600);

    /// Reads `30d`, `12h30m` or `forever`; at least an hour, at most a hundred years.
    pub fn parse(text: &str) -> Option<Self> {
        const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
        if text == "forever" {
            return Some(Self::Forever);
        }
        let kept = parse_duration(text)?;
        (Self::LEAST..=MOST).contains(&kept).then_some(Self::For(kept))
    }

    /// What is older than the moment that this tells is beyond it; `None`: nothing ever is.
    pub fn cutoff(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::For(kept) => {
                let kept = u64::try_from(kept.as_millis()).unwrap_or(u64::MAX);
                Some(Timestamp(now.0.saturating_sub(kept)))
            }
            Self::Forever => None,
        }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(kept) => f.write_str(&duration(*kept)),
            Self::Forever => f.write_str("forever"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_and_written() {
        for (text, written) in [("30d", "720h"), ("1h", "1h"), ("90m", "90m")] {
            assert_eq!(Retention::parse(text).unwrap().to_string(), written);
        }
        assert_eq!(Retention::parse("forever"), Some(Retention::Forever));
        for bad in ["", "59m", "0", "ever", "40000d", "-1d"] {
            assert_eq!(Retention::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_older_is_beyond_it() {
        let day = Retention::For(Duration::from_secs(86_400));
        assert_eq!(day.cutoff(Timestamp(86_400_007)), Some(Timestamp(7)));
        assert_eq!(day.cutoff(Timestamp(5)), Some(Timestamp(0)));
        assert_eq!(Retention::Forever.cutoff(Timestamp(5)), None);
    }
}
