use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream::FuturesUnordered};
use http_body_util::Full;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::AbortHandle,
    time::{Instant, timeout},
};
use tokio_rustls::TlsConnector;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::world::client::budget::{Budget, Budgeted};
use crate::world::client::proxy::tunnel;
use crate::world::client::tls::classify;
use crate::world::egress::{Host, Proxy, Target};
use crate::world::{FailureClass, Timings};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a connection that was kept may take to be ready for another request.
const READY_PATIENCE: Duration = Duration::from_millis(50);
/// How long an address may take before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Servers close what was idle for some seconds.
pub(super) const RESTED: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// Why there is no answer: the class, and a sentence.
pub(super) type Failure = (FailureClass, String);

/// A connection that is ready for a request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) budget: Budget,
    pub(super) opened_at: Instant,
    /// Since when it has had nothing to do.
    pub(super) idle_since: Instant,
    /// The addresses that the target had when it was opened.
    pub(super) addresses: Vec<IpAddr>,
    driver: AbortHandle,
}

impl Connection {
    /// Whether it was idle for so long that the other side may be about to close it for that.
    pub(super) fn has_rested(&self) -> bool {
        self.idle_since.elapsed() >= RESTED
    }

    /// Itself, once it takes a request: a moment after its last answer was read, when its driver
    /// has seen that. `None` when it is closed, or has a request half written that nobody reads.
    pub(super) async fn when_ready(mut self) -> Option<Self> {
        let ready = timeout(READY_PATIENCE, self.sender.ready()).await;
        matches!(ready, Ok(Ok(()))).then_some(self)
    }
}

/// A peer that never reads would keep the driver, and the request's body, for ever.
impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Opens connections to addresses that were checked.
#[derive(Clone)]
pub(super) struct Connector {
    /// Owns the tasks that drive connections.
    pub(super) tasks: TaskTracker,
    pub(super) stopping: CancellationToken,
}

impl Connector {
    /// Connects by the way that was found.
    pub(super) async fn connect(
        &self,
        (target, tls): (&Target, Arc<rustls::ClientConfig>),
        way: &Way,
        timings: &mut Timings,
    ) -> Result<Connection, Failure> {
        let started = now();
        let slow = |_| (FailureClass::ConnectFailed, "no connection within 5 s".to_owned());
        let stream = timeout(CONNECT_PATIENCE, way.connect(target)).await.map_err(slow)??;
        timings.connect = Some(started.elapsed());
        if !target.tls {
            return self.handshake(stream, way.addresses.clone()).await;
        }
        let name = match &target.host {
            Host::Address(address) => ServerName::IpAddress((*address).into()),
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|it| (FailureClass::TlsHandshake, it.to_string()))?,
        };
        let started = now();
        let secured = TlsConnector::from(tls).connect(name, stream);
        let secured = timeout(CONNECT_PATIENCE, secured).await;
        let slow = |_| (FailureClass::TlsHandshake, "no handshake within 5 s".to_owned());
        let secured = secured.map_err(slow)?.map_err(|it| classify(&it))?;
        timings.tls = Some(started.elapsed());
        self.handshake(secured, way.addresses.clone()).await
    }

    async fn handshake<S>(&self, stream: S, addresses: Vec<IpAddr>) -> Result<Connection, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let budget = Budget::default();
        let stream = TokioIo::new(Budgeted { stream, budget: budget.clone() });
        let made = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(stream)
            .await;
        let (sender, connection) =
            made.map_err(|it| (FailureClass::ConnectionClosed, it.to_string()))?;
        let stopping = self.stopping.clone();
        let driver = self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stopping.cancelled() => {}
                // How it ended is told to whoever waits for an answer.
                _ = connection => {}
            }
        });
        let driver = driver.abort_handle();
        let opened_at = now();
        Ok(Connection { sender, budget, opened_at, idle_since: opened_at, addresses, driver })
    }
}

/// How a target is reached: by its own addresses, which were checked, or through a proxy.
#[derive(Debug, Clone)]
pub(super) struct Way {
    /// The target's addresses; none when a trusted proxy looks them up.
    pub(super) addresses: Vec<IpAddr>,
    /// The proxy and its addresses.
    pub(super) proxy: Option<(Proxy, Vec<IpAddr>)>,
}

impl Way {
    async fn connect(&self, target: &Target) -> Result<TcpStream, Failure> {
        let Some((proxy, addresses)) = &self.proxy else {
            return connect_any(&self.addresses, target.port).await;
        };
        let mut stream = connect_any(addresses, proxy.port)
            .await
            .map_err(|(class, why)| (class, format!("the egress proxy: {why}")))?;
        let authority = match (self.addresses.first(), &target.host) {
            (Some(address), _) | (None, Host::Address(address)) => {
                SocketAddr::new(*address, target.port).to_string()
            }
            (None, Host::Name(name)) => format!("{name}:{}", target.port),
        };
        tunnel(&mut stream, proxy, &authority).await?;
        Ok(stream)
    }
}

/// Connects to the address that answers first. The next one is tried when one has failed, or has
/// not answered within a quarter of a second
/// ([RFC 8305](https://www.rfc-editor.org/rfc/rfc8305#section-5)).
async fn connect_any(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Failure> {
    let mut last = (FailureClass::ConnectFailed, "no address".to_owned());
    let mut waiting = addresses.iter();
    let mut trying = FuturesUnordered::new();
    loop {
        if let Some(address) = waiting.next() {
            trying.push(connect_one(SocketAddr::new(*address, port)));
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some(tried) = trying.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(why) => last.1 = why,
            },
            () = tokio::time::sleep(HEAD_START), if more => {}
            else => return Err(last),
        }
    }
}

async fn connect_one(address: SocketAddr) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|it| it.to_string())?;
    if stream.peer_addr().ok() != Some(address) {
        return Err("connected to another address".to_owned());
    }
    // A request is one write; waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

pub(super) fn now() -> Instant {
    Instant::now()
}
