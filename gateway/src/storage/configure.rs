//! Changes of the catalog. They go one after the other: read what is, decide, commit; so each
//! decision sees the one before.

use bytes::Bytes;

use crate::domain::{
    ApiKey, Endpoint, EndpointId, EndpointNo, Plugin, PluginName, PluginVersion, Slug, Tenant,
    TenantNo,
};
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Error, Result, Table};

/// Why a change of the catalog was not made.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Refused {
    /// There is no such thing.
    #[error("it does not exist")]
    NotFound,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// Endpoints run the plugin.
    #[error("endpoints use it: {0:?}")]
    InUse(Vec<EndpointId>),
    /// The caller's own rule, with what it has to say.
    #[error("{0}")]
    Invalid(String),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// What uploading a component led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uploaded {
    /// The plugin as it is now.
    pub plugin: Plugin,
    /// The version that has the uploaded bytes.
    pub version: u32,
    /// Whether it is new; else the newest version had the same bytes.
    pub created: bool,
}

impl Shard {
    /// Makes or renames a tenant; whether it is new.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn put_tenant(&self, slug: &Slug, name: String) -> Result<(Tenant, bool)> {
        let _one_at_a_time = self.configuring.lock().await;
        let now = self.clock.now();
        let known = self.catalog().tenant(slug).map(|it| it.tenant.clone());
        let created = known.is_none();
        let tenant = match known {
            Some(known) => Tenant { name, updated_at: now, ..known },
            None => {
                let no = TenantNo(self.catalog().last_tenant + 1);
                Tenant { slug: slug.clone(), no, name, created_at: now, updated_at: now }
            }
        };
        self.commit(vec![Record::TenantPut((&tenant).into())]).await?;
        Ok((tenant, created))
    }

    /// Deletes a tenant with its keys, endpoints and plugins. Its events are out of reach at
    /// once; their bytes go with retention.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn delete_tenant(&self, slug: &Slug) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let records = {
            let catalog = self.catalog();
            let entry = catalog.tenant(slug).ok_or(Refused::NotFound)?;
            let tenant_no = entry.tenant.no.0;
            let keys = entry.keys.keys();
            let keys = keys.map(|id| Record::KeyRevoked { tenant_no, id: id.clone() });
            let endpoints = entry.endpoints.values().map(|it| deletion(tenant_no, it));
            let plugins = entry.plugins.values().map(|it| plugin_deletion(tenant_no, it));
            let mut records: Vec<_> = keys.chain(endpoints).chain(plugins).collect();
            records.push(Record::TenantDeleted { slug: slug.to_string(), no: tenant_no });
            records
        };
        Ok(self.commit(records).await?)
    }

    /// Stores a key.
    ///
    /// # Errors
    /// `NotFound` when its tenant does not exist, or when storage fails.
    pub async fn put_key(&self, key: &ApiKey) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(&key.tenant)?.0;
        Ok(self.commit(vec![Record::KeyPut { tenant_no, key: key.into() }]).await?)
    }

    /// Revokes a key: refused from the next request on.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn revoke_key(&self, tenant: &Slug, id: &str) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        if self.catalog().key(id).is_none_or(|it| it.tenant != *tenant) {
            return Err(Refused::NotFound);
        }
        let id = id.to_owned();
        Ok(self.commit(vec![Record::KeyRevoked { tenant_no, id }]).await?)
    }

    /// Sets the hash of the operator's key.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn set_operator_key(&self, hash: [u8; 32]) -> Result<()> {
        let _one_at_a_time = self.configuring.lock().await;
        self.commit(vec![Record::OperatorKeySet(hash)]).await
    }

    /// Stores a new endpoint; `make` gets its number.
    ///
    /// # Errors
    /// `NotFound` when the tenant does not exist, `Exists` when the id is taken.
    pub async fn create_endpoint(
        &self,
        tenant: &Slug,
        make: impl FnOnce(EndpointNo) -> Endpoint + Send,
    ) -> Result<Endpoint, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let endpoint = make(EndpointNo(self.catalog().last_endpoint + 1));
        let taken = |it: &crate::storage::TenantEntry| it.endpoints.contains_key(&endpoint.id);
        if self.catalog().tenant(tenant).is_some_and(taken) {
            return Err(Refused::Exists);
        }
        let record = Record::EndpointPut { tenant_no, endpoint: (&endpoint).into() };
        self.commit(vec![record]).await?;
        Ok(endpoint)
    }

    /// Changes an endpoint by `change`, which gets it as it is.
    ///
    /// # Errors
    /// `NotFound`, what `change` says, or when storage fails.
    pub async fn update_endpoint(
        &self,
        tenant: &Slug,
        id: &EndpointId,
        change: impl FnOnce(Endpoint) -> Result<Endpoint, String> + Send,
    ) -> Result<Endpoint, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let known = self.catalog().tenant(tenant).and_then(|it| it.endpoints.get(id).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        let mut endpoint = change(Endpoint::clone(&known)).map_err(Refused::Invalid)?;
        endpoint.updated_at = self.clock.now();
        let record = Record::EndpointPut { tenant_no, endpoint: (&endpoint).into() };
        self.commit(vec![record]).await?;
        Ok(endpoint)
    }

    /// Deletes an endpoint; what it has not received is cancelled.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn delete_endpoint(&self, tenant: &Slug, id: &EndpointId) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let known = self.catalog().tenant(tenant).and_then(|it| it.endpoints.get(id).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        Ok(self.commit(vec![deletion(tenant_no, &known)]).await?)
    }

    /// Stores a component as the newest version of a plugin.
    ///
    /// # Errors
    /// `NotFound` when the tenant does not exist, or when storage fails.
    pub async fn put_plugin(
        &self,
        tenant: &Slug,
        (name, kind): (&PluginName, &str),
        (component, digest): (Bytes, [u8; 32]),
        activate: bool,
    ) -> Result<Uploaded, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let known = self.plugin(tenant, name);
        let newest = known.as_ref().and_then(|it| it.versions.last().cloned());
        let same = newest.as_ref().is_some_and(|it| it.digest == digest);
        let version = newest.map_or(1, |it| it.version + u32::from(!same));
        let mut plugin = known.unwrap_or_else(|| Plugin {
            name: name.clone(),
            kind: kind.to_owned(),
            active_version: version,
            versions: Vec::new(),
        });
        let before = plugin.active_version;
        if activate {
            plugin.active_version = version;
            kind.clone_into(&mut plugin.kind);
        }
        if !same {
            plugin.versions.push(PluginVersion {
                version,
                digest,
                size: component.len() as u64,
                created_at: self.clock.now(),
            });
        }
        if !same || plugin.active_version != before {
            let component = (!same).then_some((version, component));
            let row = (&plugin).into();
            self.commit(vec![Record::PluginPut { tenant_no, plugin: row, component }]).await?;
        }
        Ok(Uploaded { plugin, version, created: !same })
    }

    /// Makes `version` the active one, for the next event on.
    ///
    /// # Errors
    /// `NotFound` when there is no such plugin or version, or when storage fails.
    pub async fn activate_plugin(
        &self,
        tenant: &Slug,
        name: &PluginName,
        version: u32,
    ) -> Result<Plugin, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let mut plugin = self.plugin(tenant, name).ok_or(Refused::NotFound)?;
        plugin.version(Some(version)).ok_or(Refused::NotFound)?;
        plugin.active_version = version;
        let row = (&plugin).into();
        self.commit(vec![Record::PluginPut { tenant_no, plugin: row, component: None }]).await?;
        Ok(plugin)
    }

    /// Deletes a plugin with all its versions.
    ///
    /// # Errors
    /// `NotFound`, `InUse` while an endpoint runs it, or when storage fails.
    pub async fn delete_plugin(&self, tenant: &Slug, name: &PluginName) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let plugin = self.plugin(tenant, name).ok_or(Refused::NotFound)?;
        let users = self.plugin_users(tenant, name);
        if !users.is_empty() {
            return Err(Refused::InUse(users));
        }
        Ok(self.commit(vec![plugin_deletion(tenant_no, &plugin)]).await?)
    }

    /// The endpoints that run a plugin.
    pub fn plugin_users(&self, tenant: &Slug, name: &PluginName) -> Vec<EndpointId> {
        let catalog = self.catalog();
        let endpoints = catalog.tenant(tenant).into_iter().flat_map(|it| it.endpoints.values());
        let users = endpoints.filter(|it| it.plugins.iter().any(|it| it.plugin == *name));
        users.map(|it| it.id.clone()).collect()
    }

    /// A plugin of a tenant.
    pub fn plugin(&self, tenant: &Slug, name: &PluginName) -> Option<Plugin> {
        let catalog = self.catalog();
        catalog.tenant(tenant)?.plugins.get(name).map(|it| Plugin::clone(it))
    }

    /// The bytes of a version of a plugin.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn component(
        &self,
        tenant: TenantNo,
        name: &PluginName,
        version: u32,
    ) -> Result<Option<Bytes>> {
        self.view.get(Table::Components, &self.no.component(tenant, name.as_str(), version))
    }

    fn tenant_no(&self, slug: &Slug) -> Result<TenantNo, Refused> {
        self.catalog().tenant(slug).map(|it| it.tenant.no).ok_or(Refused::NotFound)
    }
}

fn deletion(tenant_no: u32, endpoint: &Endpoint) -> Record {
    Record::EndpointDeleted { tenant_no, id: endpoint.id.to_string(), no: endpoint.no.0 }
}

fn plugin_deletion(tenant_no: u32, plugin: &Plugin) -> Record {
    let versions = plugin.versions.iter().map(|it| it.version).collect();
    Record::PluginDeleted { tenant_no, name: plugin.name.to_string(), versions }
}
