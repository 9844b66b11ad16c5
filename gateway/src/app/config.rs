use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::app::PluginSettings;
use crate::domain::Retention;
use crate::storage::Keep;
use crate::telemetry::Owners;
use crate::world::egress::{Allowed, Proxy};
use crate::{api, dispatch, plugins, storage, world::egress::EgressPolicy};

/// How the gateway runs: each room's own settings, with defaults that work.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the store and the plugins' cache lie.
    pub data_dir: PathBuf,
    /// Where to listen; port 0 picks one.
    pub listen: SocketAddr,
    /// The operator's key; without it one is made on the first start.
    pub operator_key: Option<String>,
    /// The key that protects secrets in the store, in hexadecimal or base64.
    pub master_key: KeySource,
    /// The key before, while it is replaced.
    pub master_key_old: Option<KeySource>,
    /// Which addresses deliveries may reach.
    pub egress: EgressPolicy,
    /// How long a stop waits for what is in flight.
    pub shutdown_grace: Duration,
    /// Storage's settings.
    pub storage: storage::Config,
    /// Dispatch's settings.
    pub dispatch: dispatch::Config,
    /// How long what is kept.
    pub keep: Keep,
    /// The API's limits.
    pub limits: api::Limits,
    /// The plugins' settings.
    pub plugins: plugins::Config,
    /// Whom metrics are told apart by.
    pub owners: Owners,
}

/// Where a master key is taken from.
#[derive(Clone)]
pub enum KeySource {
    /// The text itself.
    Text(Zeroizing<String>),
    /// A file with the text; a new store makes one that is missing.
    File(PathBuf),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(_) => f.write_str("Text(…)"),
            Self::File(path) => write!(f, "File({})", path.display()),
        }
    }
}

impl KeySource {
    fn new(
        key: &'static str,
        text: Option<String>,
        file: Option<PathBuf>,
    ) -> Result<Option<Self>, ConfigError> {
        match (text, file) {
            (Some(_), Some(_)) => {
                let detail = "is given twice, as text and as a file; give it once".to_owned();
                Err(ConfigError::Invalid { key, detail })
            }
            (text, file) => {
                Ok(text.map(|it| Self::Text(Zeroizing::new(it))).or(file.map(Self::File)))
            }
        }
    }
}

/// Of a key's two settings, text and file, both of whoever says one of them.
fn of_one<A, B>(
    mine: (Option<A>, Option<B>),
    theirs: (Option<A>, Option<B>),
) -> (Option<A>, Option<B>) {
    if mine.0.is_some() || mine.1.is_some() { mine } else { theirs }
}

/// The TOML file: every key may be missing, and an unknown one is an error.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// As in [`Config`].
    pub data_dir: Option<PathBuf>,
    /// As in [`Config`].
    pub listen: Option<SocketAddr>,
    /// As in [`Config`].
    pub operator_key: Option<String>,
    /// As in [`Config`].
    pub master_key: Option<String>,
    /// A file with the master key.
    pub master_key_file: Option<PathBuf>,
    /// As in [`Config`].
    pub master_key_old: Option<String>,
    /// A file with the master key before.
    pub master_key_old_file: Option<PathBuf>,
    /// Loopback and private addresses may be endpoints, and by plain http.
    pub allow_private_endpoints: Option<bool>,
    /// Plain http may be used anywhere.
    pub allow_http: Option<bool>,
    /// Networks that may be reached: `10.1.0.0/16`, `10.1.2.3:8080`.
    pub allow_cidr: Option<Vec<String>>,
    /// Networks that nobody may reach, whatever else is said.
    pub deny_cidr: Option<Vec<String>>,
    /// Ports of public hosts beside 443 and 8443.
    pub allow_ports: Option<Vec<u16>>,
    /// A proxy that all deliveries go through: `http://proxy.internal:4750`.
    pub egress_proxy: Option<String>,
    /// The proxy looks names up and checks addresses itself.
    pub egress_proxy_trusted: Option<bool>,
    /// A duration in seconds.
    pub shutdown_grace_seconds: Option<u64>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// Attempts in flight at once.
    pub in_flight_max: Option<usize>,
    /// How much of that replays and redrives may take, in percent.
    pub replay_percent: Option<usize>,
    /// An endpoint is disabled after so many hours with nothing but failures.
    pub disable_after_hours: Option<u64>,
    /// A delivery is given up when its event is as old as this, in hours.
    pub expire_after_hours: Option<u64>,
    /// How long events are kept with their deliveries, attempts and dead letters: `30d`, or
    /// `forever`.
    pub retention: Option<String>,
    /// How long audit records are kept.
    pub audit_retention: Option<String>,
    /// Shards of a new store.
    pub shards: Option<u16>,
    /// Tenants that have metrics of their own; all others are `__other__`.
    pub metrics_tenants: Option<Vec<String>>,
    /// Endpoints that have metrics of their own, as `tenant/endpoint`.
    pub metrics_endpoints: Option<Vec<String>>,
    /// What plugins may use.
    #[serde(default)]
    pub plugins: PluginSettings,
}

