use bytes::Bytes;

/// The tables of the view. Each key begins with the shard, then with what the table is read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// seq → event.
    Events,
    /// tenant, first seq → the tenant's events of one batch.
    ByTenant,
    /// tenant, chosen id → seq and digest.
    Ids,
    /// first seq → the endpoints of each event of one fan-out.
    Fanout,
    /// endpoint, first seq → the endpoint's events of one fan-out.
    ByEndpoint,
    /// seq, endpoint, number → what happened to a delivery: attempts and requests for more.
    History,
    /// endpoint, share, due, seq → a delivery that waits for another attempt.
    Retries,
    /// tenant, died at, seq, endpoint → why.
    Dead,
    /// endpoint → up to where all its deliveries have history.
    Cursors,
    /// endpoint → what is remembered of one that fails.
    Health,
    /// kind, tenant, name → tenants, keys, endpoints and plugins.
    Catalog,
    /// endpoint, seq → an event that only a replay gave to the endpoint; and the same by the event.
    Backfills,
    /// tenant, at, number → who changed what.
    Audit,
    /// tenant, plugin, version → the component.
    Components,
    /// The applied sequence number, counters and marks.
    Meta,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 15] = [
        Self::Events,
        Self::ByTenant,
        Self::Ids,
        Self::Fanout,
        Self::ByEndpoint,
        Self::History,
        Self::Retries,
        Self::Dead,
        Self::Cursors,
        Self::Health,
        Self::Catalog,
        Self::Backfills,
        Self::Audit,
        Self::Components,
        Self::Meta,
    ];

    /// Its name on disk.
    pub fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::ByTenant => "by_tenant",
            Self::Ids => "ids",
            Self::Fanout => "fanout",
            Self::ByEndpoint => "by_endpoint",
            Self::History => "history",
            Self::Retries => "retries",
            Self::Dead => "dead",
            Self::Cursors => "cursors",
            Self::Health => "health",
            Self::Catalog => "catalog",
            Self::Backfills => "backfills",
            Self::Audit => "audit",
            Self::Components => "components",
            Self::Meta => "meta",
        }
    }
}

/// What one batch writes, in order. A key that is written twice keeps the later write.
#[derive(Debug, Default)]
pub struct Changes {
    /// Table, key, and the new value or `None` to remove it.
    pub rows: Vec<(Table, Bytes, Option<Bytes>)>,
}

impl Changes {
    pub(super) fn put(&mut self, table: Table, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.rows.push((table, key.into(), Some(value.into())));
    }

    pub(super) fn remove(&mut self, table: Table, key: impl Into<Bytes>) {
        self.rows.push((table, key.into(), None));
    }
}
