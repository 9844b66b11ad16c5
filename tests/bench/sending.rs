//! What it costs to sign and send, and who notices the worst receivers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use hookgate::{
    app::{App, Config, FileConfig},
    domain::{Secret, Signature},
    plugins::Compiler,
    world::{
        Request, Transport,
        client::{self, HttpTransport},
        egress::EgressPolicy,
    },
};
use hookgate_tests::{Hostile, HostileEndpoint, OPERATOR_KEY, TestEndpoint};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;
use tokio::{net::TcpStream, runtime::Runtime, task::JoinSet};
use url::Url;

const ROUNDS: usize = 5;
const POSTS: usize = 20_000;
const SENDERS: usize = 64;
const SECRET: [u8; 32] = [7; 32];
const ID: &str = "evt_01jd0000000000000000000000";

/// CPU time of 10,000 signed POSTs by our connector, beside a bare client that signs and sends.
/// Each runs alone on a thread, whose time is what is told; the receiver has threads of its own.
pub(crate) fn cost() {
    let receiver = one_thread();
    let sink = receiver.block_on(TestEndpoint::counting());
    let url: Url = sink.url.parse().unwrap();
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(on_a_thread(send_bare(url.clone())));
        ours.push(on_a_thread(send(url.clone())));
    }
    ours.sort_by(f64::total_cmp);
    bare.sort_by(f64::total_cmp);
    let (ours, bare) = (ours[ROUNDS / 2], bare[ROUNDS / 2]);
    println!(
        "sign and send, 1 KiB: {ours:.3} CPU-seconds for 10,000 POSTs; bare hyper {bare:.3}; \
         ratio {:.2}",
        ours / bare
    );
}

fn one_thread() -> Runtime {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().unwrap()
}

/// CPU-seconds of this thread for 10,000 of the POSTs that `work` makes.
fn on_a_thread(work: impl Future<Output = ()> + Send + 'static) -> f64 {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let before = thread_seconds();
        runtime.block_on(work);
        (thread_seconds() - before) * 10_000.0 / POSTS as f64
    };
    std::thread::spawn(run).join().unwrap()
}

fn thread_seconds() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn body() -> Bytes {
    Bytes::from(json!({ "text": "x".repeat(1000) }).to_string())
}

fn signed(secret: &Secret, body: &Bytes) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert("user-agent", HeaderValue::from_static("hookgate/bench"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in Signature::default().headers([secret], (ID, 1_800_000_000), body) {
        let name: HeaderName = name.parse().unwrap();
        headers.insert(name, HeaderValue::from_str(&value).unwrap());
    }
    headers
}

async fn send(url: Url) {
    let egress = EgressPolicy { allow_private: true, ..EgressPolicy::default() };
    let transport = HttpTransport::start(client::Config { egress, ..Default::default() }).unwrap();
    let (transport, left) = (Arc::new(transport), Arc::new(AtomicUsize::new(POSTS)));
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (transport, left, url) = (transport.clone(), left.clone(), url.clone());
        senders.spawn(async move {
            let (secret, body) = (Secret::drawn(SECRET), body());
            while take(&left) {
                let (headers, timeout) = (signed(&secret, &body), Duration::from_secs(15));
                let (url, body) = (url.clone(), body.clone());
                let request = Request { pool: 1, url, headers, body, timeout, tls: None };
                let sent = transport.send(request).await;
                assert!(sent.answer.unwrap().status.is_success());
            }
        });
    }
    senders.join_all().await;
}

async fn send_bare(url: Url) {
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    let left = Arc::new(AtomicUsize::new(POSTS));
    let mut senders = JoinSet::new();
    for _ in 0..SENDERS {
        let (left, url, host) = (left.clone(), url.clone(), host.clone());
        senders.spawn(async move {
            let stream = TcpStream::connect(&host).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
            let (mut sender, connection) = handshake.unwrap();
            let mut driver = JoinSet::new();
            driver.spawn(connection);
            let (secret, body) = (Secret::drawn(SECRET), body());
            while take(&left) {
                let mut request = http::Request::post(url.path()).body(Full::new(body.clone()));
                let headers = request.as_mut().unwrap().headers_mut();
                *headers = signed(&secret, &body);
                headers.insert("host", HeaderValue::from_str(&host).unwrap());
                sender.ready().await.unwrap();
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert!(response.status().is_success());
                response.into_body().collect().await.unwrap();
            }
        });
    }
    senders.join_all().await;
}

fn take(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1)).is_ok()
}

/// How late a tick of 5 ms is on the accepting side, alone and while endpoints send interim
/// answers without end. The receivers run on a runtime of their own.
pub(crate) async fn tick() {
    let receivers = one_thread();
    let mut endless = Vec::new();
    for _ in 0..8 {
        let started = receivers.spawn(HostileEndpoint::start(Hostile::EndlessInterim));
        endless.push(started.await.unwrap());
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = FileConfig {
        data_dir: Some(folder.path().join("data")),
        listen: Some(([127, 0, 0, 1], 0).into()),
        operator_key: Some(OPERATOR_KEY.to_owned()),
        allow_private_endpoints: Some(true),
        ..FileConfig::default()
    };
    let app = App::start(Config::new(settings, Compiler::InProcess).unwrap()).await.unwrap();
    let alone = latest_tick(Duration::from_secs(3)).await;
    let base = format!("http://{}/v1/tenants/default", app.address());
    let http = reqwest::Client::new();
    let post = async |path: &str, body: serde_json::Value| {
        let request = http.post(format!("{base}/{path}")).bearer_auth(OPERATOR_KEY).json(&body);
        assert!(request.send().await.unwrap().status().is_success());
    };
    let retry = json!({ "base": "1ms", "factor": 1, "max_attempts": 50, "jitter": 0 });
    for endpoint in &endless {
        post("endpoints", json!({ "url": endpoint.url, "retry": retry })).await;
    }
    for _ in 0..100 {
        post("events", json!({ "type": "bench.event", "data": 1 })).await;
    }
    let beside = latest_tick(Duration::from_secs(5)).await;
    let requests: u64 = endless.iter().map(HostileEndpoint::requests).sum();
    println!(
        "5 ms tick on the accepting side: at most {alone:?} late alone, {beside:?} beside endless \
         interim answers ({requests} of them)"
    );
    app.stop().await;
    receivers.shutdown_background();
}

async fn latest_tick(span: Duration) -> Duration {
    let (started, mut latest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < span {
        let slept = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
        latest = latest.max(slept.elapsed().saturating_sub(Duration::from_millis(5)));
    }
    latest
}
