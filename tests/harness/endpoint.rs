use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Bytes, extract::State, routing::any};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinSet};

/// What an endpoint received.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its `webhook-id`.
    pub id: String,
    /// The path it came to.
    pub path: String,
    /// All its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Value,
    /// Its body, byte for byte.
    pub raw: Bytes,
}

/// Before the segment that is an endpoint's own.
const HOOKS: &str = "/hooks/";
static STARTED: AtomicU64 = AtomicU64::new(0);

/// A real HTTP server that answers as it is told and remembers what came.
pub struct TestEndpoint {
    /// Where it listens.
    pub url: String,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// The segment of its path that no other has.
    name: String,
    /// The next answers; then `otherwise`.
    script: Mutex<VecDeque<u16>>,
    otherwise: Mutex<u16>,
    /// What stands in each answer.
    says: Mutex<String>,
    /// What refusals say in `Retry-After`.
    wait: Mutex<Option<u32>>,
    got: Mutex<Vec<Delivery>>,
}

impl TestEndpoint {
    /// Starts one that answers 200.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let name = format!("{}-{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
        let at = listener.local_addr().expect("an address");
        let url = format!("http://{at}{HOOKS}{name}");
        let otherwise = Mutex::new(200);
        let shared = Arc::new(Shared { name, otherwise, ..Shared::default() });
        let router = Router::new().fallback(any(receive)).with_state(shared.clone());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { url, shared, _server: server }
    }

    /// Says this in each answer.
    pub fn say(&self, body: &str) {
        *lock(&self.shared.says) = body.to_owned();
    }

    /// Answers these first.
    pub fn answer_first(&self, script: impl IntoIterator<Item = u16>) {
        lock(&self.shared.script).extend(script);
    }

    /// Answers this from now on.
    pub fn answer(&self, status: u16) {
        *lock(&self.shared.otherwise) = status;
    }

    /// Says in `Retry-After` of each refusal that these seconds should pass.
    pub fn ask_to_wait(&self, seconds: u32) {
        *lock(&self.shared.wait) = Some(seconds);
    }

    /// Everything that came, in order.
    pub fn got(&self) -> Vec<Delivery> {
        lock(&self.shared.got).clone()
    }

    /// Waits until `count` requests have come.
    pub async fn await_count(&self, count: usize) -> Vec<Delivery> {
        for _ in 0..400 {
            let got = self.got();
            if got.len() >= count {
                return got;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{} requests came, {count} were expected", self.got().len());
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap, String) {
    // Of an endpoint that had this port before.
    let meant_for = uri.path().strip_prefix(HOOKS).and_then(|it| it.split('/').next());
    if meant_for.is_some_and(|it| it != shared.name) {
        return (StatusCode::NOT_FOUND, HeaderMap::new(), String::new());
    }
    let id = headers.get("webhook-id").and_then(|it| it.to_str().ok()).unwrap_or_default();
    let (raw, body) = (body.clone(), serde_json::from_slice(&body).unwrap_or_default());
    let (id, path) = (id.to_owned(), uri.path().to_owned());
    lock(&shared.got).push(Delivery { id, path, headers, body, raw });
    let status = lock(&shared.script).pop_front().unwrap_or(*lock(&shared.otherwise));
    let mut answer = HeaderMap::new();
    if (300..400).contains(&status) {
        answer.insert("location", "/elsewhere".parse().expect("a value"));
    }
    if let Some(seconds) = lock(&shared.wait).filter(|_| status >= 400) {
        answer.insert("retry-after", seconds.into());
    }
    let says = lock(&shared.says).clone();
    (StatusCode::from_u16(status).expect("a status"), answer, says)
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
