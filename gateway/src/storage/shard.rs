use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};

use crate::domain::{Attempt, EndpointNo, Event, EventId, Health, Seq, Slug, TenantNo};
use crate::storage::append::{Append, Appended, NewEvent};
use crate::storage::catalog::Catalog;
use crate::storage::company::Company;
use crate::storage::event_row::decode_event;
use crate::storage::fold::Meta;
use crate::storage::history_row::Entry;
use crate::storage::journal::View;
use crate::storage::keyring::MasterKeys;
use crate::storage::keys::{ShardNo, u64_at};
use crate::storage::queue::Queue;
use crate::storage::record::Record;
use crate::storage::stats::Stats;
use crate::storage::tail::Tail;
use crate::storage::time::{Doubt, TimeRow};
use crate::storage::writer::Command;
use crate::storage::{Config, Error, Floors, Result, Table};
use crate::world::{Clock, Entropy};

/// Something that just happened, for whoever watches.
#[derive(Debug, Clone)]
pub enum Notice {
    /// An event was accepted.
    Accepted(Arc<Event>),
    /// An attempt ended.
    Attempted {
        /// Whose.
        tenant: TenantNo,
        /// The attempt.
        attempt: Arc<Attempt>,
    },
}

/// One shard: the events, deliveries and catalog of the tenants that hash to it. It has one
/// writer; everybody reads.
pub struct Shard {
    pub(super) no: ShardNo,
    pub(super) view: Box<dyn View>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) entropy: Arc<dyn Entropy>,
    pub(super) config: Config,
    pub(super) catalog: RwLock<Catalog>,
    commands: mpsc::Sender<Command>,
    /// Told that somebody waits for what was just sent.
    pub(super) pressed: Notify,
    /// How many wait for what they sent.
    pub(super) company: Company,
    /// Changes of the catalog go one after the other: read, decide, commit.
    pub(super) configuring: tokio::sync::Mutex<()>,
    pub(super) queue: Mutex<Queue>,
    pub(super) queue_changed: Notify,
    pub(super) replays_changed: Notify,
    pub(super) healths: Mutex<BTreeMap<EndpointNo, Health>>,
    pub(super) stats: Mutex<Stats>,
    pub(super) failed: watch::Sender<Option<Error>>,
    pub(super) fanned_out: AtomicU64,
    /// Told that events are there which the writer did not fan out itself.
    pub(super) left_over: Notify,
    pub(super) time: Mutex<TimeRow>,
    pub(super) doubt: Doubt,
    floors: RwLock<Floors>,
    /// Above it nothing is gone.
    floor_highest: AtomicU64,
    /// Up to here it stands in the view who was to have each event.
    targets_known: watch::Sender<Seq>,
    tail: Mutex<Tail>,
    last_seq: watch::Sender<Seq>,
    notices: broadcast::Sender<Notice>,
}

impl Shard {
    pub(super) fn new(
        no: ShardNo,
        view: Box<dyn View>,
        (clock, entropy): (Arc<dyn Clock>, Arc<dyn Entropy>),
        config: Config,
        (meta, masters, (time, doubt)): (&Meta, MasterKeys, (TimeRow, Doubt)),
        commands: mpsc::Sender<Command>,
    ) -> Result<Self> {
        let catalog = Catalog::load(&*view, no, meta, masters)?;
        let place = (Seq(meta.fanned_out), clock.now());
        let floors = Floors::load(&*view, no)?;
        let mut queue = Queue::load(&*view, no, (&catalog, &floors), place)?;
        // What should have gone before a crash goes now.
        view.let_go(no.0, &floors);
        let stats = Mutex::new(Stats::load(&*view, no)?);
        let healths = crate::storage::health::load(&*view, no)?;
        for (endpoint, health) in &healths {
            queue.rest(*endpoint, crate::storage::health::rests(health, clock.now()));
        }
        Ok(Self {
            no,
            view,
            clock,
            entropy,
            catalog: RwLock::new(catalog),
            commands,
            pressed: Notify::new(),
            company: Company::default(),
            configuring: tokio::sync::Mutex::default(),
            queue: Mutex::new(queue),
            queue_changed: Notify::new(),
            replays_changed: Notify::new(),
            healths: Mutex::new(healths),
            stats,
            failed: watch::Sender::new(None),
            fanned_out: AtomicU64::new(meta.fanned_out),
            left_over: Notify::new(),
            floor_highest: AtomicU64::new(floors.highest().0),
            time: Mutex::new(time),
            doubt,
            floors: RwLock::new(floors),
            targets_known: watch::Sender::new(Seq(meta.fanned_out)),
            tail: Mutex::new(Tail::new(config.tail_bytes_max)),
            last_seq: watch::Sender::new(Seq(meta.last_seq)),
            notices: broadcast::Sender::new(config.notices_max),
            config,
        })
    }

