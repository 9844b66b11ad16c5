//! What a client may rely on, said by said: lists, tags, names, bodies that mean two things.

use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, OPERATOR_KEY, TestEndpoint, plugin};

const ENDPOINTS: &str = "/v1/tenants/default/endpoints";
const EVENTS: &str = "/v1/tenants/default/events";

/// Follows a list by pages of this size; all that it has.
async fn follow(gateway: &Gateway, path: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("{path}?limit={limit}&cursor={cursor}")).await;
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= limit, "{path}: {} of {limit}", data.len());
        all.extend(data.iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => return all,
        }
    }
}

fn members(them: &[Value], name: &str) -> Vec<Value> {
    them.iter().map(|it| it[name].clone()).collect()
}

/// Where a refusal says that the body is wrong.
fn pointers(problem: &Value) -> Vec<&str> {
    let errors = problem["errors"].as_array().into_iter().flatten();
    errors.map(|it| it["pointer"].as_str().unwrap()).collect()
}

/// Waits until so many attempts are written down: an endpoint knows of one before.
async fn await_attempts(gateway: &Gateway, path: &str, count: usize) {
    for _ in 0..400 {
        if follow(gateway, path, 250).await.len() == count {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{path} has no {count}");
}

/// An event that two endpoints received, one of them four times; its id, and that delivery's.
async fn repeated(gateway: &Gateway, endpoint: &TestEndpoint) -> (String, Value) {
    register(gateway, endpoint, json!({ "id": "once" })).await;
    register(gateway, endpoint, json!({ "id": "often" })).await;
    let event = publish(gateway, "a.b", json!(1)).await;
    endpoint.await_count(2).await;
    let path = format!("{EVENTS}/{event}/deliveries");
    let both = |it: &Value| it["data"].as_array().is_some_and(|it| it.len() == 2);
    let deliveries = crate::until(gateway, &path, both).await;
    let mut deliveries = deliveries["data"].as_array().unwrap().iter();
    let often = deliveries.find(|it| it["endpoint_id"] == "often").unwrap().clone();
    let delivery = format!("deliveries/{}", often["id"].as_str().unwrap());
    let attempts = format!("{delivery}/attempts");
    for made in 1..4 {
        await_attempts(gateway, &attempts, made).await;
        gateway.post(&format!("{delivery}/retry"), json!({})).await;
    }
    await_attempts(gateway, &attempts, 4).await;
    (event, often)
}

#[tokio::test]
async fn each_list_keeps_its_limit_and_goes_on_at_its_cursor() {
    let (_folder, gateway, endpoint) = bench().await;
    let (event, often) = repeated(&gateway, &endpoint).await;
    publish(&gateway, "a.c", json!(2)).await;
    await_attempts(&gateway, "endpoints/often/attempts", 5).await;
    let of_delivery = format!("deliveries/{}/attempts", often["id"].as_str().unwrap());
    let of_event = format!("events/{event}/deliveries");
    for limit in [1, 2, 3, 250] {
        let attempts = follow(&gateway, &of_delivery, limit).await;
        assert_eq!(members(&attempts, "number"), [4, 3, 2, 1], "by {limit}");
        let attempts = follow(&gateway, "endpoints/often/attempts", limit).await;
        assert_eq!(members(&attempts, "number"), [1, 4, 3, 2, 1], "by {limit}");
        let deliveries = follow(&gateway, &of_event, limit).await;
        assert_eq!(members(&deliveries, "endpoint_id"), ["once", "often"], "by {limit}");
        let registered = follow(&gateway, "/api/webhooks", limit).await;
        assert_eq!(members(&registered, "id"), ["often", "once"], "by {limit}");
    }
    let lists = ["endpoints/often/attempts", "/api/webhooks", "plugins", &of_delivery, &of_event];
    for list in lists {
        for query in ["limit=0", "limit=251", "limit=x", "cursor=zz", "nothing=1"] {
            let (status, problem) =
                gateway.call(Method::GET, &format!("{list}?{query}"), None).await;
            assert_eq!(status, 400, "{list}?{query}: {problem}");
        }
    }
}

#[tokio::test]
async fn plugins_come_newest_first_and_are_tried_on_one_kind_of_events() {
    let (_folder, gateway, _endpoint) = bench().await;
    for name in ["a-first", "b-second", "c-third"] {
        assert_eq!(gateway.upload(name, plugin::example("redact")).await.0, 201);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    for limit in [1, 2, 250] {
        let plugins = follow(&gateway, "plugins", limit).await;
        assert_eq!(members(&plugins, "name"), ["c-third", "b-second", "a-first"], "by {limit}");
    }
    let both = json!({ "events": [{ "type": "a.b", "data": {} }], "recent": 1 });
    let (status, problem) = gateway.call(Method::POST, "plugins/a-first/invoke", Some(both)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/recent"]), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_at_once_leave_nothing_half() {
    const AT_ONCE: usize = 25;
    const PLUGIN: &str = "/v1/tenants/default/plugins/one";
    let (_folder, gateway, _endpoint) = bench().await;
    let url = "https://shop.example/hooks";
    gateway.post("endpoints", json!({ "id": "mine", "url": url })).await;
    let mut patches = JoinSet::new();
    for n in 0..AT_ONCE {
        let path = format!("{ENDPOINTS}/mine");
        let patch = json!({ "metadata": { format!("k{n}"): "1" } });
        let request = gateway.request(Method::PATCH, &path, OPERATOR_KEY).json(&patch);
        patches.spawn(request.send());
    }
    while let Some(answer) = patches.join_next().await {
        assert_eq!(answer.unwrap().unwrap().status(), 200);
    }
    let kept = gateway.get("endpoints/mine").await;
    assert_eq!(kept["metadata"].as_object().unwrap().len(), AT_ONCE, "{kept}");
    for _ in 0..3 {
        assert_eq!(gateway.upload("one", plugin::example("redact")).await.0 / 100, 2);
        let endpoint = json!({ "url": url, "plugins": [{ "plugin": "one" }] });
        let mut calls = JoinSet::new();
        for _ in 0..AT_ONCE {
            let made = gateway.request(Method::POST, ENDPOINTS, OPERATOR_KEY).json(&endpoint);
            calls.spawn(made.send());
            calls.spawn(gateway.request(Method::DELETE, PLUGIN, OPERATOR_KEY).send());
        }
        while calls.join_next().await.is_some() {}
        let gone = gateway.call(Method::GET, "plugins/one", None).await.0 == 404;
        let users = gateway.get("endpoints?limit=250").await;
        let users = users["data"].as_array().unwrap().iter();
        let users = users.filter(|it| it["plugins"][0]["plugin"] == "one").count();
        assert!(!gone || users == 0, "{users} endpoints use a plugin that is gone");
        if !gone {
            break;
        }
    }
}

#[tokio::test]
async fn an_address_is_needed() {
    let (_folder, gateway, _endpoint) = bench().await;
    let (status, problem) =
        gateway.call(Method::POST, "endpoints", Some(json!({ "url": "" }))).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/url"]), "{problem}");
    let short = json!({ "event_type": "a.b", "callback_url": "" });
    let (status, problem) = gateway.call(Method::POST, "/api/webhooks/register", Some(short)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/callback_url"]), "{problem}");
}

#[tokio::test]
async fn events_of_one_request_that_contradict_each_other_are_none() {
    let (_folder, gateway, _endpoint) = bench().await;
    let of = |id: &str, data: u32| json!({ "type": "a.b", "id": id, "data": data });
    let both = json!([of("x", 1), of("y", 1), of("x", 2)]);
    let (status, problem) = gateway.call(Method::POST, "events", Some(both)).await;
    assert_eq!((status, &problem["code"]), (409, &json!("id_conflict")));
    for id in ["x", "y"] {
        let (status, _) = gateway.call(Method::GET, &format!("events/{id}"), None).await;
        assert_eq!(status, 404, "{id} is not stored");
    }
    let twice = gateway.post("events", json!([of("x", 1), of("x", 1)])).await;
    assert_eq!(members(twice["events"].as_array().unwrap(), "status"), ["accepted", "duplicate"]);
}

#[tokio::test]
async fn another_list_under_the_same_key_is_another_body() {
    let (_folder, gateway, _endpoint) = bench().await;
    let of = |data: u32| json!({ "type": "a.b", "data": data });
    let send = async |body: Value| {
        let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
        let answer = request.header("idempotency-key", "one").json(&body).send().await.unwrap();
        answer.status().as_u16()
    };
    assert_eq!(send(json!([of(1), of(2)])).await, 202);
    assert_eq!(send(json!([of(1), of(2)])).await, 200);
    for other in [json!([of(1), of(2), of(3)]), json!([of(1)]), of(1)] {
        assert_eq!(send(other.clone()).await, 409, "{other}");
    }
    assert_eq!(gateway.get("events").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_key_that_comes_with_a_known_event_is_a_name_of_it() {
    let (_folder, gateway, _endpoint) = bench().await;
    let send = async |key: &str, body: Value| {
        let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
        let answer = request.header("idempotency-key", key).json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap()["code"].as_str().map(str::to_owned))
    };
    let conflict = (409, Some("id_conflict".to_owned()));
    let (one, two) =
        (json!({ "id": "one", "type": "a", "data": 1 }), json!({ "type": "a", "data": 2 }));
    gateway.post("events", one.clone()).await;
    assert_eq!(send("z", one.clone()).await, (200, None));
    assert_eq!(send("z", two.clone()).await, conflict);
    assert_eq!(send("z", one.clone()).await, (200, None), "it still names the first");
    assert_eq!(send("y", two).await, (202, None));
    assert_eq!(send("y", one).await, conflict, "it names another");
}

#[tokio::test]
async fn a_retry_that_says_nothing_is_the_usual_one() {
    let (_folder, gateway, _endpoint) = bench().await;
    let url = "https://shop.example/hooks";
    let usual = gateway.post("endpoints", json!({ "url": url })).await["retry"].clone();
    for retry in [json!({}), json!({ "schedule": null }), json!({ "base": null })] {
        let made = gateway.post("endpoints", json!({ "url": url, "retry": retry })).await;
        assert_eq!(made["retry"], usual, "{retry}");
    }
    let retry = json!({ "schedule": null, "base": "2s" });
    let made = gateway.post("endpoints", json!({ "url": url, "retry": retry })).await;
    assert_eq!(made["retry"]["base"], "2s", "{made}");
    let slack = json!({ "scheme": "slack", "header": "x-a", "timestamp_header": "X-A" });
    let endpoint = json!({ "url": url, "signature": slack });
    let (status, problem) = gateway.call(Method::POST, "endpoints", Some(endpoint)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/signature/timestamp_header"]));
}

#[tokio::test]
async fn lines_under_an_idempotency_key_are_stored_once() {
    let (_folder, gateway, _endpoint) = bench().await;
    let send = async |key: &str, lines: &'static str| {
        let request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
        let request = request.header(header::CONTENT_TYPE, "application/x-ndjson");
        let answer = request.header("idempotency-key", key).body(lines).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let lines = text.lines().map(|it| serde_json::from_str::<Value>(it).unwrap());
        lines.map(|it| it["status"].as_str().unwrap_or("none").to_owned()).collect::<Vec<_>>()
    };
    let lines = "{\"type\":\"a\",\"data\":1}\n\n{\"type\":\"a\",\"data\":1}\n";
    assert_eq!(send("one", lines).await, ["accepted", "accepted"]);
    assert_eq!(send("one", lines).await, ["duplicate", "duplicate"]);
    assert_eq!(send("two", lines).await, ["accepted", "accepted"]);
    assert_eq!(send("one", "{\"type\":\"a\",\"data\":2}\n").await, ["rejected"]);
    assert_eq!(send("", lines).await, ["none"], "it is no key");
}

#[tokio::test]
async fn what_means_two_things_or_nothing_is_refused() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({})).await;
    let path = format!("endpoints/{id}");
    let patch = json!({ "filtr": null, "description": "x" });
    let (status, problem) = gateway.call(Method::PATCH, &path, Some(patch)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/filtr"]), "{problem}");
    let (status, _) = gateway.call(Method::PATCH, &path, Some(json!({ "filter": null }))).await;
    assert_eq!(status, 200);
    let both = json!({ "ids": [], "endpoint": id });
    let (status, problem) = gateway.call(Method::POST, "dead-letters/redrive", Some(both)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/ids"]), "{problem}");
}

#[tokio::test]
async fn a_dead_letter_named_twice_is_redriven_once() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "retry": { "schedule": [] } })).await;
    endpoint.answer_first([500]);
    let event = publish(&gateway, "a.b", json!(1)).await;
    let dead = gateway.await_status(&event, "dead").await;
    let twice = json!({ "ids": [dead["id"], dead["id"]] });
    let redriven = gateway.post("dead-letters/redrive", twice).await;
    assert_eq!(redriven["redriven"], 1);
}

async fn cloud_event(gateway: &Gateway, headers: &[(&str, &str)], body: Value) -> (u16, Value) {
    let mut request = gateway.request(Method::POST, EVENTS, OPERATOR_KEY);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.body(body.to_string()).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

#[tokio::test]
async fn a_cloud_event_is_told_by_any_of_its_headers() {
    let (_folder, gateway, _endpoint) = bench().await;
    let plain = ("content-type", "application/json");
    let headers = [plain, ("ce-type", "a.b"), ("ce-source", "/s")];
    let (status, problem) = cloud_event(&gateway, &headers, json!({ "n": 1 })).await;
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_cloudevent")));
    let mut missing = pointers(&problem);
    missing.sort_unstable();
    assert_eq!(missing, ["/id", "/specversion"]);
    let event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "a.b" });
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let (status, problem) = cloud_event(&gateway, &batch, event.clone()).await;
    assert_eq!((status, pointers(&problem)), (422, vec![""]), "{problem}");
    let mut both = event;
    (both["data"], both["data_base64"]) = (json!(1), json!("MQ=="));
    let structured = [("content-type", "application/cloudevents+json")];
    let (status, problem) = cloud_event(&gateway, &structured, both.clone()).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/data_base64"]), "{problem}");
    both["data"] = Value::Null;
    assert_eq!(cloud_event(&gateway, &structured, both).await.0, 202);
}

/// Asks with one more header; status, tag, and where what was made is.
async fn tagged(
    gateway: &Gateway,
    (method, path): (Method, &str),
    (name, value): (&str, &str),
    body: Option<Value>,
) -> (u16, String, String) {
    let mut request = gateway.request(method, path, OPERATOR_KEY).header(name, value);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.unwrap();
    assert!(answer.headers().contains_key("x-request-id"));
    let text = |name| {
        let value = answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        value.unwrap_or_default()
    };
    (answer.status().as_u16(), text(header::ETAG), text(header::LOCATION))
}

#[tokio::test]
async fn tags_are_heeded_in_both_directions() {
    let (_folder, gateway, _endpoint) = bench().await;
    let (tenant, name) = ("/v1/tenants/acme", json!({ "name": "Acme" }));
    let new = ("if-none-match", "*");
    let put = (Method::PUT, tenant);
    let (status, tag, _) = tagged(&gateway, put.clone(), new, Some(name.clone())).await;
    assert_eq!(status, 201);
    assert_eq!(tagged(&gateway, put.clone(), new, Some(name)).await.0, 412, "it is there");
    let read = (Method::GET, tenant);
    let (status, same, _) = tagged(&gateway, read.clone(), ("if-none-match", &tag), None).await;
    assert_eq!((status, &same), (304, &tag));
    assert_eq!(tagged(&gateway, read, ("if-none-match", "\"x\""), None).await.0, 200);
    let changed = Some(json!({ "name": "Another" }));
    assert_eq!(tagged(&gateway, put, ("if-match", &tag), changed).await.0, 200);
    let delete = (Method::DELETE, tenant);
    assert_eq!(tagged(&gateway, delete.clone(), ("if-match", &tag), None).await.0, 412, "stale");
    assert_eq!(tagged(&gateway, delete, ("if-match", "*"), None).await.0, 204);
}

#[tokio::test]
async fn what_is_made_tells_where_it_is() {
    let (_folder, gateway, endpoint) = bench().await;
    let other = ("accept", "*/*");
    let url = &endpoint.url;
    let replay = json!({ "endpoint": "e", "since": "2026-01-01T00:00:00Z",
        "until": "9999-12-31T23:59:59Z" });
    for (path, body, status) in [
        (ENDPOINTS, json!({ "url": url, "id": "e" }), 201),
        ("/api/webhooks/register", json!({ "callback_url": url, "event_type": "a.b" }), 201),
        ("/v1/tenants/default/replays", replay, 202),
    ] {
        let (got, _, place) = tagged(&gateway, (Method::POST, path), other, Some(body)).await;
        assert_eq!(got, status, "{path}");
        let (status, there) = gateway.call(Method::GET, &place, None).await;
        assert_eq!(status, 200, "{path}: {place}");
        assert!(place.ends_with(there["id"].as_str().unwrap()), "{place}");
    }
}

#[tokio::test]
async fn the_scheme_of_a_key_has_no_case() {
    let (_folder, gateway, _endpoint) = bench().await;
    let http = reqwest::Client::new();
    for (given, status) in [
        (format!("Bearer {OPERATOR_KEY}"), 200),
        (format!("bearer  {OPERATOR_KEY}"), 200),
        (format!("BEARER {OPERATOR_KEY}"), 200),
        (format!("Basic {OPERATOR_KEY}"), 401),
        (format!("Bearer{OPERATOR_KEY}"), 401),
        (OPERATOR_KEY.to_owned(), 401),
    ] {
        let request = http.get(format!("{}{ENDPOINTS}", gateway.server));
        let answer = request.header(header::AUTHORIZATION, &given).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{given}");
    }
}

#[tokio::test]
async fn an_empty_variable_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut doctor = std::process::Command::new(hookgate_tests::binary());
    for name in [
        "RETENTION",
        "SHARDS",
        "EGRESS_PROXY",
        "ALLOW_HTTP",
        "ALLOW_CIDR",
        "CONFIG",
        "OPERATOR_KEY",
        "MASTER_KEY",
        "MASTER_KEY_FILE",
        "SERVER",
    ] {
        doctor.env(format!("HOOKGATE_{name}"), "");
    }
    let listen = ["doctor", "--resolve", "localhost", "--listen", "127.0.0.1:0", "--data-dir"];
    let told = doctor.args(listen).arg(data).output().unwrap();
    assert!(told.status.success(), "{told:?}");
}

