use reqwest::Method;
use serde_json::json;

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, plugin};

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
