//! Whole-gateway tests in simulated time. Every failure prints a seed; the seed replays it:
//! `SEED=42 cargo test -p hookgate-tests --test sim`. More of them:
//! `cargo test -p hookgate-tests --test sim -- --seeds 5000`.

mod changes;
mod clock;
mod idempotency;
mod plugins;
mod retention;
mod scheduling;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    process::ExitCode,
    sync::OnceLock,
    time::Duration,
};

use hookgate::domain::{DeliveryKey, DeliveryState, EventId, Format, Ordering, Retry, RetryPolicy};
use hookgate_tests::Sim;
use libtest_mimic::{Arguments, Trial};
use tokio::time::sleep;

const SEEDS: u64 = 500;
/// Seeds that failed once, before what they found was mended.
const SEEDS_KEPT: [u64; 0] = [];
const EVENTS: u64 = 40;
const TWO_DAYS: Duration = Duration::from_secs(2 * 24 * 3600);

static SEEDS_ASKED: OnceLock<u64> = OnceLock::new();

type Test = fn() -> Pin<Box<dyn Future<Output = ()>>>;

/// A test with its name.
macro_rules! test {
    ($($path:ident)::+) => {
        (stringify!($($path)::+), || Box::pin($($path)::+()))
    };
}

/// The harness of `cargo test` knows no option of ours, so this is one of our own.
fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|it| it == "--seeds") {
        let asked = arguments.get(place + 1).and_then(|it| it.parse().ok());
        SEEDS_ASKED.set(asked.expect("--seeds takes a number")).expect("it is set once");
        arguments.drain(place..=place + 1);
    }
    let tests: Vec<(&str, Test)> = vec![
        test!(nothing_acknowledged_is_lost),
        test!(nothing_is_delivered_that_was_not_published),
        test!(without_a_crash_nothing_is_accepted_twice),
        test!(a_strict_endpoint_gets_events_in_order),
        test!(what_nobody_takes_ends_as_a_dead_letter_and_can_be_redriven),
        test!(the_same_seed_gives_the_same_history),
        test!(idempotency::what_is_repeated_over_a_crash_is_one_event),
        test!(plugins::the_same_seed_gives_the_same_history),
        test!(retention::nothing_goes_before_it_is_finished_and_then_everything),
        test!(retention::dead_letters_and_replays_hold_their_events),
        test!(scheduling::each_key_keeps_its_order_over_retries_and_crashes),
        test!(scheduling::a_dead_endpoint_is_probed_and_then_ramped_up),
        test!(scheduling::who_asks_to_be_left_alone_is_left_alone),
        test!(scheduling::retries_come_when_they_are_due),
        test!(scheduling::days_of_nothing_but_failure_disable_an_endpoint),
        test!(scheduling::what_is_held_too_long_expires),
        test!(scheduling::what_breaks_inside_is_given_up_and_the_next_goes),
        test!(scheduling::an_attempt_that_never_ends_is_given_up),
        test!(scheduling::of_what_tells_of_failures_nothing_is_told),
        test!(scheduling::a_redrive_keeps_to_its_share_and_what_is_asked_for_goes_first),
        test!(changes::a_changed_order_reaches_what_waits),
        test!(changes::a_new_order_begins_behind_what_is_under_way),
        test!(changes::what_is_asked_for_is_no_debt_of_the_rate),
        test!(changes::what_is_asked_for_goes_first_wherever_it_waits),
        test!(changes::what_is_asked_for_is_held_while_the_endpoint_is_disabled),
        test!(changes::what_is_asked_for_while_it_is_attempted_follows_at_once),
        test!(changes::a_pause_outlives_a_restart),
        test!(changes::a_redrive_at_a_disabled_endpoint_is_as_old_as_the_wish),
        test!(clock::a_start_with_a_clock_that_is_ahead_ends_nothing),
        test!(clock::a_clock_set_back_while_it_is_doubted_ends_nothing),
        test!(clock::a_long_outage_ends_by_itself),
        test!(clock::a_clock_that_is_behind_does_not_take_time_back),
        test!(clock::who_says_that_the_clock_is_right_is_believed),
        test!(clock::a_jump_changes_no_wait),
        test!(scheduling::a_hundred_thousand_endpoints_with_a_retry_each),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        Trial::test(name, move || {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build();
            runtime.expect("a runtime").block_on(test());
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_iter(arguments), trials.collect()).exit_code()
}

/// The seeds of this run.
fn seeds() -> impl Iterator<Item = u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|it| it.parse::<u64>().ok());
    let all = SEEDS_ASKED.get().copied().or(number("SEEDS")).unwrap_or(SEEDS);
    let (kept, range) = match number("SEED") {
        Some(seed) => (&SEEDS_KEPT[..0], seed..seed + 1),
        None => (&SEEDS_KEPT[..], 0..all),
    };
    kept.iter().copied().chain(range)
}

/// Publishes between crashes at awkward moments, then lets two days pass without any.
async fn live(seed: u64, ordering: Ordering) -> Sim {
    let mut sim = Sim::new(seed, 0.4);
    sim.start().await;
    sim.endpoint_to_ask().await;
    let endpoints = 1 + sim.draw(3);
    for _ in 0..endpoints {
        sim.endpoint(|it| it.ordering = ordering).await;
    }
    let crashes = 1 + sim.draw(4);
    for round in 0..=crashes {
        if round < crashes && sim.draw(3) == 0 {
            sim.fail_disk();
        }
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

async fn nothing_acknowledged_is_lost() {
    for seed in seeds() {
        let sim = live(seed, Ordering::None).await;
        let endpoints = sim.shard().catalog().endpoints().filter(|it| it.filter.is_none()).count();
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

async fn nothing_is_delivered_that_was_not_published() {
    for seed in seeds() {
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

async fn without_a_crash_nothing_is_accepted_twice() {
    for seed in seeds() {
        let mut sim = Sim::new(seed, 0.4);
        sim.start().await;
        sim.endpoint_to_ask().await;
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

async fn a_strict_endpoint_gets_events_in_order() {
    for seed in seeds() {
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

async fn the_same_seed_gives_the_same_history() {
    let (first, second) = (live(7, Ordering::None).await, live(7, Ordering::None).await);
    assert!(first.receiver.got().len() > 40);
    assert_eq!(first.receiver.got(), second.receiver.got());
}
