use std::process::{Command, Stdio};

use hookgate_tests::{Gateway, OPERATOR_KEY, binary};
use reqwest::Method;
use serde_json::{Value, json};

use crate::{bench, publish, register};

/// The command line as somebody uses it, in a home of its own.
pub(crate) struct Shell<'a> {
    pub server: &'a str,
    pub home: &'a std::path::Path,
}

impl Shell<'_> {
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(arguments).current_dir(self.home).env("XDG_CONFIG_HOME", self.home);
        command.env_remove("HOOKGATE_SERVER").env_remove("HOOKGATE_KEY");
        command.env_remove("HOOKGATE_TENANT");
        if !self.server.is_empty() {
            command.env("HOOKGATE_SERVER", self.server).env("HOOKGATE_KEY", OPERATOR_KEY);
        }
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |it: Vec<u8>| String::from_utf8_lossy(&it).into_owned();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<_> = arguments.iter().copied().chain(["--json"]).collect();
        let (code, text, errors) = self.run(&arguments);
        assert_eq!(code, 0, "{arguments:?}: {errors}");
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{arguments:?}: {text}"))
    }
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn json_is_what_the_api_says() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    let event = publish(&gateway, "order.created", json!({ "n": 1 })).await;
    gateway.await_status(&event, "delivered").await;
    for (arguments, path) in [
        (&["endpoints", "list"][..], "endpoints?limit=50"),
        (&["endpoints", "get", "mine"], "endpoints/mine"),
        (&["events", "list"], "events?limit=50"),
        (&["events", "get", &event], &format!("events/{event}")),
        (&["events", "deliveries", &event], &format!("events/{event}/deliveries")),
        (&["explain", &event], &format!("events/{event}/explain")),
        (&["deliveries", "list"], "deliveries?limit=50"),
        (&["dead-letters", "list"], "dead-letters?limit=50"),
        (&["event-types", "list"], "event-types?limit=50"),
        (&["replays", "list"], "replays?limit=50"),
        (&["keys", "list"], "keys?limit=50"),
        (&["tenants", "list"], "/v1/tenants?limit=50"),
        (&["tenants", "get", "default"], "/v1/tenants/default"),
        (&["log-level"], "/v1/system/log-level"),
    ] {
        assert_eq!(shell.json(arguments), gateway.get(path).await, "{arguments:?}");
    }
    let document: Value = serde_json::from_str(&shell.run(&["openapi"]).1).unwrap();
    assert_eq!(document, gateway.get("/openapi.json").await);
}

#[tokio::test]
async fn types_and_replays_by_command() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, r#"{"type": "object", "required": ["n"]}"#).unwrap();
    let described = shell.json(&[
        "event-types",
        "put",
        "order.created",
        "--schema",
        schema.to_str().unwrap(),
        "--strict",
    ]);
    assert_eq!((&described["type"], &described["strict"]), (&json!("order.created"), &json!(true)));
    assert_eq!(shell.json(&["event-types", "get", "order.created"]), described);
    assert_eq!(shell.run(&["send", "order.created", "-d", "{}"]).0, 1, "the schema refuses it");
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    for n in 0..5 {
        let event_type = if n < 3 { "order.created" } else { "order.paid" };
        publish(&gateway, event_type, json!({ "n": n })).await;
    }
    endpoint.await_count(5).await;
    let since = "2026-01-01T00:00:00Z";
    let create = ["replays", "create", "mine", "--since", since, "--type", "order.created"];
    let dry: Vec<_> = create.iter().copied().chain(["--dry-run"]).collect();
    let counted = shell.json(&dry);
    assert_eq!(counted, json!({ "endpoint": "mine", "events": 3, "exact": true }));
    register(&gateway, &endpoint, json!({ "id": "paid", "event_types": ["order.paid"] })).await;
    let paid = ["replays", "create", "paid", "--since", since, "--dry-run"];
    let counted = shell.json(&paid);
    assert_eq!(counted["events"], 2, "what it does not ask for is not sent to it: {counted}");
    assert_eq!(gateway.get("replays").await["data"], json!([]), "nothing was sent");
    let replay = shell.json(&create);
    assert_eq!((&replay["status"], &replay["replayed"]), (&json!("finished"), &json!(3)));
    endpoint.await_count(8).await;
    let id = replay["id"].as_str().unwrap();
    assert_eq!(shell.json(&["replays", "get", id])["status"], "finished");
    assert_eq!(shell.json(&["replays", "cancel", id])["id"], id);
    let nobody = ["replays", "create", "nobody", "--since", since, "--dry-run"];
    assert_eq!(shell.run(&nobody).0, 4);
    assert_eq!(shell.run(&["event-types", "delete", "order.created"]).0, 0);
    assert_eq!(shell.run(&["event-types", "get", "order.created"]).0, 4);
}

