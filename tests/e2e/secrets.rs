use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use hookgate_tests::{Authority, Gateway, OPERATOR_KEY, binary};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register};

const MASTER_KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER_KEY: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

/// Every file below a folder with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => {
                found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Tries to serve; how it ended, and what it said. It is killed after a while.
#[expect(clippy::disallowed_methods, reason = "real time: a process must end soon")]
fn serve(data: &Path, environment: &[(&str, &str)]) -> (Option<i32>, String, Duration) {
    let mut command = Command::new("timeout");
    command.arg("20").arg(binary()).args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]);
    command.arg(data).env("HOOKGATE_OPERATOR_KEY", OPERATOR_KEY);
    let started = Instant::now();
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), errors, started.elapsed())
}

#[tokio::test]
async fn no_secret_lies_in_plain_text() {
    let (folder, mut gateway, endpoint) = bench().await;
    let plugin = hookgate_tests::plugin::example("redact");
    gateway.upload("redact", plugin).await;
    let mine = Authority::new("ours").sign("gateway", 2040);
    let brought = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let with = json!({
        "id": "mine",
        "secret": brought,
        "headers": { "authorization": "Bearer header-of-the-tenant" },
        "tls": { "certificate": mine.certificate, "key": mine.key },
        "plugins": [{ "plugin": "redact", "config": { "fields": "field.of.a.config" } }],
    });
    register(&gateway, &endpoint, with).await;
    let key = json!({ "signature": { "scheme": "standard-ed25519" }, "id": "asymmetric" });
    register(&gateway, &endpoint, key).await;
    let drawn = gateway.post("endpoints/mine/secret/rotate", json!({})).await;
    for event in 0..5 {
        let event = publish(&gateway, "a.b", json!({ "n": event })).await;
        gateway.await_status(&event, "delivered").await;
    }
    let got = endpoint.got();
    assert!(got.iter().any(|it| it.headers.get("authorization").is_some()));
    let bad = json!({ "key": brought, "grace": "nonsense" });
    let problem = gateway.call(Method::POST, "endpoints/mine/secret/rotate", Some(bad)).await;
    let taken = json!({ "id": "mine", "url": endpoint.url, "secret": brought });
    let taken = gateway.call(Method::POST, "endpoints", Some(taken)).await;
    let metrics = gateway.call(Method::GET, "/metrics", None).await;
    assert!(problem.0 == 422 && taken.0 == 409 && metrics.0 == 200);
    let said = format!("{problem:?}{taken:?}{metrics:?}");
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let drawn = drawn["key"].as_str().unwrap().strip_prefix("whsec_").unwrap();
    let private = mine.key.lines().nth(1).unwrap();
    let brought = brought.strip_prefix("whsec_").unwrap();
    let mut places = files(&folder.path().join("data"));
    places.insert("log".to_owned(), std::fs::read(folder.path().join("data.log")).unwrap());
    places.insert("answers".to_owned(), said.into_bytes());
    let needles = [drawn, brought, private, "header-of-the-tenant", "field.of.a.config", "whsk_"];
    for (name, bytes) in &places {
        for needle in needles {
            let hit = bytes.windows(needle.len()).any(|it| it == needle.as_bytes());
            assert!(!hit, "{needle} lies in {name}");
        }
    }
    assert!(places.len() > 5, "there was something to look through: {:?}", places.keys());
    let gateway = Gateway::start(&folder.path().join("data"));
    let kept = gateway.get("endpoints/mine/secret").await;
    assert!(kept["key"].as_str().unwrap().ends_with(drawn), "and it is still known");
}

