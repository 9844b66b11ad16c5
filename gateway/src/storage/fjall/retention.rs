//! Gives room back. Files of which nothing is asked for any more are dropped whole; in files that
//! are merged anyway, rows of which that is true are left out. Nothing is deleted row by row: it
//! would cost what the rows cost once more, and keep files from lying side by side.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock,
        mpsc::{self, RecvTimeoutError},
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use fjall::{
    AbstractTree, Keyspace,
    compaction::filter::{
        CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
    },
};

use crate::storage::fjall::memtables::Memtables;
use crate::storage::fjall::settling::Settling;
use crate::storage::{Error, Floors, Result, Table};
use crate::world::allocator;

/// How often it is looked which memtables are new, and which fjall has let go of.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// After so many looks, 15 s, it is looked which of them nobody writes to any more.
const SETTLE_EVERY: u64 = 60;
/// So many looks, 2 s, after some were settled they are in their files, and fjall lets go of them.
const RELEASE_AFTER: u64 = 8;

/// After so many looks, a second, the allocator is asked to give back what has been empty for long.
const ASK_EVERY: u64 = 4;

/// What each shard lets go of, for whoever reads files.
#[derive(Debug, Clone, Default)]
pub(super) struct LetGo(Arc<RwLock<BTreeMap<u16, Arc<Floors>>>>);

impl LetGo {
    pub(super) fn set(&self, shard: u16, floors: &Floors) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        all.insert(shard, Arc::new(floors.clone()));
    }

    fn all(&self) -> BTreeMap<u16, Arc<Floors>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What leaves rows out where files of a table are merged, if any may be.
    pub(super) fn filter(&self, table: Table) -> Option<Arc<dyn Factory>> {
        let leaving = || Arc::new(Leaving { table, let_go: self.clone() }) as Arc<dyn Factory>;
        Floors::concern(table).then(leaving)
    }
}

/// Makes a [`Left`] for each merge.
struct Leaving {
    table: Table,
    let_go: LetGo,
}

impl Factory for Leaving {
    fn name(&self) -> &'static str {
        "retention"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        Box::new(Left { table: self.table, floors: self.let_go.all() })
    }
}

/// Tells of each row whether it is left out.
struct Left {
    table: Table,
    floors: BTreeMap<u16, Arc<Floors>>,
}

impl CompactionFilter for Left {
    fn filter_item(&mut self, row: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        let value = || row.value().map(Bytes::from).map_err(Error::corrupt);
        let floors = shard_of(row.key()).and_then(|it| self.floors.get(&it));
        // What cannot be read stays, for whoever looks for damage.
        let left = floors.map(|it| it.exclude(self.table, row.key(), value));
        let left = matches!(left, Some(Ok(true)));
        // Older rows of the same key would be excluded too, so no sign of it needs to stay.
        Ok(if left { Verdict::Destroy } else { Verdict::Keep })
    }
}

fn shard_of(key: &[u8]) -> Option<u16> {
    key.first_chunk().map(|it| u16::from_be_bytes(*it))
}

