//! A disk that forgets: a file system in memory that knows, byte for byte, what was synced. When
//! its power fails, what was not is gone, or is there in part, sector by sector.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fuser::{
    BackgroundSession, FileAttr, FileType, Filesystem, MountOption, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow,
};

const PAGE: usize = 4096;
const SECTOR: usize = 512;
const TTL: Duration = Duration::ZERO;
const ENOENT: i32 = 2;
const EIO: i32 = 5;
const EEXIST: i32 = 17;
const ENOTEMPTY: i32 = 39;
const ROOT: u64 = 1;

type Page = Box<[u8; PAGE]>;

/// A file: what is written, and what of it is synced.
#[derive(Default, Clone)]
struct Body {
    len: u64,
    pages: BTreeMap<u64, Page>,
    synced_len: u64,
    synced: BTreeMap<u64, Page>,
    dirty: BTreeSet<u64>,
}

#[derive(Clone)]
enum Node {
    File(Body),
    Folder { entries: BTreeMap<OsString, u64>, synced: BTreeMap<OsString, u64> },
}

#[derive(Default)]
struct State {
    nodes: BTreeMap<u64, Node>,
    last: u64,
    syncs: u64,
    /// From this sync or write on, each fails.
    failing: Option<Failing>,
}

/// What fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Every sync of a file.
    Sync,
    /// Every write.
    Write,
}

/// The disk. It outlives its mounts.
#[derive(Clone, Default)]
pub(crate) struct LossyDisk(Arc<Mutex<State>>);

impl LossyDisk {
    pub(crate) fn new() -> Self {
        let disk = Self::default();
        let root = Node::Folder { entries: BTreeMap::new(), synced: BTreeMap::new() };
        disk.lock().nodes.insert(ROOT, root);
        disk.lock().last = ROOT;
        disk
    }

    pub(crate) fn mount(&self, at: &Path) -> std::io::Result<BackgroundSession> {
        std::fs::create_dir_all(at)?;
        let options = [MountOption::FSName("lossy".to_owned())];
        fuser::spawn_mount2(self.clone(), at, &options)
    }

    pub(crate) fn fail(&self, failing: Option<Failing>) {
        self.lock().failing = failing;
    }

    /// How many syncs there were.
    pub(crate) fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// The power fails. Of the sectors that were not synced, those survive that chance picks with
    /// this probability; names survive if their folder was synced. The number of lost sectors.
    pub(crate) fn lose_power(&self, chance: &mut fastrand::Rng, surviving: f64) -> u64 {
        let mut state = self.lock();
        let mut lost = 0;
        for node in state.nodes.values_mut() {
            match node {
                Node::File(body) => lost += body.lose_power(chance, surviving),
                Node::Folder { entries, synced } => *entries = synced.clone(),
            }
        }
        state.failing = None;
        lost
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body {
    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = (offset + size as u64).min(self.len);
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        let mut at = offset;
        while at < end {
            let (page, within) = (at / PAGE as u64, at as usize % PAGE);
            let count = (PAGE - within).min((end - at) as usize);
            let to = (at - offset) as usize;
            if let Some(page) = self.pages.get(&page) {
                bytes[to..to + count].copy_from_slice(&page[within..within + count]);
            }
            at += count as u64;
        }
        bytes
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (page, within) = (at / PAGE as u64, at as usize % PAGE);
            let count = (PAGE - within).min(bytes.len() - done);
            let to = self.pages.entry(page).or_insert_with(|| Box::new([0; PAGE]));
            to[within..within + count].copy_from_slice(&bytes[done..done + count]);
            self.dirty.insert(page);
            done += count;
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }

    fn set_len(&mut self, len: u64) {
        if len < self.len {
            let gone = self.pages.split_off(&len.div_ceil(PAGE as u64));
            self.dirty.extend(gone.keys());
            if let Some(page) = self.pages.get_mut(&(len / PAGE as u64)) {
                page[len as usize % PAGE..].fill(0);
                self.dirty.insert(len / PAGE as u64);
            }
        }
        self.len = len;
    }

    fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            match self.pages.get(&page) {
                Some(bytes) => drop(self.synced.insert(page, bytes.clone())),
                None => drop(self.synced.remove(&page)),
            }
        }
        self.synced_len = self.len;
    }

    fn lose_power(&mut self, chance: &mut fastrand::Rng, surviving: f64) -> u64 {
        let mut lost = 0;
        for page in std::mem::take(&mut self.dirty) {
            let Some(new) = self.pages.get(&page) else { continue };
            let old = self.synced.get(&page).cloned();
            let mut mixed = old.unwrap_or_else(|| Box::new([0; PAGE]));
            for sector in 0..PAGE / SECTOR {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                if mixed[range.clone()] == new[range.clone()] {
                    continue;
                }
                match chance.f64() < surviving {
                    true => mixed[range.clone()].copy_from_slice(&new[range]),
                    false => lost += 1,
                }
            }
            self.synced.insert(page, mixed);
        }
        // The length may have got there before the bytes.
        let longer = self.len > self.synced_len && chance.f64() < surviving;
        self.synced_len = if longer { self.len } else { self.synced_len };
        self.len = self.synced_len;
        self.pages = self.synced.clone();
        let _beyond = self.pages.split_off(&self.len.div_ceil(PAGE as u64));
        lost
    }
}

