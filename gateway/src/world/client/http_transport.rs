use std::{
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Poll, ready},
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Body, Frame, Incoming},
    client::conn::TrySendError,
};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use crate::domain::ClientTls;
use crate::world::client::connect::{Connection, Failure, now};
use crate::world::client::pool::Pool;
use crate::world::client::resolve::Resolver;
use crate::world::client::route::{Prepared, Route};
use crate::world::client::tls::Tls;
use crate::world::egress::{EgressPolicy, Target, UrlRefusal, own_addresses};
use crate::world::{FailureClass, Request, Response, SendResult, Timings, Transport};

/// Bytes of an answer's head, interim answers included.
const HEAD_BYTES_MAX: u64 = 64 * 1024;
/// What is told of a larger one; `connect` bounds the headers.
const TOO_LARGE: &str = "the head of the answer is over 64 KiB, or has more than 64 headers";
/// Bytes of an answer's body that are read; what is longer closes the connection.
const BODY_BYTES_READ_MAX: u64 = 64 * 1024;
/// Bytes of an answer's body that are kept as evidence.
const BODY_BYTES_KEPT_MAX: usize = 4 * 1024;
/// How long the body may take once the head is there.
const BODY_PATIENCE: Duration = Duration::from_secs(1);
/// How long somebody who saves an endpoint waits for its name to be looked up.
const LOOK_UP_PATIENCE: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// How endpoints are reached.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Which addresses may be reached.
    pub egress: EgressPolicy,
    /// Further certificates (DER) to trust, beside the machine's.
    pub extra_roots: Vec<Vec<u8>>,
    /// Idle connections that are kept, of all endpoints together.
    pub idle_max: usize,
}

/// The transport of production: hyper, HTTP/1.1, rustls.
pub struct HttpTransport {
    policy: Arc<ArcSwap<EgressPolicy>>,
    resolver: Resolver,
    tls: Tls,
    pool: Arc<Pool>,
    /// Ends with it.
    _sweeping: JoinSet<()>,
}

impl HttpTransport {
    /// Starts it on the current tokio runtime, where its connections will live.
    ///
    /// # Errors
    /// When the machine's certificates cannot be used.
    pub fn start(config: Config) -> Result<Self, rustls::Error> {
        let tls = Tls::new(config.extra_roots)?;
        let pool = Arc::new(Pool::new(config.idle_max));
        let policy = Arc::new(ArcSwap::from_pointee(config.egress));
        let mut sweeping = JoinSet::new();
        sweeping.spawn(sweep(pool.clone(), policy.clone()));
        Ok(Self { policy, resolver: Resolver::new(), tls, pool, _sweeping: sweeping })
    }

    /// From now on deliveries go where `policy` says. Kept connections that it denies are closed.
    pub fn set_policy(&self, policy: EgressPolicy) {
        self.policy.store(Arc::new(policy));
        self.pool.sweep(&self.policy.load());
    }

    async fn send_one(&self, request: Request) -> SendResult {
        let mut timings = Timings::default();
        let answer = self.try_send(request, &mut timings).await;
        SendResult { answer, timings }
    }

    async fn try_send(&self, request: Request, timings: &mut Timings) -> Result<Response, Failure> {
        let mut began = now();
        let (aim, kept, mut message) = self.enter(request, began)?;
        // To open one is boxed: most requests do without it.
        let (mut connection, mut spare) = match kept {
            Some(kept) => kept,
            None => {
                let opened = Box::pin(self.open(&aim, timings)).await?;
                began = now();
                (opened, None)
            }
        };
        let mut once_more = true;
        loop {
            let answered = {
                connection.budget.set(HEAD_BYTES_MAX);
                let sent = pin!(connection.sender.try_send_request(message));
                connection.drive_until(aim.deadline, sent).await
            };
            let again = match head_of(answered, &connection, began, timings) {
                Ok(head) => {
                    let (head, mut body) = head.into_parts();
                    let until = (head.status, aim.deadline);
                    let read = read_body(&mut body, &mut connection, until).await;
                    self.put_back(connection, aim, &read);
                    return Ok(read.response(head));
                }
                // It was closed before anything was written: ask again, once.
                Err(Unsent::Back(message)) if once_more => message,
                // Or while it was: who closes what has rested has most likely not seen the
                // request. If it has, it knows the event by its id (RFC 9110, 9.2.2).
                Err(unsent) => {
                    let silent = unsent.is_closed() && connection.budget.has_all_of(HEAD_BYTES_MAX);
                    spare.filter(|_| silent).ok_or_else(|| unsent.into_failure())?
                }
            };
            connection = Box::pin(self.open(&aim, timings)).await?;
            (message, began, spare, once_more) = (*again, now(), None, false);
        }
    }

