use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use hookgate_tests::{Ledger, OPERATOR_KEY};
use serde_json::{Value, json};

use crate::process::{Process, Start, times};

const KILLS: u64 = 40;
/// Each failpoint, and the times at which it is come by that it dies at.
const FAILPOINTS: [(&str, &[u64]); 9] = [
    ("before_commit", OFTEN),
    ("after_commit_before_ack", OFTEN),
    ("before_high_water", OFTEN),
    ("during_high_water", OFTEN),
    // Where nobody has come for five milliseconds.
    ("after_sync", &[1, 3]),
    // Every two seconds.
    ("during_cursor_save", &[1]),
    ("before_fan_out", OFTEN),
    ("after_2xx_before_settle", OFTEN),
    ("during_open", &[1]),
];
const OFTEN: &[u64] = &[1, 3, 50];
const LOAD: (Duration, usize) = (Duration::from_millis(1), 200);
/// With moments in which nobody comes.
const LIGHT: (Duration, usize) = (Duration::from_millis(20), 200);
/// Deliveries that can be in flight when it dies: a few producers, three endpoints each.
const IN_FLIGHT: usize = 64;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_forty_moments_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("crash-random");
    let mut ledger = Ledger::open(7).await;
    let kills = KILLS * times();
    for kill in 0..kills {
        let mut gateway = Start::on(&data).run().unwrap();
        ledger.at(&gateway.server);
        if kill == 0 {
            ledger.register("20ms").await;
            ledger.produce("p", 4, LOAD);
        }
        // Golden-ratio steps: spread over the moments of a round, and the same each run.
        let moment = kill * 618_034 % 1_000_000 * 400 / 1_000_000;
        tokio::time::sleep(Duration::from_millis(5 + moment)).await;
        gateway.kill();
    }
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.quiesce().await;
    let balance = ledger.check(kills as usize).await;
    println!("{kills} kills: {balance:?}");
    assert!(balance.acknowledged > 500, "there was load: {balance:?}");
    assert!(balance.duplicates <= kills as usize * IN_FLIGHT, "{balance:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_failpoint_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("crash-failpoints");
    let mut ledger = Ledger::open(7).await;
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.register("20ms").await;
    ledger.produce("p", 4, LIGHT);
    drop(gateway);
    let mut deaths = 1;
    for (failpoint, counts) in FAILPOINTS {
        for count in counts {
            let armed = format!("{failpoint}:{count}");
            let start = Start::on(&data).env("HOOKGATE_FAILPOINT", &armed);
            let code = match start.run() {
                Ok(mut gateway) => {
                    ledger.at(&gateway.server);
                    println!("{armed}");
                    gateway.ended(Duration::from_secs(60)).await
                }
                Err((code, _)) => code,
            };
            assert_eq!(code, None, "{armed} kills it");
            deaths += 1;
        }
    }
    let gateway = Start::on(&data).run().unwrap();
    ledger.at(&gateway.server);
    ledger.quiesce().await;
    let balance = ledger.check(deaths).await;
    println!("{deaths} deaths at failpoints: {balance:?}");
    assert!(balance.acknowledged > 200, "there was load: {balance:?}");
    assert!(balance.duplicates <= deaths * IN_FLIGHT, "{balance:?}");
}

#[test]
fn every_failpoint_is_in_the_matrix() {
    let mut named = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap_or_default();
            let places = text.split("reach(\"").skip(1);
            named.extend(places.filter_map(|it| Some(it.split_once('"')?.0.to_owned())));
        }
    }
    assert_eq!(named, FAILPOINTS.map(|it| it.0.to_owned()).into());
}

/// One request with an idempotency key; status and event's id, or nothing where it died.
async fn publish(server: &str, key: &str) -> Option<(u16, String)> {
    let request = reqwest::Client::new()
        .post(format!("{server}/v1/tenants/default/events"))
        .bearer_auth(OPERATOR_KEY)
        .header("idempotency-key", key)
        .json(&json!({ "type": "a.b", "data": key }));
    let response = request.send().await.ok()?;
    let status = response.status().as_u16();
    let answer: Value = serde_json::from_str(&response.text().await.ok()?).ok()?;
    Some((status, answer["id"].as_str()?.to_owned()))
}

/// Stops it once it has nothing left to write; at the next start that would be counted as well.
async fn finish(mut gateway: Process) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // Retention is looked after at a start, and may be noted; then the oldest event has an age.
    let looked = "hookgate_events_oldest_age_seconds ";
    let metrics = async || {
        let url = format!("{}/metrics", gateway.server);
        let request = reqwest::Client::new().get(url).bearer_auth(OPERATOR_KEY);
        request.send().await.unwrap().text().await.unwrap()
    };
    let has_looked = |metrics: String| {
        let age = metrics.lines().find_map(|it| it.strip_prefix(looked)).unwrap().parse::<f64>();
        age.unwrap() > 0.0
    };
    while !has_looked(metrics().await) {
        assert!(tokio::time::Instant::now() < deadline, "retention is looked after");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(gateway.terminate(), Some(0), "{}", gateway.said());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_and_not_answered_is_found_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("crash-idempotency");
    let mut gateway = Start::on(&data).run().unwrap();
    publish(&gateway.server, "oldest").await.unwrap();
    assert_eq!(gateway.terminate(), Some(0));
    finish(Start::on(&data).run().unwrap()).await;
    let mut deaths = 0;
    let failpoints = ["after_commit_before_ack", "before_high_water"];
    // The first commit is the start's own, which notes its time.
    for (failpoint, count) in failpoints.into_iter().flat_map(|it| [(it, 2), (it, 3)]) {
        let armed = format!("{failpoint}:{count}");
        let key = armed.replace(':', "-");
        let mut gateway = Start::on(&data).env("HOOKGATE_FAILPOINT", &armed).run().unwrap();
        let answered = publish(&gateway.server, &key).await.is_some();
        if answered {
            gateway.kill();
        }
        assert_eq!(gateway.ended(Duration::from_secs(20)).await, None, "{armed} kills it");
        deaths += usize::from(!answered);
        let gateway = Start::on(&data).run().unwrap();
        let (status, id) = publish(&gateway.server, &key).await.unwrap();
        assert_eq!(status, 200, "{armed}: it was on disk, so it is a repetition");
        assert_eq!(publish(&gateway.server, &key).await, Some((200, id)));
        finish(gateway).await;
    }
    assert!(deaths >= failpoints.len(), "it died between disk and answer {deaths} times");
    println!("{deaths} deaths between disk and answer");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_crash_nothing_comes_twice() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("crash-none");
    let mut ledger = Ledger::open(7).await;
    for round in 0..3 {
        let mut gateway = Start::on(&data).run().unwrap();
        ledger.at(&gateway.server);
        if round == 0 {
            ledger.register("20ms").await;
            ledger.produce("p", 4, LOAD);
        }
        tokio::time::sleep(Duration::from_millis(700)).await;
        if round == 2 {
            ledger.quiesce().await;
            ledger.check(0).await;
        }
        assert_eq!(gateway.terminate(), Some(0));
    }
}
