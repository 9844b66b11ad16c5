//! Memory that nobody uses any more is given back, also by a process at rest.
//!
//! mimalloc keeps a page for the thread that took it. What other threads have freed of it is
//! looked at when that thread asks for memory and finds none, and of all its pages once in 10,000
//! such asks (`generic_collect`). What is empty for a second goes back to the system when more is
//! asked for than there is at hand. A thread at rest never asks: what a burst left would stay.

use std::{hint::black_box, time::Duration};

use tokio::{runtime::Handle, task::JoinSet};

/// How often each thread of a runtime asks.
const EVERY: Duration = Duration::from_secs(5);
/// After so many a thread looks at all its pages. Together they take it 0.2 ms.
const ASKS: u32 = 10_000;
/// More than the allocator has lists of free blocks for, which it would take from without looking.
const ASKED_BYTES: usize = 2 * 1024;
/// More than there is at hand.
const LARGE_BYTES: usize = 1024 * 1024;

/// Has the allocator give the system back what is empty by now.
pub fn return_empty_pages() {
    drop(black_box(Vec::<u8>::with_capacity(LARGE_BYTES)));
}

/// Has the threads of a runtime, which may be at rest, look now and then at what others have
/// freed of their memory.
pub async fn keep_small(runtime: Handle) {
    loop {
        tokio::time::sleep(EVERY).await;
        on_each_thread(&runtime, look_at_freed).await;
    }
}

/// Runs this on about every thread of a runtime: one that is busy, or quick, may leave its turn to
/// another, or take another's.
async fn on_each_thread(runtime: &Handle, work: fn()) {
    let mut working = JoinSet::new();
    for _ in 0..2 * runtime.metrics().num_workers() {
        working.spawn_on(async move { work() }, runtime);
    }
    while working.join_next().await.is_some() {}
}

fn look_at_freed() {
    for _ in 0..ASKS {
        drop(black_box(Vec::<u8>::with_capacity(ASKED_BYTES)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    const THREADS: usize = 3;
    const PATIENCE: Duration = Duration::from_secs(5);

    /// Holds its thread until as many are held as there are.
    fn meet() {
        static MET: Mutex<usize> = Mutex::new(0);
        static CAME: Condvar = Condvar::new();
        let mut met = MET.lock().unwrap();
        *met += 1;
        CAME.notify_all();
        let _met = CAME.wait_timeout_while(met, 2 * PATIENCE, |it| *it < THREADS).unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn each_thread_at_rest_gets_a_turn() {
        look_at_freed();
        let here = Handle::current();
        tokio::time::timeout(PATIENCE, on_each_thread(&here, meet)).await.expect("they met");
    }
}
