use reqwest::Method;
use serde_json::json;

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, TestEndpoint, plugin};

async fn upload(gateway: &Gateway) {
    let folder = plugin::repository().join("tests/guests/every-hook");
    let (status, uploaded) = gateway.upload("every-hook", plugin::build(&folder)).await;
    assert_eq!(status, 201, "{uploaded}");
    assert_eq!(uploaded["kind"], "filter+transform+ingest+classify+sign");
}

#[tokio::test]
async fn a_tenants_events_go_through_its_ingest_chain() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    register(&gateway, &endpoint, json!({})).await;
    let chain = |config: serde_json::Value, on_error: &str| json!({ "plugins": [{ "plugin": "every-hook", "config": config, "on_error": on_error }] });
    let (status, refused) =
        gateway.call(Method::PUT, "ingest", Some(chain(json!({}), "reject"))).await;
    assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!("/plugins/0/config")));
    let team = json!({ "team": "billing" });
    let (status, set) =
        gateway.call(Method::PUT, "ingest", Some(chain(team.clone(), "reject"))).await;
    assert_eq!((status, &set), (200, &gateway.get("ingest").await));
    assert_eq!(gateway.get("plugins/every-hook").await["ingests"], true);
    let (status, problem) = gateway.call(Method::DELETE, "plugins/every-hook", None).await;
    assert_eq!((status, &problem["code"]), (409, &json!("plugin_in_use")));

    let renamed = publish(&gateway, "old.name", json!({ "amount": 1 })).await;
    let event = gateway.get(&format!("events/{renamed}")).await;
    assert_eq!(
        (&event["type"], &event["metadata"]["team"]),
        (&json!("new.name"), &json!("billing"))
    );
    let bad = json!({ "type": "a.b", "data": { "amount": -1 } });
    let (status, problem) = gateway.call(Method::POST, "events", Some(bad.clone())).await;
    assert_eq!((status, &problem["code"]), (422, &json!("event_rejected")));
    assert_eq!(problem["errors"][0]["detail"], "plugin every-hook: the amount is negative");
    assert_eq!(problem["detail"], problem["errors"][0]["detail"]);
    let good = json!({ "type": "a.b", "data": { "amount": 1 }, "id": "mine" });
    let both = json!([good, bad]);
    let (status, problem) = gateway.call(Method::POST, "events", Some(both)).await;
    assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/1")));
    // Nothing of it was stored; so this is new, and again it is a duplicate, though a plugin
    // changes it on the way.
    let lines = format!("{good}\n{}\n{good}\n", json!({ "type": "a.b", "data": { "amount": -1 } }));
    let request =
        gateway.request(Method::POST, "/v1/tenants/default/events", hookgate_tests::OPERATOR_KEY);
    let answer = request.header("content-type", "application/x-ndjson").body(lines);
    let answer = answer.send().await.unwrap().text().await.unwrap();
    let answer: Vec<serde_json::Value> =
        answer.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let statuses: Vec<_> = answer.iter().map(|it| it["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["accepted", "rejected", "duplicate"], "{answer:?}");
    assert_eq!(answer[1]["error"]["code"], "event_rejected");

    let failing = json!({ "type": "a.b", "data": { "fail": true } });
    let (status, _) = gateway.call(Method::POST, "events", Some(failing.clone())).await;
    assert_eq!(status, 422);
    gateway.call(Method::PUT, "ingest", Some(chain(team, "pass"))).await;
    let (status, _) = gateway.call(Method::POST, "events", Some(failing)).await;
    assert_eq!(status, 202, "it passes what the plugin cannot judge");
    gateway.call(Method::PUT, "ingest", Some(json!({ "plugins": [] }))).await;
    let (status, _) = gateway.call(Method::POST, "events", Some(bad)).await;
    assert_eq!(status, 202, "nobody objects any more");
    assert_eq!(gateway.call(Method::DELETE, "plugins/every-hook", None).await.0, 204);
}

#[tokio::test]
async fn an_ingest_plugin_that_fails_for_everyone_rests() {
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        "--allow-private-endpoints",
        "--plugin-breaker-failures=3",
        "--plugin-breaker-cool-down-ms=2000",
    ];
    let gateway = Gateway::start_with(&folder.path().join("data"), &flags);
    let told = TestEndpoint::start().await;
    register(&gateway, &told, json!({ "event_types": ["hookgate.plugin.*"] })).await;
    upload(&gateway).await;
    let config = json!({ "team": "billing" });
    let chain = json!({ "plugins": [{ "plugin": "every-hook", "config": config }] });
    assert_eq!(gateway.call(Method::PUT, "ingest", Some(chain)).await.0, 200);
    let publish = async |fails: bool| {
        let event = json!({ "type": "a.b", "data": { "fail": fails, "amount": 1 } });
        let (status, answer) = gateway.call(Method::POST, "events", Some(event)).await;
        (status, answer["detail"].as_str().unwrap_or_default().to_owned())
    };
    for _ in 0..3 {
        assert_eq!(publish(true).await.0, 422);
    }
    let (status, detail) = publish(false).await;
    // It is not the event's fault: its producer shall come again.
    assert!(status == 503 && detail.contains("rests for"), "{status} {detail}");
    assert_eq!(gateway.get("plugins/every-hook").await["stats"]["calls"], 3, "it was not asked");
    let failing = &told.await_count(1).await[0].body;
    assert_eq!(failing["type"], "hookgate.plugin.failing");
    assert_eq!(
        (&failing["data"]["hook"], &failing["data"]["failures"]),
        (&json!("ingest"), &json!(3))
    );
    let fault = failing["data"]["error"]["code"].as_str().unwrap();
    let log = std::fs::read_to_string(folder.path().join("data.log")).unwrap();
    let told_of = |it: &str| it.contains("hookgate.plugin.failing") && it.contains(fault);
    assert!(log.lines().any(told_of), "{fault}: {log}");
    tokio::time::sleep(std::time::Duration::from_millis(2200)).await;
    assert_eq!(publish(false).await, (202, String::new()));
    assert_eq!(told.await_count(2).await[1].body["type"], "hookgate.plugin.recovered");
}

