use std::time::Duration;

use hookgate_tests::{Ledger, OPERATOR_KEY};
use serde_json::{Value, json};

use crate::process::{Start, times};

const KILLS: u64 = 40;
const FAILPOINTS: [&str; 9] = [
    "before_commit",
    "after_commit_before_ack",
    "before_high_water",
    "during_high_water",
    "after_sync",
    "during_cursor_save",
    "before_fan_out",
    "after_2xx_before_settle",
    "during_open",
];
const LOAD: (Duration, usize) = (Duration::from_millis(1), 200);
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
    ledger.produce("p", 4, LOAD);
    drop(gateway);
    let mut deaths = 1;
    for failpoint in FAILPOINTS {
        for count in [1, 3, 50] {
            if count > 1 && matches!(failpoint, "during_open" | "during_cursor_save") {
                continue;
            }
            let armed = format!("{failpoint}:{count}");
            let start = Start::on(&data).env("HOOKGATE_FAILPOINT", &armed);
            let code = match start.run() {
                Ok(mut gateway) => {
                    ledger.at(&gateway.server);
                    println!("{armed}");
                    gateway.ended(Duration::from_secs(20)).await
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_stored_and_not_answered_is_found_by_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("crash-idempotency");
    // What only the first start writes would be counted as well.
    drop(Start::on(&data).run().unwrap());
    let mut deaths = 0;
    let failpoints = ["after_commit_before_ack", "before_high_water"];
    for (failpoint, count) in failpoints.into_iter().flat_map(|it| [(it, 1), (it, 2)]) {
        let armed = format!("{failpoint}:{count}");
        let key = armed.replace(':', "-");
        let Ok(mut gateway) = Start::on(&data).env("HOOKGATE_FAILPOINT", &armed).run() else {
            continue;
        };
        if publish(&gateway.server, &key).await.is_some() {
            gateway.kill();
            continue;
        }
        assert_eq!(gateway.ended(Duration::from_secs(20)).await, None, "{armed} kills it");
        deaths += 1;
        let gateway = Start::on(&data).run().unwrap();
        let (status, id) = publish(&gateway.server, &key).await.unwrap();
        assert_eq!(status, 200, "{armed}: it was on disk, so it is a repetition");
        assert_eq!(publish(&gateway.server, &key).await, Some((200, id)));
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