impl State {
    fn attr(&self, ino: u64) -> Option<FileAttr> {
        let (kind, size) = match self.nodes.get(&ino)? {
            Node::File(body) => (FileType::RegularFile, body.len),
            Node::Folder { .. } => (FileType::Directory, 0),
        };
        let perm = if kind == FileType::Directory { 0o755 } else { 0o644 };
        let then = SystemTime::UNIX_EPOCH;
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: then,
            mtime: then,
            ctime: then,
            crtime: then,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        })
    }

    fn entries(&mut self, folder: u64) -> Option<&mut BTreeMap<OsString, u64>> {
        match self.nodes.get_mut(&folder)? {
            Node::Folder { entries, .. } => Some(entries),
            Node::File(_) => None,
        }
    }

    fn body(&mut self, ino: u64) -> Option<&mut Body> {
        match self.nodes.get_mut(&ino)? {
            Node::File(body) => Some(body),
            Node::Folder { .. } => None,
        }
    }

    fn add(&mut self, folder: u64, name: &OsStr, node: Node) -> Option<FileAttr> {
        self.last += 1;
        let ino = self.last;
        self.entries(folder)?.insert(name.to_owned(), ino);
        self.nodes.insert(ino, node);
        self.attr(ino)
    }

    fn remove(&mut self, folder: u64, name: &OsStr) -> Result<(), i32> {
        let ino = *self.entries(folder).and_then(|it| it.get(name)).ok_or(ENOENT)?;
        let filled = self.entries(ino).is_some_and(|it| !it.is_empty());
        if filled {
            return Err(ENOTEMPTY);
        }
        // The node stays: its name may come back when the power fails.
        self.entries(folder).and_then(|it| it.remove(name)).map(drop).ok_or(ENOENT)
    }
}