/// What flags and environment say; flags win.
pub type Overrides = FileConfig;

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {error}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The file has a mistake, such as an unknown key.
    #[error("{path}: {error}")]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// A value is out of bounds.
    #[error("{key}: {detail}")]
    Invalid {
        /// Which setting.
        key: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl FileConfig {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or has a mistake.
    pub fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let path = path.to_owned();
        match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text)
                .map_err(|error| ConfigError::Malformed { path, error: Box::new(error) }),
            Err(error) => Err(ConfigError::Unreadable { path, error }),
        }
    }

    /// This, and where it says nothing, `other`.
    pub fn or(self, other: Self) -> Self {
        let (mine, theirs) =
            ((self.master_key, self.master_key_file), (other.master_key, other.master_key_file));
        let (master_key, master_key_file) = of_one(mine, theirs);
        let (mine, theirs) = (
            (self.master_key_old, self.master_key_old_file),
            (other.master_key_old, other.master_key_old_file),
        );
        let (master_key_old, master_key_old_file) = of_one(mine, theirs);
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            listen: self.listen.or(other.listen),
            operator_key: self.operator_key.or(other.operator_key),
            master_key,
            master_key_file,
            master_key_old,
            master_key_old_file,
            allow_private_endpoints: self.allow_private_endpoints.or(other.allow_private_endpoints),
            allow_http: self.allow_http.or(other.allow_http),
            allow_cidr: self.allow_cidr.or(other.allow_cidr),
            deny_cidr: self.deny_cidr.or(other.deny_cidr),
            allow_ports: self.allow_ports.or(other.allow_ports),
            egress_proxy: self.egress_proxy.or(other.egress_proxy),
            egress_proxy_trusted: self.egress_proxy_trusted.or(other.egress_proxy_trusted),
            shutdown_grace_seconds: self.shutdown_grace_seconds.or(other.shutdown_grace_seconds),
            log_format: self.log_format.or(other.log_format),
            in_flight_max: self.in_flight_max.or(other.in_flight_max),
            replay_percent: self.replay_percent.or(other.replay_percent),
            disable_after_hours: self.disable_after_hours.or(other.disable_after_hours),
            expire_after_hours: self.expire_after_hours.or(other.expire_after_hours),
            retention: self.retention.or(other.retention),
            audit_retention: self.audit_retention.or(other.audit_retention),
            shards: self.shards.or(other.shards),
            metrics_tenants: self.metrics_tenants.or(other.metrics_tenants),
            metrics_endpoints: self.metrics_endpoints.or(other.metrics_endpoints),
            plugins: self.plugins.or(other.plugins),
        }
    }
}

impl Config {
    /// The settings, with defaults where nothing is said.
    ///
    /// # Errors
    /// When a value is out of bounds.
    pub fn new(given: FileConfig, compiler: plugins::Compiler) -> Result<Self, ConfigError> {
        let dispatch = dispatch_config(&given)?;
        let default = Keep::default();
        let keep = Keep {
            events: kept("retention", given.retention.as_deref(), default.events)?,
            audit: kept("audit_retention", given.audit_retention.as_deref(), default.audit)?,
        };
        let data_dir = given.data_dir.unwrap_or_else(|| PathBuf::from("hookgate-data"));
        let invalid = |key| move |detail| ConfigError::Invalid { key, detail };
        let egress = Egress {
            allow_private: given.allow_private_endpoints,
            allow_http: given.allow_http,
            allow_cidr: given.allow_cidr,
            deny_cidr: given.deny_cidr,
            allow_ports: given.allow_ports,
            proxy: given.egress_proxy,
            proxy_trusted: given.egress_proxy_trusted,
        };
        let egress = egress.into_policy()?;
        let mut storage = storage::Config::default();
        storage.shards = shards(given.shards, &data_dir, storage.shards)?;
        let mut plugins = plugins::Config::new(data_dir.join("plugins"), compiler);
        given.plugins.apply(&mut plugins)?;
        let owners = Owners::new(
            given.metrics_tenants.unwrap_or_default(),
            given.metrics_endpoints.unwrap_or_default(),
        );
        let owners =
            owners.map_err(|it| invalid("metrics_tenants, metrics_endpoints")(it.to_string()))?;
        let grace = bounded("shutdown_grace_seconds", given.shutdown_grace_seconds, 0..=3600, 30)?;
        let operator_key = given.operator_key.map(|it| it.trim().to_owned());
        // What no header can carry would let nobody in.
        let fits = |it: &String| it.len() >= 16 && it.bytes().all(|it| it.is_ascii_graphic());
        if !operator_key.iter().all(fits) {
            let detail = "must have at least 16 visible ASCII characters".to_owned();
            return Err(invalid("operator_key")(detail));
        }
        let (text, file) = (given.master_key, given.master_key_file);
        let master_key = KeySource::new("master_key", text, file)?
            .unwrap_or_else(|| KeySource::File(data_dir.join("master.key")));
        let (text, file) = (given.master_key_old, given.master_key_old_file);
        let master_key_old = KeySource::new("master_key_old", text, file)?;
        Ok(Self {
            data_dir,
            master_key,
            master_key_old,
            listen: given.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            operator_key,
            egress,
            shutdown_grace: Duration::from_secs(grace),
            storage,
            dispatch,
            keep,
            limits: api::Limits {
                component_bytes_max: plugins.component_bytes_max,
                ..api::Limits::default()
            },
            plugins,
            owners,
        })
    }
}

