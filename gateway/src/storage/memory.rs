//! A journal in memory, for simulation: it keeps encoded records only, and its view is folded
//! from them, as that of a replicated journal would be.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use bytes::Bytes;

use crate::storage::fold::{Meta, fold_batch};
use crate::storage::journal::{Batch, Durability, Journal, Rows, View};
use crate::storage::keys::ShardNo;
use crate::storage::record::decode_records;
use crate::storage::{Changes, Error, Floors, Result, Table};

/// What survives a simulated crash: the batches of each shard, and how many of them are synced.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    shards: BTreeMap<u16, History>,
    /// After so many more commits the disk fails; whether the failed one is there all the same.
    failing: Option<(u64, bool)>,
}

#[derive(Debug, Default)]
struct History {
    batches: Vec<Bytes>,
    synced: usize,
}

impl Disk {
    /// The power fails: of the batches that were not synced, a part that `chance` in `0..=1`
    /// decides is gone.
    pub fn lose_power(&self, chance: f64) {
        let mut state = self.lock();
        state.failing = None;
        for history in state.shards.values_mut() {
            let unsynced = history.batches.len() - history.synced;
            // None, all, or any number between.
            let kept = ((unsynced + 1) as f64 * chance) as usize;
            history.batches.truncate(history.synced + kept.min(unsynced));
            history.synced = history.batches.len();
        }
    }

    /// After `commits` more the disk fails, until the power does; `there` tells whether the batch
    /// that failed is found afterwards.
    pub fn fail_after(&self, commits: u64, there: bool) {
        self.lock().failing = Some((commits, there));
    }

    /// How many batches of the first shard it holds, and how many of them are synced.
    #[cfg(test)]
    pub(super) fn batches(&self) -> (usize, usize) {
        self.lock().shards.get(&0).map_or((0, 0), |it| (it.batches.len(), it.synced))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Folds what the disk holds for a shard.
    pub(super) fn open(&self, shard: ShardNo, shards: u16) -> Result<(MemoryJournal, MemoryView)> {
        let view = MemoryView::default();
        let mut meta = Meta::new(shards);
        for batch in &self.lock().shards.entry(shard.0).or_default().batches {
            view.apply(fold_batch(shard, &mut meta, &decode_records(batch)?));
        }
        Ok((MemoryJournal { disk: self.clone(), shard, view: view.clone() }, view))
    }
}

impl State {
    /// Whether this commit or sync fails, and is there all the same. Only the first that fails
    /// can be: the writer ends with it.
    fn fails(&mut self) -> (bool, bool) {
        match &mut self.failing {
            None => (false, false),
            Some((0, there)) => (true, std::mem::take(there)),
            Some((left, _)) => {
                *left -= 1;
                (false, false)
            }
        }
    }
}

/// The writer's side of one shard.
#[derive(Debug)]
pub(super) struct MemoryJournal {
    disk: Disk,
    shard: ShardNo,
    view: MemoryView,
}

impl Journal for MemoryJournal {
    fn commit(&mut self, batch: Batch<'_>) -> Result<()> {
        let mut disk = self.disk.lock();
        let (fails, there) = disk.fails();
        let history = disk.shards.entry(self.shard.0).or_default();
        if !fails || there {
            history.batches.push((batch.records)());
        }
        if fails {
            return Err(Error::unavailable("the disk fails"));
        }
        assert_eq!(history.batches.len() as u64, batch.lsn, "a second writer, or a gap");
        if batch.durability == Durability::Disk {
            history.synced = history.batches.len();
        }
        self.view.apply(batch.changes);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        let mut disk = self.disk.lock();
        if disk.fails().0 {
            return Err(Error::unavailable("the disk fails"));
        }
        let history = disk.shards.entry(self.shard.0).or_default();
        history.synced = history.batches.len();
        Ok(())
    }
}

/// Rows in an ordered map.
#[derive(Debug, Clone, Default)]
pub(super) struct MemoryView(Arc<RwLock<BTreeMap<(Table, Bytes), Bytes>>>);

impl MemoryView {
    fn apply(&self, changes: Changes) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (table, key, value) in changes.rows {
            match value {
                Some(value) => rows.insert((table, key), value),
                None => rows.remove(&(table, key)),
            };
        }
    }

    /// The row at one end of a range; the lock is held for no longer.
    fn end(&self, range: &Range, back: bool) -> Option<((Table, Bytes), Bytes)> {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut range = rows.range(range.clone());
        let end = if back { range.next_back() } else { range.next() };
        end.map(|(key, value)| (key.clone(), value.clone()))
    }
}

type Range = (Bound<(Table, Bytes)>, Bound<(Table, Bytes)>);

fn range(table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Range {
    let key = |it: &[u8]| (table, Bytes::copy_from_slice(it));
    (from.map(key), to.map(key))
}

impl View for MemoryView {
    fn remove(&self, table: Table, keys: Vec<Bytes>) -> Result<()> {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            rows.remove(&(table, key));
        }
        Ok(())
    }

    fn let_go(&self, shard: u16, floors: &Floors) {
        let mut rows = self.0.write().unwrap_or_else(PoisonError::into_inner);
        rows.retain(|(table, key), value| {
            let excluded = || floors.exclude(*table, key, || Ok(value.clone()));
            !key.starts_with(&shard.to_be_bytes()) || !excluded().unwrap_or(false)
        });
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let rows = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Ok(rows.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn range(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let mut range = range(table, from, to);
        Box::new(std::iter::from_fn(move || {
            let (key, value) = self.end(&range, false)?;
            range.0 = Bound::Excluded(key.clone());
            Some(Ok((key.1, value)))
        }))
    }

    fn range_back(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let mut range = range(table, from, to);
        Box::new(std::iter::from_fn(move || {
            let (key, value) = self.end(&range, true)?;
            range.1 = Bound::Excluded(key.clone());
            Some(Ok((key.1, value)))
        }))
    }
}
