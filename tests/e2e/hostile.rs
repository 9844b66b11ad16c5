//! What the worst receivers can do: each attempt ends as named, within its limit, and those who
//! behave keep their pace.

use std::time::{Duration, Instant};

use hookgate_tests::{Gateway, Hostile, HostileEndpoint, TestEndpoint};
use serde_json::{Value, json};

use crate::{bench, publish};

/// What each attempt may take. A dripping body gets a second more.
const TIMEOUT: Duration = Duration::from_secs(1);
const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// The machine may be busy with the other tests.
const SLACK: Duration = Duration::from_millis(1500);

fn status(line: &str, rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 {line}\r\n{rest}content-length: 0\r\n\r\n").into_bytes()
}

fn answer(body: &[u8], rest: &str) -> Vec<u8> {
    let head = format!("HTTP/1.1 200 OK\r\n{rest}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// What says that it is gzip is kept as it came: nobody unpacks it.
fn bomb() -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xed, 0xc1].repeat(100_000)].concat()
}

/// Each behaviour with the outcome and the status that it must lead to.
fn behaviours() -> Vec<(&'static str, Hostile, &'static str, &'static str)> {
    use Hostile::{Answers, Closes, ManyHeaders, Resets};
    let ok = |bytes: &[u8]| bytes.to_vec();
    let short = b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\nhello";
    let two = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    let gzip = answer(&bomb(), "content-encoding: gzip\r\n");
    vec![
        // B-39
        ("never", Hostile::NeverAnswers, "timeout", "retrying"),
        ("drips-head", Hostile::DripsHead, "timeout", "retrying"),
        // B-40
        ("interim", Hostile::EndlessInterim, "response_too_large", "retrying"),
        ("interim-only", Hostile::InterimOnly, "timeout", "retrying"),
        // B-41
        ("head", Hostile::EndlessHead, "response_too_large", "retrying"),
        ("headers-101", ManyHeaders(101), "response_too_large", "retrying"),
        ("headers-10000", ManyHeaders(10_000), "response_too_large", "retrying"),
        // B-42: the status decides.
        ("body", Hostile::EndlessBody, "delivered", "delivered"),
        ("drips-body", Hostile::DripsBody, "delivered", "delivered"),
        // B-43
        ("short", Closes(ok(short)), "delivered", "delivered"),
        // B-44
        ("large", Answers(answer(&[0xff; 200 * 1024], "")), "delivered", "delivered"),
        ("bomb", Answers(gzip), "delivered", "delivered"),
        ("escapes", Answers(answer(b"\x1b[2J\x1b]0;x\x07\0", "")), "delivered", "delivered"),
        // B-45
        ("closes", Closes(vec![]), "connection_closed", "retrying"),
        ("resets", Resets(vec![]), "connection_closed", "retrying"),
        ("resets-head", Resets(ok(b"HTTP/1.1 200")), "connection_closed", "retrying"),
        // B-46
        ("ssh", Closes(ok(b"SSH-2.0-OpenSSH_9.2\r\n")), "protocol_error", "retrying"),
        ("http2", Closes(ok(b"\0\0\x12\x04\0\0\0\0\0\0\0")), "protocol_error", "retrying"),
        ("status-099", Closes(ok(b"HTTP/1.1 099 No\r\n\r\n")), "protocol_error", "retrying"),
        ("two-lengths", Closes(ok(two)), "protocol_error", "retrying"),
        // B-47
        ("status-999", Answers(status("999 Odd", "")), "http_status", "retrying"),
        ("status-101", Closes(ok(b"HTTP/1.1 101 Switching\r\n\r\n")), "http_status", "retrying"),
        ("status-304", Closes(ok(b"HTTP/1.1 304 Same\r\n\r\n")), "http_status", "retrying"),
        ("status-204", Answers(ok(b"HTTP/1.1 204 No\r\n\r\nbody")), "delivered", "delivered"),
        // B-30
        (
            "redirect",
            Answers(status("307 There", "location: /x\r\n")),
            "redirect_refused",
            "retrying",
        ),
        // B-48
        ("gone", Answers(status("410 Gone", "")), "http_status", "dead"),
        // B-51
        ("late", Hostile::Late(Duration::from_millis(1600)), "timeout", "retrying"),
    ]
}

async fn register(gateway: &Gateway, name: &str, url: &str) {
    let body = json!({
        "id": name, "url": url, "event_types": [format!("to.{name}")], "timeout": "1s",
        "retry": { "schedule": ["1h"], "jitter": 0 },
    });
    gateway.post("endpoints", body).await;
}

