//! Whether a journal was taken away before the oldest that is there. fjall deletes one when all
//! that it holds is in tables. Each batch writes its number into one table, so that table tells
//! which batch was the last one there, and the journals go on with the next, or overlap.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use lsm_tree::{AbstractTree, Config, Guard, SeqNo, SequenceNumberCounter};

use crate::storage::codec::decode;
use crate::storage::fjall::inspect::{DamageKind, Inspection, journal_paths};
use crate::storage::fold::Meta;

impl Inspection {
    /// Compares the beginning of the journals with what is in tables. Only for a store in which
    /// nothing else was found, before fjall opens it and writes to its tables. Where an earlier
    /// start was allowed to go on without a part of the oldest journal, nothing is compared.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub(super) fn look_before_the_oldest(
        &mut self,
        store: &Path,
        accepted: &BTreeSet<String>,
    ) -> io::Result<()> {
        let journals = journal_paths(store)?;
        // Before the first of all there was none.
        let Some((oldest, path)) = journals.first().filter(|it| it.0 > 0) else { return Ok(()) };
        let above = store.parent().unwrap_or(store);
        let name = path.strip_prefix(above).unwrap_or(path).display().to_string();
        if !self.damage.is_empty() || accepted.iter().any(|it| it.starts_with(&name)) {
            return Ok(());
        }
        let keyspaces: BTreeSet<_> = self.first.values().map(|it| it.1).collect();
        let mut in_tables = BTreeMap::new();
        for keyspace in keyspaces {
            let folder = store.join("keyspaces").join(keyspace.to_string());
            in_tables.extend(batches_in_tables(&folder)?);
        }
        for (shard, (first, _)) in std::mem::take(&mut self.first) {
            let last = in_tables.get(&shard).copied().unwrap_or_default();
            if last + 1 < first {
                let missing = path.with_file_name(format!("{}.jnl", oldest - 1));
                let missing = missing.strip_prefix(above).unwrap_or(&missing).to_owned();
                let what = format!(
                    "it is missing: the tables end with batch {last} of shard {shard}, and the \
                     journals begin with batch {first}"
                );
                self.damage(DamageKind::Journal, &missing, what);
            }
        }
        self.accept(accepted);
        Ok(())
    }
}

/// By shard, the last batch of which all is in tables, as far as the keyspace in `folder` tells.
fn batches_in_tables(folder: &Path) -> io::Result<BTreeMap<u16, u64>> {
    let counter = SequenceNumberCounter::default;
    let tree = Config::new(folder, counter(), counter()).open().map_err(io::Error::other)?;
    let mut batches = BTreeMap::new();
    for row in tree.iter(SeqNo::MAX, None) {
        let (key, value) = row.into_inner().map_err(io::Error::other)?;
        let Ok(shard) = <[u8; 2]>::try_from(&key[..]) else { continue };
        let meta = decode::<Meta>(&value).map_err(io::Error::other)?;
        batches.insert(u16::from_be_bytes(shard), meta.lsn);
    }
    Ok(batches)
}
