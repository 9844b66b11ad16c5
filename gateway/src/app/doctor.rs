//! Looks at the machine before somebody has to: each finding says what to do about it.

use std::{
    fs::File,
    io::{self, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use crate::app::descriptors::files_max;
use crate::app::{Config, master_key};
use crate::domain::Timestamp;
use crate::world::{Clock, SystemClock};

/// Syncs that are timed, and how much each writes.
const SYNCS: usize = 32;
const SYNC_BYTES: usize = 4096;
/// From then on acknowledgements are slow, and from then on something is wrong.
const SYNC_SLOW: Duration = Duration::from_millis(20);
const SYNC_BAD: Duration = Duration::from_millis(500);
const FREE_LOW: u64 = 1024 * 1024 * 1024;
const FREE_BAD: u64 = 64 * 1024 * 1024;
const FILES_LOW: usize = 8192;
const FILES_BAD: usize = 1024;
const SKEW_MAX_SECONDS: u64 = 5;
/// 2026-01-01: a clock before is not set.
const BUILT_AFTER: Timestamp = Timestamp(1_767_225_600_000);
const DNS_PATIENCE: Duration = Duration::from_secs(5);

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// All is well.
    Good,
    /// It works, but not as it should.
    Warning,
    /// It will not work.
    Bad,
}

impl State {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it is to be taken.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do; `None` where nothing is to be done.
    pub remedy: Option<&'static str>,
}

impl Finding {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, state: State::Good, found: found.into(), remedy: None }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self { name, state: State::Warning, found: found.into(), remedy: Some(remedy) }
    }

    fn bad(name: &'static str, found: impl Into<String>, remedy: &'static str) -> Self {
        Self { name, state: State::Bad, found: found.into(), remedy: Some(remedy) }
    }

    fn worse(
        name: &'static str,
        (bad, warning): (bool, bool),
        found: String,
        remedy: &'static str,
    ) -> Self {
        match (bad, warning) {
            (true, _) => Self::bad(name, found, remedy),
            (false, true) => Self::warning(name, found, remedy),
            (false, false) => Self::good(name, found),
        }
    }
}

/// Looks at everything that this configuration needs. `resolve` is a name to look up; `served_at`
/// is what a server that was asked says the time is.
pub async fn examine(config: &Config, resolve: &str, served_at: Option<Timestamp>) -> Vec<Finding> {
    let folder = existing(&config.data_dir);
    vec![
        port(config),
        data_dir(&config.data_dir),
        key(config),
        space(&folder),
        syncs(&folder),
        clock(served_at),
        names(resolve).await,
        egress(config),
        files(),
    ]
}

