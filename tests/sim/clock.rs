//! A machine's clock that is wrong, at a start and while it runs: nothing goes because of it.

use std::time::Duration;

use hookgate::domain::{
    DeliveryState, Endpoint, EventId, Retention, Retry, RetryPolicy, Slug, Timestamp,
};
use hookgate::storage::Keep;
use hookgate_tests::{Mood, Sim};
use tokio::time::sleep;

use crate::deliveries;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const YEARS: i64 = 11 * 365 * 24 * 3600 * 1000;

fn hourly(it: &mut Endpoint) {
    it.retry = Retry { policy: RetryPolicy::Schedule(vec![HOUR; 50]), jitter: 0.0 };
}

/// A gateway that keeps two hours, with one endpoint that takes everything and one that nothing.
async fn bench(seed: u64) -> (Sim, Endpoint) {
    let mut sim = Sim::new(seed, 0.0);
    let kept = Retention::For(HOUR * 2);
    sim.keep = Keep { events: kept, audit: kept };
    sim.config.expire_after = DAY * 2;
    sim.start().await;
    sim.endpoint(|_| ()).await;
    let failing = sim.endpoint(hourly).await;
    sim.receiver.be(failing.no, Some(Mood::Answers(500, None)));
    (sim, failing)
}

async fn restart(sim: &mut Sim) {
    // What was not synced yet is.
    sleep(SECOND).await;
    sim.crash();
    sim.start().await;
}

/// Events that are there, and of their deliveries how many are delivered and how many wait.
fn left(sim: &Sim) -> (usize, usize, usize) {
    let shard = sim.shard();
    let tenant = shard.catalog().tenant(&Slug::default_tenant()).expect("it").tenant.no;
    let is_there = |id: &String| {
        let id = EventId::parse(id).expect("an id");
        shard.event_by_id(tenant, &id).expect("a store").is_some()
    };
    let events = sim.acknowledged.keys().filter(|it| is_there(it)).count();
    let states: Vec<_> = match events == sim.acknowledged.len() {
        true => deliveries(sim).into_iter().map(|it| it.2).collect(),
        false => Vec::new(),
    };
    let delivered = states.iter().filter(|it| **it == DeliveryState::Delivered).count();
    let waits = states.iter().filter(|it| matches!(it, DeliveryState::Retrying { .. })).count();
    (events, delivered, waits)
}

/// When the newest event was accepted.
fn newest(sim: &Sim) -> Timestamp {
    let shard = sim.shard();
    shard.event(shard.last_seq()).expect("a store").expect("it is there").accepted_at
}

pub(crate) async fn a_start_with_a_clock_that_is_ahead_ends_nothing() {
    let (mut sim, failing) = bench(31).await;
    sim.publish(1).await;
    sleep(MINUTE).await;
    assert_eq!(left(&sim), (1, 1, 1));
    let before = newest(&sim);
    sim.machine.be_ahead(YEARS);
    restart(&mut sim).await;
    sleep(MINUTE * 30).await;
    sim.publish(2).await;
    // A start again does not make it right.
    restart(&mut sim).await;
    sleep(MINUTE * 50).await;
    assert_eq!(left(&sim), (2, 2, 2), "it takes and delivers");
    let attempts = sim.receiver.got_by(failing.no).len();
    assert!(newest(&sim) > before + DAY * 365);

    sim.machine.be_ahead(0);
    restart(&mut sim).await;
    sleep(SECOND).await;
    sim.publish(3).await;
    sleep(MINUTE * 10).await;
    assert_eq!(left(&sim), (3, 3, 3));
    let (now, last) = (sim.shard().draw().0, newest(&sim));
    assert!(now - before < DAY && now - last <= MINUTE * 10, "{now} {last}");
    // Time is searched for by halves.
    let shard = sim.shard();
    for (at, expected) in [(before, 1), (before + SECOND, 2), (last, 3), (last + SECOND, 4)] {
        assert_eq!(shard.seq_at(at).expect("a store").0, expected, "{at}");
    }
    // What was planned by that clock goes now, and all is as old as it really is.
    assert_eq!(sim.receiver.got_by(failing.no).len(), attempts + 3);
    sim.receiver.be(failing.no, None);
    sleep(HOUR * 5).await;
    assert_eq!((left(&sim).0, sim.shard().unfinished()), (0, (0, 0)));
}

