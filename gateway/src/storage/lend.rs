use std::sync::Arc;

use crate::domain::{
    Attempt, Claim, DeadReason, DeliveryKey, EndpointNo, Event, Seq, Timestamp, Trigger, Verdict,
};
use crate::storage::history_row::{Entry, trigger_code, trigger_of};
use crate::storage::queue::Ready;
use crate::storage::record::{Record, RetryRow};
use crate::storage::reorder::ordering_key;
use crate::storage::requeue::history_record;
use crate::storage::shard::Shard;
use crate::storage::taken::{Allowance, Taken};
use crate::storage::writer::Command;
use crate::storage::{Error, Result};

/// What somebody asked for is lent beside every allowance, but no more than this at once.
const ASKED_MAX: usize = 8;
/// How often a fault of ours may hit a delivery before it is given up.
pub(super) const STRIKES_MAX: u8 = 5;

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
    /// Whose capacity the attempt uses.
    pub share: Claim,
    /// Since when it could have been attempted: acceptance, or the retry's due time.
    pub due: Timestamp,
    /// Requests of it that are delivered already, where a plugin made several of the event.
    pub parts_delivered: u32,
    /// Whether somebody asked for another attempt while this one was under way.
    pub(super) wanted: bool,
    entries: u32,
    taken: Taken,
    shard: Arc<Shard>,
    pub(super) settled: bool,
}

/// What was lent, and what there is more of.
#[derive(Default)]
pub struct Lent {
    /// The deliveries.
    pub leases: Vec<Lease>,
    /// The allowance was used up: there may be more.
    pub more: bool,
    /// Retries are ready that their allowance kept back.
    pub retries_left: bool,
    /// Replays or redrives are ready that their allowance kept back.
    pub bulk_left: bool,
}

impl Drop for Lease {
    fn drop(&mut self) {
        if !self.settled {
            let (now, mut queue) = (self.shard.clock.now(), self.shard.queue());
            let closed = queue.peek(self.key.endpoint).is_some_and(|it| it.closed);
            let taken = match self.taken {
                // It is held as the rest is. Only a test goes all the same.
                Taken::Fresh(fresh, Claim::Asked) if closed && self.event.only.is_none() => {
                    Taken::Fresh(fresh, Claim::First)
                }
                taken => taken,
            };
            queue.give_back(self.key.endpoint, taken, now);
            drop(queue);
            self.shard.queue_changed.notify_one();
        }
    }
}

impl Shard {
    /// Endpoints that may have something to do since this was last asked.
    pub fn ready_now(&self) -> Vec<Ready> {
        let now = self.clock.now();
        let mut queue = self.queue();
        queue.advance(now);
        queue.take_active(now)
    }

