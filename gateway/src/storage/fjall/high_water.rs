//! What the store must hold at least, in a file of its own. fjall drops the tail of its journal
//! when it cannot decode an entry, for a flipped bit as for a torn write; with this mark a store
//! that came back short is noticed.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// How long at least between two writes: the mark may lag, it must only never lead.
const PAUSE: Duration = Duration::from_millis(10);
const SLOT_BYTES: u64 = 512;
const RECORD_BYTES: usize = 20;

/// Up to where a shard's history is known to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    pub(super) lsn: u64,
    pub(super) chain: u32,
}

/// The file of marks, and the thread that writes it.
#[derive(Debug)]
pub(super) struct HighWater {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    marks: Vec<Mark>,
    dirty: bool,
    stopping: bool,
}

impl HighWater {
    /// Reads the marks of `shards` shards; a new file has none.
    pub(super) fn open(path: &Path, shards: u16) -> io::Result<(Self, Vec<Mark>)> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut marks = Vec::new();
        for shard in 0..shards {
            marks.push(read_mark(&file, shard)?);
        }
        let state = Mutex::new(State { marks: marks.clone(), ..State::default() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let writer = shared.clone();
        let thread = std::thread::Builder::new().name("high-water".into()).spawn(move || {
            if let Err(error) = write_marks(&writer, &file) {
                tracing::error!(%error, "cannot write the high-water mark; losses may go unnoticed");
            }
        })?;
        Ok((Self { shared, thread: Some(thread) }, marks))
    }

    /// Notes that a shard's history is on disk up to `mark`.
    pub(super) fn raise(&self, shard: u16, mark: Mark) {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.marks[usize::from(shard)] = mark;
        if !std::mem::replace(&mut state.dirty, true) {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for HighWater {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner).stopping = true;
        self.shared.changed.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

fn write_marks(shared: &Shared, file: &File) -> io::Result<()> {
    let mut written = Vec::<Mark>::new();
    // The two slots of a shard are written in turn, so that a torn write spoils only one.
    let mut turn = 0;
    loop {
        let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.dirty && !state.stopping {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.dirty = false;
        let (marks, stopping) = (state.marks.clone(), state.stopping);
        drop(state);
        turn ^= 1;
        for (shard, mark) in marks.iter().enumerate() {
            if written.get(shard) != Some(mark) {
                file.write_all_at(&encode(*mark), (2 * shard as u64 + turn) * SLOT_BYTES)?;
            }
        }
        file.sync_data()?;
        written = marks;
        if stopping {
            return Ok(());
        }
        let state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.stopping {
            // Only to stop early; what is marked meanwhile waits for the next round.
            let _ = shared.changed.wait_timeout(state, PAUSE);
        }
    }
}

fn encode(mark: Mark) -> [u8; RECORD_BYTES] {
    let mut record = [0; RECORD_BYTES];
    record[..8].copy_from_slice(&mark.lsn.to_le_bytes());
    record[8..12].copy_from_slice(&mark.chain.to_le_bytes());
    let checksum = crc32fast::hash(&record[..12]);
    record[12..16].copy_from_slice(&checksum.to_le_bytes());
    record[16..].copy_from_slice(b"HGHW");
    record
}

/// The higher of the two slots that can be read; none: nothing was ever promised.
fn read_mark(file: &File, shard: u16) -> io::Result<Mark> {
    let mut best = Mark::default();
    for turn in 0..2 {
        let mut record = [0; RECORD_BYTES];
        let offset = (2 * u64::from(shard) + turn) * SLOT_BYTES;
        match file.read_exact_at(&mut record, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        let lsn = u64::from_le_bytes(record[..8].try_into().expect("eight bytes"));
        let chain = u32::from_le_bytes(record[8..12].try_into().expect("four bytes"));
        let mark = Mark { lsn, chain };
        if record == encode(mark) && mark.lsn > best.lsn {
            best = mark;
        }
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_mark_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("marks");
        let (high_water, marks) = HighWater::open(&path, 2).unwrap();
        assert_eq!(marks, [Mark::default(); 2]);
        for lsn in 1..=50 {
            high_water.raise(1, Mark { lsn, chain: 7 });
        }
        drop(high_water);
        let (_, marks) = HighWater::open(&path, 2).unwrap();
        assert_eq!(marks, [Mark::default(), Mark { lsn: 50, chain: 7 }]);
    }
}