    /// What tenants have configured. Do not hold it over an `await`.
    pub fn catalog(&self) -> RwLockReadGuard<'_, Catalog> {
        self.catalog.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn catalog_mut(&self) -> RwLockWriteGuard<'_, Catalog> {
        self.catalog.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its number among the store's shards.
    pub fn number(&self) -> u16 {
        self.no.0
    }

    /// The last event accepted.
    pub fn last_seq(&self) -> Seq {
        *self.last_seq.borrow()
    }

    /// What happens from now on. A reader that falls behind misses the oldest.
    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Accepts events for a tenant: when this returns, those that were new are on disk.
    /// `atomic`: if one of them conflicts, none is stored.
    ///
    /// # Errors
    /// `Unavailable` when the tenant does not exist or the store has stopped; then it is not
    /// known whether the events were stored.
    pub async fn append(
        &self,
        tenant: &Slug,
        mut events: Vec<NewEvent>,
        atomic: bool,
    ) -> Result<Vec<Appended>> {
        let tenant_no = self.catalog().tenant(tenant).map(|it| it.tenant.no);
        let tenant_no = tenant_no.ok_or_else(|| Error::unavailable("no such tenant"))?;
        for event in &mut events {
            event.seal();
        }
        let append = Append { tenant: tenant.clone(), tenant_no, events, atomic };
        let (reply, answer) = oneshot::channel();
        self.send(Command::Append(append, reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Events behind `seq`, at most `limit`; waits until there is one.
    ///
    /// # Errors
    /// When the store has stopped or cannot be read.
    pub async fn read_after(&self, seq: Seq, limit: usize) -> Result<Vec<Arc<Event>>> {
        let mut last = self.last_seq.subscribe();
        last.wait_for(|it| *it > seq).await.map_err(|_| stopped())?;
        let recent = self.tail().after(seq, limit);
        if !recent.is_empty() {
            return Ok(recent);
        }
        let (from, to) = (self.no.seq(seq.next()), self.no.end());
        let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let rows = self.view.range(Table::Events, range.0, range.1).take(limit);
        let event = |row: Result<(bytes::Bytes, bytes::Bytes)>| {
            let (key, value) = row?;
            Ok(Arc::new(decode_event(Seq(u64_at(&key, 0)?), &value)?))
        };
        rows.map(event).collect()
    }

    /// The event at `seq`, unless it is gone.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn event(&self, seq: Seq) -> Result<Option<Arc<Event>>> {
        let event = self.stored(seq)?;
        if seq.0 > self.floor_highest.load(Ordering::Acquire) {
            return Ok(event);
        }
        Ok(event.filter(|it| seq > self.floors().of(it.tenant_no)))
    }

    /// Up to where events are gone.
    pub(super) fn floors(&self) -> RwLockReadGuard<'_, Floors> {
        self.floors.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event at `seq`, if it is there at all.
    pub(super) fn stored(&self, seq: Seq) -> Result<Option<Arc<Event>>> {
        if let Some(event) = self.tail().get(seq) {
            return Ok(Some(event));
        }
        let row = self.view.get(Table::Events, &self.no.seq(seq))?;
        row.map(|it| decode_event(seq, &it).map(Arc::new)).transpose()
    }

    /// Whether [`targets`](Self::targets) tells of the event at `seq`.
    pub fn are_targets_known(&self, seq: Seq) -> bool {
        *self.targets_known.borrow() >= seq
    }

    /// Waits until [`targets`](Self::targets) tells of every event up to `seq`.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn targets_known(&self, seq: Seq) -> Result<()> {
        let mut known = self.targets_known.subscribe();
        known.wait_for(|it| *it >= seq).await.map(drop).map_err(|_| stopped())
    }

    /// The tenant's event of this id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn event_by_id(&self, tenant: TenantNo, id: &EventId) -> Result<Option<Arc<Event>>> {
        let key = self.no.id(tenant, &format!("i:{id}"));
        let chosen = match self.view.get(Table::Ids, &key)? {
            Some(row) => {
                let row: crate::storage::record::IdRow = crate::storage::codec::decode(&row)?;
                Some(Seq(row.seq))
            }
            None => id.place(),
        };
        let Some(seq) = chosen else { return Ok(None) };
        let event = self.event(seq)?;
        Ok(event.filter(|it| it.id == *id && it.tenant_no == tenant))
    }

