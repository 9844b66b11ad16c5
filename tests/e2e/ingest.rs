//! What an ingest chain may put in an event's place, whose fault it is when it cannot be asked, and
//! that a version has the hooks that are needed where it is to run.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use hookgate::cli::authoring::{self, Kind, Lang};
use hookgate_tests::{Gateway, OPERATOR_KEY, plugin};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use crate::{bench, publish, register};

/// Each hook does what the configuration says.
const SCRIPT: &str = r#"
let config = {};
const run = (name, ...its) => new Function("it", "keys", config[name] ?? "")(...its);
export default {
  configure(given) { config = given; },
  HOOKS
};
"#;

/// A script with these hooks.
pub(crate) fn script(hooks: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("script");
    authoring::new("script", Lang::Javascript, Kind::Ingest, &folder).unwrap();
    let hooks =
        hooks.iter().map(|it| format!("{it}(it, keys) {{ return run(\"{it}\", it, keys); }},"));
    let text = SCRIPT.replace("HOOKS", &hooks.collect::<String>());
    std::fs::write(folder.join("plugin.js"), text).unwrap();
    std::fs::read(authoring::build(&folder).unwrap().path).unwrap()
}

/// Puts this code in front of the tenant's store.
async fn examine(gateway: &Gateway, code: &str) {
    let chain = json!({ "plugins": [{ "plugin": "script", "config": { "ingest": code } }] });
    let (status, answer) = gateway.call(Method::PUT, "ingest", Some(chain)).await;
    assert_eq!(status, 200, "{answer}");
}

/// Sends the same events so many times at once.
async fn send(gateway: &Gateway, times: usize, content_type: &str, body: &str) -> Vec<Response> {
    let mut sent = JoinSet::new();
    for _ in 0..times {
        let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
        let request = request.header("content-type", content_type).body(body.to_owned()).send();
        sent.spawn(async { request.await.unwrap() });
    }
    sent.join_all().await
}

#[tokio::test]
async fn a_version_has_the_hooks_that_are_needed_where_it_is_to_run() {
    let (_folder, gateway, endpoint) = bench().await;
    assert_eq!(gateway.upload("script", script(&["ingest", "transform"])).await.0, 201);
    let uses = json!({ "plugins": [{ "plugin": "script" }] });
    let id = register(&gateway, &endpoint, uses.clone()).await;
    let only = script(&["ingest"]);
    let (status, refused) = gateway.upload("script", only.clone()).await;
    assert_eq!((status, &refused["code"]), (422, &json!("plugin_no_hook")), "{refused}");
    assert_eq!(refused["errors"][0]["pointer"], format!("/endpoints/{id}/plugins/0/plugin"));

    examine(&gateway, "return it.data.bad ? { reject: '' } : true").await;
    let (status, uploaded) = gateway.upload("script?activate=false", script(&["transform"])).await;
    assert_eq!((status, &uploaded["version"]), (201, &json!(2)));
    let version = json!({ "version": 2 });
    let trial = json!({ "version": 2, "share": 1 });
    for (path, wish) in [("activate", &version), ("canary", &trial)] {
        let path = format!("plugins/script/{path}");
        let (status, refused) = gateway.call(Method::POST, &path, Some(wish.clone())).await;
        assert_eq!((status, &refused["code"]), (422, &json!("plugin_no_hook")), "{refused}");
        assert_eq!(refused["errors"][0]["pointer"], "/ingest/0/plugin");
    }
    gateway.post("plugins/script/canary?force=true", trial).await;
    let promote = "plugins/script/canary/promote";
    let (status, refused) = gateway.call(Method::POST, promote, None).await;
    assert_eq!((status, &refused["code"]), (422, &json!("plugin_no_hook")), "{refused}");

    let bad = json!({ "type": "a.b", "data": { "bad": true } });
    let (status, refused) = gateway.call(Method::POST, "events", Some(bad.clone())).await;
    assert_eq!(status, 422);
    assert_eq!(refused["errors"][0]["detail"], "plugin script: it gives no reason");
    // Who insists gets it; but what nobody examined is not stored.
    gateway.post(&format!("{promote}?force=true"), json!({})).await;
    let answer = send(&gateway, 1, "application/json", &bad.to_string()).await.remove(0);
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["code"], "plugin_error");
    assert!(answer["detail"].as_str().unwrap().contains("`ingest` hook"), "{answer}");

    assert_eq!(gateway.upload("only", only).await.0, 201);
    let body = json!({ "url": endpoint.url, "plugins": [{ "plugin": "only" }] });
    let event = json!({ "type": "a.b", "data": {} });
    let dry = json!({ "events": [event] });
    for (path, wish) in [
        ("endpoints", body),
        ("plugins/only/invoke", dry),
        ("plugins/only/backtest", json!({ "version": 1, "against": 1 })),
    ] {
        let (status, refused) = gateway.call(Method::POST, path, Some(wish)).await;
        assert_eq!(
            (status, &refused["code"]),
            (422, &json!("plugin_no_hook")),
            "{path}: {refused}"
        );
    }
    gateway.call(Method::PUT, "ingest", Some(json!({ "plugins": [] }))).await;
    publish(&gateway, "a.b", json!({})).await;
    endpoint.await_count(1).await;
}

