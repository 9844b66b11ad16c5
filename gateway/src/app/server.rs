use std::{convert::Infallible, io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use axum::body::Body;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, FramedTwice};
use crate::app::descriptors::files_max;
use crate::app::head_timer::HeadTimer;
use crate::app::watched::Watched;

/// How long a client may take for the head of a request.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// How long a client may take nothing of what it is sent.
#[cfg(target_os = "linux")]
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// Connections at once, if the process may have twice as many files open; more are refused.
const CONNECTIONS_MAX: usize = 16_384;
/// Connections that wait to be accepted. Where they do not fit, the kernel drops the other side's
/// first packet without a word, and it tries again a second later: many come at once.
const BACKLOG: u32 = 4096;
/// Refusals at once, if the process may have eight times as many files open; more wait in the
/// listener's queue, where a client that only holds connections must not keep others for long.
const REFUSALS_MAX: usize = 256;
const REFUSAL_PATIENCE: Duration = Duration::from_millis(250);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
    connection: close\r\ncontent-type: application/problem+json\r\ncontent-length: 139\r\n\r\n\
    {\"type\":\"urn:hookgate:problem:unavailable\",\"title\":\"Service Unavailable\",\
    \"status\":503,\"detail\":\"too many connections\",\"code\":\"unavailable\"}";
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\n\
    connection: close\r\ncontent-type: application/problem+json\r\ncontent-length: 167\r\n\r\n\
    {\"type\":\"urn:hookgate:problem:head_too_slow\",\"title\":\"Request Timeout\",\
    \"status\":408,\"detail\":\"the head of the request did not come within 10 s\",\
    \"code\":\"head_too_slow\"}";
/// After an error such as too many open files, trying again at once would only spin.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Listens, with room for many who come at once.
///
/// # Errors
/// When the address is taken, or none of this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    listen_with(bind(address)?)
}

/// Takes the address. Whoever connects is refused until it is listened at.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // A restart need not wait for the connections of the process before.
    socket.set_reuseaddr(true)?;
    // Connections inherit it. Else whoever asks and reads no answer would keep one for ever.
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(&socket).set_tcp_user_timeout(Some(READ_PATIENCE))?;
    socket.bind(address)?;
    Ok(socket)
}

pub(super) fn listen_with(socket: TcpSocket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)
}

/// Serves until told to stop, then ends each connection behind the request it is at.
pub(super) async fn serve(listener: TcpListener, api: Api, stopping: CancellationToken) {
    let (mut connections, mut refusals) = (JoinSet::new(), JoinSet::new());
    let connections_max = CONNECTIONS_MAX.min(files_max() / 2);
    let refusals_max = REFUSALS_MAX.min(files_max() / 8);
    loop {
        tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => {}
            Some(_) = refusals.join_next() => {}
            accepted = listener.accept(), if refusals.len() < refusals_max => match accepted {
                Ok((stream, _)) if connections.len() >= connections_max => {
                    refusals.spawn(timeout(REFUSAL_PATIENCE, refuse(stream, REFUSAL)));
                }
                Ok((stream, _)) => {
                    connections.spawn(serve_one(stream, api.clone(), stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(TRY_AGAIN_AFTER).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Says why, and reads what is sent: else the answer would be lost with it.
async fn refuse(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    stream.write_all(answer).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn serve_one(stream: TcpStream, api: Api, stopping: CancellationToken) {
    // An answer is one write; waiting for more would only delay it.
    let _ = stream.set_nodelay(true);
    let mut watched = Watched::new(stream);
    let ended = answer(&mut watched, &api, stopping).await;
    let Err(error) = ended else { return };
    tracing::debug!(%error, "a connection ended badly");
    // Who had not begun, and only kept the connection, would take it for another's answer.
    if error.is_timeout() && watched.begun {
        let _ = timeout(REFUSAL_PATIENCE, refuse(watched.stream, TOO_SLOW)).await;
    }
}

async fn answer(stream: &mut Watched, api: &Api, stopping: CancellationToken) -> hyper::Result<()> {
    let framed_twice = stream.framed_twice();
    let answered = service_fn(|mut request: Request<Incoming>| {
        if framed_twice.load(Ordering::Relaxed) {
            request.extensions_mut().insert(FramedTwice);
        }
        let answer = api.answer(request.map(Body::new));
        async { Ok::<_, Infallible>(answer.await) }
    });
    let connection = http1::Builder::new()
        .timer(HeadTimer::default())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD_BYTES_MAX)
        // Who says that it has sent everything still waits for the answer.
        .half_close(true)
        .serve_connection(TokioIo::new(stream), answered);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
