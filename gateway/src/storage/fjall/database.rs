use std::{collections::BTreeMap, fs::File, ops::Bound, path::Path, sync::Arc};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode, config::CompressionPolicy,
};
use tokio::sync::watch;

use crate::storage::fjall::backup::refuse_half_restored;
use crate::storage::fjall::high_water::{HighWater, Mark};
use crate::storage::fjall::opening;
use crate::storage::fjall::retention::{Dropper, LetGo};
use crate::storage::fjall::scrub::Scrub;
use crate::storage::journal::{Batch, Durability, Journal, Rows, View};
use crate::storage::keys::ShardNo;
use crate::storage::{Error, Floors, Result, Table};
use crate::telemetry::STORE_FSYNC;
use crate::world::reach;

const MIB: u64 = 1024 * 1024;
/// Bytes of components that are kept in memory until they are written to their table.
const COMPONENTS_MEMTABLE: u64 = MIB;

/// How much memory and disk the store may use for itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Blocks kept in memory, in bytes.
    pub cache_bytes: u64,
    /// A table's newest rows are kept in memory up to this many bytes.
    pub memtable_bytes: u64,
    /// The write-ahead journal is kept below this many bytes.
    pub journal_bytes_max: u64,
    /// Files that are kept open between reads.
    pub files_max: usize,
    /// Files are read through before the start up to this many bytes, the newest first, and the
    /// rest of them while the gateway runs.
    pub verify_bytes_max: u64,
    /// Go on with what is left of a damaged store, and write down what is lost.
    pub accept_loss: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_bytes: 64 * MIB,
            memtable_bytes: 32 * MIB,
            journal_bytes_max: 512 * MIB,
            files_max: 512,
            verify_bytes_max: 1024 * MIB,
            accept_loss: false,
        }
    }
}

/// The database of one data directory, all its shards together.
#[derive(Clone)]
pub struct Fjall(Arc<Inner>);

struct Inner {
    let_go: LetGo,
    /// Ends before what it works on is closed.
    dropper: Dropper,
    database: Database,
    keyspaces: BTreeMap<Table, Keyspace>,
    high_water: HighWater,
    damage: watch::Sender<Option<Error>>,
    _scrub: Scrub,
    /// Let go last, when nothing writes to the directory any more.
    _lock: File,
}

impl Fjall {
    /// Opens or creates the store in `folder` for `shards` shards, and checks that nothing that
    /// was promised is missing.
    ///
    /// # Errors
    /// `InUse`, `Newer`, or `Corrupt` when files are damaged or missing, or when the store ends
    /// before its high-water mark.
    pub fn open(folder: &Path, config: &Config, shards: u16) -> Result<Self> {
        refuse_half_restored(folder)?;
        Self::open_restoring(folder, config, shards)
    }

    /// The same, while a backup is restored.
    pub(super) fn open_restoring(folder: &Path, config: &Config, shards: u16) -> Result<Self> {
        let let_go = LetGo::default();
        let opened = opening::open(folder, config, shards, &let_go)?;
        let dropper = Dropper::start(opened.keyspaces.clone(), let_go.clone())?;
        let damage = watch::Sender::new(None);
        let scrub = Scrub::start(opened.unread, damage.clone())?;
        Ok(Self(Arc::new(Inner {
            let_go,
            dropper,
            database: opened.database,
            keyspaces: opened.keyspaces,
            high_water: opened.high_water,
            damage,
            _scrub: scrub,
            _lock: opened.lock,
        })))
    }

    /// Tells when stored bytes turn out not to be what was written.
    pub(in crate::storage) fn damage(&self) -> watch::Receiver<Option<Error>> {
        self.0.damage.subscribe()
    }

    pub(in crate::storage) fn journal(&self, shard: ShardNo) -> FjallJournal {
        FjallJournal { fjall: self.clone(), shard, unsynced: None }
    }

    pub(super) fn database(&self) -> &Database {
        &self.0.database
    }