#[tokio::test]
async fn what_an_ingest_plugin_makes_passes_what_a_producers_event_has_to() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({})).await;
    assert_eq!(gateway.upload("script", script(&["ingest"])).await.0, 201);
    for (code, says) in [
        ("let d = 1; for (let i = 0; i < 100; i++) d = [d]; return { data: d }", "nested deeper"),
        ("return { data: '\\ud800' }", "no Unicode text"),
        ("return { data: { '\\ud800': 1 } }", "no Unicode text"),
        ("return { type: 'a..b' }", "is no event type"),
    ] {
        examine(&gateway, code).await;
        let event = json!({ "type": "a.b", "data": 1 });
        let (status, refused) = gateway.call(Method::POST, "events", Some(event)).await;
        assert_eq!((status, &refused["code"]), (422, &json!("event_rejected")), "{code}");
        let detail = refused["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.starts_with("plugin script failed: ") && detail.contains(says), "{detail}");
    }
    let plugin = gateway.get("plugins/script").await;
    assert_eq!(plugin["stats"]["errors_by_code"], json!({ "plugin_output_invalid": 4 }));
    assert_eq!(plugin["stats"]["last_error"]["event_id"], Value::Null, "it had no id yet");
    examine(&gateway, "return { data: { fine: it.data } }").await;
    publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(endpoint.await_count(1).await[0].body["data"], json!({ "fine": 1 }));
}

#[tokio::test]
async fn what_was_accepted_is_a_duplicate_whatever_the_chain_says_now() {
    let (_folder, gateway, _endpoint) = bench().await;
    let event = |data: u32| json!({ "type": "a.b", "data": data, "id": "mine" });
    gateway.post("events", event(1)).await;
    assert_eq!(gateway.upload("script", script(&["ingest"])).await.0, 201);
    examine(&gateway, "return { reject: 'not any more' }").await;
    let (status, answer) = gateway.call(Method::POST, "events", Some(event(1))).await;
    assert_eq!((status, &answer["status"]), (200, &json!("duplicate")));
    let (status, answer) = gateway.call(Method::POST, "events", Some(event(2))).await;
    assert_eq!((status, &answer["code"]), (409, &json!("id_conflict")));
    let other = json!({ "type": "a.b", "data": 1, "id": "other" });
    assert_eq!(gateway.call(Method::POST, "events", Some(other)).await.0, 422);
}

#[tokio::test]
async fn events_wait_for_their_turn_at_a_plugin() {
    let (_folder, gateway, _endpoint) = bench().await;
    assert_eq!(gateway.upload("script", script(&["ingest"])).await.0, 201);
    examine(&gateway, "return { metadata: { seen: 'yes' } }").await;
    let events = (0..150).map(|n| json!({ "type": "a.b", "data": n })).collect::<Vec<_>>();
    let array = Value::from(events.clone()).to_string();
    let lines: String = events.iter().map(|it| format!("{it}\n")).collect();
    let arrays = send(&gateway, 10, "application/json", &array);
    let streams = send(&gateway, 6, "application/x-ndjson", &lines);
    let (arrays, streams) = tokio::join!(arrays, streams);
    for answer in arrays {
        assert_eq!(answer.status(), 202, "{}", answer.text().await.unwrap());
    }
    for answer in streams {
        let answer = answer.text().await.unwrap();
        assert_eq!(answer.lines().count(), 150);
        let refused = answer.lines().find(|it| !it.contains("\"accepted\""));
        assert_eq!(refused, None);
    }
    assert_eq!(gateway.get("plugins/script").await["stats"]["calls"], 16 * 150);
}

