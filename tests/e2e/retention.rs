//! What is too old is gone for whoever asks, and its room comes back. The store is made with a
//! clock of long ago; the binary that opens it has today's.

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use hookgate::{
    domain::{
        Attempt, DeadReason, DeliveryKey, EventId, EventType, Outcome, Quota, Slug, Spent,
        Timestamp, Trigger, Verdict,
    },
    storage::{Allowance, Config, MasterKey, MasterKeys, NewEvent, Store, conformance},
    world::{Clock, SeededEntropy, SimClock, SystemClock},
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::publish;
use hookgate_tests::{Gateway, binary};

const EVENTS: usize = 50_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

fn attempt(delivery: DeliveryKey, at: Timestamp, verdict: Verdict) -> Attempt {
    Attempt {
        id: format!("att_{}", delivery.seq.0),
        delivery,
        number: 1,
        trigger: Trigger::Schedule,
        started_at: at,
        duration: Duration::from_millis(3),
        spent: Spent::default(),
        outcome: Outcome { name: "status".into(), status_code: Some(200), error: None },
        plugins: Vec::new(),
        parts: None,
        request_headers: Vec::new(),
        response_headers: Vec::new(),
        response_body: bytes::Bytes::new(),
        response_truncated: false,
        verdict,
    }
}

/// Events of forty days ago, all of them delivered but the last, which is a dead letter.
async fn make(data: &Path) {
    let ago = Timestamp(SystemClock.now().0 - (40 * DAY).as_millis() as u64);
    let clock: Arc<dyn Clock> = Arc::new(SimClock::starting_at(ago));
    let noise = Arc::new(SeededEntropy::new(3));
    let masters = MasterKeys::new(MasterKey::parse(&"07".repeat(32)).unwrap());
    let world = (clock.clone(), noise.clone() as _);
    let (store, writers) = Store::open(data, &Config::default(), masters, world).unwrap();
    let writers = writers.start(&store).unwrap();
    let tenant = Slug::default_tenant();
    let shard = store.shard(&tenant);
    shard.adopt_master_key().await.unwrap();
    shard.put_tenant(&tenant, |_| Ok(("Default".to_owned(), Quota::default()))).await.unwrap();
    let endpoint = shard.create_endpoint(&tenant, conformance::endpoint_by_hand).await.unwrap();
    let endpoint = Arc::new(endpoint);
    for chunk in 0..EVENTS / 500 {
        let new = (0..500).map(|n| {
            let noise: String = (0..64).map(|_| format!("{:016x}", draw(&noise))).collect();
            let mut event =
                NewEvent::new(EventType::parse("a.b").unwrap(), json!(noise).to_string().into());
            event.id = EventId::parse(&format!("old-{}", chunk * 500 + n));
            event
        });
        let before = shard.last_seq();
        shard.append(&tenant, new.collect(), true).await.unwrap();
        let events = shard.read_after(before, 500).await.unwrap();
        let targets: Vec<_> = events.into_iter().map(|it| (it, vec![endpoint.clone()])).collect();
        shard.enqueue(&targets).await.unwrap();
        let allowed = Allowance::of(500);
        let lent = shard.lease(endpoint.no, allowed).await.unwrap();
        assert_eq!(lent.leases.len(), 500);
        for lease in lent.leases {
            let verdict = match lease.key.seq.0 == EVENTS as u64 {
                true => Verdict::Dead(DeadReason::Gone),
                false => Verdict::Delivered,
            };
            let attempt = attempt(lease.key, clock.now(), verdict);
            shard.settle(lease, attempt).await.unwrap();
        }
    }
    writers.stop().await;
}

fn draw(noise: &SeededEntropy) -> u64 {
    use hookgate::world::Entropy;
    noise.draw()
}

/// Bytes of all files of the store but its journals, which are as long as they were made.
fn taken(folder: &Path) -> u64 {
    let mut sum = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => sum += taken(&path),
            false if path.extension().is_some_and(|it| it == "jnl") => {}
            false => sum += entry.metadata().map_or(0, |it| it.len()),
        }
    }
    sum
}

