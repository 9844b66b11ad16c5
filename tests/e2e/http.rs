//! Clients that bend HTTP: what two readers could understand in two ways is refused, and nobody
//! keeps what others need.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::bench;
use hookgate_tests::{Gateway, OPERATOR_KEY};

const EVENT: &str = r#"{"type":"a.b","data":1}"#;

fn connect(gateway: &Gateway) -> TcpStream {
    let address = gateway.server.strip_prefix("http://").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    stream
}

/// The head of a request for taking an event in.
fn head(rest: &str) -> String {
    format!(
        "POST /v1/tenants/default/events HTTP/1.1\r\nauthorization: Bearer {OPERATOR_KEY}\r\n\
         content-type: application/json\r\n{rest}\r\n"
    )
}

/// All that comes, and whether the gateway closed.
fn read(stream: &mut TcpStream) -> (String, bool) {
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => return (String::from_utf8_lossy(&answer).into_owned(), true),
            Ok(count) => answer.extend_from_slice(&part[..count]),
            Err(_) => return (String::from_utf8_lossy(&answer).into_owned(), false),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (_folder, gateway, _) = bench().await;
    let chunked = format!("{:x}\r\n{EVENT}\r\n0\r\n\r\n", EVENT.len());
    for (name, rest) in [
        ("a coding that nobody undoes", "host: x\r\ntransfer-encoding: gzip, chunked\r\n"),
        ("two codings", "host: x\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n"),
        ("two hosts", "host: x\r\nhost: y\r\ntransfer-encoding: chunked\r\n"),
        ("no host", "transfer-encoding: chunked\r\n"),
        ("a length as well", "host: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n"),
        ("a length behind", "host: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
    ] {
        // Empty lines before a request are passed over (RFC 9112, 2.2).
        for before in ["", "\r\n\r\n"] {
            let mut stream = connect(&gateway);
            let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
            let sent = format!("{before}{}{chunked}{smuggled}", head(rest));
            stream.write_all(sent.as_bytes()).unwrap();
            let (answer, closed) = read(&mut stream);
            let answers = answer.matches("HTTP/1.1 ").count();
            assert_eq!((answers, closed), (1, true), "{name}: {answer}");
            let events = gateway.get("events").await;
            assert_eq!(events["data"], json!([]), "{name}: {answer}");
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
            assert!(answer.contains("\"ambiguous_request\""), "{name}: {answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_sent_everything_still_gets_the_answer() {
    let (_folder, gateway, _) = bench().await;
    for _ in 0..20 {
        let mut stream = connect(&gateway);
        let request = head(&format!("host: x\r\ncontent-length: {}\r\n", EVENT.len()));
        stream.write_all(format!("{request}{EVENT}").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let (answer, closed) = read(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 202 ") && closed, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheme_of_a_key_is_written_in_any_case() {
    let (_folder, gateway, _) = bench().await;
    for (scheme, expected) in [("bearer", 200), ("BEARER", 200), ("Basic", 401), ("Bearerx", 401)] {
        let mut stream = connect(&gateway);
        let request = format!(
            "GET /v1/tenants/default HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: {scheme} {OPERATOR_KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let (answer, _) = read(&mut stream);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected} ")), "{scheme}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_http_1_0_needs_no_host() {
    let (_folder, gateway, _) = bench().await;
    for (request, expected) in [
        ("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400 "),
        ("GET http://x/healthz HTTP/1.1\r\nconnection: close\r\n\r\n", "HTTP/1.1 400 "),
        ("GET /healthz HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n", "HTTP/1.1 200 "),
        ("GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200 "),
    ] {
        let mut stream = connect(&gateway);
        stream.write_all(request.as_bytes()).unwrap();
        let (answer, closed) = read(&mut stream);
        assert!(answer.starts_with(expected) && closed, "{request}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_first_need_not_send_what_is_too_large() {
    let (_folder, gateway, _) = bench().await;
    let mut stream = connect(&gateway);
    let large = "host: x\r\nexpect: 100-continue\r\ncontent-length: 20000000\r\n";
    stream.write_all(head(large).as_bytes()).unwrap();
    let (answer, closed) = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 413 ") && closed, "{answer}");
}

#[tokio::test]
async fn other_bodies_are_as_strict_as_events() {
    let (_folder, gateway, endpoint) = bench().await;
    let url = &endpoint.url;
    let deep = format!(r#"{{"url":"{url}","metadata":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    for (encoding, body, status, code) in [
        (
            "identity",
            format!(r#"{{"url":"{url}","url":"http://127.0.0.1:1234/"}}"#),
            422,
            "json_limits",
        ),
        (
            "identity",
            format!(r#"{{"url":"{url}","headers":{{"a":"1","a":"2"}}}}"#),
            422,
            "json_limits",
        ),
        ("identity", deep, 422, "json_limits"),
        ("identity", r#"{"url":""}"#.to_owned(), 422, "url_invalid"),
        ("identity", r#"{}"#.to_owned(), 422, "invalid_field"),
        ("gzip", format!(r#"{{"url":"{url}"}}"#), 415, "unsupported_encoding"),
    ] {
        let path = "/v1/tenants/default/endpoints";
        let request = gateway.request(Method::POST, path, OPERATOR_KEY).body(body.clone());
        let request = request.header("content-type", "application/json");
        let response = request.header("content-encoding", encoding).send().await.unwrap();
        let got = response.status().as_u16();
        let problem: Value = response.json().await.unwrap();
        assert_eq!((got, &problem["code"]), (status, &json!(code)), "{body}: {problem}");
    }
    assert_eq!(gateway.get("endpoints").await["data"], json!([]));
}

#[tokio::test]
async fn what_takes_no_body_ignores_none() {
    let (_folder, gateway, endpoint) = bench().await;
    let id = crate::register(&gateway, &endpoint, json!({})).await;
    let path = format!("/v1/tenants/default/endpoints/{id}/test");
    for (kind, body, status) in [
        ("application/json", "", 200),
        ("application/json", "{}", 200),
        ("application/json", " null\n", 200),
        ("application/x-www-form-urlencoded", "", 200),
        ("text/plain", " \r\n", 200),
        ("application/json", r#"{"type":"order.created"}"#, 400),
        ("application/json", "[]", 400),
        ("text/plain", "now", 400),
        ("application/json", &" ".repeat(100_000), 400),
    ] {
        let before = endpoint.got().len();
        let request = gateway.request(Method::POST, &path, OPERATOR_KEY);
        let request = request.header("content-type", kind).body(body.to_owned());
        let response = request.send().await.unwrap();
        let (got, answer) = (response.status().as_u16(), response.text().await.unwrap());
        assert_eq!(got, status, "{body:.40}: {answer}");
        assert_eq!(answer.contains("\"unexpected_body\""), status == 400, "{answer}");
        assert_eq!(endpoint.got().len() - before, usize::from(status == 200), "{body:.40}");
    }
    // In pieces, of a length that nobody told.
    let pieces = tokio_util::io::ReaderStream::with_capacity(&b"{}"[..], 1);
    let request = gateway.request(Method::POST, &path, OPERATOR_KEY);
    let response = request.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

/// Open files of the gateway's process, connections included.
#[cfg(target_os = "linux")]
fn files(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.child.id())).unwrap().count()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_and_reads_no_answer_is_shown_out() {
    const READERS: usize = 10;
    let (_folder, gateway, _) = bench().await;
    let asked = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let before = files(&gateway);
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut stream = connect(&gateway);
        stream.write_all(asked.as_bytes()).unwrap();
        readers.push(stream);
    }
    let started = tokio::time::Instant::now();
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert!(files(&gateway) >= before + READERS, "whoever reads slowly is waited for");
    while files(&gateway) >= before + READERS {
        assert!(started.elapsed() < Duration::from_secs(75), "they are there for ever");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    drop(readers);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_bodies_at_once_have_a_bound() {
    const SENDERS: usize = 60;
    const MIB: usize = 1024 * 1024;
    let (_folder, gateway, _) = bench().await;
    let head = head(&format!("host: x\r\ncontent-length: {}\r\n", 16 * MIB));
    // All but the last byte, so that nobody is done.
    let body = vec![b' '; 16 * MIB - 1];
    let mut senders = Vec::new();
    for _ in 0..SENDERS {
        let mut stream = connect(&gateway);
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // Some are not listened to: there is no memory for what they say.
        let _ = stream.write_all(&body);
        senders.push(stream);
    }
    gateway.post("events", json!({ "type": "a.b", "data": 1 })).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.child.id())).unwrap();
    let peak = status.lines().find_map(|it| it.strip_prefix("VmHWM:")).unwrap();
    let peak = peak.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024;
    assert!(peak < 700, "{SENDERS} bodies of 16 MiB: peak {peak} MiB");
    let refused = senders.iter_mut().filter_map(|it| {
        it.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        read(it).0.contains("overloaded").then_some(())
    });
    assert!(refused.count() > 0, "who gets no room is told so");
    drop(senders);
    let large = json!({ "type": "a.b", "data": "x".repeat(MIB / 2) });
    until(&gateway, large).await;
}

/// Sends an event until it is taken.
async fn until(gateway: &Gateway, event: Value) {
    let started = tokio::time::Instant::now();
    while gateway.call(Method::POST, "events", Some(event.clone())).await.0 != 202 {
        assert!(started.elapsed() < Duration::from_secs(30), "there is never room again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