#[tokio::test]
async fn an_event_becomes_several_requests_and_a_retry_goes_on_where_it_failed() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    let plugins = json!([{ "plugin": "every-hook", "config": { "team": "billing" } }]);
    let retry = json!({ "schedule": ["50ms", "50ms"], "jitter": 0 });
    register(&gateway, &endpoint, json!({ "plugins": plugins, "retry": retry })).await;
    endpoint.answer_first([200, 500, 200, 200]);
    let event = publish(&gateway, "order.created", json!({ "items": ["a", "b", "c"] })).await;
    let delivery = gateway.await_status(&event, "delivered").await;
    let got = endpoint.got();
    let ids: Vec<_> = got.iter().map(|it| it.id.clone()).collect();
    let part = |number: u32| format!("{event}~{number}");
    assert_eq!(ids, [part(1), part(2), part(2), part(3)], "what was delivered is not sent again");
    let items: Vec<_> = got.iter().map(|it| it.body["data"]["item"].clone()).collect();
    assert_eq!(items, ["a", "b", "b", "c"]);
    assert!(got.iter().all(|it| it.body["id"] == it.id && it.headers["x-team"] == "billing"));
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&path).await["data"].clone();
    assert_eq!(attempts[1]["parts"], json!({ "delivered": 1, "of": 3 }));
    assert!(attempts[1]["error"].as_str().unwrap().starts_with("request 2 of 3: "));
    assert_eq!(attempts[0]["parts"], json!({ "delivered": 3, "of": 3 }));
}

#[tokio::test]
async fn what_one_version_began_is_not_finished_by_another() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    let plugins = json!([{ "plugin": "every-hook", "config": { "team": "billing" } }]);
    let retry = json!({ "schedule": ["3s"], "jitter": 0 });
    register(&gateway, &endpoint, json!({ "plugins": plugins, "retry": retry })).await;
    endpoint.answer_first([200, 500]);
    let event = publish(&gateway, "order.created", json!({ "items": ["a", "b"] })).await;
    endpoint.await_count(2).await;
    let folder = plugin::repository().join("tests/guests/every-hook");
    // The same with a section that nobody reads: another version.
    let other = [plugin::build(&folder), vec![0, 5, 4, b'm', b'o', b'r', b'e']].concat();
    assert_eq!(gateway.upload("every-hook", other).await.0, 201);
    assert_eq!(gateway.get("plugins/every-hook").await["active_version"], 2);
    let delivery = gateway.await_status(&event, "delivered").await;
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&path).await["data"].clone();
    for attempt in attempts.as_array().unwrap() {
        let versions: Vec<_> =
            attempt["plugins"].as_array().unwrap().iter().map(|it| &it["version"]).collect();
        assert!(!versions.is_empty() && versions.iter().all(|it| **it == json!(1)), "{attempt}");
    }
    let event = publish(&gateway, "order.created", json!({})).await;
    let delivery = gateway.await_status(&event, "delivered").await;
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let runs = gateway.get(&path).await["data"][0]["plugins"].clone();
    let outcomes: Vec<_> = runs.as_array().unwrap().iter().map(|it| &it["outcome"]).collect();
    assert_eq!(outcomes, ["pass", "signed", "classified"], "each hook that ran is told");
    assert_eq!(runs[0]["version"], 2);
}

