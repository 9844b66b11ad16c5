//! What somebody changes or asks for while deliveries wait: it reaches what is in memory.

use std::time::Duration;

use hookgate::domain::{
    DeliveryKey, DeliveryState, Endpoint, Ordering, RateLimit, Retry, RetryPolicy, Slug, Trigger,
};
use hookgate_tests::{Mood, Sim};
use tokio::time::sleep;

use crate::deliveries;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn hourly(it: &mut Endpoint) {
    it.retry = Retry { policy: RetryPolicy::Schedule(vec![HOUR; 3]), jitter: 0.0 };
}

async fn change(sim: &Sim, endpoint: &Endpoint, change: impl FnOnce(&mut Endpoint) + Send) {
    let change = |mut it: Endpoint| {
        change(&mut it);
        Ok(it)
    };
    let tenant = Slug::default_tenant();
    sim.shard().update_endpoint(&tenant, &endpoint.id, change).await.expect("an endpoint");
}

/// The endpoint's deliveries, oldest event first.
fn of(sim: &Sim, endpoint: &Endpoint) -> Vec<(DeliveryKey, DeliveryState)> {
    let mut all: Vec<_> = deliveries(sim).into_iter().map(|it| (it.1, it.2)).collect();
    all.retain(|it| it.0.endpoint == endpoint.no);
    all.sort_by_key(|it| it.0.seq);
    all
}

async fn retry(sim: &Sim, key: DeliveryKey) {
    let tenant = sim.shard().catalog().tenants().next().expect("a tenant").tenant.no;
    let asked = sim.shard().requeue(tenant, key, Trigger::Manual).await.expect("a store");
    assert!(asked, "it goes next");
}

/// Which events an endpoint got, in the order they were sent.
fn sent(sim: &Sim, endpoint: &Endpoint) -> Vec<u64> {
    let mut got = sim.receiver.got_by(endpoint.no);
    got.sort_by_key(|it| it.at);
    let number = |body: &[u8]| {
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        body["data"]["n"].as_u64().expect("a number")
    };
    got.iter().map(|it| number(&it.body)).collect()
}

pub(crate) async fn a_changed_order_reaches_what_waits() {
    let mut sim = Sim::new(21, 0.0);
    sim.start().await;
    let strict = |it: &mut Endpoint| {
        hourly(it);
        it.ordering = Ordering::Strict;
    };
    let endpoint = sim.endpoint(strict).await;
    sim.receiver.be(endpoint.no, Some(Mood::Answers(500, None)));
    for n in 0..3 {
        sim.publish(n).await;
    }
    sleep(SECOND).await;
    assert_eq!(sent(&sim, &endpoint), [0], "the others wait for the first");
    sim.receiver.be(endpoint.no, None);
    change(&sim, &endpoint, |it| it.ordering = Ordering::None).await;
    sim.publish(3).await;
    sleep(SECOND).await;
    let mut got = sent(&sim, &endpoint);
    got.sort_unstable();
    assert_eq!(got, [0, 1, 2, 3], "nobody waits for it any more");
    // And back: its retry holds those that come now, over a restart too.
    change(&sim, &endpoint, |it| it.ordering = Ordering::Strict).await;
    sim.publish(4).await;
    sleep(SECOND).await;
    sim.crash();
    sim.start().await;
    sleep(HOUR / 2).await;
    assert_eq!(sent(&sim, &endpoint).len(), 4);
    sleep(HOUR).await;
    assert_eq!(sent(&sim, &endpoint)[4..], [0, 4]);
    assert_eq!(sim.shard().unfinished(), (0, 0));
}

pub(crate) async fn a_new_order_begins_behind_what_is_under_way() {
    let mut sim = Sim::new(22, 0.0);
    sim.start().await;
    let slow = |it: &mut Endpoint| {
        hourly(it);
        it.rate_limit = Some(RateLimit { per_second: 8.0, burst: 1 });
    };
    let endpoint = sim.endpoint(slow).await;
    for n in 0..30 {
        sim.publish(n).await;
    }
    sleep(SECOND).await;
    let changed = sim.elapsed();
    change(&sim, &endpoint, |it| {
        (it.ordering, it.rate_limit) = (Ordering::Strict, None);
    })
    .await;
    sleep(HOUR).await;
    let mut got = sim.receiver.got_by(endpoint.no);
    got.sort_by_key(|it| it.at);
    assert_eq!(got.len(), 30);
    let before = got.iter().filter(|it| it.at < changed).count();
    assert!((2..20).contains(&before), "{before} went before");
    for at in before..30 {
        let out = got[..at].iter().filter(|it| it.answered > got[at].at).count();
        assert_eq!(out, 0, "one at a time");
    }
    let order = sent(&sim, &endpoint);
    assert!(order[before..].is_sorted(), "{order:?}");
}

