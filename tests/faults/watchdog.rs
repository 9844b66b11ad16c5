//! A fault of the gateway's own that a watchdog has to notice: an endpoint's turn that is lost.

use std::time::Duration;

use hookgate_tests::{OPERATOR_KEY, TestEndpoint};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::process::Start;

/// Within this it is on its way again.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_forgotten_goes_on_within_a_minute() {
    let folder = tempfile::tempdir().unwrap();
    let receiver = TestEndpoint::start().await;
    let data = folder.path().join("watchdog");
    // The first turn that is given at all: that of the endpoint which was just made.
    let gateway = Start::on(&data).env("HOOKGATE_FAILPOINT", "turn:1").run().unwrap();
    let tenant = format!("{}/v1/tenants/default", gateway.server);
    let post = async |path: &str, body: Value| {
        let request = reqwest::Client::new().post(format!("{tenant}/{path}"));
        let answer = request.bearer_auth(OPERATOR_KEY).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    };
    post("endpoints", json!({ "id": "shop", "url": receiver.url })).await;
    for n in 0..3 {
        post("events", json!({ "type": "a.b", "data": n })).await;
    }
    let published = Instant::now();
    while receiver.got().len() < 3 {
        assert!(published.elapsed() < PATIENCE, "it is forgotten: {}", gateway.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = published.elapsed();
    println!("a forgotten lane went on after {took:?}");
    assert!(took > Duration::from_secs(10), "it was not forgotten: {took:?}");
    let metrics = reqwest::Client::new().get(format!("{}/metrics", gateway.server));
    let metrics = metrics.bearer_auth(OPERATOR_KEY).send().await.unwrap().text().await.unwrap();
    assert!(metrics.lines().any(|it| it == "hookgate_lanes_restarted_total 1"), "{metrics}");
    let said = gateway.said();
    let warned = said.lines().filter(|it| it.contains("their lane was started anew"));
    let warned: Vec<_> = warned.collect();
    assert!(warned.len() == 1, "{said}");
    assert!(warned[0].contains("shop") && warned[0].contains("default"), "{warned:?}");
}
