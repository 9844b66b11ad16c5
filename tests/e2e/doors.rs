//! Who may do what: each operation, each kind of credential, own and foreign tenants.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish_to};
use hookgate_tests::{Gateway, OPERATOR_KEY};

/// What an operation takes. Written down by hand: the gateway's own table is what is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Operator,
    Manage,
    /// `manage`, but not of a portal session.
    ManageKey,
    Produce,
    Read,
}

use Takes::{Manage, ManageKey, Nothing, Operator, Produce, Read};

const OPERATIONS: &[(&str, &str, Takes)] = &[
    ("GET", "/v1/tenants", Operator),
    ("GET", "/v1/tenants/{tenant}", Read),
    ("PUT", "/v1/tenants/{tenant}", Operator),
    ("DELETE", "/v1/tenants/{tenant}", Operator),
    ("GET", "/v1/audit-log", Operator),
    ("GET", "/v1/tenants/{tenant}/audit-log", Manage),
    ("GET", "/v1/tenants/{tenant}/keys", Operator),
    ("POST", "/v1/tenants/{tenant}/keys", Operator),
    ("POST", "/v1/tenants/{tenant}/keys/{id}/rotate", Operator),
    ("DELETE", "/v1/tenants/{tenant}/keys/{id}", Operator),
    ("POST", "/v1/tenants/{tenant}/portal-sessions", ManageKey),
    ("GET", "/v1/tenants/{tenant}/endpoints", Read),
    ("POST", "/v1/tenants/{tenant}/endpoints", Manage),
    ("GET", "/v1/tenants/{tenant}/endpoints/{id}", Read),
    ("PATCH", "/v1/tenants/{tenant}/endpoints/{id}", Manage),
    ("DELETE", "/v1/tenants/{tenant}/endpoints/{id}", Manage),
    ("GET", "/v1/tenants/{tenant}/endpoints/{id}/secret", ManageKey),
    ("POST", "/v1/tenants/{tenant}/endpoints/{id}/secret/rotate", ManageKey),
    ("POST", "/v1/tenants/{tenant}/endpoints/{id}/test", Manage),
    ("GET", "/v1/tenants/{tenant}/endpoints/{id}/attempts", Read),
    ("GET", "/v1/tenants/{tenant}/endpoints/{id}/stats", Read),
    ("GET", "/v1/tenants/{tenant}/event-types", Read),
    ("GET", "/v1/tenants/{tenant}/event-types/{type}", Read),
    ("PUT", "/v1/tenants/{tenant}/event-types/{type}", Manage),
    ("DELETE", "/v1/tenants/{tenant}/event-types/{type}", Manage),
    ("POST", "/v1/tenants/{tenant}/events", Produce),
    ("GET", "/v1/tenants/{tenant}/events", Read),
    ("GET", "/v1/tenants/{tenant}/events/{id}", Read),
    ("GET", "/v1/tenants/{tenant}/events/{id}/deliveries", Read),
    ("GET", "/v1/tenants/{tenant}/events/{id}/explain", Read),
    ("GET", "/v1/tenants/{tenant}/events/tail", Read),
    ("GET", "/v1/tenants/{tenant}/deliveries", Read),
    ("GET", "/v1/tenants/{tenant}/deliveries/{id}", Read),
    ("GET", "/v1/tenants/{tenant}/deliveries/{id}/attempts", Read),
    ("POST", "/v1/tenants/{tenant}/deliveries/{id}/retry", Manage),
    ("POST", "/v1/tenants/{tenant}/deliveries/{id}/cancel", Manage),
    ("GET", "/v1/tenants/{tenant}/dead-letters", Read),
    ("POST", "/v1/tenants/{tenant}/dead-letters/redrive", Manage),
    ("DELETE", "/v1/tenants/{tenant}/dead-letters/{id}", Manage),
    ("GET", "/v1/tenants/{tenant}/replays", Read),
    ("POST", "/v1/tenants/{tenant}/replays", ManageKey),
    ("GET", "/v1/tenants/{tenant}/replays/{id}", Read),
    ("DELETE", "/v1/tenants/{tenant}/replays/{id}", Manage),
    ("GET", "/v1/tenants/{tenant}/plugins", Read),
    ("GET", "/v1/tenants/{tenant}/plugins/{name}", Read),
    ("PUT", "/v1/tenants/{tenant}/plugins/{name}", Manage),
    ("DELETE", "/v1/tenants/{tenant}/plugins/{name}", Manage),
    ("GET", "/v1/tenants/{tenant}/plugins/{name}/versions/{version}/wasm", Read),
    ("POST", "/v1/tenants/{tenant}/plugins/{name}/activate", Manage),
    ("POST", "/v1/tenants/{tenant}/plugins/{name}/invoke", Manage),
    ("POST", "/v1/tenants/{tenant}/plugins/{name}/backtest", Manage),
    ("GET", "/v1/tenants/{tenant}/plugins/{name}/logs", Read),
    ("GET", "/v1/tenants/{tenant}/plugins/{name}/canary", Read),
    ("POST", "/v1/tenants/{tenant}/plugins/{name}/canary", Manage),
    ("DELETE", "/v1/tenants/{tenant}/plugins/{name}/canary", Manage),
    ("POST", "/v1/tenants/{tenant}/plugins/{name}/canary/promote", Manage),
    ("GET", "/v1/tenants/{tenant}/ingest", Read),
    ("PUT", "/v1/tenants/{tenant}/ingest", Manage),
    ("GET", "/v1/system/egress-policy", Operator),
    ("GET", "/v1/system/log-level", Operator),
    ("PUT", "/v1/system/log-level", Operator),
    ("POST", "/v1/system/backup", Operator),
    ("POST", "/api/webhooks/register", Manage),
    ("GET", "/api/webhooks", Read),
    ("DELETE", "/api/webhooks/{id}", Manage),
    ("GET", "/healthz", Nothing),
    ("GET", "/readyz", Nothing),
    ("GET", "/metrics", Nothing),
    ("GET", "/docs/runbook", Nothing),
    ("GET", "/openapi.json", Nothing),
    ("GET", "/docs", Nothing),
];