#[tokio::test]
async fn without_its_master_key_a_store_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut gateway = Gateway::start(&data);
    gateway.post("endpoints", json!({ "id": "mine", "url": "http://127.0.0.1:9000/" })).await;
    assert_eq!(gateway.terminate().await.code(), Some(0));
    let key = data.join("master.key");
    let mode = std::os::unix::fs::PermissionsExt::mode(&key.metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let (before, text) = (files(&data), std::fs::read_to_string(&key).unwrap());
    for environment in [
        &[("HOOKGATE_MASTER_KEY", OTHER_KEY)][..],
        &[("HOOKGATE_MASTER_KEY", "nonsense")],
        &[("HOOKGATE_MASTER_KEY_FILE", "/nonexistent/key")],
    ] {
        let (code, errors, took) = serve(&data, environment);
        assert_eq!(code, Some(78), "{environment:?}: {errors}");
        assert!(errors.contains("master key"), "{errors}");
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(files(&data) == before, "nothing was written");
    }
    std::fs::remove_file(&key).unwrap();
    let (code, errors, _) = serve(&data, &[]);
    assert_eq!(code, Some(78), "no other key is made for a store that has one: {errors}");
    assert!(!key.exists());
    // The early check may be lost; the store itself knows its key too.
    std::fs::remove_file(data.join("master-key-id")).unwrap();
    let (code, errors, _) = serve(&data, &[("HOOKGATE_MASTER_KEY", OTHER_KEY)]);
    assert_eq!(code, Some(78), "{errors}");
    std::fs::write(&key, text).unwrap();
    let gateway = Gateway::start(&data);
    assert!(gateway.get("endpoints/mine/secret").await["key"].is_string());
}

#[tokio::test]
async fn a_master_key_is_replaced_at_a_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let start = |flags: &[&str]| Gateway::start_with(&data, flags);
    let mut gateway = start(&["--allow-private-endpoints", "--master-key", MASTER_KEY]);
    assert!(!data.join("master.key").exists(), "a key that is given is not kept");
    gateway.post("endpoints", json!({ "id": "mine", "url": "http://127.0.0.1:9000/" })).await;
    let known = gateway.get("endpoints/mine/secret").await;
    gateway.terminate().await;
    let both = ["--master-key", OTHER_KEY, "--master-key-old", MASTER_KEY];
    let mut gateway = start(&both);
    assert_eq!(gateway.get("endpoints/mine/secret").await, known);
    gateway.terminate().await;
    let (code, errors, _) = serve(&data, &[("HOOKGATE_MASTER_KEY", MASTER_KEY)]);
    assert_eq!(code, Some(78), "the old key is worth nothing now: {errors}");
    let gateway = start(&["--master-key", OTHER_KEY]);
    assert_eq!(gateway.get("endpoints/mine/secret").await, known);
}

#[tokio::test]
async fn secrets_of_each_scheme_are_given_and_refused() {
    let (_folder, gateway, endpoint) = bench().await;
    let short = format!("whsec_{}", "A".repeat(31) + "=");
    for (scheme, secret, fits) in [
        ("standard", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true),
        ("standard", short.as_str(), false),
        ("standard", "", false),
        ("standard", "whsec_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_-_", false),
        ("standard", "8f742231b10e8888abcd99yyyzzz85a5!", false),
        ("slack", "8f742231b10e8888abcd99yyyzzz85a5!", true),
        ("github", "short", false),
        ("standard-ed25519", "whsk_AAAA", false),
    ] {
        let body = json!({
            "url": endpoint.url, "secret": secret, "signature": { "scheme": scheme },
        });
        let (status, answer) = gateway.call(Method::POST, "endpoints", Some(body)).await;
        let expected = if fits { (201, Value::Null) } else { (422, json!("invalid_secret")) };
        assert_eq!((status, &answer["code"]), (expected.0, &expected.1), "{scheme} {secret}");
        assert!(secret.len() < 9 || !answer.to_string().contains(secret), "never repeated");
    }
    let id = register(&gateway, &endpoint, json!({})).await;
    let rotate = format!("endpoints/{id}/secret/rotate");
    for _ in 0..4 {
        gateway.post(&rotate, json!({})).await;
    }
    let (status, problem) = gateway.call(Method::POST, &rotate, Some(json!({}))).await;
    assert_eq!((status, &problem["code"]), (409, &json!("rotation_limit")));
    gateway.post(&format!("endpoints/{id}/test"), json!({})).await;
    let got = endpoint.await_count(1).await;
    let signatures = got[0].headers["webhook-signature"].to_str().unwrap();
    assert_eq!(signatures.matches("v1,").count(), 5);
    assert_eq!(signatures.split(' ').count(), 5, "exactly one space between");
    // At once: the old ones sign no more.
    gateway.post(&rotate, json!({ "grace": "0s" })).await;
    gateway.post(&format!("endpoints/{id}/test"), json!({})).await;
    let got = endpoint.await_count(2).await;
    assert!(!got[1].headers["webhook-signature"].to_str().unwrap().contains(' '));
}
