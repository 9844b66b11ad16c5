use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register, until};
use hookgate_tests::{Gateway, Hostile, HostileEndpoint, TestEndpoint};

/// What `explain` tells of one endpoint.
fn told<'a>(explained: &'a Value, endpoint: &str) -> &'a Value {
    let all = explained["endpoints"].as_array().unwrap();
    all.iter().find(|it| it["endpoint_id"] == endpoint).unwrap()
}

#[tokio::test]
async fn an_attempt_tells_where_its_time_went_and_what_was_sent() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer_first([500]);
    let retry = json!({ "schedule": ["50ms"], "jitter": 0 });
    let headers = json!({ "authorization": "Bearer secret-of-the-tenant" });
    register(&gateway, &endpoint, json!({ "retry": retry, "headers": headers })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    let delivery = gateway.await_status(&event, "delivered").await;
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&path).await;
    let (second, first) = (&attempts["data"][0], &attempts["data"][1]);
    let timings = &first["timings"];
    for part in ["queue", "connect", "first_byte", "total"] {
        assert!(timings[part].as_str().unwrap().ends_with("ms"), "{timings}");
    }
    assert_eq!((&timings["tls"], &timings["plugin"]), (&Value::Null, &Value::Null));
    assert_eq!(second["timings"]["connect"], Value::Null, "the connection was kept");
    assert_eq!(first["request_headers"]["webhook-id"], event);
    assert_eq!(first["request_headers"]["authorization"], "***");
    assert_eq!(second["request_headers"], json!({}), "what went well is not worth it");
    assert_eq!(first["response_truncated"], false);
}

#[tokio::test]
async fn statistics_and_explanations() {
    let (_folder, gateway, endpoint) = bench().await;
    let dead = TestEndpoint::start().await;
    dead.answer(500);
    let retry = json!({ "schedule": ["1h"] });
    register(&gateway, &endpoint, json!({ "id": "all" })).await;
    register(&gateway, &endpoint, json!({ "id": "orders", "event_types": ["order.*"] })).await;
    let filter = json!({ "id": "big", "filter": "data.amount > 1000" });
    register(&gateway, &endpoint, filter).await;
    register(&gateway, &endpoint, json!({ "id": "off", "enabled": false })).await;
    let strict = json!({ "id": "dead", "retry": retry, "ordering": "strict" });
    register(&gateway, &dead, strict).await;
    let first = publish(&gateway, "payment.success", json!({ "amount": 5 })).await;
    let second = publish(&gateway, "payment.success", json!({ "other": 5 })).await;
    // Who was first is told by the millisecond.
    tokio::time::sleep(Duration::from_millis(2)).await;
    register(&gateway, &endpoint, json!({ "id": "late" })).await;
    let explained = until(&gateway, &format!("events/{first}/explain"), |it| {
        told(it, "dead")["code"] == "waiting_for_retry" && told(it, "all")["code"] == "delivered"
    })
    .await;
    for (endpoint, code) in [
        ("orders", "type_mismatch"),
        ("big", "filter_false"),
        ("off", "disabled"),
        ("late", "created_later"),
    ] {
        assert_eq!(told(&explained, endpoint)["code"], code);
        assert_eq!(told(&explained, endpoint)["status"], "not_sent");
    }
    assert!(told(&explained, "orders")["why"].as_str().unwrap().contains("order.*"));
    assert!(told(&explained, "dead")["next_attempt_at"].is_string());
    let explained =
        until(&gateway, &format!("events/{second}/explain"), |it| it["fanned_out"] == true).await;
    assert_eq!(told(&explained, "big")["code"], "filter_error");
    assert_eq!(told(&explained, "dead")["code"], "behind");
    let behind = told(&explained, "dead")["behind"].as_str().unwrap();
    let ahead = gateway.get(&format!("deliveries/{behind}")).await;
    assert_eq!(ahead["event_id"], first);

    let stats = gateway.get("endpoints/all/stats?window=10m").await;
    assert_eq!((&stats["delivered"], &stats["failed"]), (&json!(2), &json!(0)));
    assert_eq!((&stats["success_rate"], &stats["breaker"]), (&json!(1.0), &json!("closed")));
    assert!(stats["latency"]["p99"].is_string(), "{stats}");
    let stats = gateway.get("endpoints/dead/stats").await;
    assert_eq!((&stats["failed"], &stats["backlog"]), (&json!(1), &json!(2)), "{stats}");
    assert!(stats["oldest_pending_age"].is_string(), "{stats}");
    for bad in ["5", "1s", "2h", "x"] {
        let path = format!("endpoints/all/stats?window={bad}");
        assert_eq!(gateway.call(Method::GET, &path, None).await.0, 400, "{bad}");
    }
    let (status, _) = gateway.call(Method::GET, "events/evt_nothing/explain", None).await;
    assert_eq!(status, 404);
    let (status, _) = gateway.call(Method::DELETE, "endpoints/dead", None).await;
    assert_eq!(status, 204);
    let explained = gateway.get(&format!("events/{first}/explain")).await;
    assert_eq!(told(&explained, "dead")["code"], "endpoint_deleted");
    assert_eq!(told(&explained, "dead")["status"], "cancelled");
    let metrics = gateway.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in ["_overdue 0", "_pending{state=\"ready\"} 0"] {
        assert!(metrics.contains(&format!("hookgate_deliveries{line}")), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn a_breaker_opens_and_what_is_asked_for_goes_all_the_same() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "schedule": ["1h"] });
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": retry })).await;
    let mut last = String::new();
    for n in 0..60 {
        last = publish(&gateway, "a.b", json!(n)).await;
    }
    let open = |it: &Value| it["breaker"] == "open" && it["failed"].as_u64() >= Some(20);
    let stats = until(&gateway, "endpoints/mine/stats", open).await;
    assert!(stats["health"]["next_probe_at"].is_string(), "{stats}");
    let waits = |it: &Value| told(it, "mine")["code"] == "breaker_open";
    let explained = until(&gateway, &format!("events/{last}/explain"), waits).await;
    assert!(endpoint.got().len() < 40, "{} attempts", endpoint.got().len());
    // A manual retry and a test do not wait for the probe.
    endpoint.answer(200);
    let delivery = told(&explained, "mine")["delivery_id"].as_str().unwrap();
    let retry = format!("deliveries/{delivery}/retry");
    assert_eq!(gateway.call(Method::POST, &retry, Some(json!({}))).await.0, 202);
    gateway.await_status(&last, "delivered").await;
    let tested = gateway.post("endpoints/mine/test", json!({})).await;
    assert_eq!(tested["outcome"], "delivered");
    let closed = |it: &Value| it["breaker"] == "closed";
    until(&gateway, "endpoints/mine/stats", closed).await;
}

