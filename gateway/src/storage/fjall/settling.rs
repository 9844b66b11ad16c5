//! Writes memtables to the disk that nobody fills any more. What a busy time leaves in memory would
//! stay there until the next one, and be read from the journal again by the next start.

use std::collections::BTreeMap;

use fjall::{AbstractTree, Keyspace};

use crate::storage::{Result, Table};

/// Less is not worth a file.
const BYTES_MIN: u64 = 1024 * 1024;
/// A memtable that grew by less than this part of its size between two looks is written. So one
/// that is filled at an even pace gets there after as many looks, or is full before.
const GROWTH_MIN: u64 = 8;

/// How large the memtables were when they were last looked at.
#[derive(Debug, Default)]
pub(super) struct Settling(BTreeMap<Table, Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    memtable: u64,
    bytes: u64,
}

impl Seen {
    fn is_settled(self, now: Self) -> bool {
        let grown = now.bytes.saturating_sub(self.bytes);
        self.memtable == now.memtable && now.bytes >= BYTES_MIN && grown < now.bytes / GROWTH_MIN
    }
}

impl Settling {
    /// Looks at all memtables, and has those written that nobody fills any more; whether there are
    /// such.
    pub(super) fn settle(&mut self, keyspaces: &BTreeMap<Table, Keyspace>) -> Result<bool> {
        let mut some = false;
        for (&table, keyspace) in keyspaces {
            let memtable = keyspace.tree.active_memtable();
            let now = Seen { memtable: memtable.id(), bytes: memtable.size() };
            let was = self.0.insert(table, now);
            let settled = was.is_some_and(|it| it.is_settled(now));
            if settled && has_room(keyspace, now.bytes) {
                tracing::debug!(table = table.name(), bytes = now.bytes, "a memtable is settled");
                some |= keyspace.rotate_memtable()?;
            }
        }
        Ok(some)
    }
}

/// Whether the disk has plenty for a file of that size: on one that is nearly full, memory is the
/// better place for it.
fn has_room(keyspace: &Keyspace, bytes: u64) -> bool {
    let space = rustix::fs::statvfs(keyspace.path());
    space.is_ok_and(|it| it.f_bavail * it.f_frsize / 8 > bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_still_grows_is_left_alone() {
        let seen = |memtable, bytes| Seen { memtable, bytes };
        let full = 8 * BYTES_MIN;
        assert!(seen(1, full).is_settled(seen(1, full)));
        assert!(seen(1, full).is_settled(seen(1, full + BYTES_MIN)));
        assert!(!seen(1, full).is_settled(seen(1, full + 2 * BYTES_MIN)));
        assert!(!seen(1, full).is_settled(seen(2, full)), "it is another one");
        assert!(!seen(1, BYTES_MIN - 1).is_settled(seen(1, BYTES_MIN - 1)));
    }

    #[test]
    fn a_memtable_at_rest_goes_to_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let keyspace = database.keyspace("rows", Default::default).unwrap();
        let keyspaces = BTreeMap::from([(Table::Events, keyspace.clone())]);
        let mut settling = Settling::default();
        for row in 0..2 * BYTES_MIN / 1024 {
            keyspace.insert(row.to_be_bytes(), [7; 1024]).unwrap();
        }
        assert!(!settling.settle(&keyspaces).unwrap());
        assert!(keyspace.tree.active_memtable().size() >= BYTES_MIN, "it was just filled");
        assert!(settling.settle(&keyspaces).unwrap());
        assert_eq!(keyspace.tree.active_memtable().size(), 0);
        assert!(!settling.settle(&keyspaces).unwrap());
        assert!(!settling.settle(&keyspaces).unwrap());
        assert_eq!(keyspace.get(5_u64.to_be_bytes()).unwrap().as_deref(), Some(&[7; 1024][..]));
    }
}
