//! Whole-gateway tests in simulated time. Every failure prints a seed; the seed replays it:
//! `SEED=42 cargo test -p hookgate-tests --test sim`. `SEEDS=5000` runs more of them.

mod scheduling;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use hookgate::domain::{DeliveryKey, DeliveryState, EventId, Format, Ordering, Retry, RetryPolicy};
use hookgate_tests::Sim;
use tokio::time::sleep;

const SEEDS: u64 = 150;
const EVENTS: u64 = 40;
const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 3600);

/// The seeds of this run.
fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    }
}

/// Publishes between crashes at awkward moments, then lets two days pass without any.
async fn live(seed: u64, ordering: Ordering) -> Sim {
    let mut sim = Sim::new(seed, 0.4);
    sim.start().await;
    let endpoints = 1 + sim.draw(3);
    for _ in 0..endpoints {
        sim.endpoint(|it| it.ordering = ordering).await;
    }
    let crashes = 1 + sim.draw(4);
    for round in 0..=crashes {
        for n in 0..EVENTS {
            sim.publish(round * EVENTS + n).await;
            if sim.draw(4) == 0 {
                sleep(Duration::from_millis(sim.draw(300))).await;
            }
        }
        if round < crashes {
            sleep(Duration::from_millis(sim.draw(1500))).await;
            sim.crash();
            sim.start().await;
        }
    }
    sleep(TWO_DAYS).await;
    sim
}

/// Every delivery of every acknowledged event, with where it stands.
fn deliveries(sim: &Sim) -> Vec<(String, DeliveryKey, DeliveryState)> {
    let shard = sim.shard();
    let mut all = Vec::new();
    for id in sim.acknowledged.keys() {
        let no = shard.catalog().tenants().next().expect("a tenant").tenant.no;
        let parsed = EventId::parse(id).expect("an id");
        let event = shard.event_by_id(no, &parsed).expect("a store").expect("it was acknowledged");
        for endpoint in shard.targets(event.seq).expect("a store") {
            let key = DeliveryKey { seq: event.seq, endpoint };
            all.push((id.clone(), key, shard.state(key).expect("a store")));
        }
    }
    all
}

#[tokio::test(start_paused = true)]
async fn nothing_acknowledged_is_lost() {
    for seed in seeds() {
        let sim = live(seed, Ordering::None).await;
        let endpoints = sim.shard().catalog().endpoints().count();
        let all = deliveries(&sim);
        assert_eq!(all.len(), sim.acknowledged.len() * endpoints, "seed {seed}");
        let got = sim.receiver.got();
        for (id, key, state) in &all {
            match state {
                DeliveryState::Delivered => assert!(
                    got.iter().any(|it| it.accepted && it.id == *id),
                    "seed {seed}: {id} is said to be delivered and was not"
                ),
                DeliveryState::Dead { .. } => {}
                other => panic!("seed {seed}: {id} at {key:?} is {other:?} after two days"),
            }
        }
        assert_eq!(sim.shard().unfinished(), (0, 0), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_delivered_that_was_not_published() {
    for seed in seeds().take(30) {
        let sim = live(seed, Ordering::None).await;
        for received in sim.receiver.got() {
            // An event whose acknowledgement was lost in a crash may be there all the same.
            let Some(data) = sim.acknowledged.get(&received.id) else { continue };
            let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
            let data: serde_json::Value = serde_json::from_slice(data).expect("JSON");
            assert_eq!((&body["data"], &body["id"]), (&data, &received.id.clone().into()));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_crash_nothing_is_accepted_twice() {
    for seed in seeds().take(30) {
        let mut sim = Sim::new(seed, 0.4);
        sim.start().await;
        sim.endpoint(|it| it.format = Format::Raw).await;
        for n in 0..EVENTS {
            sim.publish(n).await;
        }
        sleep(TWO_DAYS).await;
        let mut accepted = BTreeMap::<_, u32>::new();
        for received in sim.receiver.got().into_iter().filter(|it| it.accepted) {
            *accepted.entry(received.id).or_default() += 1;
        }
        assert!(accepted.values().all(|it| *it == 1), "seed {seed}: {accepted:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_strict_endpoint_gets_events_in_order() {
    for seed in seeds().take(60) {
        let sim = live(seed, Ordering::Strict).await;
        let dead: BTreeSet<_> = deliveries(&sim)
            .into_iter()
            .filter(|(_, _, state)| matches!(state, DeliveryState::Dead { .. }))
            .map(|(id, ..)| id)
            .collect();
        let mut last = BTreeMap::<u64, String>::new();
        let mut seen = BTreeSet::new();
        for received in sim.receiver.got().into_iter().filter(|it| it.accepted) {
            let first = seen.insert((received.pool, received.id.clone()));
            if !first || dead.contains(&received.id) {
                continue;
            }
            if let Some(before) = last.insert(received.pool, received.id.clone()) {
                assert!(before < received.id, "seed {seed}: {} after {before}", received.id);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_takes_ends_as_a_dead_letter_and_can_be_redriven() {
    let mut sim = Sim::new(1, 1.0);
    sim.start().await;
    let backoff = RetryPolicy::Backoff {
        base: Duration::from_secs(1),
        factor: 2.0,
        max_delay: Duration::from_secs(10),
        max_attempts: 4,
    };
    sim.endpoint(|it| it.retry = Retry { policy: backoff, jitter: 0.2 }).await;
    sim.publish(1).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(sim.receiver.got().len(), 4);
    assert_eq!(sim.shard().dead(), 1);
    sim.receiver.refuse(0.0);
    let (_, key, _) = deliveries(&sim).remove(0);
    let tenant = sim.shard().catalog().tenants().next().expect("a tenant").tenant.no;
    sim.shard().requeue(tenant, key, hookgate::domain::Trigger::Manual).await.expect("a store");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(deliveries(&sim).remove(0).2, DeliveryState::Delivered);
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    let (first, second) = (live(7, Ordering::None).await, live(7, Ordering::None).await);
    assert!(first.receiver.got().len() > 40);
    assert_eq!(first.receiver.got(), second.receiver.got());
}
