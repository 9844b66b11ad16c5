//! The whole check of a store that nobody has open: its files, then its tables.

use std::path::{Path, PathBuf};

use crate::storage::codec::decode;
use crate::storage::fjall::database::{Config, Fjall};
use crate::storage::fjall::high_water::shards_made_for;
use crate::storage::fjall::opening::{Places, inspected, lock, no_folder, promised};
use crate::storage::fold::Meta;
use crate::storage::keys::ShardNo;
use crate::storage::verify::Verification;
use crate::storage::{Error, Floors, Result, Table, View};

/// A step of the check, for whoever watches.
#[derive(Debug)]
pub enum Step<'a> {
    /// This file of so many bytes is read.
    File(&'a Path, u64),
    /// So many rows of this table were read.
    Table(&'static str, u64),
}

/// What the check found.
#[derive(Debug, Default)]
pub struct Verified {
    /// Files read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// By shard, the number of the first event that it holds; what came before is beyond
    /// retention.
    pub holds_from: Vec<u64>,
    /// What is not as it was written; empty: the store is whole.
    pub damage: Vec<String>,
    /// Whether something of that is such that nothing can be kept without it.
    pub fatal: bool,
}

/// The number of shards that the store in `folder` was made with.
///
/// # Errors
/// `Corrupt` when nothing tells.
pub fn shards_of(folder: &Path) -> Result<u16> {
    let path: PathBuf = Places::of(folder).marks;
    match shards_made_for(&path) {
        Ok(Some(shards)) => Ok(shards),
        Ok(None) => Err(Error::Corrupt(format!("{}: it has no marks", path.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("{} holds no store: {}: {error}", folder.display(), path.display());
            Err(Error::Unavailable(what))
        }
        Err(error) => Err(no_folder(&path, &error)),
    }
}

/// Whether `folder` holds a store, or what is left of one.
pub fn has_store(folder: &Path) -> bool {
    let places = Places::of(folder);
    places.store.exists() || places.marks.exists()
}

/// Checks everything. The store is opened, as a start would, only when its files are whole.
///
/// # Errors
/// When the check cannot be made: `InUse`, `Newer`, `Unavailable`; or `Corrupt` when it is not
/// even known what the store must hold.
pub fn verify(
    folder: &Path,
    config: &Config,
    shards: u16,
    step: &mut dyn FnMut(Step<'_>),
) -> Result<Verified> {
    let places = Places::of(folder);
    let locked = lock(folder)?;
    let (marks, _) = promised(&places, config, shards)?;
    let mut seen = |path: &Path, bytes: u64| step(Step::File(path, bytes));
    let inspection = inspected(&places, &marks, u64::MAX, &mut seen)?;
    let mut verified = Verified {
        files: inspection.files,
        bytes: inspection.bytes,
        damage: inspection.damage.iter().map(ToString::to_string).collect(),
        fatal: inspection.fatal().is_some(),
        holds_from: Vec::new(),
    };
    if !verified.damage.is_empty() {
        return Ok(verified);
    }
    drop(locked);
    let fjall = match Fjall::open(folder, config, shards) {
        Err(Error::Corrupt(what)) => {
            verified.damage.push(what);
            return Ok(verified);
        }
        opened => opened?,
    };
    for shard in (0..shards).map(ShardNo) {
        let row = fjall.get(Table::Meta, &shard.all())?;
        let meta = row.map_or(Ok(Meta::new(shards)), |it| decode::<Meta>(&it))?;
        let progress = &mut |table, rows| step(Step::Table(table, rows));
        let (view, findings) = (&fjall as &dyn View, Vec::new());
        let (meta, floors) = (&meta, &Floors::load(view, shard)?);
        verified.holds_from.push(floors.shard + 1);
        let mut verification = Verification { view, shard, meta, floors, progress, findings };
        verification.run()?;
        verified.damage.extend(verification.findings);
    }
    Ok(verified)
}
