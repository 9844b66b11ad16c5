use std::time::Duration;

use hookgate_tests::{Gateway, TestEndpoint};
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::{sync::mpsc, task::JoinSet};

use crate::{bench, publish, register};

#[tokio::test]
async fn the_operator_sees_where_deliveries_may_go_and_changes_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hookgate.toml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    write("allow_private_endpoints = true\nallow_cidr = [\"10.20.0.0/16:8443\"]\n");
    let flags = ["--config", config.to_str().unwrap()];
    let gateway = Gateway::start_with(&folder.path().join("data"), &flags);
    let path = "/v1/system/egress-policy";
    let (status, policy) = gateway.call(Method::GET, path, None).await;
    assert_eq!((status, &policy["allow_cidr"]), (200, &json!(["10.20.0.0/16:8443"])));
    assert_eq!(policy["listener"], gateway.server.trim_start_matches("http://"));
    let networks = policy["denied_networks"].as_array().unwrap();
    assert!(networks.contains(&json!("169.254.0.0/16")), "{policy}");
    let body = json!({ "name": "mine", "scopes": ["manage"] });
    let key = gateway.post("keys", body).await["key"].as_str().unwrap().to_owned();
    let asked = gateway.request(Method::GET, path, &key).send().await.unwrap();
    assert_eq!(asked.status(), 403, "it is the operator's");

    let endpoint = TestEndpoint::start().await;
    register(&gateway, &endpoint, json!({ "retry": { "schedule": ["1h"] } })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&event, "delivered").await;
    write("allow_private_endpoints = true\ndeny_cidr = [\"127.0.0.0/8\"]\n");
    let pid = rustix::process::Pid::from_child(&gateway.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    for _ in 0..100 {
        let (_, policy) = gateway.call(Method::GET, path, None).await;
        if policy["deny_cidr"] == json!(["127.0.0.0/8"]) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let event = publish(&gateway, "a.b", json!(2)).await;
    let delivery = gateway.await_status(&event, "retrying").await;
    let attempts = format!("deliveries/{}/attempts", delivery["id"].as_str().unwrap());
    let attempts = gateway.get(&attempts).await;
    assert_eq!(attempts["data"][0]["outcome"], "blocked_address");
    let error = attempts["data"][0]["error"].as_str().unwrap();
    assert!(!error.contains("127."), "no address is told: {error}");
    assert_eq!(endpoint.got().len(), 1);
    // A mistake in the file changes nothing.
    write("nonsense\n");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (_, policy) = gateway.call(Method::GET, path, None).await;
    assert_eq!(policy["deny_cidr"], json!(["127.0.0.0/8"]));
}

#[tokio::test]
async fn the_gateway_is_no_endpoint_of_its_own() {
    let (_folder, gateway, _) = bench().await;
    let url = format!("{}/v1/tenants/default/events", gateway.server);
    let (status, problem) =
        gateway.call(Method::POST, "endpoints", Some(json!({ "url": url }))).await;
    assert_eq!((status, &problem["code"]), (422, &json!("url_blocked_address")));
}

#[tokio::test]
async fn headers_that_are_not_the_tenants_are_refused() {
    let (_folder, gateway, endpoint) = bench().await;
    for (name, value, fits) in [
        ("Host", "internal", false),
        ("Content-Length", "1", false),
        ("Transfer-Encoding", "chunked", false),
        ("Connection", "close", false),
        ("Expect", "100-continue", false),
        ("Content-Encoding", "gzip", false),
        ("Proxy-Authorization", "Basic eA==", false),
        ("Webhook-Signature", "v1,x", false),
        ("webhook-id", "x", false),
        ("X-Two", "a\r\nX-Three: b", false),
        ("X-Text", "caf\u{e9}", false),
        ("X Space", "a", false),
        ("", "a", false),
        ("Authorization", "Bearer it-is-mine", true),
    ] {
        let body = json!({ "url": endpoint.url, "headers": { name: value } });
        let (status, answer) = gateway.call(Method::POST, "endpoints", Some(body)).await;
        let code = answer["code"].as_str();
        let expected = if fits { (201, None) } else { (422, Some("header_not_allowed")) };
        assert_eq!((status, code), expected, "{name}: {value}");
    }
    for (signature, fits) in [
        (json!({ "scheme": "stripe", "header": "acme-signature" }), true),
        (json!({ "scheme": "stripe", "header": "host" }), false),
        (json!({ "scheme": "stripe", "with_v1": false }), false),
        (json!({ "scheme": "slack", "timestamp_header": "acme-time" }), true),
        (json!({ "scheme": "standard", "prefix": "svix" }), true),
        (json!({ "scheme": "standard", "prefix": "Svix-" }), false),
        (json!({ "scheme": "standard-ed25519", "with_v1": false }), true),
        (json!({ "scheme": "none" }), true),
        (json!({ "scheme": "md5" }), false),
    ] {
        let body = json!({ "url": endpoint.url, "signature": signature });
        let (status, answer) = gateway.call(Method::POST, "endpoints", Some(body)).await;
        assert_eq!(status, if fits { 201 } else { 422 }, "{signature}: {answer}");
        assert!(!fits || answer["signature"] == signature, "{answer}");
    }
}

#[tokio::test]
async fn each_scheme_shows_what_its_receiver_verifies_with() {
    let (_folder, gateway, endpoint) = bench().await;
    for (scheme, key, public) in [
        ("standard", true, false),
        ("standard-ed25519", true, true),
        ("stripe", true, false),
        ("none", false, false),
    ] {
        let with = json!({ "signature": { "scheme": scheme }, "event_types": [] });
        let id = register(&gateway, &endpoint, with).await;
        let secret = gateway.get(&format!("endpoints/{id}/secret")).await;
        assert_eq!((secret["key"].is_string(), secret["public_key"].is_string()), (key, public));
        assert!(!secret.to_string().contains("whsk_"), "the private key is nobody's to see");
        let tested = gateway.post(&format!("endpoints/{id}/test"), json!({})).await;
        assert_eq!(tested["outcome"], "delivered", "{scheme}");
        let got = endpoint.got().pop().unwrap();
        assert!(got.headers.contains_key("webhook-id"), "{scheme}");
        assert_eq!(got.headers.contains_key("webhook-signature"), scheme.starts_with("standard"));
        // From one scheme to another, and back: a receiver finds what it needs.
        for other in ["standard-ed25519", "shopify", scheme] {
            let patch = json!({ "signature": { "scheme": other } });
            let path = format!("endpoints/{id}");
            let (status, changed) = gateway.call(Method::PATCH, &path, Some(patch)).await;
            assert_eq!((status, &changed["signature"]["scheme"]), (200, &json!(other)));
            let tested = gateway.post(&format!("endpoints/{id}/test"), json!({})).await;
            assert_eq!(tested["outcome"], "delivered", "{other}");
        }
    }
}

/// A proxy that looks names up itself: `inside.example` is this machine, all else is denied. Tells
/// what it was asked for; it ends with `tasks`.
async fn proxy(tasks: &mut JoinSet<()>) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, asked) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut tunnels = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let told = told.clone();
            tunnels.spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let authority = head.split(' ').nth(1).unwrap().to_owned();
                told.send(head.lines().next().unwrap().to_owned()).unwrap();
                let Some(port) = authority.strip_prefix("inside.example:") else {
                    let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
                    return;
                };
                let mut onward =
                    TcpStream::connect(("127.0.0.1", port.parse().unwrap())).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
            });
        }
    });
    (address, asked)
}

