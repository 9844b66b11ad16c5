use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;

use crate::world::egress::Allowed;
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
    /// Which addresses deliveries may reach.
    pub egress: EgressPolicy,
    /// How long a stop waits for what is in flight.
    pub shutdown_grace: Duration,
    /// Storage's settings.
    pub storage: storage::Config,
    /// Dispatch's settings.
    pub dispatch: dispatch::Config,
    /// The API's limits.
    pub limits: api::Limits,
    /// The plugins' settings.
    pub plugins: plugins::Config,
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
    /// Loopback and private addresses may be endpoints, and by plain http.
    pub allow_private_endpoints: Option<bool>,
    /// Plain http may be used anywhere.
    pub allow_http: Option<bool>,
    /// Networks that may be reached: `10.1.0.0/16`, `10.1.2.3:8080`.
    pub allow_cidr: Option<Vec<String>>,
    /// A duration in seconds.
    pub shutdown_grace_seconds: Option<u64>,
    /// `text` or `json`.
    pub log_format: Option<String>,
    /// Attempts in flight at once.
    pub in_flight_max: Option<usize>,
    /// Shards of a new store.
    pub shards: Option<u16>,
    /// Threads that run plugins.
    pub plugin_workers: Option<usize>,
    /// How long a plugin may run, in milliseconds.
    pub plugin_deadline_ms: Option<u64>,
    /// Memory of a plugin, in MiB.
    pub plugin_memory_mib: Option<usize>,
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
        Self {
            data_dir: self.data_dir.or(other.data_dir),
            listen: self.listen.or(other.listen),
            operator_key: self.operator_key.or(other.operator_key),
            allow_private_endpoints: self.allow_private_endpoints.or(other.allow_private_endpoints),
            allow_http: self.allow_http.or(other.allow_http),
            allow_cidr: self.allow_cidr.or(other.allow_cidr),
            shutdown_grace_seconds: self.shutdown_grace_seconds.or(other.shutdown_grace_seconds),
            log_format: self.log_format.or(other.log_format),
            in_flight_max: self.in_flight_max.or(other.in_flight_max),
            shards: self.shards.or(other.shards),
            plugin_workers: self.plugin_workers.or(other.plugin_workers),
            plugin_deadline_ms: self.plugin_deadline_ms.or(other.plugin_deadline_ms),
            plugin_memory_mib: self.plugin_memory_mib.or(other.plugin_memory_mib),
        }
    }
}

impl Config {
    /// The settings, with defaults where nothing is said.
    ///
    /// # Errors
    /// When a value is out of bounds.
    pub fn new(given: FileConfig, compiler: plugins::Compiler) -> Result<Self, ConfigError> {
        let data_dir = given.data_dir.unwrap_or_else(|| PathBuf::from("hookgate-data"));
        let invalid = |key| move |detail| ConfigError::Invalid { key, detail };
        let allowed = given.allow_cidr.unwrap_or_default();
        let allowed = allowed.iter().map(|it| it.parse::<Allowed>()).collect::<Result<_, _>>();
        let egress = EgressPolicy {
            allow_private: given.allow_private_endpoints.unwrap_or(false),
            allow_http: given.allow_http.unwrap_or(false),
            allowed: allowed.map_err(invalid("allow_cidr"))?,
        };
        let mut storage = storage::Config::default();
        storage.shards = bounded("shards", given.shards, 1..=256, storage.shards)?;
        let mut dispatch = dispatch::Config::default();
        let in_flight_max = dispatch.in_flight_max;
        dispatch.in_flight_max =
            bounded("in_flight_max", given.in_flight_max, 1..=65_536, in_flight_max)?;
        let mut plugins = plugins::Config::new(data_dir.join("plugins"), compiler);
        plugins.workers =
            bounded("plugin_workers", given.plugin_workers, 1..=256, plugins.workers)?;
        let deadline = bounded("plugin_deadline_ms", given.plugin_deadline_ms, 1..=10_000, 50)?;
        plugins.limits.deadline = Duration::from_millis(deadline);
        let memory = bounded("plugin_memory_mib", given.plugin_memory_mib, 1..=1024, 16)?;
        plugins.limits.memory_bytes_max = memory * 1024 * 1024;
        let grace = bounded("shutdown_grace_seconds", given.shutdown_grace_seconds, 0..=3600, 30)?;
        if given.operator_key.as_ref().is_some_and(|it| it.len() < 16) {
            let detail = "must have at least 16 characters".to_owned();
            return Err(invalid("operator_key")(detail));
        }
        Ok(Self {
            data_dir,
            listen: given.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            operator_key: given.operator_key,
            egress,
            shutdown_grace: Duration::from_secs(grace),
            storage,
            dispatch,
            limits: api::Limits::default(),
            plugins,
        })
    }
}

fn bounded<T: PartialOrd + Copy + std::fmt::Display>(
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
        assert!(config("allow_cidr = [\"x\"]").unwrap_err().contains("allow_cidr"));
    }

    #[test]
    fn what_is_said_first_wins() {
        let flags = Overrides { shards: Some(2), ..Overrides::default() };
        let file = toml::from_str("shards = 3\nin_flight_max = 7").unwrap();
        let config = Config::new(flags.or(file), plugins::Compiler::InProcess).unwrap();
        assert_eq!((config.storage.shards, config.dispatch.in_flight_max), (2, 7));
    }
}
