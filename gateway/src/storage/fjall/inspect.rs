//! Looks a store's files over without fjall, which on opening deletes what it cannot make sense
//! of. Whatever was written whole carries a checksum; what must be there is known from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    path::{Path, PathBuf},
};

use crate::storage::codec::decode;
use crate::storage::fjall::high_water::Mark;
use crate::storage::fjall::journal_file::{JournalBatch, JournalFile};
use crate::storage::fjall::manifest::{Manifest, Sealed};
use crate::storage::fold::Meta;

/// Something in the store's files that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Damage {
    pub(super) file: PathBuf,
    /// The byte in the file, where it is known.
    pub(super) at: Option<usize>,
    pub(super) what: String,
    pub(super) kind: DamageKind,
}

/// What can be done about it, if losing what was there is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DamageKind {
    /// Batches of a journal: the whole ones are kept.
    Journal,
    /// A table or a blob file: the others are kept.
    Sealed,
    /// What the rest is found by, the lists of files and the tables' names: nothing can be kept
    /// without them.
    Manifest,
}

impl fmt::Display for Damage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(to, "{}, byte {at}: {}", self.file.display(), self.what),
            None => write!(to, "{}: {}", self.file.display(), self.what),
        }
    }
}

/// What a look over the files found.
#[derive(Debug, Default)]
pub(super) struct Inspection {
    pub(super) damage: Vec<Damage>,
    /// Sealed files that were not read through: they were beyond the bound.
    pub(super) unread: Vec<Sealed>,
    /// Where the newest journal goes on with what a power failure left of batches that were not
    /// synced. fjall must not see them: it refuses some of what they can be.
    pub(super) torn: Option<(PathBuf, u64)>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// Keyspaces that journals write to.
    written: BTreeSet<u64>,
    /// By shard, the last batch that journals hold.
    last: BTreeMap<u16, u64>,
    /// By shard, the first batch that journals hold, and the keyspace that tells its number.
    pub(super) first: BTreeMap<u16, (u64, u64)>,
}

/// Looks over the store in `folder`, which `marks` tell about; none: they are lost. Sealed files
/// are read through up to a bound, the newest first; `progress` gets each file.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn inspect(
    folder: &Path,
    marks: &[Mark],
    bytes_max: u64,
    progress: &mut dyn FnMut(&Path, u64),
) -> io::Result<Inspection> {
    let mut inspection = Inspection::default();
    inspection.version(folder);
    inspection.journals(folder, marks, progress)?;
    let sealed = inspection.keyspaces(folder)?;
    inspection.sealed(sealed, bytes_max, progress)?;
    // Told from the data directory on: it may be moved.
    let above = folder.parent().unwrap_or(folder);
    for damage in &mut inspection.damage {
        if let Ok(inside) = damage.file.strip_prefix(above) {
            damage.file = inside.to_owned();
        }
    }
    Ok(inspection)
}

impl Inspection {
    pub(super) fn damage(&mut self, kind: DamageKind, file: &Path, what: impl fmt::Display) {
        let what = what.to_string();
        self.damage.push(Damage { file: file.to_owned(), at: None, what, kind });
    }

    fn version(&mut self, folder: &Path) {
        let path = folder.join("version");
        match fs::read(&path) {
            Ok(bytes) if bytes == b"FJL\x03" => {}
            Ok(_) => self.damage(DamageKind::Manifest, &path, "it is not what was written"),
            Err(error) => self.damage(DamageKind::Manifest, &path, error),
        }
    }

    fn journals(
        &mut self,
        folder: &Path,
        marks: &[Mark],
        progress: &mut dyn FnMut(&Path, u64),
    ) -> io::Result<()> {
        let journals = journal_paths(folder)?;
        for pair in journals.windows(2).filter(|it| it[0].0 + 1 != it[1].0) {
            let path = folder.join(format!("{}.jnl", pair[0].0 + 1));
            self.damage(DamageKind::Journal, &path, "it is missing");
        }
        let newest = journals.last().map(|it| it.1.clone());
        for (_, path) in &journals {
            let journal = JournalFile::read(path)?;
            (self.files, self.bytes) = (self.files + 1, self.bytes + journal.bytes.len() as u64);
            progress(path, journal.bytes.len() as u64);
            self.journal(path, &journal, newest.as_ref() == Some(path), marks);
        }
        let promised = marks.iter().any(|it| it.lsn > 0);
        if newest.is_none() && promised {
            self.damage(DamageKind::Journal, &folder.join("1.jnl"), "all journals are missing");
        }
        Ok(())
    }

    fn journal(&mut self, path: &Path, journal: &JournalFile, newest: bool, marks: &[Mark]) {
        let kind = DamageKind::Journal;
        let damage =
            |at: usize, what: String| Damage { file: path.to_owned(), at: Some(at), what, kind };
        if !newest && journal.is_torn() {
            let what = "it ends in a batch that cannot be read".to_owned();
            self.damage.push(damage(journal.ends_at, what));
        }
        let hole = journal.damage.iter().map(|it| it.0).min().unwrap_or(usize::MAX);
        let (before, behind): (Vec<_>, Vec<_>) =
            journal.batches.iter().partition(|it| it.place.end <= hole);
        let gaps = before.iter().filter(|it| !self.follows(path, journal, it)).count();
        let ends_at = before.last().map_or(0, |it| it.place.end);
        // Nothing whole follows, or nothing that was acknowledged.
        if hole == usize::MAX || (newest && gaps == 0 && self.has_all(marks)) {
            let is_torn = newest && (hole != usize::MAX || journal.is_torn());
            self.torn = is_torn.then(|| (path.to_owned(), ends_at as u64));
        } else {
            let found = journal.damage.iter().map(|(at, what)| damage(*at, (*what).to_owned()));
            self.damage.extend(found);
            for batch in behind {
                self.follows(path, journal, batch);
            }
        }
        if !newest {
            return;
        }
        for (shard, mark) in (0..).zip(marks) {
            let Some(last) = self.last.get(&shard).filter(|it| **it < mark.lsn) else { continue };
            let what = format!(
                "shard {shard} ends with batch {last}, but batch {} was acknowledged",
                mark.lsn
            );
            self.damage.push(damage(journal.ends_at, what));
        }
    }

