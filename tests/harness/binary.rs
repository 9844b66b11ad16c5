use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use reqwest::{Method, Response};
use serde_json::Value;

/// The operator's key of gateways under test.
pub const OPERATOR_KEY: &str = "operator-key-of-the-tests";

/// The real binary: `HOOKGATE_BIN`, or the one that cargo built beside these tests.
pub fn binary() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        if let Some(path) = std::env::var_os("HOOKGATE_BIN") {
            return path.into();
        }
        // The tests lie in `target/PROFILE/deps`, the binary beside that.
        let deps = std::env::current_exe().expect("a path");
        let profile = deps.ancestors().nth(2).expect("a target folder");
        profile.join("hookgate-under-test")
    })
}

/// A gateway as a process of its own. Dropped, it is killed.
pub struct Gateway {
    /// Its process.
    pub child: Child,
    /// Where it listens.
    pub server: String,
    http: reqwest::Client,
    log: PathBuf,
}

impl Gateway {
    /// Starts one on this data directory, with leave to reach loopback.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &["--allow-private-endpoints"])
    }

    /// Starts one with these flags beside the data directory and a free port.
    pub fn start_with(data_dir: &Path, flags: &[&str]) -> Self {
        Self::start_in(data_dir, flags, &[])
    }

    /// The same, with these variables in its environment.
    #[expect(clippy::disallowed_methods, reason = "real time: a process starts")]
    pub fn start_in(data_dir: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Self {
        let log = data_dir.with_extension("log");
        let errors = File::options().append(true).create(true).open(&log).expect("a log");
        let mut child = Command::new(binary())
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .args(flags)
            .env("HOOKGATE_OPERATOR_KEY", OPERATOR_KEY)
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        let started = Instant::now();
        BufReader::new(stdout).read_line(&mut line).expect("a line");
        let first: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{line:?} after {:?}: {}", started.elapsed(), read(&log)));
        assert_eq!(first["pid"], child.id());
        let server = first["listening"].as_str().expect("an address").to_owned();
        Self { child, server, http: reqwest::Client::new(), log }
    }

    /// A request with a key.
    pub fn request(&self, method: Method, path: &str, key: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.server)).bearer_auth(key)
    }

    /// Calls the default tenant's API as the operator.
    pub async fn call(&self, method: Method, rest: &str, body: Option<Value>) -> (u16, Value) {
        let path = match rest.starts_with('/') {
            true => rest.to_owned(),
            false => format!("/v1/tenants/default/{rest}"),
        };
        let mut request = self.request(method, &path, OPERATOR_KEY);
        if let Some(body) = body {
            request = request.json(&body);
        }
        read_answer(request.send().await.expect("an answer")).await
    }

    /// GET.
    pub async fn get(&self, rest: &str) -> Value {
        let (status, body) = self.call(Method::GET, rest, None).await;
        assert_eq!(status, 200, "{rest}: {body}");
        body
    }

    /// POST, which should succeed.
    pub async fn post(&self, rest: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, rest, Some(body)).await;
        assert!((200..300).contains(&status), "{rest}: {status} {answer}");
        answer
    }

    /// Uploads a plugin.
    pub async fn upload(&self, name: &str, component: Vec<u8>) -> (u16, Value) {
        let path = format!("/v1/tenants/default/plugins/{name}");
        // Making it may have taken longer than a connection that rests is kept.
        let request = reqwest::Client::new().put(format!("{}{path}", self.server));
        let request = request.bearer_auth(OPERATOR_KEY);
        let request = request.header("content-type", "application/wasm").body(component);
        read_answer(request.send().await.expect("an answer")).await
    }

    /// Waits until a delivery of the event is in this state; its JSON.
    pub async fn await_status(&self, event: &str, status: &str) -> Value {
        let mut last = Value::Null;
        for _ in 0..400 {
            let page = self.get(&format!("events/{event}/deliveries")).await;
            last = page["data"][0].clone();
            if last["status"] == status {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("{event} is not {status} but {last}\n{}", read(&self.log));
    }

    /// Kills it as a power switch does its process.
    pub fn kill(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Asks it to stop, and waits until it has. The test's endpoints go on answering meanwhile:
    /// a stop waits for what is in flight.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.ended().await
    }

    /// Sends SIGTERM and goes on.
    pub fn ask_to_stop(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    }

    /// How it ended, once it has.
    pub async fn ended(&mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and JSON of an answer.
async fn read_answer(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap_or_default();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
