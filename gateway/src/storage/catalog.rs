use std::{collections::BTreeMap, sync::Arc};

use crate::domain::{
    ApiKey, Endpoint, EndpointId, EndpointNo, Event, EventType, IngestUse, KnownType, Plugin,
    PluginName, Replay, Slug, Tenant, TenantNo,
};
use crate::storage::codec::decode;
use crate::storage::deleted::Deleted;
use crate::storage::floors::RetentionRow;
use crate::storage::fold::{Meta, kind};
use crate::storage::journal::View;
use crate::storage::keyring::{self, Keyring, MasterKeys};
use crate::storage::keys::ShardNo;
use crate::storage::record::Record;
use crate::storage::subscriptions::Subscriptions;
use crate::storage::{Error, Result, Table};

/// What tenants have configured, all of it in memory: matching and authentication ask it for
/// every event.
#[derive(Debug)]
pub struct Catalog {
    tenants: BTreeMap<Slug, TenantEntry>,
    slugs: BTreeMap<TenantNo, Slug>,
    keys: BTreeMap<String, Arc<ApiKey>>,
    endpoints: BTreeMap<EndpointNo, Arc<Endpoint>>,
    counts: EndpointCounts,
    deleted: BTreeMap<EndpointNo, Deleted>,
    pub(super) keyring: Keyring,
    pub(super) master_key: Option<[u8; 32]>,
    pub(super) operator_key: Option<[u8; 32]>,
    pub(super) last_tenant: u32,
    pub(super) last_endpoint: u32,
}

/// How many endpoints there are of each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndpointCounts {
    /// Those that get deliveries.
    pub enabled: u64,
    /// Those that do not.
    pub disabled: u64,
    /// Those whose secrets cannot be opened, so that nothing can be sent.
    pub held: u64,
}

impl EndpointCounts {
    fn of(&mut self, endpoint: &Endpoint) -> &mut u64 {
        match (endpoint.secret_unavailable, endpoint.enabled) {
            (true, _) => &mut self.held,
            (false, true) => &mut self.enabled,
            (false, false) => &mut self.disabled,
        }
    }

    fn add(&mut self, endpoint: &Endpoint) {
        *self.of(endpoint) += 1;
    }

    fn remove(&mut self, endpoint: &Endpoint) {
        *self.of(endpoint) -= 1;
    }
}

/// A tenant with what is its own.
#[derive(Debug)]
pub struct TenantEntry {
    /// The tenant.
    pub tenant: Tenant,
    /// Its endpoints by id.
    pub endpoints: BTreeMap<EndpointId, Arc<Endpoint>>,
    /// Its plugins by name.
    pub plugins: BTreeMap<PluginName, Arc<Plugin>>,
    /// Its keys and portal sessions by id.
    pub keys: BTreeMap<String, Arc<ApiKey>>,
    /// The plugins that see its events before they are stored, in order.
    pub ingest: Arc<[IngestUse]>,
    /// The event types that it has described.
    pub types: BTreeMap<EventType, Arc<KnownType>>,
    /// Its replays by id.
    pub replays: BTreeMap<String, Arc<Replay>>,
    subscriptions: Subscriptions,
}

impl TenantEntry {
    fn new(tenant: Tenant) -> Self {
        let (endpoints, plugins, keys, ingest) = Default::default();
        let (types, replays, subscriptions) = Default::default();
        Self { tenant, endpoints, plugins, keys, ingest, types, replays, subscriptions }
    }

    /// Whether an endpoint wants events of this type, filters aside.
    pub fn listens(&self, event_type: &EventType) -> bool {
        self.listeners(event_type) > 0
    }

    /// How many endpoints want events of this type, filters aside.
    pub fn listeners(&self, event_type: &EventType) -> usize {
        let candidates = self.subscriptions.candidates(event_type).into_iter();
        candidates.filter(|it| it.enabled && it.wants_type(event_type)).count()
    }

    fn put_endpoint(&mut self, endpoint: Arc<Endpoint>) {
        self.subscriptions.insert(&endpoint);
        self.endpoints.insert(endpoint.id.clone(), endpoint);
    }

    /// Unless another has its id by now.
    fn delete_endpoint(&mut self, endpoint: &Endpoint) {
        self.subscriptions.remove(endpoint);
        if self.endpoints.get(&endpoint.id).is_some_and(|it| it.no == endpoint.no) {
            self.endpoints.remove(&endpoint.id);
        }
    }
}

impl Catalog {
    /// A tenant, unless there is none of that name.
    pub fn tenant(&self, slug: &Slug) -> Option<&TenantEntry> {
        self.tenants.get(slug)
    }

    /// All tenants of the shard, by name.
    pub fn tenants(&self) -> impl DoubleEndedIterator<Item = &TenantEntry> {
        self.tenants.values()
    }

