//! What is attempted when: orders, breakers, Retry-After, ramps, shares, disabling, expiry.

use std::{collections::BTreeMap, time::Duration};

use hookgate::domain::{
    DeadReason, DeliveryState, Endpoint, EndpointNo, Ordering, Pattern, Quota, Retention, Retry,
    RetryPolicy, Slug, Trigger,
};
use hookgate::storage::Entry;
use hookgate_tests::{Mood, Received, Sim};
use tokio::time::sleep;

use crate::{deliveries, seeds};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn retry(waits: &[Duration]) -> Retry {
    Retry { policy: RetryPolicy::Schedule(waits.to_vec()), jitter: 0.2 }
}

/// The most requests that were out at once from `from` on, before `to`.
fn at_once(got: &[Received], from: Duration, to: Duration) -> usize {
    let within = got.iter().filter(|it| (from..to).contains(&it.at));
    let mut moments: Vec<_> = within.flat_map(|it| [(it.at, 1), (it.answered, -1)]).collect();
    moments.sort_unstable();
    let out = moments.iter().scan(0, |out, (_, step)| {
        *out += step;
        Some(*out)
    });
    out.max().unwrap_or_default() as usize
}

pub(crate) async fn each_key_keeps_its_order_over_retries_and_crashes() {
    for seed in seeds() {
        let mut sim = Sim::new(seed, 0.4);
        sim.start().await;
        sim.endpoint_to_ask().await;
        let endpoint = sim.endpoint(|it| it.ordering = Ordering::Key).await;
        let mut keys = BTreeMap::new();
        for n in 0..60 {
            let key = format!("k{}", sim.draw(4));
            sim.publish_keyed(n, Some(key.clone())).await;
            keys.insert(n, key);
            if n % 20 == 19 {
                sleep(Duration::from_millis(sim.draw(1500))).await;
                sim.crash();
                sim.start().await;
            }
        }
        sleep(DAY * 2).await;
        let dead: Vec<String> = deliveries(&sim)
            .into_iter()
            .filter(|(.., state)| matches!(state, DeliveryState::Dead { .. }))
            .map(|(id, ..)| id)
            .collect();
        let (mut last, mut seen) = (BTreeMap::new(), std::collections::BTreeSet::new());
        for it in sim.receiver.got_by(endpoint.no) {
            if !it.accepted || !seen.insert(it.id.clone()) || dead.contains(&it.id) {
                continue;
            }
            let body: serde_json::Value = serde_json::from_slice(&it.body).expect("JSON");
            let key = &keys[&body["data"]["n"].as_u64().expect("a number")];
            if let Some(before) = last.insert(key.clone(), it.id.clone()) {
                assert!(before < it.id, "seed {seed}: {} after {before} of {key}", it.id);
            }
        }
    }
}

pub(crate) async fn a_dead_endpoint_is_probed_and_then_ramped_up() {
    for seed in seeds() {
        let mut sim = Sim::new(seed, 0.0);
        sim.config.in_flight_max = 256;
        sim.start().await;
        let endpoint = sim.endpoint(|it| it.retry = retry(&[HOUR; 8])).await;
        let healthy = sim.endpoint(|_| ()).await;
        sim.receiver.be(endpoint.no, Some(Mood::Answers(500, None)));
        for n in 0..300 {
            sim.publish(n).await;
        }
        sleep(Duration::from_secs(30)).await;
        let refused = sim.receiver.got_by(endpoint.no).len();
        assert!((20..=35).contains(&refused), "seed {seed}: {refused} attempts in 30 s");
        assert_eq!(sim.receiver.got_by(healthy.no).len(), 300, "seed {seed}");
        sleep(HOUR - Duration::from_secs(30)).await;
        let mut later = sim.receiver.got_by(endpoint.no);
        later.sort_by_key(|it| it.at);
        let gaps: Vec<_> = later.windows(2).map(|it| it[1].at - it[0].at).collect();
        assert!(later.len() < refused + 20, "seed {seed}: {} attempts in an hour", later.len());
        assert!(
            *gaps.last().expect("there are gaps") > Duration::from_secs(200),
            "seed {seed}: {gaps:?}"
        );
        // A restart remembers it, and probes soon.
        sim.crash();
        sim.start().await;
        sleep(Duration::from_secs(40)).await;
        let after = sim.receiver.got_by(endpoint.no).len() - later.len();
        assert!((1..=3).contains(&after), "seed {seed}: {after} attempts after the restart");
        sim.receiver.be(endpoint.no, None);
        sleep(DAY).await;
        let got = sim.receiver.got_by(endpoint.no);
        let back = got.iter().find(|it| it.accepted).expect("it is back").answered;
        for (step, most) in [(0, 1), (1, 2), (2, 4), (3, 8)] {
            let from = back + SECOND * 10 * step + Duration::from_millis(1);
            let out = at_once(&got, from, from + SECOND * 9);
            assert!(out <= most, "seed {seed}: {out} at once in step {step}");
        }
        let all = deliveries(&sim);
        assert!(all.iter().all(|it| it.2 == DeliveryState::Delivered), "seed {seed}");
    }
}