/// The data directory, or of those it will lie in the first that exists.
fn existing(folder: &Path) -> PathBuf {
    let found = folder.ancestors().find(|it| it.is_dir());
    found.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn data_dir(folder: &Path) -> Finding {
    let shown = folder.display();
    match folder.metadata() {
        Ok(it) if it.is_dir() => Finding::good("data directory", format!("{shown} is there")),
        Ok(_) => {
            let remedy = "choose a folder with --data-dir";
            Finding::bad("data directory", format!("{shown} is no folder"), remedy)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::good("data directory", format!("{shown} will be made"))
        }
        Err(error) => {
            let remedy = "let the gateway's user read and write it";
            Finding::bad("data directory", format!("{shown}: {error}"), remedy)
        }
    }
}

fn key(config: &Config) -> Finding {
    let remedy = "set HOOKGATE_MASTER_KEY_FILE (or HOOKGATE_MASTER_KEY) to the key that the store \
                  was made with; a new store makes one";
    match master_key::look(config) {
        Ok(found) => Finding::good("master key", found),
        Err(error) => Finding::bad("master key", error.to_string(), remedy),
    }
}

fn port(config: &Config) -> Finding {
    match TcpListener::bind(config.listen) {
        Ok(_) => Finding::good("port", format!("{} is free", config.listen)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Finding::warning(
            "port",
            format!("{} is in use", config.listen),
            "if that is the gateway itself, all is well; else choose another with --listen",
        ),
        Err(error) => Finding::bad(
            "port",
            format!("{}: {error}", config.listen),
            "choose an address of this machine and a port above 1023 with --listen",
        ),
    }
}

fn space(folder: &Path) -> Finding {
    let remedy = "make the volume larger, or put the store elsewhere with --data-dir; from 5 % of \
                  free space on no events are taken";
    let space = match rustix::fs::statvfs(folder) {
        Ok(space) => space,
        Err(error) => {
            return Finding::bad("disk space", format!("{}: {error}", folder.display()), remedy);
        }
    };
    let (free, all) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let mib = free / 1024 / 1024;
    let found = format!("{mib} MiB free at {}", folder.display());
    let low = free < FREE_LOW || free < all / 10;
    Finding::worse("disk space", (free < FREE_BAD.min(all / 5), low), found, remedy)
}

fn syncs(folder: &Path) -> Finding {
    let remedy = "each acknowledgement waits for a sync: put the store on a local disk of its own";
    let timed = tempfile::tempfile_in(folder).and_then(|file| time_syncs(&file));
    match timed {
        Ok([half, most]) => {
            let found = format!("{half:.1?} for half of the syncs, {most:.1?} for the slowest");
            Finding::worse("fsync", (half > SYNC_BAD, half > SYNC_SLOW), found, remedy)
        }
        Err(error) => Finding::bad(
            "fsync",
            format!("{}: {error}", folder.display()),
            "let the user that runs the gateway write to the data directory",
        ),
    }
}

fn time_syncs(mut file: &File) -> io::Result<[Duration; 2]> {
    let mut times = Vec::with_capacity(SYNCS);
    for _ in 0..SYNCS {
        let started = Instant::now();
        file.write_all(&[7; SYNC_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    times.sort();
    Ok([times[SYNCS / 2], times[SYNCS - 1]])
}

fn clock(served_at: Option<Timestamp>) -> Finding {
    let remedy = "switch time synchronisation on (chrony, systemd-timesyncd): receivers refuse \
                  signatures that are minutes old";
    let now = SystemClock.now();
    if now < BUILT_AFTER {
        return Finding::bad("clock", format!("it shows {now}"), remedy);
    }
    match served_at {
        Some(other) => {
            let apart = now.0.abs_diff(other.0) / 1000;
            let found = format!("{apart} s from the server's");
            Finding::worse("clock", (false, apart > SKEW_MAX_SECONDS), found, remedy)
        }
        None => Finding::good("clock", format!("{now}, compared with nobody's")),
    }
}

async fn names(name: &str) -> Finding {
    let remedy = "look at /etc/resolv.conf and at what the firewall lets through to it; with an \
                  egress_proxy that is trusted, the proxy looks names up";
    let started = Instant::now();
    let found = tokio::time::timeout(DNS_PATIENCE, tokio::net::lookup_host((name, 443))).await;
    let took = started.elapsed();
    match found {
        Ok(Ok(addresses)) => {
            let count = addresses.count();
            Finding::good("DNS", format!("{name} has {count} addresses, in {took:.1?}"))
        }
        Ok(Err(error)) => Finding::warning("DNS", format!("{name}: {error}"), remedy),
        Err(_) => Finding::warning("DNS", format!("{name}: no answer in {took:.1?}"), remedy),
    }
}

fn egress(config: &Config) -> Finding {
    let policy = &config.egress;
    let found = match (policy.allow_private, policy.allowed.len()) {
        (true, _) => "deliveries may go to private addresses".to_owned(),
        (false, 0) => "deliveries may go to public addresses only".to_owned(),
        (false, count) => format!("deliveries may go to public addresses and {count} networks"),
    };
    let exposed = policy.allow_private && !config.listen.ip().is_loopback();
    Finding::worse(
        "private addresses",
        (false, exposed),
        found,
        "tenants reach whatever this machine reaches: name networks with allow_cidr instead",
    )
}

fn files() -> Finding {
    let most = files_max();
    Finding::worse(
        "open files",
        (most < FILES_BAD, most < FILES_LOW),
        format!("{most} at most"),
        "raise it (LimitNOFILE= of the unit, ulimit -n): each connection in or out takes one",
    )
}
