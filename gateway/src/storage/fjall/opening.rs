//! Opening a store: lock it, look it over, let fjall open it, and compare what came back with
//! what was promised.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use fjall::{Database, Keyspace};
use rustix::fs::FlockOperation;

use crate::storage::codec::decode;
use crate::storage::fjall::database::{Config, options};
use crate::storage::fjall::high_water::{HighWater, Mark, Marks, read_marks};
use crate::storage::fjall::inspect::{Inspection, inspect};
use crate::storage::fjall::loss::{Losses, accepted};
use crate::storage::fjall::manifest::Sealed;
use crate::storage::fjall::retention::LetGo;
use crate::storage::fold::{FORMAT, Meta};
use crate::storage::keys::ShardNo;
use crate::storage::{Error, Result, Table, create_folder};
use crate::world::reach;

/// A store that was found whole, or whose losses were accepted.
pub(super) struct Opened {
    pub(super) database: Database,
    pub(super) keyspaces: BTreeMap<Table, Keyspace>,
    pub(super) high_water: HighWater,
    /// Files that were not read through yet.
    pub(super) unread: Vec<Sealed>,
    /// Held as long as the store is open.
    pub(super) lock: File,
}

/// In place of a number of shards, where the marks that would tell it are lost.
pub const AS_THE_TABLES_TELL: u16 = 0;

/// The places within a data directory.
pub(super) struct Places {
    pub(super) folder: PathBuf,
    pub(super) store: PathBuf,
    pub(super) marks: PathBuf,
}

impl Places {
    pub(super) fn of(folder: &Path) -> Self {
        let (store, marks) = (folder.join("store"), folder.join("high-water"));
        Self { folder: folder.to_owned(), store, marks }
    }
}

pub(super) fn open(folder: &Path, config: &Config, shards: u16, let_go: &LetGo) -> Result<Opened> {
    create_folder(folder).map_err(|it| no_folder(folder, &it))?;
    let places = Places::of(folder);
    let lock = lock(folder)?;
    let (marks, mut losses) = promised(&places, config, shards)?;
    remove_stillborn(&places, &marks)?;
    let mut inspection = look_over(&places, &marks, config.verify_bytes_max)?;
    let torn = inspection.as_mut().and_then(|it| it.torn.take());
    let unread = match inspection {
        Some(inspection) if inspection.damage.is_empty() => inspection.unread,
        Some(inspection) if config.accept_loss && inspection.fatal().is_none() => {
            losses.give_up(&places, &inspection.damage)?;
            inspection.unread
        }
        Some(inspection) => return Err(refusal(&inspection)),
        None => Vec::new(),
    };
    if let Some((journal, at)) = torn {
        cut_off(&journal, at).map_err(|it| no_folder(&journal, &it))?;
    }
    // Before the store is made, so that a store without marks is always one that lost them.
    let early = losses.is_empty().then(|| HighWater::create(&places.marks, &marks)).transpose();
    let early = early.map_err(|it| no_folder(&places.marks, &it))?;
    let (database, keyspaces) = open_database(&places, config, let_go)?;
    sync_folders(folder).map_err(|it| no_folder(folder, &it))?;
    reach("during_open");
    let shards = match shards {
        AS_THE_TABLES_TELL => made_with(&keyspaces)?,
        shards => shards,
    };
    let metas = read_metas(&keyspaces, shards)?;
    for (shard, (mark, meta)) in (0..).zip(marks.iter().zip(&metas)) {
        if let Some(what) = falls_short(shard, mark, meta) {
            match config.accept_loss {
                true => losses.ends_early(shard, meta, mark),
                false => return Err(Error::Corrupt(format!("{}: {what}", places.store.display()))),
            }
        }
    }
    let high_water = match (early, losses.is_empty()) {
        (Some(high_water), true) => high_water,
        (early, _) => {
            drop(early);
            losses.write_down(&places, &keyspaces, &metas)?;
            // So that the next start does not miss what was given up before the oldest journal.
            keyspaces[&Table::Meta].rotate_memtable_and_wait()?;
            let marks: Vec<_> = metas.iter().map(mark_of).collect();
            HighWater::create(&places.marks, &marks).map_err(|it| no_folder(&places.marks, &it))?
        }
    };
    Ok(Opened { database, keyspaces, high_water, unread, lock })
}

