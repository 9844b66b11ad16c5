//! Answers have no member that the served document does not tell of.

use hookgate_tests::{Gateway, OPERATOR_KEY};
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{bench, publish, register, until};

/// The members of a value that its schema does not tell of.
fn untold(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(to) = schema["$ref"].as_str() {
        let schema = document.pointer(to.trim_start_matches('#')).unwrap();
        return untold(document, schema, value, at, found);
    }
    for item in value.as_array().into_iter().flatten() {
        untold(document, &schema["items"], item, at, found);
    }
    let known = members(document, schema);
    let Some(value) = value.as_object().filter(|_| !known.is_empty()) else { return };
    for (name, member) in value {
        let at = format!("{at}/{name}");
        match known.get(name) {
            Some(schema) => untold(document, schema, member, &at, found),
            None => found.push(at),
        }
    }
}

/// The members that a schema tells of, itself or by what it is made of.
fn members(document: &Value, schema: &Value) -> Map<String, Value> {
    if let Some(to) = schema["$ref"].as_str() {
        return members(document, document.pointer(to.trim_start_matches('#')).unwrap());
    }
    let mut known = schema["properties"].as_object().cloned().unwrap_or_default();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        known.extend(members(document, part));
    }
    known
}

/// Asks, and gives what the document does not tell of in the answer.
async fn looked_at(gateway: &Gateway, document: &Value, template: &str, path: &str) -> Vec<String> {
    let answer = gateway.get(path).await;
    let template = template.replace('/', "~1");
    let schema = format!("/paths/{template}/get/responses/200/content/application~1json/schema");
    let schema = document.pointer(&schema).unwrap_or_else(|| panic!("{schema}"));
    let mut found = Vec::new();
    untold(document, schema, &answer, "", &mut found);
    found
}

#[tokio::test]
async fn answers_have_no_member_that_the_document_does_not_tell_of() {
    let (_folder, gateway, endpoint) = bench().await;
    let document = gateway.get("/openapi.json").await;
    let later = json!({ "schedule": ["1h"] });
    register(&gateway, &endpoint, json!({ "id": "fails", "retry": later })).await;
    register(&gateway, &endpoint, json!({ "id": "other", "event_types": ["z.z"] })).await;
    register(&gateway, &endpoint, json!({ "id": "picky", "filter": "data == 7" })).await;
    endpoint.answer_first([500]);
    let event = publish(&gateway, "a.b", json!(1)).await;
    let delivery = gateway.await_status(&event, "retrying").await;
    let id = delivery["id"].as_str().unwrap();
    until(&gateway, "deliveries", |it| it["data"][0]["attempts"] == 1).await;
    let tenant = "/v1/tenants/{tenant}";
    for (template, path) in [
        ("", String::new()),
        ("/audit-log", "audit-log".to_owned()),
        ("/endpoints", "endpoints".to_owned()),
        ("/endpoints/{id}/stats", "endpoints/fails/stats".to_owned()),
        ("/endpoints/{id}/attempts", "endpoints/fails/attempts".to_owned()),
        ("/events", "events".to_owned()),
        ("/events/{id}/explain", format!("events/{event}/explain")),
        ("/events/{id}/deliveries", format!("events/{event}/deliveries")),
        ("/deliveries/{id}/attempts", format!("deliveries/{id}/attempts")),
    ] {
        let full = format!("/v1/tenants/default{}{path}", if path.is_empty() { "" } else { "/" });
        let found = looked_at(&gateway, &document, &format!("{tenant}{template}"), &full).await;
        assert!(found.is_empty(), "{path}: the document does not tell of {found:?}");
    }
}

#[tokio::test]
async fn a_tenants_key_learns_nothing_of_tenants_and_the_document_says_so() {
    let (_folder, gateway, _endpoint) = bench().await;
    let wish = json!({ "name": "mine", "scopes": ["manage"] });
    let key = gateway.post("keys", wish).await["key"].as_str().unwrap().to_owned();
    assert_ne!(key, OPERATOR_KEY);
    let request = gateway.request(Method::PUT, "/v1/tenants/another", &key);
    let answer = request.json(&json!({ "name": "x" })).send().await.unwrap();
    let status = answer.status().as_u16();
    let problem: Value = answer.json().await.unwrap();
    let document = gateway.get("/openapi.json").await;
    let told = &document["paths"]["/v1/tenants/{tenant}"]["put"]["responses"];
    let told = told[status.to_string()]["description"].as_str().unwrap_or_default();
    let code = problem["code"].as_str().unwrap();
    assert!(told.contains(&format!("`{code}`")), "{status} {code} is not among {told:?}");
}
