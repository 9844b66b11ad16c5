use reqwest::Method;
use serde_json::json;

use crate::{bench, publish, register};
use hookgate_tests::plugin;

#[tokio::test]
async fn the_short_way_from_register_to_receive() {
    let (_folder, gateway, endpoint) = bench().await;
    let body = json!({ "event_type": "payment.success", "callback_url": endpoint.url });
    let (status, made) = gateway.call(Method::POST, "/api/webhooks/register", Some(body)).await;
    assert_eq!((status, &made["event_type"]), (201, &json!("payment.success")));
    assert!(made["secret"].as_str().unwrap().starts_with("whsec_"));
    let id = publish(&gateway, "payment.success", json!({ "order_id": 123 })).await;
    publish(&gateway, "payment.failed", json!({})).await;
    let got = endpoint.await_count(1).await;
    assert_eq!(&got[0].id, &id);
    assert!(endpoint.url.ends_with(&got[0].path));
    assert_eq!(got[0].body["data"], json!({ "order_id": 123 }));
    assert_eq!(got[0].body["type"], "payment.success");
    assert!(got[0].headers["webhook-signature"].to_str().unwrap().starts_with("v1,"));
    assert_eq!(gateway.await_status(&id, "delivered").await["attempts"], 1);
    let (_, listed) = gateway.call(Method::GET, "/api/webhooks", None).await;
    assert_eq!(listed["data"][0]["id"], made["id"]);
    let path = format!("/api/webhooks/{}", made["id"].as_str().unwrap());
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(endpoint.got().len(), 1, "the other type was not asked for");
}

#[tokio::test]
async fn one_plugin_filters_and_another_rewrites() {
    let (_folder, gateway, endpoint) = bench().await;
    for name in ["amount-filter", "redact"] {
        let (status, uploaded) = gateway.upload(name, plugin::example(name)).await;
        assert_eq!((status, &uploaded["version"]), (201, &json!(1)), "{uploaded}");
        assert_eq!(gateway.upload(name, plugin::example(name)).await.0, 200);
    }
    let plugins = json!([
        { "plugin": "amount-filter", "config": { "minimum": "100" } },
        { "plugin": "redact", "config": { "fields": "card.number" } },
    ]);
    register(&gateway, &endpoint, json!({ "plugins": plugins })).await;
    let small = publish(&gateway, "payment.success", json!({ "amount": 5 })).await;
    let card = json!({ "amount": 500, "card": { "number": "4242424242424242" } });
    let big = publish(&gateway, "payment.success", card).await;
    let filtered = gateway.await_status(&small, "filtered").await;
    assert_eq!(filtered["reason"], "plugin amount-filter: 5 is under 100");
    gateway.await_status(&big, "delivered").await;
    let got = endpoint.got();
    assert_eq!((got.len(), &got[0].id), (1, &big));
    assert_eq!(got[0].body["data"]["card"]["number"], "************4242");
    let bad = json!({ "url": endpoint.url, "plugins": [{ "plugin": "amount-filter" }] });
    let (status, problem) = gateway.call(Method::POST, "endpoints", Some(bad)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/plugins/0/config")));
    let tried = json!({ "config": { "minimum": "1" }, "recent": 2 });
    let tried = gateway.post("plugins/amount-filter/invoke", tried).await;
    assert_eq!(tried["data"][1]["outcome"], "deliver");
    let (status, _) = gateway.call(Method::DELETE, "plugins/redact", None).await;
    assert_eq!(status, 409, "an endpoint uses it");
}

#[tokio::test]
async fn an_endpoint_that_recovers_gets_its_event() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer_first([500, 503, 302]);
    let retry = json!({ "schedule": ["100ms", "100ms", "100ms", "100ms"], "jitter": 0 });
    let id = register(&gateway, &endpoint, json!({ "retry": retry })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    let delivery = gateway.await_status(&event, "delivered").await;
    assert_eq!(delivery["attempts"], 4);
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&path).await;
    let attempts = attempts["data"].as_array().unwrap();
    let told: Vec<_> = attempts.iter().map(|it| (&it["number"], &it["outcome"])).collect();
    let words = ["delivered", "redirect_refused", "http_status", "http_status"].map(|it| json!(it));
    let numbers = [4, 3, 2, 1].map(|it| json!(it));
    assert_eq!(told, numbers.iter().zip(&words).collect::<Vec<_>>());
    let got = endpoint.got();
    assert!(
        got.iter().all(|it| it.id == event && endpoint.url.ends_with(&it.path)),
        "never redirected"
    );
    assert_eq!(got.len(), 4);
    let own = gateway.get(&format!("endpoints/{id}/attempts")).await;
    assert_eq!(own["data"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_never_succeeds_is_a_dead_letter_until_it_is_redriven() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "base": "50ms", "factor": 1, "max_attempts": 3, "jitter": 0 });
    register(&gateway, &endpoint, json!({ "id": "mine", "retry": retry })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    let dead = gateway.await_status(&event, "dead").await;
    assert_eq!((&dead["reason"], &dead["attempts"]), (&json!("retries_exhausted"), &json!(3)));
    let letters = gateway.get("dead-letters?endpoint=mine").await;
    assert_eq!(letters["data"][0]["event_id"], event);
    let (status, _) = gateway.call(Method::POST, "dead-letters/redrive", Some(json!({}))).await;
    assert_eq!(status, 422, "nothing was named");
    endpoint.answer(200);
    let redriven = gateway.post("dead-letters/redrive", json!({ "endpoint": "mine" })).await;
    assert_eq!(redriven["redriven"], 1);
    let delivered = gateway.await_status(&event, "delivered").await;
    assert_eq!(delivered["attempts"], 4);
    assert_eq!(gateway.get("dead-letters").await["data"], json!([]));
    let again = format!("deliveries/{}/retry", delivered["id"].as_str().unwrap());
    assert_eq!(gateway.call(Method::POST, &again, Some(json!({}))).await.0, 202);
    assert_eq!(endpoint.await_count(5).await.len(), 5);
}

#[tokio::test]
async fn gone_disables_the_endpoint() {
    let (_folder, gateway, endpoint) = bench().await;
    endpoint.answer(410);
    let id = register(&gateway, &endpoint, json!({})).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(gateway.await_status(&event, "dead").await["reason"], "gone");
    for _ in 0..100 {
        if gateway.get(&format!("endpoints/{id}")).await["enabled"] == json!(false) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is still enabled");
}

#[tokio::test]
async fn a_rotated_secret_signs_beside_the_old_one() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = register(&gateway, &endpoint, json!({ "headers": { "X-Team": "billing" } })).await;
    let old = gateway.get(&format!("endpoints/{id}/secret")).await;
    let new = gateway.post(&format!("endpoints/{id}/secret/rotate"), json!({})).await;
    assert_ne!(old["key"], new["key"]);
    let tested = gateway.post(&format!("endpoints/{id}/test"), json!({})).await;
    assert_eq!((&tested["outcome"], &tested["trigger"]), (&json!("delivered"), &json!("test")));
    let got = endpoint.await_count(1).await;
    let signatures = got[0].headers["webhook-signature"].to_str().unwrap();
    assert_eq!(signatures.split(' ').count(), 2);
    assert_eq!(got[0].headers["x-team"], "billing");
    assert_eq!(got[0].body["type"], "hookgate.test");
}
