//! The front door beyond its simplest use: schemas, CloudEvents, compression, limits, audit,
//! replays, and what must be refused.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, publish_to, register};
use hookgate_tests::{Gateway, OPERATOR_KEY};

const EVENTS: &str = "/v1/tenants/default/events";

/// Sends a body with headers; status, headers and JSON of the answer.
async fn send(
    gateway: &Gateway,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> (u16, reqwest::header::HeaderMap, Value) {
    let mut request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.body(body).send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    (status, headers, response.json().await.unwrap_or_default())
}

fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().unwrap();
    errors.iter().map(|it| it["pointer"].as_str().unwrap()).collect()
}

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn a_strict_schema_refuses_and_another_warns() {
    let (_folder, gateway, _) = bench().await;
    let schema = json!({
        "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } },
    });
    let put = async |strict: bool| {
        let body = json!({ "description": "d", "schema": schema, "strict": strict });
        gateway.call(Method::PUT, "event-types/order.made", Some(body)).await
    };
    assert_eq!(put(true).await.0, 201);
    let bad = json!({ "type": "order.made", "data": { "id": "x" } });
    let (status, problem) = gateway.call(Method::POST, "events", Some(bad.clone())).await;
    assert_eq!((status, &problem["code"]), (422, &json!("schema_violation")));
    assert_eq!(pointers(&problem), ["/data/id"]);
    let good = json!({ "type": "order.made", "data": { "id": 1 } });
    let batch = json!([good, { "type": "order.made", "data": {} }, bad]);
    let (status, problem) = gateway.call(Method::POST, "events", Some(batch)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/1/data", "/2/data/id"]));
    let lines = format!("{good}\n{bad}\n");
    let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson").body(lines);
    let text = request.send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"accepted\"") && text.contains("schema_violation"), "{text}");
    assert_eq!(put(false).await.0, 200);
    let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson").body(bad.to_string());
    let line: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(line["warnings"][0]["pointer"], "/data/id", "{line}");
    let (status, answer) = gateway.call(Method::POST, "events", Some(bad)).await;
    assert_eq!((status, &answer["warnings"][0]["pointer"]), (202, &json!("/data/id")));
    let draft = json!({ "schema": { "$schema": "http://json-schema.org/draft-07/schema#" } });
    let (status, problem) = gateway.call(Method::PUT, "event-types/order.old", Some(draft)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/schema"]), "{problem}");
    let list = gateway.get("event-types").await;
    assert_eq!(list["data"][0]["schema"], schema);
    let bad = json!({ "schema": { "type": "strin" }, "stric": true });
    let (status, problem) = gateway.call(Method::PUT, "event-types/x", Some(bad)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/schema", "/stric"]));
    assert_eq!(gateway.call(Method::DELETE, "event-types/order.made", None).await.0, 204);
    assert_eq!(gateway.call(Method::GET, "event-types/order.made", None).await.0, 404);
}

#[tokio::test]
async fn what_takes_long_to_compare_is_told_like_the_rest() {
    let (_folder, gateway, _) = bench().await;
    let known: Vec<_> = (0..900).map(|n| json!({ "const": n })).collect();
    let schema = json!({ "properties": { "n": { "items": { "anyOf": known } } } });
    let body = json!({ "schema": schema, "strict": true });
    let (status, answer) = gateway.call(Method::PUT, "event-types/large", Some(body)).await;
    assert_eq!(status, 201, "{answer}");
    // A value is compared with 900 schemas: the last is the one that fits.
    let large = |last: u32| {
        let numbers: Vec<_> = (0..2000).map(|_| 899).chain([last]).collect();
        json!({ "type": "large", "data": { "n": numbers } })
    };
    let publish = async |body: Value| gateway.call(Method::POST, "events", Some(body)).await;
    let small = json!({ "type": "small", "data": {} });
    let all = (publish(large(7)), publish(large(900)), publish(small));
    let (good, bad, small) = tokio::join!(all.0, all.1, all.2);
    assert_eq!((good.0, small.0), (202, 202), "{} {}", good.1, small.1);
    assert_eq!((bad.0, pointers(&bad.1)), (422, vec!["/data"]), "{}", bad.1);
    // What a request may cost is counted over its events, wherever they were compared.
    let (status, problem) = publish(json!(vec![large(7); 12])).await;
    assert_eq!((status, pointers(&problem)[0]), (422, "/11/data"), "{problem}");
}

#[tokio::test]
async fn what_was_changed_meanwhile_is_not_overwritten() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    gateway.call(Method::PUT, "event-types/a.b", Some(json!({}))).await;
    for (path, method, body) in [
        ("/v1/tenants/default", Method::PUT, json!({ "name": "x" })),
        ("/v1/tenants/default/endpoints/mine", Method::PATCH, json!({ "description": "x" })),
        ("/v1/tenants/default/event-types/a.b", Method::PUT, json!({ "description": "x" })),
    ] {
        let read = gateway.request(Method::GET, path, OPERATOR_KEY).send().await.unwrap();
        let tag = read.headers()["etag"].to_str().unwrap().to_owned();
        let change = async |tag: &str| {
            let request = gateway.request(method.clone(), path, OPERATOR_KEY).json(&body);
            let response = request.header("if-match", tag).send().await.unwrap();
            (response.status().as_u16(), response.json::<Value>().await.unwrap()["code"].clone())
        };
        assert_eq!(change(&tag).await, (200, Value::Null), "{path}");
        assert_eq!(change(&tag).await, (412, json!("precondition_failed")), "{path}");
        assert_eq!(change("*").await.0, 200, "{path}");
    }
}

