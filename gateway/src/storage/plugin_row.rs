//! A plugin's row: its versions and its trial, without its components.

use serde::{Deserialize, Serialize};

use crate::domain::{Canary, Plugin, PluginName, PluginVersion, Share, Timestamp};
use crate::storage::{Error, Result};

/// A plugin on disk, without its components.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct PluginRow {
    pub(super) name: String,
    active_version: u32,
    canary: Option<CanaryRow>,
    versions: Vec<VersionRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct VersionRow {
    version: u32,
    digest: [u8; 32],
    kind: String,
    size: u64,
    created_at: u64,
}

/// Shares are in millionths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct CanaryRow {
    version: u32,
    share: u32,
    compare: bool,
    abort_on_error_rate: Option<u32>,
    started_at: u64,
}

impl From<&Plugin> for PluginRow {
    fn from(it: &Plugin) -> Self {
        let version = |it: &PluginVersion| VersionRow {
            version: it.version,
            digest: it.digest,
            kind: it.kind.clone(),
            size: it.size,
            created_at: it.created_at.0,
        };
        Self {
            name: it.name.to_string(),
            active_version: it.active_version,
            canary: it.canary.as_ref().map(CanaryRow::from),
            versions: it.versions.iter().map(version).collect(),
        }
    }
}

impl PluginRow {
    pub(super) fn into_noun(self) -> Result<Plugin> {
        let version = |it: VersionRow| PluginVersion {
            version: it.version,
            digest: it.digest,
            kind: it.kind,
            size: it.size,
            created_at: Timestamp(it.created_at),
        };
        Ok(Plugin {
            name: PluginName::parse(&self.name).ok_or_else(|| Error::corrupt("plugin name"))?,
            active_version: self.active_version,
            canary: self.canary.map(CanaryRow::into_noun),
            versions: self.versions.into_iter().map(version).collect(),
        })
    }
}

impl From<&Canary> for CanaryRow {
    fn from(it: &Canary) -> Self {
        Self {
            version: it.version,
            share: it.share.millionths(),
            compare: it.compare,
            abort_on_error_rate: it.abort_on_error_rate.map(Share::millionths),
            started_at: it.started_at.0,
        }
    }
}

impl CanaryRow {
    fn into_noun(self) -> Canary {
        Canary {
            version: self.version,
            share: Share::from_millionths(self.share),
            compare: self.compare,
            abort_on_error_rate: self.abort_on_error_rate.map(Share::from_millionths),
            started_at: Timestamp(self.started_at),
        }
    }
}
