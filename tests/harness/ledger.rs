//! The books: what producers were promised, what receivers got, and what the gateway itself says.
//! [`Ledger::check`] compares the three.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::any};
use http::{HeaderMap, StatusCode, Uri};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinSet};

use crate::OPERATOR_KEY;

const PATIENCE: Duration = Duration::from_secs(60);

/// One request that a receiver got.
#[derive(Debug, Clone)]
struct Receipt {
    path: String,
    id: String,
    data: Value,
    accepted: bool,
}

/// Producers, receivers, and their books.
pub struct Ledger {
    /// Where the gateway is now; producers follow it.
    server: Arc<Mutex<String>>,
    shared: Arc<Shared>,
    /// Where the receivers listen.
    receivers: String,
    tasks: JoinSet<()>,
    http: reqwest::Client,
}

#[derive(Default)]
struct Shared {
    /// Everything a producer ever tried to publish: id to data.
    sent: Mutex<BTreeMap<String, Value>>,
    acknowledged: Mutex<BTreeSet<String>>,
    /// How often each status other than success was answered.
    refused: Mutex<BTreeMap<u16, u64>>,
    receipts: Mutex<Vec<Receipt>>,
    requests: AtomicU64,
    /// Of so many requests, one is refused; 0: none.
    refuse_one_of: AtomicU64,
    stopped: std::sync::atomic::AtomicBool,
}

/// What was found in the end.
#[derive(Debug, Clone, Copy)]
pub struct Balance {
    /// Events that were acknowledged.
    pub acknowledged: usize,
    /// Successful deliveries beyond the first.
    pub duplicates: usize,
}

impl Ledger {
    /// Opens the books with receivers that refuse one of so many requests (0: none).
    pub async fn open(refuse_one_of: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let receivers = format!("http://{}", listener.local_addr().expect("an address"));
        let shared = Arc::new(Shared::default());
        shared.refuse_one_of.store(refuse_one_of, Ordering::Relaxed);
        let router = Router::new().fallback(any(receive)).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        let http = reqwest::Client::new();
        Self { server: Arc::default(), shared, receivers, tasks, http }
    }

    /// The gateway is here now.
    pub fn at(&self, server: &str) {
        *lock(&self.server) = server.to_owned();
    }

    /// Registers the receivers: one without order, one strict, one by key.
    /// What is refused is tried again after `base`, at most 50 times.
    pub async fn register(&self, base: &str) {
        // It takes a filter to know that it wants none: so the writer leaves these to the fan-out,
        // and makes the deliveries of the others itself.
        let asked = json!({
            "id": "never", "url": format!("{}/never", self.receivers), "filter": "false",
            "event_types": ["load.asked"],
        });
        let (status, answer) = self.call(Method::POST, "endpoints", Some(asked)).await;
        assert_eq!(status, 201, "{answer}");
        for ordering in ["none", "strict", "key"] {
            let retry = json!({ "base": base, "factor": 1, "max_attempts": 50 });
            let url = format!("{}/{ordering}", self.receivers);
            let body = json!({ "id": ordering, "url": url, "ordering": ordering, "retry": retry });
            let (status, answer) = self.call(Method::POST, "endpoints", Some(body)).await;
            assert_eq!(status, 201, "{answer}");
        }
    }

    /// Starts producers that publish one event after the other until [`quiesce`](Self::quiesce);
    /// each repeats an event under its id until it is acknowledged. `pace` is waited for between.
    pub fn produce(&mut self, name: &str, producers: usize, (pace, bytes): (Duration, usize)) {
        for no in 0..producers {
            let (server, shared) = (self.server.clone(), self.shared.clone());
            let (name, http) = (format!("{name}-{no}"), reqwest::Client::new());
            self.tasks.spawn(produce(http, server, shared, name, (pace, bytes)));
        }
    }

    /// Events acknowledged so far.
    pub fn acknowledged(&self) -> usize {
        lock(&self.shared.acknowledged).len()
    }

    /// Which events were acknowledged so far.
    pub fn acknowledged_ids(&self) -> BTreeSet<String> {
        lock(&self.shared.acknowledged).clone()
    }

    /// How often each status was answered that was no success.
    pub fn refused(&self) -> BTreeMap<u16, u64> {
        lock(&self.shared.refused).clone()
    }

    /// Successful deliveries so far.
    pub fn deliveries(&self) -> usize {
        lock(&self.shared.receipts).iter().filter(|it| it.accepted).count()
    }

    /// From now on receivers refuse one of so many requests (0: none).
    pub fn refuse(&self, one_of: u64) {
        self.shared.refuse_one_of.store(one_of, Ordering::Relaxed);
    }