#[tokio::test]
async fn a_plugin_tells_what_an_answer_means() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    let plugins = json!([{ "plugin": "every-hook", "config": { "team": "billing" } }]);
    let retry = json!({ "schedule": ["50ms", "50ms", "50ms"], "jitter": 0 });
    register(&gateway, &endpoint, json!({ "plugins": plugins, "retry": retry })).await;
    endpoint.say(r#"{"ok": false}"#);
    let event = publish(&gateway, "a.b", json!({})).await;
    endpoint.await_count(2).await;
    endpoint.answer(500);
    endpoint.say(r#"{"ok": true}"#);
    let delivery = gateway.await_status(&event, "delivered").await;
    let path = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&path).await["data"].clone();
    let first = attempts.as_array().unwrap().last().unwrap();
    assert_eq!(
        (&first["outcome"], &first["status_code"]),
        (&json!("response_refused"), &json!(200))
    );
    assert_eq!(first["error"], "plugin every-hook: not ok");
    assert_eq!(attempts[0]["status_code"], 500, "a 500 that says it is taken is taken");
    endpoint.answer(200);
    endpoint.say(r#"{"ok": false, "final": true}"#);
    let last = publish(&gateway, "a.b", json!({})).await;
    let dead = gateway.await_status(&last, "dead").await;
    assert_eq!((&dead["reason"], &dead["attempts"]), (&json!("refused"), &json!(1)));
}

#[tokio::test]
async fn a_plugin_signs_with_secrets_that_it_does_not_see() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    let plugins = json!([{ "plugin": "every-hook", "config": { "team": "billing" } }]);
    let with = json!({ "plugins": plugins, "signature": { "scheme": "none" } });
    let id = register(&gateway, &endpoint, with).await;
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let rotated = format!("endpoints/{id}/secret/rotate");
    gateway.post(&rotated, json!({ "key": secret })).await;
    let event = publish(&gateway, "a.b", json!({ "n": 1 })).await;
    gateway.await_status(&event, "delivered").await;
    let got = &endpoint.got()[0];
    assert!(!got.headers.contains_key("webhook-signature"));
    let macs: Vec<_> = got.headers["x-team-signature"].to_str().unwrap().split(',').collect();
    assert_eq!(macs.len(), 2, "while a secret is being rotated both sign");
    assert!(macs.iter().all(|it| it.len() == 64) && macs[0] != macs[1]);
    assert_eq!(macs[0], plugin_mac(secret, &got.path, &got.raw));
}

#[tokio::test]
async fn what_a_plugin_has_to_sign_is_not_sent_without() {
    let (_folder, gateway, endpoint) = bench().await;
    upload(&gateway).await;
    let filter = plugin::example("amount-filter");
    assert_eq!(gateway.upload("amount-filter", filter.clone()).await.0, 201);
    let signature = json!({ "scheme": "plugin" });
    for plugins in [json!([]), json!([{ "plugin": "amount-filter", "config": { "minimum": "1" } }])]
    {
        let body = json!({ "url": endpoint.url, "plugins": plugins, "signature": signature });
        let (status, problem) = gateway.call(Method::POST, "endpoints", Some(body)).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/signature")));
    }
    let plugins =
        json!([{ "plugin": "every-hook", "config": { "team": "billing", "minimum": "1" } }]);
    let retry = json!({ "schedule": ["50ms", "50ms"], "jitter": 0 });
    let with = json!({ "plugins": plugins, "signature": signature, "retry": retry });
    let id = register(&gateway, &endpoint, with).await;
    assert!(gateway.get(&format!("endpoints/{id}/secret")).await["key"].is_string());
    let event = publish(&gateway, "a.b", json!({ "amount": 2 })).await;
    gateway.await_status(&event, "delivered").await;
    let got = endpoint.got();
    assert!(got[0].headers.contains_key("x-team-signature"));
    assert!(!got[0].headers.contains_key("webhook-signature"));
    // A version without the hook: the endpoint was right when it was saved.
    let (status, refused) = gateway.upload("every-hook", filter.clone()).await;
    assert_eq!((status, &refused["code"]), (422, &json!("plugin_no_hook")));
    assert_eq!(refused["errors"][0]["pointer"], format!("/endpoints/{id}/signature"));
    let (status, answer) = gateway.upload("every-hook?force=true", filter).await;
    assert_eq!(status, 201, "{answer}");
    let patch = json!({ "plugins": [{ "plugin": "every-hook", "config": { "minimum": "1" } }] });
    let path = format!("endpoints/{id}");
    let (status, _) = gateway.call(Method::PATCH, &path, Some(patch)).await;
    assert_eq!(status, 422, "now it is not right any more");
    let event = publish(&gateway, "a.b", json!({ "amount": 2 })).await;
    gateway.await_status(&event, "dead").await;
    assert_eq!(endpoint.got().len(), got.len(), "nothing was sent");
}

/// What `every-hook` signs by, computed here from the endpoint's secret.
fn plugin_mac(secret: &str, path: &str, body: &[u8]) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let key = data_encoding::BASE64.decode(secret.trim_start_matches("whsec_").as_bytes()).unwrap();
    let mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    let mac = mac.chain_update(format!("billing:{path}:")).chain_update(body);
    data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes())
}
