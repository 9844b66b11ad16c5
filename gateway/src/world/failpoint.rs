//! Named points at which a test build can be told to die, as if the power switch of its process
//! had been thrown there, or to go wrong. An ordinary build has nothing in their place.

/// Whether `HOOKGATE_FAILPOINT=name:n` means this point, which is come by for the n-th time.
#[cfg(feature = "failpoints")]
fn is_meant(name: &str) -> bool {
    use std::sync::{OnceLock, atomic::AtomicU64, atomic::Ordering};

    static ARMED: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static REACHED: AtomicU64 = AtomicU64::new(0);
    let armed = ARMED.get_or_init(|| {
        let text = std::env::var("HOOKGATE_FAILPOINT").ok()?;
        let (name, count) = text.split_once(':')?;
        Some((name.to_owned(), count.parse().ok()?))
    });
    let Some((armed, count)) = armed else { return false };
    armed == name && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
}

/// Dies here, if `HOOKGATE_FAILPOINT=name:n` says so, when it comes by for the n-th time.
#[cfg(feature = "failpoints")]
pub fn reach(name: &str) {
    if is_meant(name) {
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

/// Whether what follows is to be forgotten, as a fault of ours might: once, if
/// `HOOKGATE_FAILPOINT=name:n` says so, when it comes by for the n-th time.
#[cfg(feature = "failpoints")]
pub fn forgets(name: &str) -> bool {
    is_meant(name)
}

/// Forgets nothing: this build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn forgets(_name: &str) -> bool {
    false
}
