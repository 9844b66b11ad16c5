//! Noisy neighbours: what a tenant at a steady pace sees of others who flood, hang, come back,
//! retry, or send large events. Latency from publishing to receiving, with and without them, in
//! one run.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::any};
use hookgate_tests::{Gateway, OPERATOR_KEY};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

const SPAN: Duration = Duration::from_secs(6);
const EVERY: Duration = Duration::from_millis(10);

/// A receiver that tells how long events were under way, and answers as it is told.
struct Sink {
    url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

struct Shared {
    started: Instant,
    status: AtomicUsize,
    count: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Sink {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            started: Instant::now(),
            status: AtomicUsize::new(status.into()),
            count: AtomicU64::new(0),
            latencies: Mutex::default(),
        });
        let router = Router::new().fallback(any(receive)).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, _server: server }
    }

    fn answer(&self, status: u16) {
        self.shared.status.store(status.into(), Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.shared.count.load(Ordering::Relaxed)
    }
}

async fn receive(State(shared): State<Arc<Shared>>, body: Bytes) -> StatusCode {
    shared.count.fetch_add(1, Ordering::Relaxed);
    if body.len() < 4096
        && let Ok(event) = serde_json::from_slice::<Value>(&body)
        && let Some(sent) = event["data"]["sent_us"].as_u64()
    {
        let under_way = shared.started.elapsed().saturating_sub(Duration::from_micros(sent));
        shared.latencies.lock().unwrap().push(under_way);
    }
    StatusCode::from_u16(shared.status.load(Ordering::Relaxed) as u16).unwrap()
}

/// A port that accepts and never answers.
async fn black_hole(tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks", listener.local_addr().unwrap());
    tasks.spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    url
}

struct Bench {
    gateway: Gateway,
    victim: Sink,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(&folder.path().join("data"));
        let bench = Self { gateway, victim: Sink::start(200).await, _folder: folder };
        bench.tenant("victim").await;
        bench.endpoint("victim", json!({ "url": bench.victim.url })).await;
        bench
    }

    async fn tenant(&self, name: &str) {
        let path = format!("/v1/tenants/{name}");
        let (status, answer) =
            self.gateway.call(Method::PUT, &path, Some(json!({ "name": name }))).await;
        assert!(status < 300, "{answer}");
    }

    async fn endpoint(&self, tenant: &str, body: Value) {
        let path = format!("/v1/tenants/{tenant}/endpoints");
        self.gateway.post(&path, body).await;
    }

    /// Publishes many events for a tenant, as lines.
    async fn flood(&self, tenant: &str, events: usize, bytes: usize) {
        let line = json!({ "type": "noise.made", "data": { "text": "x".repeat(bytes) } });
        let path = format!("/v1/tenants/{tenant}/events");
        let request = self.gateway.request(Method::POST, &path, OPERATOR_KEY);
        let body = format!("{line}\n").repeat(events);
        let request = request.header("content-type", "application/x-ndjson").body(body);
        request.send().await.unwrap().text().await.unwrap();
    }

    /// What the victim sees while it publishes at its pace: p50, p99, and how many came.
    async fn look(&self) -> (Duration, Duration, usize) {
        let shared = &self.victim.shared;
        shared.latencies.lock().unwrap().clear();
        let begun = Instant::now();
        let (mut sending, mut sent) = (JoinSet::new(), 0);
        while begun.elapsed() < SPAN {
            let now = shared.started.elapsed().as_micros() as u64;
            let body = json!({ "type": "victim.event", "data": { "sent_us": now } });
            let request =
                self.gateway.request(Method::POST, "/v1/tenants/victim/events", OPERATOR_KEY);
            let request = request.json(&body);
            sending.spawn(async move { drop(request.send().await.unwrap()) });
            sent += 1;
            tokio::time::sleep(EVERY).await;
        }
        while sending.join_next().await.is_some() {}
        let patience = Instant::now();
        while shared.latencies.lock().unwrap().len() < sent
            && patience.elapsed() < Duration::from_secs(20)
        {
            tokio::time::sleep(EVERY).await;
        }
        let mut all = shared.latencies.lock().unwrap().clone();
        all.sort_unstable();
        let at = |share: f64| all[((all.len() - 1) as f64 * share) as usize];
        (at(0.5), at(0.99), all.len())
    }
}

fn print(name: &str, before: (Duration, Duration, usize), beside: (Duration, Duration, usize)) {
    let bound = before.1 * 2 + Duration::from_millis(250);
    println!(
        "  {name}: alone p50 {:?}, p99 {:?}; beside it p50 {:?}, p99 {:?} of {}; {} 2 x + 250 ms",
        before.0,
        before.1,
        beside.0,
        beside.1,
        beside.2,
        if beside.1 <= bound { "within" } else { "OVER" },
    );
}

/// All five, one gateway each.
pub(crate) async fn all() {
    println!("neighbours: a victim's 100 events/s, publish to receive, alone and beside others");
    hot_tenant().await;
    hanging_endpoints().await;
    recovery().await;
    retry_flood().await;
    large_events().await;
    many_retries().await;
}