pub(crate) async fn what_is_asked_for_is_no_debt_of_the_rate() {
    let mut sim = Sim::new(23, 0.0);
    sim.start().await;
    let limit = RateLimit { per_second: 2.0, burst: 2 };
    let endpoint = sim.endpoint(|it| it.rate_limit = Some(limit)).await;
    for n in 0..60 {
        sim.publish(n).await;
    }
    sleep(SECOND * 40).await;
    assert_eq!(sent(&sim, &endpoint).len(), 60);
    for (key, _) in of(&sim, &endpoint) {
        retry(&sim, key).await;
    }
    sleep(SECOND * 4).await;
    assert_eq!(sent(&sim, &endpoint).len(), 120, "past the limit, as whoever asks may");
    sim.publish(60).await;
    sleep(SECOND * 2).await;
    assert!(sent(&sim, &endpoint).contains(&60), "what is new does not pay for it");
}

pub(crate) async fn what_is_asked_for_goes_first_wherever_it_waits() {
    const EVENTS: u64 = 1500;
    let mut sim = Sim::new(24, 0.0);
    sim.start().await;
    let one = |it: &mut Endpoint| (it.max_in_flight, it.timeout) = (1, HOUR);
    let endpoint = sim.endpoint(one).await;
    let strict = |it: &mut Endpoint| {
        hourly(it);
        it.ordering = Ordering::Strict;
    };
    let ordered = sim.endpoint(strict).await;
    sim.receiver.be(endpoint.no, Some(Mood::Hangs));
    sim.receiver.be(ordered.no, Some(Mood::Answers(500, None)));
    for n in 0..EVENTS {
        sim.publish(n).await;
    }
    sleep(SECOND).await;
    for endpoint in [&endpoint, &ordered] {
        sim.receiver.be(endpoint.no, None);
        let all = of(&sim, endpoint);
        for at in [5, EVENTS - 1] {
            let (key, state) = &all[at as usize];
            assert_eq!(*state, DeliveryState::Pending);
            retry(&sim, *key).await;
            sleep(SECOND * 2).await;
            assert_eq!(sim.shard().state(*key).expect("a store"), DeliveryState::Delivered);
        }
    }
    sleep(HOUR * 6).await;
    for endpoint in [&endpoint, &ordered] {
        assert!(of(&sim, endpoint).iter().all(|it| it.1 == DeliveryState::Delivered));
        let mut got = sent(&sim, endpoint);
        got.sort_unstable();
        got.dedup();
        assert_eq!(got.len() as u64, EVENTS);
    }
    assert_eq!(sent(&sim, &ordered).len() as u64, EVENTS + 1, "the first twice, no other");
}

pub(crate) async fn what_is_asked_for_is_held_while_the_endpoint_is_disabled() {
    let mut sim = Sim::new(25, 0.0);
    sim.start().await;
    let one = |it: &mut Endpoint| {
        hourly(it);
        it.max_in_flight = 1;
    };
    let endpoint = sim.endpoint(one).await;
    sim.publish(0).await;
    sleep(SECOND).await;
    sim.receiver.be(endpoint.no, Some(Mood::Answers(500, None)));
    sim.publish(1).await;
    sleep(SECOND).await;
    sim.receiver.be(endpoint.no, Some(Mood::Hangs));
    for n in 2..6 {
        sim.publish(n).await;
    }
    sleep(SECOND).await;
    change(&sim, &endpoint, |it| it.enabled = false).await;
    sleep(HOUR * 2).await;
    sim.receiver.be(endpoint.no, None);
    let before = (sent(&sim, &endpoint).len(), of(&sim, &endpoint));
    let states: Vec<_> = before.1.iter().map(|it| it.1.name()).collect();
    assert_eq!(states, ["delivered", "retrying", "retrying", "pending", "pending", "pending"]);
    assert_eq!(sim.shard().overdue().expect("a store").count, 0, "what is held is not late");
    // As if it had been disabled between the question and the answer.
    for at in [0, 1, 5] {
        retry(&sim, before.1[at].0).await;
    }
    sleep(HOUR).await;
    assert_eq!(sent(&sim, &endpoint).len(), before.0, "nothing goes");
    let states: Vec<_> = of(&sim, &endpoint).iter().map(|it| it.1.name()).collect();
    assert_eq!(states, ["retrying", "retrying", "retrying", "pending", "pending", "pending"]);
    sim.crash();
    sim.start().await;
    sleep(SECOND).await;
    assert_eq!(sim.shard().overdue().expect("a store").count, 0, "nor after a restart");
    change(&sim, &endpoint, |it| it.enabled = true).await;
    sleep(HOUR * 2).await;
    assert!(of(&sim, &endpoint).iter().all(|it| it.1 == DeliveryState::Delivered));
}