#[tokio::test]
async fn cloud_events_come_in_their_three_forms() {
    let (_folder, gateway, _) = bench().await;
    let event = |id: &str, source: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": source, "type": "order.made",
            "time": "2026-01-31T12:00:00Z", "subject": "s", "data": { "n": 1 },
        })
    };
    let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
    let (status, _, answer) = send(&gateway, &structured, event("1", "/a").to_string()).await;
    assert_eq!((status, &answer["id"], &answer["status"]), (202, &json!("1"), &json!("accepted")));
    let (status, _, again) = send(&gateway, &structured, event("1", "/a").to_string()).await;
    assert_eq!((status, &again["id"], &again["status"]), (200, &json!("1"), &json!("duplicate")));
    let (status, _, other) = send(&gateway, &structured, event("1", "/b").to_string()).await;
    assert_eq!(status, 202, "the same id of another source is another event");
    assert!(other["id"].as_str().unwrap().starts_with("evt_"));
    let stored = gateway.get("events/1").await;
    assert_eq!(stored["metadata"]["ce-source"], "/a");
    assert_eq!(stored["timestamp"], "2026-01-31T12:00:00.000Z");
    let binary = [
        JSON,
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/a"),
        ("ce-type", "order.made"),
        ("ce-time", "2026-01-31T12:00:00Z"),
        ("ce-subject", "s"),
    ];
    for headers in [&binary[..], &binary[1..]] {
        let (status, _, answer) = send(&gateway, headers, r#"{"n":1}"#).await;
        assert_eq!((status, &answer["status"]), (200, &json!("duplicate")), "{answer}");
    }
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let many = json!([event("2", "/a"), event("3", "/a"), event("2", "/a")]);
    let (status, _, answer) = send(&gateway, &batch, many.to_string()).await;
    let told: Vec<_> =
        answer["events"].as_array().unwrap().iter().map(|it| &it["status"]).collect();
    assert_eq!((status, json!(told)), (202, json!(["accepted", "accepted", "duplicate"])));
    let bad = json!([event("4", "/a"), { "specversion": "1.0", "id": "5" }]);
    let (status, _, problem) = send(&gateway, &batch, bad.to_string()).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/1/source", "/1/type"]));
    assert_eq!(gateway.call(Method::GET, "events/4", None).await.0, 404, "all or nothing");
}

/// A gzip stream of one stored block.
fn gzip(data: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packer.write_all(data).unwrap();
    packer.finish().unwrap()
}

