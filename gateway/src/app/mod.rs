//! Config → App → run → drain: the one place where the rooms are wired together.

mod config;
pub use config::{Config, ConfigError, FileConfig, KeySource, Overrides};

mod plugin_settings;
pub use plugin_settings::PluginSettings;

mod supervisor;
pub use supervisor::{State, tell};

mod start;
pub use start::{App, StartError};

/// The API as an OpenAPI document.
pub use crate::api::document as api_document;

pub mod doctor;
pub mod offline;

mod descriptors;
mod master_key;
mod server;
pub use server::listen;

mod framing;
mod head_timer;
mod watched;

mod disk;
