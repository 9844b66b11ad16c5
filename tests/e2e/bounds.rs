//! What the API bounds and keeps to itself, and what the log and the audit log say of it.

use hookgate_tests::{Gateway, OPERATOR_KEY, TestEndpoint};
use reqwest::{Method, header};
use serde_json::{Value, json};

use crate::{bench, publish, register};

#[tokio::test]
async fn nobody_on_the_way_keeps_a_secret() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({})).await;
    let key = gateway.post("keys", json!({ "name": "till", "scopes": ["read"] })).await;
    let key = key["id"].as_str().unwrap();
    let webhook = json!({ "event_type": "a.b", "callback_url": endpoint.url });
    let (post, tenant) = (Method::POST, "/v1/tenants/default");
    for (method, path, body, status) in [
        (&post, format!("{tenant}/keys"), json!({ "name": "a", "scopes": ["read"] }), 201),
        (&post, format!("{tenant}/keys/{key}/rotate"), json!({}), 200),
        (&post, format!("{tenant}/portal-sessions"), json!({ "scopes": ["read"] }), 201),
        (&post, format!("{tenant}/endpoints/{id}/secret/rotate"), json!({}), 200),
        (&Method::GET, format!("{tenant}/endpoints/{id}/secret"), json!({}), 200),
        (&post, "/api/webhooks/register".to_owned(), webhook, 201),
    ] {
        let request = gateway.request(method.clone(), &path, OPERATOR_KEY).json(&body);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status, "{path}");
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store", "{path}");
    }
}

#[tokio::test]
async fn what_people_call_things_has_a_length() {
    let (_folder, gateway, endpoint) = bench().await;
    let url = &endpoint.url;
    let named = |name: String| json!({ "name": name, "scopes": ["read"] });
    let metadata = |bytes: usize| json!({ "url": url, "metadata": { "k": "v".repeat(bytes - 1) } });
    let described = |chars: usize| json!({ "url": url, "description": "é".repeat(chars) });
    let patterns = |count: usize| json!({ "url": url, "event_types": vec!["a.*"; count] });
    for (path, body, pointer) in [
        ("keys", named("é".repeat(256)), None),
        ("keys", named("é".repeat(257)), Some("/name")),
        ("endpoints", described(4096), None),
        ("endpoints", described(4097), Some("/description")),
        ("endpoints", patterns(1000), None),
        ("endpoints", patterns(1001), Some("/event_types")),
        ("endpoints", metadata(16 * 1024), None),
        ("endpoints", metadata(16 * 1024 + 1), Some("/metadata")),
        (
            "endpoints",
            json!({ "url": url, "headers": { "X-A": "1", "x-a": "2" } }),
            Some("/headers"),
        ),
    ] {
        let (status, answer) = gateway.call(Method::POST, path, Some(body)).await;
        assert_eq!(status, if pointer.is_some() { 422 } else { 201 }, "{answer}");
        assert_eq!(answer["errors"][0]["pointer"].as_str(), pointer, "{answer}");
    }
    for (body, status) in [
        (json!({ "name": "é".repeat(256) }), 201),
        (json!({ "name": "é".repeat(257) }), 422),
        (json!({ "quota": { "events_per_second": 5, "burst": 9 } }), 200),
        (json!({ "quota": { "burst": 9 } }), 422),
        (json!({ "quota": { "events_per_second": "many", "burst": 9 } }), 422),
    ] {
        let (got, answer) = gateway.call(Method::PUT, "/v1/tenants/shop", Some(body)).await;
        assert_eq!(got, status, "{answer}");
        assert!(answer["errors"].as_array().is_none_or(|it| it.len() == 1), "{answer}");
    }
}