    /// The same; waits until there is one.
    pub async fn ready(&self) -> Vec<Ready> {
        loop {
            let now = self.clock.now();
            let (active, next) = {
                let mut queue = self.queue();
                let next = queue.advance(now);
                (queue.take_active(now), next)
            };
            if !active.is_empty() {
                return active;
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

    /// Lends out as many of an endpoint's deliveries as are `allowed`, and what somebody waits
    /// for beside them. A delivery whose event cannot be read is given up after some tries, and
    /// one whose event is gone at once.
    ///
    /// # Errors
    /// When the store cannot be read or has stopped; try again later.
    pub async fn lease(self: &Arc<Self>, endpoint: EndpointNo, allowed: Allowance) -> Result<Lent> {
        let (taken, mut lent) = self.take(endpoint, allowed)?;
        let mut failed = None;
        for taken in taken {
            match self.event(taken.seq()) {
                Ok(Some(event)) => lent.leases.push(self.lend(endpoint, taken, event)),
                Ok(None) => Box::pin(self.bury(endpoint, taken, DeadReason::Expired)).await?,
                Err(error) if self.strike(endpoint, taken.seq()) < STRIKES_MAX => {
                    self.queue().give_back(endpoint, taken, self.clock.now());
                    failed = Some(error);
                }
                Err(error) => {
                    tracing::error!(%error, seq = taken.seq().0, "an event cannot be read");
                    Box::pin(self.bury(endpoint, taken, DeadReason::InternalError)).await?;
                }
            }
        }
        match failed {
            Some(error) if lent.leases.is_empty() => Err(error),
            _ => Ok(lent),
        }
    }

    fn take(&self, endpoint: EndpointNo, mut allowed: Allowance) -> Result<(Vec<Taken>, Lent)> {
        let (now, wanted) = (self.clock.now(), allowed.any);
        let mut taken = Vec::with_capacity(wanted.min(16));
        let mut queue = self.queue();
        let ordering = queue.peek(endpoint).map(|it| it.ordering).unwrap_or_default();
        let key = |seq| ordering_key(&*self.view, self.no, ordering, seq);
        let failed = loop {
            let place = (&*self.view, self.no);
            match queue.take(place, endpoint, &mut allowed, now, &key) {
                Ok(Some(it)) => taken.push(it),
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
            if taken.len() >= wanted + ASKED_MAX || (wanted > 0 && allowed.any == 0) {
                break None;
            }
        };
        let (retries_left, bulk_left) = queue.lent(endpoint, allowed, now);
        match failed {
            Some(error) if taken.is_empty() => Err(error),
            _ => {
                let more = wanted > 0 && allowed.any == 0;
                Ok((taken, Lent { leases: Vec::new(), more, retries_left, bulk_left }))
            }
        }
    }

    pub(super) fn lend(
        self: &Arc<Self>,
        endpoint: EndpointNo,
        taken: Taken,
        event: Arc<Event>,
    ) -> Lease {
        let (row, due) = match taken {
            Taken::Fresh(..) => (RetryRow::default(), event.accepted_at),
            Taken::Due(it) => (it.row, it.due),
        };
        let test = event.only.is_some() && row.attempts == 0;
        Lease {
            key: DeliveryKey { seq: event.seq, endpoint },
            attempts: row.attempts,
            round: row.round,
            trigger: if test { Trigger::Test } else { trigger_of(row.trigger) },
            share: taken.share(),
            due,
            parts_delivered: row.parts_delivered,
            wanted: false,
            entries: row.entries,
            event,
            taken,
            shard: self.clone(),
            settled: false,
        }
    }

    /// A fault of ours hit a delivery once more; how often by now.
    pub fn strike(&self, endpoint: EndpointNo, seq: Seq) -> u8 {
        self.queue().lane(endpoint).strike(seq)
    }

    /// Whether faults of ours hit a delivery too often to try on.
    pub fn is_poison(&self, key: DeliveryKey) -> bool {
        let queue = self.queue();
        queue.peek(key.endpoint).is_some_and(|it| it.strikes(key.seq) >= STRIKES_MAX)
    }

    /// Records a finished attempt and what follows from it. It need not wait for the disk: an
    /// attempt that a power failure forgets is made again.
    ///
    /// # Errors
    /// When the store has stopped.
    pub fn settle(
        &self,
        lease: Lease,
        attempt: Attempt,
    ) -> impl Future<Output = Result<()>> + Send {
        let round = lease.round + 1;
        let retry = match attempt.verdict {
            Verdict::RetryAt(due) => {
                let parts_delivered =
                    attempt.parts.map_or(lease.parts_delivered, |it| it.delivered);
                let row = lease.next(attempt.number, round);
                Some((due, RetryRow { parts_delivered, ..row }))
            }
            Verdict::Delivered | Verdict::Filtered(_) | Verdict::Dead(_) => None,
        };
        self.note_attempt(&attempt);
        let record = lease.record(&Entry::Attempt(attempt), retry);
        // The attempt is not kept while this waits.
        async move {
            let mut lease = lease;
            self.send(Command::Note { record, leased: true }).await?;
            lease.settled = true;
            Ok(())
        }
    }

    /// Gives a delivery up without an attempt.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn give_up(&self, mut lease: Lease, reason: DeadReason) -> Result<()> {
        let at = self.clock.now();
        self.note_death(lease.key.endpoint, at);
        let record = lease.record(&Entry::GivenUp { at, reason }, None);
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

    /// Gives up what cannot even be lent.
    async fn bury(&self, endpoint: EndpointNo, taken: Taken, reason: DeadReason) -> Result<()> {
        let tenant = {
            let catalog = self.catalog();
            let slug = catalog.endpoint(endpoint).map(|it| it.tenant.clone());
            slug.and_then(|it| catalog.tenant(&it).map(|it| it.tenant.no))
        };
        let tenant = tenant.ok_or_else(|| Error::unavailable("the endpoint is gone"))?;
        let at = self.clock.now();
        self.note_death(endpoint, at);
        let key = DeliveryKey { seq: taken.seq(), endpoint };
        let entries = match taken {
            Taken::Due(it) => it.row.entries,
            Taken::Fresh(..) => 0,
        };
        let entry = Entry::GivenUp { at, reason };
        let mut record = history_record(tenant, key, entries, &entry, taken.key().0);
        record.retry_was = waited(&taken);
        self.send(Command::Note { record: Record::Happened(record), leased: true }).await
    }
}

impl Lease {
    /// Whether it is an ordinary delivery of the gateway's own events about others.
    pub fn is_operational(&self) -> bool {
        self.event.event_type.is_operational()
    }

    /// Whether it is a replay, a redrive or somebody's retry, or follows from one: then its time
    /// begins with that wish, and not with the event's acceptance.
    pub fn is_asked_again(&self) -> bool {
        // Whoever asks starts the rounds over; a replay of what was never sent stays bulk.
        let live = self.attempts == self.round && self.share != Claim::Bulk;
        !live || matches!(self.trigger, Trigger::Manual | Trigger::Replay)
    }

    fn next(&self, attempts: u32, round: u32) -> RetryRow {
        if self.wanted {
            // Asked for by hand: it starts over, goes before all others, and keeps its order.
            return RetryRow {
                attempts,
                entries: self.entries + 1,
                trigger: trigger_code(Trigger::Manual),
                ordering_key: self.taken.key().0,
                holds: self.keeps_order(),
                ..RetryRow::of(Claim::Asked)
            };
        }
        let keeps_order = self.keeps_order();
        let share = if keeps_order { Claim::Retry } else { Claim::Bulk };
        RetryRow {
            attempts,
            round,
            entries: self.entries + 1,
            trigger: trigger_code(Trigger::Schedule),
            ordering_key: self.taken.key().0,
            holds: keeps_order,
            ..RetryRow::of(share)
        }
    }

    /// Whether what comes later waits for what follows from it.
    fn keeps_order(&self) -> bool {
        match self.taken.share() {
            Claim::First | Claim::Retry => true,
            Claim::Asked => self.taken.holds(),
            Claim::Bulk => false,
        }
    }

    pub(super) fn record(&self, entry: &Entry, retry: Option<(Timestamp, RetryRow)>) -> Record {
        let tenant = self.event.tenant_no;
        let key = self.taken.key().0;
        let mut record = history_record(tenant, self.key, self.entries, entry, key);
        record.retry_was = waited(&self.taken);
        record.retry = retry.map(|(due, row)| (due.0, row));
        Record::Happened(record)
    }
}

/// The row on disk that a delivery waited in.
fn waited(taken: &Taken) -> Option<(u8, u64)> {
    match taken {
        Taken::Due(it) => Some((it.row.share, it.due.0)),
        Taken::Fresh(..) => None,
    }
}
