//! How values lie on disk: a version byte, then [postcard](https://postcard.jamesmunns.com).
//! Where bytes follow that should not be copied, the head's length stands between.

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::storage::{Error, Result};

/// The version of the values this code writes. A reader refuses a later one.
const VERSION: u8 = 1;

pub(super) fn encode(value: &impl Serialize) -> Bytes {
    encode_into(vec![VERSION], value).into()
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(check_version(bytes)?).map_err(Error::corrupt)
}

pub(super) fn encode_with_tail(head: &impl Serialize, tail: &[u8]) -> Bytes {
    let mut row = Vec::with_capacity(128 + tail.len());
    row.extend_from_slice(&[VERSION, 0, 0, 0, 0]);
    let mut row = encode_into(row, head);
    let head_len = u32::try_from(row.len() - 5).expect("a head is short");
    row[1..5].copy_from_slice(&head_len.to_le_bytes());
    row.extend_from_slice(tail);
    row.into()
}

pub(super) fn decode_with_tail<'a, T: Deserialize<'a>>(row: &'a Bytes) -> Result<(T, Bytes)> {
    let rest = check_version(row)?;
    let (len, rest) = rest.split_first_chunk().ok_or_else(|| Error::corrupt("short row"))?;
    let len = u32::from_le_bytes(*len) as usize;
    let head = rest.get(..len).ok_or_else(|| Error::corrupt("short row"))?;
    Ok((postcard::from_bytes(head).map_err(Error::corrupt)?, row.slice(5 + len..)))
}

fn encode_into(buffer: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, buffer).expect("rows are plain data")
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
