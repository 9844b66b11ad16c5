/// The names of the two headers that tell how long a body is.
const NAMES: [&[u8]; 2] = [b"content-length", b"transfer-encoding"];
const NAME_BYTES_MAX: usize = 17;

/// Reads along in the head of a request, in whatever pieces it comes, for whether it says in two
/// ways how long its body is (RFC 9112, 6.1: that is how a request is smuggled past a proxy).
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The beginning of the line's name, in small letters.
    name: [u8; NAME_BYTES_MAX],
    /// How long the name is; more than the longest of interest: none of them.
    name_bytes: usize,
    told: [bool; 2],
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before the request line, where empty lines are passed over (RFC 9112, 2.2).
    #[default]
    Start,
    RequestLine,
    Name,
    Value,
    Over,
}

impl Framing {
    /// Takes the next bytes, and tells whether the head ended with them.
    pub(super) fn see(&mut self, mut bytes: &[u8]) -> bool {
        while let (false, Some(&first)) = (self.place == Place::Over, bytes.first()) {
            if self.place == Place::Start {
                match first {
                    b'\r' | b'\n' => bytes = &bytes[1..],
                    _ => self.place = Place::RequestLine,
                }
                continue;
            }
            if self.place == Place::Name && first != b'\n' {
                bytes = &bytes[1..];
                self.name(first);
                continue;
            }
            let Some(end) = memchr::memchr(b'\n', bytes) else { return false };
            bytes = &bytes[end + 1..];
            // A line of a name alone: nothing, or nothing but the carriage return.
            let is_empty = self.place == Place::Name && self.name_bytes == 0;
            self.place = if is_empty { Place::Over } else { Place::Name };
            self.name_bytes = 0;
            if is_empty {
                return true;
            }
        }
        false
    }

    /// Whether the head told the body's length, and that its end shows, too.
    pub(super) fn is_told_twice(&self) -> bool {
        self.told == [true, true]
    }

    fn name(&mut self, byte: u8) {
        match byte {
            b'\r' => {}
            b':' => {
                let name = self.name.get(..self.name_bytes);
                for (told, of_interest) in self.told.iter_mut().zip(NAMES) {
                    *told |= name == Some(of_interest);
                }
                self.place = Place::Value;
            }
            _ => {
                if let Some(place) = self.name.get_mut(self.name_bytes) {
                    *place = byte.to_ascii_lowercase();
                }
                self.name_bytes += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "POST /v1 HTTP/1.1\r\n";

    #[test]
    fn two_ways_to_tell_the_length_are_found_however_the_head_is_cut() {
        let (length, coding) = ("Content-Length: 5\r\n", "TRANSFER-encoding:chunked\r\n");
        for (headers, expected) in [
            (format!("{length}host: x\r\n{coding}"), true),
            (format!("{coding}{length}"), true),
            (format!("{length}host: x\r\n"), false),
            (format!("host: x\r\n{coding}{coding}"), false),
            (format!("x-content-length: 5\r\n{coding}"), false),
            (format!("content-lengthy: 5\r\n{coding}"), false),
            (format!("x: content-length: 5\r\n{coding}"), false),
            (String::new(), false),
        ] {
            let head = format!("\r\n\r\n\n{LINE}{headers}\r\n");
            for cut in 0..head.len() {
                let mut framing = Framing::default();
                let (one, other) = head.as_bytes().split_at(cut);
                assert!(!framing.see(one), "{head:?} at {cut}");
                assert!(framing.see(other), "{head:?} at {cut}");
                assert_eq!(framing.is_told_twice(), expected, "{head:?} at {cut}");
            }
        }
    }

    #[test]
    fn what_comes_behind_the_head_is_not_looked_at() {
        let mut framing = Framing::default();
        let body = "\r\ncontent-length: 5\r\n\r\n";
        assert!(framing.see(format!("{LINE}Transfer-Encoding: chunked\n\n{body}").as_bytes()));
        assert!(!framing.see(body.as_bytes()));
        assert!(!framing.is_told_twice());
    }
}