async fn hot_tenant() {
    let bench = Bench::start().await;
    let sink = Sink::start(200).await;
    bench.tenant("hot").await;
    for _ in 0..20 {
        bench.endpoint("hot", json!({ "url": sink.url })).await;
    }
    let before = bench.look().await;
    let flood = async {
        for _ in 0..40 {
            bench.flood("hot", 500, 200).await;
        }
    };
    let beside = tokio::select! {
        beside = bench.look() => beside,
        () = async { flood.await; std::future::pending().await } => unreachable!(),
    };
    print("N1, a tenant with twenty endpoints floods", before, beside);
    println!("    the hot tenant got {} deliveries meanwhile", sink.count());
}

async fn hanging_endpoints() {
    let bench = Bench::start().await;
    let mut tasks = JoinSet::new();
    let hole = black_hole(&mut tasks).await;
    bench.tenant("hanging").await;
    for _ in 0..40 {
        bench.endpoint("hanging", json!({ "url": hole })).await;
    }
    let before = bench.look().await;
    bench.flood("hanging", 2000, 200).await;
    let beside = bench.look().await;
    print("N2, forty endpoints hang with 80,000 deliveries", before, beside);
}

async fn recovery() {
    let bench = Bench::start().await;
    let sink = Sink::start(503).await;
    bench.tenant("back").await;
    for _ in 0..1000 {
        let retry = json!({ "base": "1s", "factor": 1, "max_attempts": 50 });
        bench.endpoint("back", json!({ "url": sink.url, "retry": retry })).await;
    }
    let before = bench.look().await;
    bench.flood("back", 100, 200).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    sink.answer(200);
    let refused = sink.count();
    let beside = bench.look().await;
    print("N3, 1,000 endpoints with 100,000 deliveries come back", before, beside);
    println!("    refused before {refused}, received since {}", sink.count() - refused);
}

async fn retry_flood() {
    let bench = Bench::start().await;
    let sink = Sink::start(200).await;
    let retry = json!({ "base": "1s", "factor": 1, "max_attempts": 50, "jitter": 0 });
    // It takes half, so that its breaker stays closed.
    for _ in 0..10 {
        bench.endpoint("victim", json!({ "url": sink.url, "retry": retry })).await;
    }
    let before = bench.look().await;
    let turning = async {
        for n in 0_u16.. {
            sink.answer(if n % 2 == 0 { 500 } else { 200 });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let beside = async {
        bench.flood("victim", 1000, 200).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        bench.look().await
    };
    let beside = tokio::select! {
        beside = beside => beside,
        () = turning => unreachable!(),
    };
    print("N4, the victim's own other endpoints retry", before, beside);
}

async fn large_events() {
    let bench = Bench::start().await;
    let sink = Sink::start(200).await;
    bench.tenant("large").await;
    bench.endpoint("large", json!({ "url": sink.url })).await;
    let before = bench.look().await;
    let flood = async {
        for _ in 0..60 {
            bench.flood("large", 8, 256 * 1024).await;
        }
    };
    let beside = tokio::select! {
        beside = bench.look() => beside,
        () = async { flood.await; std::future::pending().await } => unreachable!(),
    };
    print("N5, a tenant sends 256 KiB events only", before, beside);
    println!("    the other tenant got {} deliveries meanwhile", sink.count());
}

async fn many_retries() {
    const ENDPOINTS: usize = 20_000;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Arc::new(Gateway::start(&folder.path().join("data")));
    let sink = Sink::start(500).await;
    for tenant in 0..4 {
        let path = format!("/v1/tenants/t{tenant}");
        gateway.call(Method::PUT, &path, Some(json!({ "name": "t" }))).await;
        let mut creating = JoinSet::new();
        for worker in 0..32 {
            let (gateway, url) = (gateway.clone(), sink.url.clone());
            creating.spawn(async move {
                for _ in (worker..ENDPOINTS / 4).step_by(32) {
                    let path = format!("/v1/tenants/t{tenant}/endpoints");
                    let retry = json!({ "schedule": ["1h"] });
                    gateway.post(&path, json!({ "url": url, "retry": retry })).await;
                }
            });
        }
        while creating.join_next().await.is_some() {}
    }
    let before = crate::resident_kib(gateway.child.id());
    for tenant in 0..4 {
        let event = json!({ "type": "a.b", "data": 1 });
        gateway.post(&format!("/v1/tenants/t{tenant}/events"), event).await;
    }
    let begun = Instant::now();
    while sink.count() < ENDPOINTS as u64 && begun.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    tokio::time::sleep(Duration::from_secs(12)).await;
    let after = crate::resident_kib(gateway.child.id());
    println!(
        "  {} endpoints with a retry each: {:.2} KiB resident for each, beyond {} MiB without",
        sink.count(),
        after.saturating_sub(before) as f64 / ENDPOINTS as f64,
        before / 1024,
    );
}
