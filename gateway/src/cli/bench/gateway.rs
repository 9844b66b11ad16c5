use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::Instant,
};

use crate::cli::args::ClientArgs;
use crate::cli::bench::usage::Usage;
use crate::cli::client::Client;
use crate::cli::{plugin, send};
use crate::world::{Entropy, SystemEntropy};

/// What is not finished by then never will be.
const PATIENCE: Duration = Duration::from_secs(300);
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Who uses less than this share of a processor for so long is at rest.
const REST: Duration = Duration::from_secs(1);
const REST_CPU_MAX: f64 = 0.05;
/// Lines of a request that carries many events.
const LINES_MAX: u64 = 10_000;
/// Requests at once that make endpoints.
const REQUESTS_AT_ONCE: usize = 64;

/// A gateway that is measured: a process of its own, or somebody's.
pub(super) struct Gateway {
    pub(super) client: Client,
    process: Option<Child>,
}

impl Gateway {
    /// Starts one on the store in `folder`, with leave to reach loopback.
    pub(super) async fn start(folder: &Path) -> Result<Self> {
        let mut random = [0; 16];
        SystemEntropy.fill(&mut random);
        Self::start_with(folder, &data_encoding::HEXLOWER.encode(&random)).await
    }

    async fn start_with(folder: &Path, key: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // The user's own settings are not what is measured.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("HOOKGATE_") {
                command.env_remove(name);
            }
        }
        let mut process = command
            .args(["serve", "--listen", "127.0.0.1:0", "--allow-private-endpoints", "--data-dir"])
            .arg(folder)
            .env("HOOKGATE_OPERATOR_KEY", key)
            .env("HOOKGATE_LOG", "error")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the gateway cannot be started")?;
        let stdout = process.stdout.take().context("it has a stdout")?;
        let line = BufReader::new(stdout).lines().next_line().await?;
        let first: Value = serde_json::from_str(&line.context("the gateway ended at once")?)?;
        let server = first["listening"].as_str().context("it tells where it listens")?;
        let client = Client::of(server.to_owned(), key.to_owned());
        Ok(Self { client, process: Some(process) })
    }

    /// Somebody's, with a new tenant there.
    pub(super) async fn there(args: ClientArgs) -> Result<Self> {
        let mut client = Client::new(args).map_err(|it| anyhow!("{it}"))?;
        let mut random = [0; 6];
        SystemEntropy.fill(&mut random);
        client.tenant = format!("bench-{}", data_encoding::HEXLOWER.encode(&random));
        let gateway = Self { client, process: None };
        gateway.make_tenant(&gateway.client.tenant).await?;
        Ok(gateway)
    }

    /// Ends it, or leaves it as it was.
    pub(super) async fn leave(mut self) -> Result<()> {
        match &mut self.process {
            Some(process) => process.kill().await?,
            None => {
                let path = format!("/v1/tenants/{}", self.client.tenant);
                self.call(Method::DELETE, &path, &Value::Null).await?;
            }
        }
        Ok(())
    }

    /// Stops it as a supervisor does, and starts another on the same store; the seconds that the
    /// start took.
    pub(super) async fn restart(self, folder: &Path) -> Result<(Self, f64)> {
        let mut process = self.process.context("it is not ours")?;
        let pid = process.id().and_then(|it| rustix::process::Pid::from_raw(it.cast_signed()));
        let pid = pid.context("it has ended")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let ended = process.wait().await?;
        if !ended.success() {
            bail!("the gateway did not stop well: {ended}");
        }
        let key = self.client.key.unwrap_or_default();
        let started = Instant::now();
        let gateway = Self::start_with(folder, &key).await?;
        gateway.call(Method::GET, "/readyz", &Value::Null).await?;
        Ok((gateway, started.elapsed().as_secs_f64()))
    }

    /// What it has used; `None` of somebody's.
    pub(super) fn usage(&self) -> Result<Option<Usage>> {
        let pid = self.process.as_ref().and_then(Child::id);
        pid.map(Usage::of).transpose()
    }

    /// Calls its API; `null` is no body.
    pub(super) async fn call(&self, method: Method, path: &str, body: &Value) -> Result<Value> {
        let request = self.client.request(method, path);
        let request = if body.is_null() { request } else { request.json(body) };
        let answer = self.client.json(request).await;
        answer.map_err(|it| anyhow!("{path}: {it} {}", it.details.join(", ")))
    }

    pub(super) async fn make_tenant(&self, name: &str) -> Result<()> {
        self.call(Method::PUT, &format!("/v1/tenants/{name}"), &json!({ "name": name })).await?;
        Ok(())
    }

    /// Registers an endpoint of a tenant; its id.
    pub(super) async fn make_endpoint(&self, tenant: &str, body: &Value) -> Result<String> {
        let path = format!("/v1/tenants/{tenant}/endpoints");
        let made = self.call(Method::POST, &path, body).await?;
        Ok(made["id"].as_str().context("it has an id")?.to_owned())
    }

    /// Registers many of a tenant, several at once; `body` makes each of its number.
    pub(super) async fn make_endpoints(
        &self,
        tenant: &str,
        count: usize,
        body: impl Fn(usize) -> Value,
    ) -> Result<()> {
        let made = (0..count).map(|it| {
            let body = body(it);
            async move { self.make_endpoint(tenant, &body).await }
        });
        stream::iter(made).buffer_unordered(REQUESTS_AT_ONCE).try_collect::<Vec<_>>().await?;
        Ok(())
    }

    /// Uploads a plugin, active at once.
    pub(super) async fn upload(&self, name: &str, component: Vec<u8>) -> Result<()> {
        let uploaded = plugin::upload(&self.client, name, component, true).await;
        uploaded.map(drop).map_err(|it| anyhow!("{it} {}", it.details.join(", ")))
    }

    /// Where a tenant's events are POSTed.
    pub(super) fn events_url(&self, tenant: &str) -> String {
        format!("{}/v1/tenants/{tenant}/events", self.client.server)
    }

    /// Publishes the same event many times for a tenant; how often it was accepted.
    pub(super) async fn flood(&self, tenant: &str, event: &[u8], times: u64) -> Result<u64> {
        let mut client =
            Client::of(self.client.server.clone(), self.client.key.clone().unwrap_or_default());
        tenant.clone_into(&mut client.tenant);
        let (line, mut accepted) = ([event, b"\n"].concat(), 0);
        let mut left = times;
        while left > 0 {
            let lines = left.min(LINES_MAX);
            let body = line.repeat(lines as usize);
            let tally = send::stream(&client, body.into(), |_| {}).await;
            let tally = tally.map_err(|it| anyhow!("{it}"))?;
            if let Some(first) = tally.rejected.first() {
                bail!("an event was rejected: {first}");
            }
            accepted += tally.accepted;
            left -= lines;
        }
        Ok(accepted)
    }

    /// Deliveries that are not finished.
    pub(super) async fn pending(&self) -> Result<u64> {
        let pending = self.client.gauge("hookgate_deliveries_pending").await;
        Ok(pending.map_err(|it| anyhow!("{it}"))? as u64)
    }

    /// Waits until `count` deliveries are not finished.
    pub(super) async fn await_pending(&self, count: impl Fn(u64) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pending = self.pending().await?;
            if count(pending) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{pending} deliveries are still unfinished after {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it works on nothing any more, and tells for how many seconds. What it still
    /// writes or merges of what came before is no part of what comes next. Of somebody's gateway
    /// nothing is known: it is not waited for.
    pub(super) async fn await_rest(&self) -> Result<f64> {
        let started = Instant::now();
        let mut before = self.usage()?;
        loop {
            tokio::time::sleep(REST).await;
            let now = self.usage()?;
            let worked = before.zip(now).map(|(was, is)| is.cpu_seconds - was.cpu_seconds);
            if worked.is_none_or(|it| it < REST_CPU_MAX * REST.as_secs_f64()) {
                return Ok((started.elapsed() - REST).as_secs_f64());
            }
            if started.elapsed() > PATIENCE {
                bail!("the gateway still works after {PATIENCE:?} in which nothing came");
            }
            before = now;
        }
    }
}