    /// Disk that each table and the journal take, and compactions since the start. What fjall
    /// knows by itself: nothing is read for it.
    pub(in crate::storage) fn usage(&self) -> (Vec<(&'static str, u64)>, u64) {
        let inner = &self.0;
        let tables = inner.keyspaces.iter().map(|(table, it)| (table.name(), it.disk_space()));
        let journal = inner.database.journal_disk_space().unwrap_or_default();
        let bytes = tables.chain([("journal", journal)]).collect();
        (bytes, inner.database.compactions_completed() as u64)
    }

    pub(super) fn raise(&self, shard: ShardNo, mark: Mark) -> Result<()> {
        self.0.high_water.raise(shard.0, mark).map_err(Error::unavailable)
    }

    pub(super) fn keyspace(&self, table: Table) -> &Keyspace {
        &self.0.keyspaces[&table]
    }

    /// A failed read; damage is told to whoever runs the store.
    fn failed(&self, error: fjall::Error) -> Error {
        let error = Error::from(error);
        if matches!(error, Error::Corrupt(_)) {
            self.0.damage.send_replace(Some(error.clone()));
        }
        error
    }

    pub(super) fn read_row(&self, guard: Guard) -> Result<(Bytes, Bytes)> {
        let (key, value) = guard.into_inner().map_err(|it| self.failed(it))?;
        Ok((key.into(), value.into()))
    }
}

/// Payloads lie apart from their keys, so that compaction does not copy them; the rest is small.
pub(super) fn options(table: Table, config: &Config) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default()
        .max_memtable_size(config.memtable_bytes)
        .data_block_compression_policy(CompressionPolicy::new([
            CompressionType::None,
            CompressionType::None,
            CompressionType::Lz4,
        ]));
    let apart = KvSeparationOptions::default().separation_threshold(512);
    match table {
        Table::Events => options.with_kv_separation(Some(apart)),
        // Written seldom, and read once: not worth a memtable's whole room.
        Table::Components => options
            .max_memtable_size(config.memtable_bytes.min(COMPONENTS_MEMTABLE))
            .with_kv_separation(Some(apart)),
        _ => options,
    }
}

impl View for Fjall {
    fn remove(&self, table: Table, keys: Vec<Bytes>) -> Result<()> {
        let mut batch = self.0.database.batch();
        for key in keys {
            batch.remove(self.keyspace(table), key);
        }
        Ok(batch.commit()?)
    }

    fn let_go(&self, shard: u16, floors: &Floors) {
        self.0.let_go.set(shard, floors);
        self.0.dropper.wake();
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        let value = self.keyspace(table).get(key).map_err(|it| self.failed(it))?;
        Ok(value.map(Bytes::from))
    }

    fn range(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let range = self.keyspace(table).range::<&[u8], _>((from, to));
        Box::new(range.map(|it| self.read_row(it)))
    }

    fn range_back(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let range = self.keyspace(table).range::<&[u8], _>((from, to));
        Box::new(range.rev().map(|it| self.read_row(it)))
    }
}

/// The writer's side of one shard.
pub(in crate::storage) struct FjallJournal {
    fjall: Fjall,
    shard: ShardNo,
    unsynced: Option<Mark>,
}

impl Journal for FjallJournal {
    fn commit(&mut self, batch: Batch<'_>) -> Result<()> {
        let mode = match batch.durability {
            Durability::Process => PersistMode::Buffer,
            Durability::Disk => PersistMode::SyncData,
        };
        let mut rows = self.fjall.0.database.batch().durability(Some(mode));
        // fjall gives the rows of a batch one number, so a key must not come twice. Only small
        // tables can have that; the others' keys are new by construction.
        let mut last = BTreeMap::new();
        for (table, key, value) in batch.changes.rows {
            match (table, value) {
                (Table::Events | Table::History | Table::ByEndpoint, Some(value)) => {
                    rows.insert(self.fjall.keyspace(table), key, value);
                }
                (table, value) => drop(last.insert((table, key), value)),
            }
        }
        for ((table, key), value) in last {
            match value {
                Some(value) => rows.insert(self.fjall.keyspace(table), key, value),
                None => rows.remove(self.fjall.keyspace(table), key),
            }
        }
        rows.commit()?;
        let mark = Mark { lsn: batch.lsn, chain: batch.chain, last_seq: batch.last_seq };
        match batch.durability {
            Durability::Process => {
                self.unsynced = Some(mark);
                Ok(())
            }
            Durability::Disk => self.raise(mark),
        }
    }

    fn sync(&mut self) -> Result<()> {
        let started = tokio::time::Instant::now();
        self.fjall.0.database.persist(PersistMode::SyncData)?;
        STORE_FSYNC.observe(started.elapsed().as_secs_f64(), &[]);
        reach("after_sync");
        match self.unsynced {
            Some(mark) => self.raise(mark),
            None => Ok(()),
        }
    }
}

impl FjallJournal {
    fn raise(&mut self, mark: Mark) -> Result<()> {
        self.unsynced = None;
        reach("before_high_water");
        self.fjall.raise(self.shard, mark)
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse("another process has locked it".to_owned()),
            fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
                Self::unavailable(error)
            }
            fjall::Error::Poisoned => {
                Self::unavailable("an earlier write failed; the process must start again")
            }
            other => Self::corrupt(other),
        }
    }
}
