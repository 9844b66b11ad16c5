use std::{
    fmt,
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
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
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use crate::world::client::budget::{Budget, Budgeted};
use crate::world::client::proxy::tunnel;
use crate::world::client::tls::classify;
use crate::world::egress::{Host, Proxy, Target};
use crate::world::{Alarm, FailureClass, Timings};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long an address may take before the next is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Servers close what was idle for some seconds.
pub(super) const RESTED: Duration = Duration::from_secs(1);
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 64;

/// Why there is no answer: the class, and a sentence.
pub(super) type Failure = (FailureClass, String);

/// A connection that is ready for a request. Nobody drives it but who uses it
/// ([`drive`](Self::drive)): a task of its own would be woken, and would wake its user, several
/// times a request.
pub(super) struct Connection {
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) budget: Budget,
    pub(super) opened_at: Instant,
    /// Since when it has had nothing to do.
    pub(super) idle_since: Instant,
    /// The addresses that the target had when it was opened.
    pub(super) addresses: Vec<IpAddr>,
    driver: Driver,
    alarm: Alarm,
}

/// Reads and writes what its connection has to; `None` once that has ended.
type Driver = Option<Pin<Box<dyn Future<Output = ()> + Send>>>;

impl Connection {
    /// Whether it was idle for so long that the other side may be about to close it for that.
    pub(super) fn has_rested(&self, now: Instant) -> bool {
        now - self.idle_since >= RESTED
    }

    /// Whether it takes a request now: it is open, as far as its socket has told, its last answer
    /// was read and its last request is written.
    pub(super) fn is_at_rest(&mut self) -> bool {
        advance(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.sender.is_ready()
    }

    /// Whether it comes to rest by then: it does not when it is closed, or its last request is not
    /// read.
    pub(super) async fn comes_to_rest(&mut self, deadline: Instant) -> bool {
        let ready = pin!(self.sender.ready());
        timeout_at(deadline, drive(&mut self.driver, ready)).await.is_ok_and(|it| it.is_ok())
    }

    /// Waits for `work` that needs the connection to go on, until `deadline`.
    pub(super) fn drive_until<T>(
        &mut self,
        deadline: Instant,
        work: impl Future<Output = T> + Unpin,
    ) -> impl Future<Output = Option<T>> {
        self.alarm.by(deadline, drive(&mut self.driver, work))
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

fn drive<T>(
    driver: &mut Driver,
    mut work: impl Future<Output = T> + Unpin,
) -> impl Future<Output = T> {
    poll_fn(move |context| {
        advance(driver, context);
        Pin::new(&mut work).poll(context)
    })
}

/// Lets a connection read and write as much as it can now.
fn advance(driver: &mut Driver, context: &mut Context<'_>) {
    if let Some(connection) = driver
        && connection.as_mut().poll(context) == Poll::Ready(())
    {
        *driver = None;
    }
}

impl Connection {
    /// Connects by the way that was found, to addresses that were checked.
    pub(super) async fn open(
        (target, tls): (&Target, Arc<rustls::ClientConfig>),
        way: &Way,
        timings: &mut Timings,
    ) -> Result<Self, Failure> {
        let started = now();
        let slow = |_| (FailureClass::ConnectFailed, "no connection within 5 s".to_owned());
        let stream = timeout(CONNECT_PATIENCE, way.connect(target)).await.map_err(slow)??;
        timings.connect = Some(started.elapsed());
        if !target.tls {
            return Self::handshake(stream, way.addresses.clone()).await;
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
        Self::handshake(secured, way.addresses.clone()).await
    }

    async fn handshake<S>(stream: S, addresses: Vec<IpAddr>) -> Result<Self, Failure>
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
        // How it ended is told to whoever waits for an answer.
        let driver: Driver = Some(Box::pin(async { drop(connection.await) }));
        let opened_at = now();
        let (idle_since, alarm) = (opened_at, Alarm::default());
        Ok(Self { sender, budget, opened_at, idle_since, addresses, driver, alarm })
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
