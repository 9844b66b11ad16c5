//! Changes of plugins: uploads, activation, trials, deletion.

use bytes::Bytes;

use crate::domain::{
    Canary, EndpointId, Plugin, PluginName, PluginUse, PluginVersion, Slug, TenantNo,
};
use crate::storage::audit::{Change, Noun};
use crate::storage::configure::Refused;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

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
            active_version: version,
            canary: None,
            versions: Vec::new(),
        });
        let before = plugin.clone();
        if activate {
            set_active(&mut plugin, version);
        }
        if !same {
            plugin.versions.push(PluginVersion {
                version,
                digest,
                kind: kind.to_owned(),
                size: component.len() as u64,
                created_at: self.clock.now(),
            });
        }
        if plugin != before {
            let component = (!same).then_some((version, component));
            self.put((tenant, tenant_no), &plugin, component).await?;
        }
        Ok(Uploaded { plugin, version, created: !same })
    }

    /// Makes `version` the active one, for the next event on. A trial of it has passed then.
    ///
    /// # Errors
    /// `NotFound` when there is no such plugin or version, or when storage fails.
    pub async fn activate_plugin(
        &self,
        tenant: &Slug,
        name: &PluginName,
        version: u32,
    ) -> Result<Plugin, Refused> {
        let change = |plugin: &mut Plugin| {
            plugin.version(Some(version)).ok_or(Refused::NotFound)?;
            set_active(plugin, version);
            Ok(())
        };
        self.change_plugin(tenant, name, change).await
    }

    /// Puts a version on trial, in place of a trial that runs.
    ///
    /// # Errors
    /// `NotFound` when there is no such plugin or version, `Invalid` when it is the active one
    /// already, or when storage fails.
    pub async fn start_canary(
        &self,
        tenant: &Slug,
        name: &PluginName,
        canary: Canary,
    ) -> Result<Plugin, Refused> {
        let change = |plugin: &mut Plugin| {
            plugin.version(Some(canary.version)).ok_or(Refused::NotFound)?;
            if plugin.active_version == canary.version {
                let active = format!("version {} is the active one already", canary.version);
                return Err(Refused::Invalid(active));
            }
            plugin.canary = Some(canary);
            Ok(())
        };
        self.change_plugin(tenant, name, change).await
    }

    /// Ends the trial of `version`: with `promote` it is the active one from the next event on,
    /// else everything is as it was before.
    ///
    /// # Errors
    /// `NotFound` when no such trial runs, or when storage fails.
    pub async fn end_canary(
        &self,
        tenant: &Slug,
        name: &PluginName,
        version: u32,
        promote: bool,
    ) -> Result<Plugin, Refused> {
        let change = |plugin: &mut Plugin| {
            let running = plugin.canary.take().filter(|it| it.version == version);
            running.ok_or(Refused::NotFound)?;
            if promote {
                plugin.active_version = version;
            }
            Ok(())
        };
        self.change_plugin(tenant, name, change).await
    }

    async fn change_plugin(
        &self,
        tenant: &Slug,
        name: &PluginName,
        change: impl FnOnce(&mut Plugin) -> Result<(), Refused> + Send,
    ) -> Result<Plugin, Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let mut plugin = self.plugin(tenant, name).ok_or(Refused::NotFound)?;
        change(&mut plugin)?;
        self.put((tenant, tenant_no), &plugin, None).await?;
        Ok(plugin)
    }

    async fn put(
        &self,
        (tenant, tenant_no): (&Slug, u32),
        plugin: &Plugin,
        component: Option<(u32, Bytes)>,
    ) -> Result<()> {
        let before = self.plugin(tenant, &plugin.name);
        let change = Change {
            tenant: Some((tenant, TenantNo(tenant_no))),
            subject: format!("plugin {}", plugin.name),
            before: before.as_ref().map(Noun::Plugin),
            after: Some(Noun::Plugin(plugin)),
        };
        let plugin = plugin.into();
        let record = Record::PluginPut { tenant_no, plugin, component };
        self.commit_change(&change, vec![record]).await
    }

    /// Deletes a plugin with all its versions.
    ///
    /// # Errors
    /// `NotFound`, `InUse` while an endpoint runs it, or when storage fails.
    pub async fn delete_plugin(&self, tenant: &Slug, name: &PluginName) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let tenant_no = self.tenant_no(tenant)?.0;
        let plugin = self.plugin(tenant, name).ok_or(Refused::NotFound)?;
        let mut users: Vec<_> = self.plugin_uses(tenant, name).into_iter().map(|it| it.0).collect();
        users.dedup();
        if !users.is_empty() {
            return Err(Refused::InUse(users));
        }
        if self.ingests(tenant, name) {
            return Err(Refused::Ingests);
        }
        let change = Change {
            tenant: Some((tenant, TenantNo(tenant_no))),
            subject: format!("plugin {name}"),
            before: Some(Noun::Plugin(&plugin)),
            after: None,
        };
        Ok(self.commit_change(&change, vec![plugin_deletion(tenant_no, &plugin)]).await?)
    }

    /// Where endpoints run a plugin: the endpoint, the place in its chain, and how.
    pub fn plugin_uses(
        &self,
        tenant: &Slug,
        name: &PluginName,
    ) -> Vec<(EndpointId, usize, PluginUse)> {
        let catalog = self.catalog();
        let mut uses = Vec::new();
        for endpoint in catalog.tenant(tenant).into_iter().flat_map(|it| it.endpoints.values()) {
            let chain = endpoint.plugins.iter().enumerate();
            let here = chain.filter(|(_, it)| it.plugin == *name);
            uses.extend(here.map(|(place, it)| (endpoint.id.clone(), place, it.clone())));
        }
        uses
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
}

