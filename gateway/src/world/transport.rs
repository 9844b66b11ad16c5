use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use url::Url;

/// A signed request, ready to send as a POST.
#[derive(Debug, Clone)]
pub struct Request {
    /// Connections are kept per pool and never shared between two: endpoint by endpoint.
    pub pool: u64,
    /// Where to POST.
    pub url: Url,
    /// All headers, the signature's included; `host` and `content-length` are the transport's.
    pub headers: HeaderMap,
    /// What to POST.
    pub body: Bytes,
    /// From the first look-up to the end of the answer's head.
    pub timeout: Duration,
}

/// What an endpoint answered.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status of its final answer.
    pub status: StatusCode,
    /// The head of its answer.
    pub headers: HeaderMap,
    /// The first bytes of its body: as much as is kept as evidence.
    pub body: Bytes,
    /// Whether there was more body than that, or it did not end in time.
    pub body_truncated: bool,
}

/// Where the time of an attempt went. A part that did not happen is `None`: a kept connection
/// needs neither look-up nor handshake.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Name resolution.
    pub resolve: Option<Duration>,
    /// TCP connect.
    pub connect: Option<Duration>,
    /// TLS handshake.
    pub tls: Option<Duration>,
    /// From the request's last byte to the head of the answer.
    pub first_byte: Option<Duration>,
}

/// Why no answer came. The names are those of the API's `outcome` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureClass {
    /// The time was up.
    Timeout,
    /// The name has no usable address.
    DnsFailed,
    /// The address is one that deliveries must not reach.
    BlockedAddress,
    /// Nobody accepted the connection.
    ConnectFailed,
    /// TLS was refused or not trusted; no byte of the request was sent.
    TlsFailed,
    /// The connection broke before the answer's head was complete.
    ConnectionClosed,
    /// The answer is not HTTP/1.1.
    ProtocolError,
    /// The answer's head is larger than allowed.
    ResponseTooLarge,
}

/// How sending ended: an answer, or why there is none.
#[derive(Debug, Clone)]
pub struct SendResult {
    /// The answer, or the class of the failure and a sentence for people.
    pub answer: Result<Response, (FailureClass, String)>,
    /// Where the time went.
    pub timings: Timings,
}

/// Sends requests to endpoints: hyper in production, a script in tests.
#[async_trait]
pub trait Transport: Send + Sync + 'static {
    /// Makes one request. Never fails: a refusal or a timeout is a result.
    async fn send(&self, request: Request) -> SendResult;

    /// Whether `url` may be sent to, as far as can be told without a look-up: its form, scheme,
    /// port and literal address.
    ///
    /// # Errors
    /// The machine code of the refusal (`url_scheme`, `url_blocked_address`, …) and a sentence.
    fn check_url(&self, url: &str) -> Result<Url, (&'static str, String)>;
}
