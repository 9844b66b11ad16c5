use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use url::{Position, Url};

use crate::cli::bench::event::Template;
use crate::cli::bench::figures::{Latencies, Quantiles};
use crate::world::SystemClock;

/// A connection that carries one request after the other.
pub(super) type Connection = SendRequest<Full<bytes::Bytes>>;

/// What is to be produced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    /// Where events are POSTed.
    pub(super) url: String,
    pub(super) key: String,
    /// Each with a connection of its own that waits for each answer.
    pub(super) producers: usize,
    /// Bytes of an event.
    pub(super) size: usize,
    /// It is over after so many events,
    pub(super) events: u64,
    /// or after so many seconds.
    pub(super) seconds: f64,
    /// Events a second, of all producers together; `None`: as fast as answers come.
    pub(super) pace: Option<f64>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Produced {
    /// Acknowledged events. Anything else ends the run.
    pub(super) accepted: u64,
    /// When the first was sent, in microseconds since 1970.
    pub(super) started_us: u64,
    /// From then to the last answer.
    pub(super) seconds: f64,
    /// From a request to its answer.
    pub(super) ack: Quantiles,
}

struct Shared {
    order: Order,
    template: Template,
    path: String,
    host: String,
    next: AtomicU64,
    started: Instant,
}

/// Produces.
pub(super) async fn run(order: Order) -> Result<Produced> {
    let url: Url = order.url.parse()?;
    let host = url[Position::BeforeHost..Position::AfterPort].to_owned();
    let mut connections = Vec::new();
    let mut drivers = JoinSet::new();
    for _ in 0..order.producers {
        connections.push(connect(&host, &mut drivers).await?);
    }
    let started_us = SystemClock::microseconds();
    let shared = Arc::new(Shared {
        template: Template::new(order.size),
        path: url.path().to_owned(),
        host,
        next: AtomicU64::new(0),
        started: Instant::now(),
        order,
    });
    let mut producing = JoinSet::new();
    for connection in connections {
        producing.spawn(produce(shared.clone(), connection));
    }
    let (mut latencies, mut accepted) = (Latencies::default(), 0);
    while let Some(produced) = producing.join_next().await {
        let (of_one, count) = produced??;
        latencies.add(&of_one);
        accepted += count;
    }
    let seconds = shared.started.elapsed().as_secs_f64();
    Ok(Produced { accepted, started_us, seconds, ack: latencies.quantiles() })
}

/// A connection to `host`, driven in the background.
pub(super) async fn connect(host: &str, drivers: &mut JoinSet<()>) -> Result<Connection> {
    let stream = TcpStream::connect(host).await.with_context(|| host.to_owned())?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    drivers.spawn(async move {
        // Its end is seen where it is used.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn produce(shared: Arc<Shared>, mut connection: Connection) -> Result<(Latencies, u64)> {
    let Shared { order, started, .. } = &*shared;
    let until = *started + Duration::from_secs_f64(order.seconds);
    let (mut latencies, mut accepted) = (Latencies::default(), 0);
    loop {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let due = order.pace.map(|it| *started + Duration::from_secs_f64(number as f64 / it));
        if number >= order.events || due.unwrap_or_else(Instant::now) >= until {
            return Ok((latencies, accepted));
        }
        if let Some(due) = due {
            tokio::time::sleep_until(due).await;
        }
        let request = http::Request::post(&shared.path)
            .header("host", &shared.host)
            .header("authorization", format!("Bearer {}", order.key))
            .header("content-type", "application/json")
            .body(Full::new(shared.template.at(SystemClock::microseconds())))?;
        let sent = Instant::now();
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{} answered {status}: {}", order.url, String::from_utf8_lossy(&body));
        }
        latencies.record(sent.elapsed());
        accepted += 1;
    }
}
