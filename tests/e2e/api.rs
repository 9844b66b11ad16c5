use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, OPERATOR_KEY};

async fn raw(gateway: &Gateway, method: Method, path: &str, key: &str, body: &str) -> (u16, Value) {
    let request = gateway.request(method, path, key).header("content-type", "application/json");
    let response = request.body(body.to_owned()).send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn every_bad_field_is_named_at_once() {
    let (_folder, gateway, _) = bench().await;
    let path = "/v1/tenants/default/endpoints";
    let body = r#"{"url": 7, "evnt_types": [], "timeout": "soon", "event_types": ["a..b"]}"#;
    let (status, problem) = raw(&gateway, Method::POST, path, OPERATOR_KEY, body).await;
    assert_eq!(status, 422);
    let pointers: Vec<_> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["pointer"].as_str().unwrap())
        .collect();
    for pointer in ["/url", "/evnt_types", "/timeout", "/event_types/0"] {
        assert!(pointers.contains(&pointer), "{pointer} in {pointers:?}");
    }
}

#[tokio::test]
async fn refusals_are_problems_with_a_code() {
    let (_folder, gateway, _) = bench().await;
    let events = "/v1/tenants/default/events";
    let big = format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(1024 * 1024 + 10));
    for (method, path, key, body, status, code) in [
        (Method::POST, events, "nonsense", "{}", 401, "unauthenticated"),
        (Method::POST, events, OPERATOR_KEY, "{\"type\":", 400, "invalid_json"),
        (
            Method::POST,
            events,
            OPERATOR_KEY,
            r#"{"type":"a..b","data":1}"#,
            422,
            "invalid_event_type",
        ),
        (Method::POST, events, OPERATOR_KEY, big.as_str(), 413, "body_too_large"),
        (Method::GET, "/nowhere", OPERATOR_KEY, "", 404, "route_not_found"),
        (Method::DELETE, events, OPERATOR_KEY, "", 405, "method_not_allowed"),
        (Method::GET, "/v1/tenants/nobody/endpoints", OPERATOR_KEY, "", 404, "tenant_not_found"),
        (
            Method::GET,
            "/v1/tenants/default/endpoints?cursor=x",
            OPERATOR_KEY,
            "",
            400,
            "invalid_cursor",
        ),
        (
            Method::GET,
            "/v1/tenants/default/endpoints?limit=251",
            OPERATOR_KEY,
            "",
            400,
            "invalid_parameter",
        ),
    ] {
        let (got, problem) = raw(&gateway, method, path, key, body).await;
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{path}: {problem}");
        assert_eq!(problem["status"], status);
    }
}

#[tokio::test]
async fn keys_open_what_their_scopes_say_and_nothing_of_others() {
    let (_folder, gateway, endpoint) = bench().await;
    let put = |tenant: &str| (Method::PUT, format!("/v1/tenants/{tenant}"));
    for tenant in ["one", "two"] {
        let (method, path) = put(tenant);
        assert_eq!(gateway.call(method, &path, Some(json!({ "name": tenant }))).await.0, 201);
    }
    let key = async |tenant: &str, scope: &str| {
        let body = json!({ "name": "k", "scopes": [scope] });
        let made = gateway.post(&format!("/v1/tenants/{tenant}/keys"), body).await;
        (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
    };
    let (produce, _) = key("one", "produce").await;
    let (read, _) = key("one", "read").await;
    let (manage, manage_id) = key("one", "manage").await;
    let event = r#"{"type":"a","data":1}"#;
    let hook = json!({ "id": "mine", "url": endpoint.url }).to_string();
    for (method, path, key, body, status) in [
        (Method::POST, "/v1/tenants/one/events", &produce, event, 202),
        (Method::GET, "/v1/tenants/one/endpoints", &produce, "", 403),
        (Method::GET, "/v1/tenants/one/endpoints", &read, "", 200),
        (Method::POST, "/v1/tenants/one/events", &read, event, 403),
        (Method::POST, "/v1/tenants/one/endpoints", &read, &hook, 403),
        (Method::POST, "/v1/tenants/one/endpoints", &manage, &hook, 201),
        (Method::GET, "/v1/tenants", &manage, "", 403),
    ] {
        let (got, body) = raw(&gateway, method, path, key, body).await;
        assert_eq!(got, status, "{path}: {body}");
    }
    let foreign = raw(&gateway, Method::GET, "/v1/tenants/two/endpoints/mine", &manage, "").await;
    let unknown = raw(&gateway, Method::GET, "/v1/tenants/none/endpoints/mine", &manage, "").await;
    assert_eq!(foreign, unknown);
    assert_eq!(foreign.0, 404);
    let revoke = format!("/v1/tenants/one/keys/{manage_id}");
    assert_eq!(gateway.call(Method::DELETE, &revoke, None).await.0, 204);
    assert_eq!(raw(&gateway, Method::GET, "/v1/tenants/one", &manage, "").await.0, 401);
}

#[tokio::test]
async fn the_same_id_is_stored_once() {
    let (_folder, gateway, _) = bench().await;
    let event = |data: u32| json!({ "id": "order-1", "type": "a.b", "data": data });
    for (data, status, code) in [(1, 202, "accepted"), (1, 200, "duplicate")] {
        let (got, answer) = gateway.call(Method::POST, "events", Some(event(data))).await;
        assert_eq!((got, &answer["status"]), (status, &json!(code)));
    }
    let (status, problem) = gateway.call(Method::POST, "events", Some(event(2))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("id_conflict")));
    let batch = json!([{ "type": "a.b", "data": 1 }, event(3)]);
    assert_eq!(gateway.call(Method::POST, "events", Some(batch)).await.0, 409);
    assert_eq!(gateway.get("events").await["data"].as_array().unwrap().len(), 1);
    let batch = json!([{ "type": "a.b", "data": 1 }, { "type": "", "data": 3 }]);
    let (status, problem) = gateway.call(Method::POST, "events", Some(batch)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/1/type")));
}

#[tokio::test]
async fn endpoints_are_patched_and_listed_page_by_page() {
    let (_folder, gateway, endpoint) = bench().await;
    for number in 0..5 {
        register(&gateway, &endpoint, json!({ "id": format!("e{number}") })).await;
    }
    let first = gateway.get("endpoints?limit=3").await;
    let ids = |page: &Value| -> Vec<String> {
        let data = page["data"].as_array().unwrap();
        data.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&first), ["e4", "e3", "e2"]);
    let next = first["next_cursor"].as_str().unwrap();
    let second = gateway.get(&format!("endpoints?limit=3&cursor={next}")).await;
    assert_eq!(
        (ids(&second), &second["next_cursor"]),
        (vec!["e1".into(), "e0".into()], &Value::Null)
    );
    let patch =
        json!({ "description": "x", "event_types": ["a.*"], "retry": { "schedule": ["1s"] } });
    let (status, patched) = gateway.call(Method::PATCH, "endpoints/e0", Some(patch)).await;
    assert_eq!((status, &patched["retry"]["schedule"]), (200, &json!(["1s"])), "{patched}");
    let patch = json!({ "description": null, "retry": { "base": "2s" } });
    let (_, patched) = gateway.call(Method::PATCH, "endpoints/e0", Some(patch)).await;
    assert_eq!((&patched["description"], &patched["retry"]["base"]), (&json!(""), &json!("2s")));
    assert_eq!(patched["event_types"], json!(["a.*"]));
    assert_eq!(gateway.call(Method::DELETE, "endpoints/e0", None).await.0, 204);
    assert_eq!(gateway.call(Method::GET, "endpoints/e0", None).await.0, 404);
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(gateway.get(&format!("events/{event}")).await["data"], 1);
}

