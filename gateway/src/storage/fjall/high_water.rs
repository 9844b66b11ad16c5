//! What the store must hold at least, in a file of its own. fjall drops the tail of its journal
//! when it cannot decode an entry, for a flipped bit as for a torn write; with this mark a store
//! that came back short is noticed.
//!
//! **Invariant:** a mark is written after what it marks is on disk, and before it is
//! acknowledged. So a mark never leads, and lags only behind a power failure, by a few milliseconds.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use crate::storage::fold::FORMAT;
use crate::telemetry::STORE_FSYNC;
use crate::world::reach;

/// How long at least between two syncs of the file.
const PAUSE: Duration = Duration::from_millis(10);
const SLOT_BYTES: u64 = 512;
const RECORD_BYTES: usize = 32;
const MAGIC: &[u8] = b"HGHW";

/// Up to where a shard's history is known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) lsn: u64,
    pub(super) chain: u32,
    /// The last event accepted by then.
    pub(super) last_seq: u64,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Marks {
    /// There is no file: nothing was ever promised.
    None,
    /// There is a file, and a shard's marks cannot be read.
    Unreadable,
    /// A newer version wrote it.
    Newer(u32),
    /// It was made for another number of shards.
    Shards(u16),
    /// By shard.
    Known(Vec<Mark>),
}

/// The file of marks, and the thread that syncs it.
#[derive(Debug)]
pub(super) struct HighWater {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    file: File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Which of its two slots each shard wrote last, so that a torn write spoils only one.
    turns: Vec<u64>,
    dirty: bool,
    /// The thread waits for something to sync, and not for its pause to end.
    idle: bool,
    stopping: bool,
    failed: bool,
}

/// Reads the marks of `shards` shards.
pub(super) fn read_marks(path: &Path, shards: u16) -> io::Result<Marks> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Marks::None),
        Err(error) => return Err(error),
    };
    if let Some(made_for) = shards_made_for(path)?.filter(|it| *it != shards) {
        return Ok(Marks::Shards(made_for));
    }
    let mut marks = Vec::new();
    for shard in 0..shards {
        let mut best = None;
        for turn in 0..2 {
            let Some((format, mark)) = read_slot(&file, 2 * u64::from(shard) + turn)? else {
                continue;
            };
            if format > FORMAT {
                return Ok(Marks::Newer(format));
            }
            if best.is_none_or(|it: Mark| mark.lsn >= it.lsn) {
                best = Some(mark);
            }
        }
        match best {
            Some(mark) => marks.push(mark),
            None => return Ok(Marks::Unreadable),
        }
    }
    Ok(Marks::Known(marks))
}

/// How many shards the file has marks for; `None` when its length says nothing.
pub(super) fn shards_made_for(path: &Path) -> io::Result<Option<u16>> {
    // Two slots a shard, the last of them no longer than its record.
    let len = std::fs::metadata(path)?.len() + SLOT_BYTES - RECORD_BYTES as u64;
    let whole = len.is_multiple_of(2 * SLOT_BYTES);
    Ok(u16::try_from(len / (2 * SLOT_BYTES)).ok().filter(|it| whole && *it > 0))
}

