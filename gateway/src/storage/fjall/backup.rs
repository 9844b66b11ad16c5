//! A store as one stream of rows, taken at one instant while it is written to: a magic, then
//! tables and rows, then how many there were and a checksum over all of it.

use std::{
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use fjall::{PersistMode, Readable};
use xxhash_rust::xxh3::Xxh3;

use crate::storage::codec::decode;
use crate::storage::fjall::database::{Config, Fjall};
use crate::storage::fjall::opening::{Places, mark_of, no_folder};
use crate::storage::fold::{FORMAT, Meta};
use crate::storage::keys::ShardNo;
use crate::storage::{Error, Result, Table, View, create_folder};

const MAGIC: &[u8; 4] = b"HGBK";
const END: u8 = 0;
const TABLE: u8 = 1;
const ROW: u8 = 2;
const ROWS_AT_ONCE: usize = 1000;
/// Longer than any value that is stored.
const VALUE_BYTES_MAX: u32 = 256 * 1024 * 1024;
/// Stands in a directory while a backup is being restored into it.
const RESTORING: &str = "restoring";

/// Writes, and keeps the checksum.
struct Summing<T> {
    inner: T,
    checksum: Xxh3,
}

impl<T: Write> Summing<T> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.inner.write_all(bytes)
    }
}

impl<T: Read> Summing<T> {
    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes)?;
        self.checksum.update(&bytes);
        Ok(bytes)
    }

    fn take_many(&mut self, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.inner.by_ref().take(len as u64).read_to_end(&mut bytes)?;
        if bytes.len() < len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.checksum.update(&bytes);
        Ok(bytes)
    }
}

impl Fjall {
    /// Writes everything as it is at this instant; how many rows that were.
    ///
    /// # Errors
    /// When the store cannot be read, or `to` not be written.
    pub fn backup(&self, shards: u16, to: &mut dyn Write) -> Result<u64> {
        let snapshot = self.database().snapshot();
        let (inner, checksum) = (BufWriter::with_capacity(256 * 1024, to), Xxh3::new());
        let mut to = Summing { inner, checksum };
        let mut rows = 0_u64;
        to.put(MAGIC).map_err(Error::unavailable)?;
        to.put(&FORMAT.to_le_bytes()).map_err(Error::unavailable)?;
        to.put(&shards.to_le_bytes()).map_err(Error::unavailable)?;
        for table in Table::ALL {
            let name = table.name().as_bytes();
            let head = [&[TABLE, name.len() as u8], name].concat();
            to.put(&head).map_err(Error::unavailable)?;
            for row in snapshot.iter(self.keyspace(table)) {
                let (key, value) = self.read_row(row)?;
                rows += 1;
                put_row(&mut to, &key, &value).map_err(Error::unavailable)?;
            }
        }
        let end = [&[END], &rows.to_le_bytes()[..]].concat();
        to.put(&end).map_err(Error::unavailable)?;
        let checksum = to.checksum.digest128().to_le_bytes();
        let written = to.inner.write_all(&checksum).and_then(|()| to.inner.flush());
        written.map_err(Error::unavailable)?;
        Ok(rows)
    }
}

fn put_row<T: Write>(to: &mut Summing<T>, key: &[u8], value: &[u8]) -> io::Result<()> {
    let mut head = [0; 7];
    head[0] = ROW;
    head[1..3].copy_from_slice(&(key.len() as u16).to_le_bytes());
    head[3..].copy_from_slice(&(value.len() as u32).to_le_bytes());
    to.put(&head)?;
    to.put(key)?;
    to.put(value)
}