pub(crate) async fn a_clock_set_back_while_it_is_doubted_ends_nothing() {
    let (mut sim, _) = bench(32).await;
    sim.publish(1).await;
    sleep(MINUTE).await;
    sim.machine.be_ahead(YEARS);
    restart(&mut sim).await;
    sleep(MINUTE * 10).await;
    sim.machine.be_ahead(0);
    sleep(HOUR * 5).await;
    assert_eq!(left(&sim), (1, 1, 1), "the gateway's own time is still ahead");
}

pub(crate) async fn a_long_outage_ends_by_itself() {
    let (mut sim, failing) = bench(33).await;
    sim.config.disable_after = DAY * 5;
    sim.publish(1).await;
    sim.publish(2).await;
    sleep(HOUR).await;
    restart(&mut sim).await;
    // Nobody was there for ten days.
    sim.crash();
    sleep(DAY * 10).await;
    sim.start().await;
    sleep(MINUTE * 50).await;
    assert_eq!(left(&sim), (2, 2, 2));
    let enabled = |sim: &Sim| sim.shard().catalog().endpoint(failing.no).expect("it").enabled;
    for n in 3..8 {
        sim.publish(n).await;
    }
    sleep(MINUTE * 5).await;
    assert!(enabled(&sim), "it failed ten days ago, and now");
    sleep(HOUR).await;
    assert_eq!((enabled(&sim), sim.shard().dead()), (false, 2), "what is ten days old expired");
    sleep(HOUR * 4).await;
    assert_eq!(sim.shard().dead(), 0);
}

pub(crate) async fn a_clock_that_is_behind_does_not_take_time_back() {
    let (mut sim, _) = bench(34).await;
    sim.publish(1).await;
    sleep(MINUTE * 20).await;
    let before = newest(&sim);
    sim.machine.be_ahead(-YEARS);
    restart(&mut sim).await;
    sim.publish(2).await;
    let after = newest(&sim);
    assert!(after > before && after < before + HOUR, "{before} {after}");
    sleep(HOUR * 5).await;
    assert_eq!(left(&sim), (2, 2, 2), "by that clock nothing is old");
    sim.machine.be_ahead(0);
    restart(&mut sim).await;
    assert_eq!(left(&sim), (2, 2, 2));
}

pub(crate) async fn who_says_that_the_clock_is_right_is_believed() {
    // The store was made by a clock that was ahead.
    let mut sim = Sim::new(35, 0.0);
    let kept = Retention::For(HOUR * 2);
    sim.keep = Keep { events: kept, audit: kept };
    sim.machine.be_ahead(YEARS);
    sim.start().await;
    sim.endpoint(|_| ()).await;
    sim.publish(1).await;
    sleep(MINUTE).await;
    let before = newest(&sim);
    sim.machine.be_ahead(0);
    restart(&mut sim).await;
    assert!(sim.shard().draw().0 >= before, "time does not go back by itself");
    sim.trust_clock = true;
    restart(&mut sim).await;
    sim.trust_clock = false;
    for round in 0..2 {
        assert!(before - sim.shard().draw().0 > DAY, "{round}");
        restart(&mut sim).await;
    }
    sim.publish(2).await;
    assert!(newest(&sim) < before);
    sleep(HOUR * 5).await;
    assert_eq!(left(&sim).0, 0);
    // And an outage, which nobody waits for.
    sim.publish(3).await;
    restart(&mut sim).await;
    sim.crash();
    sleep(DAY * 10).await;
    sim.trust_clock = true;
    sim.start().await;
    sleep(MINUTE).await;
    assert_eq!(left(&sim).0, 0);
}

pub(crate) async fn a_jump_changes_no_wait() {
    for ahead in [-YEARS, -3_600_000, 3_600_000, YEARS] {
        let (mut sim, failing) = bench(36).await;
        sim.machine.be_ahead(ahead);
        sim.publish(1).await;
        sleep(MINUTE * 40).await;
        assert_eq!(sim.receiver.got_by(failing.no).len(), 1, "{ahead}: an hour is not over");
        sleep(MINUTE * 40).await;
        assert_eq!(sim.receiver.got_by(failing.no).len(), 2, "{ahead}: an hour is over");
    }
}