/// Takes the directory for this process.
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|it| no_folder(&path, &it))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            Err(Error::InUse(format!("another process has {} open", folder.display())))
        }
        Err(error) => Err(no_folder(&path, &error.into())),
    }
}

/// What the store must hold at least, by shard; nothing where that is lost.
pub(super) fn promised(
    places: &Places,
    config: &Config,
    shards: u16,
) -> Result<(Vec<Mark>, Losses)> {
    let nothing = || vec![Mark::default(); usize::from(shards.max(1))];
    let mut losses = Losses::default();
    let marks = read_marks(&places.marks, shards.max(1));
    match marks.map_err(|it| no_folder(&places.marks, &it))? {
        Marks::Known(marks) => Ok((marks, losses)),
        Marks::Newer(found) => Err(Error::Newer { found, known: FORMAT }),
        Marks::Shards(made_for) => Err(Error::Unavailable(format!(
            "the store was made with {made_for} shards, the configuration says {shards}"
        ))),
        Marks::None if !places.store.exists() => Ok((nothing(), losses)),
        what if config.accept_loss => {
            losses.note(format!("{}: {}", places.marks.display(), without_marks(&what)));
            Ok((Vec::new(), losses))
        }
        what => Err(Error::Corrupt(format!(
            "{}: {}, so it is not known what the store must hold; restore a backup, or start with \
             --accept-loss",
            places.marks.display(),
            without_marks(&what)
        ))),
    }
}

fn without_marks(what: &Marks) -> &'static str {
    match what {
        Marks::None => "it is missing beside a store",
        _ => "it cannot be read",
    }
}

/// A start that was killed before the store was whole has promised nothing: away with it.
fn remove_stillborn(places: &Places, marks: &[Mark]) -> Result<()> {
    let nothing_promised = marks.iter().all(|it| it.lsn == 0) && places.marks.exists();
    if nothing_promised && places.store.exists() && !places.store.join("version").exists() {
        fs::remove_dir_all(&places.store).map_err(|it| no_folder(&places.store, &it))?;
    }
    Ok(())
}

fn look_over(places: &Places, marks: &[Mark], bytes_max: u64) -> Result<Option<Inspection>> {
    if !places.store.exists() {
        return match marks.iter().all(|it| it.lsn == 0) {
            true => Ok(None),
            false => Err(Error::Corrupt(format!(
                "{} is missing, but something was acknowledged; restore a backup",
                places.store.display()
            ))),
        };
    }
    inspected(places, marks, bytes_max, &mut |_, _| {}).map(Some)
}

/// What is damaged, but for what an earlier start was allowed to go on without.
pub(super) fn inspected(
    places: &Places,
    marks: &[Mark],
    bytes_max: u64,
    progress: &mut dyn FnMut(&Path, u64),
) -> Result<Inspection> {
    let failed = |it: io::Error| no_folder(&places.store, &it);
    let mut inspection = inspect(&places.store, marks, bytes_max, progress).map_err(failed)?;
    let accepted = accepted(places);
    inspection.accept(&accepted);
    inspection.look_before_the_oldest(&places.store, &accepted).map_err(failed)?;
    Ok(inspection)
}

fn refusal(inspection: &Inspection) -> Error {
    let more = match inspection.damage.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Error::Corrupt(match inspection.fatal() {
        Some(it) => format!("{it}{more}. Without it nothing can be kept: restore a backup"),
        None => format!(
            "{}{more}. `hookgate store verify` tells more; restore a backup, or start with \
             --accept-loss, which writes down what is lost",
            inspection.damage[0]
        ),
    })
}

/// Threads that write memtables out and merge files. fjall's first one leaves merging to the others,
/// and while all of them are busy passes each wish for a merge round and round: with two threads a
/// merge took two processors. Two merges at once are rare, three hardly ever happen.
const WORKERS: usize = 4;

