use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::domain::Timestamp;

/// Tells the wall-clock time. To wait, use `tokio::time`.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;
}

/// The clock of the machine.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Timestamp(0) + since_epoch.unwrap_or(Duration::ZERO)
    }
}

/// A clock that follows tokio's, so that pausing or advancing tokio moves wall time too.
#[derive(Debug)]
pub struct SimClock {
    epoch: Timestamp,
    started: Instant,
}

impl SimClock {
    /// Shows `epoch` now.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { epoch, started: tokio_now() }
    }
}

fn tokio_now() -> Instant {
    Instant::now()
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }
}