#[tokio::test]
async fn what_goes_wrong_is_json_too_where_json_is_asked_for() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let nowhere = "http://127.0.0.1:1";
    for (arguments, exit, code) in [
        (&["--json", "endpoints", "get", "nobody"][..], 4, json!("endpoint_not_found")),
        (&["--json", "--key", "wrong", "endpoints", "list"], 3, json!("unauthenticated")),
        (&["--json", "--server", nowhere, "endpoints", "list"], 6, Value::Null),
        (&["--json", "send", "a.b", "-d", "@nobody.json"], 2, Value::Null),
    ] {
        let (exited, text, errors) = shell.run(arguments);
        assert_eq!((exited, text.as_str()), (exit, ""), "{arguments:?}: {errors}");
        let told: Value = serde_json::from_str(&errors).expect(&errors);
        assert_eq!((&told["exit_code"], &told["problem"]["code"]), (&json!(exit), &code), "{told}");
        assert!(told["error"].is_string() && told["causes"].is_array(), "{told}");
        assert_eq!(told["request_id"].is_string(), code != Value::Null, "{told}");
    }
    let (_, _, errors) = shell.run(&["send", "a.b", "-d", "@nobody.json"]);
    assert!(errors.starts_with("error: the data: nobody.json: "), "{errors}");
}

#[tokio::test]
async fn a_key_is_rotated_by_command() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let made = shell.json(&["keys", "create", "ci", "--scope", "read"]);
    let (id, old) = (made["id"].as_str().unwrap(), made["key"].as_str().unwrap());
    let opens = |key: &str| shell.run(&["--key", key, "endpoints", "list"]).0;
    let rotated = shell.json(&["keys", "rotate", id]);
    let new = rotated["key"].as_str().unwrap();
    assert_ne!(new, old);
    assert_eq!((rotated["id"].as_str(), opens(old), opens(new)), (Some(id), 0, 0));
    let last = shell.json(&["keys", "rotate", id, "--grace", "0s"]);
    assert_eq!((opens(new), opens(last["key"].as_str().unwrap())), (3, 0));
    assert_eq!(shell.run(&["keys", "rotate", "key_nobody"]).0, 4);
}

#[tokio::test]
async fn an_id_leads_to_nothing_else() {
    let (folder, gateway, endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    assert_eq!(shell.run(&["tenants", "put", "victim"]).0, 0);
    register(&gateway, &endpoint, json!({ "id": "mine" })).await;
    for arguments in [
        &["endpoints", "delete", "../../victim"][..],
        &["endpoints", "delete", "mine#f"],
        &["endpoints", "delete", "mine?x=1"],
        &["endpoints", "get", "../../../tenants"],
        &["endpoints", "get", "%2e%2e/endpoints/mine"],
        &["endpoints", "get", ".."],
        &["endpoints", "get", ""],
        &["keys", "revoke", "../endpoints/mine"],
        &["plugin", "delete", "../endpoints/mine"],
        &["tenants", "delete", "default/endpoints/mine"],
        &["tenants", "get", "."],
        &["events", "list", "--tenant", "default/events?x="],
    ] {
        assert_eq!(shell.run(arguments).0, 4, "{arguments:?}");
    }
    gateway.get("/v1/tenants/victim").await;
    gateway.get("endpoints/mine").await;
    for id in [".", ".."] {
        let event = json!({ "type": "a.b", "data": 1, "id": id });
        let (status, problem) = gateway.call(Method::POST, "events", Some(event)).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!("/id")));
        let wish = json!({ "url": endpoint.url, "id": id });
        assert_eq!(gateway.call(Method::POST, "endpoints", Some(wish)).await.0, 422);
    }
}

