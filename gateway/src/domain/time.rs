use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

/// 9999-12-31T23:59:59.999Z.
const MILLIS_MAX: i64 = 253_402_300_799_999;

/// Wall-clock time in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// A time of RFC 3339, from 1970 on to the end of the year 9999.
    pub fn parse(text: &str) -> Option<Self> {
        if !has_true_offset(text) {
            return None;
        }
        let millis = match text.parse::<jiff::Timestamp>() {
            Ok(time) => time.as_millisecond(),
            Err(_) => in_the_last_days(text)?,
        };
        u64::try_from(millis).ok().map(Self)
    }

    /// How long its text is, before the year 10000.
    pub const CHARS: usize = 24;

    /// Whole seconds since the Unix epoch, as signatures use them.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }
}

/// Whether the offset, if there is one in numbers, is less than a day (RFC 3339, 5.6: `time-hour`);
/// jiff reads more.
fn has_true_offset(text: &str) -> bool {
    let time = text.split_once(['T', 't', ' ']).map_or("", |(_, time)| time);
    let offset = time.split_once(['+', '-']).map_or("", |(_, offset)| offset);
    let hours = offset.get(..2).and_then(|it| it.parse::<u8>().ok());
    hours.is_none_or(|it| it < 24)
}

/// The end of the year 9999, which many a client writes for "ever", and which is behind the last
/// time that jiff has.
fn in_the_last_days(text: &str) -> Option<i64> {
    let pieces = jiff::fmt::temporal::Pieces::parse(text).ok()?;
    let (date, time, offset) = (pieces.date(), pieces.time()?, pieces.to_numeric_offset()?);
    let epoch = jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0);
    let since = date.to_datetime(time).duration_since(epoch).as_millis();
    let millis = i64::try_from(since).ok()? - i64::from(offset.seconds()) * 1000;
    (date.year() == 9999 && millis <= MILLIS_MAX).then_some(millis)
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, millis) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil(days);
        let (hour, minute) = (millis / 3_600_000, millis / 60_000 % 60);
        let (second, milli) = (millis / 1000 % 60, millis % 1000);
        if year > 9999 {
            let time = format_args!("{hour:02}:{minute:02}:{second:02}.{milli:03}");
            return write!(f, "{year}-{month:02}-{day:02}T{time}Z");
        }
        let date = [(4, year), (7, month), (10, day)];
        let time = [(13, hour), (16, minute), (19, second), (23, milli)];
        // Each event and each attempt tells its time: seven numbers through `write!` were one per
        // cent of the CPU.
        let mut text: [u8; Self::CHARS] = *b"0000-00-00T00:00:00.000Z";
        for (end, mut number) in date.into_iter().chain(time) {
            for digit in text[..end].iter_mut().rev() {
                if number == 0 {
                    break;
                }
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        f.write_str(std::str::from_utf8(&text).expect("all of it is ASCII"))
    }
}

/// Year, month and day of the day `days` after 1970-01-01, counted in years that begin in March
/// so that the leap day comes last.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub for Timestamp {
    type Output = Duration;

    /// The time since `earlier`, or zero if it is later.
    fn sub(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_up_to_the_end_of_the_year_9999() {
        for (text, read) in [
            ("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00.000Z")),
            ("2026-01-31T12:00:00.123456+02:00", Some("2026-01-31T10:00:00.123Z")),
            ("9999-12-30T22:00:00Z", Some("9999-12-30T22:00:00.000Z")),
            ("9999-12-31T23:59:59.999Z", Some("9999-12-31T23:59:59.999Z")),
            ("9999-12-31T23:59:59+01:00", Some("9999-12-31T22:59:59.000Z")),
            ("9999-12-31T23:59:59-01:00", None),
            ("9999-12-31T23:59:59", None),
            ("9999-13-31T23:59:59Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2026-01-31", None),
            ("2026-01-31T12:00:00+23:59", Some("2026-01-30T12:01:00.000Z")),
            ("2026-01-31T12:00:00-2359", Some("2026-02-01T11:59:00.000Z")),
            ("2026-01-31T12:00:00+24:00", None),
            ("2026-01-31T12:00:00-2400", None),
            ("2026-01-31T12:00:00-00:60", None),
            ("2026-01-31t12:00:00+0160", None),
            ("2026-01-31 12:00:00.5+25", None),
            ("9999-12-31T23:59:59+24:00", None),
            ("", None),
        ] {
            let time = Timestamp::parse(text).map(|it| it.to_string());
            assert_eq!(time.as_deref(), read, "{text}");
        }
    }

    #[test]
    fn prints_as_rfc_3339() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_800_000, "2000-03-01T00:00:00.000Z"),
            (1_800_000_000_123, "2027-01-15T08:00:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
            (253_402_300_800_000, "10000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Timestamp(millis).to_string(), text);
        }
    }
}