#[tokio::test]
async fn a_signature_takes_nothings_place() {
    let (_folder, gateway, endpoint) = bench().await;
    for signature in [
        json!({ "scheme": "stripe", "header": "ce-id" }),
        json!({ "scheme": "github", "header": "User-Agent" }),
        json!({ "scheme": "shopify", "header": "traceparent" }),
        json!({ "scheme": "slack", "timestamp_header": "ce-time" }),
        json!({ "scheme": "standard", "prefix": "ce" }),
    ] {
        let wish = json!({ "url": endpoint.url, "signature": signature });
        let (status, answer) = gateway.call(Method::POST, "endpoints", Some(wish)).await;
        assert_eq!(status, 422, "{answer}");
        let pointer = answer["errors"][0]["pointer"].as_str().unwrap();
        assert!(pointer.starts_with("/signature/"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_wrong_with_one_event_is_so_among_others() {
    let (_folder, gateway, _endpoint) = bench().await;
    let good = json!({ "type": "a.b", "data": 1 });
    let (misnamed, empty) = (json!({ "type": "a..b", "data": 1 }), json!({ "type": "a.b" }));
    let cloud = json!({ "specversion": "1.0", "id": "1", "type": "a.b" });
    let batch = "application/cloudevents-batch+json";
    for (media_type, body, code, pointer) in [
        ("application/json", json!([good, misnamed]), "invalid_event_type", "/1/type"),
        ("application/json", json!([misnamed, misnamed]), "invalid_event_type", "/0/type"),
        ("application/json", json!([empty, good]), "invalid_field", "/0/data"),
        ("application/json", json!([misnamed, good, empty]), "invalid_field", "/0/type"),
        (batch, json!([cloud]), "invalid_cloudevent", "/0/source"),
    ] {
        let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
        let request = request.header(header::CONTENT_TYPE, media_type).body(body.to_string());
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 422);
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(
            (&answer["code"], &answer["errors"][0]["pointer"]),
            (&json!(code), &json!(pointer))
        );
    }
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let mut request = request.header(header::CONTENT_TYPE, "application/json").body("1");
    for (name, value) in
        [("specversion", "1.0"), ("id", "1"), ("source", "/s"), ("type", "a.b"), ("data", "x")]
    {
        request = request.header(format!("ce-{name}"), value);
    }
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer["errors"][0]["pointer"], "/data", "{answer}");
}

#[tokio::test]
async fn a_secret_that_changed_is_told_as_changed_and_not_shown() {
    let (_folder, gateway, endpoint) = bench().await;
    let url = format!("{}?token=s3cret", endpoint.url);
    let wish =
        json!({ "id": "mine", "url": url, "headers": { "x-key": "s3cret", "x-b": "s3cret" } });
    gateway.post("endpoints", wish).await;
    let patch = json!({ "headers": { "x-key": "an0ther" }, "url": endpoint.url });
    assert_eq!(gateway.call(Method::PATCH, "endpoints/mine", Some(patch)).await.0, 200);
    let log = gateway.get("audit-log").await;
    let (patched, made) = (&log["data"][0], &log["data"][1]);
    assert_eq!(made["after"]["url"], format!("{}?***", endpoint.url));
    assert_eq!(patched["before"]["headers"], json!({ "x-key": "***", "x-b": "***" }));
    assert_eq!(patched["after"]["headers"], json!({ "x-key": "*** (changed)", "x-b": "***" }));
    assert_eq!(patched["after"]["url"], json!(endpoint.url));
    assert!(!log.to_string().contains("s3cret") && !log.to_string().contains("an0ther"), "{log}");
}

/// The lines of the log with this message.
fn logged(folder: &tempfile::TempDir, message: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.path().join("data.log")).unwrap();
    let lines = text.lines().filter_map(|it| serde_json::from_str::<Value>(it).ok());
    lines.map(|it| it["fields"].clone()).filter(|it| it["message"] == message).collect()
}

#[tokio::test]
async fn what_is_logged_of_a_request_can_be_joined() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--allow-private-endpoints", "--log-format", "json"];
    // What tells of a request is enough to know its tenant.
    let debug = [("HOOKGATE_LOG", "hookgate::api::router=debug,hookgate::api::events_in=debug")];
    let mut gateway = Gateway::start_in(&folder.path().join("data"), &flags, &debug);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (media_type, name) in [("application/json", "one"), ("application/x-ndjson", "lines")] {
        let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
        let request = request
            .header("x-request-id", name)
            .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
            .header(header::CONTENT_TYPE, media_type)
            .body(format!("{{\"type\":\"a.b\",\"data\":1,\"id\":\"{name}\"}}"));
        assert!(request.send().await.unwrap().text().await.unwrap().contains("accepted"));
    }
    publish(&gateway, "a.b", json!(2)).await;
    gateway.get("/healthz").await;
    gateway.terminate().await;
    for name in ["one", "lines"] {
        let accepted = logged(&folder, "an event was accepted");
        let accepted = accepted.iter().find(|it| it["request_id"] == name).unwrap();
        assert_eq!((&accepted["event_id"], &accepted["trace_id"]), (&json!(name), &json!(trace)));
        let answered = logged(&folder, "a request was answered");
        let answered = answered.iter().find(|it| it["request_id"] == name).unwrap();
        assert_eq!(answered["tenant"], "default", "{answered}");
        assert!(answered["duration_us"].is_u64(), "{answered}");
    }
    let answered = logged(&folder, "a request was answered");
    let health = answered.iter().find(|it| it["route"] == "/healthz").unwrap();
    assert_eq!(health.get("tenant"), None, "{health}");
}

