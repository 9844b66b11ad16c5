use std::{
    collections::BTreeMap,
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, KvSeparationOptions,
    PersistMode, config::CompressionPolicy,
};

use crate::storage::codec::decode;
use crate::storage::fjall::high_water::{HighWater, Mark};
use crate::storage::fold::{FORMAT, Meta};
use crate::storage::journal::{Batch, Durability, Journal, Rows, View};
use crate::storage::keys::ShardNo;
use crate::storage::{Error, Result, Table};

const MIB: u64 = 1024 * 1024;

/// How much memory and disk the store may use for itself.
#[derive(Debug, Clone)]
pub struct Config {
    /// Blocks kept in memory, in bytes.
    pub cache_bytes: u64,
    /// A table's newest rows are kept in memory up to this many bytes.
    pub memtable_bytes: u64,
    /// The write-ahead journal is kept below this many bytes.
    pub journal_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache_bytes: 64 * MIB, memtable_bytes: 32 * MIB, journal_bytes_max: 512 * MIB }
    }
}

/// The database of one data directory, all its shards together.
#[derive(Clone)]
pub struct Fjall(Arc<Inner>);

struct Inner {
    database: Database,
    keyspaces: BTreeMap<Table, Keyspace>,
    high_water: HighWater,
    folder: PathBuf,
}

impl Fjall {
    /// Opens or creates the store in `folder` for `shards` shards, and checks that nothing that
    /// was promised is missing.
    ///
    /// # Errors
    /// `InUse`, `Newer`, or `Corrupt` when the store ends before its high-water mark.
    pub fn open(folder: &Path, config: &Config, shards: u16) -> Result<Self> {
        std::fs::create_dir_all(folder).map_err(|it| no_folder(folder, &it))?;
        let database = Database::builder(folder.join("store"))
            .cache_size(config.cache_bytes)
            .max_journaling_size(config.journal_bytes_max)
            .worker_threads(2)
            .open()?;
        let mut keyspaces = BTreeMap::new();
        for table in Table::ALL {
            let options = || options(table, config);
            keyspaces.insert(table, database.keyspace(table.name(), options)?);
        }
        let path = folder.join("high-water");
        let (high_water, marks) =
            HighWater::open(&path, shards).map_err(|it| no_folder(&path, &it))?;
        let fjall =
            Self(Arc::new(Inner { database, keyspaces, high_water, folder: folder.to_owned() }));
        for (shard, mark) in (0..).zip(marks) {
            fjall.check(ShardNo(shard), mark, shards)?;
        }
        Ok(fjall)
    }

    fn check(&self, shard: ShardNo, mark: Mark, shards: u16) -> Result<()> {
        let row = self.get(Table::Meta, &shard.all())?;
        let meta: Meta = row.map_or(Ok(Meta::new(shards)), |it| decode(&it))?;
        if meta.format > FORMAT {
            return Err(Error::Newer { found: meta.format, known: FORMAT });
        }
        if meta.shards != shards {
            return Err(Error::Unavailable(format!(
                "the store was made with {} shards, the configuration says {shards}",
                meta.shards
            )));
        }
        let same = meta.lsn != mark.lsn || meta.chain == mark.chain;
        if meta.lsn < mark.lsn || !same {
            return Err(Error::Corrupt(format!(
                "shard {} in {} ends at batch {} (checksum {:08x}), but batch {} ({:08x}) was \
                 acknowledged: the end of the journal is lost. Restore a backup of the directory",
                shard.0,
                self.0.folder.display(),
                meta.lsn,
                meta.chain,
                mark.lsn,
                mark.chain,
            )));
        }
        Ok(())
    }

    pub(in crate::storage) fn journal(&self, shard: ShardNo) -> FjallJournal {
        FjallJournal { fjall: self.clone(), shard, unsynced: None }
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        &self.0.keyspaces[&table]
    }
}

fn no_folder(path: &Path, error: &std::io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

/// Payloads lie apart from their keys, so that compaction does not copy them; the rest is small.
fn options(table: Table, config: &Config) -> KeyspaceCreateOptions {
    let options = KeyspaceCreateOptions::default()
        .max_memtable_size(config.memtable_bytes)
        .data_block_compression_policy(CompressionPolicy::new([
            CompressionType::None,
            CompressionType::None,
            CompressionType::Lz4,
        ]));
    match table {
        Table::Events | Table::Components => options
            .with_kv_separation(Some(KvSeparationOptions::default().separation_threshold(512))),
        _ => options,
    }
}

impl View for Fjall {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.keyspace(table).get(key)?.map(Bytes::from))
    }

    fn range(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let range = self.keyspace(table).range::<&[u8], _>((from, to));
        Box::new(range.map(read_row))
    }

    fn range_back(&self, table: Table, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Rows<'_> {
        let range = self.keyspace(table).range::<&[u8], _>((from, to));
        Box::new(range.rev().map(read_row))
    }
}

fn read_row(guard: Guard) -> Result<(Bytes, Bytes)> {
    let (key, value) = guard.into_inner()?;
    Ok((key.into(), value.into()))
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
        let mark = Mark { lsn: batch.lsn, chain: batch.chain };
        match batch.durability {
            Durability::Process => self.unsynced = Some(mark),
            Durability::Disk => self.raise(mark),
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.fjall.0.database.persist(PersistMode::SyncData)?;
        if let Some(mark) = self.unsynced {
            self.raise(mark);
        }
        Ok(())
    }
}

impl FjallJournal {
    fn raise(&mut self, mark: Mark) {
        self.unsynced = None;
        self.fjall.0.high_water.raise(self.shard.0, mark);
    }
}

impl From<fjall::Error> for Error {
    fn from(error: fjall::Error) -> Self {
        match error {
            fjall::Error::Locked => Self::InUse("another process has locked it".to_owned()),
            fjall::Error::Io(error) => Self::unavailable(error),
            fjall::Error::Poisoned => {
                Self::unavailable("an earlier write failed; the process must start again")
            }
            other => Self::corrupt(other),
        }
    }
}
