//! What JSON may look like beyond its grammar. Deep nesting, very many members, members that come
//! twice and endless numbers are how JSON is used to hurt whoever reads it next.

use std::borrow::Cow;

use smallvec::SmallVec;

const DEPTH_MAX: usize = 64;
const MEMBERS_MAX: usize = 10_000;
const NUMBER_BYTES_MAX: usize = 1000;
/// How much of a name is told.
const NAME_BYTES_SHOWN: usize = 256;

/// Why a JSON text is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is over a limit.
    Limit(String),
    /// The string that begins at this byte is no text that every reader would understand.
    Text(usize),
}

impl Fault {
    /// The same, told of a part.
    pub(super) fn of(self, part: &str) -> Self {
        match self {
            Self::Limit(detail) => Self::Limit(format!("the {part}: {detail}")),
            text @ Self::Text(_) => text,
        }
    }
}

/// Looks a JSON text over that has been parsed once, so its grammar is known to be right.
pub(super) fn check(json: &[u8]) -> Result<(), Fault> {
    scan(json, DEPTH_MAX, MEMBERS_MAX)
}

/// The same for what nobody but the gateway reads, and whose size is limited: only what its reader
/// would not notice is refused.
pub(super) fn check_body(json: &[u8]) -> Result<(), Fault> {
    scan(json, usize::MAX, usize::MAX)
}

fn scan(json: &[u8], depth_max: usize, members_max: usize) -> Result<(), Fault> {
    let (open, members) = Default::default();
    let mut scan = Scan { json, at: 0, open, members, count: 0, members_max };
    let mut key_next = false;
    while let Some(byte) = json.get(scan.at).copied() {
        match byte {
            b'{' | b'[' => {
                let start = (byte == b'{').then_some(scan.members.len());
                scan.open.push(start);
                if scan.open.len() > depth_max {
                    return Err(Fault::Limit(format!("it is nested deeper than {depth_max}")));
                }
                key_next = byte == b'{';
            }
            b'}' | b']' => {
                scan.close()?;
                key_next = false;
            }
            b',' => key_next = matches!(scan.open.last(), Some(Some(_))),
            b'"' => {
                let text = scan.string()?;
                if std::mem::take(&mut key_next) {
                    scan.member(text)?;
                }
                continue;
            }
            b'-' | b'0'..=b'9' => {
                scan.number()?;
                continue;
            }
            _ => {}
        }
        scan.at += 1;
    }
    Ok(())
}

struct Scan<'a> {
    json: &'a [u8],
    at: usize,
    /// For each open object where its members begin; nothing for an array.
    open: SmallVec<[Option<usize>; 8]>,
    /// Names of the members of all open objects.
    members: SmallVec<[Cow<'a, [u8]>; 8]>,
    count: usize,
    members_max: usize,
}

impl<'a> Scan<'a> {
    /// Takes a string, quotes included.
    fn string(&mut self) -> Result<&'a [u8], Fault> {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        loop {
            let rest = self.json.get(self.at..).unwrap_or_default();
            let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
                self.at = self.json.len();
                break;
            };
            self.at += next + 1;
            if rest[next] == b'"' {
                break;
            }
            escaped = true;
            self.at += 1;
        }
        let text = &self.json[start..self.at];
        // Half a surrogate pair is grammatical JSON and no Unicode text.
        if escaped && serde_json::from_slice::<String>(text).is_err() {
            return Err(Fault::Text(start));
        }
        Ok(text)
    }

    fn number(&mut self) -> Result<(), Fault> {
        let digit =
            |it: &&u8| it.is_ascii_digit() || matches!(it, b'-' | b'+' | b'.' | b'e' | b'E');
        let length = self.json[self.at..].iter().take_while(digit).count();
        self.at += length;
        match length > NUMBER_BYTES_MAX {
            true => Err(Fault::Limit(format!("a number has more than {NUMBER_BYTES_MAX} digits"))),
            false => Ok(()),
        }
    }

    fn member(&mut self, text: &'a [u8]) -> Result<(), Fault> {
        self.count += 1;
        if self.count > self.members_max {
            return Err(Fault::Limit(format!("it has more than {} members", self.members_max)));
        }
        let name = match memchr::memchr(b'\\', text) {
            // The same name can be written in several ways.
            Some(_) => serde_json::from_slice::<String>(text)
                .map_or(Cow::Borrowed(text), |it| Cow::Owned(format!("\"{it}\"").into_bytes())),
            None => Cow::Borrowed(text),
        };
        self.members.push(name);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Fault> {
        let Some(Some(start)) = self.open.pop() else { return Ok(()) };
        let names = &mut self.members[start..];
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|it| it[0] == it[1]) {
            let shown = &twice[0][..twice[0].len().min(NAME_BYTES_SHOWN)];
            let name = String::from_utf8_lossy(shown);
            return Err(Fault::Limit(format!("the member {name} comes twice")));
        }
        self.members.truncate(start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hurts_readers_is_refused() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        let members = |count: usize| {
            let all: Vec<_> = (0..count).map(|it| format!("\"k{it}\":{it}")).collect();
            format!("{{{}}}", all.join(","))
        };
        let limit = |it: &Result<(), Fault>| matches!(it, Err(Fault::Limit(_)));
        for (json, fits) in [
            (nested(64), true),
            (nested(65), false),
            (members(10_000), true),
            (members(10_001), false),
            ("1".repeat(1000), true),
            ("1".repeat(1_000_000), false),
            (r#"{"a":{"a":1},"b":[{"a":1},{"a":2}]}"#.to_owned(), true),
            (r#"{"a":1,"b":2,"a":3}"#.to_owned(), false),
            (r#"{"a":1,"\u0061":3}"#.to_owned(), false),
            (r#"{"a":"{[\"","b":"a\\"}"#.to_owned(), true),
            (r#"["a","a",{"":"","x":"\""}]"#.to_owned(), true),
        ] {
            let checked = check(json.as_bytes());
            let shown = &json[..json.len().min(40)];
            assert!(if fits { checked.is_ok() } else { limit(&checked) }, "{shown}: {checked:?}");
        }
        for json in [r#""\ud800""#, r#"{"a\udc00":1}"#] {
            assert!(matches!(check(json.as_bytes()), Err(Fault::Text(_))), "{json}");
        }
        assert_eq!(check(r#""\ud83d\ude00 ü""#.as_bytes()), Ok(()));
    }
}
