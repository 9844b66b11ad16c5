//! What every backend must do. Each backend's test calls [`check`] with a way to open its store,
//! which is opened anew after each stop and each crash.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::task::JoinSet;

use crate::domain::{
    Attempt, DeadReason, DeliveryState, Endpoint, EndpointId, EndpointNo, Event, EventId,
    EventType, Filter, Format, Ordering, Outcome, Quota, Retry, Secret, Seq, Signature,
    SigningSecret, Slug, Spent, Timestamp, TracePolicy, Verdict,
};
use crate::storage::conformance_names::a_name_is_stored_once;
use crate::storage::conformance_retention;
use crate::storage::{
    Allowance, Appended, Backlog, Lease, NewEvent, Refused, Result, Shard, Store, Writers,
};
use crate::world::{Clock, SimClock};

/// Opens the store under test: the same one each time.
pub type Open<'a> = &'a dyn Fn(Arc<dyn Clock>) -> Result<(Store, Writers)>;

/// Runs the whole suite; panics at the first difference. Call it with tokio's time paused.
///
/// # Errors
/// When the store cannot be opened or fails.
pub async fn check(open: Open<'_>) -> Result<()> {
    let mut bench = Bench::start(open)?;
    an_accepted_event_is_there_after_a_crash(&mut bench).await?;
    what_came_is_not_held(&bench).await?;
    a_name_is_stored_once(&bench).await?;
    a_batch_is_stored_whole_or_not_at_all(&bench).await?;
    what_was_not_settled_comes_again(&mut bench).await?;
    a_retry_waits_for_its_time(&mut bench).await?;
    a_dead_letter_can_be_redriven(&mut bench).await?;
    strict_order_waits_for_the_head(&mut bench).await?;
    a_long_backlog_stays_on_disk(&mut bench).await?;
    lists_go_from_new_to_old(&bench)?;
    the_catalog_survives(&mut bench).await?;
    conformance_retention::check(&mut bench).await
}

pub(super) struct Bench<'a> {
    open: Open<'a>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) store: Store,
    writers: JoinSet<()>,
}

impl<'a> Bench<'a> {
    pub(super) fn start(open: Open<'a>) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(Timestamp(1_800_000_000_000)));
        let (store, writers) = open(clock.clone())?;
        Ok(Self { open, clock, store, writers: running(writers) })
    }

    /// Drops everything where it stands and opens what is left.
    pub(super) async fn crash(&mut self) -> Result<()> {
        self.writers.shutdown().await;
        self.reopen()
    }

    async fn stop(&mut self) -> Result<()> {
        self.store.close().await;
        while self.writers.join_next().await.is_some() {}
        self.reopen()
    }

    fn reopen(&mut self) -> Result<()> {
        // The old store must be gone before the new one takes its lock.
        let empty = Store::simulated(
            &crate::storage::memory::Disk::default(),
            &crate::storage::Config::default(),
            (self.clock.clone(), Arc::new(crate::world::SeededEntropy::new(0))),
        )?;
        drop(std::mem::replace(&mut self.store, empty.0));
        let (store, writers) = (self.open)(self.clock.clone())?;
        (self.store, self.writers) = (store, running(writers));
        Ok(())
    }

    pub(super) fn shard(&self) -> &Arc<Shard> {
        self.store.shard(&Slug::default_tenant())
    }

    pub(super) async fn append(&self, event: NewEvent) -> Result<Appended> {
        let appended = self.shard().append(&Slug::default_tenant(), vec![event], true).await?;
        Ok(appended.into_iter().next().expect("an answer for each event"))
    }

    /// A new endpoint that gets `events` new events.
    pub(super) async fn endpoint_with(
        &self,
        ordering: Ordering,
        events: usize,
    ) -> Result<Arc<Endpoint>> {
        let make = |no: EndpointNo| Endpoint { ordering, ..endpoint_by_hand(no) };
        let made = self.shard().create_endpoint(&Slug::default_tenant(), make).await;
        let endpoint = Arc::new(made.expect("a new id"));
        for chunk in (0..events).collect::<Vec<_>>().chunks(100) {
            let new = chunk.iter().map(|_| event()).collect();
            let before = self.shard().last_seq();
            self.shard().append(&Slug::default_tenant(), new, true).await?;
            let events = self.shard().read_after(before, 100).await?;
            let wanted = |it: Arc<Event>| (it, vec![endpoint.clone()]);
            let targets: Vec<_> = events.into_iter().map(wanted).collect();
            self.shard().enqueue(&targets).await?;
        }
        Ok(endpoint)
    }