pub(crate) async fn a_pause_outlives_a_restart() {
    let mut sim = Sim::new(26, 0.0);
    sim.start().await;
    let one = |it: &mut Endpoint| it.max_in_flight = 1;
    let endpoint = sim.endpoint(one).await;
    sim.receiver.be(endpoint.no, Some(Mood::Answers(429, Some("60"))));
    for n in 0..4 {
        sim.publish(n).await;
    }
    sleep(SECOND * 2).await;
    sim.receiver.be(endpoint.no, None);
    assert_eq!(sent(&sim, &endpoint).len(), 1);
    sim.crash();
    sim.start().await;
    sleep(SECOND * 50).await;
    assert_eq!(sent(&sim, &endpoint).len(), 1, "it is still left alone");
    assert_eq!(sim.shard().overdue().expect("a store").count, 0, "on purpose");
    sleep(HOUR).await;
    assert_eq!(sent(&sim, &endpoint).len(), 5);
}

pub(crate) async fn a_redrive_at_a_disabled_endpoint_is_as_old_as_the_wish() {
    let mut sim = Sim::new(27, 0.0);
    sim.config.expire_after = HOUR;
    sim.start().await;
    let endpoint = sim.endpoint(hourly).await;
    sim.publish(0).await;
    sleep(HOUR * 2).await;
    change(&sim, &endpoint, |it| it.enabled = false).await;
    let (key, state) = of(&sim, &endpoint).remove(0);
    assert_eq!(state, DeliveryState::Delivered);
    let tenant = sim.shard().catalog().tenants().next().expect("a tenant").tenant.no;
    let asked = sim.shard().requeue_many(tenant, &[key], Trigger::Replay).await;
    assert_eq!(asked.expect("a store"), 1);
    sleep(HOUR / 2).await;
    assert_eq!(of(&sim, &endpoint)[0].1.name(), "retrying", "it is held");
    sleep(HOUR).await;
    assert_eq!(of(&sim, &endpoint)[0].1.name(), "dead", "and not for ever");
    assert_eq!(sent(&sim, &endpoint), [0]);
}

pub(crate) async fn what_is_asked_for_while_it_is_attempted_follows_at_once() {
    let attempts = |sim: &Sim, it: &Endpoint| sim.receiver.got_by(it.no).len();
    for last in [false, true] {
        let mut sim = Sim::new(29, 0.0);
        sim.start().await;
        let once = |it: &mut Endpoint| {
            let waits = if last { Vec::new() } else { vec![HOUR; 2] };
            it.retry = Retry { policy: RetryPolicy::Schedule(waits), jitter: 0.0 };
        };
        let endpoint = sim.endpoint(once).await;
        sim.receiver.be(endpoint.no, Some(Mood::Hangs));
        sim.publish(1).await;
        sleep(SECOND).await;
        let (key, _) = of(&sim, &endpoint)[0];
        assert!(sim.shard().under_way(key).0);
        retry(&sim, key).await;
        retry(&sim, key).await;
        sim.receiver.be(endpoint.no, Some(Mood::Answers(500, None)));
        sleep(MINUTE).await;
        assert_eq!(attempts(&sim, &endpoint), 2, "last: {last}: another, and no third");
        let (dead, waits) = (u64::from(last), u64::from(!last));
        assert_eq!((sim.shard().dead(), sim.shard().unfinished()), (dead, (0, waits)));
        sim.receiver.be(endpoint.no, Some(Mood::Hangs));
        retry(&sim, key).await;
        sleep(SECOND).await;
        retry(&sim, key).await;
        sim.receiver.be(endpoint.no, None);
        sleep(MINUTE).await;
        assert_eq!(of(&sim, &endpoint)[0].1, DeliveryState::Delivered, "last: {last}");
        assert_eq!(attempts(&sim, &endpoint), 4, "last: {last}: what is delivered is enough");
    }
}
