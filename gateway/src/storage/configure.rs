//! Changes of the catalog. They go one after the other: read what is, decide, commit; so each
//! decision sees the one before.

use crate::domain::{ApiKey, Endpoint, EndpointId, EndpointNo, Quota, Slug, Tenant, TenantNo};
use crate::storage::audit::{Change, Noun};
use crate::storage::catalog_row::EndpointRow;
use crate::storage::plugin_versions::plugin_deletion;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Error, Result};
use crate::telemetry::DELIVERIES;

/// Endpoints of a tenant whose quota does not say otherwise.
const ENDPOINTS_MAX: u32 = 10_000;

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
    /// Its secrets cannot be opened, so that writing it would lose them.
    #[error("its secrets cannot be opened; restore the store or the master key, or delete it")]
    SecretUnavailable,
    /// The tenant's ingest chain runs the plugin.
    #[error("the tenant's ingest chain uses it")]
    Ingests,
    /// It is not as the caller believed it to be.
    #[error("it has been changed meanwhile")]
    Stale,
    /// The tenant has as many as it may have.
    #[error("there are {0} already, which is the limit")]
    Limit(u32),
    /// The caller's own rule, with what it has to say.
    #[error("{0}")]
    Invalid(String),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl Shard {
    /// Makes or changes a tenant; whether it is new. `change` gets it as it is, and tells name
    /// and quota.
    ///
    /// # Errors
    /// What `change` says, or when storage fails.
    pub async fn put_tenant(
        &self,
        slug: &Slug,
        change: impl FnOnce(Option<&Tenant>) -> Result<(String, Quota), Refused> + Send,
    ) -> Result<(Tenant, bool), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let now = self.clock.now();
        let known = self.catalog().tenant(slug).map(|it| it.tenant.clone());
        let (name, quota) = change(known.as_ref())?;
        let mut records = Vec::new();
        let tenant = match known.clone() {
            Some(known) => Tenant { name, quota, updated_at: now, ..known },
            None => {
                let no = TenantNo(self.catalog().last_tenant + 1);
                let wrapped = self.catalog().keyring.draw(no.0, slug.as_str(), &*self.entropy);
                let tenant = slug.to_string();
                records.push(Record::DataKeyPut { tenant_no: no.0, tenant, wrapped });
                Tenant { slug: slug.clone(), no, name, quota, created_at: now, updated_at: now }
            }
        };
        let change = Change {
            tenant: Some((slug, tenant.no)),
            subject: format!("tenant {slug}"),
            before: known.as_ref().map(Noun::Tenant),
            after: Some(Noun::Tenant(&tenant)),
        };
        records.push(Record::TenantPut(Box::new((&tenant).into())));
        let before = known.as_ref().and_then(|it| it.quota.retention);
        if before != quota.retention {
            let kept = quota.retention.map(Into::into);
            records.push(Record::RetentionPut { tenant_no: tenant.no.0, kept });
        }
        self.commit_change(&change, records).await?;
        Ok((tenant, known.is_none()))
    }

    /// Deletes a tenant with its keys, endpoints and plugins. Its events are out of reach at
    /// once; their bytes go with retention.
    ///
    /// # Errors
    /// `NotFound`, what `agrees` refuses, or when storage fails.
    pub async fn delete_tenant(
        &self,
        slug: &Slug,
        agrees: impl FnOnce(&Tenant) -> Result<(), Refused> + Send,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let (tenant, endpoints, records) = {
            let catalog = self.catalog();
            let entry = catalog.tenant(slug).ok_or(Refused::NotFound)?;
            agrees(&entry.tenant)?;
            let tenant_no = entry.tenant.no.0;
            let keys = entry.keys.keys();
            let keys = keys.map(|id| Record::KeyRevoked { tenant_no, id: id.clone() });
            let endpoints = entry.endpoints.values().map(|it| deletion(tenant_no, it));
            let plugins = entry.plugins.values().map(|it| plugin_deletion(tenant_no, it));
            let types = entry.types.keys().map(|it| it.to_string());
            let types = types.map(|name| Record::EventTypeDeleted { tenant_no, name });
            let mut records: Vec<_> = keys.chain(endpoints).chain(plugins).chain(types).collect();
            records.push(Record::IngestPut { tenant_no, chain: Vec::new() });
            records.push(Record::TenantDeleted { slug: slug.to_string(), no: tenant_no });
            let endpoints: Vec<_> = entry.endpoints.values().cloned().collect();
            (entry.tenant.clone(), endpoints, records)
        };
        let change = Change {
            tenant: Some((slug, tenant.no)),
            subject: format!("tenant {slug}"),
            before: Some(Noun::Tenant(&tenant)),
            after: None,
        };
        self.commit_change(&change, records).await?;
        endpoints.iter().for_each(|it| self.count_withdrawn(it));
        Ok(())
    }

    /// Stores a new key. Portal sessions that have ended are forgotten on the way.
    ///
    /// # Errors
    /// `NotFound` when its tenant does not exist, or when storage fails.
    pub async fn put_key(&self, key: &ApiKey) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(&key.tenant)?;
        let (tenant_no, now) = (no.0, self.clock.now());
        let ended: Vec<_> = {
            let catalog = self.catalog();
            let keys = catalog.tenant(&key.tenant).into_iter().flat_map(|it| it.keys.values());
            let ended = keys.filter(|it| it.portal && it.has_expired(now));
            ended.map(|it| Record::KeyRevoked { tenant_no, id: it.id.clone() }).collect()
        };
        let change = Change {
            tenant: Some((&key.tenant, no)),
            subject: format!("key {}", key.id),
            before: None,
            after: Some(Noun::Key(key)),
        };
        let put = Record::KeyPut { tenant_no, key: Box::new(key.into()) };
        Ok(self.commit_change(&change, [ended, vec![put]].concat()).await?)
    }

    /// Changes a key by `change`, which gets it as it is.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn update_key(
        &self,
        tenant: &Slug,
        id: &str,
        change: impl FnOnce(ApiKey) -> ApiKey + Send,
    ) -> Result<ApiKey, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().key(id).filter(|it| it.tenant == *tenant).cloned();
        let known = known.ok_or(Refused::NotFound)?;
        let key = change(ApiKey::clone(&known));
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("key {id}"),
            before: Some(Noun::Key(&known)),
            after: Some(Noun::Key(&key)),
        };
        let record = Record::KeyPut { tenant_no: no.0, key: Box::new((&key).into()) };
        self.commit_change(&change, vec![record]).await?;
        Ok(key)
    }

    /// Revokes a key: refused from the next request on.
    ///
    /// # Errors
    /// `NotFound`, or when storage fails.
    pub async fn revoke_key(&self, tenant: &Slug, id: &str) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().key(id).filter(|it| it.tenant == *tenant).cloned();
        let known = known.ok_or(Refused::NotFound)?;
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("key {id}"),
            before: Some(Noun::Key(&known)),
            after: None,
        };
        let record = Record::KeyRevoked { tenant_no: no.0, id: id.to_owned() };
        Ok(self.commit_change(&change, vec![record]).await?)
    }

    /// Sets the hash of the operator's key.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn set_operator_key(&self, hash: [u8; 32]) -> Result<()> {
        let _one_at_a_time = self.configuring.lock().await;
        self.commit(vec![Record::OperatorKeySet(hash)]).await
    }

    /// Makes the current master key the store's own: marks a new store with it, and wraps the
    /// data keys of one that is still on the old key anew. Whether it did.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn adopt_master_key(&self) -> Result<bool> {
        let _one_at_a_time = self.configuring.lock().await;
        let records = {
            let catalog = self.catalog();
            let current = catalog.keyring.masters().current.fingerprint();
            if catalog.master_key == Some(current) {
                return Ok(false);
            }
            let wrapped = catalog.keyring.wrap_all(&*self.entropy).into_iter();
            let put =
                |(tenant_no, tenant, wrapped)| Record::DataKeyPut { tenant_no, tenant, wrapped };
            let mut records: Vec<_> = wrapped.map(put).collect();
            records.push(Record::MasterKeySet(current));
            records
        };
        self.commit(records).await?;
        Ok(true)
    }

    /// Stores a new endpoint; `make` gets its number.
    ///
    /// # Errors
    /// `NotFound` when the tenant does not exist, `Exists` when the id is taken, `Limit` when
    /// the tenant has as many as it may have.
    pub async fn create_endpoint(
        &self,
        tenant: &Slug,
        make: impl FnOnce(EndpointNo) -> Endpoint + Send,
    ) -> Result<Endpoint, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let endpoint = make(EndpointNo(self.catalog().last_endpoint + 1));
        self.need_plugins(&endpoint)?;
        if let Some(entry) = self.catalog().tenant(tenant) {
            if entry.endpoints.contains_key(&endpoint.id) {
                return Err(Refused::Exists);
            }
            let max = entry.tenant.quota.endpoints_max.unwrap_or(ENDPOINTS_MAX);
            if entry.endpoints.len() >= max as usize {
                return Err(Refused::Limit(max));
            }
        }
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("endpoint {}", endpoint.id),
            before: None,
            after: Some(Noun::Endpoint(&endpoint)),
        };
        let record = self.sealed(no.0, &endpoint)?;
        self.commit_change(&change, vec![record]).await?;
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
        change: impl FnOnce(Endpoint) -> Result<Endpoint, Refused> + Send,
    ) -> Result<Endpoint, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().tenant(tenant).and_then(|it| it.endpoints.get(id).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        if known.secret_unavailable {
            return Err(Refused::SecretUnavailable);
        }
        let mut endpoint = change(Endpoint::clone(&known))?;
        if endpoint.plugins != known.plugins {
            self.need_plugins(&endpoint)?;
        }
        endpoint.updated_at = self.clock.now();
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("endpoint {id}"),
            before: Some(Noun::Endpoint(&known)),
            after: Some(Noun::Endpoint(&endpoint)),
        };
        let record = self.sealed(no.0, &endpoint)?;
        self.commit_change(&change, vec![record]).await?;
        Ok(endpoint)
    }

    /// Deletes an endpoint, if `agrees` does; what it has not received is cancelled.
    ///
    /// # Errors
    /// `NotFound`, what `agrees` says, or when storage fails.
    pub async fn delete_endpoint(
        &self,
        tenant: &Slug,
        id: &EndpointId,
        agrees: impl FnOnce(&Endpoint) -> Result<(), Refused> + Send,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().tenant(tenant).and_then(|it| it.endpoints.get(id).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        agrees(&known)?;
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("endpoint {id}"),
            before: Some(Noun::Endpoint(&known)),
            after: None,
        };
        self.commit_change(&change, vec![deletion(no.0, &known)]).await?;
        self.count_withdrawn(&known);
        Ok(())
    }

    /// What an endpoint had not received when it was deleted is cancelled.
    fn count_withdrawn(&self, it: &Endpoint) {
        let count = self.queue().take_withdrawn(it.no);
        DELIVERIES.add_for(count, &["cancelled"], it.tenant.as_str(), Some(it.id.as_str()));
    }

    /// An endpoint's plugins may have been deleted since the caller looked.
    fn need_plugins(&self, endpoint: &Endpoint) -> Result<(), Refused> {
        for it in &endpoint.plugins {
            let plugin = self.plugin(&endpoint.tenant, &it.plugin);
            if plugin.is_none_or(|plugin| plugin.version(it.version).is_none()) {
                return Err(Refused::Invalid(format!("plugin `{}` was deleted", it.plugin)));
            }
        }
        Ok(())
    }

    fn sealed(&self, tenant_no: u32, endpoint: &Endpoint) -> Result<Record, Refused> {
        let catalog = self.catalog();
        let key = catalog.keyring.get(tenant_no).ok_or(Refused::SecretUnavailable)?;
        let endpoint = Box::new(EndpointRow::sealed(endpoint, key, &*self.entropy));
        Ok(Record::EndpointPut { tenant_no, endpoint })
    }

    pub(super) fn tenant_no(&self, slug: &Slug) -> Result<TenantNo, Refused> {
        self.catalog().tenant(slug).map(|it| it.tenant.no).ok_or(Refused::NotFound)
    }
}

fn deletion(tenant_no: u32, endpoint: &Endpoint) -> Record {
    Record::EndpointDeleted { tenant_no, id: endpoint.id.to_string(), no: endpoint.no.0 }
}