/// The shards of a new store, or those that the store in `data_dir` was made with.
fn shards(given: Option<u16>, data_dir: &Path, default: u16) -> Result<u16, ConfigError> {
    let wanted = bounded("shards", given, 1..=256, default)?;
    match (given, storage::fjall::shards_of(data_dir).ok()) {
        (Some(wanted), Some(made)) if wanted != made => {
            let detail = format!("the store was made with {made}, which stays so; leave it out");
            Err(ConfigError::Invalid { key: "shards", detail })
        }
        (_, made) => Ok(made.unwrap_or(wanted)),
    }
}

fn dispatch_config(given: &FileConfig) -> Result<dispatch::Config, ConfigError> {
    const HOUR: Duration = Duration::from_secs(3600);
    let default = dispatch::Config::default();
    let hours = |it: Duration| it.as_secs() / HOUR.as_secs();
    let (disable, expire) = (hours(default.disable_after), hours(default.expire_after));
    let disable = bounded("disable_after_hours", given.disable_after_hours, 1..=8760, disable)?;
    let expire = bounded("expire_after_hours", given.expire_after_hours, 1..=8760, expire)?;
    let (in_flight, replay) = (default.in_flight_max, default.bulk_percent);
    Ok(dispatch::Config {
        in_flight_max: bounded("in_flight_max", given.in_flight_max, 1..=65_536, in_flight)?,
        bulk_percent: bounded("replay_percent", given.replay_percent, 1..=100, replay)?,
        disable_after: HOUR * disable as u32,
        expire_after: HOUR * expire as u32,
        ..default
    })
}

fn kept(
    key: &'static str,
    given: Option<&str>,
    default: Retention,
) -> Result<Retention, ConfigError> {
    let Some(text) = given else { return Ok(default) };
    let detail = || format!("`{text}` is no duration such as 30d of at least 1h, nor `forever`");
    Retention::parse(text).ok_or_else(|| ConfigError::Invalid { key, detail: detail() })
}

/// What is said about where deliveries may go.
struct Egress {
    allow_private: Option<bool>,
    allow_http: Option<bool>,
    allow_cidr: Option<Vec<String>>,
    deny_cidr: Option<Vec<String>>,
    allow_ports: Option<Vec<u16>>,
    proxy: Option<String>,
    proxy_trusted: Option<bool>,
}

impl Egress {
    fn into_policy(self) -> Result<EgressPolicy, ConfigError> {
        let invalid = |key| move |detail| ConfigError::Invalid { key, detail };
        let allowed = self.allow_cidr.unwrap_or_default();
        let allowed = allowed.iter().map(|it| it.parse::<Allowed>()).collect::<Result<_, _>>();
        let denied = self.deny_cidr.unwrap_or_default();
        let network = |it: &String| it.parse().map_err(|_| format!("`{it}` is no network"));
        let denied = denied.iter().map(network).collect::<Result<_, _>>();
        let proxy = self.proxy.map(|it| it.parse::<Proxy>()).transpose();
        let trusted = self.proxy_trusted.unwrap_or(false);
        let proxy = proxy.map_err(invalid("egress_proxy"))?.map(|it| Proxy { trusted, ..it });
        Ok(EgressPolicy {
            allow_private: self.allow_private.unwrap_or(false),
            allow_http: self.allow_http.unwrap_or(false),
            allowed: allowed.map_err(invalid("allow_cidr"))?,
            denied: denied.map_err(invalid("deny_cidr"))?,
            ports: self.allow_ports.unwrap_or_default(),
            proxy,
            ..EgressPolicy::default()
        })
    }
}