/// A zstd frame of one raw block (RFC 8878).
fn zstd(data: &[u8]) -> Vec<u8> {
    let length = u8::try_from(data.len()).unwrap();
    let block = (u32::from(length) << 3) | 1;
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x20, length];
    frame.extend_from_slice(&block.to_le_bytes()[..3]);
    frame.extend_from_slice(data);
    frame
}

#[tokio::test]
async fn bodies_may_come_compressed_and_are_measured_unpacked() {
    let (_folder, gateway, _) = bench().await;
    let event = br#"{"type":"a.b","data":{"n":1}}"#;
    let lines = b"{\"type\":\"a.b\",\"data\":1}\n{\"type\":\"a.b\",\"data\":2}\n";
    for (encoding, packed) in [("gzip", gzip(event)), ("zstd", zstd(event))] {
        let (status, _, answer) =
            send(&gateway, &[JSON, ("content-encoding", encoding)], packed).await;
        assert_eq!((status, &answer["status"]), (202, &json!("accepted")), "{encoding}");
    }
    for (encoding, packed) in [("gzip", gzip(lines)), ("zstd", zstd(lines))] {
        let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY).body(packed);
        let request = request.header("content-type", "application/x-ndjson");
        let response = request.header("content-encoding", encoding).send().await.unwrap();
        assert_eq!(response.text().await.unwrap().matches("accepted").count(), 2, "{encoding}");
    }
    let bomb = format!("{{\"type\":\"a.b\",\"data\":\"{}\"}}", "0".repeat(64 * 1024 * 1024));
    let bomb = gzip(bomb.as_bytes());
    assert!(bomb.len() < 100_000);
    let (status, _, problem) = send(&gateway, &[JSON, ("content-encoding", "gzip")], bomb).await;
    assert_eq!((status, &problem["code"]), (413, &json!("body_too_large")));
    let (status, _, problem) = send(&gateway, &[JSON, ("content-encoding", "br")], "x").await;
    assert_eq!((status, &problem["code"]), (415, &json!("unsupported_encoding")));
    let (status, _, problem) = send(&gateway, &[JSON, ("content-encoding", "gzip")], "x").await;
    assert_eq!((status, &problem["code"]), (400, &json!("body_broken")));
}

#[tokio::test]
async fn a_tenant_gets_what_its_quota_says_and_others_are_not_hurt() {
    let (_folder, gateway, endpoint) = bench().await;
    let quota = json!({ "events_per_second": 1, "burst": 2, "endpoints_max": 1 });
    let put = async |tenant: &str, quota: Value| {
        let path = format!("/v1/tenants/{tenant}");
        gateway.call(Method::PUT, &path, Some(json!({ "quota": quota }))).await
    };
    assert_eq!(put("slow", quota).await.1["quota"]["burst"], 2);
    put("other", Value::Null).await;
    let event = json!({ "type": "a.b", "data": 1 });
    let path = "/v1/tenants/slow/events";
    for _ in 0..2 {
        assert_eq!(gateway.call(Method::POST, path, Some(event.clone())).await.0, 202);
    }
    let request = gateway.request(Method::POST, path, OPERATOR_KEY).json(&event);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 429);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(response.headers()["ratelimit-policy"], "\"default\";q=2;w=2");
    assert_eq!(response.headers()["ratelimit"], "\"default\";r=0;t=1");
    assert_eq!(response.json::<Value>().await.unwrap()["code"], "rate_limited");
    publish_to(&gateway, "other", event.clone()).await;
    let hook = json!({ "url": endpoint.url });
    let hooks = "/v1/tenants/slow/endpoints";
    assert_eq!(gateway.call(Method::POST, hooks, Some(hook.clone())).await.0, 201);
    let (status, problem) = gateway.call(Method::POST, hooks, Some(hook)).await;
    assert_eq!((status, &problem["code"]), (422, &json!("limit_endpoints")));
    let bad = json!({ "event_per_second": 1, "burst": 0 });
    let (status, problem) = put("slow", bad).await;
    assert_eq!(
        (status, pointers(&problem)),
        (422, vec!["/quota/burst", "/quota/event_per_second"])
    );
    // A stream is slowed down instead of refused.
    let started = tokio::time::Instant::now();
    let request = gateway.request(Method::POST, path, OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson");
    let text = request.body(format!("{event}\n")).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("accepted") && started.elapsed() > Duration::from_millis(300), "{text}");
    // But not for longer than anybody would wait for an answer.
    assert_eq!(put("slow", json!({ "events_per_second": 0.001 })).await.0, 200);
    let started = tokio::time::Instant::now();
    let request = gateway.request(Method::POST, path, OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson");
    let lines = format!("{event}\n").repeat(3);
    let text = request.body(lines).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("rate_limited") && started.elapsed() < Duration::from_secs(8), "{text}");
}