/// An endpoint that is not asked to slow down gets its events as fast as it takes them; of those
/// that ask, each gets at most ten a second, the least that half of a rate is counted from.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "real time: a rate is kept")]
async fn who_asks_for_less_is_not_flooded() {
    const EVENTS: usize = 600;
    const AT_FIRST: usize = 8;
    let (_folder, gateway, slowed) = bench().await;
    let (paused, failing) = (TestEndpoint::start().await, TestEndpoint::start().await);
    // Their retries come later; this is about what else goes there.
    let with = |id: &str| json!({ "id": id, "retry": { "schedule": ["1h"] } });
    for (endpoint, id, status) in
        [(&slowed, "slowed", 429), (&paused, "paused", 503), (&failing, "failing", 503)]
    {
        endpoint.answer_first([status; AT_FIRST]);
        register(&gateway, endpoint, with(id)).await;
    }
    paused.ask_to_wait(1);
    let started = Instant::now();
    let events: Vec<_> = (0..EVENTS).map(|it| json!({ "type": "a.b", "data": it })).collect();
    let accepted = gateway.post("events", events.into()).await;
    let slow = |it: &Value| it["health"]["slowed_until"].is_string();
    until(&gateway, "endpoints/slowed/stats", slow).await;
    let last = accepted["events"][EVENTS - 1]["id"].as_str().unwrap();
    let waits = |it: &Value| {
        let mut all = it["endpoints"].as_array().unwrap().iter();
        all.any(|it| it["endpoint_id"] == "slowed" && it["code"] == "slowed")
    };
    until(&gateway, &format!("events/{last}/explain"), waits).await;
    failing.await_count(EVENTS).await;
    let most = |elapsed: Duration| AT_FIRST + 10 + (10.0 * elapsed.as_secs_f64()) as usize;
    for endpoint in [&slowed, &paused] {
        let (got, most) = (endpoint.got().len(), most(started.elapsed()));
        assert!(got <= most, "{got} came and not {most} at most");
    }
    // It is slower, and does not stop.
    for endpoint in [&slowed, &paused] {
        let got = endpoint.await_count(AT_FIRST + 10).await.len();
        let most = most(started.elapsed());
        assert!(got <= most, "{got} came and not {most} at most");
    }
    let explained = gateway.get("endpoints/slowed").await;
    assert_eq!(explained["enabled"], true, "{explained}");
}

