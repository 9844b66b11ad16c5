//! Events out of one gateway and into another.

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{bench, publish, register};
use hookgate_tests::{Gateway, OPERATOR_KEY, binary};

/// Runs a command against a gateway, with something on its stdin.
fn hookgate(gateway: &Gateway, arguments: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(binary())
        .args(["--server", &gateway.server, "--key", OPERATOR_KEY])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Where the arguments are wrong nobody reads.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn export(gateway: &Gateway, flags: &[&str]) -> String {
    let done = hookgate(gateway, &[&["events", "export"][..], flags].concat(), b"");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

fn ids(lines: &str) -> Vec<String> {
    let id =
        |it: &str| serde_json::from_str::<Value>(it).unwrap()["id"].as_str().unwrap().to_owned();
    lines.lines().map(id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_exported_is_imported_as_it_was() {
    let (_folder, one, _) = bench().await;
    // Over a page, with data that JSON readers like to change.
    let mut lines = String::new();
    for n in 0..300 {
        let event_type = if n % 3 == 0 { "a.third" } else { "a.other" };
        lines.push_str(&format!(
            "{{\"type\":\"{event_type}\",\"data\":{{ \"z\": {n}.50, \"big\": 123456789012345678901234, \
             \"a\": \"\\u00e9\\n\" }},\"metadata\":{{\"region\":\"eu\"}},\"ordering_key\":\"k\"}}\n"
        ));
    }
    assert!(hookgate(&one, &["events", "import"], lines.as_bytes()).status.success());
    let pretty = "{\n  \"type\": \"a.pretty\",\n  \"id\": \"order-1\",\n  \"timestamp\": \
        \"2020-01-31T12:00:00Z\",\n  \"data\": {\n    \"n\": 1.0\n  }\n}";
    let request = one.request(reqwest::Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("content-type", "application/json").body(pretty);
    assert_eq!(request.send().await.unwrap().status(), 202);
    let whole = export(&one, &[]);
    assert_eq!(whole.lines().count(), 301);
    assert!(whole.starts_with("{\"id\":\"evt_"), "{}", &whole[..80]);
    assert!(whole.contains("\"data\":{ \"z\": 7.50, \"big\": 123456789012345678901234, \"a\""));
    assert!(
        whole.ends_with(
            "\"timestamp\":\"2020-01-31T12:00:00.000Z\",\"data\":{     \"n\": 1.0   }}\n"
        )
    );

    let (_folder, other, endpoint) = bench().await;
    register(&other, &endpoint, json!({ "ordering": "strict", "format": "raw" })).await;
    let told = hookgate(&other, &["--json", "events", "import", "-"], whole.as_bytes());
    let told: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!(told, json!({ "accepted": 301, "duplicate": 0, "rejected": [] }));
    assert_eq!(export(&other, &[]), whole, "byte by byte");
    let again = hookgate(&other, &["--json", "events", "import"], whole.as_bytes());
    let again: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&again["accepted"], &again["duplicate"]), (&json!(0), &json!(301)));
    assert_eq!(export(&other, &[]), whole, "nothing is there twice");
    let got = endpoint.await_count(301).await;
    let received: Vec<_> = got.into_iter().map(|it| it.id).collect();
    assert_eq!(received, ids(&whole), "in the order of the file");

    // What is there already is found by its id, be it drawn or chosen.
    let first = &ids(&whole)[0];
    assert_eq!(other.get(&format!("events/{first}")).await["metadata"]["region"], "eu");
    let rest = export(&other, &["--after", &ids(&whole)[299]]);
    assert_eq!(ids(&rest), ["order-1"]);
    assert_eq!(export(&one, &["--type", "a.third"]).lines().count(), 100);
    assert_eq!(export(&one, &["--to", "2020-01-01T00:00:00Z"]), "");
    assert_eq!(export(&one, &["--from", "2020-01-01T00:00:00Z"]), whole);
}

#[tokio::test]
async fn lines_that_cannot_be_taken_are_told() {
    let (_folder, gateway, _) = bench().await;
    let good = publish(&gateway, "a.b", json!(1)).await;
    let mut lines = export(&gateway, &[]);
    lines.push_str("{\"type\":\"a..b\",\"data\":1}\nnonsense\n");
    let (_folder, other, _) = bench().await;
    let done = hookgate(&other, &["--json", "events", "import"], lines.as_bytes());
    assert_eq!(done.status.code(), Some(7));
    let told: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!((&told["accepted"], &told["rejected"][0]["line"]), (&json!(1), &json!(2)));
    assert_eq!(told["rejected"][1]["error"]["code"], "invalid_json");
    assert_eq!(ids(&export(&other, &[])), [good]);
    let done = hookgate(&other, &["events", "export", "--after", "nothing"], b"");
    let errors = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(4), "{errors}");
    assert!(errors.contains("--from") && !errors.contains("is whole"), "{errors}");
    let (status, problem) = other.call(reqwest::Method::GET, "events?after=x", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_parameter")));
    let (status, problem) = other.call(reqwest::Method::GET, "events?order=best", None).await;
    assert_eq!((status, &problem["code"]), (400, &json!("invalid_parameter")));
}