#[tokio::test]
async fn a_trusted_proxy_looks_names_up_and_says_no() {
    let mut tasks = JoinSet::new();
    let (address, mut asked) = proxy(&mut tasks).await;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("hookgate.toml");
    let text = format!(
        "allow_private_endpoints = true\negress_proxy = \"http://{address}\"\n\
         egress_proxy_trusted = true\n"
    );
    std::fs::write(&config, text).unwrap();
    let flags = ["--config", config.to_str().unwrap()];
    let gateway = Gateway::start_with(&folder.path().join("data"), &flags);
    let endpoint = TestEndpoint::start().await;
    let port = endpoint.url.rsplit(':').next().unwrap().split('/').next().unwrap().to_owned();
    for host in ["inside.example", "outside.example"] {
        let url = format!("http://{host}:{port}/hooks");
        let body = json!({ "id": &host[..3], "url": url, "retry": { "schedule": ["1h"] } });
        let (status, made) = gateway.call(Method::POST, "endpoints", Some(body)).await;
        assert_eq!(status, 201, "{made}");
    }
    let event = publish(&gateway, "a.b", json!(1)).await;
    assert_eq!(endpoint.await_count(1).await[0].id, event, "through the tunnel");
    let mut lines = [asked.recv().await.unwrap(), asked.recv().await.unwrap()];
    lines.sort_unstable();
    let connect = |host: &str| format!("CONNECT {host}.example:{port} HTTP/1.1");
    assert_eq!(lines, [connect("inside"), connect("outside")], "by name");
    let mut refused = json!(null);
    for _ in 0..100 {
        let page = gateway.get("deliveries?endpoint=out&status=retrying").await;
        refused = page["data"][0]["id"].clone();
        if refused.is_string() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let path = format!("deliveries/{}/attempts", refused.as_str().unwrap());
    let attempts = gateway.get(&path).await;
    assert_eq!(attempts["data"][0]["outcome"], "blocked_address", "{attempts}");
}

#[tokio::test]
async fn proxies_of_the_environment_are_nobodys() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"];
    let environment = names.map(|it| (it, address.as_str()));
    let folder = tempfile::tempdir().unwrap();
    let flags = ["--allow-private-endpoints"];
    let gateway = Gateway::start_in(&folder.path().join("data"), &flags, &environment);
    let endpoint = TestEndpoint::start().await;
    register(&gateway, &endpoint, json!({})).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&event, "delivered").await;
    assert_eq!(endpoint.got().len(), 1);
    assert!(proxy.accept().is_err(), "nothing has come to the proxy");
}

#[tokio::test]
async fn what_waits_goes_where_its_endpoint_has_moved_to() {
    let (_folder, gateway, old) = bench().await;
    let new = TestEndpoint::start().await;
    old.answer(500);
    let retry = json!({ "schedule": ["1s"], "jitter": 0 });
    let id = register(&gateway, &old, json!({ "retry": retry })).await;
    let event = publish(&gateway, "a.b", json!(1)).await;
    gateway.await_status(&event, "retrying").await;
    let path = format!("endpoints/{id}");
    // Where it must not go it does not move to.
    let refused = Some(json!({ "url": "http://169.254.169.254/" }));
    let (status, problem) = gateway.call(Method::PATCH, &path, refused).await;
    assert_eq!((status, &problem["code"]), (422, &json!("url_blocked_address")));
    let moved = Some(json!({ "url": new.url }));
    assert_eq!(gateway.call(Method::PATCH, &path, moved).await.0, 200);
    gateway.await_status(&event, "delivered").await;
    assert_eq!((old.got().len(), new.got().len()), (1, 1));
    assert_eq!(new.got()[0].id, event);
}
