use std::{fmt, sync::Arc};

use crate::domain::Timestamp;

const NAME_CHARS_MAX: usize = 64;

/// A plugin's name within its tenant: `[a-z0-9][a-z0-9_-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PluginName(Arc<str>);

impl PluginName {
    /// Checks the form, which is that of a tenant's slug.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = text.len() <= NAME_CHARS_MAX && crate::domain::Slug::parse(text).is_some();
        fits.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One upload of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginVersion {
    /// 1 for the first upload.
    pub version: u32,
    /// SHA-256 of the component.
    pub digest: [u8; 32],
    /// Bytes of the component.
    pub size: u64,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

/// A tenant's WebAssembly component and its versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// Unique within its tenant.
    pub name: PluginName,
    /// What it is asked: `filter`, `transform`, ….
    pub kind: String,
    /// The version that endpoints without a pin run.
    pub active_version: u32,
    /// All uploads, oldest first; never empty.
    pub versions: Vec<PluginVersion>,
}

impl Plugin {
    /// The version that runs where `pin` is asked for; `None`: the active one.
    pub fn version(&self, pin: Option<u32>) -> Option<&PluginVersion> {
        let wanted = pin.unwrap_or(self.active_version);
        self.versions.iter().find(|it| it.version == wanted)
    }
}
