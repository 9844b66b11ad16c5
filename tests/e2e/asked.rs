//! What an operator does by command: what is asked first, and what is told as done.

use std::{io::Write, process::Stdio};

use hookgate_tests::{OPERATOR_KEY, binary};
use reqwest::Method;
use serde_json::json;

use crate::command_line::Shell;
use crate::{bench, ingest, register};

/// Runs a command on a terminal, which `script` of util-linux gives it, and answers it so.
fn on_a_terminal(shell: &Shell<'_>, arguments: &str, answer: &str) -> (i32, String) {
    let named = shell.command(&[]);
    let mut command = std::process::Command::new("script");
    let line = format!("'{}' {arguments}", binary().display());
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    command.envs(named.get_envs().filter_map(|(name, it)| Some((name, it?))));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Who is not asked may have ended.
    let _ = writeln!(child.stdin.take().unwrap(), "{answer}");
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn what_is_deleted_on_a_terminal_is_asked_about_first() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    assert_eq!(shell.run(&["tenants", "put", "shop"]).0, 0);
    let key = shell.json(&["keys", "create", "till", "--scope", "read"]);
    let revoke = format!("keys revoke {}", key["id"].as_str().unwrap());
    for (command, answer) in [
        ("endpoints delete mine", "n"),
        ("endpoints delete mine", ""),
        (&revoke, "no"),
        ("tenants delete shop", "y"),
        ("tenants delete shop", "default"),
        ("plugin delete nothing", "n"),
        ("event-types delete a.b", "n"),
        ("dead-letters delete nothing", "n"),
    ] {
        let (code, said) = on_a_terminal(&shell, command, answer);
        assert_eq!(code, 1, "{command}: {said}");
        assert!(said.contains(&gateway.server), "where it would be done: {said}");
        assert!(said.contains("nothing was deleted"), "{said}");
    }
    gateway.get("endpoints/mine").await;
    gateway.get("/v1/tenants/shop").await;
    for (command, answer) in [
        ("endpoints delete mine", "y"),
        ("tenants delete shop", "shop"),
        (&format!("{revoke} --yes"), ""),
    ] {
        let (code, said) = on_a_terminal(&shell, command, answer);
        assert_eq!(code, 0, "{command}: {said}");
    }
    assert_eq!(gateway.get("endpoints").await["data"], json!([]));
    assert_eq!(gateway.get("keys").await["data"], json!([]));

    // A script is not asked.
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    assert_eq!(shell.run(&["endpoints", "delete", "mine"]).0, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_that_fails_is_no_success() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    assert_eq!(shell.json(&["endpoints", "test", "mine"])["outcome"], "delivered");
    endpoint.answer(500);
    let (code, text, errors) = shell.run(&["endpoints", "test", "mine", "--json"]);
    assert_eq!(code, 1, "{errors}");
    let attempt: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(attempt["status_code"], 500, "the attempt is shown all the same");
    assert!(errors.contains("did not take the test"), "{errors}");
}

#[tokio::test]
async fn chains_sessions_and_readiness_by_command() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    assert_eq!(shell.json(&["ready"]), gateway.get("/readyz").await);

    assert_eq!(gateway.upload("script", ingest::script(&["ingest"])).await.0, 201);
    let code = "script@1:ingest=return { reject: 'never' }";
    let set = shell.json(&["ingest", "set", code, "--on-error", "pass"]);
    assert_eq!(set, gateway.get("ingest").await);
    assert_eq!(set["plugins"][0]["on_error"], "pass");
    assert_eq!(shell.json(&["ingest", "show"]), set);
    assert_eq!(shell.run(&["send", "a.b"]).0, 1, "the plugin rejects it");
    assert_eq!(shell.json(&["ingest", "set", "script"])["plugins"][0]["on_error"], "reject");
    assert_eq!(shell.json(&["ingest", "clear"]), json!({ "plugins": [] }));
    assert_eq!(shell.run(&["send", "a.b"]).0, 0);
    assert_eq!(shell.run(&["ingest", "set"]).0, 2);

    let session = ["portal-sessions", "create", "--scope", "read", "--ttl", "15m"];
    let session = shell.json(&session);
    let request = gateway.request(
        Method::GET,
        "/v1/tenants/default/endpoints",
        session["token"].as_str().unwrap(),
    );
    assert_eq!(request.send().await.unwrap().status(), 200);
    assert_eq!(shell.run(&["portal-sessions", "create", "--scope", "all"]).0, 2);
}

#[tokio::test]
async fn an_operator_may_log_in_without_the_default_tenant() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    assert_eq!(shell.run(&["tenants", "delete", "default"]).0, 0);
    let fresh = Shell { server: "", home: folder.path() };
    let login = ["login", "--server", &gateway.server, "--key", OPERATOR_KEY];
    let (code, _, errors) = fresh.run(&login);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(fresh.run(&["tenants", "list"]).0, 0);
}

#[tokio::test]
async fn what_is_no_file_is_named_and_a_byte_order_mark_is_none_of_the_event() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let (code, _, errors) = shell.run(&["events", "import", "."]);
    assert!(code == 2 && errors.contains("is a folder"), "{errors}");
    for backup in [".", "-", "/dev/null"] {
        let restore = ["store", "restore", backup, "--data-dir", "new"];
        let (code, _, errors) = shell.run(&restore);
        assert!(code == 2 && errors.contains("read twice"), "{backup}: {errors}");
    }
    let (code, _, errors) = shell.run(&["dead-letters", "redrive"]);
    assert!(code == 2 && errors.contains("--endpoint"), "{errors}");
    assert_eq!(shell.json(&["tenants", "create", "acme"])["id"], "acme");
    assert!(!folder.path().join("new").exists());
    std::fs::write(folder.path().join("some.backup"), "").unwrap();
    let restore = ["store", "restore", "some.backup", "--data-dir", "data"];
    let (code, _, errors) = shell.run(&restore);
    assert!(code == 5 && errors.contains("a store already"), "{errors}");
    let lines = "\u{feff}{\"type\":\"a.b\",\"data\":1}\n{\"type\":\"a.b\",\"data\":2}\n";
    std::fs::write(folder.path().join("events.ndjson"), lines).unwrap();
    assert_eq!(shell.json(&["events", "import", "events.ndjson"])["accepted"], 2);
}
