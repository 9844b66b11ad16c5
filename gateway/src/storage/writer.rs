//! The one writer of a shard: takes what has come, makes records of it, commits them as one
//! batch, and then tells everyone who waits. Whoever comes while a batch is being synced is in
//! the next one, so the load itself sets the size of the batches.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use smallvec::SmallVec;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, timeout, timeout_at},
};

use crate::domain::{Event, EventId, Seq, TenantNo, Timestamp};
use crate::storage::answering::{Answering, Answers, AppendReply};
use crate::storage::append::{Append, Appended, NewEvent};
use crate::storage::company::Habit;
use crate::storage::event_row::encode_event;
use crate::storage::fan_out::{FanOut, fanned_out};
use crate::storage::fold::{Meta, fold_batch};
use crate::storage::journal::{Batch, Durability, Journal};
use crate::storage::names::find_contradictions;
use crate::storage::record::{EventRecord, IdRow, Record, encode_records};
use crate::storage::shard::Shard;
use crate::storage::taken::OrderingKey;
use crate::storage::{Error, Result};
use crate::telemetry::COMMIT;
use crate::world::reach;

/// Commands taken into one batch at most.
const BATCH_COMMANDS_MAX: usize = 1024;
/// How long what nobody waits for may wait for company, where there was some just before.
const LINGER: Duration = Duration::from_millis(2);
/// What needs no sync of its own gets one after this time at latest.
const SYNC_WITHIN: Duration = Duration::from_millis(5);
/// How often the endpoints' cursors are saved; a crash makes a restart look through this much.
const CURSORS_EVERY: Duration = Duration::from_secs(2);

/// What the rooms ask of the writer.
pub(super) enum Command {
    /// Accept events.
    Append(Append, AppendReply),
    /// Write down what can be done again from what is already durable.
    Note { record: Record, leased: bool },
    /// Write down and tell when it is durable. `leased`: it settles what is on loan.
    Commit { records: Vec<Record>, leased: bool, reply: oneshot::Sender<Result<()>> },
    /// Save what a clean stop should leave, and end.
    Stop,
}

impl Command {
    /// Whether somebody waits for it: for its answer, or, where deliveries keep an order, for the
    /// one before to be over.
    pub(super) fn is_pressing(&self) -> bool {
        match self {
            Self::Note { record: Record::Happened(it), .. } => {
                OrderingKey(it.ordering_key).is_ordered()
            }
            Self::Note { .. } => false,
            Self::Append(..) | Self::Commit { .. } | Self::Stop => true,
        }
    }
}

/// The writer's own state.
pub(super) struct Writer {
    pub(super) shard: Arc<Shard>,
    pub(super) journal: Box<dyn Journal>,
    pub(super) meta: Meta,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) answering: Answering,
    pub(super) habit: Habit,
}

/// One batch in the making.
#[derive(Default)]
pub(super) struct Making {
    records: Vec<Record>,
    events: Vec<Arc<Event>>,
    accepted: Vec<EventRecord>,
    /// Chosen names in this batch, which the view does not show yet.
    pub(super) ids: BTreeMap<(u32, String), IdRow>,
    appends: Answers,
    commits: Vec<oneshot::Sender<Result<()>>>,
    leased: Vec<bool>,
    /// How many wait for it.
    pressing: usize,
    durable: bool,
}

