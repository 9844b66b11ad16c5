use std::{fmt, process::ExitCode};

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use crate::app::StartError;
use crate::cli::args::ClientArgs;
use crate::cli::login::Context;

const SERVER: &str = "http://127.0.0.1:8080";

/// A client of a gateway's API.
pub(super) struct Client {
    http: reqwest::Client,
    pub(super) server: String,
    pub(super) key: Option<String>,
    pub(super) tenant: String,
    pub(super) json: bool,
}

/// Why a command failed: what is printed, and the exit code.
#[derive(Debug)]
pub(super) struct Failure {
    what: String,
    code: u8,
    pub(super) details: Vec<String>,
    pub(super) help: Option<String>,
    pub(super) request_id: Option<String>,
}

impl Failure {
    pub(super) fn other(what: impl Into<String>) -> Self {
        let (details, help, request_id) = Default::default();
        Self { what: what.into(), code: 1, details, help, request_id }
    }

    pub(super) fn missing(what: impl Into<String>) -> Self {
        Self { code: 4, ..Self::other(what) }
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

    fn of_problem(status: StatusCode, problem: &Value, request_id: Option<String>) -> Self {
        let code = match status.as_u16() {
            401 | 403 => 3,
            404 => 4,
            409 | 412 => 5,
            503 => 6,
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
            (404, "plugin_version_not_found") => Some("`hookgate plugin list --json` names them"),
            _ => None,
        };
        let help = help.map(str::to_owned);
        let details = errors.map(text).collect();
        Self { what: format!("{detail} ({word})"), code, details, help, request_id }
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
        let server = args.server.or(context.server).unwrap_or_else(|| SERVER.to_owned());
        let url = url::Url::parse(&server).ok().filter(|it| {
            let plain = it.query().is_none() && it.fragment().is_none();
            matches!(it.scheme(), "http" | "https") && it.has_host() && plain
        });
        if url.is_none() {
            return Err(Failure::usage(format!("`{server}` is no server's address"))
                .with_help("write one such as http://127.0.0.1:8080"));
        }
        let http = reqwest::Client::builder().build();
        let http = http.map_err(|it| Failure::other(format!("no HTTP client: {it}")))?;
        Ok(Self {
            http,
            server: server.trim_end_matches('/').to_owned(),
            key: args.key.or(context.key),
            tenant: args.tenant,
            json: args.json,
        })
    }

    /// A client of this process's own gateway.
    pub(super) fn of(server: String, key: String) -> Self {
        let (http, tenant) = (reqwest::Client::new(), "default".to_owned());
        Self { http, server, key: Some(key), tenant, json: false }
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

    /// Sends, and turns a refusal into a failure.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let response = request.send().await;
        let response = response.map_err(|it| Failure::unreachable(&self.server, &it))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let id = response.headers().get("x-request-id").and_then(|it| it.to_str().ok());
        let id = id.map(str::to_owned);
        let problem = response.json().await.unwrap_or_default();
        Err(Failure::of_problem(status, &problem, id))
    }

    pub(super) async fn json(&self, request: RequestBuilder) -> Result<Value, Failure> {
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(Value::Null);
        }
        let body = response.json().await;
        body.map_err(|it| Failure::other(format!("the answer is no JSON: {it}")))
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, Failure> {
        self.json(self.request(Method::GET, path)).await
    }

    /// The sum of the metrics whose line begins so.
    pub(super) async fn gauge(&self, name: &str) -> Result<f64, Failure> {
        let response = self.send(self.request(Method::GET, "/metrics")).await?;
        let text = response.text().await;
        let text = text.map_err(|it| Failure::other(format!("the metrics: {it}")))?;
        let lines = text.lines().filter(|it| it.starts_with(name));
        let value = |it: &str| it.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
        Ok(lines.filter_map(value).sum())
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        self.json(self.request(Method::POST, path).json(body)).await
    }
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