    /// Where a request goes, the connection that is kept there, and what is to be sent; also as a
    /// spare, where the connection has rested.
    fn enter(&self, request: Request, entered: Instant) -> Result<Entered, Failure> {
        let Request { pool, url, headers, body, tls, timeout } = request;
        let policy = self.policy.load_full();
        let (route, kept) = self.pool.enter(pool, &url, (&policy, tls), entered)?;
        let message = to_http(&route.prepared, headers, body);
        let kept = kept.map(|it| {
            let spare = it.has_rested(entered).then(|| Box::new(message.clone()));
            (it, spare)
        });
        Ok((Aim { pool, route, deadline: entered + timeout }, kept, message))
    }

    /// Keeps a connection that is at rest.
    fn put_back(&self, connection: Connection, Aim { pool, route, .. }: Aim, read: &Read) {
        // The policy may have changed meanwhile.
        let policy = self.policy.load();
        if read.rested && (route.is_under(&policy) || route.is_permitted(&policy, &connection)) {
            self.pool.put(pool, route, connection);
        }
    }

    async fn open(&self, aim: &Aim, timings: &mut Timings) -> Result<Connection, Failure> {
        let Aim { pool, route, deadline } = aim;
        let (started, target) = (now(), &route.prepared.target);
        let opened = timeout_at(*deadline, async {
            let way = self.resolver.way(target, &self.policy.load_full()).await?;
            timings.resolve = Some(started.elapsed());
            let tls = self.tls.config(*pool, route.tls.as_ref())?;
            Connection::open((target, tls), &way, timings).await
        });
        opened.await.unwrap_or_else(|_| Err(timed_out()))
    }
}

#[async_trait]
impl Transport for HttpTransport {
    // As `async fn` would be, but for the request, which that would keep twice.
    fn send<'a, 'b>(
        &'a self,
        request: Request,
    ) -> Pin<Box<dyn Future<Output = SendResult> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.send_one(request))
    }

    fn check_tls(&self, tls: &ClientTls) -> Result<(), (&'static str, String)> {
        self.tls.build(tls).map(drop)
    }

    async fn check_host(&self, url: &Url) -> Result<(), (&'static str, String)> {
        let policy = self.policy.load_full();
        let target = Target::parse(url.as_str(), &policy);
        let target = target.map_err(|it| (it.code, it.detail))?;
        let resolved = self.resolver.way(&target, &policy);
        match timeout(LOOK_UP_PATIENCE, resolved).await {
            Ok(Err((FailureClass::BlockedAddress, _))) => {
                let UrlRefusal { code, detail } = UrlRefusal::blocked();
                Err((code, detail))
            }
            // That it cannot be looked up now says nothing about later.
            _ => Ok(()),
        }
    }

    fn egress_policy(&self) -> Arc<EgressPolicy> {
        self.policy.load_full()
    }

    fn check_url(&self, url: &str) -> Result<Url, (&'static str, String)> {
        let target = Target::parse(url, &self.policy.load());
        target.map(|it| it.url).map_err(|it| (it.code, it.detail))
    }
}

type Message = http::Request<Full<Bytes>>;
type Head = http::Response<Incoming>;
/// A connection, and a copy of the message where it may turn out to be closed.
type Kept = (Connection, Option<Box<Message>>);
type Entered = (Aim, Option<Kept>, Message);

/// Where a request goes, and until when.
struct Aim {
    pool: u64,
    route: Route,
    deadline: Instant,
}

/// A request that was not answered: it may come back if it was never written.
enum Unsent {
    Back(Box<Message>),
    Failed(Failure),
}

impl Unsent {
    fn is_closed(&self) -> bool {
        matches!(self, Self::Failed((FailureClass::ConnectionClosed, _)))
    }

    fn into_failure(self) -> Failure {
        match self {
            Self::Back(_) => closed("the connection closed before the request was sent"),
            Self::Failed(failure) => failure,
        }
    }
}

