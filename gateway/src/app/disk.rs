use std::{path::PathBuf, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::telemetry::STORE_FREE;

/// Looking is one cheap call; between two looks a fast producer can write a good deal: 40 MiB, what
/// is kept of a disk of 200, in less than half a second.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// From this share of free space on, no events are taken; what was taken is still delivered.
const FREE_MIN: f64 = 0.05;
/// On a small disk a twentieth is not enough for what the store writes by itself: this much is
/// kept, or a fifth of the disk.
const FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// On a large disk a small share is still plenty.
const FREE_BYTES_PLENTY: u64 = 2 * 1024 * 1024 * 1024;

const FULL: &str = "the disk is nearly full";

/// Watches the space that is left, and takes the gateway out of service before it is gone.
pub(super) async fn watch_space(
    folder: PathBuf,
    unready: watch::Sender<Option<&'static str>>,
    stopping: CancellationToken,
) {
    loop {
        let full = is_nearly_full(&folder);
        unready.send_if_modified(|reason| match (*reason, full) {
            (None, true) => {
                tracing::error!(folder = %folder.display(), "{FULL}; events are refused");
                *reason = Some(FULL);
                true
            }
            (Some(FULL), false) => {
                *reason = None;
                true
            }
            _ => false,
        });
        tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn is_nearly_full(folder: &std::path::Path) -> bool {
    let Ok(space) = rustix::fs::statvfs(folder) else { return false };
    let free = space.f_bavail * space.f_frsize;
    STORE_FREE.show(free as f64, &[]);
    let all = space.f_blocks * space.f_frsize;
    let kept = (all as f64 * FREE_MIN) as u64;
    free < kept.max(FREE_BYTES_MIN.min(all / 5)).min(FREE_BYTES_PLENTY)
}
