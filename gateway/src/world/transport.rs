use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use url::Url;

use crate::domain::ClientTls;
use crate::world::egress::EgressPolicy;

/// A signed request, ready to send as a POST.
#[derive(Debug, Clone)]
pub struct Request {
    /// Connections are kept per pool and never shared between two: endpoint by endpoint.
    pub pool: u64,
    /// Where to POST. As text: a transport that knows it has no need to parse it again.
    pub url: String,
    /// All headers, the signature's included; `host` and `content-length` are the transport's.
    pub headers: HeaderMap,
    /// What to POST.
    pub body: Bytes,
    /// From the first look-up to the end of the answer's head.
    pub timeout: Duration,
    /// What the endpoint's TLS has of its own.
    pub tls: Option<Arc<ClientTls>>,
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
    /// The certificate is not valid now. Here and below no byte of the request was sent.
    TlsExpired,
    /// The certificate does not lead to a trusted one.
    TlsUntrusted,
    /// The certificate is another name's.
    TlsWrongName,
    /// TLS failed otherwise: no common version, an alert, no certificate of ours.
    TlsHandshake,
    /// The connection broke before the answer's head was complete.
    ConnectionClosed,
    /// The answer is not HTTP/1.1.
    ProtocolError,
    /// The answer's head is larger than allowed.
    ResponseTooLarge,
}

impl FailureClass {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::DnsFailed => "dns_failed",
            Self::BlockedAddress => "blocked_address",
            Self::ConnectFailed => "connect_failed",
            Self::TlsExpired => "tls_expired",
            Self::TlsUntrusted => "tls_untrusted",
            Self::TlsWrongName => "tls_wrong_name",
            Self::TlsHandshake => "tls_handshake",
            Self::ConnectionClosed => "connection_closed",
            Self::ProtocolError => "protocol_error",
            Self::ResponseTooLarge => "response_too_large",
        }
    }
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

    /// Looks the URL's host up, and refuses it when it leads where deliveries must not go. A name
    /// that cannot be resolved now is no reason: it is looked up again for each connection.
    ///
    /// # Errors
    /// As [`Self::check_url`], with the same words.
    async fn check_host(&self, _url: &Url) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    /// Whether certificates and key can be used.
    ///
    /// # Errors
    /// The field (`ca`, `certificate`, `key`) and a sentence.
    fn check_tls(&self, _tls: &ClientTls) -> Result<(), (&'static str, String)> {
        Ok(())
    }

    /// Where deliveries may go, for the operator to look at.
    fn egress_policy(&self) -> Arc<EgressPolicy> {
        Arc::default()
    }
}
