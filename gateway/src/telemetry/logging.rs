use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_subscriber::{
    EnvFilter, Registry, filter::LevelFilter, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

/// What is logged unless somebody says otherwise.
const USUAL: &str = "info,fjall=warn,lsm_tree=warn";

struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
    level: Mutex<String>,
}

static LOGGING: OnceLock<Logging> = OnceLock::new();

/// Logs go to stderr; `HOOKGATE_LOG` says how much, as in `info,hookgate::dispatch=debug`.
///
/// # Errors
/// A sentence when it cannot be read.
pub fn start_logging(json: bool) -> Result<(), String> {
    let level = std::env::var("HOOKGATE_LOG").unwrap_or_default();
    let level = if level.is_empty() { USUAL.to_owned() } else { level };
    let (filter, handle) = reload::Layer::new(read(&level)?);
    let to_stderr = fmt::layer().with_writer(std::io::stderr);
    let started = match json {
        true => tracing_subscriber::registry().with(filter).with(to_stderr.json()).try_init(),
        false => tracing_subscriber::registry().with(filter).with(to_stderr).try_init(),
    };
    // Whoever set a subscriber before keeps it.
    if started.is_ok() {
        let _ = LOGGING.set(Logging { filter: handle, level: Mutex::new(level) });
    }
    Ok(())
}

/// Each part says its level. What is no level would else be taken for the name of a part of the
/// program, of which everything is logged, and nothing of the rest.
fn read(text: &str) -> Result<EnvFilter, String> {
    let parts: Vec<_> = text.split(',').map(str::trim).collect();
    for part in &parts {
        let level = part.rsplit_once('=').map_or(*part, |(_, level)| level);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!(
                "`{part}` has no level: write off, error, warn, info, debug or trace, alone or \
                 as in hookgate::dispatch=debug"
            ));
        }
    }
    EnvFilter::try_new(parts.join(",")).map_err(|it| it.to_string())
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
    let filter = read(level)?;
    logging.filter.reload(filter).map_err(|it| it.to_string())?;
    level.clone_into(&mut logging.level.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_none() {
        for text in ["info", "WARN", "off", "info, fjall=warn", "hookgate[send]=debug", "0", USUAL]
        {
            assert!(read(text).is_ok(), "{text}");
        }
        for text in ["", "wran", "info,", "info,wran", "info,hookgate=wran", "hookgate", "a=", "9"]
        {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
