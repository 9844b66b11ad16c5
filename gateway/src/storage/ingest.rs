//! A tenant's ingest chain: which plugins see its events before they are stored.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::domain::{IngestUse, OnIngestError, PluginName, Slug, TenantNo};
use crate::storage::audit::{Change, Noun};
use crate::storage::configure::Refused;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Error, Result};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct IngestUseRow {
    plugin: String,
    version: Option<u32>,
    config: BTreeMap<String, String>,
    pass_on_error: bool,
}

impl From<&IngestUse> for IngestUseRow {
    fn from(it: &IngestUse) -> Self {
        Self {
            plugin: it.plugin.to_string(),
            version: it.version,
            config: it.config.clone(),
            pass_on_error: it.on_error == OnIngestError::Pass,
        }
    }
}

impl IngestUseRow {
    pub(super) fn into_noun(self) -> Result<IngestUse> {
        let plugin = PluginName::parse(&self.plugin);
        let on_error = if self.pass_on_error { OnIngestError::Pass } else { OnIngestError::Reject };
        Ok(IngestUse {
            plugin: plugin.ok_or_else(|| Error::corrupt("plugin name"))?,
            version: self.version,
            config: self.config,
            on_error,
        })
    }
}

impl Shard {
    /// Sets a tenant's ingest chain, for the next event on. An empty one takes everything.
    ///
    /// # Errors
    /// `NotFound` when the tenant or one of the plugins does not exist, or when storage fails.
    pub async fn put_ingest(&self, tenant: &Slug, chain: &[IngestUse]) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        if chain.iter().any(|it| self.plugin(tenant, &it.plugin).is_none()) {
            return Err(Refused::NotFound);
        }
        let before = self.ingest(tenant);
        let change = Change {
            tenant: Some((tenant, TenantNo(tenant_no))),
            subject: "ingest chain".to_owned(),
            before: Some(Noun::Ingest(&before)),
            after: Some(Noun::Ingest(chain)),
        };
        let chain = chain.iter().map(IngestUseRow::from).collect();
        Ok(self.commit_change(&change, vec![Record::IngestPut { tenant_no, chain }]).await?)
    }

    /// A tenant's ingest chain.
    pub fn ingest(&self, tenant: &Slug) -> Arc<[IngestUse]> {
        let catalog = self.catalog();
        catalog.tenant(tenant).map(|it| it.ingest.clone()).unwrap_or_default()
    }

    /// Whether a plugin is in its tenant's ingest chain.
    pub fn ingests(&self, tenant: &Slug, name: &PluginName) -> bool {
        self.ingest(tenant).iter().any(|it| it.plugin == *name)
    }
}
