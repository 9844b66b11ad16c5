//! The command line before servers of all kinds: whom it gives its key, and what it takes for done.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    process::Stdio,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::bench;
use crate::command_line::Shell;

/// A server that gives every request the same answer, or none, and keeps the requests' heads.
struct Stub {
    server: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Stub {
    fn start(answer: Option<String>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = heads.clone();
        std::thread::spawn(move || {
            // Who is not answered is kept waiting.
            let mut waiting = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = stream;
                kept.lock().unwrap().push(read_request(&mut stream));
                match &answer {
                    Some(answer) => drop(stream.write_all(answer.as_bytes())),
                    None => waiting.push(stream),
                }
            }
        });
        Self { server, heads }
    }

    fn answering(status: &str, media_type: &str, body: &str) -> Self {
        let length = body.len();
        Self::start(Some(format!(
            "HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\
             connection: close\r\n\r\n{body}"
        )))
    }

    /// The keys that came.
    fn keys(&self) -> Vec<String> {
        let heads = std::mem::take(&mut *self.heads.lock().unwrap());
        let line = |it: &str| it.strip_prefix("authorization: Bearer ").map(str::to_owned);
        heads.iter().map(|it| it.lines().find_map(line).unwrap_or_default()).collect()
    }
}

/// A request's head, after its body has come too.
fn read_request(stream: &mut TcpStream) -> String {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let chunked = head.contains("transfer-encoding: chunked");
            if !chunked || body.ends_with("0\r\n\r\n") {
                return head.to_owned();
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return text,
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
        }
    }
}

const LIST: [&str; 2] = ["endpoints", "list"];

fn page() -> Stub {
    Stub::answering("200 OK", "application/json", r#"{"data":[],"next_cursor":null}"#)
}

/// Contexts `own`, which is in use, and nobody else's.
fn keep(home: &std::path::Path, server: &str) {
    let text =
        format!("current = \"own\"\n[contexts.own]\nserver = \"{server}\"\nkey = \"KEPT\"\n");
    std::fs::create_dir_all(home.join("hookgate")).unwrap();
    std::fs::write(home.join("hookgate/contexts.toml"), text).unwrap();
}

#[test]
fn a_kept_key_is_given_to_its_own_server_alone() {
    let home = tempfile::tempdir().unwrap();
    let shell = Shell { server: "", home: home.path() };
    let (own, other) = (page(), page());
    keep(home.path(), &own.server);
    assert_eq!(shell.run(&LIST).0, 0);
    let same = format!("{}/", own.server);
    assert_eq!(shell.run(&["--server", &same, "endpoints", "list"]).0, 0);
    assert_eq!(own.keys(), ["KEPT", "KEPT"]);

    assert_eq!(shell.run(&["--server", &other.server, "endpoints", "list"]).0, 0);
    let named = ["--context", "own", "--server", &other.server, "endpoints", "list"];
    assert_eq!(shell.run(&named).0, 0);
    let told = shell.command(&LIST).env("HOOKGATE_SERVER", &other.server).output().unwrap();
    assert!(told.status.success());
    let given = ["--server", &other.server, "--key", "GIVEN", "endpoints", "list"];
    assert_eq!(shell.run(&given).0, 0);
    assert_eq!(other.keys(), ["", "", "", "GIVEN"], "the kept key stays here");

    let problem = r#"{"detail":"send a key","code":"unauthenticated"}"#;
    let closed = Stub::answering("401 Unauthorized", "application/problem+json", problem);
    let (code, _, errors) = shell.run(&["--server", &closed.server, "endpoints", "list"]);
    assert!(code == 3 && errors.contains(&format!("for {} alone", own.server)), "{errors}");
    assert_eq!(shell.run(&["login", "--server", &other.server]).0, 2, "there is no key to keep");
}

#[test]
fn a_context_that_is_named_wins_over_the_environment() {
    let home = tempfile::tempdir().unwrap();
    let shell = Shell { server: "", home: home.path() };
    let (own, other) = (page(), page());
    keep(home.path(), &own.server);
    let run = |arguments: &[&str], server: &str, key: &str| {
        let mut command = shell.command(arguments);
        let done = command.env("HOOKGATE_SERVER", server).env("HOOKGATE_KEY", key).output();
        done.unwrap().status.code()
    };
    for arguments in
        [["--context", "own", "endpoints", "list"], ["endpoints", "list", "--context", "own"]]
    {
        assert_eq!(run(&arguments, &other.server, "ENV"), Some(0));
    }
    assert_eq!(run(&LIST, "", ""), Some(0), "empty is not set");
    assert_eq!((own.keys(), other.keys().len()), (vec!["KEPT".to_owned(); 3], 0));
    assert_eq!(run(&LIST, &other.server, "ENV"), Some(0));
    assert_eq!((own.keys().len(), other.keys()), (0, vec!["ENV".to_owned()]));
    assert_eq!(run(&["--server", "", "endpoints", "list"], "", ""), Some(2));
}

#[test]
fn what_is_no_gateway_has_done_nothing() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::answering("200 OK", "text/html", "<p>hello</p>");
    let shell = Shell { server: &stub.server, home: home.path() };
    std::fs::write(home.path().join("events.ndjson"), "{\"type\":\"a.b\",\"data\":1}\n").unwrap();
    for arguments in [
        &["endpoints", "delete", "mine"][..],
        &["tenants", "delete", "shop"],
        &["plugin", "delete", "it"],
        &["send", "--ndjson", "events.ndjson"],
        &["events", "import", "events.ndjson"],
        &["events", "export"],
        &["tail"],
        &["plugin", "logs", "it", "--follow"],
        &LIST,
    ] {
        let (code, text, errors) = shell.run(arguments);
        assert_eq!((code, text.as_str()), (1, ""), "{arguments:?}: {errors}");
        assert!(errors.contains("gateway"), "{arguments:?}: {errors}");
    }
}