/// Whether a credential opens an operation of its own tenant.
fn opens(credential: &str, takes: Takes) -> bool {
    matches!(
        (credential, takes),
        (_, Nothing)
            | ("operator", _)
            | ("manage", Manage | ManageKey | Produce | Read)
            | ("portal", Manage | Produce | Read)
            | ("produce", Produce)
            | ("read", Read)
    )
}

async fn make_key(gateway: &Gateway, tenant: &str, body: Value) -> (String, String) {
    let made = gateway.post(&format!("/v1/tenants/{tenant}/keys"), body).await;
    (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned())
}

/// Keys of a tenant of each kind, by kind.
async fn credentials(gateway: &Gateway, tenant: &str) -> BTreeMap<&'static str, String> {
    let mut keys = BTreeMap::from([
        ("operator", OPERATOR_KEY.to_owned()),
        ("none", String::new()),
        ("garbage", "hk_nonsense_nonsense".to_owned()),
    ]);
    for scope in ["manage", "produce", "read"] {
        let body = json!({ "name": scope, "scopes": [scope] });
        keys.insert(scope, make_key(gateway, tenant, body).await.0);
    }
    let past = json!({ "name": "e", "scopes": ["manage"], "expires_at": "2020-01-01T00:00:00Z" });
    keys.insert("expired", make_key(gateway, tenant, past).await.0);
    let body = json!({ "name": "r", "scopes": ["manage"] });
    let (revoked, id) = make_key(gateway, tenant, body).await;
    let path = format!("/v1/tenants/{tenant}/keys/{id}");
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    keys.insert("revoked", revoked);
    let path = format!("/v1/tenants/{tenant}/portal-sessions");
    let session = gateway.post(&path, json!({ "scopes": ["manage"] })).await;
    keys.insert("portal", session["token"].as_str().unwrap().to_owned());
    keys
}

/// Calls an operation; status and body, the latter without what names the request.
async fn ask(gateway: &Gateway, method: &str, path: &str, key: &str) -> (u16, String) {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = gateway.request(method.clone(), path, key);
    if method != Method::GET {
        request = request.header("content-type", "application/json").body("[");
    }
    let mut response = request.send().await.unwrap();
    assert!(response.headers().contains_key("x-request-id"), "{path}");
    let status = response.status().as_u16();
    // The tail has no end.
    let body = if path.ends_with("/tail") && status == 200 {
        response.chunk().await.unwrap().unwrap_or_default()
    } else {
        response.bytes().await.unwrap()
    };
    (status, String::from_utf8_lossy(&body).into_owned())
}