    /// Commits records and waits until they are durable.
    pub(super) async fn commit(&self, records: Vec<Record>) -> Result<()> {
        self.commit_as(records, false).await
    }

    /// The same; `leased`: they settle what is on loan.
    pub(super) async fn commit_as(&self, records: Vec<Record>, leased: bool) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Commit { records, leased, reply }).await?;
        answer.await.map_err(|_| stopped())?
    }

    /// Hands a command to the writer, at once if there is room; waits where very many are before
    /// it.
    ///
    /// Not `async`, so that whoever waits has no room for the command, which is gone by then.
    pub(super) fn send(&self, command: Command) -> impl Future<Output = Result<()>> + Send {
        let pressing = command.is_pressing();
        let came = move || {
            if pressing {
                self.company.one_came();
            }
        };
        let late = match self.commands.try_send(command) {
            Ok(()) => {
                came();
                Ok(None)
            }
            Err(TrySendError::Full(command)) => Ok(Some(Box::pin(self.commands.send(command)))),
            Err(TrySendError::Closed(_)) => Err(stopped()),
        };
        if pressing || matches!(late, Ok(Some(_))) {
            self.pressed.notify_one();
        }
        async move {
            if let Some(late) = late? {
                late.await.map_err(|_| stopped())?;
                came();
            }
            Ok(())
        }
    }

    /// Waits until the store fails; for good, since a failed store must be opened again.
    pub async fn failure(&self) -> Error {
        let mut failed = self.failed.subscribe();
        let outcome = failed.wait_for(Option::is_some).await;
        outcome.ok().and_then(|it| it.clone()).unwrap_or_else(stopped)
    }

    /// Whether it can take events.
    pub fn is_well(&self) -> bool {
        self.failed.borrow().is_none()
    }

    /// A drawn number, and the time: what ids are made of.
    pub fn draw(&self) -> (crate::domain::Timestamp, u128) {
        let random = u128::from(self.entropy.draw()) << 64 | u128::from(self.entropy.draw());
        (self.clock.now(), random)
    }

    pub(super) fn show_events<'a>(&self, events: impl Iterator<Item = &'a Arc<Event>>) {
        let watched = self.notices.receiver_count() > 0;
        let mut tail = self.tail();
        for event in events {
            if watched {
                // Nobody listens any more: nothing to do.
                let _ = self.notices.send(Notice::Accepted(event.clone()));
            }
            tail.push(event.clone());
        }
    }

    pub(super) fn show_last(&self, last: Seq) {
        if self.last_seq() < last {
            self.last_seq.send_replace(last);
        }
    }

    /// Follows committed records into the queue, and tells those who watch.
    pub(super) fn follow(&self, records: &[Record], leased: &[bool]) {
        let mut woken = false;
        let now = self.clock.now();
        let mut queue = self.queue();
        for (record, leased) in records.iter().zip(leased) {
            woken |= queue.follow(record, *leased, now);
        }
        if records.iter().any(|it| matches!(it, Record::EndpointPut { .. })) {
            self.follow_endpoints(&mut queue, &self.catalog(), records);
        }
        drop(queue);
        for record in records {
            match record {
                Record::EndpointDeleted { no, .. } => {
                    self.healths().remove(&EndpointNo(*no));
                }
                Record::Trimmed(floors) => {
                    let highest = floors.highest();
                    *self.floors.write().unwrap_or_else(PoisonError::into_inner) = floors.clone();
                    self.floor_highest.store(highest.0, Ordering::Release);
                }
                Record::FannedOut { upto, .. } => {
                    self.targets_known.send_replace(Seq(*upto));
                }
                _ => {}
            }
        }
        if woken {
            self.queue_changed.notify_one();
        }
        if self.notices.receiver_count() > 0 {
            self.tell_attempts(records);
        }
    }

    fn tell_attempts(&self, records: &[Record]) {
        for record in records {
            let Record::Happened(it) = record else { continue };
            let Ok(Entry::Attempt(attempt)) = it.entry() else { continue };
            let tenant = TenantNo(it.tenant_no);
            let _ = self.notices.send(Notice::Attempted { tenant, attempt: Arc::new(attempt) });
        }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long names keep an event from being stored again.
    pub fn idempotency_window(&self) -> Duration {
        self.config.idempotency_window
    }
}

pub(super) fn stopped() -> Error {
    Error::unavailable("the store has stopped")
}
