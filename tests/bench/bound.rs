//! What the machine can do without a gateway.

use std::{fs::File, io::Write, path::Path, sync::Arc};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use hookgate::domain::{Secret, Signature};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
};

type Appending = (Bytes, oneshot::Sender<()>);

async fn serve(router: Router, tasks: &mut JoinSet<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/events", listener.local_addr().unwrap());
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

/// A handler that parses, appends to a file, and answers when a shared sync is done.
pub(crate) struct Ingest {
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

impl Ingest {
    pub(crate) async fn start(folder: &Path) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Appending>(4096);
        let mut file = File::create(folder.join("bound")).unwrap();
        std::thread::spawn(move || {
            while let Some(first) = receiver.blocking_recv() {
                let mut batch = vec![first];
                while let Ok(next) = receiver.try_recv() {
                    batch.push(next);
                }
                let bytes: Vec<u8> =
                    batch.iter().flat_map(|(body, _)| body.iter().copied()).collect();
                file.write_all(&bytes).unwrap();
                file.sync_data().unwrap();
                for (_, done) in batch {
                    done.send(()).unwrap();
                }
            }
        });
        let router = Router::new().route("/events", post(append)).with_state(sender);
        let mut tasks = JoinSet::new();
        Self { url: serve(router, &mut tasks).await, _tasks: tasks }
    }
}

async fn append(State(sender): State<mpsc::Sender<Appending>>, body: Bytes) -> StatusCode {
    let _: &serde_json::value::RawValue = serde_json::from_slice(&body).unwrap();
    let (done, wait) = oneshot::channel();
    sender.send((body, done)).await.unwrap();
    wait.await.unwrap();
    StatusCode::ACCEPTED
}

/// Accepts, signs and sends, all in memory.
pub(crate) struct EndToEnd {
    pub(crate) url: String,
    _tasks: JoinSet<()>,
}

const SENDERS: usize = 64;

impl EndToEnd {
    pub(crate) async fn start(sink: &str) -> Self {
        let (sender, receiver) = mpsc::channel::<Bytes>(1 << 20);
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let mut tasks = JoinSet::new();
        for _ in 0..SENDERS {
            tasks.spawn(send(receiver.clone(), sink.to_owned()));
        }
        let accept = async |State(sender): State<mpsc::Sender<Bytes>>, body: Bytes| {
            let _: &serde_json::value::RawValue = serde_json::from_slice(&body).unwrap();
            sender.send(body).await.unwrap();
            StatusCode::ACCEPTED
        };
        let router = Router::new().route("/events", post(accept)).with_state(sender);
        Self { url: serve(router, &mut tasks).await, _tasks: tasks }
    }
}

async fn send(receiver: Arc<tokio::sync::Mutex<mpsc::Receiver<Bytes>>>, sink: String) {
    let url: url::Url = sink.parse().unwrap();
    let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
    let stream = TcpStream::connect(&host).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let (scheme, secret) = (Signature::default(), Secret::drawn([7; 32]));
    loop {
        let Some(body) = receiver.lock().await.recv().await else { return };
        let mut signed = scheme.headers([&secret], ("evt_1", 1_800_000_000), &body);
        let (_, signature) = signed.pop().unwrap();
        let request = http::Request::post(url.path())
            .header("host", &host)
            .header("content-type", "application/json")
            .header("webhook-id", "evt_1")
            .header("webhook-timestamp", "1800000000")
            .header("webhook-signature", signature)
            .body(Full::new(body))
            .unwrap();
        sender.ready().await.unwrap();
        let response = sender.send_request(request).await.unwrap();
        http_body_util::BodyExt::collect(response.into_body()).await.unwrap();
    }
}
