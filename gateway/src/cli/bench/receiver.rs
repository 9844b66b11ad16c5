use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::app::listen;
use crate::cli::bench::event::sent_us;
use crate::cli::bench::figures::{Latencies, Quantiles};
use crate::world::SystemClock;

/// What a receiver does with what comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Mood {
    /// Answers this.
    Answer(u16),
    /// Answers 500 and 200 in turns.
    InTurns,
    /// Never answers.
    Hang,
    /// Sends interim answers without end.
    Interim,
}

/// What a receiver is told.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Order {
    /// Tell what came.
    Tell,
    /// Forget what came.
    Forget,
    /// Be like this from now on; between answering and not answering there is no way.
    Be(Mood),
}

/// What came.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Received {
    /// Requests, or interim answers sent.
    pub(super) count: u64,
    /// Those that were answered 200.
    pub(super) taken: u64,
    /// When the last came, in microseconds since 1970.
    pub(super) last_us: u64,
    /// From the producer's sending to here.
    pub(super) arrival: Quantiles,
}

/// A receiver on a free port of loopback.
pub(super) struct Receiver {
    pub(super) url: String,
    shared: Arc<Shared>,
}

struct Shared {
    mood: Mutex<Mood>,
    count: AtomicU64,
    taken: AtomicU64,
    last_us: AtomicU64,
    latencies: Mutex<Latencies>,
}

impl Receiver {
    pub(super) async fn start(mood: Mood, tasks: &mut JoinSet<()>) -> Result<Self> {
        let listener = listen(([127, 0, 0, 1], 0).into())?;
        let url = format!("http://{}/hooks", listener.local_addr()?);
        let shared = Arc::new(Shared {
            mood: Mutex::new(mood),
            count: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
            latencies: Mutex::default(),
        });
        tasks.spawn(accept(listener, shared.clone()));
        Ok(Self { url, shared })
    }

    /// Does as it is told, and tells what came.
    pub(super) fn obey(&self, order: Order) -> Received {
        let Shared { mood, count, taken, last_us, latencies } = &*self.shared;
        match order {
            Order::Tell => {}
            Order::Be(it) => *lock(mood) = it,
            Order::Forget => {
                *lock(latencies) = Latencies::default();
                for it in [count, taken, last_us] {
                    it.store(0, Ordering::Relaxed);
                }
            }
        }
        Received {
            count: count.load(Ordering::Relaxed),
            taken: taken.load(Ordering::Relaxed),
            last_us: last_us.load(Ordering::Relaxed),
            arrival: lock(latencies).quantiles(),
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors: some will be free again.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(stream, shared.clone()));
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // How a connection ends is the other side's business.
    let _ = stream.set_nodelay(true);
    let mood = *lock(&shared.mood);
    match mood {
        Mood::Answer(_) | Mood::InTurns => {
            let service = service_fn(|it| answer(it, shared.clone()));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
        Mood::Hang => std::future::pending().await,
        Mood::Interim => {
            let _ = interim(stream, &shared).await;
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    shared: Arc<Shared>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = match request.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Ok(Response::default()),
    };
    let count = shared.count.fetch_add(1, Ordering::Relaxed);
    let status = match *lock(&shared.mood) {
        Mood::Answer(status) => StatusCode::from_u16(status).unwrap_or_default(),
        Mood::InTurns if count.is_multiple_of(2) => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    if status.is_success() {
        shared.taken.fetch_add(1, Ordering::Relaxed);
    }
    let now = SystemClock::microseconds();
    if let Some(sent) = sent_us(&body) {
        lock(&shared.latencies).record(Duration::from_micros(now.saturating_sub(sent)));
    }
    shared.last_us.fetch_max(now, Ordering::Relaxed);
    let mut response = Response::default();
    *response.status_mut() = status;
    Ok(response)
}

async fn interim(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    // Any part of the request will do.
    let _ = stream.read(&mut [0; 4096]).await?;
    loop {
        stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").await?;
        shared.count.fetch_add(1, Ordering::Relaxed);
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}
