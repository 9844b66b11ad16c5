use std::{process::Command, time::Duration};

use reqwest::Method;
use serde_json::json;

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, Hostile, HostileEndpoint, OPERATOR_KEY, binary};

#[tokio::test]
async fn a_stop_finishes_what_is_in_flight() {
    let (folder, mut gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({})).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let gateway = Gateway::start(&folder.path().join("data"));
    gateway.await_status(&event, "delivered").await;
    assert_eq!(endpoint.got().len(), 1, "without a crash nothing comes twice");
}

/// Asks a gateway; its status, and whether it says when to come again.
async fn told(gateway: &Gateway, method: Method, path: &str) -> Option<(u16, bool)> {
    let request = gateway.request(method, path, OPERATOR_KEY);
    let answer = request.json(&json!({ "type": "a.b", "data": 1 })).send().await.ok()?;
    Some((answer.status().as_u16(), answer.headers().contains_key("retry-after")))
}

#[tokio::test]
async fn while_it_drains_it_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut gateway = Gateway::start(&data);
    let slow = HostileEndpoint::start(Hostile::Late(Duration::from_secs(4))).await;
    gateway.post("endpoints", json!({ "url": slow.url })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    while slow.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway.ask_to_stop();
    let events = "/v1/tenants/default/events";
    while told(&gateway, Method::GET, "/readyz").await.unwrap().0 == 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told(&gateway, Method::GET, "/readyz").await, Some((503, true)));
    assert_eq!(told(&gateway, Method::POST, events).await, Some((503, true)));
    assert_eq!(told(&gateway, Method::GET, "/healthz").await, Some((200, false)));
    assert_eq!(gateway.ended().await.code(), Some(0));
    let gateway = Gateway::start(&data);
    gateway.await_status(&event, "delivered").await;
    assert_eq!(slow.requests(), 1, "it was finished, not repeated");
}

#[tokio::test]
async fn a_stream_that_stays_open_does_not_hold_up_a_stop() {
    let (_folder, mut gateway, _) = bench().await;
    let (mut lines, source) = tokio::io::duplex(1024);
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/x-ndjson");
    let body = reqwest::Body::wrap_stream(tokio_util::io::ReaderStream::new(source));
    let mut answers = request.body(body).send().await.unwrap();
    let line = json!({ "type": "a.b", "data": 1 }).to_string() + "\n";
    tokio::io::AsyncWriteExt::write_all(&mut lines, line.as_bytes()).await.unwrap();
    let first = answers.chunk().await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("accepted"));
    let asked = tokio::time::Instant::now();
    assert_eq!(gateway.terminate().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let last = answers.chunk().await.unwrap().unwrap();
    let last: serde_json::Value = serde_json::from_slice(&last).unwrap();
    assert_eq!((&last["line"], &last["error"]["code"]), (&json!(2), &json!("unavailable")));
}

