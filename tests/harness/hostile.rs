//! Endpoints that behave as badly as they can, byte by byte.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// What an endpoint does with each request it has read.
#[derive(Debug, Clone)]
pub enum Hostile {
    /// Nothing, for ever.
    NeverAnswers,
    /// Sends the head a byte at a time, for ever.
    DripsHead,
    /// Sends interim answers without end.
    EndlessInterim,
    /// Sends one interim answer and then nothing.
    InterimOnly,
    /// Sends header lines without end.
    EndlessHead,
    /// Sends so many header lines, and ends the head.
    ManyHeaders(usize),
    /// Answers 200 and sends a body without end.
    EndlessBody,
    /// Answers 200 and sends the body a byte at a time.
    DripsBody,
    /// Sends these bytes and closes.
    Closes(Vec<u8>),
    /// Sends these bytes and leaves the connection open.
    Answers(Vec<u8>),
    /// Sends these bytes and resets the connection.
    Resets(Vec<u8>),
    /// Answers 200, but so late.
    Late(Duration),
}

/// A server on loopback that does one such thing to everybody.
pub struct HostileEndpoint {
    /// Where it listens.
    pub url: String,
    requests: Arc<AtomicU64>,
    _server: JoinSet<()>,
}

impl HostileEndpoint {
    /// Starts it.
    pub async fn start(what: Hostile) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hooks", listener.local_addr().expect("an address"));
        let requests = Arc::new(AtomicU64::new(0));
        let (mut server, counted) = (JoinSet::new(), requests.clone());
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, what.clone(), counted.clone()));
            }
        });
        Self { url, requests, _server: server }
    }

    /// One that speaks first, says this, and closes.
    pub async fn greeting(bytes: Vec<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/hooks", listener.local_addr().expect("an address"));
        let mut server = JoinSet::new();
        server.spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(&bytes).await;
                let _ = stream.read(&mut [0; 4096]).await;
            }
        });
        Self { url, requests: Arc::default(), _server: server }
    }

    /// How many requests it has read.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TcpStream, what: Hostile, requests: Arc<AtomicU64>) {
    while read_request(&mut stream).await.is_some() {
        requests.fetch_add(1, Ordering::Relaxed);
        // Whatever goes wrong here is what the other side makes of it.
        if misbehave(&mut stream, &what).await.is_none() {
            return;
        }
    }
}

/// Does it; `None` when the connection is to be closed.
async fn misbehave(stream: &mut TcpStream, what: &Hostile) -> Option<()> {
    match what {
        Hostile::NeverAnswers => std::future::pending().await,
        Hostile::DripsHead => drip(stream, b"HTTP/1.1 200 OK\r\nx-slow: ").await,
        Hostile::EndlessInterim => {
            endless(stream, &b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n".repeat(64)).await
        }
        Hostile::InterimOnly => {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.ok()?;
            std::future::pending().await
        }
        Hostile::EndlessHead => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n").await.ok()?;
            endless(stream, &b"x-filler: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n".repeat(64))
                .await
        }
        Hostile::ManyHeaders(count) => {
            let lines: String = (0..*count).map(|it| format!("x-{it}: y\r\n")).collect();
            let head = format!("HTTP/1.1 200 OK\r\n{lines}content-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await.ok()
        }
        Hostile::EndlessBody => {
            let head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head).await.ok()?;
            let chunk = [&b"1000\r\n"[..], &[b'x'; 4096], b"\r\n"].concat();
            endless(stream, &chunk).await
        }
        Hostile::DripsBody => {
            drip(stream, b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n").await
        }
        Hostile::Closes(bytes) => {
            stream.write_all(bytes).await.ok()?;
            // The bytes must arrive before the end does.
            stream.shutdown().await.ok()?;
            None
        }
        Hostile::Answers(bytes) => stream.write_all(bytes).await.ok(),
        Hostile::Resets(bytes) => {
            stream.write_all(bytes).await.ok()?;
            tokio::time::sleep(Duration::from_millis(20)).await;
            stream.set_zero_linger().ok()?;
            None
        }
        Hostile::Late(wait) => {
            tokio::time::sleep(*wait).await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok()
        }
    }
}

async fn endless(stream: &mut TcpStream, bytes: &[u8]) -> Option<()> {
    while stream.write_all(bytes).await.is_ok() {}
    None
}

async fn drip(stream: &mut TcpStream, start: &[u8]) -> Option<()> {
    stream.write_all(start).await.ok()?;
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    None
}

/// Reads a head and as much body as it announces.
async fn read_request(stream: &mut TcpStream) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|it| it.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).await.ok()?;
    Some(())
}