impl Writer {
    /// Writes until it is told to stop, then saves what a clean stop should leave.
    pub(super) async fn run(mut self) {
        let mut commands = Vec::new();
        // Since when something is written that is not synced.
        let mut unsynced: Option<Instant> = None;
        let mut cursors_saved = now();
        // Cursors move by what is written; where nothing came, there is nothing to save.
        let mut moved = false;
        let mut busy = false;
        loop {
            let received = receive(&self.shard, &mut self.commands, &mut commands, busy);
            let mut closed = match (unsynced, moved) {
                (None, false) => received.await == 0,
                (Some(since), _) => timeout_at(since + SYNC_WITHIN, received).await == Ok(0),
                (None, true) => timeout(CURSORS_EVERY, received).await == Ok(0),
            };
            let pressing = self.gather(&mut commands);
            let mut making = Making { pressing, ..Making::default() };
            let came = !commands.is_empty();
            // Where there was more than a batch, the rest waits for nothing.
            busy = came && commands.len() < BATCH_COMMANDS_MAX;
            for command in commands.drain(..) {
                closed |= matches!(command, Command::Stop);
                self.take(command, &mut making);
            }
            making.durable |= closed || unsynced.is_some_and(|it| it.elapsed() >= SYNC_WITHIN);
            if closed || cursors_saved.elapsed() >= CURSORS_EVERY {
                (cursors_saved, moved) = (now(), false);
                self.save_cursors(&mut making);
            }
            if closed && let Some(row) = self.shard.stats_kept() {
                making.push(Record::StatsKept(Some(row)), false);
            }
            // What moves by this batch is saved with a later one.
            moved |= came;
            let (was_unsynced, empty) = (unsynced.is_some(), making.is_empty());
            unsynced = match making.durable || empty {
                true => None,
                false => unsynced.or_else(|| Some(now())),
            };
            let outcome = match empty {
                true if was_unsynced => self.journal.sync(),
                true => Ok(()),
                false => self.commit(making),
            };
            if let Err(error) = outcome {
                return self.fail(&error).await;
            }
            if closed {
                return;
            }
        }
    }

    /// Where many come, waits for enough of them; how many wait for an answer.
    fn gather(&mut self, commands: &mut Vec<Command>) -> usize {
        let company = &self.shard.company;
        let pressing = |commands: &[Command]| {
            let count = commands.iter().filter(|it| it.is_pressing()).count();
            company.taken(count);
            count
        };
        let come = pressing(commands);
        let expected = self.habit.expects(come).filter(|_| commands.len() < BATCH_COMMANDS_MAX);
        let Some((more, within)) = expected else { return come };
        company.await_more(more, within);
        let before = commands.len();
        while commands.len() < BATCH_COMMANDS_MAX
            && let Ok(command) = self.commands.try_recv()
        {
            commands.push(command);
        }
        come + pressing(&commands[before..])
    }

    fn take(&mut self, command: Command, making: &mut Making) {
        match command {
            Command::Append(append, reply) => {
                making.durable = true;
                match self.accept(append, making) {
                    Ok(appended) => making.appends.push((reply, appended)),
                    Err(error) => drop(reply.send(Err(error))),
                }
            }
            Command::Note { record, leased } => {
                making.push(record, leased);
            }
            Command::Commit { records, leased, reply } => {
                making.durable = true;
                for record in records {
                    making.push(record, leased);
                }
                making.commits.push(reply);
            }
            Command::Stop => {}
        }
    }

    /// Decides for each event whether it is new, and gives new ones their place.
    fn accept(&mut self, append: Append, making: &mut Making) -> Result<Vec<Appended>> {
        let now = self.shard.clock.now();
        let window = self.shard.config.idempotency_window;
        let mut known = SmallVec::<[_; 1]>::with_capacity(append.events.len());
        for event in &append.events {
            known.push(self.known(&append, event, making, now, window)?);
        }
        if append.atomic {
            find_contradictions(&append.events, &mut known);
        }
        let conflict = known.iter().any(|it| matches!(it, Some(Appended::Conflict)));
        if append.atomic && conflict {
            let refused = |it: Option<Appended>| it.unwrap_or(Appended::NotStored);
            return Ok(known.into_iter().map(refused).collect());
        }
        for (event, known) in append.events.iter().zip(&known) {
            if let Some(Appended::Duplicate { .. }) = known {
                self.keep_key(append.tenant_no, event, making, (now, window))?;
            }
        }
        let mut appended = Vec::with_capacity(known.len());
        for (event, known) in append.events.into_iter().zip(known) {
            // A name may come twice in one request: the second is known by now.
            let known = match known {
                None if event.digest.is_some() => {
                    self.known_in_batch(append.tenant_no.0, &event, making, now, window)
                }
                known => known,
            };
            appended.push(known.unwrap_or_else(|| {
                self.store(append.tenant.clone(), append.tenant_no, event, making, now)
            }));
        }
        Ok(appended)
    }