fn open_database(
    places: &Places,
    config: &Config,
    let_go: &LetGo,
) -> Result<(Database, BTreeMap<Table, Keyspace>)> {
    let filters = let_go.clone();
    let filter = move |name: &str| {
        let table = Table::ALL.into_iter().find(|it| it.name() == name);
        table.and_then(|it| filters.filter(it))
    };
    // What checksums do not cover may still make fjall panic.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = Database::builder(&places.store)
            .cache_size(config.cache_bytes)
            .max_journaling_size(config.journal_bytes_max)
            .max_cached_files(Some(config.files_max))
            .worker_threads(WORKERS)
            .with_compaction_filter_factories(Arc::new(filter))
            .open()?;
        let mut keyspaces = BTreeMap::new();
        for table in Table::ALL {
            let options = || options(table, config);
            keyspaces.insert(table, database.keyspace(table.name(), options)?);
        }
        Ok((database, keyspaces))
    }));
    match opened {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(error)) => Err(while_opening(&places.store, error)),
        Err(_) => Err(Error::Corrupt(format!(
            "{}: it cannot be read at all; restore a backup",
            places.store.display()
        ))),
    }
}

/// Takes away what a power failure left of batches that were never promised.
fn cut_off(journal: &Path, at: u64) -> io::Result<()> {
    let file = File::options().write(true).open(journal)?;
    let bytes = file.metadata()?.len().saturating_sub(at);
    tracing::info!(journal = %journal.display(), at, bytes, "an end that was not synced is cut off");
    file.set_len(at)?;
    file.sync_all()
}

/// Syncs a folder and those in it: fjall syncs what it writes, but not the names of the folders
/// that it makes, and without its name a keyspace is gone when the power fails.
fn sync_folders(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    File::open(folder)?.sync_all()
}

/// While opening, a file that ends early or is not there is damage and no passing fault.
fn while_opening(store: &Path, error: fjall::Error) -> Error {
    let io = match &error {
        fjall::Error::Io(it) | fjall::Error::Storage(fjall::LsmError::Io(it)) => Some(it.kind()),
        _ => None,
    };
    match io {
        Some(io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
            Error::Corrupt(format!("{}: {error}", store.display()))
        }
        _ => error.into(),
    }
}

/// How many shards the store was made with, as the first of them remembers.
fn made_with(keyspaces: &BTreeMap<Table, Keyspace>) -> Result<u16> {
    let row = keyspaces[&Table::Meta].get(ShardNo(0).all())?;
    Ok(row.map(|it| decode::<Meta>(&it)).transpose()?.map_or(1, |it| it.shards))
}

fn read_metas(keyspaces: &BTreeMap<Table, Keyspace>, shards: u16) -> Result<Vec<Meta>> {
    let mut metas = Vec::new();
    for shard in (0..shards.max(1)).map(ShardNo) {
        let row = keyspaces[&Table::Meta].get(shard.all())?;
        let meta = row.map_or(Ok(Meta::new(shards)), |it| decode::<Meta>(&it))?;
        if meta.format > FORMAT {
            return Err(Error::Newer { found: meta.format, known: FORMAT });
        }
        if meta.shards != shards {
            return Err(Error::Unavailable(format!(
                "the store was made with {0} shards, the configuration says {shards}: start with \
                 --shards {0}",
                meta.shards
            )));
        }
        metas.push(meta);
    }
    Ok(metas)
}

pub(super) fn mark_of(meta: &Meta) -> Mark {
    Mark { lsn: meta.lsn, chain: meta.chain, last_seq: meta.last_seq }
}

/// What is missing, if the store ends before its mark or has another history.
fn falls_short(shard: u16, mark: &Mark, meta: &Meta) -> Option<String> {
    let other = meta.lsn == mark.lsn && meta.chain != mark.chain;
    (meta.lsn < mark.lsn || other).then(|| {
        format!(
            "shard {shard} ends at batch {} (checksum {:08x}), but batch {} ({:08x}) was \
             acknowledged: the end of the journal is lost. Restore a backup, or start with \
             --accept-loss, which writes down what is lost",
            meta.lsn, meta.chain, mark.lsn, mark.chain
        )
    })
}

