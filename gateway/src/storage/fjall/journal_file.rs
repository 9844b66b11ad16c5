//! fjall's journal files, read as they lie on disk and without fjall: it drops whatever follows an
//! entry that it cannot decode, so a damaged one has to be found before fjall sees it.
//!
//! A batch is a start (count, number), its items, and an end (checksum over the items, magic). A
//! file may end in zeros, which were allocated ahead, or in a batch that was being written.

use std::{ops::Range, path::Path};

use xxhash_rust::xxh3::Xxh3;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: &[u8] = b"FJL\x03";
const ITEM_HEAD_BYTES: usize = 21;
/// fjall numbers batches one by one, and takes a few numbers for itself.
const SEQNO_STEP_MAX: u64 = 1 << 20;

/// One whole batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JournalBatch {
    /// Its bytes in the file.
    pub(super) place: Range<usize>,
    /// fjall's number.
    pub(super) seqno: u64,
    /// Key and value of each item, as places in the file, with the keyspace.
    pub(super) items: Vec<(u64, Range<usize>, Range<usize>)>,
}

/// What a journal file holds.
#[derive(Debug, Default)]
pub(super) struct JournalFile {
    pub(super) bytes: Vec<u8>,
    /// The batches that are as they were written, in order.
    pub(super) batches: Vec<JournalBatch>,
    /// Where something is wrong with a batch that was once written whole.
    pub(super) damage: Vec<(usize, &'static str)>,
    /// Where the last batch was torn, or zeros were allocated ahead.
    pub(super) ends_at: usize,
}

impl JournalFile {
    pub(super) fn read(path: &Path) -> std::io::Result<Self> {
        std::fs::read(path).map(Self::parse)
    }

    pub(super) fn parse(bytes: Vec<u8>) -> Self {
        let mut file = Self { bytes, ..Self::default() };
        let mut at = 0;
        while let Err((wrong_at, what)) = file.parse_from(&mut at) {
            file.ends_at = at;
            // If a whole batch follows, this one was whole once, too.
            let Some(next) = file.next_whole_batch(at + 1) else { return file };
            file.damage.push((wrong_at, what));
            at = next;
        }
        file.ends_at = at;
        file
    }

    /// Whether something other than zeros stands behind the last batch.
    pub(super) fn is_torn(&self) -> bool {
        self.bytes[self.ends_at..].iter().any(|it| *it != 0)
    }

    pub(super) fn key(&self, item: &(u64, Range<usize>, Range<usize>)) -> &[u8] {
        &self.bytes[item.1.clone()]
    }

    pub(super) fn value(&self, item: &(u64, Range<usize>, Range<usize>)) -> &[u8] {
        &self.bytes[item.2.clone()]
    }

    /// Reads batch after batch; `at` stays behind the last whole one.
    fn parse_from(&mut self, at: &mut usize) -> Result<(), (usize, &'static str)> {
        while *at < self.bytes.len() {
            let batch = parse_batch(&self.bytes, *at)?;
            let last = self.batches.last().map(|it| it.seqno);
            let step = last.map_or(Some(1), |it| batch.seqno.checked_sub(it));
            if step.is_none_or(|it| it == 0 || it > SEQNO_STEP_MAX) {
                self.damage.push((*at, "a batch is out of order"));
            }
            *at = batch.place.end;
            self.batches.push(batch);
        }
        Ok(())
    }

    fn next_whole_batch(&self, from: usize) -> Option<usize> {
        let starts = memchr::memchr_iter(START, self.bytes.get(from..)?);
        starts.map(|it| from + it).find(|it| parse_batch(&self.bytes, *it).is_ok())
    }
}

fn parse_batch(bytes: &[u8], start: usize) -> Result<JournalBatch, (usize, &'static str)> {
    let mut at = start;
    let no_start = (start, "a batch does not begin where it should");
    let head = bytes.get(at..at + 13).filter(|it| it[0] == START).ok_or(no_start)?;
    let count = u32::from_le_bytes(head[1..5].try_into().expect("four bytes"));
    let seqno = u64_at(head, 5);
    at += 13;
    let mut checksum = Xxh3::new();
    let mut items = Vec::new();
    for _ in 0..count {
        let wrong = (at, "an item cannot be read");
        let len = match bytes.get(at) {
            Some(&ITEM) => {
                let head = bytes.get(at..at + ITEM_HEAD_BYTES).ok_or(wrong)?;
                let key_len = usize::from(u16::from_le_bytes([head[11], head[12]]));
                let value_len = u32::from_le_bytes(head[17..21].try_into().expect("four bytes"));
                let key = at + 21..at + 21 + key_len;
                let value = key.end..key.end + value_len as usize;
                let len = value.end - at;
                bytes.get(at..at + len).ok_or(wrong)?;
                items.push((u64_at(head, 3), key, value));
                len
            }
            Some(&CLEAR) => 9,
            _ => return Err(wrong),
        };
        checksum.update(bytes.get(at..at + len).ok_or(wrong)?);
        at += len;
    }
    let no_end = (at, "a batch does not end where it should");
    let tail = bytes.get(at..at + 13).filter(|it| it[0] == END && &it[9..] == MAGIC);
    if u64_at(tail.ok_or(no_end)?, 1) != checksum.digest() {
        return Err((start, "a batch's checksum is wrong"));
    }
    Ok(JournalBatch { place: start..at + 13, seqno, items })
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seqno: u64, value: &[u8]) -> Vec<u8> {
        let mut item = vec![ITEM, 0, 0];
        item.extend_from_slice(&7_u64.to_le_bytes());
        item.extend_from_slice(&3_u16.to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.extend_from_slice(&(value.len() as u32).to_le_bytes());
        item.extend_from_slice(b"key");
        item.extend_from_slice(value);
        let mut checksum = Xxh3::new();
        checksum.update(&item);
        let mut batch = vec![START];
        batch.extend_from_slice(&1_u32.to_le_bytes());
        batch.extend_from_slice(&seqno.to_le_bytes());
        batch.extend_from_slice(&item);
        batch.push(END);
        batch.extend_from_slice(&checksum.digest().to_le_bytes());
        batch.extend_from_slice(MAGIC);
        batch
    }

    #[test]
    fn a_torn_end_is_no_damage_and_a_hole_is() {
        let (first, second) = (batch(1, b"one"), batch(2, b"two"));
        let whole = [&first[..], &second].concat();
        let file = JournalFile::parse([&whole[..], &[0; 64]].concat());
        assert_eq!((file.batches.len(), file.damage.len(), file.is_torn()), (2, 0, false));
        assert_eq!(file.value(&file.batches[1].items[0]), b"two");
        for len in first.len() + 1..whole.len() {
            let file = JournalFile::parse(whole[..len].to_vec());
            assert_eq!((file.batches.len(), file.damage.len()), (1, 0), "{len}");
            assert!(file.is_torn() && file.ends_at == first.len());
        }
        for place in 0..first.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 16;
            let file = JournalFile::parse(bytes);
            let unharmed = file.batches.len() == 2 && file.batches[0].seqno != 1;
            assert!(file.damage.len() == 1 || unharmed, "{place}: {:?}", file.damage);
        }
    }
}
