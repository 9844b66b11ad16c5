use std::{collections::BTreeSet, time::Duration};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::register;
use hookgate_tests::{Gateway, OPERATOR_KEY, TestEndpoint};

const ROUNDS: u64 = 10;
const PRODUCERS: u64 = 8;

/// Publishes until the gateway is gone; the ids that were acknowledged.
async fn produce(client: reqwest::Client, url: String, name: String) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for n in 0_u64.. {
        let id = format!("{name}-{n}");
        let body = json!({ "id": id, "type": "load.test", "data": { "n": n } });
        let sent = client.post(&url).bearer_auth(OPERATOR_KEY).json(&body).send().await;
        match sent {
            Ok(response) if response.status().is_success() => acknowledged.push(id),
            Ok(response) => panic!("{}", response.status()),
            Err(_) => break,
        }
    }
    acknowledged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_ten_times_under_load_nothing_acknowledged_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let endpoint = TestEndpoint::start().await;
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut gateway = Gateway::start(&data);
        if round == 0 {
            let retry = json!({ "base": "100ms", "factor": 1, "max_attempts": 50 });
            register(&gateway, &endpoint, json!({ "retry": retry })).await;
        }
        let mut producers = JoinSet::new();
        for producer in 0..PRODUCERS {
            let url = format!("{}/v1/tenants/default/events", gateway.server);
            producers.spawn(produce(reqwest::Client::new(), url, format!("{round}-{producer}")));
        }
        tokio::time::sleep(Duration::from_millis(200 + 97 * (round % 5))).await;
        gateway.kill();
        while let Some(ids) = producers.join_next().await {
            acknowledged.extend(ids.unwrap());
        }
    }
    assert!(acknowledged.len() > 500, "there was load: {}", acknowledged.len());
    let gateway = Gateway::start(&data);
    for _ in 0..1200 {
        let metrics = gateway.get("/metrics").await;
        let pending = metrics
            .as_str()
            .unwrap()
            .lines()
            .filter(|it| it.starts_with("hookgate_deliveries_pending{"));
        if pending.into_iter().all(|it| it.ends_with(" 0")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let received: BTreeSet<String> = endpoint.got().into_iter().map(|it| it.id).collect();
    let lost: Vec<_> = acknowledged.difference(&received).collect();
    assert!(
        lost.is_empty(),
        "{} of {} are lost: {:?}",
        lost.len(),
        acknowledged.len(),
        &lost[..lost.len().min(5)]
    );
    for id in received.difference(&acknowledged) {
        // It was stored, but its acknowledgement was lost with the process.
        let (status, event) = gateway.call(Method::GET, &format!("events/{id}"), None).await;
        assert_eq!((status, &event["type"]), (200, &Value::from("load.test")), "{id}");
    }
}
