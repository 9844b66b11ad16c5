//! Single commands: what they send, and which mistakes they name.

use hookgate_tests::OPERATOR_KEY;
use reqwest::Method;
use serde_json::{Value, json};

use crate::command_line::Shell;
use crate::{bench, publish, register};

#[tokio::test]
async fn data_goes_as_it_was_written() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let url = &endpoint.url;
    let made = shell.json(&["endpoints", "create", url, "--id", "mine", "--format", "raw"]);
    assert_eq!(made["format"], "raw");
    let data = r#"{"b":1.0,"a":2,"n":1e2,"big":123456789012345678901234567890}"#;
    shell.json(&["send", "a.b", "-d", data, "--id", "one", "--ordering-key", "k"]);
    assert_eq!(endpoint.await_count(1).await[0].raw, data.as_bytes());
    assert_eq!(gateway.get("events/one").await["ordering_key"], "k");
    let doubled = shell.run(&["send", "a.b", "-d", r#"{"a":1,"a":2}"#]);
    assert_eq!(doubled.0, 1, "the gateway takes no member twice: {}", doubled.2);
}

#[tokio::test]
async fn mistakes_on_the_command_line_are_usage() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    std::fs::write(folder.path().join("e.ndjson"), "").unwrap();
    for arguments in [
        &["events", "list", "--limit", "0"][..],
        &["events", "list", "--since", "garbage"],
        &["endpoints", "list", "--since", "6h"],
        &["deliveries", "list", "--status", "nonsense"],
        &["dead-letters", "list", "--reason", "nonsense"],
        &["tail", "--status", "nonsense"],
        &["keys", "create", "shop", "--scope", "bogus"],
        &["keys", "create", "shop", "--scope", "read", "--burst", "5"],
        &["replays", "create", "mine", "--since", "soon"],
        &["send", ""],
        &["send", "--ndjson", "e.ndjson", "--id", "one"],
        &["send", "--ndjson", "e.ndjson", "--ordering-key", "k"],
        &["send", "--ndjson", "e.ndjson", "--idempotency-key", "k"],
        &["plugin", "new", "it", "--lang", "c", "--kind", "transform"],
        &["plugin", "new", "It!", "--lang", "c"],
    ] {
        let (code, _, errors) = shell.run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {errors}");
    }
    assert_eq!(shell.run(&["tail", "--endpoint", "nobody"]).0, 4);
    let (_, _, errors) = shell.run(&["endpoints", "create", "nonsense"]);
    assert!(errors.starts_with("error: /url"), "{errors}");
    assert!(!errors.contains("cause:"), "once is enough: {errors}");
    for shown in [shell.run(&["completions", "bash"]).1, shell.run(&[]).2] {
        assert!(shown.contains("event-types"), "{shown}");
        assert!(!shown.contains("plugin-compiler") && !shown.contains("bench-part"), "{shown}");
    }
}

#[tokio::test]
async fn who_may_and_who_did() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let quota = r#"{"events_per_second": 5, "endpoints_max": 2}"#;
    let made = shell.json(&["tenants", "put", "shop", "--quota", quota]);
    assert_eq!(made["quota"]["endpoints_max"], 2, "{made}");
    let key = shell.json(&[
        "keys",
        "create",
        "till",
        "--tenant",
        "shop",
        "--scope",
        "produce",
        "--expires-at",
        "90d",
        "--rate-limit",
        "2.5",
        "--burst",
        "10",
    ]);
    assert_eq!(key["rate_limit"], json!({ "per_second": 2.5, "burst": 10 }));
    assert!(key["expires_at"].is_string(), "{key}");
    assert_eq!(
        shell.json(&["audit", "list", "--tenant", "shop"]),
        gateway.get("/v1/tenants/shop/audit-log").await
    );
    let all = shell.json(&["audit", "list", "--all", "--limit", "1"]);
    assert_eq!(all, gateway.get("/v1/audit-log?limit=1").await);
    assert_eq!(all["data"][0]["operation"], "createKey");

    // A key that may only publish can be kept and used.
    let text = key["key"].as_str().unwrap();
    let till = Shell { server: "", home: folder.path() };
    let login = ["login", "--server", &gateway.server, "--key", text];
    assert_eq!(till.run(&login).0, 0);
    assert_eq!(till.run(&["send", "a.b", "--tenant", "shop"]).0, 0);
    let login = ["login", "--server", &gateway.server, "--key", "wrong"];
    assert_eq!(till.run(&login).0, 3);
}

#[tokio::test]
async fn lists_are_narrowed() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    for event_type in ["order.created", "order.paid"] {
        let event = publish(&gateway, event_type, json!(1)).await;
        gateway.await_status(&event, "delivered").await;
    }
    let count = |arguments: &[&str]| shell.json(arguments)["data"].as_array().unwrap().len();
    assert_eq!(count(&["deliveries", "list", "--type", "order.paid"]), 1);
    assert_eq!(count(&["deliveries", "list", "--since", "1h", "--code", "200"]), 2);
    assert_eq!(count(&["deliveries", "list", "--until", "1h"]), 0);
    assert_eq!(count(&["events", "list", "--since", "1h", "--type", "order.*"]), 2);
    assert_eq!(count(&["events", "list", "--until", "2026-01-01T00:00:00Z"]), 0);
    assert_eq!(count(&["dead-letters", "list", "--reason", "expired", "--type", "a.*"]), 0);
    let stats = shell.json(&["endpoints", "stats", "mine", "--window", "5m"]);
    assert_eq!((&stats["window"], &stats["delivered"]), (&json!("5m"), &json!(2)));
    let replay = shell.json(&["replays", "create", "mine", "--since", "6h"]);
    assert_eq!(replay["replayed"], 2, "{replay}");
    let (status, _) = gateway.call(Method::DELETE, "endpoints/mine", None).await;
    assert_eq!(status, 204);
}

#[tokio::test]
async fn a_tenant_is_kept_with_its_key() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    shell.json(&["tenants", "put", "shop"]);
    let key = shell.json(&["keys", "create", "till", "--scope", "produce", "--tenant", "shop"]);
    let text = key["key"].as_str().unwrap();
    let till = Shell { server: "", home: folder.path() };
    let login = ["login", "--server", &gateway.server, "--key", text];
    assert_eq!(till.run(&login).0, 0);
    let (code, _, errors) = till.run(&["send", "a.b"]);
    assert!(code == 4 && errors.contains("--tenant says which one"), "{errors}");
    let env = till.command(&["send", "a.b"]).env("HOOKGATE_TENANT", "shop").output().unwrap();
    assert!(env.status.success(), "{env:?}");
    let login = ["login", "--server", &gateway.server, "--key", text, "--tenant"];
    let with = |tenant| till.run(&[&login[..], &[tenant]].concat()).0;
    assert_eq!((with("nobody"), with("shop")), (4, 0));
    assert_eq!(till.run(&["send", "a.b"]).0, 0, "the tenant is kept with its key");
    assert_eq!(till.json(&["context", "list"])["data"][0]["tenant"], "shop");
    let other = till.run(&["--key", OPERATOR_KEY, "--json", "events", "list"]).1;
    let other: Value = serde_json::from_str(&other).unwrap();
    assert_eq!(other["data"], json!([]), "and another key has nothing to do with it");
}