fn metric(metrics: &Value, name: &str) -> f64 {
    let mut lines = metrics.as_str().unwrap().lines();
    let line = lines.find(|it| it.starts_with(&format!("{name} "))).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Waits until a metric is as it should be: the gateway looks after its start, and counts behind
/// what it did.
async fn becomes(gateway: &Gateway, name: &str, right: impl Fn(f64) -> bool) {
    let mut is = f64::NAN;
    for _ in 0..600 {
        is = metric(&gateway.get("/metrics").await, name);
        if right(is) {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{name} stays {is}");
}

/// Kept long enough, nothing is gone; a delivery's id.
async fn all_is_there(gateway: &Gateway) -> String {
    let dead = gateway.get("dead-letters").await;
    assert_eq!(dead["data"][0]["event_id"], format!("old-{}", EVENTS - 1));
    let last = gateway.get(&format!("events/old-{}/deliveries", EVENTS - 2)).await;
    let delivery = last["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(last["data"][0]["status"], "delivered");
    let forty_days = |it: f64| (it - (40 * DAY).as_secs_f64()).abs() < 3600.0;
    becomes(gateway, "hookgate_events_oldest_age_seconds", forty_days).await;
    delivery
}

/// Only the event that was published since is left.
async fn all_is_gone_but(gateway: &Gateway, fresh: &str, delivery: &str, restarted: bool) {
    let events = gateway.get("events").await;
    let ids: Vec<_> = events["data"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, [fresh], "restarted: {restarted}");
    for list in ["dead-letters", "deliveries?status=delivered"] {
        assert_eq!(gateway.get(list).await["data"], json!([]), "{list}");
    }
    for rest in [
        format!("events/old-{}", EVENTS - 1),
        "events/old-0".to_owned(),
        "events/old-0/deliveries".to_owned(),
        "events/old-0/explain".to_owned(),
        format!("deliveries/{delivery}"),
        format!("deliveries/{delivery}/attempts"),
    ] {
        let (status, body) = gateway.call(Method::GET, &rest, None).await;
        assert_eq!(status, 404, "{rest}: {body}");
    }
    let trimmed = if restarted { 0.0 } else { EVENTS as f64 };
    becomes(gateway, "hookgate_events_trimmed_total", |it| it == trimmed).await;
    becomes(gateway, "hookgate_dead_letters", |it| it == 0.0).await;
    becomes(gateway, "hookgate_events_oldest_age_seconds", |it| it < 3600.0).await;
}

async fn replays_nothing(gateway: &Gateway) {
    // Replaying what is gone replays nothing.
    let replay = json!({ "endpoint": "e1", "since": "2020-01-01T00:00:00Z" });
    let replay = gateway.post("replays", replay).await;
    let path = format!("replays/{}", replay["id"].as_str().unwrap());
    let finished = async {
        while gateway.get(&path).await["status"] != "finished" {
            sleep(Duration::from_millis(20)).await;
        }
        gateway.get(&path).await
    };
    let replay = timeout(Duration::from_secs(30), finished).await.unwrap();
    assert!(replay["examined"].as_u64().unwrap() <= 1, "{replay}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_is_gone_and_its_room_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    make(&data).await;
    let before = taken(&data);
    assert!(before > 30_000_000, "{before}");
    let key = "07".repeat(32);
    let environment = [("HOOKGATE_MASTER_KEY", key.as_str())];
    let flags = ["--allow-private-endpoints", "--retention=30d", "--trust-clock"];
    let start = |flags| Gateway::start_in(&data, flags, &environment);

    // So much later that the clock may be wrong: nothing goes at once.
    let mut gateway = start(&flags[..2]);
    let delivery = all_is_there(&gateway).await;
    let ready = gateway.get("/readyz").await;
    assert!(ready["warnings"][0].as_str().unwrap().contains("clock"), "{ready}");
    becomes(&gateway, "hookgate_clock_skewed", |it| it == 1.0).await;
    assert!(gateway.terminate().await.success());

    let mut gateway = start(&flags);
    let gone = async {
        while !gateway.get("events").await["data"].as_array().unwrap().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), gone).await.unwrap();
    let fresh = publish(&gateway, "a.b", json!({})).await;
    for restarted in [false, true] {
        if restarted {
            gateway.kill();
            gateway = start(&flags);
        }
        all_is_gone_but(&gateway, &fresh, &delivery, restarted).await;
    }
    replays_nothing(&gateway).await;
    // A name that was used is free.
    let again = json!({ "id": "old-0", "type": "a.b", "data": { "n": 2 } });
    assert_eq!(gateway.post("events", again).await["status"], "accepted");
    let smaller = async {
        while taken(&data) > before / 3 {
            sleep(Duration::from_millis(50)).await;
        }
    };
    let smaller = timeout(Duration::from_secs(60), smaller).await;
    assert!(smaller.is_ok(), "{} of {before} bytes are left", taken(&data));
    assert!(gateway.terminate().await.success());

    let verify = Command::new(binary())
        .args(["store", "verify", "--json", "--data-dir"])
        .arg(&data)
        .output();
    let found: Value = serde_json::from_slice(&verify.unwrap().stdout).unwrap();
    assert_eq!(found["damage"], json!([]), "{found}");
    assert_eq!(found["holds_from"], json!([EVENTS + 1]));
}

#[tokio::test]
async fn a_tenant_has_its_own_and_a_wrong_one_is_refused() {
    let (_folder, gateway, _endpoint) = crate::bench().await;
    let path = "/v1/tenants/brief";
    let (status, made) =
        gateway.call(Method::PUT, path, Some(json!({ "quota": { "retention": "7d" } }))).await;
    assert_eq!((status, &made["quota"]["retention"]), (201, &json!("168h")));
    assert_eq!(gateway.get(path).await["quota"]["retention"], "168h");
    for (given, expected) in [("forever", 200), ("30m", 422), ("soon", 422)] {
        let quota = json!({ "quota": { "retention": given } });
        let (status, answer) = gateway.call(Method::PUT, path, Some(quota)).await;
        assert_eq!(status, expected, "{answer}");
    }
    assert_eq!(gateway.get(path).await["quota"]["retention"], "forever");
    let started = Command::new(binary()).args(["serve", "--retention", "30m"]).output().unwrap();
    assert_eq!(started.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&started.stderr).contains("retention"));
}
