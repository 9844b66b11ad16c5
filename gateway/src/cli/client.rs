use std::{fmt, process::ExitCode, time::Duration};

use bytes::Bytes;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde_json::{Value, json};

use crate::app::StartError;
use crate::cli::args::ClientArgs;
use crate::cli::login::Context;
use crate::domain::duration;

const SERVER: &str = "http://127.0.0.1:8080";
/// The tenant that is there from the start.
pub(super) const TENANT: &str = "default";
/// How long a server may take to be reached.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long it may then say nothing where it is only asked something.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// How long where it does something, which may take long: a plugin is compiled, a back-test run.
const CHANGE_WITHIN: Duration = Duration::from_secs(300);

/// A client of a gateway's API.
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) server: String,
    pub(super) key: Option<String>,
    pub(super) tenant: String,
    pub(super) json: bool,
    /// How long the server may say nothing, if somebody has said so.
    timeout: Option<Duration>,
    /// Whose key is kept and was not taken, because another server is asked.
    withheld: Option<String>,
}

/// Why a command failed: what is printed, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    what: String,
    code: u8,
    pub(super) details: Vec<String>,
    pub(super) help: Option<String>,
    pub(super) request_id: Option<String>,
    /// What the server said of it (RFC 9457).
    problem: Option<Box<Value>>,
}

impl Failure {
    pub(super) fn other(what: impl Into<String>) -> Self {
        let (details, help, request_id, problem) = Default::default();
        Self { what: what.into(), code: 1, details, help, request_id, problem }
    }

    pub(super) fn missing(what: impl Into<String>) -> Self {
        Self { code: 4, ..Self::other(what) }
    }

    pub(super) fn conflict(what: impl Into<String>) -> Self {
        Self { code: 5, ..Self::other(what) }
    }

    pub(super) fn usage(what: impl Into<String>) -> Self {
        Self { code: 2, ..Self::other(what) }
    }

    /// With the exit code of the process that the store's state would end.
    pub(super) fn of_store(error: &StartError) -> Self {
        Self { code: error.exit_code(), ..Self::other(error.to_string()) }
    }