#[tokio::test]
async fn a_retry_of_a_disabled_endpoint_is_told_as_held() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "schedule": ["1h"] });
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": retry })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&event, "retrying").await;
    let why = async || told(&gateway.get(&format!("events/{event}/explain")).await, "mine").clone();
    assert_eq!(why().await["code"], "waiting_for_retry");
    gateway.call(Method::PATCH, "endpoints/mine", Some(json!({ "enabled": false }))).await;
    assert_eq!(why().await["code"], "held_disabled");
    gateway.call(Method::PATCH, "endpoints/mine", Some(json!({ "enabled": true }))).await;
    assert_eq!(why().await["code"], "waiting_for_retry");
}

#[tokio::test]
async fn a_disabled_endpoints_backlog_is_held_and_its_tenant_told() {
    let (_folder, gateway, endpoint) = bench().await;
    let watcher = TestEndpoint::start().await;
    register(&gateway, &watcher, json!({ "event_types": ["hookgate.**"] })).await;
    let everything = TestEndpoint::start().await;
    register(&gateway, &everything, json!({})).await;
    endpoint.answer(410);
    register(&gateway, &endpoint, json!({ "id": "mine", "ordering": "strict" })).await;
    // Together: what comes once it is disabled is not for it at all.
    let both = json!([{ "type": "a.b", "data": 1 }, { "type": "a.b", "data": 2 }]);
    let accepted = gateway.post("events", both).await;
    let id = |place: usize| accepted["events"][place]["id"].as_str().unwrap().to_owned();
    let (first, second) = (id(0), id(1));
    let got = watcher.await_count(2).await;
    let mut types: Vec<_> = got.iter().map(|it| it.body["type"].clone()).collect();
    types.sort_by_key(Value::to_string);
    assert_eq!(types, ["hookgate.dead_letter", "hookgate.endpoint.disabled"]);
    let letter = got.iter().find(|it| it.body["type"] == "hookgate.dead_letter").unwrap();
    assert_eq!(letter.body["data"]["reasons"], json!({ "gone": 1 }));
    assert!(letter.headers.contains_key("webhook-signature"));
    assert!(everything.got().iter().all(|it| it.body["type"] == "a.b"));
    let explained = gateway.get(&format!("events/{second}/explain")).await;
    assert_eq!(told(&explained, "mine")["code"], "held_disabled", "{explained}");
    let explained = gateway.get(&format!("events/{first}/explain")).await;
    assert_eq!(told(&explained, "mine")["code"], "gone");
    // Asked for by hand, it says why not, and nothing changes.
    let delivery = told(&explained, "mine")["delivery_id"].as_str().unwrap();
    let retry = format!("deliveries/{delivery}/retry");
    let (status, problem) = gateway.call(Method::POST, &retry, Some(json!({}))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("endpoint_disabled")), "{problem}");
    let letters = gateway.get("dead-letters?endpoint=mine").await;
    assert_eq!(letters["data"][0]["reason"], "gone", "{letters}");
    // Nobody is called because of what is held.
    let metrics = gateway.get("/metrics").await;
    assert!(metrics.as_str().unwrap().contains("hookgate_deliveries_overdue 0"), "{metrics}");
    endpoint.answer(200);
    let enable = json!({ "enabled": true });
    assert_eq!(gateway.call(Method::PATCH, "endpoints/mine", Some(enable)).await.0, 200);
    let held = format!("events/{second}/explain");
    until(&gateway, &held, |it| told(it, "mine")["code"] == "delivered").await;
    assert_eq!(endpoint.got().len(), 2);
}

