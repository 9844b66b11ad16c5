//! Has memtables taken apart where nobody waits for it. fjall drops one when it next looks at what
//! it has written, under the lock that each write to the table takes: for 32 MiB of events that is
//! 10 to 20 ms in which nothing is accepted.

use std::{collections::BTreeMap, sync::Arc};

use fjall::{AbstractTree, Keyspace};
use lsm_tree::Memtable;

use crate::storage::Table;

/// Memtables from when they are first seen until fjall has let go of them: who holds one last takes
/// it apart.
#[derive(Default)]
pub(super) struct Memtables(Vec<Arc<Memtable>>);

impl Memtables {
    /// Holds those that are new, and drops those that nobody else has.
    pub(super) fn look(&mut self, keyspaces: &BTreeMap<Table, Keyspace>) {
        for keyspace in keyspaces.values() {
            let memtable = keyspace.tree.active_memtable();
            if !self.0.iter().any(|it| Arc::ptr_eq(it, &memtable)) {
                self.0.push(memtable);
            }
        }
        self.0.retain(|it| Arc::strong_count(it) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_held_until_nobody_else_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let keyspace = database.keyspace("rows", Default::default).unwrap();
        let keyspaces = BTreeMap::from([(Table::Events, keyspace.clone())]);
        let mut memtables = Memtables::default();
        let mut turn = |row: u8| {
            keyspace.insert([row], [7; 1024]).unwrap();
            memtables.look(&keyspaces);
            memtables.look(&keyspaces);
            keyspace.rotate_memtable_and_wait().unwrap();
            memtables.0.len()
        };
        for row in 0..20 {
            let held = turn(row);
            assert!((1..4).contains(&held), "{held} are held");
        }
    }
}
