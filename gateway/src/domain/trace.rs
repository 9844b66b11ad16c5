use std::fmt;

/// Which trace something belongs to, and which of its spans led to it:
/// [W3C Trace Context](https://www.w3.org/TR/trace-context/#traceparent-header).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace; never all zero.
    pub trace: [u8; 16],
    /// The span; never all zero.
    pub span: [u8; 8],
    /// The lowest bit says that it is recorded.
    pub flags: u8,
}

impl TraceContext {
    /// The trace, as people and collectors write it.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace))
    }

    /// Reads a `traceparent`. Whatever is malformed or all zero is as if it were not there. A later
    /// version may have more behind what is known of it.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.trim().as_bytes();
        let (known, rest) = bytes.split_at_checked(55)?;
        let mut parts = known.split(|it| *it == b'-');
        let [version] = hex(parts.next()?)?;
        let (trace, span, [flags]) =
            (hex(parts.next()?)?, hex(parts.next()?)?, hex(parts.next()?)?);
        let fits = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest[0] == b'-',
        };
        let valid = fits && parts.next().is_none() && trace != [0; 16] && span != [0; 8];
        valid.then_some(Self { trace, span, flags: flags & 1 })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (trace, span) = (u128::from_be_bytes(self.trace), u64::from_be_bytes(self.span));
        write!(f, "00-{trace:032x}-{span:016x}-{:02x}", self.flags)
    }
}

/// Lower-case digits only, as the specification has it.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let lower = |it: &u8| it.is_ascii_digit() || (b'a'..=b'f').contains(it);
    if text.len() != 2 * N || !text.iter().all(lower) {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    let mut bytes = [0; N];
    for (place, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(bytes)
}

/// Whether an endpoint is told which trace a delivery belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TracePolicy {
    /// A new trace for each attempt, which only the gateway can link with the producer's.
    #[default]
    New,
    /// The producer's own trace.
    Propagate,
    /// It is told nothing.
    Off,
}

impl TracePolicy {
    /// Each policy with its name in the API.
    pub const NAMES: [(Self, &'static str); 3] =
        [(Self::New, "new"), (Self::Propagate, "propagate"), (Self::Off, "off")];
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let it = TraceContext::parse(GOOD).unwrap();
        assert_eq!(it.to_string(), GOOD);
        let later = format!("cc{}-what-follows", &GOOD[2..]);
        assert_eq!(TraceContext::parse(&later), Some(it));
    }

    #[test]
    fn what_is_malformed_is_ignored() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-x"),
            &format!("{GOOD}0"),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.to_uppercase(),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('4', "g"),
            &GOOD.replace("-00f", "0-0f"),
            "00_4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7_01",
            &"é".repeat(40),
        ] {
            assert_eq!(TraceContext::parse(bad), None, "{bad}");
        }
    }
}