    fn store(
        &mut self,
        tenant: crate::domain::Slug,
        tenant_no: TenantNo,
        new: NewEvent,
        making: &mut Making,
        now: Timestamp,
    ) -> Appended {
        let seq = Seq(self.meta.last_seq + 1 + making.accepted.len() as u64);
        let mut names: Vec<String> = new.names().collect();
        let preferred = new.preferred_id.filter(|it| !self.is_taken(tenant_no, it, making));
        names.extend(preferred.as_ref().map(|it| format!("i:{it}")));
        let salt = || EventId::derived(now, seq, self.shard.entropy.draw());
        let mut event = Event {
            seq,
            id: new.id.or(preferred).unwrap_or_else(salt),
            tenant,
            tenant_no,
            event_type: new.event_type,
            timestamp: new.timestamp.unwrap_or(now),
            accepted_at: now,
            ordering_key: new.ordering_key,
            metadata: new.metadata,
            literals: new.literals,
            data: new.data,
            only: new.only,
            trace: new.trace,
            hops: new.hops,
        };
        let row = encode_event(&event);
        // The row ends with the data. What came is a part of the connection's buffer, several
        // times as large, which would be kept for it.
        event.data = row.slice(row.len() - event.data.len()..);
        let mut record = EventRecord { seq: seq.0, tenant_no: tenant_no.0, row, ids: vec![] };
        for name in names {
            let row = IdRow {
                seq: seq.0,
                event_id: event.id.to_string(),
                digest: new.digest.expect("named events have a digest"),
                timestamp: event.timestamp.0,
                accepted_at: now.0,
            };
            making.ids.insert((tenant_no.0, name.clone()), row.clone());
            record.ids.push((name, row));
        }
        let appended = Appended::New { id: event.id.clone(), timestamp: event.timestamp, seq };
        making.accepted.push(record);
        making.events.push(Arc::new(event));
        appended
    }

    fn save_cursors(&self, making: &mut Making) {
        let mut queue = self.shard.queue();
        let cursors = queue.take_moved_cursors();
        if !cursors.is_empty() {
            making.push(Record::CursorsMoved(cursors), false);
            reach("during_cursor_save");
        }
    }

    fn commit(&mut self, mut making: Making) -> Result<()> {
        if !making.accepted.is_empty() {
            let accepted = std::mem::take(&mut making.accepted);
            making.records.insert(0, Record::EventsAccepted(accepted));
            making.leased.insert(0, false);
        }
        let events = std::mem::take(&mut making.events);
        let fan_out = self.shard.fan_out(&self.meta, &making.records, events);
        if let FanOut::AtOnce(wanted) = &fan_out {
            fanned_out(wanted).for_each(|it| making.push(it, false));
        }
        let changes = fold_batch(self.shard.no, &mut self.meta, &making.records);
        let durability = match making.durable {
            true => Durability::Disk,
            false => Durability::Process,
        };
        let started = now();
        reach("before_commit");
        let outcome = self.journal.commit(Batch {
            lsn: self.meta.lsn,
            chain: self.meta.chain,
            last_seq: self.meta.last_seq,
            records: &|| encode_records(&making.records),
            changes,
            durability,
        });
        if making.durable {
            let took = started.elapsed();
            COMMIT.observe(took.as_secs_f64(), &[]);
            self.habit.learn(making.pressing + self.shard.company.come(), took);
        }
        reach("after_commit_before_ack");
        match outcome {
            Ok(()) => self.publish(making, fan_out),
            Err(error) => {
                making.refuse(&error);
                Err(error)
            }
        }
    }

    /// Shows a committed batch to the rooms and answers those who wait.
    fn publish(&self, making: Making, fan_out: FanOut) -> Result<()> {
        let shard = &self.shard;
        for record in &making.records {
            if record.is_catalog() {
                shard.catalog_mut().apply(record)?;
            }
        }
        shard.follow(&making.records, &making.leased);
        shard.show(fan_out, Seq(self.meta.last_seq));
        self.answering.give(making.appends);
        for reply in making.commits {
            let _ = reply.send(Ok(()));
        }
        Ok(())
    }