    pub(super) fn with_help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }

    /// Whether the gateway knows the key, which may not do this.
    pub(super) fn is_of_scope(&self) -> bool {
        self.what.ends_with("(insufficient_scope)")
    }

    /// Whether the gateway knows the key, and the tenant is not there.
    pub(super) fn is_of_tenant(&self) -> bool {
        self.what.ends_with("(tenant_not_found)")
    }

    /// Whether it was refused for its size.
    pub(super) fn is_of_size(&self) -> bool {
        self.what.ends_with("(body_too_large)") || self.what.ends_with("(plugin_too_large)")
    }

    /// Whether what was asked for is not there.
    pub(super) fn is_missing(&self) -> bool {
        self.code == 4
    }

    /// Whether trying again would be refused again: the key is no longer one, or what was asked
    /// for is gone.
    pub(super) fn is_lasting(&self) -> bool {
        matches!(self.code, 3 | 4)
    }

    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    fn unreachable(server: &str, error: &reqwest::Error) -> Self {
        let what = format!("{server} cannot be reached");
        let help = "is it running? `hookgate serve` starts one; --server names another".to_owned();
        let details = vec![error.without_url_text()];
        Self { code: 6, details, help: Some(help), ..Self::other(what) }
    }

    /// Its connection was there, and is no more.
    pub(super) fn broken(error: &reqwest::Error) -> Self {
        let what = "the connection broke before the answer was whole";
        Self { code: 6, details: vec![error.without_url_text()], ..Self::other(what) }
    }

    fn silent(server: &str, waited: Duration) -> Self {
        let what = format!("{server} has said nothing for {}", duration(waited));
        let help = "is it a gateway, and well? --timeout 10m waits longer".to_owned();
        Self { code: 6, help: Some(help), ..Self::other(what) }
    }

    fn of_problem(status: StatusCode, problem: &Value, request_id: Option<String>) -> Self {
        let code = match status.as_u16() {
            401 | 403 => 3,
            404 => 4,
            409 | 412 => 5,
            502..=504 => 6,
            _ => 1,
        };
        let detail = problem["detail"].as_str().unwrap_or_else(|| status.as_str());
        let word = problem["code"].as_str().unwrap_or("unknown");
        let errors = problem["errors"].as_array().into_iter().flatten();
        let text = |it: &Value| {
            let (pointer, detail) = (it["pointer"].as_str(), it["detail"].as_str());
            format!("{} {}", pointer.unwrap_or_default(), detail.unwrap_or_default())
        };
        let help = match (status.as_u16(), word) {
            (401, _) => Some("give a key: --key, HOOKGATE_KEY or `hookgate login`"),
            (404, "plugin_version_not_found") => Some("`hookgate plugin get NAME` shows them"),
            (404, "tenant_not_found") => {
                Some("--tenant says which one is meant; `hookgate login --tenant NAME` keeps it")
            }
            (404, "canary_not_found") => {
                Some("no version is on trial; `hookgate plugin canary start` begins one")
            }
            _ => None,
        };
        let help = help.map(str::to_owned);
        // The detail names the first ones itself.
        let details = errors.map(text).filter(|it| !detail.contains(it.trim())).collect();
        let problem = Some(Box::new(problem.clone())).filter(|it| it.is_object());
        Self { what: format!("{detail} ({word})"), code, details, help, request_id, problem }
    }

    /// The same for machines.
    pub(super) fn as_json(&self) -> Value {
        json!({
            "error": self.what,
            "exit_code": self.code,
            "causes": self.details,
            "help": self.help,
            "request_id": self.request_id,
            "problem": self.problem,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

trait Cause {
    fn without_url_text(&self) -> String;
}

impl Cause for reqwest::Error {
    fn without_url_text(&self) -> String {
        let mut deepest: &dyn std::error::Error = self;
        while let Some(source) = deepest.source() {
            deepest = source;
        }
        deepest.to_string()
    }
}

impl Client {
    pub(super) fn new(args: ClientArgs) -> Result<Self, Failure> {
        let context = Context::load(args.context.as_deref())?;
        let kept = context.server.unwrap_or_else(|| SERVER.to_owned());
        let server = args.server.unwrap_or_else(|| kept.clone());
        let Some(url) = parse_server(&server) else {
            return Err(Failure::usage(format!("`{server}` is no server's address"))
                .with_help("write one such as http://127.0.0.1:8080"));
        };
        // A kept key is for its own server. Whoever misspells a host must not hand it out.
        let own = parse_server(&kept).is_some_and(|it| it.origin() == url.origin());
        let (lent, withheld) = match context.key {
            Some(_) if !own => (None, Some(kept)),
            key => (key, None),
        };
        // So is its tenant: who gives another key means what is that key's.
        let kept = context.tenant.filter(|_| args.key.is_none() && lent.is_some());
        let tenant = args.tenant.or(kept).unwrap_or_else(|| TENANT.to_owned());
        let http = reqwest::Client::builder().connect_timeout(CONNECT_WITHIN).build();
        let http = http.map_err(|it| Failure::other(format!("no HTTP client: {it}")))?;
        Ok(Self {
            http,
            server: server.trim_end_matches('/').to_owned(),
            key: args.key.or(lent),
            tenant,
            json: args.json,
            timeout: args.timeout,
            withheld,
        })
    }

    /// A client of this process's own gateway.
    pub(super) fn of(server: String, key: String) -> Self {
        Self {
            http: reqwest::Client::new(),
            server,
            key: Some(key),
            tenant: TENANT.to_owned(),
            json: false,
            timeout: None,
            withheld: None,
        }
    }

    /// The path of something that belongs to the tenant.
    ///
    /// # Errors
    /// When a segment is none; see [`path_of`].
    pub(super) fn path(&self, segments: &[&str]) -> Result<String, Failure> {
        path_of(&[&["tenants", &self.tenant], segments].concat())
    }

    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.server));
        match &self.key {
            Some(key) => request.bearer_auth(key),
            None => request,
        }
    }

    /// Sends, and turns a refusal or a long silence into a failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        self.accepted(self.execute(request, Some(CHANGE_WITHIN)).await?).await
    }

    /// Waits for the head of the answer: not long where something is only asked, else so long.
    async fn execute(
        &self,
        request: RequestBuilder,
        usual: Option<Duration>,
    ) -> Result<reqwest::Result<Response>, Failure> {
        let request = request.build();
        let request = request.map_err(|it| Failure::usage(format!("no request: {it}")))?;
        let asks = request.method() == Method::GET;
        let usual = if asks { Some(ANSWER_WITHIN) } else { usual };
        let sent = self.http.execute(request);
        match usual {
            Some(usual) => self.within(usual, sent).await,
            None => Ok(sent.await),
        }
    }

    /// As [`Self::send`], for an answer of this media type that comes bit by bit.
    pub(super) async fn open(
        &self,
        request: RequestBuilder,
        media_type: &str,
    ) -> Result<Response, Failure> {
        // Whoever sends bit by bit may take long until there is something to answer.
        let response = self.accepted(self.execute(request, None).await?).await?;
        let found = response.headers().get(header::CONTENT_TYPE);
        let found = found.and_then(|it| it.to_str().ok()).unwrap_or("nothing");
        match found.starts_with(media_type) {
            true => Ok(response),
            false => Err(Failure::other(format!("{} is no gateway", self.server))
                .with_help(format!("it answers with {found} instead of {media_type}"))),
        }
    }

    async fn accepted(&self, sent: reqwest::Result<Response>) -> Result<Response, Failure> {
        let response = sent.map_err(|it| Failure::unreachable(&self.server, &it))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let id = response.headers().get("x-request-id").and_then(|it| it.to_str().ok());
        let id = id.map(str::to_owned);
        let body = self.read(response).await.unwrap_or_default();
        let problem = serde_json::from_slice(&body).unwrap_or_default();
        let failure = Failure::of_problem(status, &problem, id);
        Err(match &self.withheld {
            Some(kept) if status == StatusCode::UNAUTHORIZED => failure.with_help(format!(
                "the key that is kept is for {kept} alone; give this server's with --key"
            )),
            _ => failure,
        })
    }

    async fn within<T>(
        &self,
        usual: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        let patience = self.timeout.unwrap_or(usual);
        let done = tokio::time::timeout(patience, work).await;
        done.map_err(|_| Failure::silent(&self.server, patience))
    }

    /// The next bytes of an answer that is not long in coming; `None` behind the last.
    pub(super) async fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>, Failure> {
        let chunk = self.within(ANSWER_WITHIN, response.chunk()).await?;
        chunk.map_err(|it| Failure::broken(&it))
    }

    /// The whole of an answer.
    pub(super) async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut whole = Vec::new();
        while let Some(chunk) = self.chunk(&mut response).await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole)
    }

    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body = self.read(response).await?;
        serde_json::from_slice(&body).map_err(|it| {
            Failure::other(format!("the answer is no JSON: {it}"))
                .with_help(format!("is {} a gateway?", self.server))
        })
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(Method::GET, path)).await
    }

    /// The sum of the metrics whose line begins so.
    pub(super) async fn gauge(&self, name: &str) -> Result<f64, Failure> {
        let response = self.send(self.request(Method::GET, "/metrics")).await?;
        let text = self.read(response).await?;
        let text = String::from_utf8_lossy(&text);
        let lines = text.lines().filter(|it| it.starts_with(name));
        let value = |it: &str| it.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        Ok(lines.filter_map(value).sum())
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(self.request(Method::POST, path).json(body)).await
    }
}

