use std::sync::Arc;

use crate::domain::{
    Attempt, DeadReason, DeliveryKey, DeliveryState, Endpoint, EndpointNo, Event, Ordering, Seq,
    Slug, TenantNo, Timestamp, Trigger, Verdict,
};
use crate::storage::Result;
use crate::storage::history_row::{Entry, encode_entry, reason_code, trigger_code, trigger_of};
use crate::storage::lane::{Fresh, OrderingKey, Taken};
use crate::storage::record::{HistoryRecord, Record, RetryRow};
use crate::storage::shard::Shard;
use crate::storage::writer::Command;

/// A delivery on loan to one worker. Dropped without being settled, it goes back to its lane.
pub struct Lease {
    /// Which delivery.
    pub key: DeliveryKey,
    /// What is delivered.
    pub event: Arc<Event>,
    /// Attempts made so far.
    pub attempts: u32,
    /// Attempts made since it was last started over; what the retry schedule counts.
    pub round: u32,
    /// What sets the next attempt off.
    pub trigger: Trigger,
    /// Since when it could have been attempted: acceptance, or the retry's due time.
    pub due: Timestamp,
    entries: u32,
    taken: Taken,
    shard: Arc<Shard>,
    settled: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            self.shard.queue().give_back(self.key.endpoint, self.taken);
            self.shard.queue_changed.notify_one();
        }
    }
}

