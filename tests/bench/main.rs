//! What the gateway costs beside what the machine can do, measured in one run: the median of three
//! rounds each, and the ratio. `cargo bench --workspace --bench speed`.
#![expect(clippy::print_stdout, reason = "it prints what it measured")]
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on should say where")]
#![expect(clippy::disallowed_methods, reason = "real time is what is measured")]

mod bound;
mod load;
mod neighbours;
mod sending;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hookgate::{
    plugins::{Call, Compiler, Config, EventIn, Host},
    world::SystemEntropy,
};
use hookgate_tests::{Gateway, OPERATOR_KEY, TestEndpoint, plugin};
use load::{Figures, Load};
use serde_json::json;

const ROUNDS: usize = 3;
const SPAN: Duration = Duration::from_secs(4);

fn main() {
    // `-- sending` measures that part alone.
    if std::env::args().any(|it| it == "sending") {
        sending::cost();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(sending::tick());
    }
    // `-- neighbours` measures those alone.
    if std::env::args().any(|it| it == "neighbours") {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        return runtime.block_on(neighbours::all());
    }
    sending::cost();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sending::tick().await;
        ingest().await;
        end_to_end().await;
        plugin_calls().await;
        memory().await;
        neighbours::all().await;
    });
}

fn event() -> Bytes {
    let data = json!({ "text": "x".repeat(960), "n": 1 });
    json!({ "type": "bench.event", "data": data }).to_string().into()
}

async fn ingest() {
    println!("durable ingest, 1 KiB events: gateway beside a bare handler that appends and syncs");
    for producers in [1, 64, 256] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().unwrap();
            let bound = bound::Ingest::start(folder.path()).await;
            bare.push(Load::new(&bound.url, "", event()).run(producers, SPAN).await);
            let gateway = Gateway::start(&folder.path().join("data"));
            let url = format!("{}/v1/tenants/default/events", gateway.server);
            ours.push(Load::new(&url, OPERATOR_KEY, event()).run(producers, SPAN).await);
        }
        print(&format!("{producers:>3} producers"), &mut ours, &mut bare);
    }
}

async fn end_to_end() {
    println!("end to end, 1 KiB: accept, sync, sign, POST, record beside accept, sign, POST");
    for producers in [64, 256] {
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let folder = tempfile::tempdir().unwrap();
            let sink = TestEndpoint::counting().await;
            let bound = bound::EndToEnd::start(&sink.url).await;
            let started = Instant::now();
            let mut figures = Load::new(&bound.url, "", event()).run(producers, SPAN).await;
            sink.await_total(figures.answers).await;
            figures.per_second = figures.answers as f64 / started.elapsed().as_secs_f64();
            bare.push(figures);

            let sink = TestEndpoint::counting().await;
            let gateway = Gateway::start(&folder.path().join("data"));
            gateway.post("endpoints", json!({ "url": sink.url, "max_in_flight": 256 })).await;
            let url = format!("{}/v1/tenants/default/events", gateway.server);
            let started = Instant::now();
            let mut figures = Load::new(&url, OPERATOR_KEY, event()).run(producers, SPAN).await;
            sink.await_total(figures.answers).await;
            figures.per_second = figures.answers as f64 / started.elapsed().as_secs_f64();
            ours.push(figures);
        }
        print(&format!("{producers:>3} producers"), &mut ours, &mut bare);
    }
}

fn print(name: &str, ours: &mut [Figures], bare: &mut [Figures]) {
    let (ours, bare) = (Figures::median(ours), Figures::median(bare));
    println!(
        "  {name}: {:.0}/s (p50 {:?}, p99 {:?}); bound {:.0}/s (p50 {:?}, p99 {:?}); ratio {:.2}",
        ours.per_second,
        ours.p50,
        ours.p99,
        bare.per_second,
        bare.p50,
        bare.p99,
        ours.per_second / bare.per_second,
    );
}

async fn plugin_calls() {
    let cache = tempfile::tempdir().unwrap();
    let config = Config::new(cache.path().to_owned(), Compiler::InProcess);
    let host = Host::start(config, &SystemEntropy).unwrap();
    let data =
        json!({ "amount": 500, "card": { "number": "4242424242424242" }, "text": "x".repeat(900) });
    for (name, config) in
        [("amount-filter", ("minimum", "1")), ("redact", ("fields", "card.number"))]
    {
        let artifact = host.check(plugin::example(name).into()).await.unwrap();
        let mut durations = Vec::new();
        for _ in 0..5000 {
            let event = EventIn {
                id: "evt".into(),
                event_type: "bench.event".into(),
                timestamp_ms: 0,
                content_type: "application/json".into(),
                metadata: vec![],
                ordering_key: None,
                payload: data.to_string().into(),
            };
            let config = vec![(config.0.to_owned(), config.1.to_owned())];
            let (tenant, artifact) = ("one".into(), artifact.clone());
            let call = Call { tenant, artifact, config, question: event, limits: None };
            let called = host.call(call).await;
            called.verdict.unwrap();
            durations.push(called.duration);
        }
        durations.sort();
        println!("plugin {name}, a fresh instance: median {:?}", durations[durations.len() / 2]);
    }
}

async fn memory() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(&folder.path().join("data"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    println!("resident, idle: {} MiB", resident(gateway.child.id()));
    let retry = json!({ "schedule": ["1h"] });
    let body = json!({ "url": "http://127.0.0.1:49/", "max_in_flight": 1, "retry": retry, "ordering": "strict" });
    gateway.post("endpoints", body).await;
    let line = format!("{}\n", String::from_utf8_lossy(&event()));
    for _ in 0..10 {
        let request =
            gateway.request(reqwest::Method::POST, "/v1/tenants/default/events", OPERATOR_KEY);
        let body = line.repeat(10_000);
        let request = request.header("content-type", "application/x-ndjson").body(body);
        request.send().await.unwrap().text().await.unwrap();
    }
    println!("resident, 100,000 pending: {} MiB", resident(gateway.child.id()));
}

fn resident(pid: u32) -> u64 {
    resident_kib(pid) / 1024
}

pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|it| it.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
