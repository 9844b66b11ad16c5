use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{Json, Router, extract::State, routing::post};
use hookgate_tests::{Gateway, OPERATOR_KEY, TestEndpoint};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{bench, register};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PRODUCER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector that keeps the spans it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Value>>>);

impl Collector {
    async fn start() -> (Self, String, JoinSet<std::io::Result<()>>) {
        let collector = Self::default();
        let take = async |State(it): State<Self>, Json(body): Json<Value>| {
            let resources = body["resourceSpans"].as_array().cloned().unwrap_or_default();
            for scope in resources.iter().flat_map(|it| it["scopeSpans"].as_array().unwrap()) {
                it.0.lock().unwrap().extend(scope["spans"].as_array().unwrap().iter().cloned());
            }
            Json(json!({}))
        };
        let router = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut served = JoinSet::new();
        served.spawn(async move { axum::serve(listener, router).await });
        (collector, url, served)
    }

    async fn await_span(&self, name: &str, endpoint: Option<&str>) -> Value {
        for _ in 0..400 {
            let found = self.0.lock().unwrap().iter().find_map(|it| {
                let of = fact(it, "hookgate.endpoint_id");
                (it["name"] == name && (endpoint.is_none() || of == endpoint)).then(|| it.clone())
            });
            if let Some(span) = found {
                return span;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("no span {name} {endpoint:?} among {:?}", self.0.lock().unwrap());
    }
}

fn fact<'a>(span: &'a Value, name: &str) -> Option<&'a str> {
    let mut facts = span["attributes"].as_array()?.iter();
    facts.find(|it| it["key"] == name)?["value"]["stringValue"].as_str()
}

async fn publish_traced(gateway: &Gateway, traceparent: &str) -> String {
    let request = gateway.request(Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
    let request = request.header("traceparent", traceparent).header("tracestate", "a=b");
    let request = request.header("baggage", "user=1");
    let answer = request.json(&json!({ "type": "a.b", "data": 1 })).send().await.unwrap();
    let answer: Value = answer.json().await.unwrap();
    answer["id"].as_str().unwrap().to_owned()
}

async fn told(endpoint: &TestEndpoint) -> Option<String> {
    let got = endpoint.await_count(1).await;
    for name in ["tracestate", "baggage"] {
        assert!(!got[0].headers.contains_key(name), "{name} went out");
    }
    got[0].headers.get("traceparent").map(|it| it.to_str().unwrap().to_owned())
}

#[tokio::test]
async fn endpoints_are_told_the_trace_that_they_may_know() {
    let (_folder, gateway, usual) = bench().await;
    let (propagate, off) = (TestEndpoint::start().await, TestEndpoint::start().await);
    register(&gateway, &usual, json!({})).await;
    register(&gateway, &propagate, json!({ "trace": "propagate" })).await;
    register(&gateway, &off, json!({ "trace": "off" })).await;
    let event = publish_traced(&gateway, PRODUCER).await;
    let shown = gateway.get(&format!("events/{event}")).await;
    assert_eq!(shown["trace_id"], TRACE);
    assert_eq!(told(&propagate).await.as_deref(), Some(PRODUCER));
    assert_eq!(told(&off).await, None);
    let new = told(&usual).await.unwrap();
    assert!(new.starts_with("00-") && new.ends_with("-00") && !new.contains(TRACE), "{new}");
    let refused = json!({ "url": usual.url, "trace": "some" });
    assert_eq!(gateway.call(Method::POST, "endpoints", Some(refused)).await.0, 422);
}

#[tokio::test]
async fn malformed_traces_are_ignored() {
    let (_folder, gateway, endpoint) = bench().await;
    register(&gateway, &endpoint, json!({ "trace": "propagate" })).await;
    let zero = PRODUCER.replace(TRACE, &"0".repeat(32));
    for bad in [zero.as_str(), "nonsense", "00-1-2-3"] {
        let event = publish_traced(&gateway, bad).await;
        assert_eq!(gateway.get(&format!("events/{event}")).await["trace_id"], Value::Null);
    }
    let got = endpoint.await_count(3).await;
    assert!(got.iter().all(|it| !it.headers.contains_key("traceparent")));
}

#[tokio::test]
async fn a_trace_outlives_a_restart() {
    let (folder, mut gateway, endpoint) = bench().await;
    endpoint.answer(500);
    let retry = json!({ "schedule": ["1h"] });
    let with = json!({ "trace": "propagate", "retry": retry });
    register(&gateway, &endpoint, with).await;
    let event = publish_traced(&gateway, PRODUCER).await;
    let delivery = gateway.await_status(&event, "retrying").await;
    gateway.kill();
    let gateway = Gateway::start(&folder.path().join("data"));
    endpoint.answer(200);
    let path = format!("deliveries/{}/retry", delivery["id"].as_str().unwrap());
    gateway.post(&path, json!({})).await;
    let got = endpoint.await_count(2).await;
    assert_eq!(got[1].headers["traceparent"], PRODUCER);
}

#[tokio::test]
async fn a_collector_gets_the_spans() {
    let (collector, url, _served) = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
    ];
    let flags = ["--allow-private-endpoints"];
    let gateway = Gateway::start_in(&folder.path().join("data"), &flags, &environment);
    let (usual, propagate) = (TestEndpoint::start().await, TestEndpoint::start().await);
    let usual_id = register(&gateway, &usual, json!({})).await;
    let propagate_id = register(&gateway, &propagate, json!({ "trace": "propagate" })).await;
    let event = publish_traced(&gateway, PRODUCER).await;
    let accept = collector.await_span("accept events", None).await;
    assert_eq!(
        (&accept["traceId"], &accept["parentSpanId"]),
        (&json!(TRACE), &json!("00f067aa0ba902b7"))
    );
    assert_eq!(fact(&accept, "hookgate.event_id"), Some(event.as_str()));
    let fan_out = collector.await_span("fan out", None).await;
    assert_eq!(fan_out["parentSpanId"], accept["spanId"]);
    // The producer's trace goes on at the endpoint that may know it.
    let attempt = collector.await_span("POST", Some(&propagate_id)).await;
    assert_eq!((&attempt["traceId"], &attempt["parentSpanId"]), (&json!(TRACE), &accept["spanId"]));
    let told_there = told(&propagate).await.unwrap();
    assert_eq!(told_there, format!("00-{TRACE}-{}-01", attempt["spanId"].as_str().unwrap()));
    // Elsewhere a new one begins, which names where it comes from.
    let attempt = collector.await_span("POST", Some(&usual_id)).await;
    assert_ne!(attempt["traceId"], TRACE);
    assert_eq!(attempt["links"][0]["traceId"], TRACE);
    let (trace, span) = (attempt["traceId"].as_str().unwrap(), attempt["spanId"].as_str().unwrap());
    assert_eq!(told(&usual).await.unwrap(), format!("00-{trace}-{span}-01"));
}