fn filled(path: &str, tenant: &str, id: &str) -> String {
    let path = path.replace("{tenant}", tenant).replace("{id}", id).replace("{name}", "nobody");
    path.replace("{type}", "a.b").replace("{version}", "1")
}

#[tokio::test]
async fn every_operation_opens_to_whom_it_should_and_to_nobody_else() {
    let (_folder, gateway, _endpoint) = bench().await;
    for tenant in ["one", "two"] {
        let path = format!("/v1/tenants/{tenant}");
        assert_eq!(gateway.call(Method::PUT, &path, Some(json!({}))).await.0, 201);
    }
    let document = gateway.get("/openapi.json").await;
    let mut told = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            told.insert((method.to_uppercase(), path.clone()));
        }
    }
    let tested: BTreeSet<_> =
        OPERATIONS.iter().map(|(it, path, _)| ((*it).to_owned(), (*path).to_owned())).collect();
    assert_eq!(told, tested, "each operation stands in this test's table and in the document");
    let keys = credentials(&gateway, "one").await;
    for (method, path, takes) in OPERATIONS {
        // The operator's own deletion would end the test.
        let deletes_all = *method == "DELETE" && path.ends_with("{tenant}");
        for (credential, key) in &keys {
            if deletes_all && *credential == "operator" {
                continue;
            }
            let own = ask(&gateway, method, &filled(path, "one", "nobody"), key).await;
            let unknown = matches!(*credential, "none" | "garbage" | "expired" | "revoked");
            let place = format!("{credential}: {method} {path}: {own:?}");
            match (opens(credential, *takes), unknown) {
                (true, _) => assert!(!matches!(own.0, 401 | 403), "{place}"),
                (false, true) => assert_eq!(own.0, 401, "{place}"),
                (false, false) => assert_eq!(own.0, 403, "{place}"),
            }
            assert!(own.0 < 500, "{place}");
            if !path.contains("{tenant}") || unknown || *credential == "operator" {
                continue;
            }
            let foreign = ask(&gateway, method, &filled(path, "two", "nobody"), key).await;
            let nowhere = ask(&gateway, method, &filled(path, "none", "nobody"), key).await;
            assert_eq!(foreign, nowhere, "{credential}: {method} {path}");
            assert_eq!(foreign.0, 404, "{credential}: {method} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_another_tenants_is_what_does_not_exist() {
    let (_folder, gateway, endpoint) = bench().await;
    for tenant in ["one", "two"] {
        let path = format!("/v1/tenants/{tenant}");
        gateway.call(Method::PUT, &path, Some(json!({}))).await;
    }
    let hook = json!({ "id": "theirs", "url": endpoint.url });
    gateway.post("/v1/tenants/two/endpoints", hook).await;
    let event = publish_to(&gateway, "two", json!({ "type": "a.b", "data": 1 })).await;
    endpoint.await_count(1).await;
    // It may be on its way before it is in the list.
    let path = format!("/v1/tenants/two/events/{event}/deliveries");
    let listed = crate::until(&gateway, &path, |it| it["data"][0]["id"].is_string()).await;
    let delivery = listed["data"][0]["id"].as_str().unwrap().to_owned();
    let (key, _) = make_key(&gateway, "one", json!({ "name": "k", "scopes": ["manage"] })).await;
    let (_, key_id) = make_key(&gateway, "two", json!({ "name": "k", "scopes": ["read"] })).await;
    let since = json!({ "endpoint": "theirs", "since": "2020-01-01T00:00:00Z" });
    let replay = gateway.post("/v1/tenants/two/replays", since).await;
    let replay = replay["id"].as_str().unwrap().to_owned();
    let none = "evt_01h2xcejqtf2nbrexx3vqjhp41";
    for (path, id) in [
        ("endpoints/{id}", "theirs"),
        ("endpoints/{id}/attempts", "theirs"),
        ("endpoints/{id}/secret", "theirs"),
        ("events/{id}", &event),
        ("events/{id}/deliveries", &event),
        ("deliveries/{id}", &delivery),
        ("deliveries/{id}/attempts", &delivery),
        ("replays/{id}", &replay),
    ] {
        let path = format!("/v1/tenants/one/{path}");
        let foreign = ask(&gateway, "GET", &path.replace("{id}", id), &key).await;
        let unknown = ask(&gateway, "GET", &path.replace("{id}", none), &key).await;
        assert_eq!((foreign.0, &foreign), (404, &unknown), "{path}");
    }
    let theirs = format!("/v1/tenants/one/keys/{key_id}");
    assert_eq!(gateway.call(Method::DELETE, &theirs, None).await.0, 404, "a key has one tenant");
}

#[tokio::test]
async fn a_key_is_rotated_without_a_gap_and_revoked_at_once() {
    let (_folder, gateway, _) = bench().await;
    let body = json!({ "name": "k", "scopes": ["read"] });
    let (old, id) = make_key(&gateway, "default", body).await;
    let tenant = "/v1/tenants/default";
    let rotate = format!("{tenant}/keys/{id}/rotate");
    let made = gateway.post(&rotate, json!({ "grace": "1h" })).await;
    let new = made["key"].as_str().unwrap().to_owned();
    assert_eq!(made["id"], id.as_str());
    for key in [&old, &new] {
        assert_eq!(ask(&gateway, "GET", tenant, key).await.0, 200);
    }
    let last = gateway.post(&rotate, json!({ "grace": "0s" })).await;
    for (key, status) in [(&old, 401), (&new, 401)] {
        assert_eq!(ask(&gateway, "GET", tenant, key).await.0, status);
    }
    let last = last["key"].as_str().unwrap().to_owned();
    assert_eq!(ask(&gateway, "GET", tenant, &last).await.0, 200);
    let path = format!("{tenant}/keys/{id}");
    assert_eq!(gateway.call(Method::DELETE, &path, None).await.0, 204);
    assert_eq!(ask(&gateway, "GET", tenant, &last).await.0, 401);
}

#[tokio::test]
async fn a_portal_session_ends_with_the_key_that_opened_it() {
    const ENDPOINTS: &str = "/v1/tenants/default/endpoints";
    let (_folder, gateway, _) = bench().await;
    let key = json!({ "name": "k", "scopes": ["manage"], "expires_at": "2099-01-01T00:00:00Z",
                      "rate_limit": { "per_second": 0.001, "burst": 3 } });
    let (key, id) = make_key(&gateway, "default", key).await;
    let path = "/v1/tenants/default/portal-sessions";
    let request = gateway.request(Method::POST, path, &key).json(&json!({ "scopes": ["read"] }));
    let session: Value = request.send().await.unwrap().json().await.unwrap();
    let token = session["token"].as_str().unwrap();
    // The session's requests are the key's.
    assert_eq!(ask(&gateway, "GET", ENDPOINTS, token).await.0, 200);
    assert_eq!(ask(&gateway, "GET", ENDPOINTS, &key).await.0, 200);
    assert_eq!(ask(&gateway, "GET", ENDPOINTS, token).await.0, 429);
    let (session, keys) = (session["id"].as_str().unwrap(), "/v1/tenants/default/keys");
    let rotated = gateway.call(Method::POST, &format!("{keys}/{session}/rotate"), None).await;
    assert_eq!(rotated.0, 404, "a session is no key");
    assert_eq!(gateway.call(Method::DELETE, &format!("{keys}/{id}"), None).await.0, 204);
    assert_eq!(ask(&gateway, "GET", ENDPOINTS, token).await.0, 401);
}

#[tokio::test]
async fn a_portal_session_ends_by_itself_and_opens_no_more_than_it_says() {
    let (_folder, gateway, _) = bench().await;
    let path = "/v1/tenants/default/portal-sessions";
    let session = gateway.post(path, json!({ "scopes": ["read"], "ttl": "1s" })).await;
    let token = session["token"].as_str().unwrap();
    assert_eq!(ask(&gateway, "GET", "/v1/tenants/default/endpoints", token).await.0, 200);
    assert_eq!(ask(&gateway, "POST", "/v1/tenants/default/endpoints", token).await.0, 403);
    assert_eq!(ask(&gateway, "POST", path, token).await.0, 403);
    assert_eq!(gateway.get("/v1/tenants/default/keys").await["data"], json!([]), "it is no key");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(ask(&gateway, "GET", "/v1/tenants/default/endpoints", token).await.0, 401);
    let (status, problem) =
        gateway.call(Method::POST, path, Some(json!({ "scopes": [], "ttl": "2d" }))).await;
    assert_eq!((status, problem["errors"].as_array().unwrap().len()), (422, 2));
}