/// Reads a backup through and gives each row to `row`; shards and rows, once its checksum is
/// known to be right.
fn read_backup(
    from: impl Read,
    row: &mut dyn FnMut(Table, Vec<u8>, Vec<u8>) -> Result<()>,
) -> Result<(u16, u64)> {
    let (inner, checksum) = (BufReader::with_capacity(256 * 1024, from), Xxh3::new());
    let mut from = Summing { inner, checksum };
    if from.take().map_err(broken)? != *MAGIC {
        return Err(Error::corrupt("this is no backup of a hookgate store"));
    }
    let format = u32::from_le_bytes(from.take().map_err(broken)?);
    if format > FORMAT {
        return Err(Error::Newer { found: format, known: FORMAT });
    }
    let shards = u16::from_le_bytes(from.take().map_err(broken)?);
    let (mut table, mut rows) = (None, 0);
    loop {
        match from.take::<1>().map_err(broken)?[0] {
            TABLE => {
                let len = from.take::<1>().map_err(broken)?[0];
                let name = from.take_many(usize::from(len)).map_err(broken)?;
                table = Table::ALL.into_iter().find(|it| it.name().as_bytes() == name);
            }
            ROW => {
                let key_len = u16::from_le_bytes(from.take().map_err(broken)?);
                let len = u32::from_le_bytes(from.take().map_err(broken)?);
                let table = table.ok_or_else(|| Error::corrupt("a row of no known table"))?;
                if len > VALUE_BYTES_MAX {
                    return Err(Error::corrupt("a row is longer than rows are"));
                }
                let key = from.take_many(usize::from(key_len)).map_err(broken)?;
                row(table, key, from.take_many(len as usize).map_err(broken)?)?;
                rows += 1;
            }
            END => break,
            _ => return Err(Error::corrupt("the backup is damaged")),
        }
    }
    let told = u64::from_le_bytes(from.take().map_err(broken)?);
    let checksum = from.checksum.digest128();
    if told != rows || u128::from_le_bytes(from.take().map_err(broken)?) != checksum {
        return Err(Error::corrupt("the backup's checksum is wrong"));
    }
    if from.inner.read(&mut [0]).map_err(broken)? > 0 {
        return Err(Error::corrupt("something stands behind the backup's end"));
    }
    Ok((shards, rows))
}

fn broken(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::corrupt("the backup ends too early"),
        _ => Error::unavailable(error),
    }
}

/// Reads a backup through; how many rows it has.
///
/// # Errors
/// `Corrupt` when it is not as it was written.
pub fn check_backup(from: impl Read) -> Result<u64> {
    read_backup(from, &mut |_, _, _| Ok(())).map(|(_, rows)| rows)
}

/// Makes a store in an empty or new directory from a backup, which is checked before; how many
/// rows it has.
///
/// # Errors
/// `Corrupt` when the backup is damaged; `Unavailable` when the directory is in use.
pub fn restore(backup: &Path, folder: &Path, config: &Config) -> Result<u64> {
    let open = || std::fs::File::open(backup).map_err(|it| no_folder(backup, &it));
    let (shards, _) = read_backup(open()?, &mut |_, _, _| Ok(()))?;
    let places = Places::of(folder);
    if folder.join(RESTORING).exists() {
        let what =
            "holds what an earlier restore did not finish; remove it, or give a new directory";
        return Err(Error::Unavailable(format!("{} {what}", folder.display())));
    }
    if places.store.exists() || places.marks.exists() {
        let what = format!("{} has a store already; give a new directory", folder.display());
        return Err(Error::Unavailable(what));
    }
    let sign = folder.join(RESTORING);
    let failed = |it: io::Error| no_folder(&sign, &it);
    create_folder(folder).map_err(failed)?;
    std::fs::write(&sign, "").map_err(failed)?;
    let fjall = Fjall::open_restoring(folder, config, shards)?;
    let mut waiting = Vec::new();
    let (_, rows) = read_backup(open()?, &mut |table, key, value| {
        waiting.push((table, key, value));
        match waiting.len() {
            ROWS_AT_ONCE => write_rows(&fjall, &mut waiting),
            _ => Ok(()),
        }
    })?;
    write_rows(&fjall, &mut waiting)?;
    fjall.database().persist(PersistMode::SyncAll)?;
    for shard in (0..shards).map(ShardNo) {
        let Some(row) = fjall.get(Table::Meta, &shard.all())? else { continue };
        fjall.raise(shard, mark_of(&decode::<Meta>(&row)?))?;
    }
    drop(fjall);
    std::fs::remove_file(&sign).map_err(failed)?;
    Ok(rows)
}

fn write_rows(fjall: &Fjall, rows: &mut Vec<(Table, Vec<u8>, Vec<u8>)>) -> Result<()> {
    let mut batch = fjall.database().batch();
    for (table, key, value) in rows.drain(..) {
        batch.insert(fjall.keyspace(table), key, value);
    }
    Ok(batch.commit()?)
}

/// Refuses a directory into which a backup was only begun to be restored.
pub(super) fn refuse_half_restored(folder: &Path) -> Result<()> {
    if folder.join(RESTORING).exists() {
        let what = "a backup was not restored to its end; remove the directory and do it again";
        return Err(Error::Corrupt(format!("{}: {what}", folder.display())));
    }
    Ok(())
}