pub(crate) async fn who_asks_to_be_left_alone_is_left_alone() {
    for (status, text, least) in [
        (429, "7", 7),
        (503, "120", 120),
        (429, "Fri, 15 Jan 2027 08:02:00 GMT", 119),
        (503, "-1", 5),
        (429, "garbage", 5),
        (500, "30", 5),
        (503, "999999999999999999999999", 24 * 3600),
    ] {
        let mut sim = Sim::new(3, 0.0);
        sim.start().await;
        let endpoint = sim.endpoint(|_| ()).await;
        let other = sim.endpoint(|_| ()).await;
        sim.receiver.be(endpoint.no, Some(Mood::Answers(status, Some(text))));
        sim.publish(1).await;
        sleep(SECOND).await;
        sim.receiver.be(endpoint.no, None);
        sim.publish(2).await;
        sleep(DAY * 2).await;
        let got = sim.receiver.got_by(endpoint.no);
        let of = |id: &str| got.iter().filter(|it| it.id == id).collect::<Vec<_>>();
        let first = of(&got[0].id);
        let wait = first[1].at - first[0].answered;
        let most = Duration::from_secs(least) + Duration::from_secs(least / 4 + 3);
        assert!(wait >= Duration::from_secs(least), "{text}: {wait:?}");
        assert!(wait <= most, "{text}: {wait:?}");
        let second = got.iter().find(|it| it.id != got[0].id).expect("the other event");
        if (7..=120).contains(&least) {
            let since = second.at - first[0].answered;
            assert!(since >= Duration::from_secs(least), "{text}: the whole endpoint waits");
        }
        assert!(sim.receiver.got_by(other.no).iter().all(|it| it.accepted));
    }
}

pub(crate) async fn retries_come_when_they_are_due() {
    for seed in seeds() {
        let mut sim = Sim::new(seed, 0.5);
        sim.start().await;
        sim.endpoint(|_| ()).await;
        for n in 0..8 {
            sim.publish(n).await;
            sleep(Duration::from_secs(sim.draw(600))).await;
        }
        sleep(DAY * 2).await;
        for (id, key, _) in deliveries(&sim) {
            let mut due = None;
            for entry in sim.shard().history(key).expect("a store") {
                let Entry::Attempt(attempt) = entry else { continue };
                if let Some(due) = due {
                    assert!(attempt.started_at >= due, "seed {seed}: {id} came early");
                    let late = attempt.started_at - due;
                    assert!(
                        late <= Duration::from_millis(50),
                        "seed {seed}: {id} is {late:?} late"
                    );
                }
                due = match attempt.verdict {
                    hookgate::domain::Verdict::RetryAt(at) => Some(at),
                    _ => None,
                };
            }
        }
    }
}

/// The endpoint that is told of what happens to the others.
async fn watcher(sim: &Sim) -> Endpoint {
    sim.endpoint(|it| it.event_types = vec![Pattern::parse("hookgate.**").expect("a pattern")])
        .await
}

/// The types of what an endpoint got, with how often.
fn types(sim: &Sim, endpoint: EndpointNo) -> BTreeMap<String, usize> {
    let mut types = BTreeMap::new();
    for it in sim.receiver.got_by(endpoint) {
        let body: serde_json::Value = serde_json::from_slice(&it.body).expect("JSON");
        *types.entry(body["type"].as_str().expect("a type").to_owned()).or_default() += 1;
    }
    types
}