#[tokio::test]
async fn from_a_full_backlog_on_nothing_is_taken_and_what_waits_goes_on() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "base": "300ms", "factor": 1, "max_attempts": 50, "jitter": 0 });
    register(&gateway, &endpoint, json!({ "retry": retry })).await;
    let quota = json!({ "quota": { "backlog_max": 2 } });
    gateway.call(Method::PUT, "/v1/tenants/default", Some(quota)).await;
    let event = json!({ "type": "a.b", "data": 1 });
    let mut refused = None;
    for _ in 0..200 {
        let (status, answer) = gateway.call(Method::POST, "events", Some(event.clone())).await;
        if status == 429 {
            refused = Some(answer);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refused.expect("the backlog fills")["code"], "quota_exceeded");
    endpoint.answer(200);
    for _ in 0..200 {
        if gateway.call(Method::POST, "events", Some(event.clone())).await.0 == 202 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("the backlog does not empty");
}

#[tokio::test]
async fn a_stream_is_held_to_the_backlog_line_by_line() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "base": "1h", "factor": 1, "max_attempts": 5, "jitter": 0 });
    register(&gateway, &endpoint, json!({ "retry": retry, "event_types": ["a.b"] })).await;
    let quota = json!({ "quota": { "backlog_max": 7 } });
    gateway.call(Method::PUT, "/v1/tenants/default", Some(quota)).await;
    let stream = async |lines: String| {
        let request =
            gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY).body(lines);
        let request = request.header("content-type", "application/x-ndjson");
        let text = request.send().await.unwrap().text().await.unwrap();
        let answers = text.lines().map(|it| serde_json::from_str(it).unwrap());
        answers.collect::<Vec<Value>>()
    };
    // What nobody wants takes no room.
    let unwanted = "{\"type\":\"x.y\",\"data\":1}\n".repeat(50);
    let answers = stream(unwanted.clone()).await;
    assert!(answers.iter().all(|it| it["status"] == "accepted"), "{answers:?}");
    let wanted = "{\"type\":\"a.b\",\"data\":1}\n".repeat(2000);
    let answers = stream(format!("{unwanted}{wanted}")).await;
    let lines: Vec<_> = answers.iter().map(|it| it["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, (1..=2050).collect::<Vec<_>>());
    let (taken, refused) = answers.split_at(50 + 7);
    assert!(taken.iter().all(|it| it["status"] == "accepted"), "{taken:?}");
    assert!(refused.iter().all(|it| it["error"]["code"] == "quota_exceeded"), "{refused:?}");
    assert_eq!(gateway.get("deliveries").await["data"].as_array().unwrap().len(), 7);
}

#[tokio::test]
async fn a_key_has_a_pace_of_its_own() {
    let (_folder, gateway, _) = bench().await;
    let limit = json!({ "per_second": 0.5, "burst": 3 });
    let body = json!({ "name": "k", "scopes": ["read"], "rate_limit": limit });
    let made = gateway.post("keys", body).await;
    let key = made["key"].as_str().unwrap();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        let request = gateway.request(Method::GET, "/v1/tenants/default", key);
        statuses.push(request.send().await.unwrap().status().as_u16());
    }
    assert_eq!(statuses, [200, 200, 200, 429]);
    gateway.get("endpoints").await;
}