#[tokio::test]
async fn who_waits_in_vain_is_told_when_to_come_again() {
    let (_folder, gateway, _endpoint) = bench().await;
    assert_eq!(gateway.upload("script", script(&["ingest"])).await.0, 201);
    examine(&gateway, "for (let i = 0; i < 30000; i++) it.type += ''; return true").await;
    let quota = json!({ "quota": { "plugins": { "cpu_per_second": "1ms" } } });
    gateway.call(Method::PUT, "/v1/tenants/default", Some(quota)).await;
    let event = json!({ "type": "a.b", "data": 1 }).to_string();
    let began = Instant::now();
    let mut refused = 0;
    for answer in send(&gateway, 10, "application/json", &event).await {
        if answer.status() == 503 {
            assert_eq!(answer.headers()["retry-after"], "5");
            let answer: Value = answer.json().await.unwrap();
            assert_eq!(answer["code"], "plugin_overloaded");
            refused += 1;
        } else {
            assert_eq!(answer.status(), 202);
        }
    }
    assert!(refused > 0, "nobody had to wait");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_script_may_leave_the_data_as_it_came() {
    let (_folder, gateway, endpoint) = bench().await;
    assert_eq!(gateway.upload("script", script(&["transform"])).await.0, 201);
    let code = "return { headers: { 'x-team': 'billing' }, path: '/orders' }";
    let uses = json!({ "plugins": [{ "plugin": "script", "config": { "transform": code } }] });
    register(&gateway, &endpoint, uses).await;
    publish(&gateway, "a.b", json!({ "b": 1, "a": 2 })).await;
    let got = &endpoint.await_count(1).await[0];
    assert_eq!(
        (&got.body["data"], got.headers["x-team"].to_str().unwrap()),
        (&json!({ "b": 1, "a": 2 }), "billing")
    );
    assert!(got.path.ends_with("/orders"), "{}", got.path);
    let tried = async |code: &str| {
        let event = json!({ "type": "a.b", "data": 1 });
        let wish = json!({ "config": { "transform": code }, "events": [event] });
        gateway.post("plugins/script/invoke", wish).await["data"][0]["error"].clone()
    };
    let error = tried("return { data: 'x'.repeat(2 << 20) }").await;
    assert_eq!(error["code"], "plugin_limit");
    assert!(error["detail"].as_str().unwrap().contains("at most 1048576 bytes"), "{error}");
    let error = tried("return { data: undefined }").await;
    assert_eq!(error["code"], "plugin_error", "{error}");
}

#[tokio::test]
async fn a_refusal_reaches_who_is_still_writing() {
    let (_folder, gateway, _endpoint) = bench().await;
    let good = plugin::repository().join("plugin-sdk/script-engine/engine.wasm");
    let body = std::fs::read(good).unwrap().repeat(4);
    let address = gateway.server.trim_start_matches("http://").to_owned();
    for (path, kind, key, expected) in [
        ("-a", "application/wasm", OPERATOR_KEY, 422),
        ("a?activate=maybe", "application/wasm", OPERATOR_KEY, 400),
        ("a?other=1", "application/wasm", OPERATOR_KEY, 400),
        ("a", "text/plain", OPERATOR_KEY, 415),
        ("a", "application/wasm", "hgk_nobody", 401),
    ] {
        let head = format!(
            "PUT /v1/tenants/default/plugins/{path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer \
             {key}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let (address, body) = (address.clone(), body.clone());
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            for piece in body.chunks(256 * 1024) {
                stream.write_all(piece).unwrap();
            }
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            String::from_utf8_lossy(&answer).into_owned()
        });
        assert_eq!(answer.await.unwrap(), format!("HTTP/1.1 {expected}"), "{path}");
    }
}
