use std::{
    io::IsTerminal, net::SocketAddr, path::PathBuf, pin::pin, process::ExitCode, time::Duration,
};

use clap::{ArgAction, Args, builder::BoolishValueParser};
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::app::{App, Config, ConfigError, FileConfig, Overrides, PluginSettings, StartError};
use crate::app::{State, tell};
use crate::cli::client::Failure;
use crate::cli::output;
use crate::plugins::Compiler;
use crate::telemetry::{Exporting, start_logging};

const BAD_CONFIG: u8 = 64;
/// Signals within this time are one, passed on by two.
const ONE_SIGNAL: Duration = Duration::from_millis(200);

/// Run the gateway
///
/// Examples:
///   hookgate serve
///   hookgate serve --config hookgate.toml --listen 0.0.0.0:8080
///   hookgate serve --listen 127.0.0.1:0 --allow-private-endpoints
///
/// Flags win over the environment, the environment over the file, the file over the defaults.
#[derive(Debug, Clone, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Flags {
    /// A TOML file with these settings (data_dir, listen, allow_private_endpoints, …)
    #[arg(long, env = "HOOKGATE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the store lies [default: hookgate-data]
    #[arg(long, env = "HOOKGATE_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Where to listen; port 0 picks one [default: 127.0.0.1:8080]
    #[arg(long, env = "HOOKGATE_LISTEN", value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,
    /// The operator's key; without it one is made on the first start and shown once
    #[arg(long, env = "HOOKGATE_OPERATOR_KEY", value_name = "KEY", hide_env_values = true)]
    operator_key: Option<String>,
    /// The key that protects secrets in the store, 32 bytes in hexadecimal or base64; better by
    /// environment or file than here
    #[arg(long, env = "HOOKGATE_MASTER_KEY", value_name = "KEY", hide_env_values = true)]
    master_key: Option<String>,
    /// A file with it; made if missing when the store is new [default: master.key in the data
    /// directory]
    #[arg(long, env = "HOOKGATE_MASTER_KEY_FILE", value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// The key before: given once with a new one, the start changes over
    #[arg(long, env = "HOOKGATE_MASTER_KEY_OLD", value_name = "KEY", hide_env_values = true)]
    master_key_old: Option<String>,
    /// A file with the key before
    #[arg(long, env = "HOOKGATE_MASTER_KEY_OLD_FILE", value_name = "FILE")]
    master_key_old_file: Option<PathBuf>,
    /// Endpoints may be on loopback and private addresses, and by plain http there
    #[arg(long, env = "HOOKGATE_ALLOW_PRIVATE_ENDPOINTS", num_args = 0..=1,
          default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL",
          value_parser = BoolishValueParser::new())]
    allow_private_endpoints: Option<bool>,
    /// Endpoints may be reached by plain http anywhere
    #[arg(long, env = "HOOKGATE_ALLOW_HTTP", num_args = 0..=1,
          default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL",
          value_parser = BoolishValueParser::new())]
    allow_http: Option<bool>,
    /// A network that may be reached: 10.1.0.0/16, 10.1.2.3:8080 (repeatable)
    #[arg(long, env = "HOOKGATE_ALLOW_CIDR", value_delimiter = ',', value_name = "CIDR")]
    allow_cidr: Option<Vec<String>>,
    /// A network that nobody may reach, whatever else is said (repeatable)
    #[arg(long, env = "HOOKGATE_DENY_CIDR", value_delimiter = ',', value_name = "CIDR")]
    deny_cidr: Option<Vec<String>>,
    /// A port of public hosts beside 443 and 8443 (repeatable)
    #[arg(long, env = "HOOKGATE_ALLOW_PORTS", value_delimiter = ',', value_name = "PORT")]
    allow_ports: Option<Vec<u16>>,
    /// A proxy that all deliveries go through, by CONNECT: http://proxy.internal:4750
    #[arg(long, env = "HOOKGATE_EGRESS_PROXY", value_name = "URL", hide_env_values = true)]
    egress_proxy: Option<String>,
    /// The proxy looks names up and checks addresses itself
    #[arg(long, env = "HOOKGATE_EGRESS_PROXY_TRUSTED", num_args = 0..=1,
          default_missing_value = "true", action = ArgAction::Set, value_name = "BOOL",
          value_parser = BoolishValueParser::new())]
    egress_proxy_trusted: Option<bool>,
    /// How long a stop waits for what is in flight [default: 30]
    #[arg(long, env = "HOOKGATE_SHUTDOWN_GRACE_SECONDS", value_name = "SECONDS")]
    shutdown_grace_seconds: Option<u64>,
    /// text or json [default: text on a terminal, else json]
    #[arg(long, env = "HOOKGATE_LOG_FORMAT", value_name = "FORMAT")]
    log_format: Option<String>,
    /// Attempts in flight at once [default: 1024]
    #[arg(long, env = "HOOKGATE_IN_FLIGHT_MAX", value_name = "N")]
    in_flight_max: Option<usize>,
    /// How much of that replays and redrives may take, in percent [default: 20]
    #[arg(long, env = "HOOKGATE_REPLAY_PERCENT", value_name = "N")]
    replay_percent: Option<usize>,
    /// Disable an endpoint after so many hours with nothing but failures [default: 120]
    #[arg(long, env = "HOOKGATE_DISABLE_AFTER_HOURS", value_name = "N")]
    disable_after_hours: Option<u64>,
    /// Give a delivery up when its event is as old as this, in hours [default: 720]
    #[arg(long, env = "HOOKGATE_EXPIRE_AFTER_HOURS", value_name = "N")]
    expire_after_hours: Option<u64>,
    /// How long events are kept with their deliveries, attempts and dead letters, or `forever`;
    /// what is not finished stays [default: 30d]
    #[arg(long, env = "HOOKGATE_RETENTION", value_name = "DURATION")]
    retention: Option<String>,
    /// How long audit records are kept, or `forever` [default: 400d]
    #[arg(long, env = "HOOKGATE_AUDIT_RETENTION", value_name = "DURATION")]
    audit_retention: Option<String>,
    /// Shards of a new store [default: 1]
    #[arg(long, env = "HOOKGATE_SHARDS", value_name = "N")]
    shards: Option<u16>,
    /// A tenant that has metrics of its own, all others together being `__other__`; without any,
    /// metrics are not told apart by tenant (repeatable, at most 100)
    #[arg(long, env = "HOOKGATE_METRICS_TENANTS", value_delimiter = ',', value_name = "TENANT")]
    metrics_tenants: Option<Vec<String>>,
    /// An endpoint that has metrics of its own: TENANT/ENDPOINT (repeatable, at most 100)
    #[arg(long, env = "HOOKGATE_METRICS_ENDPOINTS", value_delimiter = ',', value_name = "NAME")]
    metrics_endpoints: Option<Vec<String>>,
    /// Start on what is left of a damaged store, and write down what is lost
    #[arg(long)]
    accept_loss: bool,
    /// The machine's clock is right, though the store was last in use long ago, or is said to have
    /// been later than now
    #[arg(long)]
    trust_clock: bool,
    #[command(flatten)]
    plugins: PluginSettings,
}

