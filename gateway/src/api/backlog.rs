//! How much of a stream fits into its tenant's backlog.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::ndjson::Line;
use crate::domain::Seq;
use crate::storage::Appended;

/// How long lines that may not fit wait for it to be known what those before them became.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What a stream has brought that may not be counted in the backlog yet.
#[derive(Debug, Default)]
pub(super) struct Brought {
    last: Seq,
    /// Deliveries that it becomes at most.
    deliveries: u64,
}

impl Brought {
    /// The lines that fit, each of which would be taken if it came alone, and those of which that
    /// is known when the first have become deliveries. Where nothing fits all are given back as if
    /// they did: they will be refused.
    pub(super) async fn fit(
        &mut self,
        gateway: &Gateway,
        access: &Access,
        mut lines: Vec<Line>,
    ) -> (Vec<Line>, Vec<Line>) {
        let Some((max, costs)) = costs(access, &lines) else { return (lines, Vec::new()) };
        if access.shard.fanned_out() >= self.last {
            self.deliveries = 0;
        }
        let sum = costs.iter().fold(0, |sum: u64, it| sum.saturating_add(*it));
        let waiting = || access.shard.tenant_backlog(&access.slug);
        if self.deliveries > 0 && waiting() + self.deliveries + sum > max {
            tokio::select! {
                _ = timeout(PATIENCE, self.is_counted(access)) => {}
                () = gateway.stopping() => {}
            }
            self.deliveries = 0;
        }
        let mut room = max.saturating_sub(waiting() + self.deliveries);
        if room == 0 {
            return (lines, Vec::new());
        }
        let fit = costs.iter().take_while(|it| {
            let fits = room > 0;
            room = room.saturating_sub(**it);
            self.deliveries += if fits { **it } else { 0 };
            fits
        });
        let later = lines.split_off(fit.count());
        (lines, later)
    }

    /// Waits until all that was brought is counted in the backlog.
    async fn is_counted(&self, access: &Access) {
        if access.shard.targets_known(self.last).await.is_ok() {
            // It may be on disk a moment before the queue has it.
            while access.shard.fanned_out() < self.last {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Notes what was stored.
    pub(super) fn note(&mut self, appended: &[Appended]) {
        let last = appended.iter().rev().find_map(|it| match it {
            Appended::New { seq, .. } => Some(*seq),
            _ => None,
        });
        self.last = last.unwrap_or(self.last);
    }
}

/// The tenant's limit, if it has one, and how many deliveries each line becomes at most.
fn costs(access: &Access, lines: &[Line]) -> Option<(u64, Vec<u64>)> {
    let catalog = access.shard.catalog();
    let tenant = catalog.tenant(&access.slug)?;
    let max = tenant.tenant.quota.backlog_max?;
    let cost =
        |(_, event): &Line| event.as_ref().map_or(0, |it| tenant.listeners(&it.event_type) as u64);
    Some((max, lines.iter().map(cost).collect()))
}
