//! What people ask for: another attempt of a delivery, or of many, or none ever again.

use std::{ops::Bound, sync::Arc, time::Duration};

use crate::domain::{
    Claim, DeliveryKey, DeliveryState, Event, TenantNo, Timestamp, Trigger, delivery_id,
};
use crate::storage::audit::{Change, Noun};
use crate::storage::codec::decode;
use crate::storage::history_row::{Entry, encode_entry, reason_code, trigger_code};
use crate::storage::keys::retry_at;
use crate::storage::record::{HistoryRecord, Record, RetryRow, WAITING_SHARES};
use crate::storage::shard::Shard;
use crate::storage::taken::{Fresh, OrderingKey, Taken};
use crate::storage::under_way::Wish;
use crate::storage::waiting::Due;
use crate::storage::{Error, Result, Table};

/// Deliveries that are asked for again in one batch.
const BATCH_MAX: usize = 500;
/// How soon what follows an attempt is looked for again.
const WRITTEN_WITHIN: Duration = Duration::from_millis(5);

impl Shard {
    /// Asks for another attempt of one delivery now, whatever became of it; somebody waits for
    /// it, so it goes before all others. Where one is under way, another follows it unless it
    /// delivers. False: one is coming anyway.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn requeue(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        trigger: Trigger,
    ) -> Result<bool> {
        loop {
            let asked = self.try_requeue(tenant, key, trigger).await?;
            if let Some(asked) = asked {
                return Ok(asked);
            }
            // What follows the attempt is written with one of the next batches.
            tokio::time::sleep(WRITTEN_WITHIN).await;
        }
    }

    async fn try_requeue(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        trigger: Trigger,
    ) -> Result<Option<bool>> {
        let _one_at_a_time = self.configuring.lock().await;
        if self.event(key.seq)?.is_none() {
            return Ok(Some(false));
        }
        let wish = self.wish(key);
        if wish == Wish::Late {
            return Ok(None);
        }
        let (before, due) = (self.state(key)?, self.clock.now());
        let after = match before {
            DeliveryState::Pending => DeliveryState::Pending,
            _ => DeliveryState::Retrying { due },
        };
        let audited = self.about(key, &before, &after)?;
        if wish == Wish::Noted {
            self.commit(vec![audited]).await?;
            return Ok(Some(true));
        }
        let Some(record) = self.asked_again(tenant, key, trigger, Claim::Asked)? else {
            let promoted = self.promote(key, due)?;
            self.queue_changed.notify_one();
            self.commit(vec![audited]).await?;
            return Ok(Some(promoted));
        };
        self.commit(vec![Record::Happened(record), audited]).await?;
        Ok(Some(true))
    }

    /// Lets a delivery that has no attempt yet go next; false where one is under way.
    fn promote(&self, key: DeliveryKey, now: Timestamp) -> Result<bool> {
        let fresh = Fresh { seq: key.seq, key: OrderingKey(self.ordering_key(key)?) };
        let mut queue = self.queue();
        // What ends meanwhile is in the view before it leaves the queue.
        let waits = self.history(key)?.is_empty();
        Ok(waits && queue.promote(key.endpoint, fresh, now))
    }

    /// Withdraws a delivery that waits for an attempt: none is made any more. False: it does not
    /// wait, since it is finished or an attempt is under way.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn cancel_delivery(self: &Arc<Self>, key: DeliveryKey) -> Result<bool> {
        let _one_at_a_time = self.configuring.lock().await;
        let entries = self.history(key)?.len();
        let before = self.state(key)?;
        let Some(event) = self.event(key.seq)? else { return Ok(false) };
        let audited = self.about(key, &before, &DeliveryState::Cancelled)?;
        let waits = match before {
            DeliveryState::Pending => {
                let ordering_key = OrderingKey(self.ordering_key(key)?);
                Some(Taken::Fresh(Fresh { seq: key.seq, key: ordering_key }, Claim::First))
            }
            DeliveryState::Retrying { due } => {
                let row = self.waiting_row(key, due)?;
                row.map(|(_, row)| Taken::Due(Due { due, seq: key.seq, row }))
            }
            _ => None,
        };
        let Some(waits) = waits else { return Ok(false) };
        let taken = {
            let mut queue = self.queue();
            // What ends meanwhile is in the view before it leaves the queue.
            let unchanged = self.history(key)?.len() == entries;
            unchanged.then(|| queue.call_off(key.endpoint, waits)).flatten()
        };
        let Some(taken) = taken else { return Ok(false) };
        self.call_off(self.lend(key.endpoint, taken, event), audited).await?;
        Ok(true)
    }

    /// What tells in the audit log that somebody changed a delivery.
    fn about(
        &self,
        key: DeliveryKey,
        before: &DeliveryState,
        after: &DeliveryState,
    ) -> Result<Record> {
        let event = self.known_event(key)?;
        Ok(self.audited(&Change {
            tenant: Some((&event.tenant, event.tenant_no)),
            subject: format!("delivery {}", delivery_id(key, event.accepted_at)),
            before: Some(Noun::Delivery(before)),
            after: Some(Noun::Delivery(after)),
        }))
    }

    fn known_event(&self, key: DeliveryKey) -> Result<Arc<Event>> {
        self.event(key.seq)?.ok_or_else(|| Error::unavailable("the event is gone"))
    }

    /// Asks for another attempt of each of these that is finished. They share a bounded part of
    /// the capacity, below what is live. How many will be attempted.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped; some may have been asked for.
    pub async fn requeue_many(
        &self,
        tenant: TenantNo,
        keys: &[DeliveryKey],
        trigger: Trigger,
    ) -> Result<u64> {
        let mut asked = 0;
        for keys in keys.chunks(BATCH_MAX) {
            let _one_at_a_time = self.configuring.lock().await;
            let mut records = Vec::with_capacity(keys.len());
            let mut known = None;
            for key in keys {
                // It may have gone since it was listed.
                let Some(event) = self.event(key.seq)? else { continue };
                let record = self.asked_again(tenant, *key, trigger, Claim::Bulk)?;
                records.extend(record.map(Record::Happened));
                known.get_or_insert(event);
            }
            let Some(event) = known.filter(|_| !records.is_empty()) else { continue };
            let change = Change {
                tenant: Some((&event.tenant, tenant)),
                subject: "dead letters".to_owned(),
                before: None,
                after: Some(Noun::Redrive(records.len() as u64)),
            };
            asked += records.len() as u64;
            self.commit_change(&change, records).await?;
        }
        Ok(asked)
    }

    /// The record that asks for another attempt; `None` while one is coming anyway.
    fn asked_again(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        trigger: Trigger,
        share: Claim,
    ) -> Result<Option<HistoryRecord>> {
        let history = self.history(key)?;
        let Some(last) = history.last() else { return Ok(None) };
        let waiting = match last.state() {
            DeliveryState::Retrying { due } if share == Claim::Asked => {
                match self.withdraw(key, due)? {
                    Some(row) => Some((due, row)),
                    None => return Ok(None),
                }
            }
            DeliveryState::Retrying { .. } | DeliveryState::Pending => return Ok(None),
            _ => None,
        };
        self.requeue_record(tenant, key, &history, (trigger, share, waiting)).map(Some)
    }

    /// The record that asks for another attempt now; `waiting`: where it waited for one.
    pub(super) fn requeue_record(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        history: &[Entry],
        (trigger, share, waiting): (Trigger, Claim, Option<(Timestamp, RetryRow)>),
    ) -> Result<HistoryRecord> {
        let now = self.clock.now();
        let attempts = history.iter().filter(|it| matches!(it, Entry::Attempt(_))).count();
        let entries = history.len() as u32;
        let ordering_key = self.ordering_key(key)?;
        let row = RetryRow {
            attempts: attempts as u32,
            round: 0,
            entries: entries + 1,
            trigger: trigger_code(trigger),
            ordering_key,
            parts_delivered: parts_delivered(history),
            // What still kept its order goes on keeping it.
            holds: waiting.is_some_and(|(_, row)| row.holds),
            ..RetryRow::of(share)
        };
        let entry = Entry::Requeued { at: now, trigger, due: now };
        let mut record = history_record(tenant, key, entries, &entry, ordering_key);
        record.retry_was = waiting.map(|(due, row)| (row.share, due.0));
        record.retry = Some((now.0, row));
        record.dead_was = history.last().and_then(dead_since);
        Ok(record)
    }

    /// Plans what waits for its time by a clock that was ahead: it is due now.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub(super) async fn plan_again(&self) -> Result<()> {
        let (now, from, to) = (self.clock.now(), self.no.all(), self.no.end());
        let mut wrong = Vec::new();
        for row in self.view.range(Table::Retries, Bound::Included(&from), Bound::Excluded(&to)) {
            let (_, due, key) = retry_at(&row?.0)?;
            let history = if due > now { self.history(key)? } else { Vec::new() };
            if history.last().is_some_and(|it| it.at() > now) {
                wrong.push((key, due));
            }
        }
        for keys in wrong.chunks(BATCH_MAX) {
            let mut records = Vec::with_capacity(keys.len());
            for (key, due) in keys {
                let Some(event) = self.event(key.seq)? else { continue };
                let Some(row) = self.withdraw(*key, *due)? else { continue };
                let history = self.history(*key)?;
                let again = (Trigger::Schedule, row.share(), Some((*due, row)));
                let mut record = self.requeue_record(event.tenant_no, *key, &history, again)?;
                if let Some((_, it)) = &mut record.retry {
                    *it = RetryRow { entries: it.entries, ..row };
                }
                records.push(Record::Happened(record));
            }
            self.commit(records).await?;
        }
        Ok(())
    }

    /// Takes a delivery out of the share it waits in.
    fn withdraw(&self, key: DeliveryKey, due: Timestamp) -> Result<Option<RetryRow>> {
        let found = self.waiting_row(key, due)?;
        let taken = found.filter(|(share, _)| self.queue().withdraw(*share, due, key));
        Ok(taken.map(|(_, row)| row))
    }

    /// The row on disk that a delivery waits in, and the share.
    fn waiting_row(&self, key: DeliveryKey, due: Timestamp) -> Result<Option<(Claim, RetryRow)>> {
        for (code, share) in WAITING_SHARES.into_iter().enumerate() {
            let row = self.view.get(Table::Retries, &self.no.retry(code as u8, due, key))?;
            if let Some(row) = row {
                return Ok(Some((share, decode(&row)?)));
            }
        }
        Ok(None)
    }

    /// Throws a dead letter away. False: it is none.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn discard(&self, tenant: TenantNo, key: DeliveryKey) -> Result<bool> {
        let _one_at_a_time = self.configuring.lock().await;
        if self.event(key.seq)?.is_none() {
            return Ok(false);
        }
        let history = self.history(key)?;
        let dead_was = history.last().and_then(dead_since);
        if dead_was.is_none() {
            return Ok(false);
        }
        let entry = Entry::Cancelled { at: self.clock.now() };
        let mut record = history_record(tenant, key, history.len() as u32, &entry, 0);
        record.dead_was = dead_was;
        let before = self.state(key)?;
        let audited = self.about(key, &before, &DeliveryState::Cancelled)?;
        self.commit(vec![Record::Happened(record), audited]).await?;
        Ok(true)
    }

    pub(super) fn ordering_key(&self, key: DeliveryKey) -> Result<u64> {
        let event = self.event(key.seq)?;
        let ordering = self.catalog().endpoint(key.endpoint).map(|it| it.ordering);
        let text = event.as_ref().and_then(|it| it.ordering_key.as_deref());
        Ok(ordering.map_or(0, |it| OrderingKey::of(it, text).0))
    }
}

/// How far the last attempt came with what a plugin made of the event, unless it was finished:
/// then all of it is asked for again.
fn parts_delivered(history: &[Entry]) -> u32 {
    let last = history.iter().rev().find_map(|it| match it {
        Entry::Attempt(attempt) => Some(attempt),
        _ => None,
    });
    let parts = last.and_then(|it| it.parts).filter(|it| it.delivered < it.of);
    parts.map_or(0, |it| it.delivered)
}

pub(super) fn history_record(
    tenant: TenantNo,
    key: DeliveryKey,
    number: u32,
    entry: &Entry,
    ordering_key: u64,
) -> HistoryRecord {
    let dead = match entry.state() {
        DeliveryState::Dead { reason } => Some((entry.at().0, reason_code(reason))),
        _ => None,
    };
    HistoryRecord {
        seq: key.seq.0,
        endpoint: key.endpoint.0,
        tenant_no: tenant.0,
        entry: number,
        row: encode_entry(entry),
        ordering_key,
        retry_was: None,
        retry: None,
        dead_was: None,
        dead,
    }
}

fn dead_since(entry: &Entry) -> Option<u64> {
    matches!(entry.state(), DeliveryState::Dead { .. }).then(|| entry.at().0)
}
