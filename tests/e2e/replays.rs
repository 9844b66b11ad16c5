//! Replays of more than an endpoint takes at once: how far they are, and stopping them.

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register, until};

/// More than a replay sets off at once.
const EVENTS: usize = 400;

#[tokio::test]
async fn a_replay_that_is_stopped_sends_no_more_and_all_stands_as_before() {
    let (_folder, gateway, endpoint) = bench().await;
    let never = json!({ "schedule": [] });
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": never })).await;
    endpoint.answer_first([500]);
    publish(&gateway, "a.dead", json!(0)).await;
    until(&gateway, "dead-letters", |it| it["data"][0].is_object()).await;
    let soon = Some(json!({ "retry": { "schedule": vec!["50ms"; 9] } }));
    gateway.call(Method::PATCH, "endpoints/mine", soon).await;
    let events: Vec<_> = (1..EVENTS).map(|n| json!({ "type": "a.b", "data": n })).collect();
    gateway.post("events", Value::from(events)).await;
    let stats = "endpoints/mine/stats?window=1h";
    until(&gateway, stats, |it| it["delivered"] == EVENTS - 1 && it["backlog"] == 0).await;

    let sent = endpoint.got().len();
    // What is replayed to an endpoint that is disabled waits.
    let disabled = Some(json!({ "enabled": false }));
    gateway.call(Method::PATCH, "endpoints/mine", disabled).await;
    let wish = json!({ "endpoint": "mine", "since": "2020-01-01T00:00:00Z" });
    let replay = gateway.post("replays", wish).await;
    let path = format!("replays/{}", replay["id"].as_str().unwrap());
    let begun = until(&gateway, &path, |it| it["replayed"].as_u64() > Some(0)).await;
    let set_off = begun["replayed"].as_u64().unwrap();
    assert!(begun["status"] == "running" && set_off < 200, "it sets off what finds room: {begun}");
    assert!(begun["progress"].as_f64() < Some(1.0), "{begun}");
    assert_eq!(gateway.get("dead-letters").await["data"], json!([]), "it waits to be sent");

    for _ in 0..2 {
        assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
        let stopped = gateway.get(&path).await;
        assert_eq!((&stopped["status"], &stopped["replayed"]), (&json!("stopped"), &json!(0)));
    }
    assert_eq!(gateway.get(stats).await["backlog"], 0, "nothing waits");
    let dead = gateway.get("dead-letters").await;
    assert_eq!(dead["data"][0]["event_type"], "a.dead", "{dead}");
    assert_eq!(dead["data"][0]["reason"], "retries_exhausted", "{dead}");
    for status in ["pending", "retrying", "cancelled"] {
        let page = gateway.get(&format!("deliveries?status={status}")).await;
        assert_eq!(page["data"], json!([]), "{status}");
    }
    let enabled = Some(json!({ "enabled": true }));
    gateway.call(Method::PATCH, "endpoints/mine", enabled).await;
    let last = publish(&gateway, "a.b", json!("last")).await;
    gateway.await_status(&last, "delivered").await;
    assert_eq!(endpoint.got().len(), sent + 1, "nothing of the replay was sent");
}

#[tokio::test]
async fn a_replay_of_many_sends_each_once_and_ends() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    let events: Vec<_> = (0..EVENTS).map(|n| json!({ "type": "a.b", "data": n })).collect();
    gateway.post("events", Value::from(events)).await;
    let stats = "endpoints/mine/stats?window=1h";
    until(&gateway, stats, |it| it["delivered"] == EVENTS && it["backlog"] == 0).await;
    let wish = json!({ "endpoint": "mine", "since": "2020-01-01T00:00:00Z" });
    let replay = gateway.post("replays", wish).await;
    let path = format!("replays/{}", replay["id"].as_str().unwrap());
    let done = until(&gateway, &path, |it| it["status"] == "finished").await;
    assert_eq!((&done["replayed"], &done["progress"]), (&json!(EVENTS), &json!(1.0)), "{done}");
    until(&gateway, stats, |it| it["delivered"] == 2 * EVENTS && it["backlog"] == 0).await;
    assert_eq!(endpoint.got().len(), 2 * EVENTS);
    // One that has ended stays as it is.
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(gateway.get(&path).await["status"], "finished");
}
