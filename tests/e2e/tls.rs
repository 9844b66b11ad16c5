use hookgate_tests::{Authority, Gateway, Hostile, HostileEndpoint, Identity, TlsEndpoint};
use reqwest::Method;
use serde_json::{Value, json};

/// Registers it, sends a test, and gives the attempt.
async fn test(gateway: &Gateway, url: &str, tls: Value) -> Value {
    let body = json!({ "url": url, "timeout": "2s", "tls": tls });
    let made = gateway.post("endpoints", body).await;
    let path = format!("endpoints/{}/test", made["id"].as_str().unwrap());
    gateway.post(&path, json!({})).await
}

fn gateway() -> (tempfile::TempDir, Gateway) {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("data"));
    (folder, gateway)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_certificate_gets_no_byte_of_the_request() {
    let (_folder, gateway) = gateway();
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let between = ours.below("between");
    let incomplete = between.sign("localhost", 2040);
    let complete = Identity {
        certificate: format!("{}{}", incomplete.certificate, between.pem),
        ..incomplete.clone()
    };
    for (name, identity, outcome) in [
        ("good", ours.sign("localhost", 2040), "delivered"),
        ("complete chain", complete, "delivered"),
        ("incomplete chain", incomplete, "tls_untrusted"),
        ("expired", ours.sign("localhost", 2021), "tls_expired"),
        ("another name", ours.sign("shop.example.com", 2040), "tls_wrong_name"),
        ("another authority", other.sign("localhost", 2040), "tls_untrusted"),
    ] {
        let endpoint = TlsEndpoint::start(&identity, None).await;
        let attempt = test(&gateway, &endpoint.url, json!({ "ca": ours.pem })).await;
        assert_eq!(attempt["outcome"], outcome, "{name}: {attempt}");
        assert_eq!(endpoint.bytes() > 0, outcome == "delivered", "{name}");
    }
    let endpoint = TlsEndpoint::start(&ours.sign("localhost", 2040), None).await;
    let attempt = test(&gateway, &endpoint.url, Value::Null).await;
    assert_eq!(attempt["outcome"], "tls_untrusted", "the machine does not know our authority");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_tls_fails_as_a_handshake() {
    let (_folder, gateway) = gateway();
    // A hello of TLS 1.0 with a cipher of its time, and an alert about the name.
    let old = [&[0x16, 3, 1, 0, 42, 2, 0, 0, 38, 3, 1][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let alert = vec![0x15, 3, 3, 0, 2, 2, 112];
    for (name, bytes) in
        [("old", old), ("alert", alert), ("plain", b"HTTP/1.1 200 OK\r\n\r\n".to_vec())]
    {
        let endpoint = HostileEndpoint::greeting(bytes).await;
        let url = endpoint.url.replace("http://", "https://");
        let attempt = test(&gateway, &url, Value::Null).await;
        assert_eq!(attempt["outcome"], "tls_handshake", "{name}: {attempt}");
    }
    let silent = HostileEndpoint::start(Hostile::NeverAnswers).await;
    let attempt = test(&gateway, &silent.url.replace("http://", "https://"), Value::Null).await;
    assert_eq!(attempt["outcome"], "timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_opens_what_wants_one() {
    let (_folder, gateway) = gateway();
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let endpoint = TlsEndpoint::start(&servers.sign("localhost", 2040), Some(&clients)).await;
    let without = test(&gateway, &endpoint.url, json!({ "ca": servers.pem })).await;
    assert_ne!(without["outcome"], "delivered");
    let mine = clients.sign("gateway", 2040);
    let tls = json!({ "ca": servers.pem, "certificate": mine.certificate, "key": mine.key });
    let body = json!({ "id": "mutual", "url": endpoint.url, "tls": tls });
    let made = gateway.post("endpoints", body).await;
    assert_eq!(made["tls"], json!({ "ca": servers.pem, "certificate": mine.certificate }));
    let attempt = gateway.post("endpoints/mutual/test", json!({})).await;
    assert_eq!(attempt["outcome"], "delivered", "{attempt}");
    // Another change keeps the key, which nobody sees.
    let (status, patched) =
        gateway.call(Method::PATCH, "endpoints/mutual", Some(json!({ "timeout": "3s" }))).await;
    assert!(status == 200 && !patched.to_string().contains("PRIVATE KEY"), "{patched}");
    let attempt = gateway.post("endpoints/mutual/test", json!({})).await;
    assert_eq!(attempt["outcome"], "delivered", "{attempt}");
    let other = clients.sign("another", 2040);
    for (tls, pointer) in [
        (json!({ "certificate": other.certificate }), "/tls/key"),
        (json!({ "key": "nonsense" }), "/tls/key"),
        (json!({ "ca": "nonsense" }), "/tls/ca"),
        (json!({ "certificate": null }), "/tls/certificate"),
        (json!({ "cert": "misspelt" }), "/tls/cert"),
    ] {
        let patch = json!({ "tls": tls });
        let (status, problem) =
            gateway.call(Method::PATCH, "endpoints/mutual", Some(patch.clone())).await;
        assert_eq!((status, &problem["errors"][0]["pointer"]), (422, &json!(pointer)), "{patch}");
    }
    let (status, patched) =
        gateway.call(Method::PATCH, "endpoints/mutual", Some(json!({ "tls": null }))).await;
    assert_eq!((status, &patched["tls"]), (200, &Value::Null));
}
