use std::ops::Bound;

use bytes::Bytes;

use crate::storage::{Changes, Floors, Result, Table};

/// A key and its value.
pub(super) type Row = (Bytes, Bytes);

/// The ordered rows that the records fold into. Reads see all commits that have returned.
pub trait View: Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>>;

    /// The rows between two keys, from the lower one on.
    fn range(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_>;

    /// The same rows, from the upper end on.
    fn range_back(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_>;

    /// Takes out rows that nobody is shown any more. The history knows nothing of it: after a
    /// crash they may be there again.
    fn remove(&self, table: Table, keys: Vec<Bytes>) -> Result<()>;

    /// From now on nothing asks for the rows of the shard `shard` that these marks exclude, so
    /// they may go, at any time and in any order, and come again after a crash.
    fn let_go(&self, shard: u16, floors: &Floors);
}

/// Rows in order.
pub(super) type Rows<'a> = Box<dyn Iterator<Item = Result<Row>> + 'a>;

/// How safe a batch must be before `commit` returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// It survives the process; a power failure may take it. For what can be done again.
    Process,
    /// It survives a power failure.
    Disk,
}

/// One batch on its way into the history.
pub struct Batch<'a> {
    /// Its number; the first is 1, without gaps.
    pub lsn: u64,
    /// The checksum over all batches up to this one.
    pub chain: u32,
    /// The last event accepted by then.
    pub last_seq: u64,
    /// The encoded records. A replicated journal keeps these and nothing else.
    pub records: &'a dyn Fn() -> Bytes,
    /// What they fold into. An embedded journal keeps these, and so is its own view.
    pub changes: Changes,
    /// How safe it must be.
    pub durability: Durability,
}

/// An append-only history of one shard with its view. One writer at a time.
pub trait Journal: Send + 'static {
    /// Appends a batch and applies it to the view.
    ///
    /// # Errors
    /// After an error nothing more can be committed: the process must start again, and the
    /// batch may or may not be there then.
    fn commit(&mut self, batch: Batch<'_>) -> Result<()>;

    /// Makes all earlier commits survive a power failure.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    fn sync(&mut self) -> Result<()>;
}
