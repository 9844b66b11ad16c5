use std::collections::BTreeMap;

use crate::domain::PluginName;

/// What becomes of an event that arrives when a plugin of the ingest chain fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnIngestError {
    /// It is not taken.
    #[default]
    Reject,
    /// It is taken as it went into the plugin.
    Pass,
}

impl OnIngestError {
    /// Each policy with its name in the API.
    pub const NAMES: [(Self, &'static str); 2] = [(Self::Reject, "reject"), (Self::Pass, "pass")];
}

/// A plugin in a tenant's ingest chain: it sees each event once, before it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngestUse {
    /// Which plugin of the tenant.
    pub plugin: PluginName,
    /// A fixed version; `None` follows the active one.
    pub version: Option<u32>,
    /// What the plugin is configured with.
    pub config: BTreeMap<String, String>,
    /// What becomes of the event when it fails.
    pub on_error: OnIngestError,
}