#[tokio::test]
async fn each_change_leaves_one_record_and_no_secret() {
    let (_folder, gateway, endpoint) = bench().await;
    let call = async |method: Method, rest: &str, body: Value| {
        let (status, answer) = gateway.call(method, rest, Some(body)).await;
        assert!((200..300).contains(&status), "{rest}: {status} {answer}");
        answer
    };
    let hook = json!({ "id": "mine", "url": endpoint.url, "headers": { "x-auth": "s3cr3t" } });
    call(Method::PUT, "/v1/tenants/default", json!({ "name": "Me" })).await;
    let key = call(Method::POST, "keys", json!({ "name": "k", "scopes": ["manage"] })).await;
    call(Method::POST, "endpoints", hook).await;
    call(Method::PATCH, "endpoints/mine", json!({ "description": "d" })).await;
    call(Method::POST, "endpoints/mine/secret/rotate", json!({})).await;
    call(Method::PUT, "event-types/a.b", json!({})).await;
    let portal = call(Method::POST, "portal-sessions", json!({ "scopes": ["read"] })).await;
    let since = json!({ "endpoint": "mine", "since": "2020-01-01T00:00:00Z" });
    call(Method::POST, "replays", since).await;
    let secret = gateway.get("endpoints/mine/secret").await;
    let text = key["key"].as_str().unwrap();
    let lesser = call(Method::POST, "keys", json!({ "name": "p", "scopes": ["produce"] })).await;
    let refused = gateway.request(
        Method::GET,
        "/v1/tenants/default/endpoints",
        lesser["key"].as_str().unwrap(),
    );
    assert_eq!(refused.send().await.unwrap().status(), 403);
    let path = "/v1/tenants/default/endpoints/mine";
    let request = gateway.request(Method::DELETE, path, text).header("x-request-id", "my-name");
    assert_eq!(request.send().await.unwrap().status(), 204);
    let log = gateway.get("audit-log?limit=11").await;
    let records = log["data"].as_array().unwrap();
    let told: Vec<_> = records.iter().map(|it| it["operation"].as_str().unwrap()).collect();
    let expected = [
        "deleteEndpoint",
        "listEndpoints",
        "createKey",
        "startReplay",
        "createPortalSession",
        "putEventType",
        "rotateSecret",
        "patchEndpoint",
        "createEndpoint",
        "createKey",
        "putTenant",
    ];
    assert_eq!(told, expected);
    assert_eq!((&records[0]["by"], &records[0]["request_id"]), (&key["id"], &json!("my-name")));
    assert_eq!((&records[2]["by"], &records[0]["after"]), (&json!("operator"), &Value::Null));
    assert_eq!(records[1]["by"], lesser["id"], "what it was refused is told of");
    assert!(records[1]["subject"].as_str().unwrap().starts_with("refused: "), "{records:?}");
    assert_eq!(records[7]["before"]["description"], "");
    assert_eq!(records[7]["after"]["description"], "d");
    let all = gateway.get("/v1/audit-log?limit=250").await;
    assert_eq!(all["data"][0], records[0]);
    for hidden in [&key["key"], &portal["token"], &secret["key"], &json!("s3cr3t")] {
        let hidden = hidden.as_str().unwrap();
        assert!(!all.to_string().contains(hidden), "{hidden} is in the log");
    }
    let next = log["next_cursor"].as_str().unwrap();
    let rest = gateway.get(&format!("audit-log?cursor={next}")).await;
    assert_eq!(rest["data"][0]["by"], "gateway", "the default tenant made itself");
}

