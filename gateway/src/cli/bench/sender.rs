use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cpu_time::ProcessTime;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::{BodyExt, Full};
use serde::{Deserialize, Serialize};
use tokio::{task::JoinSet, time::Instant};
use url::{Position, Url};

use crate::cli::bench::event::Template;
use crate::cli::bench::load::connect;
use crate::domain::{Secret, Signature};
use crate::world::client::{Config, HttpTransport};
use crate::world::egress::EgressPolicy;
use crate::world::{Request, SystemClock, Transport};

const TIMEOUT: Duration = Duration::from_secs(15);
const ID: &str = "evt_01jd0000000000000000000000";

/// What is to be sent.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) posts: u64,
    pub(super) in_flight: usize,
    pub(super) size: usize,
}

/// What it cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sent {
    /// POSTs answered 200. Anything else ends the run.
    pub(super) posts: u64,
    pub(super) seconds: f64,
    /// Of the whole process, which does nothing else.
    pub(super) cpu_seconds: f64,
}

/// Sends, on one thread.
pub(super) fn run(url: &str, bare: bool, order: Order) -> Result<Sent> {
    let url: Url = url.parse()?;
    let work = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (before, started) = (ProcessTime::now(), Instant::now());
        runtime.block_on(send_all(url, bare, order.clone()))?;
        Ok(Sent {
            posts: order.posts,
            seconds: started.elapsed().as_secs_f64(),
            cpu_seconds: before.elapsed().as_secs_f64(),
        })
    };
    // Within the runtime that reads orders there cannot be another.
    let done = std::thread::spawn(work).join();
    done.unwrap_or_else(|_| bail!("the sender panicked"))
}

async fn send_all(url: Url, bare: bool, order: Order) -> Result<()> {
    let egress = EgressPolicy { allow_private: true, ..EgressPolicy::default() };
    // The default keeps none, and each POST would open a connection.
    let idle_max = 4 * order.in_flight;
    let transport = HttpTransport::start(Config { egress, idle_max, ..Config::default() })?;
    let transport: Arc<dyn Transport> = Arc::new(transport);
    let (left, body) = (Arc::new(AtomicU64::new(order.posts)), Template::new(order.size).at(1));
    let mut senders: JoinSet<Result<()>> = JoinSet::new();
    for _ in 0..order.in_flight {
        let (url, left, body) = (url.clone(), left.clone(), body.clone());
        match bare {
            true => senders.spawn(send_bare(url, body, left)),
            false => senders.spawn(send(transport.clone(), url.into(), body, left)),
        };
    }
    while let Some(ended) = senders.join_next().await {
        ended??;
    }
    Ok(())
}

async fn send(
    transport: Arc<dyn Transport>,
    url: String,
    body: Bytes,
    left: Arc<AtomicU64>,
) -> Result<()> {
    let secret = Secret::drawn([7; 32]);
    while take(&left) {
        let headers = signed(&secret, &body)?;
        let (url, body) = (url.clone(), body.clone());
        let request = Request { pool: 1, url, headers, body, timeout: TIMEOUT, tls: None };
        match transport.send(request).await.answer {
            Ok(answer) if answer.status.is_success() => {}
            other => bail!("the receiver: {other:?}"),
        }
    }
    Ok(())
}

async fn send_bare(url: Url, body: Bytes, left: Arc<AtomicU64>) -> Result<()> {
    let (mut drivers, host) = (JoinSet::new(), host_of(&url));
    let mut connection = connect(&host, &mut drivers).await?;
    let secret = Secret::drawn([7; 32]);
    while take(&left) {
        let mut request = http::Request::post(url.path()).body(Full::new(body.clone()))?;
        *request.headers_mut() = signed(&secret, &body)?;
        request.headers_mut().insert("host", HeaderValue::from_str(&host)?);
        connection.ready().await?;
        let response = connection.send_request(request).await?;
        if !response.status().is_success() {
            bail!("the receiver answered {}", response.status());
        }
        response.into_body().collect().await?;
    }
    Ok(())
}

/// The headers of a signed delivery.
pub(super) fn signed(secret: &Secret, body: &Bytes) -> Result<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert("user-agent", HeaderValue::from_static("hookgate/bench"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    let now = SystemClock::microseconds() / 1_000_000;
    for (name, value) in Signature::default().headers([secret], (ID, now), body) {
        let name: HeaderName = name.parse().context("a header's name")?;
        headers.insert(name, HeaderValue::from_str(&value)?);
    }
    Ok(headers)
}

/// Host and port, as they stand in the URL.
pub(super) fn host_of(url: &Url) -> String {
    url[Position::BeforeHost..Position::AfterPort].to_owned()
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |it| it.checked_sub(1)).is_ok()
}