pub(crate) async fn days_of_nothing_but_failure_disable_an_endpoint() {
    let mut sim = Sim::new(5, 0.0);
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.retry = retry(&[HOUR; 200])).await;
    let all = sim.endpoint(|_| ()).await;
    let watcher = watcher(&sim).await;
    sim.receiver.be(endpoint.no, Some(Mood::Hangs));
    let enabled =
        |sim: &Sim| sim.shard().catalog().endpoint(endpoint.no).expect("it is there").enabled;
    for n in 0..30 {
        sim.publish(n).await;
    }
    sleep(DAY * 5 - HOUR).await;
    assert!(enabled(&sim));
    sleep(HOUR * 3).await;
    assert!(!enabled(&sim));
    let told = types(&sim, watcher.no);
    assert_eq!((told["hookgate.endpoint.failing"], told["hookgate.endpoint.disabled"]), (2, 1));
    let unasked = types(&sim, all.no).into_keys().any(|it| it.starts_with("hookgate."));
    assert!(!unasked, "only who asks by name is told: {told:?}");
    let held = |sim: &Sim| {
        let open = |it: &DeliveryState| {
            matches!(it, DeliveryState::Pending | DeliveryState::Retrying { .. })
        };
        deliveries(sim).iter().filter(|it| open(&it.2)).count()
    };
    assert_eq!(held(&sim), 30);
    let before = sim.receiver.got_by(endpoint.no).len();
    sleep(DAY).await;
    assert_eq!(sim.receiver.got_by(endpoint.no).len(), before, "nothing is sent to it");
    sim.receiver.be(endpoint.no, None);
    let enable = |mut it: Endpoint| {
        (it.enabled, it.disabled_reason) = (true, None);
        Ok(it)
    };
    let tenant = Slug::default_tenant();
    sim.shard().update_endpoint(&tenant, &endpoint.id, enable).await.expect("an endpoint");
    sleep(HOUR * 2).await;
    assert_eq!(held(&sim), 0);
    assert!(deliveries(&sim).iter().all(|it| it.2 == DeliveryState::Delivered));
}

pub(crate) async fn what_is_held_too_long_expires() {
    let mut sim = Sim::new(6, 0.0);
    sim.keep.events = Retention::Forever;
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.ordering = Ordering::Strict).await;
    let watcher = watcher(&sim).await;
    sim.receiver.be(endpoint.no, Some(Mood::Answers(410, None)));
    for n in 0..200 {
        sim.publish(n).await;
    }
    sleep(DAY).await;
    let reasons = |sim: &Sim| {
        let mut reasons = BTreeMap::<_, usize>::new();
        for (.., state) in deliveries(sim) {
            let name = match state {
                DeliveryState::Dead { reason } => reason.name(),
                other => other.name(),
            };
            *reasons.entry(name).or_default() += 1;
        }
        reasons
    };
    let gone = reasons(&sim).get("gone").copied().unwrap_or_default();
    assert_eq!((gone, sim.receiver.got_by(endpoint.no).len()), (1, 1));
    assert_eq!(reasons(&sim)["pending"], 199);
    sim.crash();
    sim.start().await;
    sleep(DAY * 30).await;
    assert_eq!(reasons(&sim)[DeadReason::Expired.name()], 199);
    assert_eq!(sim.receiver.got_by(endpoint.no).len(), 1);
    assert_eq!(sim.shard().unfinished(), (0, 0));
    let told = types(&sim, watcher.no);
    assert_eq!(told["hookgate.endpoint.disabled"], 1, "{told:?}");
    assert_eq!(told["hookgate.dead_letter"], 1, "{told:?}");
}

pub(crate) async fn what_breaks_inside_is_given_up_and_the_next_goes() {
    let mut sim = Sim::new(8, 0.0);
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.ordering = Ordering::Strict).await;
    sim.receiver.be(endpoint.no, Some(Mood::Breaks("{\"n\":3}")));
    for n in 0..6 {
        sim.publish(n).await;
    }
    sleep(HOUR).await;
    let states: Vec<_> = deliveries(&sim).into_iter().map(|it| it.2).collect();
    let dead = DeliveryState::Dead { reason: DeadReason::InternalError };
    assert_eq!(states.iter().filter(|it| **it == DeliveryState::Delivered).count(), 5);
    assert_eq!(states.iter().filter(|it| **it == dead).count(), 1, "{states:?}");
    let refused = sim.receiver.got_by(endpoint.no).iter().filter(|it| !it.accepted).count();
    assert_eq!(refused, 5, "it was tried five times");
}

pub(crate) async fn an_attempt_that_never_ends_is_given_up() {
    let mut sim = Sim::new(9, 0.0);
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.ordering = Ordering::Strict).await;
    sim.receiver.be(endpoint.no, Some(Mood::Lost));
    sim.publish(1).await;
    sim.publish(2).await;
    sleep(SECOND * 60).await;
    sim.receiver.be(endpoint.no, None);
    sleep(HOUR).await;
    let all = deliveries(&sim);
    assert!(all.iter().all(|it| it.2 == DeliveryState::Delivered), "{all:?}");
    let got: Vec<_> = sim.receiver.got_by(endpoint.no).into_iter().map(|it| it.id).collect();
    assert!(got.len() == 2 && got[0] < got[1], "in order: {got:?}");
    let first = all.iter().find(|it| it.0 == got[0]).expect("the first").1;
    let history = sim.shard().history(first).expect("a store");
    let names = history.into_iter().filter_map(|it| match it {
        Entry::Attempt(attempt) => Some((attempt.outcome.name, attempt.duration)),
        _ => None,
    });
    let names: Vec<_> = names.collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(names[0].0 == "internal" && names[0].1 < SECOND * 300, "{names:?}");
}