impl Flags {
    pub(super) fn into_config(self) -> Result<(Config, bool), ConfigError> {
        let (accept_loss, trust_clock) = (self.accept_loss, self.trust_clock);
        let file = self.config.as_deref().map(FileConfig::read).transpose()?;
        let flags = Overrides {
            data_dir: self.data_dir,
            listen: self.listen,
            operator_key: self.operator_key,
            master_key: self.master_key,
            master_key_file: self.master_key_file,
            master_key_old: self.master_key_old,
            master_key_old_file: self.master_key_old_file,
            allow_private_endpoints: self.allow_private_endpoints,
            allow_http: self.allow_http,
            allow_cidr: self.allow_cidr,
            deny_cidr: self.deny_cidr,
            allow_ports: self.allow_ports,
            egress_proxy: self.egress_proxy,
            egress_proxy_trusted: self.egress_proxy_trusted,
            shutdown_grace_seconds: self.shutdown_grace_seconds,
            log_format: self.log_format,
            in_flight_max: self.in_flight_max,
            replay_percent: self.replay_percent,
            disable_after_hours: self.disable_after_hours,
            expire_after_hours: self.expire_after_hours,
            retention: self.retention,
            audit_retention: self.audit_retention,
            shards: self.shards,
            metrics_tenants: self.metrics_tenants,
            metrics_endpoints: self.metrics_endpoints,
            plugins: self.plugins,
        };
        let merged = flags.or(file.unwrap_or_default());
        let json = match merged.log_format.as_deref() {
            None => !std::io::stderr().is_terminal(),
            Some("json") => true,
            Some("text") => false,
            Some(_) => {
                let detail = "must be text or json".to_owned();
                return Err(ConfigError::Invalid { key: "log_format", detail });
            }
        };
        let mut config = Config::new(merged, compiler())?;
        // Flags alone: in a file they would stay there.
        config.storage.fjall.accept_loss = accept_loss;
        config.storage.trust_clock = trust_clock;
        Ok((config, json))
    }
}

