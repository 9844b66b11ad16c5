//! What is too old goes, and nothing else: through failures, crashes and days of outage.

use std::{collections::BTreeMap, time::Duration};

use hookgate::domain::{
    DeliveryKey, DeliveryState, EndpointNo, EventId, Replay, ReplayState, Retention, Retry,
    RetryPolicy, Seq, Slug, Timestamp,
};
use hookgate::storage::Keep;
use hookgate_tests::{Mood, Sim};
use tokio::time::sleep;

use crate::{deliveries, seeds};

const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn keep(hours: u32) -> Keep {
    let kept = Retention::For(HOUR * hours);
    Keep { events: kept, audit: kept }
}

/// Whether an event is there, for whoever asks for it.
fn is_there(sim: &Sim, id: &str) -> bool {
    let shard = sim.shard();
    let tenant = shard.catalog().tenant(&Slug::default_tenant()).expect("it").tenant.no;
    let id = EventId::parse(id).expect("an id");
    shard.event_by_id(tenant, &id).expect("a store").is_some()
}

/// An event that is gone was accepted by every endpoint, and is older than the retention.
fn check(sim: &Sim, endpoints: usize, since: &BTreeMap<String, Duration>, seed: u64) -> usize {
    let mut accepted = BTreeMap::<String, std::collections::BTreeSet<u64>>::new();
    for it in sim.receiver.got().into_iter().filter(|it| it.accepted) {
        accepted.entry(it.id).or_default().insert(it.pool);
    }
    let mut gone = 0;
    for (id, published) in since {
        let age = sim.elapsed() - *published;
        if is_there(sim, id) {
            continue;
        }
        gone += 1;
        let by = accepted.get(id).map_or(0, |it| it.len());
        assert_eq!(by, endpoints, "seed {seed}: {id} is gone, and not delivered");
        assert!(age >= HOUR * 2, "seed {seed}: {id} is gone after {age:?}");
    }
    gone
}

pub(crate) async fn nothing_goes_before_it_is_finished_and_then_everything() {
    for seed in seeds().take(40) {
        let mut sim = Sim::new(seed, 0.4);
        sim.keep = keep(2);
        sim.start().await;
        let policy = RetryPolicy::Backoff {
            base: Duration::from_secs(10),
            factor: 2.0,
            max_delay: MINUTE * 20,
            max_attempts: 10_000,
        };
        let retry = Retry { policy, jitter: 0.2 };
        let endpoints = 1 + sim.draw(3);
        let mut numbers = Vec::new();
        for _ in 0..endpoints {
            numbers.push(sim.endpoint(|it| it.retry = retry.clone()).await.no);
        }
        let mut since = BTreeMap::new();
        for round in 0..30 {
            // Somebody is out for hours, longer than events are kept.
            let who = numbers[sim.draw(endpoints) as usize];
            let mood = (sim.draw(3) == 0).then_some(Mood::Answers(503, None));
            sim.receiver.be(who, mood);
            for n in 0..sim.draw(20) {
                sim.publish(round * 100 + n).await;
            }
            let now = sim.elapsed();
            for id in sim.acknowledged.keys() {
                since.entry(id.clone()).or_insert(now);
            }
            sleep(MINUTE * sim.draw(90) as u32).await;
            if sim.draw(3) == 0 {
                sim.crash();
                sim.start().await;
            }
            check(&sim, endpoints as usize, &since, seed);
        }
        for no in numbers {
            sim.receiver.be(no, None);
        }
        sim.receiver.refuse(0.0);
        sleep(HOUR * 12).await;
        for crashed in [false, true] {
            if crashed {
                sim.crash();
                sim.start().await;
            }
            assert_eq!(check(&sim, endpoints as usize, &since, seed), since.len(), "seed {seed}");
            assert_eq!((sim.shard().unfinished(), sim.shard().dead()), ((0, 0), 0), "seed {seed}");
        }
    }
}

pub(crate) async fn dead_letters_and_replays_hold_their_events() {
    let mut sim = Sim::new(3, 0.0);
    sim.keep = keep(2);
    sim.start().await;
    let policy = RetryPolicy::Backoff { base: HOUR, factor: 1.0, max_delay: HOUR, max_attempts: 6 };
    let failing = sim.endpoint(|it| it.retry = Retry { policy, jitter: 0.0 }).await;
    sim.receiver.be(failing.no, Some(Mood::Answers(500, None)));
    sim.publish(1).await;
    let id = sim.acknowledged.keys().next().expect("one").clone();
    // Five hours of attempts, and as a dead letter two hours more.
    sleep(HOUR * 5 + MINUTE * 30).await;
    assert_eq!((sim.shard().dead(), sim.shard().unfinished()), (1, (0, 0)));
    sleep(MINUTE * 60).await;
    assert!(is_there(&sim, &id));
    let (_, key, state) = deliveries(&sim).remove(0);
    assert!(matches!(state, DeliveryState::Dead { .. }));

    // A replay that does not come further holds it for as long as it runs.
    let now = sim.shard().draw().0;
    let replay = replay(&sim, failing.no, now);
    sim.shard().start_replay(&replay).await.expect("it starts");
    sleep(HOUR * 9).await;
    sim.crash();
    sim.start().await;
    sleep(HOUR).await;
    assert_eq!((is_there(&sim, &id), sim.shard().dead()), (true, 1), "{key:?}");
    sim.shard().stop_replay(&replay.tenant, &replay.id).await.expect("it stops");
    sleep(MINUTE * 20).await;
    assert_eq!((is_there(&sim, &id), sim.shard().dead()), (false, 0), "{key:?}");
    let tenant = sim.shard().catalog().tenant(&Slug::default_tenant()).expect("it").tenant.no;
    let end = DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) };
    assert_eq!(sim.shard().dead_before(tenant, (Timestamp(u64::MAX), end)).count(), 0);
}

fn replay(sim: &Sim, endpoint_no: EndpointNo, now: Timestamp) -> Replay {
    let catalog = sim.shard().catalog();
    let endpoint = catalog.endpoint(endpoint_no).expect("it is there");
    Replay {
        id: "rpl_1".to_owned(),
        tenant: Slug::default_tenant(),
        endpoint: endpoint.id.clone(),
        endpoint_no,
        since: Timestamp(0),
        until: now,
        event_types: Vec::new(),
        undelivered_only: false,
        state: ReplayState::Running,
        first: Seq(1),
        last: Seq(1),
        cursor: Seq(0),
        examined: 0,
        replayed: 0,
        created_at: now,
        updated_at: now,
    }
}
