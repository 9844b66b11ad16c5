//! Named points at which a test build can be told to die, as if the power switch of its process
//! had been thrown there. An ordinary build has nothing in their place.

/// Dies here, if `HOOKGATE_FAILPOINT=name:n` says so, when it comes by for the n-th time.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    use std::sync::{OnceLock, atomic::AtomicU64, atomic::Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("HOOKGATE_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let Some((armed, count)) = armed else { return };
    if armed == name && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        let this = rustix::process::getpid();
        // Nothing is unwound, flushed or said: that is the point.
        let _ = rustix::process::kill_process(this, rustix::process::Signal::KILL);
        loop {
            std::thread::park();
        }
    }
}

/// Does nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn reach(_name: &str) {}