#[tokio::test]
async fn who_asks_twice_does_not_wait_for_the_grace() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut gateway = Gateway::start(&data);
    let slow = HostileEndpoint::start(Hostile::Late(Duration::from_secs(20))).await;
    gateway.post("endpoints", json!({ "url": slow.url })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    while slow.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let asked = tokio::time::Instant::now();
    gateway.ask_to_stop();
    tokio::time::sleep(Duration::from_millis(100)).await;
    gateway.ask_to_stop();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(gateway.child.try_wait().unwrap().is_none(), "twice at once is once");
    assert_eq!(gateway.terminate().await.code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    let gateway = Gateway::start(&data);
    while slow.requests() < 2 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (_, event) = gateway.call(Method::GET, &format!("events/{event}"), None).await;
    assert_eq!(event["type"], "a.b", "it is kept, and its delivery begun again");
}

#[tokio::test]
async fn exit_codes_tell_what_is_wrong() {
    let (folder, gateway, _) = bench().await;
    let config = folder.path().join("bad.toml");
    std::fs::write(&config, "liste = 1\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(binary()).arg("serve").args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let data = folder.path().join("data");
    let (code, text) = run(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(73), "{text}");
    let (code, text) = run(&["--config", config.to_str().unwrap()]);
    assert!(code == Some(64) && text.contains("liste"), "{text}");
    assert_eq!(run(&["--liste"]).0, Some(64));
    let (code, text) = run(&["--data-dir", config.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, Some(74), "a file is no data directory: {text}");
    let (taken, new) = (gateway.server.trim_start_matches("http://"), folder.path().join("new"));
    for address in [taken, "203.0.113.1:80"] {
        let (code, text) = run(&["--data-dir", new.to_str().unwrap(), "--listen", address]);
        assert!(code == Some(64) && text.contains(address), "{text}");
    }
    assert!(!new.exists(), "no store was made");
}

#[tokio::test]
async fn a_store_keeps_its_shards_and_none_is_made_where_none_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut gateway = Gateway::start_with(&data, &["--shards", "2"]);
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert!(gateway.terminate().await.success());
    let mut gateway = Gateway::start(&data);
    assert_eq!(gateway.get(&format!("events/{event}")).await["data"], 1);
    assert!(gateway.terminate().await.success());
    let run = |arguments: &[&str], data: &std::path::Path| {
        let output = Command::new(binary()).args(arguments).arg("--data-dir").arg(data).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, text) = run(&["serve", "--listen", "127.0.0.1:0", "--shards", "3"], &data);
    assert!(code == Some(64) && text.contains("shards"), "{text}");
    let nowhere = folder.path().join("nowhere");
    let (code, text) = run(&["store", "verify", "--accept-loss"], &nowhere);
    assert!(code == Some(74) && text.contains("no store"), "{text}");
    assert!(!nowhere.exists());
}

#[tokio::test]
async fn private_addresses_need_leave() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start_with(&folder.path().join("data"), &[]);
    for (url, code) in [
        ("http://127.0.0.1:8080/", "url_blocked_address"),
        ("https://169.254.169.254/", "url_blocked_address"),
        ("http://shop.example.com/", "url_scheme"),
    ] {
        let (status, problem) =
            gateway.call(Method::POST, "endpoints", Some(json!({ "url": url }))).await;
        assert_eq!((status, &problem["code"]), (422, &json!(code)), "{url}");
    }
    let (status, _) = gateway
        .call(Method::POST, "endpoints", Some(json!({ "url": "https://shop.example/hooks" })))
        .await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn the_command_line_is_a_client() {
    let (folder, gateway, endpoint) = bench().await;
    let run = |arguments: &[&str]| {
        let output = Command::new(binary())
            .args(arguments)
            .env("HOOKGATE_SERVER", &gateway.server)
            .env("HOOKGATE_KEY", hookgate_tests::OPERATOR_KEY)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), text, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, _, errors) = run(&["plugin", "new", "urgent", "--kind", "filter"]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, text, errors) = run(&["plugin", "test", "urgent"]);
    assert!(code == Some(0) && text.starts_with("ok      example"), "{text}{errors}");
    let (code, _, errors) = run(&["plugin", "deploy", "urgent"]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) =
        run(&["endpoints", "create", &endpoint.url, "--plugin", "urgent", "--id", "mine"]);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(run(&["send", "a.b", "-d", r#"{"urgent": false}"#]).0, Some(0));
    assert_eq!(run(&["send", "a.b", "-d", r#"{"urgent": true}"#]).0, Some(0));
    endpoint.await_count(1).await;
    let (_, text, _) = run(&["deliveries", "list", "--endpoint", "mine", "--status", "filtered"]);
    assert!(text.contains("it is not urgent") || text.contains("filtered"), "{text}");
    assert_eq!(run(&["endpoints", "get", "nobody"]).0, Some(4));
    assert_eq!(run(&["--key", "nonsense", "endpoints", "list"]).0, Some(3));
}

#[tokio::test]
async fn a_default_tenant_that_was_deleted_stays_so() {
    let (folder, mut gateway, _) = bench().await;
    let default = "/v1/tenants/default";
    assert_eq!(gateway.call(Method::DELETE, default, None).await.0, 204);
    assert!(gateway.terminate().await.success());
    let gateway = Gateway::start(&folder.path().join("data"));
    let (status, problem) = gateway.call(Method::GET, default, None).await;
    assert_eq!((status, &problem["code"]), (404, &json!("tenant_not_found")));
}