#[tokio::test]
async fn a_backup_that_fails_says_why_and_leaves_nothing() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    for (data, code) in [("data", 73), ("nothing", 74)] {
        let (told, _, errors) = shell.run(&["store", "backup", "backups", "--data-dir", data]);
        assert_eq!(told, code, "{errors}");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("backups")).unwrap().count(), 0);
}

#[tokio::test]
async fn people_are_told_how_many() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let (good, bad) = ("{\"type\":\"a.b\",\"data\":1}\n", "{\"type\":\"a..b\",\"data\":1}\n");
    for (lines, code, rejected) in [(good.to_owned(), 0, 0), (format!("{good}{bad}"), 7, 1)] {
        std::fs::write(folder.path().join("events.ndjson"), lines).unwrap();
        let (told, text, errors) = shell.run(&["send", "--ndjson", "events.ndjson"]);
        assert_eq!(told, code, "{errors}");
        assert!(text.contains(&format!("rejected   {rejected}\n")), "{text}");
        assert_eq!(errors.contains("line 2:"), rejected == 1, "{errors}");
    }
    for server in ["nonsense", "localhost:8080", "http://", "http://localhost/#"] {
        assert_eq!(shell.run(&["tenants", "list", "--server", server]).0, 2, "{server}");
    }
}

#[tokio::test]
async fn contexts_name_servers() {
    let (folder, gateway, _endpoint) = bench().await;
    let other = Gateway::start(&folder.path().join("other"));
    let shell = Shell { server: "", home: folder.path() };
    for (name, server) in [("one", &gateway.server), ("two", &other.server)] {
        let login = ["login", "--name", name, "--server", server, "--key", OPERATOR_KEY];
        assert_eq!(shell.run(&login).0, 0);
    }
    let listed = shell.json(&["context", "list"]);
    let told = members(&listed["data"][0]);
    assert_eq!(told, ["current", "name", "server", "tenant"], "and no key");
    assert_eq!(listed["data"][1]["current"], true, "the last login is used");
    publish(&gateway, "a.b", json!(1)).await;
    let events = |more: &[&str]| {
        let arguments: Vec<_> = ["events", "list"].iter().chain(more).copied().collect();
        shell.json(&arguments)["data"].as_array().unwrap().len()
    };
    assert_eq!((events(&[]), events(&["--context", "one"])), (0, 1));
    assert_eq!(shell.run(&["context", "use", "one"]).0, 0);
    assert_eq!(events(&[]), 1);
    assert_eq!(shell.run(&["context", "use", "three"]).0, 4);
    assert_eq!(shell.run(&["--context", "three", "events", "list"]).0, 2);
    assert_eq!(shell.run(&["context", "remove", "one"]).0, 0);
    assert_eq!(shell.json(&["context", "list"])["data"].as_array().unwrap().len(), 1);
    let kept = folder.path().join("hookgate/contexts.toml");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(kept).unwrap());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn the_doctor_names_what_is_wrong_and_what_to_do() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    let data = folder.path().join("new");
    let data = data.to_str().unwrap();
    let doctor =
        ["doctor", "--resolve", "localhost", "--listen", "127.0.0.1:0", "--data-dir", data];
    let told = shell.json(&doctor);
    assert_eq!(told["ok"], true, "{told}");
    let names: Vec<_> = told["checks"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    let expected = [
        "configuration",
        "port",
        "data directory",
        "master key",
        "disk space",
        "fsync",
        "clock",
        "DNS",
        "private addresses",
        "open files",
    ];
    assert_eq!(names, expected);
    for check in told["checks"].as_array().unwrap() {
        assert_eq!(members(check), ["found", "name", "remedy", "state"]);
        assert_eq!(check["remedy"].is_null(), check["state"] == "ok", "{check}");
    }
    assert!(!std::path::Path::new(data).exists(), "it changes nothing");
    let (file, keyless) = (folder.path().join("file"), folder.path().join("keyless"));
    std::fs::write(&file, "").unwrap();
    std::fs::create_dir_all(keyless.join("store")).unwrap();
    let (file, keyless) = (file.to_str().unwrap(), keyless.to_str().unwrap());
    let taken = gateway.server.trim_start_matches("http://");
    let exposed = ["doctor", "--json", "--listen", "0.0.0.0:0", "--allow-private-endpoints"];
    let bad = ["doctor", "--json", "--listen", "192.0.2.1:80"];
    for (arguments, code, name, state) in [
        (&["doctor", "--json", "--listen", taken][..], 0, "port", "warning"),
        (&exposed, 0, "private addresses", "warning"),
        (&bad, 1, "port", "failed"),
        (&["doctor", "--json", "--shards", "0"], 1, "configuration", "failed"),
        (&["doctor", "--json", "--data-dir", file], 1, "data directory", "failed"),
        (&["doctor", "--json", "--master-key", "00"], 1, "master key", "failed"),
        (&["doctor", "--json", "--data-dir", keyless], 1, "master key", "failed"),
    ] {
        let (ended, text, _) = shell.run(arguments);
        let told: Value = serde_json::from_str(&text).unwrap();
        let checks = told["checks"].as_array().unwrap();
        let check = checks.iter().find(|it| it["name"] == name).unwrap();
        assert_eq!((ended, &check["state"]), (code, &json!(state)), "{arguments:?} {told}");
    }
}