    /// Whether the batch comes next in its shard.
    fn follows(&mut self, path: &Path, journal: &JournalFile, batch: &JournalBatch) -> bool {
        let mut follows = true;
        for item in &batch.items {
            self.written.insert(item.0);
            let Ok(shard) = <[u8; 2]>::try_from(journal.key(item)) else { continue };
            let shard = u16::from_be_bytes(shard);
            let Ok(meta) = decode::<Meta>(journal.value(item)) else { continue };
            self.first.entry(shard).or_insert((meta.lsn, item.0));
            let last = self.last.insert(shard, meta.lsn);
            if last.is_some_and(|it| it + 1 != meta.lsn) {
                let last = last.unwrap_or_default();
                let what = format!("batch {} of shard {shard} follows {last}", meta.lsn);
                // Without the place, which moves when a damaged batch is cut out.
                self.damage(DamageKind::Journal, path, what);
                follows = false;
            }
        }
        follows
    }

    /// Whether everything that was acknowledged has been met with. What follows was not, or was
    /// synced all the same and is whole: a sync leaves nothing before it out.
    fn has_all(&self, marks: &[Mark]) -> bool {
        let met = |(shard, mark): (u16, &Mark)| {
            mark.lsn == 0 || self.last.get(&shard).is_some_and(|it| *it >= mark.lsn)
        };
        !marks.is_empty() && (0..).zip(marks).all(met)
    }

    /// Forgets what an earlier start was allowed to go on without.
    pub(super) fn accept(&mut self, accepted: &BTreeSet<String>) {
        self.damage.retain(|it| !accepted.contains(&it.to_string()));
    }

    /// What is damaged and nothing can be kept without.
    pub(super) fn fatal(&self) -> Option<&Damage> {
        self.damage.iter().find(|it| it.kind == DamageKind::Manifest)
    }

    /// The sealed files of all keyspaces.
    fn keyspaces(&mut self, folder: &Path) -> io::Result<Vec<Sealed>> {
        let folder = folder.join("keyspaces");
        let mut present = BTreeSet::new();
        if folder.is_dir() {
            for entry in fs::read_dir(&folder)? {
                let name = entry?.file_name();
                present.extend(name.to_str().and_then(|it| it.parse::<u64>().ok()));
            }
        }
        let last = present.last().copied().unwrap_or(0);
        let expected = (0..=last).chain(self.written.clone()).collect::<BTreeSet<_>>();
        for missing in expected.difference(&present) {
            let path = folder.join(missing.to_string());
            self.damage(DamageKind::Manifest, &path, "the folder is missing");
        }
        let mut sealed = Vec::new();
        for keyspace in present {
            let folder = folder.join(keyspace.to_string());
            match Manifest::read(&folder) {
                Ok(manifest) => {
                    self.files += 2;
                    sealed.extend(manifest.tables);
                    sealed.extend(manifest.blobs);
                }
                // Made, and killed before anything was in it.
                Err((path, _)) if path.ends_with("current") && !self.holds(&folder, keyspace) => {}
                Err((path, what)) => self.damage(DamageKind::Manifest, &path, what),
            }
        }
        Ok(sealed)
    }

    fn holds(&self, folder: &Path, keyspace: u64) -> bool {
        let filled =
            |name: &str| fs::read_dir(folder.join(name)).is_ok_and(|mut it| it.next().is_some());
        keyspace == 0
            || self.written.contains(&keyspace)
            || filled("tables")
            || filled("blobs")
            || folder.join("current").exists()
    }

    fn sealed(
        &mut self,
        mut sealed: Vec<Sealed>,
        bytes_max: u64,
        progress: &mut dyn FnMut(&Path, u64),
    ) -> io::Result<()> {
        // Numbers count up, so the newest files have the highest. The tables' names are read
        // whatever the bound is, for on opening fjall deletes a table whose name it does not find.
        let number =
            |it: &Sealed| it.path.file_name().and_then(|it| it.to_str()?.parse::<u64>().ok());
        sealed.sort_by_key(|it| (!holds_names(it), std::cmp::Reverse(number(it))));
        let mut read = 0;
        for file in sealed {
            let bytes = file.bytes();
            (self.files, self.bytes) = (self.files + 1, self.bytes + bytes);
            let kind = match holds_names(&file) {
                true => DamageKind::Manifest,
                false => DamageKind::Sealed,
            };
            let readable = kind == DamageKind::Manifest || read + bytes <= bytes_max;
            if !readable && file.path.exists() {
                self.unread.push(file);
                continue;
            }
            read += bytes;
            progress(&file.path, bytes);
            match file.is_intact() {
                Ok(true) => {}
                Ok(false) => self.damage(kind, &file.path, "its checksum is wrong"),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.damage(kind, &file.path, "it is missing");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether the file is of fjall's own keyspace, which tells what the others are.
fn holds_names(file: &Sealed) -> bool {
    file.path.ancestors().nth(2).is_some_and(|it| it.ends_with("keyspaces/0"))
}

/// The journals, oldest first.
pub(super) fn journal_paths(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let number =
            path.file_name().and_then(|it| it.to_str()?.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|it: u64| (it, path)));
    }
    journals.sort();
    Ok(journals)
}