#[test]
fn what_takes_no_events_says_why() {
    let home = tempfile::tempdir().unwrap();
    let problem = r#"{"detail":"the disk is nearly full","code":"unavailable"}"#;
    let full = Stub::answering("503 Service Unavailable", "application/problem+json", problem);
    let shell = Shell { server: &full.server, home: home.path() };
    let (code, text, errors) = shell.run(&["ready"]);
    assert_eq!((code, text.as_str()), (6, ""), "{errors}");
    assert!(errors.contains("the disk is nearly full"), "{errors}");
}

#[test]
fn lines_without_an_answer_are_told() {
    let home = tempfile::tempdir().unwrap();
    let lines = "{\"type\":\"a.b\",\"data\":1}\n\n".repeat(3);
    std::fs::write(home.path().join("events.ndjson"), lines).unwrap();
    let answer = "{\"line\":1,\"status\":\"accepted\",\"id\":\"evt_1\"}\n";
    let short = Stub::answering("200 OK", "application/x-ndjson", answer);
    let broken = Stub::start(Some(format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n{:x}\r\n{answer}\r\n",
        answer.len()
    )));
    for (stub, code) in [(short, 1), (broken, 6)] {
        let shell = Shell { server: &stub.server, home: home.path() };
        let (ended, text, errors) = shell.run(&["--json", "send", "--ndjson", "events.ndjson"]);
        assert_eq!(ended, code, "{errors}");
        let told: Value = serde_json::from_str(&text).unwrap();
        let expected = json!({ "accepted": 1, "duplicate": 0, "rejected": [], "unanswered": 2 });
        assert_eq!(told, expected);
        assert!(errors.contains("line 1 was the last that was answered"), "{errors}");
    }
}

#[test]
fn a_server_that_says_nothing_is_left() {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(None);
    let shell = Shell { server: &stub.server, home: home.path() };
    for arguments in [&LIST[..], &["tail"], &["send", "a.b"], &["endpoints", "delete", "mine"]] {
        let arguments = [&["--timeout", "300ms"], arguments].concat();
        let (code, _, errors) = shell.run(&arguments);
        assert_eq!(code, 6, "{arguments:?}: {errors}");
        assert!(errors.contains("said nothing for 300ms"), "{arguments:?}: {errors}");
    }
    assert_eq!(shell.run(&["--timeout", "soon", "endpoints", "list"]).0, 2);
}

#[tokio::test]
async fn what_cannot_be_written_is_no_success() {
    let (folder, gateway, _endpoint) = bench().await;
    let shell = Shell { server: &gateway.server, home: folder.path() };
    crate::publish(&gateway, "a.b", json!(1)).await;
    for arguments in [
        &["tenants", "list"][..],
        &["tenants", "list", "--json"],
        &["events", "export"],
        &["send", "a.b"],
        &["completions", "bash"],
        &["openapi"],
        &["--help"],
        &["--version"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let done = shell.command(arguments).stdout(full).output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains("stdout: No space left"), "{arguments:?}: {errors}");
        assert!(!errors.contains("events\n"), "{arguments:?}: {errors}");
        // Whoever leaves, as `head` does, is told nothing.
        let mut command = shell.command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() && errors.is_empty(), "{arguments:?}: {errors}");
    }
}
