//! Changes of the catalog. They go one after the other: read what is, decide, commit; so each
//! decision sees the one before.

use crate::domain::{ApiKey, Endpoint, EndpointId, EndpointNo, Quota, Slug, Tenant, TenantNo};
use crate::storage::catalog_row::EndpointRow;
use crate::storage::plugin_versions::plugin_deletion;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Error, Result};

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
    /// The caller's own rule, with what it has to say.
    #[error("{0}")]
    Invalid(String),
    /// Storage failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl Shard {
    /// Makes or renames a tenant; whether it is new.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn put_tenant(&self, slug: &Slug, name: String) -> Result<(Tenant, bool)> {
        self.put_tenant_with(slug, name, None).await
    }

    /// The same with what the operator grants it; `None` leaves that as it is.
    ///
    /// # Errors
    /// When storage fails.
    pub async fn put_tenant_with(
        &self,
        slug: &Slug,
        name: String,
        quota: Option<Quota>,
    ) -> Result<(Tenant, bool)> {
        let _one_at_a_time = self.configuring.lock().await;
        let now = self.clock.now();
        let known = self.catalog().tenant(slug).map(|it| it.tenant.clone());
        let created = known.is_none();
        let granted = known.as_ref().map(|it| it.quota);
        let quota = quota.or(granted).unwrap_or_default();
        let mut records = Vec::new();
        let tenant = match known {
            Some(known) => Tenant { name, quota, updated_at: now, ..known },
            None => {
                let no = TenantNo(self.catalog().last_tenant + 1);
                let wrapped = self.catalog().keyring.draw(no.0, slug.as_str(), &*self.entropy);
                let tenant = slug.to_string();
                records.push(Record::DataKeyPut { tenant_no: no.0, tenant, wrapped });
                let (slug, created_at) = (slug.clone(), now);
                Tenant { slug, no, name, quota, created_at, updated_at: now }
            }
        };
        records.push(Record::TenantPut((&tenant).into()));
        self.commit(records).await?;
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
            records.push(Record::IngestPut { tenant_no, chain: Vec::new() });
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
        self.commit(vec![self.sealed(tenant_no, &endpoint)?]).await?;
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
        if known.secret_unavailable {
            return Err(Refused::SecretUnavailable);
        }
        let mut endpoint = change(Endpoint::clone(&known)).map_err(Refused::Invalid)?;
        endpoint.updated_at = self.clock.now();
        self.commit(vec![self.sealed(tenant_no, &endpoint)?]).await?;
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

    fn sealed(&self, tenant_no: u32, endpoint: &Endpoint) -> Result<Record, Refused> {
        let catalog = self.catalog();
        let key = catalog.keyring.get(tenant_no).ok_or(Refused::SecretUnavailable)?;
        let endpoint = EndpointRow::sealed(endpoint, key, &*self.entropy);
        Ok(Record::EndpointPut { tenant_no, endpoint })
    }

    pub(super) fn tenant_no(&self, slug: &Slug) -> Result<TenantNo, Refused> {
        self.catalog().tenant(slug).map(|it| it.tenant.no).ok_or(Refused::NotFound)
    }
}

fn deletion(tenant_no: u32, endpoint: &Endpoint) -> Record {
    Record::EndpointDeleted { tenant_no, id: endpoint.id.to_string(), no: endpoint.no.0 }
}