/// Publishes events to a healthy endpoint, one each 20 ms; how long the slowest of a hundred took.
#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
async fn pace(gateway: &Gateway, healthy: &TestEndpoint, events: usize) -> Duration {
    let mut latencies = Vec::new();
    for _ in 0..events {
        let (before, started) = (healthy.got().len(), Instant::now());
        publish(gateway, "to.healthy", json!(1)).await;
        while healthy.got().len() == before {
            assert!(started.elapsed() < Duration::from_secs(10), "a healthy endpoint starves");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        latencies.push(started.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    latencies.sort_unstable();
    latencies[latencies.len() * 99 / 100]
}

async fn attempt_of(gateway: &Gateway, endpoint: &str) -> Value {
    for _ in 0..200 {
        let attempts = gateway.get(&format!("endpoints/{endpoint}/attempts")).await;
        if let Some(first) = attempts["data"].as_array().and_then(|it| it.last()) {
            return first.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{endpoint}: no attempt has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worst_receivers_end_as_they_should_and_harm_nobody() {
    let (_folder, gateway, healthy) = bench().await;
    register(&gateway, "healthy", &healthy.url).await;
    let alone = pace(&gateway, &healthy, 60).await;
    let mut endpoints = Vec::new();
    for (name, what, _, _) in behaviours() {
        let endpoint = HostileEndpoint::start(what).await;
        register(&gateway, name, &endpoint.url).await;
        endpoints.push(endpoint);
    }
    let mut events = Vec::new();
    for (name, ..) in behaviours() {
        events.push(publish(&gateway, &format!("to.{name}"), json!(1)).await);
    }
    let beside = pace(&gateway, &healthy, 60).await;
    for ((name, _, outcome, state), event) in behaviours().into_iter().zip(&events) {
        let attempt = attempt_of(&gateway, name).await;
        assert_eq!(attempt["outcome"], outcome, "{name}: {attempt}");
        let delivery = gateway.get(&format!("events/{event}/deliveries")).await;
        assert_eq!(delivery["data"][0]["status"], state, "{name}: {delivery}");
        let took = attempt["duration"].as_str().unwrap().strip_suffix("ms").unwrap();
        let took = Duration::from_millis(took.parse().unwrap());
        let limit = if name == "drips-body" { BODY_PATIENCE } else { TIMEOUT };
        assert!(took < limit + SLACK, "{name} took {took:?}");
        let body = attempt["response_body"].as_str().unwrap();
        assert!(body.chars().count() <= 4096, "{name}: {} characters", body.len());
    }
    let gone = gateway.get("endpoints/gone").await;
    assert_eq!(gone["enabled"], false, "{gone}");
    assert!(endpoints.iter().all(|it| it.requests() == 1), "each was asked once");
    // A late success changes nothing.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = &events[events.len() - 1];
    let delivery = gateway.get(&format!("events/{late}/deliveries")).await;
    assert_eq!(delivery["data"][0]["status"], "retrying");
    assert!(beside < 2 * alone + Duration::from_millis(500), "{alone:?} became {beside:?}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a date for a header")]
async fn retry_after_is_honoured_in_each_of_its_forms() {
    let (_folder, gateway, _) = bench().await;
    let date = |seconds: u64| {
        let at = std::time::SystemTime::now() + Duration::from_secs(seconds);
        httpdate::fmt_http_date(at)
    };
    // The schedule says 5 s; jitter is off.
    let cases = [
        ("seconds", "429 Slow", "700".to_owned(), 700),
        ("unavailable", "503 Later", "700".to_owned(), 700),
        ("date", "429 Slow", date(900), 900),
        ("sooner", "429 Slow", "1".to_owned(), 5),
        ("negative", "429 Slow", "-1".to_owned(), 5),
        ("huge", "429 Slow", "1000000000".to_owned(), 24 * 3600),
        ("garbage", "429 Slow", "soon".to_owned(), 5),
        ("elsewhere", "500 No", "700".to_owned(), 5),
    ];
    let mut endpoints = Vec::new();
    for (name, line, value, _) in &cases {
        let answer = status(line, &format!("retry-after: {value}\r\n"));
        let endpoint = HostileEndpoint::start(Hostile::Answers(answer)).await;
        let body = json!({
            "id": name, "url": endpoint.url, "event_types": [format!("to.{name}")],
            "retry": { "schedule": ["5s"], "jitter": 0 },
        });
        gateway.post("endpoints", body).await;
        endpoints.push(endpoint);
    }
    for (name, _, _, expected) in &cases {
        let event = publish(&gateway, &format!("to.{name}"), json!(1)).await;
        let delivery = gateway.await_status(&event, "retrying").await;
        let time = |field: &str| {
            let text = delivery[field].as_str().unwrap();
            let time: jiff::Timestamp = text.parse().unwrap();
            time.as_second()
        };
        let wait = time("next_attempt_at") - time("last_attempt_at");
        let room = 3.max(expected / 100);
        assert!((wait - expected).abs() <= room, "{name}: {wait} s, not {expected}");
    }
}