pub(super) fn no_folder(path: &Path, error: &io::Error) -> Error {
    Error::Unavailable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Seq;
    use crate::storage::Changes;
    use crate::storage::codec::encode;
    use crate::storage::fjall::database::Fjall;
    use crate::storage::fold::Meta;
    use crate::storage::journal::{Batch, Durability, Journal, View};

    const SHARD: ShardNo = ShardNo(0);
    const SECTOR_BYTES: usize = 512;

    /// Batches with an event of some sectors each.
    fn commit(fjall: &Fjall, lsns: std::ops::RangeInclusive<u64>, durability: Durability) {
        let mut journal = fjall.journal(SHARD);
        for lsn in lsns {
            let meta = Meta { lsn, last_seq: lsn, ..Meta::new(1) };
            let mut changes = Changes::default();
            changes.put(Table::Events, SHARD.seq(Seq(lsn)), vec![1; 1500]);
            changes.put(Table::Meta, SHARD.all(), encode(&meta));
            let records = &|| panic!("this journal keeps no records");
            let (chain, last_seq) = (meta.chain, lsn);
            journal.commit(Batch { lsn, chain, last_seq, records, changes, durability }).unwrap();
        }
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => copy(&entry.path(), &to),
                false => drop(fs::copy(entry.path(), to).unwrap()),
            }
        }
    }

    #[test]
    fn of_what_was_not_synced_any_sector_may_be_gone() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("whole");
        let (journal, marks) = (Path::new("store/0.jnl"), Path::new("high-water"));
        let fjall = Fjall::open(&whole, &Config::default(), 1).unwrap();
        commit(&fjall, 1..=3, Durability::Disk);
        let used = |bytes: &[u8]| bytes.iter().rposition(|it| *it != 0).unwrap() + 1;
        let synced = used(&fs::read(whole.join(journal)).unwrap());
        let promised = fs::read(whole.join(marks)).unwrap();
        commit(&fjall, 4..=8, Durability::Process);
        drop(fjall);
        let bytes = fs::read(whole.join(journal)).unwrap();
        let bytes = &bytes[..used(&bytes)];
        // What is allocated ahead would only have to be copied.
        fs::write(whole.join(journal), bytes).unwrap();
        let mut found = Vec::new();
        for sector in synced / SECTOR_BYTES..bytes.len().div_ceil(SECTOR_BYTES) {
            let torn = folder.path().join(sector.to_string());
            copy(&whole, &torn);
            let mut bytes = bytes.to_vec();
            let end = bytes.len().min((sector + 1) * SECTOR_BYTES);
            bytes[synced.max(sector * SECTOR_BYTES)..end].fill(0);
            fs::write(torn.join(journal), bytes).unwrap();
            fs::write(torn.join(marks), &promised).unwrap();
            let fjall = Fjall::open(&torn, &Config::default(), 1).unwrap();
            let meta = View::get(&fjall, Table::Meta, &SHARD.all()).unwrap().unwrap();
            let last = decode::<Meta>(&meta).unwrap().lsn;
            let has = |lsn| fjall.get(Table::Events, &SHARD.seq(Seq(lsn))).unwrap().is_some();
            assert!((1..=8).all(|lsn| has(lsn) == (lsn <= last)), "sector {sector}: {last}");
            found.push(last);
        }
        assert!(found.is_sorted() && found.contains(&3) && found.contains(&7), "{found:?}");
    }

    #[test]
    fn without_its_marks_a_store_still_tells_how_many_shards_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let (config, marks) = (Config::default(), folder.path().join("high-water"));
        let fjall = Fjall::open(folder.path(), &config, 4).unwrap();
        for shard in (0..4).map(ShardNo) {
            let meta = Meta { lsn: 1, ..Meta::new(4) };
            let mut changes = Changes::default();
            changes.put(Table::Meta, shard.all(), encode(&meta));
            let records = &|| panic!("this journal keeps no records");
            let (lsn, chain, last_seq, durability) = (1, 0, 0, Durability::Disk);
            let batch = Batch { lsn, chain, last_seq, records, changes, durability };
            fjall.journal(shard).commit(batch).unwrap();
        }
        drop(fjall);
        for lost in [Vec::new(), vec![7; 9]] {
            match lost.is_empty() {
                true => fs::remove_file(&marks).unwrap(),
                false => fs::write(&marks, lost).unwrap(),
            }
            let config = Config { accept_loss: true, ..Config::default() };
            drop(Fjall::open(folder.path(), &config, AS_THE_TABLES_TELL).unwrap());
            let made_for = read_marks(&marks, 4).unwrap();
            let Marks::Known(found) = made_for else { panic!("{made_for:?}") };
            assert!(found.len() == 4 && found.iter().all(|it| it.lsn == 1), "{found:?}");
        }
    }
}
