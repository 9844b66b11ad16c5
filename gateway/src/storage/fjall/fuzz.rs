//! Whatever stands in the store's files, reading them ends in a value or in the place of the
//! damage.

use std::fs;

use crate::storage::fjall::backup::check_backup;
use crate::storage::fjall::high_water::{HighWater, Mark, read_marks};
use crate::storage::fjall::journal_file::JournalFile;
use crate::storage::fjall::manifest;

/// A file of marks.
pub fn marks(bytes: &[u8]) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("high-water");
    fs::write(&path, bytes).expect("a file");
    for shards in [1, 2] {
        read_marks(&path, shards).expect("it can be opened");
    }
}

/// Files of one shard and of two.
pub fn marks_seeds() -> Vec<Vec<u8>> {
    let file = |marks: &[Mark]| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("high-water");
        drop(HighWater::create(&path, marks).expect("a file"));
        fs::read(path).expect("a file")
    };
    let mark = |lsn| Mark { lsn, chain: 7, last_seq: lsn };
    vec![file(&[mark(1)]), file(&[mark(1), mark(2)])]
}

/// A journal, and a keyspace's list of files.
pub fn files(bytes: &[u8]) {
    let journal = JournalFile::parse(bytes.to_vec());
    let _ = journal.is_torn();
    for item in journal.batches.iter().flat_map(|it| &it.items) {
        let _ = (journal.key(item), journal.value(item));
    }
    // Behind a checksum over the whole file, so its sections are what is looked at here.
    if let Some(all) = manifest::tables(bytes) {
        let kept = manifest::without_tables(bytes, |it| it % 2 == 0);
        let expected = all.into_iter().filter(|(id, _)| id % 2 != 0);
        assert_eq!(manifest::tables(&kept), Some(expected.collect()));
    }
    if let Some(all) = manifest::blobs(bytes) {
        let kept = manifest::without_blobs(bytes, |it| it % 2 == 0);
        let expected = all.into_iter().filter(|(id, _)| id % 2 != 0);
        assert_eq!(manifest::blobs(&kept), Some(expected.collect()));
    }
    let _ = (manifest::without_tables(bytes, |_| false), manifest::without_blobs(bytes, |_| true));
}

/// The files of a store that has seen a batch.
pub fn files_seeds() -> Vec<Vec<u8>> {
    let folder = tempfile::tempdir().expect("a folder");
    let open = || ::fjall::Database::builder(folder.path()).open().expect("a store");
    {
        let database = open();
        let options = ::fjall::KeyspaceCreateOptions::default;
        let keyspace = database.keyspace("events", options).expect("a keyspace");
        keyspace.insert("key", "value").expect("a row");
    }
    let mut seeds = Vec::new();
    let mut folders = vec![folder.path().to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            match path.is_dir() {
                true => folders.push(path),
                false => seeds.push(fs::read(path).expect("a file")),
            }
        }
    }
    seeds.retain(|it| (1..64 * 1024).contains(&it.len()));
    // A level with a run of two tables; three blobs.
    seeds.push([&[1, 1, 2, 0, 0, 0][..], &[7; 66]].concat());
    seeds.push([&[3, 0, 0, 0][..], &[8; 75]].concat());
    seeds
}

/// A backup.
pub fn backup(bytes: &[u8]) {
    let _ = check_backup(bytes);
}

/// The head of one, with a table.
pub fn backup_seeds() -> Vec<Vec<u8>> {
    vec![b"HGBK\x01\0\0\0\x01\0\x01\x04meta".to_vec()]
}