pub(super) fn bounded<T: PartialOrd + Copy + std::fmt::Display>(
    key: &'static str,
    given: Option<T>,
    range: std::ops::RangeInclusive<T>,
    default: T,
) -> Result<T, ConfigError> {
    let value = given.unwrap_or(default);
    if range.contains(&value) {
        return Ok(value);
    }
    let detail = format!("{value} is not from {} to {}", range.start(), range.end());
    Err(ConfigError::Invalid { key, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let file: FileConfig = toml::from_str(text).map_err(|it| it.to_string())?;
        Config::new(file, plugins::Compiler::InProcess).map_err(|it| it.to_string())
    }

    #[test]
    fn an_unknown_key_is_named() {
        assert!(config("liste = \"127.0.0.1:1\"").unwrap_err().contains("liste"));
        assert!(config("shards = 0").unwrap_err().contains("shards"));
        assert!(config("retention = \"59m\"").unwrap_err().contains("retention: `59m`"));
        assert!(config("audit_retention = \"x\"").unwrap_err().contains("audit_retention"));
        assert!(config("allow_cidr = [\"x\"]").unwrap_err().contains("allow_cidr"));
        assert!(config("deny_cidr = [\"x\"]").unwrap_err().contains("deny_cidr"));
        assert!(config("egress_proxy = \"ftp://x\"").unwrap_err().contains("egress_proxy"));
        assert!(config("egress_proxy = \"http://user:secret@10.0.0.1:4750\"").is_ok());
    }

    #[test]
    fn a_key_is_whole_in_one_place() {
        let twice = config("master_key = \"a\"\nmaster_key_file = \"b\"").unwrap_err();
        assert!(twice.contains("master_key") && twice.contains("twice"), "{twice}");
        let flags = Overrides { master_key_file: Some("mine".into()), ..Overrides::default() };
        let file = toml::from_str("master_key = \"a\"").unwrap();
        let config_of = |it| Config::new(it, plugins::Compiler::InProcess).unwrap();
        let config = config_of(flags.or(file));
        assert!(matches!(config.master_key, KeySource::File(path) if path.ends_with("mine")));
        for (key, fits) in [
            ("sixteen visible!", false),
            ("k\u{e9}k\u{e9}k\u{e9}k\u{e9}k\u{e9}k\u{e9}k\u{e9}k\u{e9}", false),
            ("                    ", false),
            ("sixteen-visibles", true),
        ] {
            let given = Overrides { operator_key: Some(key.to_owned()), ..Overrides::default() };
            let made = Config::new(given, plugins::Compiler::InProcess);
            assert_eq!(made.is_ok(), fits, "{key}");
        }
        let ended =
            Overrides { operator_key: Some("sixteen-visibles\n".into()), ..Overrides::default() };
        assert_eq!(config_of(ended).operator_key.unwrap(), "sixteen-visibles");
    }

    #[test]
    fn what_is_said_first_wins() {
        let flags = Overrides { shards: Some(2), ..Overrides::default() };
        let file = toml::from_str("shards = 3\nin_flight_max = 7").unwrap();
        let config = Config::new(flags.or(file), plugins::Compiler::InProcess).unwrap();
        assert_eq!((config.storage.shards, config.dispatch.in_flight_max), (2, 7));
    }

    #[test]
    fn what_is_kept_and_for_how_long() {
        let day = |it: u64| Retention::For(Duration::from_secs(it * 86_400));
        let keep = config("").unwrap().keep;
        assert_eq!((keep.events, keep.audit), (day(30), day(400)));
        let keep = config("retention = \"7d\"\naudit_retention = \"forever\"").unwrap().keep;
        assert_eq!((keep.events, keep.audit), (day(7), Retention::Forever));
    }

    #[test]
    fn plugins_have_a_table_of_their_own() {
        let it = config("[plugins]\nmemory_mib = 32\nhost_calls_max = 7\nfuel_max = 5").unwrap();
        let limits = it.plugins.limits;
        assert_eq!((limits.memory_bytes_max, limits.host_calls_max), (32 << 20, 7));
        assert_eq!((limits.fuel_max, it.plugins.fuel), (Some(5), true));
        assert!(config("[plugins]\nmemory = 1").unwrap_err().contains("memory"));
        assert!(config("[plugins]\ndeadline_ms = 0").unwrap_err().contains("plugins.deadline_ms"));
    }
}