async fn await_fan_out(gateway: &Gateway, event: &str) {
    while gateway.get(&format!("events/{event}/explain")).await["fanned_out"] != true {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_replay_sends_what_was_and_goes_on_after_a_restart() {
    let (folder, mut gateway, endpoint) = bench().await;
    let mut last = String::new();
    for n in 0..40 {
        last = publish(&gateway, if n % 2 == 0 { "a.even" } else { "a.odd" }, json!(n)).await;
    }
    // Who comes before that gets it as what is new.
    await_fan_out(&gateway, &last).await;
    let rate = json!({ "per_second": 20, "burst": 1 });
    register(&gateway, &endpoint, json!({ "id": "late", "rate_limit": rate })).await;
    let body = json!({
        "endpoint": "late", "since": "2020-01-01T00:00:00Z", "event_types": ["a.even"],
    });
    let replay = gateway.post("replays", body.clone()).await;
    let id = replay["id"].as_str().unwrap().to_owned();
    endpoint.await_count(3).await;
    gateway.kill();
    let gateway = Gateway::start(&folder.path().join("data"));
    let finished = async |id: &str| {
        for _ in 0..400 {
            let replay = gateway.get(&format!("replays/{id}")).await;
            if replay["status"] == "finished" {
                return replay;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{id} does not finish");
    };
    let done = finished(&id).await;
    assert_eq!((&done["replayed"], &done["progress"]), (&json!(20), &json!(1.0)), "{done}");
    for _ in 0..400 {
        let page = gateway.get("deliveries?endpoint=late&status=delivered").await;
        if page["data"].as_array().unwrap().len() == 20 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let page = gateway.get("deliveries?endpoint=late&limit=250").await;
    let deliveries = page["data"].as_array().unwrap();
    assert_eq!(deliveries.len(), 20);
    assert!(deliveries.iter().all(|it| it["status"] == "delivered"), "{page}");
    let delivery = deliveries[0]["id"].as_str().unwrap();
    let attempts = gateway.get(&format!("deliveries/{delivery}/attempts")).await;
    assert_eq!(attempts["data"][0]["trigger"], "replay");
    assert!(endpoint.got().iter().all(|it| it.headers["webhook-replay"] == "true"));
    let event = deliveries[0]["event_id"].as_str().unwrap();
    let of_event = gateway.get(&format!("events/{event}/deliveries")).await;
    assert_eq!(of_event["data"][0]["id"], delivery);
    let mut undelivered = body.clone();
    undelivered["only"] = "undelivered".into();
    let replay = gateway.post("replays", undelivered).await;
    let done = finished(replay["id"].as_str().unwrap()).await;
    assert_eq!(done["replayed"], 0, "everything was delivered");
    let (status, problem) = gateway
        .call(Method::POST, "replays", Some(json!({ "since": "2020-01-01T00:00:00Z", "onl": 1 })))
        .await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/endpoint", "/onl"]));
    let replay = gateway.post("replays", body).await;
    let path = format!("replays/{}", replay["id"].as_str().unwrap());
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    assert_ne!(gateway.get(&path).await["status"], "running");
    assert_eq!(gateway.get("replays").await["data"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn lists_are_narrowed_and_a_cursor_opens_its_own_list_only() {
    let (_folder, gateway, endpoint) = bench().await;
    let retry = json!({ "base": "1h", "factor": 1, "max_attempts": 2 });
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": retry })).await;
    endpoint.answer_first([503, 200]);
    let failed = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&failed, "retrying").await;
    let fine = publish(&gateway, "a.c", json!(2)).await;
    gateway.await_status(&fine, "delivered").await;
    for (query, expected) in [
        ("code=5xx", vec![&failed]),
        ("code=503", vec![&failed]),
        ("code=2xx", vec![&fine]),
        ("code=404", vec![]),
        ("status=retrying", vec![&failed]),
        ("type=a.*", vec![&fine, &failed]),
        ("type=a.c", vec![&fine]),
        ("endpoint=mine", vec![&fine, &failed]),
        ("until=2020-01-01T00:00:00Z", vec![]),
    ] {
        let page = gateway.get(&format!("deliveries?{query}")).await;
        let got: Vec<_> =
            page["data"].as_array().unwrap().iter().map(|it| &it["event_id"]).collect();
        assert_eq!(got, expected, "{query}");
    }
    let attempts = gateway.get("endpoints/mine/attempts?outcome=delivered").await;
    assert_eq!(attempts["data"].as_array().unwrap().len(), 1);
    gateway.call(Method::PUT, "/v1/tenants/two", Some(json!({}))).await;
    let page = gateway.get("deliveries?limit=1").await;
    let cursor = page["next_cursor"].as_str().unwrap();
    let second = gateway.get(&format!("deliveries?limit=1&cursor={cursor}")).await;
    assert_eq!(second["data"][0]["event_id"], failed.as_str());
    for path in [
        format!("/v1/tenants/two/deliveries?cursor={cursor}"),
        format!("/v1/tenants/default/events?cursor={cursor}"),
        format!("/v1/tenants/default/deliveries?cursor={cursor}A"),
        "/v1/tenants/default/deliveries?cursor=AAAA".to_owned(),
    ] {
        let (status, problem) = gateway.call(Method::GET, &path, None).await;
        assert_eq!((status, &problem["code"]), (400, &json!("invalid_cursor")), "{path}");
    }
    let (status, problem) = gateway.call(Method::GET, "deliveries?code=9xx", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_parameter")));
    let (status, problem) = gateway.call(Method::GET, "deliveries?stauts=dead", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("unknown_parameter")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_at_once_with_one_key_are_one_event() {
    let (_folder, gateway, _) = bench().await;
    let gateway = std::sync::Arc::new(gateway);
    let mut senders = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let gateway = gateway.clone();
        senders.spawn(async move {
            let event = r#"{"type":"a.b","data":1}"#;
            send(&gateway, &[JSON, ("idempotency-key", "\"one\"")], event).await
        });
    }
    let answers = senders.join_all().await;
    let new = answers.iter().filter(|(status, ..)| *status == 202).count();
    assert_eq!(new, 1);
    assert!(answers.iter().all(|(status, ..)| matches!(status, 200 | 202)));
    assert!(answers.iter().all(|(.., it)| it["id"] == answers[0].2["id"]));
    assert_eq!(gateway.get("events").await["data"].as_array().unwrap().len(), 1);
}

/// Headers, body, and the status and code of what comes back.
type Case<'a> = (&'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

#[tokio::test]
async fn bad_input_is_refused_with_what_is_wrong_and_leaves_nothing() {
    let (_folder, gateway, _) = bench().await;
    let nested = format!(r#"{{"type":"a","data":{}1{}}}"#, "[".repeat(65), "]".repeat(65));
    let members: Vec<_> = (0..10_001).map(|it| format!("\"k{it}\":1")).collect();
    let members = format!(r#"{{"type":"a","data":{{{}}}}}"#, members.join(","));
    let digits = format!(r#"{{"type":"a","data":{}}}"#, "1".repeat(900_000));
    let long_key = "k".repeat(256);
    let long_type = format!(r#"{{"type":"{}","data":1}}"#, "a".repeat(257));
    let event = r#"{"type":"a","data":1}"#;
    let long_key = [JSON, ("idempotency-key", long_key.as_str())];
    let cases: Vec<Case<'_>> = vec![
        (&[JSON], b"{\"type\":\"a\",\"data\":\"\xff\"}", 400, "invalid_json"),
        (&[JSON], br#"{"type":"a","data":"\ud800"}"#, 400, "invalid_json"),
        (&[JSON], b"{\"type\":\"a\",\"data\":\"\0\"}", 400, "invalid_json"),
        (&[JSON], b"\xef\xbb\xbf{\"type\":\"a\",\"data\":1}", 400, "invalid_json"),
        (&[JSON], b"", 400, "invalid_json"),
        (&[JSON], nested.as_bytes(), 422, "json_limits"),
        (&[JSON], members.as_bytes(), 422, "json_limits"),
        (&[JSON], digits.as_bytes(), 422, "json_limits"),
        (&[JSON], br#"{"type":"a","data":{"k":1,"k":2}}"#, 422, "json_limits"),
        (&[], event.as_bytes(), 415, "unsupported_media_type"),
        (&[("content-type", "text/html")], event.as_bytes(), 415, "unsupported_media_type"),
        (&[JSON], br#"{"type":"user..created","data":1}"#, 422, "invalid_event_type"),
        (&[JSON], r#"{"type":"user.créé","data":1}"#.as_bytes(), 422, "invalid_event_type"),
        (&[JSON], long_type.as_bytes(), 422, "invalid_event_type"),
        (&[JSON, ("idempotency-key", "")], event.as_bytes(), 400, "invalid_idempotency_key"),
        (&long_key, event.as_bytes(), 400, "invalid_idempotency_key"),
        (&[JSON, ("idempotency-key", "a\tb")], event.as_bytes(), 400, "invalid_idempotency_key"),
    ];
    for (headers, body, status, code) in cases {
        let (got, _, problem) = send(&gateway, headers, body.to_vec()).await;
        let shown = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{shown}: {problem}");
    }
    let key = [JSON, ("idempotency-key", "k")];
    assert_eq!(send(&gateway, &key, event).await.0, 202);
    let (status, _, problem) = send(&gateway, &key, r#"{"type":"a","data":2}"#).await;
    assert_eq!((status, &problem["code"]), (409, &json!("id_conflict")));
    assert_eq!(gateway.get("events").await["data"].as_array().unwrap().len(), 1);
}

/// Sends raw bytes and reads what comes back until the gateway closes or `patience` is over.
fn raw(gateway: &Gateway, request: &[u8], patience: Duration) -> String {
    let address = gateway.server.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut part) {
        answer.extend_from_slice(&part[..count]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_proper_http_is_refused() {
    let (_folder, gateway, _) = bench().await;
    let many: String = (0..101).map(|it| format!("x-{it}: 1\r\n")).collect();
    let large = format!("x-large: {}\r\n", "x".repeat(33 * 1024));
    let long = "x".repeat(16 * 1024);
    let auth = format!("host: x\r\nauthorization: Bearer {OPERATOR_KEY}\r\n");
    let twice = "content-length: 3\r\ncontent-length: 4\r\n";
    for (line, headers, expected) in [
        ("GET /healthz", many.as_str(), vec!["431"]),
        ("GET /healthz", large.as_str(), vec!["431"]),
        ("POST /v1/tenants/default/events", twice, vec!["400"]),
        ("GET /healthz", "x: a\rb\r\n", vec!["400"]),
        (&format!("GET /{long}"), "", vec!["414"]),
        ("GET /nowhere", "", vec!["404"]),
        ("GET /v1/tenants/%00", "", vec!["404"]),
        ("GET /v1/tenants/%ff", "", vec!["400"]),
        ("GET /v1/tenants/..%2f..%2fhealthz", "", vec!["404"]),
        ("PATCH /v1/tenants/default/events", "", vec!["405"]),
    ] {
        let request = format!("{line} HTTP/1.1\r\n{auth}{headers}\r\n");
        let answer = raw(&gateway, request.as_bytes(), Duration::from_millis(500));
        let status = answer.split(' ').nth(1).unwrap_or_default();
        let shown = &line[..line.len().min(40)];
        assert!(expected.contains(&status), "{shown}: {answer}");
        if status == "405" {
            let allow = answer.to_lowercase();
            assert!(allow.contains("allow: ") && allow.contains("post"), "{answer}");
        }
    }
    assert_eq!(gateway.get("events").await["data"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_dawdles_is_shown_out_and_others_are_served() {
    let (_folder, gateway, _) = bench().await;
    let address = gateway.server.strip_prefix("http://").unwrap().to_owned();
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(b"POST /v1/tenants/default/events HTTP/1.1\r\nhost: x").unwrap();
        idle.push(stream);
    }
    let mut kept = TcpStream::connect(&address).unwrap();
    kept.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    let started = tokio::time::Instant::now();
    publish(&gateway, "a.b", json!(1)).await;
    assert!(started.elapsed() < Duration::from_secs(2), "others are served meanwhile");
    let mut first = idle.swap_remove(0);
    first.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let ended = tokio::task::spawn_blocking(move || {
        let mut answer = String::new();
        first.read_to_string(&mut answer).map(|_| answer)
    });
    let answer = ended.await.unwrap().expect("the connection is closed");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 408 "), "{answer}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(408), &json!("head_too_slow")));
    assert!(head.ends_with(&format!("content-length: {}", body.len())), "{answer}");
    let waited = started.elapsed();
    assert!((8..=15).contains(&waited.as_secs()), "{waited:?}");
    // Who only keeps a connection is told nothing that could be taken for an answer.
    let mut answer = String::new();
    kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    kept.read_to_string(&mut answer).unwrap();
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
}