impl HighWater {
    /// Writes the file anew with these marks, and keeps it from now on.
    pub(super) fn create(path: &Path, marks: &[Mark]) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
        for (shard, mark) in (0..).zip(marks) {
            for turn in 0..2 {
                file.write_all_at(&encode(*mark), (2 * shard + turn) * SLOT_BYTES)?;
            }
        }
        file.sync_all()?;
        // A file that is new must be found again, too.
        if let Some(folder) = path.parent() {
            File::open(folder)?.sync_all()?;
        }
        let state = Mutex::new(State { turns: vec![0; marks.len()], ..State::default() });
        let shared = Arc::new(Shared { file, state, changed: Condvar::new() });
        let syncing = shared.clone();
        let thread = std::thread::Builder::new().name("high-water".into()).spawn(move || {
            if let Err(error) = keep_synced(&syncing) {
                tracing::error!(%error, "the high-water mark cannot be synced");
                syncing.lock().failed = true;
            }
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Notes that a shard's history is on disk up to `mark`.
    ///
    /// # Errors
    /// When the mark cannot be written, or an earlier one could not be synced.
    pub(super) fn raise(&self, shard: u16, mark: Mark) -> io::Result<()> {
        let mut state = self.shared.lock();
        if state.failed {
            return Err(io::Error::other("the high-water mark could not be synced"));
        }
        let turn = &mut state.turns[usize::from(shard)];
        *turn ^= 1;
        let place = 2 * u64::from(shard) + *turn;
        self.shared.file.write_all_at(&encode(mark), place * SLOT_BYTES)?;
        state.dirty = true;
        if std::mem::take(&mut state.idle) {
            self.shared.changed.notify_one();
        }
        Ok(())
    }
}

impl Drop for HighWater {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn keep_synced(shared: &Shared) -> io::Result<()> {
    loop {
        let mut state = shared.lock();
        while !state.dirty && !state.stopping {
            state.idle = true;
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !std::mem::take(&mut state.dirty) {
            return Ok(());
        }
        drop(state);
        reach("during_high_water");
        let started = tokio::time::Instant::now();
        shared.file.sync_data()?;
        STORE_FSYNC.observe(started.elapsed().as_secs_f64(), &[]);
        // What is marked meanwhile waits for the next round.
        let pausing = |state: &mut State| !state.stopping;
        drop(shared.changed.wait_timeout_while(shared.lock(), PAUSE, pausing));
    }
}

fn encode(mark: Mark) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..4].copy_from_slice(MAGIC);
    record[4..8].copy_from_slice(&FORMAT.to_le_bytes());
    record[8..16].copy_from_slice(&mark.lsn.to_le_bytes());
    record[16..20].copy_from_slice(&mark.chain.to_le_bytes());
    record[20..28].copy_from_slice(&mark.last_seq.to_le_bytes());
    let checksum = crc32fast::hash(&record[..28]);
    record[28..].copy_from_slice(&checksum.to_le_bytes());
    record
}

/// Format and mark of one slot, if it can be read.
fn read_slot(file: &File, slot: u64) -> io::Result<Option<(u32, Mark)>> {
    let mut record = [0; RECORD_BYTES];
    match file.read_exact_at(&mut record, slot * SLOT_BYTES) {
        Ok(()) => Ok(decode(&record)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

fn decode(record: &[u8; RECORD_BYTES]) -> Option<(u32, Mark)> {
    let u32_at = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
    let u64_at =
        |at: usize| u64::from_le_bytes(record[at..at + 8].try_into().expect("eight bytes"));
    let whole = &record[..4] == MAGIC && crc32fast::hash(&record[..28]) == u32_at(28);
    let mark = Mark { lsn: u64_at(8), chain: u32_at(16), last_seq: u64_at(20) };
    whole.then(|| (u32_at(4), mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(lsn: u64) -> Mark {
        Mark { lsn, chain: 7, last_seq: 2 * lsn }
    }

    #[test]
    fn the_last_mark_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        assert_eq!(read_marks(&path, 2).unwrap(), Marks::None);
        let high_water = HighWater::create(&path, &[mark(0), mark(3)]).unwrap();
        assert_eq!(read_marks(&path, 2).unwrap(), Marks::Known(vec![mark(0), mark(3)]));
        for lsn in 4..=50 {
            high_water.raise(1, mark(lsn)).unwrap();
            // Not only after a sync: a process that is killed leaves the file as it wrote it.
            assert_eq!(read_marks(&path, 2).unwrap(), Marks::Known(vec![mark(0), mark(lsn)]));
        }
        drop(high_water);
        assert_eq!(read_marks(&path, 3).unwrap(), Marks::Shards(2));
    }

    #[test]
    fn one_spoiled_slot_leaves_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let high_water = HighWater::create(&path, &[mark(1)]).unwrap();
        high_water.raise(0, mark(2)).unwrap();
        drop(high_water);
        let bytes = std::fs::read(&path).unwrap();
        for place in 0..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            let Marks::Known(marks) = read_marks(&path, 1).unwrap() else { panic!("{place}") };
            assert!(marks == [mark(2)] || marks == [mark(1)], "{place}: {marks:?}");
        }
        std::fs::write(&path, vec![0; bytes.len()]).unwrap();
        assert_eq!(read_marks(&path, 1).unwrap(), Marks::Unreadable);
    }
}