/// With everything logged, neither data nor a secret is; and each line tells whose it is.
#[tokio::test]
async fn logs_name_what_they_are_about_and_tell_no_secret() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--allow-private-endpoints", "--log-format", "json"];
    let gateway = Gateway::start_in(&data, &flags, &[]);
    let level = "/v1/system/log-level";
    assert!(gateway.get(level).await["level"].as_str().unwrap().starts_with("info"));
    for bad in [json!({ "level": "a=b=c" }), json!({ "level": 1 }), json!({})] {
        assert_eq!(gateway.call(Method::PUT, level, Some(bad)).await.0, 422);
    }
    let (status, now) = gateway.call(Method::PUT, level, Some(json!({ "level": "trace" }))).await;
    assert_eq!((status, &now["level"]), (200, &json!("trace")));
    let endpoint = TestEndpoint::start().await;
    let header = json!({ "x-secret": "planted-header" });
    let with = json!({ "id": "mine", "headers": header, "retry": { "schedule": ["1s"] } });
    register(&gateway, &endpoint, with).await;
    let secret = gateway.get("endpoints/mine/secret").await["key"].as_str().unwrap().to_owned();
    endpoint.answer(500);
    let event = crate::publish(&gateway, "a.b", json!({ "card": "planted-payload" })).await;
    gateway.await_status(&event, "dead").await;
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    for planted in ["planted-header", "planted-payload", &secret[6..], OPERATOR_KEY] {
        let line = log.lines().find(|it| it.contains(planted));
        assert!(line.is_none(), "{planted} is in the log: {line:?}");
    }
    let lines: Vec<Value> = log.lines().map(|it| serde_json::from_str(it).unwrap()).collect();
    let line = |message: &str| {
        let found = lines.iter().map(|it| &it["fields"]).find(|it| it["message"] == message);
        found.unwrap_or_else(|| panic!("no `{message}` in {log}"))
    };
    let attempt = line("an attempt ended");
    assert_eq!((&attempt["tenant"], &attempt["endpoint_id"]), (&json!("default"), &json!("mine")));
    assert_eq!(attempt["event_id"], event);
    assert!(attempt["delivery_id"].as_str().unwrap().starts_with("dlv_"));
    assert_eq!(line("a delivery became a dead letter")["event_id"], event);
    assert_eq!(line("an event was accepted")["event_id"], event);
    assert!(line("a request was answered")["request_id"].as_str().unwrap().starts_with("req_"));
}