    /// Waits until the endpoint has something to lend, and borrows it.
    pub(super) async fn lease(&self, endpoint: &Endpoint, limit: usize) -> Result<Vec<Lease>> {
        loop {
            let allowed = Allowance::of(limit);
            let lent = self.shard().lease(endpoint.no, allowed).await?;
            if !lent.leases.is_empty() {
                return Ok(lent.leases);
            }
            self.shard().ready().await;
        }
    }

    pub(super) async fn settle(&self, lease: Lease, verdict: Verdict) -> Result<()> {
        let attempt = Attempt {
            id: "att_1".to_owned(),
            delivery: lease.key,
            number: lease.attempts + 1,
            trigger: lease.trigger,
            started_at: self.clock.now(),
            duration: Duration::from_millis(3),
            outcome: Outcome { name: "x".into(), status_code: Some(1), error: None },
            plugins: Vec::new(),
            parts: None,
            spent: Spent::default(),
            request_headers: Vec::new(),
            response_headers: Vec::new(),
            response_body: Bytes::from_static(b"body"),
            response_truncated: false,
            verdict,
        };
        self.shard().settle(lease, attempt).await
    }

    /// Waits until everything sent before has been written.
    pub(super) async fn written(&self) -> Result<()> {
        self.shard().commit(Vec::new()).await
    }
}

fn running(writers: Writers) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for writer in writers.into_futures() {
        running.spawn(writer);
    }
    running
}

async fn an_accepted_event_is_there_after_a_crash(bench: &mut Bench<'_>) -> Result<()> {
    bench
        .shard()
        .put_tenant(&Slug::default_tenant(), |_| Ok(("Default".to_owned(), Quota::default())))
        .await
        .expect("a tenant");
    let Appended::New { id, seq, .. } = bench.append(event()).await? else {
        panic!("a new event is new");
    };
    bench.crash().await?;
    let found = bench.shard().read_after(Seq(0), 10).await?;
    assert_eq!((found.len(), &found[0].id, found[0].seq), (1, &id, seq));
    let tenant = found[0].tenant_no;
    assert!(bench.shard().event_by_id(tenant, &id)?.is_some());
    Ok(())
}

