use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
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
use crate::world::client::tls::classify;
use crate::world::egress::{Host, Target};
use crate::world::{FailureClass, Timings};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
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
    driver: AbortHandle,
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
    /// Connects to the first address that answers.
    pub(super) async fn connect(
        &self,
        (target, tls): (&Target, Arc<rustls::ClientConfig>),
        addresses: &[IpAddr],
        timings: &mut Timings,
    ) -> Result<Connection, Failure> {
        let started = now();
        let stream = connect_any(addresses, target.port).await?;
        timings.connect = Some(started.elapsed());
        if !target.tls {
            return self.handshake(stream).await;
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
        self.handshake(secured).await
    }

    async fn handshake<S>(&self, stream: S) -> Result<Connection, Failure>
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
        Ok(Connection { sender, budget, opened_at: now(), driver })
    }
}

async fn connect_any(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Failure> {
    let mut last = (FailureClass::ConnectFailed, "no address".to_owned());
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match timeout(CONNECT_PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) if stream.peer_addr().is_ok_and(|it| it == address) => {
                // A request is one write; waiting for more would only delay it.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Ok(_)) => last.1 = "connected to another address".to_owned(),
            Ok(Err(error)) => last.1 = error.to_string(),
            Err(_) => last.1 = "no connection within 5 s".to_owned(),
        }
    }
    Err(last)
}

pub(super) fn now() -> Instant {
    Instant::now()
}