/// Plugins are compiled by this executable, started again.
pub(super) fn compiler() -> Compiler {
    std::env::current_exe().map_or(Compiler::InProcess, Compiler::Child)
}

pub(super) async fn run(flags: Flags) -> ExitCode {
    let (config, json) = match flags.clone().into_config() {
        Ok(config) => config,
        Err(error) => return refuse(error.to_string(), BAD_CONFIG),
    };
    if let Err(error) = start_logging(json) {
        return refuse(format!("HOOKGATE_LOG: {error}"), BAD_CONFIG);
    }
    let exporting = match Exporting::start() {
        Ok(exporting) => exporting,
        Err(error) => return refuse(format!("OTEL_EXPORTER_OTLP_…: {error}"), BAD_CONFIG),
    };
    // Before the store is opened: a stop that comes early is a clean one too.
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        return refuse("signals cannot be received".to_owned(), 1);
    };
    let app = match App::start(config).await {
        Ok(app) => app,
        Err(error) => return refuse(error.to_string(), error.exit_code()),
    };
    let listening = format!("http://{}", app.address());
    output::announce(&json!({ "listening": listening, "pid": std::process::id() }).to_string());
    if let Some(key) = app.made_operator_key() {
        output::note(&format!("the operator's key, shown this once: {key}"));
    }
    tell(State::Ready);
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(()) = hangup.recv() => read_egress_again(&app, flags.clone()),
            error = app.failure() => {
                tell(State::Stopping);
                let error = StartError::from(error);
                let code = refuse(error.to_string(), error.exit_code());
                app.give_up().await;
                return code;
            }
        }
    }
    tracing::info!("stopping; a second signal ends it at once");
    tell(State::Stopping);
    if !stop(app, terminate, interrupt).await {
        tracing::warn!("not waited any longer; what was in flight is repeated after the start");
    }
    if let Some(exporting) = exporting {
        exporting.stop().await;
    }
    ExitCode::SUCCESS
}

/// Drains, until somebody asks a second time; whether all was finished.
async fn stop(app: App, mut terminate: Signal, mut interrupt: Signal) -> bool {
    let hurry = app.hurry();
    let asked_again = async {
        // A supervisor and a terminal that both pass one signal on are not impatient.
        let asked = Instant::now();
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if asked.elapsed() > ONE_SIGNAL {
                return;
            }
        }
    };
    let mut stopping = pin!(app.stop());
    tokio::select! {
        drained = &mut stopping => drained,
        () = asked_again => {
            hurry.cancel();
            stopping.await
        }
    }
}

/// Where deliveries may go can be changed while it runs; the rest of the file needs a start.
fn read_egress_again(app: &App, flags: Flags) {
    match flags.into_config() {
        Ok((config, _)) => app.set_egress(config.egress),
        Err(error) => tracing::error!(%error, "the configuration is left as it was"),
    }
}

fn refuse(what: String, code: u8) -> ExitCode {
    output::complain(&Failure::other(what));
    ExitCode::from(code)
}
