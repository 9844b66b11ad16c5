//! Withdrawing what waits for an attempt, and how it stands then.

use std::{ops::Bound, sync::Arc};

use crate::domain::{Claim, DeliveryKey, DeliveryState, Replay, Seq, Timestamp, Trigger, Verdict};
use crate::storage::codec::decode;
use crate::storage::history_row::{Entry, trigger_code};
use crate::storage::keys::retry_at;
use crate::storage::lend::Lease;
use crate::storage::record::{Record, RetryRow};
use crate::storage::shard::Shard;
use crate::storage::taken::Taken;
use crate::storage::waiting::Due;
use crate::storage::{Result, Table};

impl Shard {
    /// Withdraws a delivery because somebody asked to, and writes down who did.
    ///
    /// # Errors
    /// When the store has stopped.
    pub(super) async fn call_off(&self, lease: Lease, audited: Record) -> Result<()> {
        let cancelled = Entry::Cancelled { at: self.clock.now() };
        self.call_off_many(vec![(lease, cancelled)], vec![audited]).await
    }

    /// Withdraws deliveries, each with what follows, in one batch with these records.
    ///
    /// # Errors
    /// When the store has stopped.
    pub(super) async fn call_off_many(
        &self,
        leases: Vec<(Lease, Entry)>,
        also: Vec<Record>,
    ) -> Result<()> {
        let records = leases.iter().map(|(lease, entry)| lease.record(entry, None));
        self.commit_as(records.chain(also).collect(), true).await?;
        leases.into_iter().for_each(|(mut lease, _)| lease.settled = true);
        Ok(())
    }

    /// Takes out what a replay set off and nobody has attempted since, each with how it stands
    /// then.
    pub(super) fn called_off(self: &Arc<Self>, replay: &Replay) -> Result<Vec<(Lease, Entry)>> {
        let endpoint = replay.endpoint_no;
        let share = RetryRow::of(Claim::Bulk).share;
        let place = |due, seq| self.no.retry(share, due, DeliveryKey { seq, endpoint });
        let from = place(replay.created_at, Seq(0));
        let to = place(replay.updated_at, Seq(u64::MAX));
        let at = self.clock.now();
        // What ends meanwhile is in the view before it leaves the queue.
        let mut queue = self.queue();
        let mut found = Vec::new();
        // All is read before anything is taken out.
        for row in self.view.range(Table::Retries, Bound::Included(&from), Bound::Included(&to)) {
            let (key, row) = row?;
            let (_, due, key) = retry_at(&key)?;
            let row: RetryRow = decode(&row)?;
            let its_own = row.trigger == trigger_code(Trigger::Replay)
                && row.round == 0
                && (replay.first..=replay.last).contains(&key.seq);
            let Some(event) = its_own.then(|| self.event(key.seq)).transpose()?.flatten() else {
                continue;
            };
            let before = self.history(key)?.iter().rev().nth(1).map(Entry::state);
            let waits = Taken::Due(Due { due, seq: key.seq, row });
            found.push((waits, event, stands_again(before, at)));
        }
        let leases = found.into_iter().filter_map(|(waits, event, stands)| {
            let taken = queue.call_off(endpoint, waits)?;
            Some((self.lend(endpoint, taken, event), stands))
        });
        Ok(leases.collect())
    }
}

/// What follows when what was asked for is withdrawn; an endpoint that had never got it does not.
fn stands_again(before: Option<DeliveryState>, at: Timestamp) -> Entry {
    match before {
        Some(DeliveryState::Delivered) => Entry::Restored { at, verdict: Verdict::Delivered },
        Some(DeliveryState::Filtered { reason }) => {
            Entry::Restored { at, verdict: Verdict::Filtered(reason) }
        }
        Some(DeliveryState::Dead { reason }) => Entry::GivenUp { at, reason },
        _ => Entry::Cancelled { at },
    }
}