/// What came of waiting for the head of an answer since `began`.
fn head_of(
    answered: Option<Result<Head, TrySendError<Message>>>,
    connection: &Connection,
    began: Instant,
    timings: &mut Timings,
) -> Result<Head, Unsent> {
    timings.first_byte = Some(began.elapsed());
    let mut error = match answered {
        None => return Err(Unsent::Failed(timed_out())),
        Some(Ok(head)) => return Ok(head),
        Some(Err(error)) => error,
    };
    if let Some(message) = error.take_message() {
        return Err(Unsent::Back(Box::new(message)));
    }
    let error = error.into_error();
    let failure = if connection.budget.is_spent() || error.is_parse_too_large() {
        (FailureClass::ResponseTooLarge, TOO_LARGE.to_owned())
    } else if error.is_parse() || error.is_parse_status() {
        (FailureClass::ProtocolError, error.to_string())
    } else {
        closed(&error.to_string())
    };
    Err(Unsent::Failed(failure))
}

/// What was read of an answer's body.
struct Read {
    kept: Bytes,
    truncated: bool,
    /// Whether the connection is at rest then.
    rested: bool,
}

impl Read {
    fn response(self, head: http::response::Parts) -> Response {
        let (status, headers) = (head.status, head.headers);
        Response { status, headers, body: self.kept, body_truncated: self.truncated }
    }
}

/// Reads as much of the body as is worth it; the head alone decides what the answer means.
async fn read_body(
    body: &mut Incoming,
    connection: &mut Connection,
    (status, deadline): (StatusCode, Instant),
) -> Read {
    let head_at = now();
    let body_deadline = head_at + BODY_PATIENCE;
    connection.budget.set(BODY_BYTES_READ_MAX);
    let mut kept = BytesMut::new();
    let mut truncated = false;
    let read = poll_fn(|context| {
        while let Some(frame) = ready!(Pin::new(&mut *body).poll_frame(context)) {
            let Ok(data) = frame.map(Frame::into_data) else { return Poll::Ready(false) };
            let Ok(data) = data else { continue };
            let room = BODY_BYTES_KEPT_MAX - kept.len();
            truncated |= data.len() > room;
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
        Poll::Ready(true)
    });
    let ended = connection.drive_until(body_deadline, read).await == Some(true);
    // Who takes a request before it has read all gets the rest, as long as the attempt may take; who
    // refuses it does not want it.
    let patience = match status.is_success() {
        true => deadline.max(body_deadline),
        false => head_at,
    };
    let rested =
        ended && (connection.is_at_rest() || Box::pin(connection.comes_to_rest(patience)).await);
    Read { kept: kept.freeze(), truncated: truncated || !ended, rested }
}

fn to_http(prepared: &Prepared, mut headers: HeaderMap, body: Bytes) -> Message {
    headers.insert(header::HOST, prepared.host.clone());
    let length = HeaderValue::try_from(body.len().to_string()).expect("digits are plain");
    headers.insert(header::CONTENT_LENGTH, length);
    let mut message = http::Request::new(Full::new(body));
    *message.method_mut() = http::Method::POST;
    *message.uri_mut() = prepared.path.clone();
    *message.headers_mut() = headers;
    message
}

/// Closes idle connections, and follows the machine's addresses, which come and go.
async fn sweep(pool: Arc<Pool>, policy: Arc<ArcSwap<EgressPolicy>>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let own = own_addresses();
        if policy.load().own != own {
            policy.rcu(|it| EgressPolicy { own: own.clone(), ..EgressPolicy::clone(it) });
        }
        pool.sweep(&policy.load());
    }
}

fn timed_out() -> Failure {
    (FailureClass::Timeout, "no answer in time".to_owned())
}