impl Shard {
    /// The deliveries of these events, in order, each with the endpoints that want it. They can
    /// be leased at once; they are on disk with the next batch, before anything that is settled.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn enqueue(&self, events: &[(Arc<Event>, Vec<Arc<Endpoint>>)]) -> Result<()> {
        let Some((last, _)) = events.last() else { return Ok(()) };
        let numbers = |(event, endpoints): &(Arc<Event>, Vec<Arc<Endpoint>>)| {
            (event.seq.0, endpoints.iter().map(|it| it.no.0).collect())
        };
        let wanted = events.iter().filter(|(_, endpoints)| !endpoints.is_empty());
        let targets = wanted.map(numbers).collect();
        let record = Record::FannedOut { upto: last.seq.0, targets };
        self.send(Command::Note { record, leased: false }).await?;
        self.fanned_out.store(last.seq.0, std::sync::atomic::Ordering::Release);
        let mut queue = self.queue();
        for (event, endpoints) in events {
            for endpoint in endpoints {
                let key = OrderingKey::of(endpoint.ordering, event.ordering_key.as_deref());
                queue.enqueue(endpoint.no, Fresh { seq: event.seq, key });
            }
        }
        drop(queue);
        self.queue_changed.notify_one();
        Ok(())
    }

    /// The last event that was fanned out.
    pub fn fanned_out(&self) -> Seq {
        Seq(self.fanned_out.load(std::sync::atomic::Ordering::Acquire))
    }

    /// Endpoints that have something to do since this was last asked; waits until there is one.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn ready(&self) -> Result<Vec<EndpointNo>> {
        loop {
            let now = self.clock.now();
            let (active, next) = {
                let mut queue = self.queue();
                let next = queue.advance(&*self.view, self.no, now)?;
                (queue.take_active(), next)
            };
            if !active.is_empty() {
                return Ok(active);
            }
            match next {
                Some(due) => tokio::select! {
                    () = self.queue_changed.notified() => {}
                    () = tokio::time::sleep(due - now) => {}
                },
                None => self.queue_changed.notified().await,
            }
        }
    }

    /// Lends out up to `limit` of an endpoint's deliveries.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn lease(
        self: &Arc<Self>,
        (endpoint, ordering): (EndpointNo, Ordering),
        limit: usize,
    ) -> Result<Vec<Lease>> {
        let mut leases = Vec::new();
        while leases.len() < limit {
            let key = |seq: Seq| {
                let event = self.event(seq).ok().flatten();
                let key = event.as_ref().and_then(|it| it.ordering_key.as_deref());
                OrderingKey::of(ordering, key)
            };
            let taken = self.queue().take(&*self.view, self.no, endpoint, &key)?;
            let Some(taken) = taken else { break };
            let Some(event) = self.event(taken.seq())? else {
                tracing::error!(seq = taken.seq().0, "a delivery's event is gone; it is dropped");
                continue;
            };
            leases.push(self.lend(endpoint, taken, event));
        }
        Ok(leases)
    }

    fn lend(self: &Arc<Self>, endpoint: EndpointNo, taken: Taken, event: Arc<Event>) -> Lease {
        let (row, due) = match taken {
            Taken::Fresh(_) => (RetryRow::default(), event.accepted_at),
            Taken::Due(it) => (it.row, it.due),
        };
        let test = event.only.is_some() && row.attempts == 0;
        Lease {
            key: DeliveryKey { seq: event.seq, endpoint },
            attempts: row.attempts,
            round: row.round,
            trigger: if test { Trigger::Test } else { trigger_of(row.trigger) },
            due,
            entries: row.entries,
            event,
            taken,
            shard: self.clone(),
            settled: false,
        }
    }

    /// Records a finished attempt and what follows from it. It need not wait for the disk: an
    /// attempt that a power failure forgets is made again.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn settle(&self, mut lease: Lease, attempt: Attempt) -> Result<()> {
        let round = lease.round + 1;
        let retry = match attempt.verdict {
            Verdict::RetryAt(due) => Some((due, lease.next(attempt.number, round))),
            Verdict::Delivered | Verdict::Filtered(_) | Verdict::Dead(_) => None,
        };
        let record = lease.record(&Entry::Attempt(attempt), retry);
        self.send(Command::Note { record, leased: true }).await?;
        lease.settled = true;
        Ok(())
    }

    /// Gives a delivery up without an attempt.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn give_up(&self, mut lease: Lease, reason: DeadReason) -> Result<()> {
        let entry = Entry::GivenUp { at: self.clock.now(), reason };
        let record = lease.record(&entry, None);
        self.send(Command::Note { record, leased: true }).await?;
        lease.settled = true;
        Ok(())
    }

    /// Withdraws a delivery: its endpoint is gone.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn cancel(&self, mut lease: Lease) -> Result<()> {
        let record = lease.record(&Entry::Cancelled { at: self.clock.now() }, None);
        self.send(Command::Note { record, leased: true }).await?;
        lease.settled = true;
        Ok(())
    }

    /// Asks for another attempt now, whatever became of the delivery. False: one is coming
    /// anyway.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn requeue(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        trigger: Trigger,
    ) -> Result<bool> {
        let _one_at_a_time = self.configuring.lock().await;
        let history = self.history(key)?;
        let Some(last) = history.last() else { return Ok(false) };
        let waiting = match last.state() {
            DeliveryState::Retrying { due } if self.queue().withdraw(due, key) => Some(due),
            DeliveryState::Retrying { .. } | DeliveryState::Pending => return Ok(false),
            _ => None,
        };
        let record = self.requeue_record(tenant, key, &history, (trigger, waiting))?;
        self.commit(vec![Record::Happened(record)]).await?;
        Ok(true)
    }

    /// The record that asks for another attempt now; `waiting`: for when one was planned.
    pub(super) fn requeue_record(
        &self,
        tenant: TenantNo,
        key: DeliveryKey,
        history: &[Entry],
        (trigger, waiting): (Trigger, Option<Timestamp>),
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
        };
        let entry = Entry::Requeued { at: now, trigger, due: now };
        let mut record = history_record(tenant, key, entries, &entry, ordering_key);
        record.retry_was = waiting.map(|it| it.0);
        record.retry = Some((now.0, row));
        record.dead_was = history.last().and_then(dead_since);
        Ok(record)
    }

    /// Throws a dead letter away. False: it is none.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped.
    pub async fn discard(&self, tenant: TenantNo, key: DeliveryKey) -> Result<bool> {
        let _one_at_a_time = self.configuring.lock().await;
        let history = self.history(key)?;
        let dead_was = history.last().and_then(dead_since);
        if dead_was.is_none() {
            return Ok(false);
        }
        let entry = Entry::Cancelled { at: self.clock.now() };
        let mut record = history_record(tenant, key, history.len() as u32, &entry, 0);
        record.dead_was = dead_was;
        self.commit(vec![Record::Happened(record)]).await?;
        Ok(true)
    }

    fn ordering_key(&self, key: DeliveryKey) -> Result<u64> {
        let event = self.event(key.seq)?;
        let ordering = self.catalog().endpoint(key.endpoint).map(|it| it.ordering);
        let text = event.as_ref().and_then(|it| it.ordering_key.as_deref());
        Ok(ordering.map_or(0, |it| OrderingKey::of(it, text).0))
    }

    /// Deliveries not finished: first attempts, and retries that wait for their time.
    pub fn unfinished(&self) -> (u64, u64) {
        self.queue().unfinished()
    }

    /// Dead letters.
    pub fn dead(&self) -> u64 {
        self.queue().dead()
    }

    /// Deliveries of a tenant that are not finished.
    pub fn tenant_backlog(&self, tenant: &Slug) -> u64 {
        let endpoints: Vec<_> = {
            let catalog = self.catalog();
            let endpoints = catalog.tenant(tenant).into_iter().flat_map(|it| it.endpoints.values());
            endpoints.map(|it| it.no).collect()
        };
        let queue = self.queue();
        endpoints.into_iter().map(|it| queue.waiting(it)).sum()
    }

    /// First attempts of an endpoint that are not finished.
    pub fn backlog(&self, endpoint: EndpointNo) -> u64 {
        self.queue().backlog(endpoint)
    }
}

impl Lease {
    fn next(&self, attempts: u32, round: u32) -> RetryRow {
        RetryRow {
            attempts,
            round,
            entries: self.entries + 1,
            trigger: trigger_code(Trigger::Schedule),
            ordering_key: self.taken.key().0,
        }
    }

    fn record(&self, entry: &Entry, retry: Option<(Timestamp, RetryRow)>) -> Record {
        let tenant = self.event.tenant_no;
        let key = self.taken.key().0;
        let mut record = history_record(tenant, self.key, self.entries, entry, key);
        record.retry_was = match self.taken {
            Taken::Due(it) => Some(it.due.0),
            Taken::Fresh(_) => None,
        };
        record.retry = retry.map(|(due, row)| (due.0, row));
        Record::Happened(record)
    }
}

fn history_record(
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