#[tokio::test]
async fn what_happens_is_seen_live() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({})).await;
    let path = "/v1/tenants/default/events/tail";
    let mut tail = gateway.request(Method::GET, path, OPERATOR_KEY).send().await.unwrap();
    tail.chunk().await.unwrap();
    let event = publish(&gateway, "a.b", json!(1)).await;
    let mut text = String::new();
    while !text.contains("event: attempt") {
        text.push_str(&String::from_utf8_lossy(&tail.chunk().await.unwrap().unwrap()));
    }
    assert!(text.contains("event: event\nid: 1\n") && text.contains(&event), "{text}");
    assert!(text.contains(r#""status":"delivered""#), "{text}");
    let metrics = gateway.get("/metrics").await;
    assert!(
        metrics.as_str().unwrap().contains("hookgate_events_accepted_total{protocol=\"json\"} 1")
    );
}

/// What the operator does beside the store is told of as well.
#[tokio::test]
async fn log_levels_and_backups_are_in_the_audit_log() {
    let (_folder, gateway, _endpoint) = bench().await;
    let level = json!({ "level": "warn" });
    assert_eq!(gateway.call(Method::PUT, "/v1/system/log-level", Some(level)).await.0, 200);
    let request = gateway.request(Method::POST, "/v1/system/backup", hookgate_tests::OPERATOR_KEY);
    assert!(request.send().await.unwrap().bytes().await.unwrap().len() > 100);
    let log = gateway.get("/v1/audit-log?limit=2").await;
    let told: Vec<_> = log["data"].as_array().unwrap().iter().collect();
    assert_eq!((&told[0]["operation"], &told[0]["by"]), (&json!("backUp"), &json!("operator")));
    assert_eq!(told[1]["operation"], "putLogLevel");
    assert_eq!(told[1]["after"], json!({ "level": "warn" }));
    assert_ne!(told[1]["before"], told[1]["after"]);
}

/// A dry run tells what the replay then does.
#[tokio::test]
async fn a_replay_that_is_only_tried_tells_what_it_would_send() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({ "event_types": ["a.*"] })).await;
    for n in 0..8 {
        let event = publish(&gateway, if n < 3 { "a.x" } else { "z.z" }, json!(n)).await;
        if n < 3 {
            gateway.await_status(&event, "delivered").await;
        }
    }
    let wish = json!({ "endpoint": id, "since": "2020-01-01T00:00:00Z", "dry_run": true });
    let with = |name: &str, value: Value| {
        let mut wish = wish.clone();
        wish[name] = value;
        wish
    };
    for (wish, matching) in [
        (wish.clone(), 3),
        (with("only", json!("undelivered")), 0),
        (with("event_types", json!(["z.z"])), 5),
    ] {
        let (status, told) = gateway.call(Method::POST, "replays", Some(wish)).await;
        assert_eq!((status, &told["matching"]), (200, &json!(matching)), "{told}");
        assert_eq!((&told["examined"], &told["exact"]), (&json!(8), &json!(true)));
    }
    assert_eq!(gateway.get("replays").await["data"], json!([]));
    assert_eq!(endpoint.got().len(), 3);
    let replay = gateway.post("replays", with("dry_run", json!(false))).await;
    let path = format!("replays/{}", replay["id"].as_str().unwrap());
    endpoint.await_count(6).await;
    assert_eq!(gateway.get(&path).await["replayed"], 3);
}