#[tokio::test]
async fn man_pages_completions_and_the_log_level() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    assert_eq!(shell.run(&["man", "--out", "man"]).0, 0);
    for page in ["hookgate.1", "hookgate-serve.1", "hookgate-replays-create.1"] {
        let text = std::fs::read_to_string(folder.path().join("man").join(page)).unwrap();
        assert!(text.contains(".TH"), "{page}");
    }
    assert!(shell.run(&["completions", "bash"]).1.contains("event-types"));
    let changed = shell.json(&["log-level", "info,hookgate=debug"]);
    assert_eq!(changed, json!({ "level": "info,hookgate=debug" }));
    for level in ["nonsense=nonsense=1", "wran", ""] {
        assert_eq!(shell.run(&["log-level", level]).0, 1, "{level}");
    }
    assert_eq!(shell.json(&["log-level"]), changed);
    let mut misspelt = shell.command(&["serve", "--data-dir", "never"]);
    assert_eq!(misspelt.env("HOOKGATE_LOG", "wran").status().unwrap().code(), Some(64));
}

/// The example configuration is one.
#[tokio::test]
async fn the_example_configuration_is_read() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let example = root.join("deploy/hookgate.toml");
    let folder = tempfile::tempdir().unwrap();
    let shell = Shell { server: "", home: folder.path() };
    let doctor = ["doctor", "--json", "--config", example.to_str().unwrap(), "--data-dir", "data"];
    let told: Value = serde_json::from_str(&shell.run(&doctor).1).unwrap();
    assert_eq!(told["checks"][0]["state"], "ok", "{told}");
    let broken = std::fs::read_to_string(example).unwrap().replace("listen", "liste");
    std::fs::write(folder.path().join("broken.toml"), broken).unwrap();
    let (code, text, _) = shell.run(&["doctor", "--config", "broken.toml"]);
    assert!(code == 1 && text.contains("liste"), "{text}");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_a_command_quietly() {
    let (folder, gateway, _) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    for arguments in [&["tenants", "list"][..], &["tenants", "list", "--json"]] {
        let mut command = shell.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // As `head` does when it has what it wants; here before anything came.
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.is_empty(), "{arguments:?}: {said}");
    }
}
