//! An endpoint that publishes what it receives.

use axum::{Router, body::Bytes, extract::State, routing::post};
use http::{HeaderMap, StatusCode};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{bench, publish};
use hookgate_tests::{Gateway, OPERATOR_KEY};

/// Where it publishes, and whether it answers what it was answered or is content with itself.
#[derive(Clone)]
struct Parrot {
    events: String,
    honest: bool,
}

/// Starts an endpoint that publishes what it receives, as a new event; its URL.
async fn parrot(gateway: &Gateway, honest: bool) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/parrot", listener.local_addr().unwrap());
    let parrot = Parrot { events: format!("{}/v1/tenants/default/events", gateway.server), honest };
    let router = Router::new().route("/parrot", post(repeat)).with_state(parrot);
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, server)
}

async fn repeat(
    State(parrot): State<Parrot>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let received: Value = serde_json::from_slice(&body).unwrap();
    let again = json!({ "type": received["type"], "data": received["data"] });
    let request = reqwest::Client::new().post(&parrot.events).bearer_auth(OPERATOR_KEY);
    let hops = headers["webhook-hops"].clone();
    let sent = request.header("webhook-hops", hops).json(&again).send().await.unwrap();
    let (status, text) = (sent.status(), sent.text().await.unwrap());
    if parrot.honest { (status, text) } else { (StatusCode::OK, String::new()) }
}

/// Waits until so many events are there and no more come; oldest first.
async fn events(gateway: &Gateway, count: usize) -> Vec<Value> {
    for _ in 0..400 {
        let page = gateway.get("events").await;
        let mut data = page["data"].as_array().unwrap().clone();
        assert!(data.len() <= count, "it goes on and on");
        if data.len() == count {
            data.reverse();
            return data;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("fewer than {count} events");
}

#[tokio::test]
async fn a_loop_ends_and_tells_why() {
    let (_folder, gateway, _) = bench().await;
    let (url, _server) = parrot(&gateway, true).await;
    gateway.post("endpoints", json!({ "url": url })).await;
    publish(&gateway, "a.b", json!({ "n": 1 })).await;
    let events = events(&gateway, 3).await;
    let hops: Vec<_> = events.iter().map(|it| it["hops"].as_u64().unwrap()).collect();
    assert_eq!(hops, [0, 1, 2]);
    for event in &events[..2] {
        gateway.await_status(event["id"].as_str().unwrap(), "delivered").await;
    }
    let last = events[2]["id"].as_str().unwrap();
    let dead = gateway.await_status(last, "dead").await;
    assert_eq!((&dead["reason"], &dead["attempts"]), (&json!("loop"), &json!(1)));
    let told = gateway.get(&format!("events/{last}/explain")).await;
    let told = &told["endpoints"][0];
    assert_eq!((&told["code"], &told["status"]), (&json!("loop"), &json!("dead")));
    assert!(told["why"].as_str().unwrap().contains("publishes what it receives"), "{told}");
    let letters = gateway.get("dead-letters?reason=loop").await;
    assert_eq!(letters["data"].as_array().unwrap().len(), 1);
    let attempts = format!("deliveries/{}/attempts", dead["id"].as_str().unwrap());
    let attempt = &gateway.get(&attempts).await["data"][0];
    assert_eq!(
        (&attempt["outcome"], &attempt["status_code"]),
        (&json!("loop_detected"), &json!(508))
    );
    assert_eq!(attempt["request_headers"]["webhook-hops"], "3");
}

#[tokio::test]
async fn a_loop_through_the_short_api_ends_though_nobody_says_so() {
    let (_folder, gateway, _) = bench().await;
    let (url, _server) = parrot(&gateway, false).await;
    let body = json!({ "event_type": "a.b", "callback_url": url });
    let (status, _) = gateway.call(Method::POST, "/api/webhooks/register", Some(body)).await;
    assert_eq!(status, 201);
    publish(&gateway, "a.b", json!(1)).await;
    for event in events(&gateway, 3).await {
        gateway.await_status(event["id"].as_str().unwrap(), "delivered").await;
    }
    let metrics = gateway.get("/metrics").await;
    let refused = "hookgate_events_rejected_total{protocol=\"json\",reason=\"loop_detected\"} 1";
    assert!(metrics.as_str().unwrap().contains(refused));
    assert_eq!(events(&gateway, 3).await.len(), 3);
}

#[tokio::test]
async fn streams_and_cloud_events_end_loops_too() {
    let (_folder, gateway, endpoint) = bench().await;
    crate::register(&gateway, &endpoint, json!({})).await;
    for (content_type, body) in [
        ("application/json", r#"{"type":"a.b","data":1}"#),
        ("application/x-ndjson", "{\"type\":\"a.b\",\"data\":1}\n"),
        (
            "application/cloudevents+json",
            r#"{"specversion":"1.0","id":"1","source":"/a","type":"a.b","data":1}"#,
        ),
    ] {
        for (hops, status) in [("3", 508), ("1, 4", 508)] {
            let path = "/v1/tenants/default/events";
            let request = gateway.request(Method::POST, path, OPERATOR_KEY);
            let request = request.header("content-type", content_type).body(body);
            let answer = request.header("webhook-hops", hops).send().await.unwrap();
            assert_eq!(answer.status(), status, "{content_type}");
            let problem: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            assert_eq!(problem["code"], "loop_detected");
        }
    }
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson");
    let lines = "{\"type\":\"a.b\",\"data\":1}\n";
    let answer = request.header("webhook-hops", "2").body(lines).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let got = endpoint.await_count(1).await;
    assert_eq!((got.len(), &got[0].headers["webhook-hops"]), (1, &"3".parse().unwrap()));
}

#[tokio::test]
async fn a_508_of_somebody_elses_is_a_failure_like_any_other() {
    let (_folder, gateway, endpoint) = bench().await;
    let retry = json!({ "schedule": ["50ms"], "jitter": 0 });
    crate::register(&gateway, &endpoint, json!({ "retry": retry })).await;
    endpoint.say("Resource Limit Is Reached");
    endpoint.answer_first([508]);
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(gateway.await_status(&event, "delivered").await["attempts"], 2);
}
