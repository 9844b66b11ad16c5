use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

/// Requests of one kind, made over and over.
#[derive(Clone)]
pub(crate) struct Load {
    host: String,
    path: String,
    key: String,
    body: Bytes,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Figures {
    pub(crate) answers: u64,
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Figures {
    /// The round with the median throughput.
    pub(crate) fn median(rounds: &mut [Self]) -> Self {
        rounds.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
        rounds[rounds.len() / 2].clone()
    }
}

impl Load {
    pub(crate) fn new(url: &str, key: &str, body: Bytes) -> Self {
        let url: url::Url = url.parse().unwrap();
        let host = url[url::Position::BeforeHost..url::Position::AfterPort].to_owned();
        Self { host, path: url.path().to_owned(), key: key.to_owned(), body }
    }

    /// So many producers, each with a connection of its own that waits for each answer.
    pub(crate) async fn run(&self, producers: usize, span: Duration) -> Figures {
        let (mut running, started) = (JoinSet::new(), Instant::now());
        for _ in 0..producers {
            running.spawn(self.clone().produce(started + span));
        }
        let mut latencies = Vec::new();
        while let Some(of_one) = running.join_next().await {
            latencies.extend(of_one.unwrap());
        }
        let per_second = latencies.len() as f64 / started.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
        Figures { answers: latencies.len() as u64, per_second, p50: at(0.5), p99: at(0.99) }
    }

    async fn produce(self, until: Instant) -> Vec<Duration> {
        let stream = TcpStream::connect(&self.host).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let mut latencies = Vec::new();
        while Instant::now() < until {
            let request = http::Request::post(&self.path)
                .header("host", &self.host)
                .header("authorization", format!("Bearer {}", self.key))
                .header("content-type", "application/json")
                .body(Full::new(self.body.clone()))
                .unwrap();
            let started = Instant::now();
            let response = sender.send_request(request).await.unwrap();
            assert!(response.status().is_success(), "{}", response.status());
            response.into_body().collect().await.unwrap();
            latencies.push(started.elapsed());
        }
        latencies
    }
}
