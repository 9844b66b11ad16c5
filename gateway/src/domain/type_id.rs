use std::fmt;

use crate::domain::Timestamp;

const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_CHARS: usize = 26;
const PREFIX_CHARS_MAX: usize = 13;
const TAIL_BITS: u32 = 74;

/// A [TypeID](https://github.com/jetify-com/typeid/tree/main/spec): a prefix that names the noun
/// and a UUIDv7 ([RFC 9562](https://www.rfc-editor.org/rfc/rfc9562#name-uuid-version-7)) in
/// Crockford's base 32, so that ids sort by creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeId {
    prefix: &'static str,
    uuid: u128,
}

impl TypeId {
    /// The id made at `at` with the given 74 bits behind the time; more bits are cut off.
    pub const fn new(prefix: &'static str, at: Timestamp, tail: u128) -> Self {
        assert!(prefix.len() <= PREFIX_CHARS_MAX, "a prefix is a short word");
        let (high, low) = ((tail >> 62) & 0xfff, tail & ((1 << 62) - 1));
        let time = ((at.0 & 0xffff_ffff_ffff) as u128) << 80;
        Self { prefix, uuid: time | (7 << 76) | (high << 64) | (2 << 62) | low }
    }

    /// Reads an id with this prefix; anything else is `None`.
    pub fn parse(prefix: &'static str, text: &str) -> Option<Self> {
        let digits = text.strip_prefix(prefix)?.strip_prefix('_')?.as_bytes();
        if digits.len() != SUFFIX_CHARS || digits[0] > b'7' {
            return None;
        }
        let mut uuid = 0_u128;
        for digit in digits {
            let value = DIGITS.iter().position(|it| it == digit)?;
            uuid = (uuid << 5) | value as u128;
        }
        Some(Self { prefix, uuid })
    }

    /// The 74 bits behind the time.
    pub const fn tail(self) -> u128 {
        let (high, low) = ((self.uuid >> 64) & 0xfff, self.uuid & ((1 << 62) - 1));
        (high << 62) | low
    }

    /// When it was made.
    pub const fn at(self) -> Timestamp {
        Timestamp((self.uuid >> 80) as u64)
    }

    /// How many bits [`tail`](Self::tail) holds.
    pub const TAIL_BITS: u32 = TAIL_BITS;

    /// Makes something of its text, which has no string of its own for that.
    pub fn with_text<T>(self, make: impl FnOnce(&str) -> T) -> T {
        let mut text = [b'_'; PREFIX_CHARS_MAX + 1 + SUFFIX_CHARS];
        let begin = self.prefix.len() + 1;
        let text = &mut text[..begin + SUFFIX_CHARS];
        text[..begin - 1].copy_from_slice(self.prefix.as_bytes());
        for (place, digit) in text[begin..].iter_mut().rev().enumerate() {
            *digit = DIGITS[((self.uuid >> (5 * place)) & 31) as usize];
        }
        make(std::str::from_utf8(text).expect("all of it is ASCII"))
    }
}

impl fmt::Display for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In one piece, so that a string of it gets its room at once.
        self.with_text(|it| f.write_str(it))
    }
}

impl fmt::Debug for TypeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_and_keeps_its_parts() {
        let id = TypeId::new("evt", Timestamp(1_800_000_000_123), (1 << 73) | 5);
        let text = id.to_string();
        assert_eq!(text.len(), 30);
        assert_eq!(TypeId::parse("evt", &text), Some(id));
        assert_eq!(TypeId::parse("ep", &text), None);
        assert_eq!(TypeId::parse("evt", &text[..29]), None);
        assert_eq!((id.at(), id.tail()), (Timestamp(1_800_000_000_123), (1 << 73) | 5));
    }

    #[test]
    fn it_is_the_typeid_of_the_specification() {
        // The specification's own example.
        let uuid = 0x0188_bac7_4afa_78aa_bc3b_bd1e_ef28_d881_u128;
        let id = TypeId { prefix: "prefix", uuid };
        assert_eq!(id.to_string(), "prefix_01h2xcejqtf2nbrexx3vqjhp41");
    }

    #[test]
    fn later_ids_sort_later() {
        let early = TypeId::new("evt", Timestamp(1), u128::MAX).to_string();
        assert!(early < TypeId::new("evt", Timestamp(2), 0).to_string());
    }
}