    /// After a failed commit nothing more can be promised: everyone is told, from now on.
    async fn fail(mut self, error: &Error) {
        tracing::error!(shard = self.shard.no.0, %error, "the store failed and takes no more");
        self.shard.failed.send_replace(Some(error.clone()));
        while let Some(command) = self.commands.recv().await {
            match command {
                Command::Append(_, reply) => drop(reply.send(Err(error.clone()))),
                Command::Commit { reply, .. } => drop(reply.send(Err(error.clone()))),
                Command::Note { .. } => {}
                Command::Stop => return,
            }
        }
    }
}

impl Making {
    pub(super) fn push(&mut self, record: Record, leased: bool) {
        self.records.push(record);
        self.leased.push(leased);
    }

    fn is_empty(&self) -> bool {
        self.records.is_empty()
            && self.accepted.is_empty()
            && self.appends.is_empty()
            && self.commits.is_empty()
    }

    fn refuse(&mut self, error: &Error) {
        for (reply, _) in self.appends.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
        for reply in self.commits.drain(..) {
            let _ = reply.send(Err(error.clone()));
        }
    }
}

/// Takes what has come, and waits until something has. In a `busy` time what nobody waits for is
/// worth no batch of its own: it goes along with what is pressing.
async fn receive(
    shard: &Shard,
    commands: &mut mpsc::Receiver<Command>,
    taken: &mut Vec<Command>,
    busy: bool,
) -> usize {
    if busy {
        // Nothing pressing came: what has come is enough of a batch by now.
        let _ = timeout(LINGER, shard.pressed.notified()).await;
    }
    commands.recv_many(taken, BATCH_COMMANDS_MAX).await
}

fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::task::yield_now;

    use crate::domain::{EventType, Ordering, Quota, Slug, Verdict};
    use crate::storage::conformance::Bench;
    use crate::storage::memory::Disk;
    use crate::storage::{Config, NewEvent, Store};
    use crate::world::{Clock, SeededEntropy};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_goes_along_with_what_is_pressing() {
        let (disk, tenant) = (Disk::default(), Slug::default_tenant());
        let open = |clock: Arc<dyn Clock>| {
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::simulated(&disk, &Config::default(), world)
        };
        let bench = Bench::start(&open).unwrap();
        let shard = bench.shard();
        let named = |_: Option<&_>| Ok(("T".to_owned(), Quota::default()));
        shard.put_tenant(&tenant, named).await.unwrap();
        let written = || disk.batches().0;
        let note = async || {
            shard.tell_refusal(&tenant, "key").await.unwrap();
            for _ in 0..10 {
                yield_now().await;
            }
        };
        let event = || NewEvent::new(EventType::choose("a.b").unwrap(), Bytes::from_static(b"1"));

        // Where nothing else is done, it is written at once.
        tokio::time::sleep(100 * MS).await;
        let before = written();
        note().await;
        assert_eq!(written(), before + 1);
        // Just behind that, only after a while, or with what is pressing, which waits for nothing.
        note().await;
        assert_eq!(written(), before + 1);
        tokio::time::sleep(LINGER + MS).await;
        assert_eq!(written(), before + 2);
        note().await;
        let begun = now();
        bench.append(event()).await.unwrap();
        assert_eq!((written(), begun.elapsed()), (before + 3, Duration::ZERO));

        // What a full batch leaves waits for nothing.
        tokio::time::sleep(100 * MS).await;
        let (before, begun) = (written(), now());
        for _ in 0..BATCH_COMMANDS_MAX {
            shard.tell_refusal(&tenant, "key").await.unwrap();
        }
        note().await;
        assert_eq!((written(), begun.elapsed()), (before + 2, Duration::ZERO));

        // Who never stops is synced all the same.
        for _ in 0..20 {
            note().await;
            tokio::time::sleep(MS).await;
        }
        let (written, synced) = disk.batches();
        assert!(written - synced <= 4, "{synced} of {written} are synced");

        // What keeps an order is pressing: the next one waits for it.
        let endpoint = bench.endpoint_with(Ordering::Strict, 3).await.unwrap();
        let begun = now();
        for _ in 0..3 {
            let lease = bench.lease(&endpoint, 1).await.unwrap().remove(0);
            bench.settle(lease, Verdict::Delivered).await.unwrap();
        }
        assert!(begun.elapsed() < LINGER, "{:?}", begun.elapsed());
    }
}