#[tokio::test]
async fn a_delivery_that_waits_can_be_cancelled() {
    let (folder, mut gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "schedule": ["1h"], "jitter": 0 });
    let with = json!({ "id": "mine", "ordering": "strict", "retry": retry });
    register(&gateway, &endpoint, with).await;
    let events = json!([1, 2, 3].map(|it| json!({ "type": "a.b", "data": it })));
    let accepted = gateway.post("events", events).await;
    let ids = [0, 1, 2].map(|it| accepted["events"][it]["id"].as_str().unwrap().to_owned());
    let [first, second, third] = &ids;
    let delivery = async |event: &str, status: &str| {
        let delivery = gateway.await_status(event, status).await;
        format!("deliveries/{}", delivery["id"].as_str().unwrap())
    };
    let failed = delivery(first, "retrying").await;
    let waits = delivery(third, "pending").await;
    for it in [&failed, &waits] {
        let cancelled = gateway.post(&format!("{it}/cancel"), json!({})).await;
        assert_eq!(cancelled["status"], "cancelled");
        let (status, problem) =
            gateway.call(Method::POST, &format!("{it}/cancel"), Some(json!({}))).await;
        assert_eq!((status, &problem["code"]), (409, &json!("delivery_not_waiting")));
    }
    // The one between them has its turn now.
    let failed = delivery(second, "retrying").await;
    endpoint.answer(200);
    gateway.post(&format!("{failed}/retry"), json!({})).await;
    delivery(second, "delivered").await;
    let log = gateway.get("audit-log?limit=3").await;
    let told = |place: usize| {
        let it = &log["data"][place];
        [&it["operation"], &it["before"]["status"], &it["after"]["status"]].map(Value::to_string)
    };
    let expected = |it: [&str; 3]| it.map(|it| format!("{it:?}"));
    assert_eq!(told(0), expected(["retryDelivery", "retrying", "retrying"]));
    assert_eq!(told(1), expected(["cancelDelivery", "pending", "cancelled"]));
    assert_eq!(told(2), expected(["cancelDelivery", "retrying", "cancelled"]));
    // Nor does a restart bring one back.
    gateway.terminate().await;
    let gateway = Gateway::start(&folder.path().join("data"));
    let fourth = publish(&gateway, "a.b", json!(4)).await;
    gateway.await_status(&fourth, "delivered").await;
    let got: Vec<_> = endpoint.got().iter().map(|it| it.body["data"].clone()).collect();
    assert_eq!(got, [1, 2, 2, 4]);
    for event in [first, third] {
        gateway.await_status(event, "cancelled").await;
    }
}

#[tokio::test]
async fn a_delivery_under_way_cannot_be_cancelled() {
    let (_folder, gateway, _) = bench().await;
    let endpoint = HostileEndpoint::start(Hostile::NeverAnswers).await;
    gateway.post("endpoints", json!({ "id": "mine", "url": endpoint.url })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    let delivery = gateway.await_status(&event, "pending").await;
    while endpoint.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let cancel = format!("deliveries/{}/cancel", delivery["id"].as_str().unwrap());
    let (status, problem) = gateway.call(Method::POST, &cancel, Some(json!({}))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("delivery_not_waiting")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("under way"), "{problem}");
}

#[tokio::test]
async fn a_replay_keeps_the_order_of_a_strict_endpoint() {
    let (_folder, gateway, endpoint) = bench().await;
    let retry = json!({ "schedule": ["1s"], "jitter": 0 });
    let with = json!({ "id": "mine", "ordering": "strict", "retry": retry });
    register(&gateway, &endpoint, with).await;
    for n in 1..=3 {
        // A replay leaves out what is not finished.
        let event = publish(&gateway, "a.b", json!(n)).await;
        gateway.await_status(&event, "delivered").await;
    }
    endpoint.answer_first([500]);
    let replay = json!({ "endpoint": "mine", "since": "2020-01-01T00:00:00Z" });
    gateway.post("replays", replay).await;
    let got = endpoint.await_count(7).await;
    let got: Vec<_> = got.iter().map(|it| it.body["data"].clone()).collect();
    assert_eq!(got, [1, 2, 3, 1, 1, 2, 3]);
}

#[tokio::test]
async fn statistics_outlive_a_stop_and_tell_of_a_crash() {
    let (folder, mut gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({})).await;
    let path = format!("endpoints/{id}/stats?window=1h");
    for n in 0..3 {
        publish(&gateway, "a.b", json!(n)).await;
    }
    let before = until(&gateway, &path, |it| it["delivered"] == 3).await;
    let data = folder.path().join("data");
    for _ in 0..2 {
        assert!(gateway.terminate().await.success());
        gateway = Gateway::start(&data);
        let after = gateway.get(&path).await;
        for field in ["delivered", "failed", "since", "latency", "success_rate"] {
            assert_eq!(after[field], before[field], "{field}");
        }
    }
    let last = publish(&gateway, "a.b", json!(4)).await;
    until(&gateway, &path, |it| it["delivered"] == 4).await;
    // It is counted before it is written down; what is not would be made again, and counted.
    gateway.await_status(&last, "delivered").await;
    gateway.kill();
    let gateway = Gateway::start(&data);
    let crashed = gateway.get(&path).await;
    assert_eq!(crashed["delivered"], 0, "of a crash nothing is known");
    assert!(crashed["since"].as_str() > before["since"].as_str(), "and it says so: {crashed}");
}
