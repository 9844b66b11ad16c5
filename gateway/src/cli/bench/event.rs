use bytes::Bytes;

const NUMBER: &str = "\"sent_us\":";
/// Digits of a time in microseconds, until the year 2286.
const DIGITS: usize = 16;

/// An event of a given size that carries when it was sent.
#[derive(Debug, Clone)]
pub(super) struct Template {
    text: Vec<u8>,
    digits: usize,
}

impl Template {
    /// One of `size` bytes, or of the least that it takes.
    pub(super) fn new(size: usize) -> Self {
        let head = format!("{{\"type\":\"bench.event\",\"data\":{{{NUMBER}");
        let tail = ",\"amount\":500,\"card\":{\"number\":\"4242424242424242\"},\"text\":\"";
        let end = "\"}}";
        let fixed = head.len() + DIGITS + tail.len() + end.len();
        let filling = "x".repeat(size.saturating_sub(fixed));
        let text = format!("{head}{}{tail}{filling}{end}", "0".repeat(DIGITS));
        Self { text: text.into(), digits: head.len() }
    }

    /// It as sent at this time, in microseconds since 1970.
    pub(super) fn at(&self, now_us: u64) -> Bytes {
        let mut text = self.text.clone();
        let digits = format!("{now_us:0DIGITS$}");
        // JSON has no numbers that begin with 0.
        let digits = digits.trim_start_matches('0');
        let (place, spaces) = (self.digits, DIGITS - digits.len());
        text[place..place + spaces].fill(b' ');
        text[place + spaces..place + DIGITS].copy_from_slice(digits.as_bytes());
        text.into()
    }

    /// The data alone: what a plugin is asked about.
    pub(super) fn data(&self) -> Bytes {
        let text = self.at(1);
        let start = memchr::memmem::find(&text, b"\"data\":").map_or(0, |it| it + 7);
        text.slice(start..text.len() - 1)
    }
}

/// When an event was sent, as it stands in the body that came of it.
pub(super) fn sent_us(body: &[u8]) -> Option<u64> {
    let after = &body[memchr::memmem::find(body, NUMBER.as_bytes())? + NUMBER.len()..];
    let start = after.iter().position(|it| *it != b' ')?;
    let digits = &after[start..];
    let end = digits.iter().position(|it| !it.is_ascii_digit())?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_has_its_size_and_tells_its_time() {
        for now in [1, 1_800_000_000_000_000] {
            let event = Template::new(1024).at(now);
            assert_eq!(event.len(), 1024);
            let parsed: serde_json::Value = serde_json::from_slice(&event).unwrap();
            assert_eq!(parsed["data"]["sent_us"], now);
            assert_eq!(sent_us(&event), Some(now));
        }
        assert_eq!(sent_us(b"{}"), None);
        let least = Template::new(0);
        assert!(serde_json::from_slice::<serde_json::Value>(&least.at(5)).is_ok());
    }

    #[test]
    fn its_data_is_json() {
        let data: serde_json::Value = serde_json::from_slice(&Template::new(1024).data()).unwrap();
        assert_eq!(data["amount"], 500);
    }
}
