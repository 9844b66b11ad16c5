//! fjall's list of one keyspace's table and blob files, read without fjall: `current` names the
//! newest version file and its checksum, the version file names the others and theirs.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// A file that is written once, and the checksum over all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) path: PathBuf,
    pub(super) checksum: u128,
}

/// One keyspace's files.
#[derive(Debug)]
pub(super) struct Manifest {
    pub(super) version_file: PathBuf,
    pub(super) tables: Vec<Sealed>,
    pub(super) blobs: Vec<Sealed>,
}

const TABLE_BYTES: usize = 33;
const BLOB_BYTES: usize = 25;
const CURRENT: &str = "current";

impl Manifest {
    /// Reads the manifest of the keyspace in `folder`.
    ///
    /// # Errors
    /// The file that is damaged, and how.
    pub(super) fn read(folder: &Path) -> Result<Self, (PathBuf, String)> {
        let current_path = folder.join(CURRENT);
        let current =
            fs::read(&current_path).map_err(|it| (current_path.clone(), it.to_string()))?;
        let Ok(current) = <[u8; 25]>::try_from(current) else {
            return Err((current_path, "its length is wrong".to_owned()));
        };
        let id = u64::from_le_bytes(current[..8].try_into().expect("eight bytes"));
        let checksum = u128::from_le_bytes(current[8..24].try_into().expect("sixteen bytes"));
        let version_file = folder.join(format!("v{id}"));
        let bytes = fs::read(&version_file).map_err(|it| (version_file.clone(), it.to_string()))?;
        if xxh3_128(&bytes) != checksum {
            return Err((version_file, "its checksum is not the one in `current`".to_owned()));
        }
        let unreadable = |it: String| (version_file.clone(), it);
        let archive = sfa::Reader::new(&version_file).map_err(|it| unreadable(it.to_string()))?;
        let section = |name: &str| {
            let entry = archive.toc().section(name.as_bytes());
            let place = entry.map(|it| it.pos() as usize..(it.pos() + it.len()) as usize);
            let bytes = place.and_then(|it| bytes.get(it));
            bytes.ok_or_else(|| unreadable(format!("it has no section {name}")))
        };
        let short = || unreadable("a section is short".to_owned());
        let tables = tables(section("tables")?).ok_or_else(short)?;
        let blobs = blobs(section("blob_files")?).ok_or_else(short)?;
        let within = |kind: &'static str| {
            move |(id, checksum): (u64, u128)| Sealed {
                path: folder.join(kind).join(id.to_string()),
                checksum,
            }
        };
        let tables = tables.into_iter().map(within("tables")).collect();
        let blobs = blobs.into_iter().map(within("blobs")).collect();
        Ok(Self { version_file, tables, blobs })
    }

    /// Writes the manifest anew without these files: what they hold is given up.
    pub(super) fn give_up(&self, files: &[PathBuf]) -> io::Result<()> {
        let gone = |kind: &str, id: u64| {
            files.iter().any(|it| it.ends_with(Path::new(kind).join(id.to_string())))
        };
        let old = fs::read(&self.version_file)?;
        let archive = sfa::Reader::new(&self.version_file).map_err(io::Error::other)?;
        let mut writer = sfa::Writer::from_writer(io::Cursor::new(Vec::new()));
        for entry in archive.toc().iter() {
            let bytes = &old[entry.pos() as usize..(entry.pos() + entry.len()) as usize];
            writer.start(entry.name().to_vec())?;
            match entry.name() {
                b"tables" => writer.write_all(&without_tables(bytes, |id| gone("tables", id)))?,
                b"blob_files" => writer.write_all(&without_blobs(bytes, |id| gone("blobs", id)))?,
                _ => writer.write_all(bytes)?,
            }
        }
        let new = writer.into_inner().map_err(io::Error::other)?.into_inner();
        let folder = self.version_file.parent().expect("a file lies in a folder");
        let current = fs::read(folder.join(CURRENT))?;
        write_synced(&self.version_file, &new)?;
        let current = [&current[..8], &xxh3_128(&new).to_le_bytes(), &current[24..]].concat();
        write_synced(&folder.join(CURRENT), &current)?;
        fs::File::open(folder)?.sync_all()
    }
}

impl Sealed {
    /// Whether the file is as it was written; `Err` when it cannot be read.
    pub(super) fn is_intact(&self) -> io::Result<bool> {
        let mut file = fs::File::open(&self.path)?;
        let mut checksum = Xxh3::new();
        let mut buffer = vec![0; 1024 * 1024];
        loop {
            match io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(checksum.digest128() == self.checksum),
                read => checksum.update(&buffer[..read]),
            }
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |it| it.len())
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let aside = path.with_extension("new");
    let mut file = fs::File::create(&aside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(aside, path)
}

/// Number and checksum of each table: levels of runs of tables.
pub(super) fn tables(mut bytes: &[u8]) -> Option<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    for _ in 0..take::<1>(&mut bytes)?[0] {
        for _ in 0..take::<1>(&mut bytes)?[0] {
            for _ in 0..u32::from_le_bytes(take(&mut bytes)?) {
                let row: [u8; TABLE_BYTES] = take(&mut bytes)?;
                tables.push(id_and_checksum(&row));
            }
        }
    }
    Some(tables)
}

pub(super) fn blobs(mut bytes: &[u8]) -> Option<Vec<(u64, u128)>> {
    let count = u32::from_le_bytes(take(&mut bytes)?);
    (0..count).map(|_| take::<BLOB_BYTES>(&mut bytes).map(|it| id_and_checksum(&it))).collect()
}

pub(super) fn without_tables(mut bytes: &[u8], gone: impl Fn(u64) -> bool) -> Vec<u8> {
    let mut levels = Vec::new();
    let level_count = take::<1>(&mut bytes).map_or(0, |it| it[0]);
    levels.push(level_count);
    for _ in 0..level_count {
        let (mut runs, mut run_count) = (Vec::new(), 0);
        for _ in 0..take::<1>(&mut bytes).map_or(0, |it| it[0]) {
            let count = take(&mut bytes).map_or(0, u32::from_le_bytes);
            let rows = (0..count).map_while(|_| take::<TABLE_BYTES>(&mut bytes));
            let kept: Vec<_> = rows.filter(|it| !gone(id_and_checksum(it).0)).collect();
            // A run has at least one table.
            if !kept.is_empty() {
                run_count += 1;
                runs.extend_from_slice(&(kept.len() as u32).to_le_bytes());
                runs.extend(kept.into_iter().flatten());
            }
        }
        levels.push(run_count);
        levels.extend(runs);
    }
    levels
}

pub(super) fn without_blobs(mut bytes: &[u8], gone: impl Fn(u64) -> bool) -> Vec<u8> {
    let count = take(&mut bytes).map_or(0, u32::from_le_bytes);
    let rows = (0..count).map_while(|_| take::<BLOB_BYTES>(&mut bytes));
    let kept: Vec<_> = rows.filter(|it| !gone(id_and_checksum(it).0)).collect();
    let mut new = (kept.len() as u32).to_le_bytes().to_vec();
    new.extend(kept.into_iter().flatten());
    new
}

fn id_and_checksum(row: &[u8]) -> (u64, u128) {
    let id = u64::from_le_bytes(row[..8].try_into().expect("eight bytes"));
    (id, u128::from_le_bytes(row[9..25].try_into().expect("sixteen bytes")))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