fn set_active(plugin: &mut Plugin, version: u32) {
    plugin.active_version = version;
    plugin.canary = plugin.canary.take().filter(|it| it.version != version);
}

pub(super) fn plugin_deletion(tenant_no: u32, plugin: &Plugin) -> Record {
    let versions = plugin.versions.iter().map(|it| it.version).collect();
    Record::PluginDeleted { tenant_no, name: plugin.name.to_string(), versions }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;
    use crate::domain::{Quota, Share, Timestamp};
    use crate::storage::memory::Disk;
    use crate::storage::{Config, Store};
    use crate::world::{SeededEntropy, SimClock};

    fn open(disk: &Disk) -> (Store, JoinSet<()>) {
        let clock = Arc::new(SimClock::starting_at(Timestamp(1_800_000_000_000)));
        let world = (clock as Arc<_>, Arc::new(SeededEntropy::new(1)) as Arc<_>);
        let (store, writers) = Store::simulated(disk, &Config::default(), world).unwrap();
        let mut tasks = JoinSet::new();
        writers.into_futures().for_each(|it| drop(tasks.spawn(it)));
        (store, tasks)
    }

    fn canary(version: u32) -> Canary {
        Canary {
            version,
            share: Share::of(0.05).unwrap(),
            compare: true,
            abort_on_error_rate: Share::of(0.1),
            started_at: Timestamp(7),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_survives_a_restart_and_ends_once() {
        let disk = Disk::default();
        let (tenant, name) = (Slug::default_tenant(), PluginName::parse("p").unwrap());
        let (store, tasks) = open(&disk);
        let shard = store.shard(&tenant);
        shard.put_tenant(&tenant, |_| Ok(("Default".to_owned(), Quota::default()))).await.unwrap();
        for digest in [[1; 32], [2; 32], [3; 32]] {
            let upload = (Bytes::from_static(b"\0asm"), digest);
            shard.put_plugin(&tenant, (&name, "filter"), upload, digest == [1; 32]).await.unwrap();
        }
        let refused = shard.start_canary(&tenant, &name, canary(1)).await;
        assert!(matches!(refused, Err(Refused::Invalid(_))), "it is active");
        let missing = shard.start_canary(&tenant, &name, canary(9)).await;
        assert!(matches!(missing, Err(Refused::NotFound)));
        shard.start_canary(&tenant, &name, canary(2)).await.unwrap();
        let before = shard.plugin(&tenant, &name);
        drop((store, tasks));
        disk.lose_power(0.0);
        let (store, _tasks) = open(&disk);
        let shard = store.shard(&tenant);
        assert_eq!(shard.plugin(&tenant, &name), before);
        assert_eq!(before.unwrap().canary, Some(canary(2)));
        let other = shard.end_canary(&tenant, &name, 3, true).await;
        assert!(matches!(other, Err(Refused::NotFound)), "that one is not on trial");
        let promoted = shard.end_canary(&tenant, &name, 2, true).await.unwrap();
        assert_eq!((promoted.active_version, promoted.canary), (2, None));
        shard.start_canary(&tenant, &name, canary(3)).await.unwrap();
        let activated = shard.activate_plugin(&tenant, &name, 3).await.unwrap();
        assert_eq!(activated.canary, None, "what was on trial is the active one");
        shard.start_canary(&tenant, &name, canary(1)).await.unwrap();
        let rolled_back = shard.activate_plugin(&tenant, &name, 2).await.unwrap();
        assert_eq!(rolled_back.canary, Some(canary(1)), "another's trial goes on");
    }
}