/// The thread that drops files and settles memtables: it waits for merges that are under way, and
/// nobody waits for it.
pub(super) struct Dropper {
    wanted: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Dropper {
    pub(super) fn start(keyspaces: BTreeMap<Table, Keyspace>, let_go: LetGo) -> Result<Self> {
        let (wanted, asked) = mpsc::channel();
        let mut files = Files { keyspaces, let_go, held: false };
        let (mut memtables, mut settling) = (Memtables::default(), Settling::default());
        let mut settled = false;
        let work = move || {
            for look in 1_u64.. {
                memtables.look(&files.keyspaces);
                if look.is_multiple_of(ASK_EVERY) {
                    allocator::return_empty_pages();
                }
                let done = match asked.recv_timeout(LOOK_EVERY) {
                    Ok(()) => {
                        asked.try_iter().for_each(drop);
                        files.drop_all()
                    }
                    Err(RecvTimeoutError::Timeout) => match look % SETTLE_EVERY {
                        0 => settling.settle(&files.keyspaces).map(|some| settled |= some),
                        RELEASE_AFTER.. if std::mem::take(&mut settled) => {
                            files.release().map(drop)
                        }
                        _ => Ok(()),
                    },
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if let Err(error) = done {
                    tracing::error!(%error, "room could not be given back; trying again");
                }
            }
        };
        let thread = std::thread::Builder::new().name("retention".into());
        let thread = thread.spawn(work).map_err(Error::unavailable)?;
        Ok(Self { wanted: Some(wanted), thread: Some(thread) })
    }

    /// Soon drops what is to be let go of by now.
    pub(super) fn wake(&self) {
        // The thread ends only with the store.
        let _ = self.wanted.as_ref().map(|it| it.send(()));
    }
}

impl Drop for Dropper {
    fn drop(&mut self) {
        self.wanted = None;
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

/// The files of the store, seen from the thread that drops some.
struct Files {
    keyspaces: BTreeMap<Table, Keyspace>,
    let_go: LetGo,
    /// Files were dropped that older views of the store may still hold.
    held: bool,
}

/// From a key to a key.
type Span = (fjall::Slice, fjall::Slice);

impl Files {
    fn drop_all(&mut self) -> Result<()> {
        let floors = self.let_go.all();
        for (table, keyspace) in &self.keyspaces {
            let (spans, files) = excluded(&floors, *table, keyspace)?;
            for (from, to) in spans {
                keyspace.tree.drop_range(from..=to).map_err(fjall::Error::from)?;
                self.held = true;
            }
            if files > 0 {
                let table = table.name();
                tracing::info!(table, files, "files beyond retention are dropped");
            }
        }
        if self.held {
            self.held = !self.release()?;
        }
        Ok(())
    }

    /// Has fjall let go of dropped files and of memtables that are in theirs: until then they lie on
    /// the disk and in memory. It does so when it turns to a new memtable, provided that something
    /// was written since and that nobody reads from before, as a backup does. False: there is
    /// something left, for another time.
    fn release(&self) -> Result<bool> {
        // A key that no row has.
        self.keyspaces[&Table::Cursors].remove([u8::MAX])?;
        // The smallest, if it has anything.
        if !self.keyspaces[&Table::Meta].rotate_memtable()? {
            self.keyspaces[&Table::Cursors].rotate_memtable()?;
        }
        Ok(self.keyspaces.values().all(|it| it.tree.version_free_list_len() == 0))
    }
}

/// The spans of keys whose files nothing asks for any more, and how many files those are. Files
/// of one owner make one span: each dropping writes the keyspace's list of files.
fn excluded(
    floors: &BTreeMap<u16, Arc<Floors>>,
    table: Table,
    keyspace: &Keyspace,
) -> Result<(Vec<Span>, u64)> {
    let is_any = |behind: &[u8], to: &[u8]| {
        let range = (Bound::Excluded(behind), Bound::Included(to));
        let row = keyspace.range::<&[u8], _>(range).next();
        Ok(row.map(|it| it.key()).transpose()?.is_some())
    };
    let (mut spans, mut files) = (BTreeMap::<Vec<u8>, Span>::new(), 0);
    for file in keyspace.tree.current_version().iter_tables() {
        let (min, max) = (file.metadata.key_range.min(), file.metadata.key_range.max());
        let Some(floors) = shard_of(max).and_then(|it| floors.get(&it)) else { continue };
        // A key that cannot be made sense of is for whoever looks for damage.
        let whole = floors.exclude_all(table, (&min[..], &max[..]), is_any);
        let Ok(Some(owner)) = whole.map(|it| it.then(|| Floors::owner(table, max)).flatten())
        else {
            continue;
        };
        files += 1;
        let span = spans.entry(owner.to_vec()).or_insert((min.clone(), max.clone()));
        span.0 = span.0.clone().min(min.clone());
        span.1 = span.1.clone().max(max.clone());
    }
    Ok((spans.into_values().collect(), files))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use fjall::Readable as _;

    use super::*;
    use crate::domain::{EventType, Quota, Retention, Seq, Slug, TenantNo, Timestamp};
    use crate::storage::View as _;
    use crate::storage::codec::encode;
    use crate::storage::fjall::Fjall;
    use crate::storage::fjall::{Config as FjallConfig, Step, check_backup, restore, verify};
    use crate::storage::keys::ShardNo;
    use crate::storage::{Config, Keep, MasterKey, MasterKeys, NewEvent, Shard, Store};
    use crate::world::{Entropy, SeededEntropy, SimClock};

    const EVENTS: u64 = 8000;
    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn a_memtable_that_is_in_its_file_is_let_go_of_also_where_nothing_else_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let database = fjall::Database::builder(folder.path()).open().unwrap();
        let open = |it: Table| (it, database.keyspace(it.name(), Default::default).unwrap());
        let tables = [Table::Meta, Table::Cursors, Table::History];
        let keyspaces = BTreeMap::from(tables.map(open));
        let history = &keyspaces[&Table::History];
        history.insert([1], [7; 1024]).unwrap();
        let memtable = history.tree.active_memtable();
        history.rotate_memtable_and_wait().unwrap();
        let files = Files { keyspaces, let_go: LetGo::default(), held: false };
        assert!(Arc::strong_count(&memtable) > 1, "fjall keeps it for who reads from before");
        files.release().unwrap();
        assert_eq!(Arc::strong_count(&memtable), 1);
    }

    fn config(shards: u16) -> Config {
        let fjall = FjallConfig { memtable_bytes: 512 * 1024, ..FjallConfig::default() };
        Config { shards, fjall, ..Config::default() }
    }

    /// Bytes that the events' files take.
    fn taken(folder: &Path) -> u64 {
        let size = |path: &Path| path.metadata().map_or(0, |it| it.len());
        let files = |folder: &Path| {
            let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
            files.map(|it| it.path()).collect::<Vec<_>>()
        };
        let keyspaces = files(&folder.join("store/keyspaces")).into_iter();
        let folders = keyspaces.flat_map(|it| [it.join("tables"), it.join("blobs")]);
        folders.flat_map(|it| files(&it)).map(|it| size(&it)).sum()
    }

    /// Looks again and again until it is so.
    async fn becomes(what: impl Fn() -> bool) -> bool {
        for _ in 0..500 {
            if what() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Events that nobody gets.
    async fn fill(shard: &Shard, tenant: &Slug) {
        let noise = SeededEntropy::new(5);
        shard.put_tenant(tenant, |_| Ok((String::new(), Quota::default()))).await.unwrap();
        for _ in 0..EVENTS / 100 {
            let new = (0..100).map(|_| {
                let noise: String = (0..64).map(|_| format!("{:016x}", noise.draw())).collect();
                let data = Bytes::from(format!("\"{noise}\""));
                NewEvent::new(EventType::parse("a.b").unwrap(), data)
            });
            let before = shard.last_seq();
            shard.append(tenant, new.collect(), true).await.unwrap();
            let events = shard.read_after(before, 100).await.unwrap();
            let targets: Vec<_> = events.into_iter().map(|it| (it, Vec::new())).collect();
            shard.enqueue(&targets).await.unwrap();
        }
    }

    #[tokio::test]
    async fn room_comes_back_and_a_backup_keeps_what_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let (data, backup) = (folder.path().join("data"), folder.path().join("backup"));
        let masters = MasterKeys::new(MasterKey::simulated());
        let open = |hours: u32| {
            let start = Timestamp(1_800_000_000_000) + HOUR * hours;
            let world =
                (Arc::new(SimClock::starting_at(start)) as _, Arc::new(SeededEntropy::new(1)) as _);
            let (store, writers) = Store::open(&data, &config(1), masters.clone(), world).unwrap();
            let writers = writers.start(&store).unwrap();
            (store, writers)
        };
        let tenant = Slug::default_tenant();
        let (store, writers) = open(0);
        fill(store.shard(&tenant), &tenant).await;
        writers.stop().await;
        drop(store);
        let (store, writers) = open(3);
        let shard = store.shard(&tenant);
        assert!(becomes(|| taken(&data) > 6_000_000).await, "{}", taken(&data));
        let before = taken(&data);

        // A backup reads on from where it began, whatever goes meanwhile.
        let fjall = store.fjall.clone().unwrap();
        let snapshot = fjall.database().snapshot();
        let kept = Retention::For(2 * HOUR);
        let keep = Keep { events: kept, audit: kept };
        let trimmed = shard.trim(keep).await.unwrap();
        assert_eq!((trimmed.events, trimmed.oldest), (EVENTS, None));
        assert_eq!(shard.event(Seq(1)).unwrap(), None);
        let events = fjall.keyspace(Table::Events).clone();
        assert!(becomes(|| events.disk_space() < 2_000_000).await);
        assert_eq!(snapshot.iter(&events).count() as u64, EVENTS);
        assert!(taken(&data) >= before);
        drop(snapshot);
        shard.put_tenant(&tenant, |_| Ok(("x".to_owned(), Quota::default()))).await.unwrap();
        fjall.let_go(0, &shard.floors().clone());
        assert!(becomes(|| taken(&data) < before / 4).await, "{before}: {}", taken(&data));

        let mut file = std::fs::File::create(&backup).unwrap();
        store.backup(&mut file).unwrap();
        writers.stop().await;
        drop((events, fjall, store));
        let found = verify(&data, &config(1).fjall, 1, &mut |_: Step<'_>| {}).unwrap();
        assert_eq!((found.damage, found.holds_from), (Vec::new(), vec![EVENTS + 1]));
        let (store, writers) = open(4);
        let shard = store.shard(&tenant);
        assert_eq!((shard.event(Seq(1)).unwrap(), shard.last_seq()), (None, Seq(EVENTS)));
        writers.stop().await;
        drop(store);
        check_backup(std::fs::File::open(&backup).unwrap()).unwrap();
        let copy = folder.path().join("copy");
        restore(&backup, &copy, &config(1).fjall).unwrap();
        let found = verify(&copy, &config(1).fjall, 1, &mut |_: Step<'_>| {}).unwrap();
        assert_eq!((found.damage, found.holds_from), (Vec::new(), vec![EVENTS + 1]));
    }
    #[test]
    fn merging_leaves_out_what_a_file_keeps_beside_younger_rows() {
        let folder = tempfile::tempdir().unwrap();
        let fjall = Fjall::open(folder.path(), &config(2).fjall, 2).unwrap();
        let (events, tenants) = (fjall.keyspace(Table::Events), fjall.keyspace(Table::ByTenant));
        for shard in [ShardNo(0), ShardNo(1)] {
            for seq in (1..=100).map(Seq) {
                events.insert(shard.seq(seq), vec![7; 1000]).unwrap();
                let key = shard.tenant_seq(TenantNo(1), seq);
                tenants.insert(key, encode(&vec![seq.0])).unwrap();
            }
        }
        let (common, others, shard) = (80, BTreeMap::new(), 60);
        fjall.let_go(0, &Floors { common, others, shard, audit: 0, names: 0 });
        for keyspace in [events, tenants] {
            keyspace.rotate_memtable_and_wait().unwrap();
            assert_eq!(keyspace.len().unwrap(), 200);
            keyspace.major_compact().unwrap();
        }
        assert_eq!((events.len().unwrap(), tenants.len().unwrap()), (140, 120));
        assert!(events.contains_key(ShardNo(0).seq(Seq(61))).unwrap());
        assert!(events.contains_key(ShardNo(1).seq(Seq(1))).unwrap(), "another shard's");
        assert!(events.fragmented_blob_bytes() > 0, "known, so that payloads are merged too");
    }
}