#[tokio::test]
async fn a_dead_letter_is_logged_with_what_is_known_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--allow-private-endpoints", "--log-format", "json"];
    let gateway = Gateway::start_with(&folder.path().join("data"), &flags);
    let endpoint = TestEndpoint::start().await;
    endpoint.answer(500);
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": { "schedule": [] } })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&event, "dead").await;
    let told = logged(&folder, "a delivery became a dead letter");
    assert_eq!(told.len(), 1);
    let text = |name: &str| told[0][name].to_string();
    assert_eq!((text("event_id"), text("attempt")), (json!(event).to_string(), "1".to_owned()));
    assert_eq!(
        (text("status_code"), text("reason")),
        ("500".to_owned(), "\"retries_exhausted\"".to_owned())
    );
    assert!(text("error").contains("500"), "{}", told[0]);
    assert_eq!(told[0].get("left_out"), None, "{}", told[0]);
}

#[tokio::test]
async fn a_cloud_event_keeps_its_identity() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "format": "cloudevents-binary" })).await;
    let event = json!({ "specversion": "1.0", "id": "orders/1", "source": "/s", "type": "a.b" });
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header(header::CONTENT_TYPE, "application/cloudevents+json");
    let answer = request.body(event.to_string()).send().await.unwrap();
    let accepted: Value = answer.json().await.unwrap();
    let got = endpoint.await_count(1).await;
    assert_eq!(got[0].headers["ce-id"], "orders/1");
    assert_eq!(got[0].headers["webhook-id"], accepted["id"].as_str().unwrap());
}

#[tokio::test]
async fn what_a_cloud_event_says_in_numbers_and_booleans_goes_out_as_them() {
    let (folder, mut gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "base": "1s", "factor": 1, "max_attempts": 50, "jitter": 0 });
    register(&gateway, &endpoint, json!({ "format": "cloudevents", "retry": retry })).await;
    let event = json!({
        "specversion": "1.0", "id": "1", "source": "/s", "type": "a.b", "attempt": 5, "text": "5",
        "sampled": true, "word": "true", "data": {},
    });
    let path = "/v1/tenants/default/events";
    let request = gateway.request(Method::POST, path, OPERATOR_KEY).body(event.to_string());
    let request = request.header(header::CONTENT_TYPE, "application/cloudevents+json");
    assert_eq!(request.send().await.unwrap().status(), 202);
    // At once, and from what is stored.
    let first = endpoint.await_count(1).await[0].body.clone();
    gateway.kill();
    let before = endpoint.got().len();
    let _gateway = Gateway::start(&folder.path().join("data"));
    let again = endpoint.await_count(before + 1).await[before].body.clone();
    for body in [first, again] {
        let said = ["attempt", "text", "sampled", "word"].map(|it| body[it].clone());
        assert_eq!(said, [json!(5), json!("5"), json!(true), json!("true")]);
    }
}