#[tokio::test]
async fn a_yes_in_the_environment_may_be_written_as_people_do() {
    let folder = tempfile::tempdir().unwrap();
    for (number, (text, allowed)) in (0..).zip([("1", true), ("YES", true), ("off", false)]) {
        let data = folder.path().join(format!("data{number}"));
        let environment = [("HOOKGATE_ALLOW_PRIVATE_ENDPOINTS", text)];
        let gateway = Gateway::start_in(&data, &[], &environment);
        let policy = gateway.get("/v1/system/egress-policy").await;
        assert_eq!(policy["allow_private_endpoints"], allowed, "{text}");
    }
}

#[tokio::test]
async fn a_filter_may_look_through_lists_and_holds_nobody_up() {
    let (_folder, gateway, endpoint) = bench().await;
    for (id, filter) in [
        ("some", "data.items.exists(i, i.sku == 'b' && i.n > 1)"),
        ("late", "timestamp > timestamp('2026-01-01T01:00:00+01:00')"),
        ("loops", "data.l.all(x, data.l.all(y, data.l.all(z, true)))"),
    ] {
        register(&gateway, &endpoint, json!({ "id": id, "filter": filter })).await;
    }
    let wrong = json!({ "url": endpoint.url, "filter": "nothing(data)" });
    let (status, problem) = gateway.call(Method::POST, "endpoints", Some(wrong)).await;
    assert_eq!((status, pointers(&problem)), (422, vec!["/filter"]), "{problem}");
    let list: Vec<_> = (0..5_000).collect();
    let data = json!({ "items": [{ "sku": "a", "n": 5 }, { "sku": "b", "n": 2 }], "l": list });
    let event = publish(&gateway, "a.b", data).await;
    endpoint.await_count(2).await;
    let expected = [("some", "delivered"), ("late", "delivered"), ("loops", "filter_error")];
    let mut codes = Vec::new();
    for _ in 0..200 {
        let told = gateway.get(&format!("events/{event}/explain")).await;
        let told = told["endpoints"].as_array().unwrap().clone();
        codes = told.iter().map(|it| (it["endpoint_id"].clone(), it["code"].clone())).collect();
        if expected.iter().all(|(id, code)| codes.contains(&(json!(id), json!(code)))) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{codes:?}");
}

#[tokio::test]
async fn a_cloud_events_header_may_be_quoted() {
    let (_folder, gateway, _endpoint) = bench().await;
    let headers = [
        ("content-type", "application/json"),
        ("ce-specversion", "\"1.0\""),
        ("ce-id", "quoted"),
        ("ce-source", "/s"),
        ("ce-type", "\"a.b\""),
        ("ce-subject", r#""a \"b\" %C3%A9""#),
    ];
    assert_eq!(cloud_event(&gateway, &headers, json!(1)).await.0, 202);
    let event = gateway.get("events/quoted").await;
    let subject = &event["metadata"]["ce-subject"];
    assert_eq!((&event["type"], subject), (&json!("a.b"), &json!("a \"b\" é")), "{event}");
    let long = "k".repeat(257);
    let headers = [
        headers[0],
        headers[1],
        headers[3],
        headers[4],
        ("ce-id", "2"),
        ("ce-partitionkey", &long),
    ];
    let (status, problem) = cloud_event(&gateway, &headers, json!(1)).await;
    assert_eq!(status, 422);
    assert!(problem["detail"].as_str().unwrap().contains("partitionkey"), "{problem}");
}

#[tokio::test]
async fn what_the_gateway_raises_comes_from_it_alone() {
    let (_folder, gateway, _endpoint) = bench().await;
    for named in ["hookgate", "hookgate.dead_letter"] {
        let event = json!({ "type": named, "data": 1 });
        let (status, problem) = gateway.call(Method::POST, "events", Some(event)).await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid_event_type")), "{named}");
        assert_eq!(pointers(&problem), ["/type"]);
        let headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", named),
        ];
        let (status, problem) = cloud_event(&gateway, &headers, json!(1)).await;
        assert_eq!((status, pointers(&problem)), (422, vec!["/type"]), "{problem}");
    }
    publish(&gateway, "hookgated.by_somebody", json!(1)).await;
}

#[tokio::test]
async fn an_id_in_a_body_is_the_paths_and_a_request_always_has_a_name() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    let put = async |body: Value| {
        let (status, answer) = gateway.call(Method::PUT, "/v1/tenants/acme", Some(body)).await;
        (status, pointers(&answer).join(" "))
    };
    assert_eq!(put(json!({ "id": "acme" })).await, (201, String::new()));
    assert_eq!(put(json!({ "id": "other" })).await, (422, "/id".to_owned()));
    let patched = gateway.call(Method::PATCH, "endpoints/mine", Some(json!([]))).await;
    assert_eq!((patched.0, pointers(&patched.1)), (422, vec![""]), "{}", patched.1);
    for (given, kept) in [("mine", true), ("", false)] {
        let request = gateway.request(Method::GET, "/healthz", OPERATOR_KEY);
        let answer = request.header("x-request-id", given).send().await.unwrap();
        let name = answer.headers()["x-request-id"].to_str().unwrap();
        assert!(!name.is_empty() && (name == given) == kept, "{given:?}: {name:?}");
    }
}

#[tokio::test]
async fn the_plus_of_an_offset_may_come_as_it_is() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    publish(&gateway, "a.b", json!(1)).await;
    for (since, count) in [
        ("2020-01-01T00:00:00+02:00", 1),
        ("2020-01-01T00:00:00%2B02:00", 1),
        ("9990-01-01T00:00:00+02:00", 0),
    ] {
        let page = gateway.get(&format!("events?since={since}")).await;
        assert_eq!(page["data"].as_array().unwrap().len(), count, "{since}");
    }
    let (status, _) = gateway.call(Method::GET, "events?since=2020-01-01T00:00:00", None).await;
    assert_eq!(status, 400);
}
