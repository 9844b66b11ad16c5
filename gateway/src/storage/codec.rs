//! How values lie on disk: a version byte, then [postcard](https://postcard.jamesmunns.com).
//! Where bytes follow that should not be copied, the head's length stands between.

use std::cell::Cell;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

use crate::storage::{Error, Result};

/// The version of the values this code writes. A reader refuses a later one.
const VERSION: u8 = 1;

/// A thread keeps a buffer for encoding up to this size.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The bytes of a value, in memory that they fill: rows stay there until they are in a file.
pub(super) fn encode(value: &impl Serialize) -> Bytes {
    encoded(value, |bytes| [&[VERSION], bytes].concat().into())
}

/// Room for what is secret about an endpoint: with that, encoding it leaves no copies behind.
const SECRET_BYTES: usize = 32 * 1024;

/// The same for what is secret: it goes through no buffer that is kept, and is wiped.
pub(super) fn encode_secret(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut bytes = Vec::with_capacity(SECRET_BYTES);
    bytes.push(VERSION);
    Zeroizing::new(postcard::to_extend(value, bytes).expect("rows are plain data"))
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(check_version(bytes)?).map_err(Error::corrupt)
}

pub(super) fn encode_with_tail(head: &impl Serialize, tail: &[u8]) -> Bytes {
    encoded(head, |head| {
        let head_len = u32::try_from(head.len()).expect("a head is short");
        [&[VERSION], &head_len.to_le_bytes()[..], head, tail].concat().into()
    })
}

pub(super) fn decode_with_tail<'a, T: Deserialize<'a>>(row: &'a Bytes) -> Result<(T, Bytes)> {
    let rest = check_version(row)?;
    let (len, rest) = rest.split_first_chunk().ok_or_else(|| Error::corrupt("short row"))?;
    let len = u32::from_le_bytes(*len) as usize;
    let head = rest.get(..len).ok_or_else(|| Error::corrupt("short row"))?;
    Ok((postcard::from_bytes(head).map_err(Error::corrupt)?, row.slice(5 + len..)))
}

/// Encodes a value where there is room, and then gives `use_it` the bytes.
fn encoded(value: &impl Serialize, use_it: impl FnOnce(&[u8]) -> Bytes) -> Bytes {
    let mut scratch = SCRATCH.take();
    scratch.clear();
    let scratch = postcard::to_extend(value, scratch).expect("rows are plain data");
    let bytes = use_it(&scratch);
    if scratch.capacity() <= SCRATCH_BYTES_MAX {
        SCRATCH.set(scratch);
    }
    bytes
}

fn check_version(bytes: &[u8]) -> Result<&[u8]> {
    match bytes.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((&found, _)) if found > VERSION => {
            Err(Error::Newer { found: found.into(), known: VERSION.into() })
        }
        _ => Err(Error::corrupt("a row without a version")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_fills_its_memory() {
        let value = (7_u32, "x".repeat(300));
        for _ in 0..2 {
            for row in [encode(&value), encode_with_tail(&value, b"tail")] {
                let len = row.len();
                let vec = Vec::from(row);
                assert_eq!((vec.len(), vec.capacity()), (len, len));
            }
        }
        let row = encode_with_tail(&value, b"tail");
        let (head, tail) = decode_with_tail::<(u32, String)>(&row).unwrap();
        assert_eq!((head, &tail[..]), (value.clone(), &b"tail"[..]));
        assert_eq!(decode::<(u32, String)>(&encode(&value)).unwrap(), value);
    }

    #[test]
    fn what_is_secret_stays_in_no_buffer() {
        let value = (7_u32, "whsec_of_a_tenant".to_owned());
        let (secret, kept) = (encode_secret(&value), SCRATCH.take());
        assert_eq!(&secret[..], &encode(&value)[..]);
        assert_eq!(kept.capacity(), 0);
    }

    #[test]
    fn a_long_value_does_not_stay() {
        assert_eq!(encode(&"x".repeat(SCRATCH_BYTES_MAX + 1)).len(), SCRATCH_BYTES_MAX + 5);
        assert_eq!(SCRATCH.take().capacity(), 0);
    }
}