    /// A key of any tenant.
    pub fn key(&self, id: &str) -> Option<&Arc<ApiKey>> {
        self.keys.get(id)
    }

    /// An endpoint by its number, unless it has been deleted.
    pub fn endpoint(&self, no: EndpointNo) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(&no)
    }

    /// The endpoints that an event becomes a delivery for.
    pub fn wanting(&self, event: &Event) -> Vec<Arc<Endpoint>> {
        let candidates = self.candidates(event, usize::MAX).unwrap_or_default().into_iter();
        candidates.filter(|it| it.wants(event)).cloned().collect()
    }

    /// The same, unless a filter or more than `most` endpoints would have to be asked.
    pub(super) fn wanting_unasked(&self, event: &Event, most: usize) -> Option<Vec<Arc<Endpoint>>> {
        let candidates = self.candidates(event, most)?;
        let asks = |it: &&Arc<Endpoint>| it.filter.is_some() && event.only.is_none();
        if candidates.iter().any(asks) {
            return None;
        }
        Some(candidates.into_iter().filter(|it| it.wants(event)).cloned().collect())
    }

    /// Whoever wants an event is among them, unless they are more than `most`.
    fn candidates(&self, event: &Event, most: usize) -> Option<Vec<&Arc<Endpoint>>> {
        match event.only {
            Some(no) => Some(self.endpoint(no).into_iter().collect()),
            None => match self.tenant(&event.tenant) {
                Some(it) => it.subscriptions.few_candidates(&event.event_type, most),
                None => Some(Vec::new()),
            },
        }
    }

    /// The id an endpoint has or had.
    pub fn endpoint_id(&self, no: EndpointNo) -> Option<EndpointId> {
        let live = self.endpoints.get(&no).map(|it| it.id.clone());
        live.or_else(|| self.deleted.get(&no).map(|it| it.id.clone()))
    }

    /// Endpoints that were deleted and are still named by a delivery.
    pub(super) fn deleted(&self) -> &BTreeMap<EndpointNo, Deleted> {
        &self.deleted
    }

    /// Changes what is remembered of them.
    pub(super) fn deleted_mut(&mut self) -> &mut BTreeMap<EndpointNo, Deleted> {
        &mut self.deleted
    }

    /// Whether there is a tenant of this number.
    pub(super) fn has_tenant(&self, no: TenantNo) -> bool {
        self.slugs.contains_key(&no)
    }

    /// All endpoints, by number.
    pub fn endpoints(&self) -> impl Iterator<Item = &Arc<Endpoint>> {
        self.endpoints.values()
    }

    /// How many endpoints there are, without counting them.
    pub fn endpoint_counts(&self) -> EndpointCounts {
        self.counts
    }

    /// SHA-256 of the operator's key, once one was set or made.
    pub fn operator_key(&self) -> Option<&[u8; 32]> {
        self.operator_key.as_ref()
    }

    pub(super) fn load(
        view: &dyn View,
        shard: ShardNo,
        meta: &Meta,
        masters: MasterKeys,
    ) -> Result<Self> {
        keyring::check(&masters, meta.master_key.as_ref())?;
        let mut catalog = Self {
            tenants: BTreeMap::new(),
            slugs: BTreeMap::new(),
            keys: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            counts: EndpointCounts::default(),
            deleted: BTreeMap::new(),
            keyring: Keyring::new(masters),
            master_key: meta.master_key,
            operator_key: meta.operator_key,
            last_tenant: meta.last_tenant,
            last_endpoint: meta.last_endpoint,
        };
        let (from, to) = (shard.all(), shard.end());
        let range = (std::ops::Bound::Included(&from[..]), std::ops::Bound::Excluded(&to[..]));
        // Kinds sort data keys and tenants first, so what belongs to a tenant finds them.
        for row in view.range(Table::Catalog, range.0, range.1) {
            let (key, value) = row?;
            let kind = *key.get(2).ok_or_else(|| Error::corrupt("short catalog key"))?;
            let tenant_no = crate::storage::keys::u32_at(&key, 1)?;
            catalog.load_row(kind, tenant_no, &value)?;
        }
        Ok(catalog)
    }

    fn load_row(&mut self, kind: u8, tenant_no: u32, value: &[u8]) -> Result<()> {
        let record = match kind {
            kind::DATA_KEY => {
                let (tenant, wrapped): (String, Vec<u8>) = decode(value)?;
                Record::DataKeyPut { tenant_no, tenant, wrapped }
            }
            kind::TENANT => Record::TenantPut(decode(value)?),
            kind::KEY => Record::KeyPut { tenant_no, key: decode(value)? },
            kind::ENDPOINT => Record::EndpointPut { tenant_no, endpoint: decode(value)? },
            kind::PLUGIN => {
                Record::PluginPut { tenant_no, plugin: decode(value)?, component: None }
            }
            kind::DELETED_ENDPOINT => {
                let (no, id): (u32, String) = decode(value)?;
                Record::EndpointDeleted { tenant_no, id, no }
            }
            kind::INGEST => Record::IngestPut { tenant_no, chain: decode(value)? },
            kind::EVENT_TYPE => Record::EventTypePut { tenant_no, known: decode(value)? },
            kind::REPLAY => Record::ReplayPut { tenant_no, replay: decode(value)? },
            kind::RETENTION => Record::RetentionPut { tenant_no, kept: Some(decode(value)?) },
            // Not what somebody configured: the shard reads it by itself.
            kind::FLOORS | kind::TIME | kind::STATS => return Ok(()),
            other => return Err(Error::corrupt(format!("catalog row of kind {other}"))),
        };
        self.apply(&record)
    }

    /// Follows a record that has been committed; records of other tables change nothing.
    pub(super) fn apply(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::TenantPut(row) => self.put_tenant((**row).clone().into_noun()?),
            Record::TenantDeleted { slug, no } => {
                self.keyring.forget(*no);
                self.delete_tenant(slug);
            }
            Record::DataKeyPut { tenant_no, tenant, wrapped } => {
                self.keyring.take_up(*tenant_no, tenant, wrapped);
            }
            Record::MasterKeySet(fingerprint) => self.master_key = Some(*fingerprint),
            Record::KeyPut { tenant_no, key } => {
                let key = Arc::new((**key).clone().into_noun()?);
                self.keys.insert(key.id.clone(), key.clone());
                self.with(*tenant_no, |it| drop(it.keys.insert(key.id.clone(), key)));
            }
            Record::KeyRevoked { tenant_no, id } => {
                self.keys.remove(id);
                self.with(*tenant_no, |it| drop(it.keys.remove(id)));
            }
            Record::EndpointPut { tenant_no, endpoint } => {
                let opened = (**endpoint).clone().into_noun(self.keyring.get(*tenant_no))?;
                let endpoint = Arc::new(opened);
                self.last_endpoint = self.last_endpoint.max(endpoint.no.0);
                self.counts.add(&endpoint);
                if let Some(before) = self.endpoints.insert(endpoint.no, endpoint.clone()) {
                    self.counts.remove(&before);
                    self.with(*tenant_no, |it| it.subscriptions.remove(&before));
                }
                self.with(*tenant_no, |it| it.put_endpoint(endpoint));
            }
            Record::EndpointDeleted { tenant_no, id, no } => {
                let id = EndpointId::parse(id).ok_or_else(|| Error::corrupt("endpoint id"))?;
                if let Some(gone) = self.endpoints.remove(&EndpointNo(*no)) {
                    self.counts.remove(&gone);
                    self.with(*tenant_no, |it| it.delete_endpoint(&gone));
                }
                let deleted = Deleted { tenant: TenantNo(*tenant_no), id, last: None };
                self.deleted.insert(EndpointNo(*no), deleted);
            }
            Record::PluginPut { tenant_no, plugin, component: _ } => {
                let plugin = Arc::new(plugin.clone().into_noun()?);
                let name = plugin.name.clone();
                self.with(*tenant_no, |it| drop(it.plugins.insert(name, plugin)));
            }
            Record::PluginDeleted { tenant_no, name, versions: _ } => {
                self.with(*tenant_no, |it| it.plugins.retain(|key, _| key.as_str() != name));
            }
            Record::OperatorKeySet(hash) => self.operator_key = Some(*hash),
            Record::IngestPut { .. }
            | Record::RetentionPut { .. }
            | Record::EventTypePut { .. }
            | Record::EventTypeDeleted { .. }
            | Record::ReplayPut { .. }
            | Record::ReplaysForgotten { .. } => self.apply_known(record)?,
            _ => debug_assert!(!record.is_catalog(), "a record that is not followed"),
        }
        Ok(())
    }

    /// Event types, replays, ingest chains and retentions.
    fn apply_known(&mut self, record: &Record) -> Result<()> {
        match record {
            Record::IngestPut { tenant_no, chain } => {
                let chain = chain.iter().map(|it| it.clone().into_noun());
                let chain = chain.collect::<Result<Arc<[_]>>>()?;
                self.with(*tenant_no, |it| it.ingest = chain);
            }
            Record::RetentionPut { tenant_no, kept } => {
                let kept = kept.map(RetentionRow::into_noun);
                self.with(*tenant_no, |it| it.tenant.quota.retention = kept);
            }
            Record::EventTypePut { tenant_no, known } => {
                let known = Arc::new(known.clone().into_noun()?);
                let name = known.name.clone();
                self.with(*tenant_no, |it| drop(it.types.insert(name, known)));
            }
            Record::EventTypeDeleted { tenant_no, name } => {
                self.with(*tenant_no, |it| it.types.retain(|key, _| key.as_str() != name));
            }
            Record::ReplayPut { tenant_no, replay } => {
                let replay = Arc::new((**replay).clone().into_noun()?);
                self.with(*tenant_no, |it| drop(it.replays.insert(replay.id.clone(), replay)));
            }
            Record::ReplaysForgotten { tenant_no, ids } => {
                self.with(*tenant_no, |it| it.replays.retain(|id, _| !ids.contains(id)));
            }
            _ => unreachable!("followed by `apply`"),
        }
        Ok(())
    }

    fn put_tenant(&mut self, tenant: Tenant) {
        self.last_tenant = self.last_tenant.max(tenant.no.0);
        self.slugs.insert(tenant.no, tenant.slug.clone());
        match self.tenants.get_mut(&tenant.slug) {
            Some(entry) => {
                // Has a row of its own, and a record.
                let retention = entry.tenant.quota.retention;
                entry.tenant = tenant;
                entry.tenant.quota.retention = retention;
            }
            None => {
                self.tenants.insert(tenant.slug.clone(), TenantEntry::new(tenant));
            }
        }
    }

    fn delete_tenant(&mut self, slug: &str) {
        let Some(slug) = Slug::parse(slug) else { return };
        let Some(entry) = self.tenants.remove(&slug) else { return };
        self.slugs.remove(&entry.tenant.no);
        self.keys.retain(|_, it| it.tenant != slug);
        for gone in entry.endpoints.values() {
            self.endpoints.remove(&gone.no);
            self.counts.remove(gone);
        }
    }

    fn with(&mut self, tenant_no: u32, change: impl FnOnce(&mut TenantEntry)) {
        let slug = self.slugs.get(&TenantNo(tenant_no));
        if let Some(entry) = slug.and_then(|it| self.tenants.get_mut(it)) {
            change(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Pattern, Quota, Timestamp, event_for_tests};
    use crate::storage::conformance::endpoint;
    use crate::storage::memory::Disk;
    use crate::storage::{Config, Store};
    use crate::world::{SeededEntropy, SimClock};

    #[tokio::test(start_paused = true)]
    async fn who_wants_an_event_is_known_after_each_change() {
        let clock = Arc::new(SimClock::starting_at(Timestamp(1_800_000_000_000)));
        let world = (clock as Arc<_>, Arc::new(SeededEntropy::new(1)) as Arc<_>);
        let opened = Store::simulated(&Disk::default(), &Config::default(), world);
        let (store, writers) = opened.unwrap();
        let mut running = tokio::task::JoinSet::new();
        writers.into_futures().for_each(|it| drop(running.spawn(it)));
        let tenant = Slug::default_tenant();
        let shard = store.shard(&tenant);
        shard.put_tenant(&tenant, |_| Ok(("T".into(), Quota::default()))).await.unwrap();
        let wanting = |event_type: &str, only: Option<EndpointNo>| {
            let event = Event { only, ..event_for_tests(event_type, "{}") };
            shard.catalog().wanting(&event).iter().map(|it| it.no.0).collect::<Vec<_>>()
        };
        let of_types = |types: &[&str], it: Endpoint| {
            let event_types = types.iter().map(|it| Pattern::parse(it).unwrap()).collect();
            Endpoint { event_types, ..it }
        };
        let id = EndpointId::parse("mine").unwrap();
        let make =
            |no| Endpoint { id: id.clone(), ..of_types(&["order.*", "order.paid"], endpoint(no)) };
        shard.create_endpoint(&tenant, make).await.unwrap();
        assert_eq!((wanting("order.paid", None), wanting("other", None)), (vec![1], vec![]));

        let change = |it| Ok(of_types(&["other"], it));
        shard.update_endpoint(&tenant, &id, change).await.unwrap();
        assert_eq!((wanting("order.paid", None), wanting("other", None)), (vec![], vec![1]));

        let change = |it| Ok(Endpoint { enabled: false, ..it });
        shard.update_endpoint(&tenant, &id, change).await.unwrap();
        assert_eq!(wanting("other", None), [0; 0]);
        assert_eq!(wanting("order.paid", Some(EndpointNo(1))), [1], "it is meant for this one");

        shard.delete_endpoint(&tenant, &id, |_| Ok(())).await.unwrap();
        assert_eq!(wanting("order.paid", Some(EndpointNo(1))), [0; 0]);
        shard.create_endpoint(&tenant, make).await.unwrap();
        assert_eq!(wanting("order.paid", None), [2]);
        let entry_knows_it = shard.catalog().tenant(&tenant).unwrap().endpoints.contains_key(&id);
        assert!(entry_knows_it);
    }
}
