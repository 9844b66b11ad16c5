use std::{collections::BTreeMap, ops::Bound, sync::PoisonError};

use serde::{Deserialize, Serialize};

use crate::domain::{Breaker, EndpointNo, Health, Timestamp};
use crate::storage::codec::decode;
use crate::storage::journal::View;
use crate::storage::keys::{ShardNo, u32_at};
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::writer::Command;
use crate::storage::{Result, Table};

/// An endpoint's health on disk.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct HealthRow {
    open: bool,
    trips: u32,
    probe_at: Option<u64>,
    failures: u32,
    failing_since: Option<u64>,
    warnings: u8,
    paused_until: Option<u64>,
}

impl From<&Health> for HealthRow {
    fn from(it: &Health) -> Self {
        Self {
            open: it.breaker != Breaker::Closed,
            trips: it.trips,
            probe_at: it.probe_at.map(|it| it.0),
            failures: it.failures,
            failing_since: it.failing_since.map(|it| it.0),
            warnings: it.warnings,
            paused_until: it.paused_until.map(|it| it.0),
        }
    }
}

impl HealthRow {
    fn into_noun(self) -> Health {
        Health {
            breaker: if self.open { Breaker::Open } else { Breaker::Closed },
            trips: self.trips,
            probe_at: self.probe_at.map(Timestamp),
            failures: self.failures,
            failing_since: self.failing_since.map(Timestamp),
            warnings: self.warnings,
            paused_until: self.paused_until.map(Timestamp),
            slowed_until: None,
        }
    }
}

/// Reads what is remembered of endpoints that are not well.
pub(super) fn load(view: &dyn View, shard: ShardNo) -> Result<BTreeMap<EndpointNo, Health>> {
    let (from, to) = (shard.all(), shard.end());
    let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
    let read = |row: Result<(bytes::Bytes, bytes::Bytes)>| {
        let (key, value) = row?;
        let health: HealthRow = decode(&value)?;
        Ok((EndpointNo(u32_at(&key, 0)?), health.into_noun()))
    };
    view.range(Table::Health, range.0, range.1).map(read).collect()
}

/// Whether an endpoint is left alone for a while, so that nothing of it is overdue.
pub(super) fn rests(health: &Health, now: Timestamp) -> bool {
    health.breaker == Breaker::Open || health.paused_until.is_some_and(|at| at > now)
}

impl Shard {
    /// How an endpoint does; one of which nothing is known is well.
    pub fn health(&self, endpoint: EndpointNo) -> Health {
        self.healths().get(&endpoint).copied().unwrap_or_default()
    }

    /// All endpoints that are not well.
    pub fn unwell(&self) -> Vec<(EndpointNo, Health)> {
        self.healths().iter().map(|(no, health)| (*no, *health)).collect()
    }

    /// Endpoints whose breaker is not closed, of those that there are.
    pub fn breakers_open(&self) -> u64 {
        let open: Vec<_> = {
            let healths = self.healths();
            let open = healths.iter().filter(|(_, it)| it.breaker != Breaker::Closed);
            open.map(|(no, _)| *no).collect()
        };
        // An attempt that ends after its endpoint may leave a health behind.
        let catalog = self.catalog();
        open.into_iter().filter(|it| catalog.endpoint(*it).is_some()).count() as u64
    }

    /// Shows how an endpoint does from now on; `None`: it is well. What should survive a restart
    /// is also written down. While it `rests`, its deliveries are not overdue.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn note_health(
        &self,
        endpoint: EndpointNo,
        health: Option<Health>,
        keep: bool,
    ) -> Result<()> {
        self.show_health(endpoint, health);
        if keep {
            // What is slow and nothing else is well after a restart.
            let kept = health.map(|it| Health { slowed_until: None, ..it });
            let kept = kept.filter(|it| *it != Health::default());
            let health = kept.as_ref().map(HealthRow::from);
            let record = Record::HealthNoted { endpoint: endpoint.0, health };
            self.send(Command::Note { record, leased: false }).await?;
        }
        Ok(())
    }

    /// Shows how an endpoint does, without writing it down.
    pub fn show_health(&self, endpoint: EndpointNo, health: Option<Health>) {
        let resting = health.is_some_and(|it| rests(&it, self.clock.now()));
        self.queue().rest(endpoint, resting);
        let mut healths = self.healths();
        match health {
            Some(health) => drop(healths.insert(endpoint, health)),
            None => drop(healths.remove(&endpoint)),
        }
    }

    pub(super) fn healths(&self) -> std::sync::MutexGuard<'_, BTreeMap<EndpointNo, Health>> {
        self.healths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