    /// Ends the producers, once each has its last acknowledgement, and waits until all
    /// deliveries are finished.
    pub async fn quiesce(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while self.tasks.len() > 1 {
            let ended = tokio::time::timeout_at(deadline, self.tasks.join_next()).await;
            ended.expect("producers get their last acknowledgement").expect("a task").expect("ok");
        }
        loop {
            let (_, metrics) = self.call(Method::GET, "/metrics", None).await;
            let text = metrics.as_str().unwrap_or_default();
            let mut pending =
                text.lines().filter(|it| it.starts_with("hookgate_deliveries_pending{"));
            if !text.is_empty() && pending.all(|it| it.ends_with(" 0")) {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "deliveries do not end: {text}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        // What was delivered last is noted a moment later.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    /// Compares the books; panics where they differ. `crashes` is how often the gateway died.
    pub async fn check(&self, crashes: usize) -> Balance {
        let sent = lock(&self.shared.sent).clone();
        let acknowledged = lock(&self.shared.acknowledged).clone();
        let receipts: Vec<_> =
            lock(&self.shared.receipts).iter().filter(|it| it.accepted).cloned().collect();
        let export = self.export().await;
        let mut order = BTreeMap::new();
        for (place, (id, data)) in export.iter().enumerate() {
            assert!(order.insert(id.clone(), place).is_none(), "{id} was stored twice");
            assert_eq!(sent.get(id), Some(data), "{id} was stored otherwise than it was sent");
        }
        for receipt in &receipts {
            assert_eq!(sent.get(&receipt.id), Some(&receipt.data), "{} was not sent", receipt.id);
            assert!(order.contains_key(&receipt.id), "{} is not in the store", receipt.id);
        }
        let lost: Vec<_> = acknowledged.iter().filter(|it| !order.contains_key(*it)).collect();
        assert!(lost.is_empty(), "{} are lost: {:?}", lost.len(), &lost[..lost.len().min(5)]);
        let mut duplicates = 0;
        for path in ["/none", "/strict", "/key"] {
            let got: Vec<_> = receipts.iter().filter(|it| it.path == path).collect();
            let mut first = BTreeSet::new();
            let firsts: Vec<_> = got.iter().filter(|it| first.insert(&it.id)).collect();
            duplicates += got.len() - firsts.len();
            let missing: Vec<_> = acknowledged.iter().filter(|it| !first.contains(it)).collect();
            let few = &missing[..missing.len().min(5)];
            assert!(missing.is_empty(), "{} were not delivered to {path}: {few:?}", missing.len());
            let mut last = BTreeMap::<&str, usize>::new();
            for receipt in firsts.iter().filter(|_| path != "/none") {
                let key = if path == "/key" { producer(&receipt.id) } else { "" };
                let place = order[&receipt.id];
                let before = last.insert(key, place);
                assert!(before.is_none_or(|it| it < place), "{} is out of order", receipt.id);
            }
        }
        if crashes == 0 {
            assert_eq!(duplicates, 0, "nothing comes twice without a crash");
        }
        Balance { acknowledged: acknowledged.len(), duplicates }
    }

    /// Everything the store has, in order of acceptance.
    pub async fn export(&self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("events?limit=250{cursor}");
            let (status, page) = self.call(Method::GET, &path, None).await;
            assert_eq!(status, 200, "{page}");
            for event in page["data"].as_array().expect("a list") {
                events.push((text(&event["id"]), event["data"].clone()));
            }
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        events.reverse();
        events
    }

    /// Calls the default tenant's API as the operator.
    pub async fn call(&self, method: Method, rest: &str, body: Option<Value>) -> (u16, Value) {
        let server = lock(&self.server).clone();
        let url = match rest.starts_with('/') {
            true => format!("{server}{rest}"),
            false => format!("{server}/v1/tenants/default/{rest}"),
        };
        let mut request = self.http.request(method, url).bearer_auth(OPERATOR_KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let Ok(response) = request.send().await else { return (0, Value::Null) };
        let status = response.status().as_u16();
        let text = response.text().await.unwrap_or_default();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }
}

async fn produce(
    http: reqwest::Client,
    server: Arc<Mutex<String>>,
    shared: Arc<Shared>,
    name: String,
    (pace, bytes): (Duration, usize),
) {
    let padding = "x".repeat(bytes);
    for n in 0_u64.. {
        if shared.stopped.load(Ordering::Relaxed) {
            return;
        }
        let id = format!("{name}-{n}");
        let data = json!({ "n": n, "padding": padding });
        lock(&shared.sent).insert(id.clone(), data.clone());
        let kind = if n % 8 == 0 { "load.asked" } else { "load.test" };
        let body = json!({ "id": id, "type": kind, "ordering_key": name, "data": data });
        loop {
            let url = format!("{}/v1/tenants/default/events", lock(&server));
            let request = http.post(&url).bearer_auth(OPERATOR_KEY).json(&body);
            let answer = request.timeout(Duration::from_secs(10)).send().await;
            match answer.map(|it| it.status()) {
                Ok(status) if status.is_success() => break,
                Ok(status) => {
                    assert!(matches!(status.as_u16(), 503 | 429), "{status} for {id}");
                    *lock(&shared.refused).entry(status.as_u16()).or_default() += 1;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        lock(&shared.acknowledged).insert(id);
        if !pace.is_zero() {
            tokio::time::sleep(pace).await;
        }
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let id = headers.get("webhook-id").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let request = shared.requests.fetch_add(1, Ordering::Relaxed) + 1;
    let one_of = shared.refuse_one_of.load(Ordering::Relaxed);
    let accepted = one_of == 0 || !request.is_multiple_of(one_of);
    let (id, path, data) = (id.to_owned(), uri.path().to_owned(), body["data"].clone());
    lock(&shared.receipts).push(Receipt { path, id, data, accepted });
    // Not 429 or 503: these would ask for less, and be given it.
    if accepted { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// The name of the producer in an event's id.
fn producer(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(name, _)| name)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