fn answer(outcome: Result<(), i32>, reply: ReplyEmpty) {
    match outcome {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for LossyDisk {
    fn lookup(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.lock();
        let ino = state.entries(parent).and_then(|it| it.get(name).copied());
        match ino.and_then(|it| state.attr(it)) {
            Some(attr) => reply.entry(&TTL, &attr, 0),
            None => reply.error(ENOENT),
        }
    }

    fn getattr(&mut self, _: &Request<'_>, ino: u64, _: Option<u64>, reply: ReplyAttr) {
        match self.lock().attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(ENOENT),
        }
    }

    fn setattr(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<u64>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<u32>,
        reply: ReplyAttr,
    ) {
        let mut state = self.lock();
        if let (Some(size), Some(body)) = (size, state.body(ino)) {
            body.set_len(size);
        }
        match state.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(ENOENT),
        }
    }

    fn mkdir(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let mut state = self.lock();
        if state.entries(parent).is_some_and(|it| it.contains_key(name)) {
            return reply.error(EEXIST);
        }
        let node = Node::Folder { entries: BTreeMap::new(), synced: BTreeMap::new() };
        match state.add(parent, name, node) {
            Some(attr) => reply.entry(&TTL, &attr, 0),
            None => reply.error(ENOENT),
        }
    }

    fn unlink(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer(self.lock().remove(parent, name), reply);
    }

    fn rmdir(&mut self, _: &Request<'_>, parent: u64, name: &OsStr, reply: ReplyEmpty) {
        answer(self.lock().remove(parent, name), reply);
    }

    fn rename(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        to: u64,
        new_name: &OsStr,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.lock();
        let Some(ino) = state.entries(parent).and_then(|it| it.remove(name)) else {
            return reply.error(ENOENT);
        };
        state.entries(to).map(|it| it.insert(new_name.to_owned(), ino));
        reply.ok();
    }

    fn open(&mut self, _: &Request<'_>, _: u64, _: i32, reply: ReplyOpen) {
        reply.opened(0, 0);
    }

    fn create(
        &mut self,
        _: &Request<'_>,
        parent: u64,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.lock().add(parent, name, Node::File(Body::default())) {
            Some(attr) => reply.created(&TTL, &attr, 0, 0, 0),
            None => reply.error(ENOENT),
        }
    }

    fn read(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        size: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyData,
    ) {
        match self.lock().body(ino) {
            Some(body) => reply.data(&body.read(offset as u64, size as usize)),
            None => reply.error(ENOENT),
        }
    }

    fn write(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        data: &[u8],
        _: u32,
        _: i32,
        _: Option<u64>,
        reply: ReplyWrite,
    ) {
        let mut state = self.lock();
        if state.failing == Some(Failing::Write) {
            return reply.error(EIO);
        }
        match state.body(ino) {
            Some(body) => {
                body.write(offset as u64, data);
                reply.written(data.len() as u32);
            }
            None => reply.error(ENOENT),
        }
    }

    fn fsync(&mut self, _: &Request<'_>, ino: u64, _: u64, _: bool, reply: ReplyEmpty) {
        let mut state = self.lock();
        state.syncs += 1;
        if state.failing == Some(Failing::Sync) {
            return reply.error(EIO);
        }
        match state.body(ino) {
            Some(body) => {
                body.sync();
                reply.ok();
            }
            None => reply.error(ENOENT),
        }
    }

    fn fsyncdir(&mut self, _: &Request<'_>, ino: u64, _: u64, _: bool, reply: ReplyEmpty) {
        match self.lock().nodes.get_mut(&ino) {
            Some(Node::Folder { entries, synced }) => {
                *synced = entries.clone();
                reply.ok();
            }
            _ => reply.error(ENOENT),
        }
    }

    fn readdir(
        &mut self,
        _: &Request<'_>,
        ino: u64,
        _: u64,
        offset: i64,
        mut reply: ReplyDirectory,
    ) {
        let mut state = self.lock();
        let Some(entries) = state.entries(ino).cloned() else { return reply.error(ENOENT) };
        for (place, (name, ino)) in entries.iter().enumerate().skip(offset as usize) {
            let folder = matches!(state.nodes[ino], Node::Folder { .. });
            let kind = if folder { FileType::Directory } else { FileType::RegularFile };
            if reply.add(*ino, place as i64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&mut self, _: &Request<'_>, _: u64, reply: ReplyStatfs) {
        let blocks = 1 << 24;
        reply.statfs(blocks, blocks, blocks, blocks, blocks, 512, 255, 512);
    }
}
