//! Reads through, while the gateway runs, what was too much to read before it started.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::sync::watch;

use crate::storage::fjall::manifest::Sealed;
use crate::storage::{Error, Result};

/// Read in a second at most, so that events and deliveries have the disk.
const BYTES_PER_SECOND: u64 = 64 * 1024 * 1024;

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Scrub {
    stopping: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Scrub {
    /// Starts reading; what is not as it was written goes to `damage`.
    pub(super) fn start(files: Vec<Sealed>, damage: watch::Sender<Option<Error>>) -> Result<Self> {
        let stopping = Arc::new((Mutex::new(false), Condvar::new()));
        let seen = stopping.clone();
        let thread = std::thread::Builder::new().name("scrub".into());
        let thread = match files.is_empty() {
            true => None,
            false => Some(thread.spawn(move || read_through(&files, &damage, &seen))),
        };
        Ok(Self { stopping, thread: thread.transpose().map_err(Error::unavailable)? })
    }
}

impl Drop for Scrub {
    fn drop(&mut self) {
        *self.stopping.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stopping.1.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic in there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

fn read_through(
    files: &[Sealed],
    damage: &watch::Sender<Option<Error>>,
    stopping: &(Mutex<bool>, Condvar),
) {
    for file in files {
        let pause = Duration::from_secs_f64(file.bytes() as f64 / BYTES_PER_SECOND as f64);
        match file.is_intact() {
            Ok(true) => {}
            Ok(false) => {
                let what = format!("{}: its checksum is wrong", file.path.display());
                tracing::error!("{what}");
                damage.send_replace(Some(Error::Corrupt(what)));
                return;
            }
            // Compaction has replaced it meanwhile, or there is a passing fault.
            Err(error) => tracing::debug!(file = %file.path.display(), %error, "not read"),
        }
        let stop = stopping.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stop = stopping.1.wait_timeout_while(stop, pause, |it| !*it);
        if *stop.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
    }
    tracing::info!(files = files.len(), "the store has been read through and is whole");
}
