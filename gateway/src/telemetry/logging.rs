use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

/// What is logged unless somebody says otherwise.
const USUAL: &str = "info,fjall=warn,lsm_tree=warn";

struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
}

static LOGGING: OnceLock<Logging> = OnceLock::new();

/// Logs go to stderr; `HOOKGATE_LOG` says how much, as in `info,hookgate::dispatch=debug`.
pub fn start_logging(json: bool) {
    let level = std::env::var("HOOKGATE_LOG").unwrap_or_default();
    let given = EnvFilter::try_new(&level).ok().filter(|_| !level.is_empty());
    let level = if given.is_some() { level } else { USUAL.to_owned() };
    let (filter, handle) = reload::Layer::new(given.unwrap_or_else(|| EnvFilter::new(USUAL)));
    let to_stderr = fmt::layer().with_writer(std::io::stderr);
    let started = match json {
        true => tracing_subscriber::registry().with(filter).with(to_stderr.json()).try_init(),
        false => tracing_subscriber::registry().with(filter).with(to_stderr).try_init(),
    };
    // Whoever set a subscriber before keeps it.
    if started.is_ok() {
        let _ = LOGGING.set(Logging { filter: handle, level: Mutex::new(level) });
    }
}

/// What is logged now; `None` where the logs are somebody else's.
pub fn log_level() -> Option<String> {
    let logging = LOGGING.get()?;
    Some(logging.level.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

/// From now on so much is logged: `debug`, or `info,hookgate::dispatch=debug`.
///
/// # Errors
/// A sentence when it cannot be read, or the logs are somebody else's.
pub fn set_log_level(level: &str) -> Result<(), String> {
    let logging = LOGGING.get().ok_or("the logs are not the gateway's own")?;
    let filter = EnvFilter::try_new(level).map_err(|it| it.to_string())?;
    logging.filter.reload(filter).map_err(|it| it.to_string())?;
    level.clone_into(&mut logging.level.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}