pub(crate) async fn of_what_tells_of_failures_nothing_is_told() {
    let mut sim = Sim::new(9, 0.0);
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.retry = retry(&[])).await;
    let told = Pattern::parse("hookgate.**").expect("a pattern");
    let watcher = sim.endpoint(|it| {
        (it.event_types, it.retry) = (vec![told], retry(&[SECOND]));
    });
    let watcher = watcher.await;
    for no in [endpoint.no, watcher.no] {
        sim.receiver.be(no, Some(Mood::Answers(500, None)));
    }
    sim.publish(1).await;
    sleep(DAY).await;
    let types = types(&sim, watcher.no);
    assert_eq!(types, BTreeMap::from([("hookgate.dead_letter".to_owned(), 2)]), "one, tried twice");
}

pub(crate) async fn a_redrive_keeps_to_its_share_and_what_is_asked_for_goes_first() {
    let mut sim = Sim::new(7, 0.0);
    sim.config.in_flight_max = 50;
    sim.start().await;
    let endpoint = sim.endpoint(|it| it.retry = retry(&[])).await;
    sim.receiver.be(endpoint.no, Some(Mood::Answers(400, None)));
    for n in 0..300 {
        sim.publish(n).await;
        sleep(SECOND).await;
        sim.receiver.be(endpoint.no, Some(Mood::Answers(if n % 2 == 0 { 200 } else { 400 }, None)));
    }
    sleep(HOUR).await;
    let dead: Vec<_> = deliveries(&sim)
        .into_iter()
        .filter(|it| matches!(it.2, DeliveryState::Dead { .. }))
        .map(|it| it.1)
        .collect();
    assert!(dead.len() > 100, "{}", dead.len());
    sim.receiver.be(endpoint.no, None);
    let before = sim.receiver.got_by(endpoint.no).len();
    let tenant = sim.shard().catalog().tenants().next().expect("a tenant").tenant.no;
    sleep(SECOND).await;
    let asked = sim.shard().requeue_many(tenant, &dead, Trigger::Replay).await.expect("a store");
    assert_eq!(asked, dead.len() as u64);
    sleep(SECOND * 2).await;
    let (_, key, _) = deliveries(&sim)
        .into_iter()
        .find(|it| it.2 == DeliveryState::Delivered)
        .expect("one is delivered");
    let entries = sim.shard().history(key).expect("a store").len();
    assert!(sim.shard().requeue(tenant, key, Trigger::Manual).await.expect("a store"));
    sleep(SECOND).await;
    assert_eq!(sim.shard().history(key).expect("a store").len(), entries + 2, "at once");
    sleep(HOUR).await;
    assert!(deliveries(&sim).iter().all(|it| it.2 == DeliveryState::Delivered));
    let redriven = &sim.receiver.got_by(endpoint.no)[before..];
    assert_eq!(redriven.len(), dead.len() + 1, "each once, and the one asked for");
    let out = at_once(redriven, Duration::ZERO, Duration::MAX);
    assert!(out >= 2, "{out} at once: a redrive is no walk");
    assert!(out <= 11, "{out} at once: a fifth of the capacity, and the one asked for");
}

pub(crate) async fn a_hundred_thousand_endpoints_with_a_retry_each() {
    const ENDPOINTS: u32 = 100_000;
    let mut sim = Sim::new(8, 1.0);
    sim.config.in_flight_max = 4096;
    sim.start().await;
    let quota = Quota { endpoints_max: Some(ENDPOINTS), ..Quota::default() };
    let tenant = Slug::default_tenant();
    sim.shard().put_tenant(&tenant, |_| Ok(("Default".into(), quota))).await.expect("a quota");
    for _ in 0..ENDPOINTS {
        sim.endpoint(|it| it.retry = retry(&[HOUR])).await;
    }
    sim.publish(1).await;
    sleep(HOUR / 2).await;
    assert_eq!(sim.shard().unfinished(), (0, u64::from(ENDPOINTS)));
    sim.receiver.refuse(0.0);
    sleep(HOUR * 2).await;
    assert_eq!(sim.shard().unfinished(), (0, 0));
    let mut late = Vec::new();
    for (_, key, state) in deliveries(&sim) {
        assert_eq!(state, DeliveryState::Delivered);
        let history = sim.shard().history(key).expect("a store");
        let [Entry::Attempt(first), Entry::Attempt(second)] = &history[..] else { panic!() };
        let hookgate::domain::Verdict::RetryAt(due) = first.verdict else { panic!() };
        assert!(second.started_at >= due);
        late.push(second.started_at - due);
    }
    late.sort_unstable();
    assert!(
        *late.last().expect("some were late") <= Duration::from_millis(50),
        "{:?}",
        late.last()
    );
}