/// An event's data comes as a part of a connection's buffer, which is to be used again.
async fn what_came_is_not_held(bench: &Bench<'_>) -> Result<()> {
    let buffer = Bytes::from(br#"POST / {"n":1}"#.to_vec());
    bench.append(NewEvent::new(event().event_type, buffer.slice(7..))).await?;
    let stored = bench.shard().event(bench.shard().last_seq())?.expect("it was just stored");
    assert!(stored.data == buffer[7..] && buffer.is_unique());
    Ok(())
}

async fn a_batch_is_stored_whole_or_not_at_all(bench: &Bench<'_>) -> Result<()> {
    let taken = NewEvent { id: EventId::parse("mine.1"), ..event() };
    let before = bench.shard().last_seq();
    let tenant = Slug::default_tenant();
    let answers = bench.shard().append(&tenant, vec![event(), taken], true).await?;
    assert_eq!(answers, [Appended::NotStored, Appended::Conflict]);
    assert_eq!(bench.shard().last_seq(), before);
    Ok(())
}

async fn what_was_not_settled_comes_again(bench: &mut Bench<'_>) -> Result<()> {
    let endpoint = bench.endpoint_with(Ordering::None, 3).await?;
    let mut leases = bench.lease(&endpoint, 3).await?;
    assert_eq!(leases.len(), 3);
    let lent = bench.shard().lease(endpoint.no, Allowance::of(3)).await?;
    assert!(lent.leases.is_empty(), "each is lent once");
    let first = leases.remove(0);
    let (done, event) = (first.key, first.event.clone());
    bench.settle(first, Verdict::Delivered).await?;
    bench.written().await?;
    drop(leases);
    bench.crash().await?;
    let again = bench.lease(&endpoint, 10).await?;
    assert_eq!(again.len(), 2);
    assert!(again.iter().all(|it| it.key.seq > event.seq));
    assert_eq!(bench.shard().state(done)?, DeliveryState::Delivered);
    assert_eq!(bench.shard().targets(event.seq)?, [endpoint.no]);
    for lease in again {
        bench.settle(lease, Verdict::Filtered("why".to_owned())).await?;
    }
    Ok(())
}

async fn a_retry_waits_for_its_time(bench: &mut Bench<'_>) -> Result<()> {
    let endpoint = bench.endpoint_with(Ordering::None, 1).await?;
    let lease = bench.lease(&endpoint, 1).await?.remove(0);
    let (key, due) = (lease.key, bench.clock.now() + Duration::from_secs(3600));
    bench.settle(lease, Verdict::RetryAt(due)).await?;
    bench.written().await?;
    assert_eq!(bench.shard().state(key)?, DeliveryState::Retrying { due });
    bench.stop().await?;
    let lease = bench.lease(&endpoint, 1).await?.remove(0);
    let now = bench.clock.now();
    assert!(now >= due && now - due < Duration::from_millis(50), "{now:?} for {due:?}");
    assert_eq!((lease.key, lease.attempts, lease.round), (key, 1, 1));
    bench.settle(lease, Verdict::Delivered).await?;
    bench.written().await?;
    assert_eq!(bench.shard().history(key)?.len(), 2);
    Ok(())
}

async fn a_dead_letter_can_be_redriven(bench: &mut Bench<'_>) -> Result<()> {
    let endpoint = bench.endpoint_with(Ordering::None, 1).await?;
    let lease = bench.lease(&endpoint, 1).await?.remove(0);
    let (key, tenant) = (lease.key, lease.event.tenant_no);
    bench.settle(lease, Verdict::Dead(DeadReason::Gone)).await?;
    bench.written().await?;
    bench.crash().await?;
    let end = (Timestamp(u64::MAX), key);
    let dead: Vec<_> = bench.shard().dead_before(tenant, end).collect::<Result<_>>()?;
    assert_eq!((dead.len(), dead[0].delivery, dead[0].reason), (1, key, DeadReason::Gone));
    assert_eq!(bench.shard().dead(), 1);
    assert!(bench.shard().requeue(tenant, key, crate::domain::Trigger::Manual).await?);
    assert_eq!(bench.shard().dead(), 0);
    bench.crash().await?;
    let lease = bench.lease(&endpoint, 1).await?.remove(0);
    assert_eq!((lease.attempts, lease.round), (1, 0), "numbers go on, the schedule starts over");
    assert_eq!(lease.trigger, crate::domain::Trigger::Manual);
    bench.settle(lease, Verdict::Dead(DeadReason::Gone)).await?;
    bench.written().await?;
    assert!(bench.shard().discard(tenant, key).await?);
    assert!(!bench.shard().discard(tenant, key).await?);
    assert_eq!(bench.shard().dead_before(tenant, end).count(), 0);
    assert_eq!(bench.shard().state(key)?, DeliveryState::Cancelled);
    Ok(())
}

async fn strict_order_waits_for_the_head(bench: &mut Bench<'_>) -> Result<()> {
    let endpoint = bench.endpoint_with(Ordering::Strict, 2).await?;
    let mut leases = bench.lease(&endpoint, 5).await?;
    assert_eq!(leases.len(), 1);
    let first = leases.remove(0);
    let key = first.key;
    let due = bench.clock.now() + Duration::from_secs(60);
    bench.settle(first, Verdict::RetryAt(due)).await?;
    bench.written().await?;
    bench.crash().await?;
    let retry = bench.lease(&endpoint, 5).await?.remove(0);
    assert_eq!(retry.key, key, "the second waits for the first");
    bench.settle(retry, Verdict::Delivered).await?;
    let second = bench.lease(&endpoint, 5).await?.remove(0);
    assert!(second.key.seq > key.seq);
    bench.settle(second, Verdict::Delivered).await
}

async fn a_long_backlog_stays_on_disk(bench: &mut Bench<'_>) -> Result<()> {
    const EVENTS: usize = 3000;
    let endpoint = bench.endpoint_with(Ordering::None, EVENTS).await?;
    assert_eq!(bench.shard().backlog(endpoint.no)?.first, EVENTS as u64);
    let mut last = Seq(0);
    for round in 0..30 {
        if round == 15 {
            bench.written().await?;
            bench.crash().await?;
        }
        for lease in bench.lease(&endpoint, 100).await? {
            assert!(lease.key.seq > last, "in order, each once");
            last = lease.key.seq;
            bench.settle(lease, Verdict::Delivered).await?;
        }
    }
    bench.written().await?;
    assert_eq!(bench.shard().backlog(endpoint.no)?, Backlog::default());
    assert_eq!(bench.shard().unfinished(), (0, 0));
    bench.crash().await?;
    assert_eq!(bench.shard().unfinished(), (0, 0));
    Ok(())
}

fn lists_go_from_new_to_old(bench: &Bench<'_>) -> Result<()> {
    let shard = bench.shard();
    let tenant = shard.catalog().tenant(&Slug::default_tenant()).expect("it").tenant.no;
    let all: Vec<_> = shard.events_before(tenant, Seq(u64::MAX)).collect::<Result<_>>()?;
    assert!(all.windows(2).all(|it| it[0].seq > it[1].seq));
    assert_eq!(all.len() as u64, shard.last_seq().0, "the tenant has them all");
    let behind: Vec<_> = shard.events_before(tenant, Seq(10)).collect::<Result<_>>()?;
    assert_eq!(behind.len(), 9);
    let endpoint = shard.catalog().endpoints().last().expect("one was made").no;
    assert_eq!(shard.deliveries_before(endpoint, Seq(u64::MAX)).count(), 3000);
    Ok(())
}

async fn the_catalog_survives(bench: &mut Bench<'_>) -> Result<()> {
    let tenant = Slug::default_tenant();
    let name = crate::domain::PluginName::parse("redact").expect("a name");
    let component = Bytes::from_static(b"\0asm");
    for (digest, created) in [([1; 32], true), ([1; 32], false), ([2; 32], true)] {
        let upload = (component.clone(), digest);
        let put = bench.shard().put_plugin(&tenant, (&name, "filter"), upload, true).await;
        assert_eq!(put.expect("a plugin").created, created);
    }
    let activated = bench.shard().activate_plugin(&tenant, &name, 1).await;
    assert_eq!(activated.expect("version 1").active_version, 1);
    let endpoint = bench.endpoint_with(Ordering::None, 0).await?;
    let before = format!("{:?}", bench.shard().catalog());
    bench.crash().await?;
    assert_eq!(format!("{:?}", bench.shard().catalog()), before);
    let no = bench.shard().catalog().tenant(&tenant).expect("it").tenant.no;
    assert_eq!(bench.shard().component(no, &name, 2)?, Some(component));
    let taken = bench.shard().create_endpoint(&tenant, |_| Endpoint::clone(&endpoint)).await;
    assert!(matches!(taken, Err(Refused::Exists)));
    let deleted = bench.shard().delete_endpoint(&tenant, &endpoint.id, |_| Ok(())).await;
    deleted.expect("it is there");
    let next = bench.endpoint_with(Ordering::None, 0).await?;
    assert!(next.no > endpoint.no, "numbers are not used again");
    Ok(())
}

pub(super) fn event() -> NewEvent {
    NewEvent::new(EventType::parse("a.b").expect("a type"), Bytes::from_static(b"{}"))
}

/// An endpoint that wants everything.
pub fn endpoint(no: EndpointNo) -> Endpoint {
    Endpoint {
        no,
        id: EndpointId::parse(&format!("e{}", no.0)).expect("an id"),
        tenant: Slug::default_tenant(),
        url: "https://receiver.example/hooks".to_owned(),
        description: String::new(),
        metadata: Default::default(),
        event_types: Vec::new(),
        filter: None,
        plugins: Vec::new(),
        format: Format::Envelope,
        headers: Default::default(),
        signature: Signature::default(),
        secrets: vec![SigningSecret {
            secret: Secret::kept("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            until: None,
        }],
        secret_unavailable: false,
        trace: TracePolicy::New,
        tls: None,
        retry: Retry::default(),
        timeout: Duration::from_secs(15),
        ordering: Ordering::None,
        max_in_flight: 64,
        rate_limit: None,
        enabled: true,
        disabled_reason: None,
        created_at: Timestamp(0),
        updated_at: Timestamp(0),
    }
}

/// The same with a filter. The writer asks none, so what this one gets is up to who follows the
/// shard: the test.
pub fn endpoint_by_hand(no: EndpointNo) -> Endpoint {
    let filter = Filter::compile("true").expect("a filter");
    Endpoint { filter: Some(filter), ..endpoint(no) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Config, MasterKey, MasterKeys, memory::Disk};
    use crate::world::SeededEntropy;

    #[tokio::test(start_paused = true)]
    async fn memory_conforms() {
        let disk = Disk::default();
        let open = |clock| {
            disk.lose_power(0.0);
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::simulated(&disk, &Config::default(), world)
        };
        check(&open).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn fjall_conforms_with_several_shards() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config { shards: 3, ..Config::default() };
        let masters = MasterKeys::new(MasterKey::simulated());
        let open = |clock| {
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::open(folder.path(), &config, masters.clone(), world)
        };
        check(&open).await.unwrap();
    }
}
