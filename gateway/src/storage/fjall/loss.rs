//! Going on with what is left of a damaged store, and writing down what is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use fjall::Keyspace;
use serde::{Deserialize, Serialize};

use crate::domain::Seq;
use crate::storage::codec::decode;
use crate::storage::fjall::high_water::Mark;
use crate::storage::fjall::inspect::{Damage, DamageKind};
use crate::storage::fjall::journal_file::JournalFile;
use crate::storage::fjall::manifest::Manifest;
use crate::storage::fjall::opening::{Places, no_folder};
use crate::storage::fold::Meta;
use crate::storage::keys::{ShardNo, u64_at};
use crate::storage::{Error, Floors, Result, Table};

const REPORT: &str = "loss-report";

/// What was given up; the report of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Losses {
    /// What was wrong, and where.
    damage: Vec<String>,
    /// Where the damaged files lie now, for whoever can make more of them.
    kept_aside: Vec<PathBuf>,
    /// Batches of a shard that were acknowledged and are gone: shard, first, last.
    batches: Vec<Gone>,
    /// Events of a shard that are gone, by number.
    events: Vec<Gone>,
    /// Other rows that cannot be read any more: table and count.
    rows: BTreeMap<String, u64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Gone {
    shard: u16,
    first: u64,
    last: u64,
}

impl Losses {
    pub(super) fn is_empty(&self) -> bool {
        self.damage.is_empty() && self.batches.is_empty()
    }

    pub(super) fn note(&mut self, what: String) {
        self.damage.push(what);
    }

    pub(super) fn ends_early(&mut self, shard: u16, meta: &Meta, mark: &Mark) {
        self.note(format!("shard {shard} ends before what was acknowledged"));
        self.batches.push(Gone { shard, first: meta.lsn + 1, last: mark.lsn.max(meta.lsn) });
        if mark.last_seq > meta.last_seq {
            self.events.push(Gone { shard, first: meta.last_seq + 1, last: mark.last_seq });
        }
    }

    /// Takes damaged files out of the store, so that fjall opens what is left. Not for what
    /// nothing can be kept without.
    pub(super) fn give_up(&mut self, places: &Places, damage: &[Damage]) -> Result<()> {
        self.damage.extend(damage.iter().map(ToString::to_string));
        let aside = free_name(&places.folder, "damaged", "");
        let failed = |it: std::io::Error| no_folder(&aside, &it);
        fs::create_dir_all(&aside).map_err(failed)?;
        let files: BTreeSet<_> = damage.iter().map(|it| (&it.file, it.kind)).collect();
        for (inside, kind) in files {
            let file = &places.folder.join(inside);
            if file.exists() {
                let name = inside.to_string_lossy().replace('/', "-");
                let to = aside.join(name);
                fs::copy(file, &to).map_err(failed)?;
                self.kept_aside.push(to);
            }
            match kind {
                DamageKind::Journal if file.exists() => keep_whole_batches(file).map_err(failed)?,
                DamageKind::Journal | DamageKind::Manifest => {}
                DamageKind::Sealed => {
                    let keyspace = file.ancestors().nth(2).expect("keyspace/kind/file");
                    let manifest = Manifest::read(keyspace);
                    let manifest = manifest.map_err(|(_, it)| Error::Corrupt(it))?;
                    manifest.give_up(std::slice::from_ref(file)).map_err(failed)?;
                }
            }
        }
        Ok(())
    }

    /// Finds out what is gone, removes what only points there, and writes the report.
    pub(super) fn write_down(
        &mut self,
        places: &Places,
        keyspaces: &BTreeMap<Table, Keyspace>,
        metas: &[Meta],
    ) -> Result<()> {
        for table in [Table::Events, Table::Components] {
            let removed = remove_unreadable(&keyspaces[&table])?;
            if removed > 0 {
                self.rows.insert(table.name().to_owned(), removed);
            }
        }
        for (shard, meta) in (0..).zip(metas) {
            let floors = keyspaces[&Table::Catalog].get(Floors::key(ShardNo(shard)))?;
            let floors: Floors = floors.map_or(Ok(Floors::default()), |it| decode(&it))?;
            // What came before is beyond retention.
            let mut next = floors.shard + 1;
            let (from, to) = (ShardNo(shard).seq(Seq(next)), ShardNo(shard).end());
            for row in keyspaces[&Table::Events].range(&from[..]..&to[..]) {
                let seq = u64_at(&row.key()?, 0)?;
                if seq > next {
                    self.events.push(Gone { shard, first: next, last: seq - 1 });
                }
                next = seq + 1;
            }
            if next <= meta.last_seq {
                self.events.push(Gone { shard, first: next, last: meta.last_seq });
            }
        }
        let path = free_name(&places.folder, REPORT, ".json");
        let text = serde_json::to_vec_pretty(self).expect("a report is plain data");
        fs::write(&path, text).map_err(|it| no_folder(&path, &it))?;
        for gone in &self.events {
            let (shard, first, last) = (gone.shard, gone.first, gone.last);
            tracing::error!(shard, first, last, "these events are lost, as was accepted");
        }
        tracing::error!(report = %path.display(), "the store goes on with what is left");
        Ok(())
    }
}

/// What earlier starts were allowed to go on without, by their reports.
pub(super) fn accepted(places: &Places) -> BTreeSet<String> {
    let reports = (1..).map(|it| places.folder.join(format!("{REPORT}-{it}.json")));
    let reports = reports.map_while(|it| fs::read(it).ok());
    let reports = reports.filter_map(|it| serde_json::from_slice::<Losses>(&it).ok());
    reports.flat_map(|it| it.damage).collect()
}

fn free_name(folder: &Path, stem: &str, ending: &str) -> PathBuf {
    let names = (1..).map(|it| folder.join(format!("{stem}-{it}{ending}")));
    names.into_iter().find(|it| !it.exists()).expect("numbers do not end")
}

fn keep_whole_batches(path: &Path) -> std::io::Result<()> {
    let journal = JournalFile::read(path)?;
    let batches = journal.batches.iter().map(|it| &journal.bytes[it.place.clone()]);
    let whole: Vec<u8> = batches.flatten().copied().collect();
    let aside = path.with_extension("new");
    fs::write(&aside, whole)?;
    fs::File::open(&aside)?.sync_all()?;
    fs::rename(&aside, path)
}

/// Removes rows whose values lay in a file that is gone.
fn remove_unreadable(keyspace: &Keyspace) -> Result<u64> {
    let mut unreadable = Vec::new();
    for row in keyspace.iter() {
        let key = row.key()?;
        // fjall panics where it finds no file for a value.
        let value = catch_unwind(AssertUnwindSafe(|| keyspace.get(&key)));
        if !matches!(value, Ok(Ok(Some(_)))) {
            unreadable.push(key);
        }
    }
    let count = unreadable.len() as u64;
    for key in unreadable {
        keyspace.remove(key)?;
    }
    Ok(count)
}