fn closed(why: &str) -> Failure {
    (FailureClass::ConnectionClosed, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::world::client::connect::RESTED;
    use crate::world::client::resolve::name_server::{self, Says};
    use crate::world::egress::{Host, Proxy};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    /// What a scripted endpoint does with each connection: reads a request, writes this, and
    /// closes unless it is to go on.
    #[derive(Clone, Copy)]
    enum Script {
        Answer(&'static [u8]),
        AnswerAndClose(&'static [u8]),
        Endless(&'static [u8], &'static [u8]),
        Silence,
        /// Answers the first request of each connection, and closes it at the second.
        AnswerOnce(&'static [u8]),
    }

    async fn endpoint(
        script: Script,
        tasks: &mut JoinSet<()>,
    ) -> (Url, Arc<std::sync::Mutex<u32>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hooks?x=1", listener.local_addr().unwrap());
        let connections = Arc::new(std::sync::Mutex::new(0));
        let counted = connections.clone();
        tasks.spawn(async move {
            let mut running = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *counted.lock().unwrap() += 1;
                running.spawn(serve(stream, script));
            }
        });
        (url.parse().unwrap(), connections)
    }

    async fn serve(mut stream: TcpStream, script: Script) {
        let mut buffer = [0; 4096];
        let mut asked = 0;
        while let Ok(1..) = stream.read(&mut buffer).await {
            asked += 1;
            match script {
                Script::AnswerOnce(_) if asked > 1 => return,
                Script::AnswerOnce(bytes) => stream.write_all(bytes).await.unwrap(),
                Script::Answer(bytes) => stream.write_all(bytes).await.unwrap(),
                Script::AnswerAndClose(bytes) => {
                    stream.write_all(bytes).await.unwrap();
                    return;
                }
                Script::Endless(head, rest) => {
                    let _ = stream.write_all(head).await;
                    while stream.write_all(rest).await.is_ok() {}
                    return;
                }
                Script::Silence => {}
            }
        }
    }

    fn transport() -> HttpTransport {
        let egress = EgressPolicy { allow_private: true, ..EgressPolicy::default() };
        HttpTransport::start(Config { egress, extra_roots: vec![], idle_max: 1024 }).unwrap()
    }

    fn request(url: &Url, pool: u64) -> Request {
        let timeout = Duration::from_millis(700);
        let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
        Request { pool, url: url.to_string(), headers, body, timeout, tls: None }
    }

    /// Of a request's body: more than sockets hold for a side that does not read.
    const LENGTH: usize = 8 * 1024 * 1024;
    const REFUSAL: &[u8] = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

    #[tokio::test]
    async fn answers_end_as_they_should() {
        use FailureClass::{ConnectionClosed, ProtocolError, ResponseTooLarge, Timeout};
        let mut tasks = JoinSet::new();
        let transport = transport();
        let redirect =
            b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        let chunk = b"1000\r\n0123456789abcdef\r\n";
        for (name, script, expected) in [
            ("an answer", Script::Answer(OK), Ok(200)),
            ("no body", Script::Answer(b"HTTP/1.1 204 No Content\r\n\r\n"), Ok(204)),
            ("a redirect", Script::Answer(redirect), Ok(302)),
            ("silence", Script::Silence, Err(Timeout)),
            (
                "endless interim answers",
                Script::Endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
                Err(ResponseTooLarge),
            ),
            (
                "an endless head",
                Script::Endless(b"HTTP/1.1 200 OK\r\n", b"x-a: bbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\r\n"),
                Err(ResponseTooLarge),
            ),
            (
                "an endless body",
                Script::Endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
                Ok(200),
            ),
            (
                "a body that is too short",
                Script::AnswerAndClose(
                    b"HTTP/1.1 200 OK\r\ncontent-length: 10737418240\r\n\r\nhello",
                ),
                Ok(200),
            ),
            ("no answer", Script::AnswerAndClose(b""), Err(ConnectionClosed)),
            (
                "another protocol",
                Script::AnswerAndClose(b"SSH-2.0-OpenSSH_9.2\r\n"),
                Err(ProtocolError),
            ),
        ] {
            let (url, _) = endpoint(script, &mut tasks).await;
            let started = now();
            let sent = transport.send(request(&url, 1)).await;
            let got = match sent.answer {
                Ok(answer) => Ok(answer.status.as_u16()),
                Err((class, _)) => Err(class),
            };
            assert_eq!(got, expected, "{name}");
            assert!(started.elapsed() < Duration::from_secs(2), "{name}: {:?}", started.elapsed());
        }
    }

    #[tokio::test]
    async fn a_request_is_small_while_it_is_out() {
        let transport = transport();
        let url = "http://127.0.0.1:9/".parse().unwrap();
        // All of it is memory to ask for, to copy and to keep at hand, for each request.
        let size = size_of_val(&transport.send_one(request(&url, 1)));
        assert!(size <= 1536, "{size} bytes");
    }

    #[tokio::test]
    async fn connections_are_kept_but_not_shared() {
        let mut tasks = JoinSet::new();
        let (transport, (url, connections)) =
            (transport(), endpoint(Script::Answer(OK), &mut tasks).await);
        for _ in 0..5 {
            let sent = transport.send(request(&url, 1)).await;
            assert_eq!(sent.answer.unwrap().body, "ok");
            assert_eq!(transport.pool.origins(1).len(), 1, "it is at rest at once");
        }
        assert_eq!(*connections.lock().unwrap(), 1);
        transport.send(request(&url, 2)).await.answer.unwrap();
        assert_eq!(*connections.lock().unwrap(), 2);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_more_connections_are_opened_than_requests_are_out() {
        const AT_ONCE: usize = 100;
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let transport = Arc::new(transport());
        for _ in 0..5 {
            let send = |_| {
                let (transport, url) = (transport.clone(), url.clone());
                async move { transport.send(request(&url, 1)).await.answer.unwrap() }
            };
            (0..AT_ONCE).map(send).collect::<JoinSet<_>>().join_all().await;
        }
        let opened = *connections.lock().unwrap();
        assert!(opened <= AT_ONCE as u32, "{opened} connections");
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_opened_again() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::AnswerAndClose(OK), &mut tasks).await;
        let transport = transport();
        for _ in 0..3 {
            transport.send(request(&url, 1)).await.answer.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(*connections.lock().unwrap(), 3);
    }

    #[tokio::test]
    async fn who_refuses_before_it_has_read_all_is_not_waited_for() {
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(REFUSAL).await.unwrap();
            std::future::pending::<()>().await;
        });
        let transport = transport();
        let timeout = Duration::from_secs(20);
        let request = Request { body: vec![b' '; LENGTH].into(), timeout, ..request(&url, 1) };
        let begun = now();
        assert_eq!(transport.send(request).await.answer.unwrap().status, 413);
        assert!(begun.elapsed() < timeout / 2, "{:?}", begun.elapsed());
        assert!(transport.pool.origins(1).is_empty(), "a request is half written there");
    }

    #[tokio::test]
    async fn who_answers_before_it_has_read_all_gets_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let (transport, mut tasks) = (transport(), JoinSet::new());
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = vec![0; 64 * 1024];
            let mut read = stream.read(&mut buffer).await.unwrap();
            stream.write_all(OK).await.unwrap();
            // The answer is understood by then.
            tokio::time::sleep(Duration::from_millis(100)).await;
            while read < LENGTH {
                let more = stream.read(&mut buffer).await.unwrap();
                assert!(more > 0, "{read} bytes came, and no more");
                read += more;
            }
        });
        let request = Request { body: vec![b' '; LENGTH].into(), ..request(&url, 1) };
        transport.send(request).await.answer.unwrap();
        assert_eq!(transport.pool.origins(1).len(), 1, "it is at rest");
        let whole = timeout(Duration::from_secs(5), tasks.join_all());
        whole.await.expect("it gets the rest");
    }

    #[tokio::test]
    async fn what_the_other_side_has_closed_is_let_go_of() {
        let mut tasks = JoinSet::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await.unwrap();
            stream.write_all(OK).await.unwrap();
            stream
        });
        let transport = transport();
        transport.send(request(&url, 1)).await.answer.unwrap();
        assert_eq!(transport.pool.origins(1).len(), 1, "it is kept");
        drop(tasks.join_all().await);
        for _ in 0..100 {
            transport.pool.sweep(&transport.policy.load());
            if transport.pool.origins(1).is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it is still kept");
    }

    #[tokio::test]
    async fn who_closes_what_has_rested_is_asked_again_at_once() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::AnswerOnce(OK), &mut tasks).await;
        let transport = transport();
        let send = async || transport.send(request(&url, 1)).await.answer.map(|it| it.status);
        assert!(send().await.is_ok());
        // A connection that is in use is not closed for its rest: this is an answer.
        assert_eq!(send().await.unwrap_err().0, FailureClass::ConnectionClosed);
        assert!(send().await.is_ok());
        tokio::time::sleep(RESTED + Duration::from_millis(50)).await;
        assert!(send().await.is_ok());
        assert_eq!(*connections.lock().unwrap(), 3);
    }

    #[tokio::test]
    async fn a_denied_address_is_not_connected_to() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let transport = HttpTransport::start(Config::default()).unwrap();
        let sent = transport.send(request(&url, 1)).await;
        assert_eq!(sent.answer.unwrap_err().0, FailureClass::BlockedAddress);
        assert_eq!(*connections.lock().unwrap(), 0);
    }

    #[tokio::test]
    async fn a_name_that_changes_what_it_leads_to_is_not_followed_inside() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let port = url.port().unwrap();
        // Every other time it leads to where it may, and where nobody listens.
        let server = name_server::start(&mut tasks, |_, before| {
            Says::Addresses(vec![Ipv4Addr::new(127, 0, 0, 2 - (before % 2) as u8)])
        });
        let allowed = vec![format!("127.0.0.2:{port}").parse().unwrap()];
        let egress = EgressPolicy { allowed, ..EgressPolicy::default() };
        let config = Config { egress, extra_roots: vec![], idle_max: 16 };
        let mut transport = HttpTransport::start(config).unwrap();
        transport.resolver = Resolver::asking(server.await);
        let name: Url = format!("http://rebinds.hooks.net:{port}/").parse().unwrap();
        let (mut tried, mut blocked) = (0, 0);
        for _ in 0..200 {
            match transport.send(request(&name, 1)).await.answer.unwrap_err().0 {
                FailureClass::ConnectFailed => tried += 1,
                FailureClass::BlockedAddress => blocked += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((tried, blocked, *connections.lock().unwrap()), (100, 100, 0));
        // Who saves an endpoint is told at once, and the same as of an address.
        assert_eq!(transport.check_host(&name).await, Ok(()));
        let refusal = UrlRefusal::blocked();
        assert_eq!(transport.check_host(&name).await, Err((refusal.code, refusal.detail)));
    }

    #[tokio::test]
    async fn a_policy_that_is_tightened_closes_kept_connections() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let transport = transport();
        transport.send(request(&url, 1)).await.answer.unwrap();
        let kept = transport.pool.origins(1).len();
        transport.set_policy(EgressPolicy {
            allow_private: true,
            denied: vec!["127.0.0.0/8".parse().unwrap()],
            ..EgressPolicy::default()
        });
        assert_eq!((kept, transport.pool.origins(1).len()), (1, 0));
        let sent = transport.send(request(&url, 1)).await;
        assert_eq!(sent.answer.unwrap_err().0, FailureClass::BlockedAddress);
        assert_eq!(*connections.lock().unwrap(), 1);
    }

    #[tokio::test]
    async fn an_endpoint_that_moves_closes_its_old_connections() {
        let mut tasks = JoinSet::new();
        let (old, _) = endpoint(Script::Answer(OK), &mut tasks).await;
        let (new, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let transport = transport();
        transport.send(request(&old, 1)).await.answer.unwrap();
        transport.send(request(&new, 1)).await.answer.unwrap();
        assert_eq!(*connections.lock().unwrap(), 1);
        let origins: Vec<_> = transport.pool.origins(1);
        assert_eq!(origins, [new.origin().ascii_serialization()]);
    }

    #[tokio::test]
    async fn idle_connections_are_bounded_over_all_endpoints() {
        let mut tasks = JoinSet::new();
        let (url, connections) = endpoint(Script::Answer(OK), &mut tasks).await;
        let egress = EgressPolicy { allow_private: true, ..EgressPolicy::default() };
        let config = Config { egress, idle_max: 1, ..Config::default() };
        let transport = HttpTransport::start(config).unwrap();
        // Those that share a place, whose share is one; the last is used again.
        for pool in [1, 17, 33, 33] {
            transport.send(request(&url, pool)).await.answer.unwrap();
        }
        let kept = [1, 17, 33].map(|it| transport.pool.origins(it).len());
        assert_eq!((kept, *connections.lock().unwrap()), ([0, 0, 1], 3));
    }

    #[tokio::test]
    async fn a_proxy_is_asked_for_the_address_that_was_checked() {
        let mut tasks = JoinSet::new();
        let (url, _) = endpoint(Script::Answer(OK), &mut tasks).await;
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = proxy.local_addr().unwrap().port();
        let transport = transport();
        transport.set_policy(EgressPolicy {
            allow_private: true,
            proxy: Some(Proxy {
                host: Host::Address("127.0.0.1".parse().unwrap()),
                port,
                authorization: Some("Basic eDp5".to_owned()),
                trusted: false,
            }),
            ..EgressPolicy::default()
        });
        let host = url.socket_addrs(|| None).unwrap()[0];
        let asked = tasks.spawn(async move {
            let (mut stream, _) = proxy.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            assert!(head.starts_with(&format!("CONNECT {host} HTTP/1.1\r\n")), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic eDp5\r\n"), "{head}");
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut onward = TcpStream::connect(host).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        });
        let sent = transport.send(request(&url, 1)).await;
        assert_eq!(sent.answer.unwrap().body, "ok");
        assert!(!asked.is_finished());
    }
}
