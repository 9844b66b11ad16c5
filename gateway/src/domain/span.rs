use std::time::Duration;

/// What no duration reaches: what is below is exact to the millisecond.
const MILLIS_MAX: f64 = (1_u64 << 53) as f64;

/// A duration such as `250ms`, `15s`, `5m`, `28h`, `7d`, or several of them: `1h30m`. Parts of a
/// millisecond are rounded.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0_u64;
    while !rest.is_empty() {
        let digits = rest.find(|it: char| !it.is_ascii_digit() && it != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|it: char| !it.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let millis = match unit {
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        let part = (number.parse::<f64>().ok()? * millis).round();
        total = total.checked_add((part < MILLIS_MAX).then_some(part as u64)?)?;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// The duration in its largest whole unit.
pub fn duration(it: Duration) -> String {
    let millis = it.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written() {
        for (text, millis, written) in [
            ("250ms", 250, "250ms"),
            ("15s", 15_000, "15s"),
            ("1h30m", 5_400_000, "90m"),
            ("28h", 100_800_000, "28h"),
            ("7d", 604_800_000, "168h"),
            ("1.5s", 1500, "1500ms"),
            ("0.4ms", 0, "0s"),
            ("252167950086ms", 252_167_950_086, "252167950086ms"),
        ] {
            let parsed = parse_duration(text).unwrap();
            assert_eq!(parsed, Duration::from_millis(millis), "{text}");
            assert_eq!(duration(parsed), written);
        }
        for bad in ["", "5", "s", "5x", "-5s", "5 s", "1e3s", "9007199254741s"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