fn parse_server(text: &str) -> Option<url::Url> {
    url::Url::parse(text).ok().filter(|it| {
        let plain = it.query().is_none() && it.fragment().is_none();
        matches!(it.scheme(), "http" | "https") && it.has_host() && plain
    })
}

/// The path of these segments. Ids come from anywhere, an event's data too: each stays the one
/// segment that it is, whatever it has in it.
///
/// # Errors
/// When a segment is empty, `.` or `..`. A URL cannot say these (the
/// [URL standard](https://url.spec.whatwg.org/#double-dot-path-segment) takes `%2e%2e` for `..`
/// too), and nothing has such a name.
pub(super) fn path_of(segments: &[&str]) -> Result<String, Failure> {
    let mut path = "/v1".to_owned();
    for segment in segments {
        if matches!(*segment, "" | "." | "..") {
            return Err(Failure::missing(format!("nothing has the name `{segment}`")));
        }
        path.push('/');
        for byte in segment.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    path.push(char::from(byte));
                }
                _ => path.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment() {
        for (id, path) in [
            ("ep_1.a-b~", Some("/v1/tenants/t/endpoints/ep_1.a-b~/test")),
            ("../../victim", Some("/v1/tenants/t/endpoints/..%2F..%2Fvictim/test")),
            ("a?b#c", Some("/v1/tenants/t/endpoints/a%3Fb%23c/test")),
            ("%2e%2e", Some("/v1/tenants/t/endpoints/%252e%252e/test")),
            ("é ", Some("/v1/tenants/t/endpoints/%C3%A9%20/test")),
            ("", None),
            (".", None),
            ("..", None),
        ] {
            let built = path_of(&["tenants", "t", "endpoints", id, "test"]);
            assert_eq!(built.as_deref().ok(), path, "{id}");
            if let Ok(built) = built {
                let url = url::Url::parse(&format!("http://host{built}")).unwrap();
                assert_eq!((url.path(), url.query(), url.fragment()), (&*built, None, None));
            }
        }
    }

    #[test]
    fn problems_become_exit_codes() {
        for (status, code) in [(401, 3), (403, 3), (404, 4), (409, 5), (422, 1), (503, 6)] {
            let status = StatusCode::from_u16(status).unwrap();
            let problem = serde_json::json!({"detail": "no", "code": "x",
                "errors": [{"pointer": "/a", "detail": "b"}]});
            let failure = Failure::of_problem(status, &problem, None);
            assert_eq!(failure.code, code, "{status}");
            assert_eq!(
                (failure.to_string().as_str(), &failure.details[..]),
                ("no (x)", &["/a b".to_owned()][..])
            );
        }
    }
}
