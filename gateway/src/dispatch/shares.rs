use crate::dispatch::Config;
use crate::domain::Claim;

/// How many attempts may be in flight, in all and of each kind, so that none crowds out another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shares {
    /// In all.
    pub(super) total: usize,
    /// Bytes of events in all.
    pub(super) bytes: usize,
    /// One tenant's.
    pub(super) tenant: usize,
    /// Bytes of one tenant's events.
    pub(super) tenant_bytes: usize,
    /// Those of endpoints that fail, are slow or are not known yet.
    pub(super) doubtful: usize,
    /// One tenant's of these.
    pub(super) tenant_doubtful: usize,
    /// Retries.
    pub(super) retries: usize,
    /// Replays and redrives.
    pub(super) bulk: usize,
}

impl Shares {
    pub(super) fn new(config: &Config) -> Self {
        let total = config.in_flight_max.max(1);
        let share = |percent: usize| (total * percent.min(100) / 100).max(1);
        let bytes = config.in_flight_bytes_max.max(1);
        let tenant_percent = config.tenant_percent.min(100);
        Self {
            total,
            bytes,
            tenant: share(tenant_percent),
            tenant_bytes: (bytes * tenant_percent / 100).max(1),
            doubtful: share(config.doubtful_percent),
            tenant_doubtful: (share(config.doubtful_percent) * tenant_percent / 100).max(1),
            retries: share(config.retry_percent),
            bulk: share(config.bulk_percent),
        }
    }
}

/// What is in flight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct InFlight {
    pub(super) total: usize,
    pub(super) bytes: usize,
    pub(super) doubtful: usize,
    pub(super) retries: usize,
    pub(super) bulk: usize,
}

impl InFlight {
    pub(super) fn add(&mut self, share: Claim, bytes: usize) {
        self.total += 1;
        self.bytes += bytes;
        match share {
            Claim::Retry => self.retries += 1,
            Claim::Bulk => self.bulk += 1,
            Claim::First | Claim::Asked => {}
        }
    }

    pub(super) fn remove(&mut self, share: Claim, bytes: usize) {
        self.total = self.total.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        match share {
            Claim::Retry => self.retries = self.retries.saturating_sub(1),
            Claim::Bulk => self.bulk = self.bulk.saturating_sub(1),
            Claim::First | Claim::Asked => {}
        }
    }
}
