/// Writes a line to the plugin's log, for development.
pub fn debug(message: &str) {
    write(Level::Debug, message);
}

/// Writes a line to the plugin's log.
pub fn info(message: &str) {
    write(Level::Info, message);
}

/// Writes a line to the plugin's log: something looks wrong.
pub fn warn(message: &str) {
    write(Level::Warn, message);
}

/// Writes a line to the plugin's log: something is wrong.
pub fn error(message: &str) {
    write(Level::Error, message);
}

use crate::bindings::imports::hookgate::plugin::host::Level;

#[cfg(target_family = "wasm")]
fn write(level: Level, message: &str) {
    crate::bindings::imports::hookgate::plugin::host::log(level, message);
}

/// Natively there is no gateway; tests see the lines.
#[cfg(not(target_family = "wasm"))]
#[expect(clippy::print_stderr, reason = "what a test run shows")]
fn write(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
