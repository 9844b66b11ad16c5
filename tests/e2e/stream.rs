use std::time::Duration;

use hookgate::world::{Clock, SystemClock};
use reqwest::{Body, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use crate::bench;
use hookgate_tests::{Gateway, OPERATOR_KEY};

const LINES: usize = 10_000;
const BAD: usize = 5_000;

#[tokio::test]
async fn a_bad_line_rejects_itself_alone() {
    let (_folder, gateway, _) = bench().await;
    let line = |n: usize| match n {
        BAD => "{\"type\": \"a..b\", \"data\": 1}\n".to_owned(),
        _ => format!("{}\n", json!({ "type": "a.b", "data": { "n": n } })),
    };
    let body: String = (1..=LINES).map(line).collect();
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson").body(body);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let text = response.text().await.unwrap();
    let answers: Vec<Value> = text.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    assert_eq!(answers.len(), LINES);
    for (number, answer) in (1..).zip(&answers) {
        assert_eq!(answer["line"], number);
        let expected = if number == BAD { "rejected" } else { "accepted" };
        assert_eq!(answer["status"], expected, "{answer}");
    }
    assert_eq!(answers[BAD - 1]["error"]["code"], "invalid_event_type");
    let (mut stored, mut cursor) = (0, String::new());
    loop {
        let page = gateway.get(&format!("events?limit=250&cursor={cursor}")).await;
        stored += page["data"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(stored, LINES - 1);
}

/// A stream in and a tail out that somebody has open with a key.
struct Open {
    lines: DuplexStream,
    answers: Response,
    tail: Response,
}

impl Open {
    async fn with(gateway: &Gateway, tenant: &str, key: &str) -> Self {
        let (lines, source) = tokio::io::duplex(1024);
        let path = format!("/v1/tenants/{tenant}/events");
        let request = gateway.request(Method::POST, &path, key);
        let request = request.header("content-type", "application/x-ndjson");
        let request = request.body(Body::wrap_stream(ReaderStream::new(source)));
        let answers = request.send().await.unwrap();
        let tail = gateway.request(Method::GET, &format!("{path}/tail"), key).send().await;
        let mut open = Self { lines, answers, tail: tail.unwrap() };
        assert!(open.answers.status().is_success() && open.tail.status().is_success());
        assert_eq!(open.send().await["status"], "accepted");
        let mut text = String::new();
        while !text.contains("event: event") {
            let chunk = open.tail.chunk().await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        open
    }

    async fn send(&mut self) -> Value {
        self.lines.write_all(b"{\"type\":\"a.b\",\"data\":1}\n").await.unwrap();
        let answer = self.answers.chunk().await.unwrap().unwrap();
        serde_json::from_slice(&answer).unwrap()
    }
}

/// The rest of an answer that ends.
async fn rest(response: &mut Response) -> String {
    let all = async {
        let mut text = String::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
        text
    };
    tokio::time::timeout(Duration::from_secs(10), all).await.expect("it ends")
}

#[tokio::test]
async fn a_stream_ends_with_what_let_it_in() {
    let (_folder, gateway, _) = bench().await;
    for (tenant, key, code) in [
        ("revoked", None, "unauthenticated"),
        ("expired", None, "unauthenticated"),
        ("deleted", Some(OPERATOR_KEY), "tenant_not_found"),
    ] {
        let path = format!("/v1/tenants/{tenant}");
        assert_eq!(gateway.call(Method::PUT, &path, Some(json!({}))).await.0, 201);
        let seconds = if tenant == "expired" { 3 } else { 900 };
        let until = SystemClock.now() + Duration::from_secs(seconds);
        let keys = format!("{path}/keys");
        let wish =
            json!({ "name": "k", "scopes": ["produce", "read"], "expires_at": until.to_string() });
        let made = gateway.post(&keys, wish).await;
        let text = key.unwrap_or(made["key"].as_str().unwrap());
        let mut open = Open::with(&gateway, tenant, text).await;
        match tenant {
            "revoked" => {
                let key = format!("{keys}/{}", made["id"].as_str().unwrap());
                assert_eq!(gateway.call(Method::DELETE, &key, None).await.0, 204);
            }
            "expired" => tokio::time::sleep(Duration::from_secs(4)).await,
            _ => assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204),
        }
        if tenant != "deleted" {
            gateway.post(&format!("{path}/events"), json!({ "type": "x.y", "data": 1 })).await;
            assert!(!rest(&mut open.tail).await.contains("x.y"), "{tenant}");
        }
        let answer = open.send().await;
        assert_eq!((&answer["line"], &answer["status"]), (&json!(2), &json!("rejected")));
        assert_eq!(answer["error"]["code"], code, "{tenant}");
        assert_eq!(rest(&mut open.answers).await, "", "{tenant}");
    }
    let events = gateway.get("/v1/tenants/revoked/events").await;
    assert_eq!(events["data"].as_array().unwrap().len(), 2, "{events}");
}

/// The first so many messages of a tail, comments left out.
async fn tail_of(gateway: &Gateway, query: &str, last: &str, count: usize) -> Vec<String> {
    let path = format!("/v1/tenants/default/events/tail{query}");
    let request = gateway.request(Method::GET, &path, OPERATOR_KEY);
    let mut response = request.header("last-event-id", last).send().await.unwrap();
    let read = async {
        let mut text = String::new();
        loop {
            let messages = text.split_terminator("\n\n").filter(|it| !it.starts_with(':'));
            let messages: Vec<_> = messages.map(str::to_owned).collect();
            if messages.len() >= count && text.ends_with("\n\n") {
                return messages;
            }
            let chunk = response.chunk().await.unwrap().unwrap();
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
    read.unwrap_or_else(|_| panic!("no {count} messages behind {last}"))
}

/// A reader that comes back is told what it did not see, and gets what its filter asks for however
/// much else happened meanwhile.
#[tokio::test]
async fn a_tail_that_goes_on_tells_what_was_missed() {
    let (_folder, gateway, _) = bench().await;
    for n in 0..3 {
        gateway.post("events", json!({ "type": "a.b", "data": n })).await;
    }
    let noise = "{\"type\":\"noise\",\"data\":1}\n".repeat(1200);
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson").body(noise);
    assert_eq!(request.send().await.unwrap().text().await.unwrap().lines().count(), 1200);
    let got = tail_of(&gateway, "?type=a.*", "0", 4).await;
    assert_eq!(got[0], "event: missed\ndata: {\"attempts\":true}", "{got:?}");
    assert!(got[1..].iter().all(|it| it.starts_with("event: event\nid: ")), "{got:?}");
    let got = tail_of(&gateway, "", "0", 1002).await;
    assert!(got.contains(&"event: missed\ndata: {\"more_than\":1000}".to_owned()), "{got:?}");
    for unknown in ["abc", "-1", "1e3", "18446744073709551616", "99999999999"] {
        let got = tail_of(&gateway, "", unknown, 1).await;
        let expected = format!("data: {{\"unknown_event_id\":\"{unknown}\"}}");
        assert_eq!(got, [format!("event: missed\n{expected}")]);
    }
}
