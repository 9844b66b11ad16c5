//! Who changed what. An audit record is written in the same batch as the change it tells of, so
//! there is none without the other.

use std::{ops::Bound, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::{
    ApiKey, AuditRecord, DeliveryState, Endpoint, IngestUse, KnownType, Plugin, Replay, Slug,
    Tenant, TenantNo, Timestamp,
};
use crate::storage::codec::decode;
use crate::storage::keys::u64_at;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::writer::Command;
use crate::storage::{Error, Result, Table};

/// What a change is about, as it was or as it is.
#[derive(Debug, Clone, Copy)]
pub enum Noun<'a> {
    /// A tenant.
    Tenant(&'a Tenant),
    /// A key or a portal session.
    Key(&'a ApiKey),
    /// An endpoint.
    Endpoint(&'a Endpoint),
    /// An event type.
    EventType(&'a KnownType),
    /// A plugin.
    Plugin(&'a Plugin),
    /// A replay.
    Replay(&'a Replay),
    /// A tenant's ingest chain.
    Ingest(&'a [IngestUse]),
    /// A delivery.
    Delivery(&'a DeliveryState),
    /// So many dead letters to be attempted again.
    Redrive(u64),
    /// How much the gateway logs.
    LogLevel(&'a str),
}

/// Who makes a change, and how nouns look to people; it surrounds the handling of a request.
#[derive(Clone)]
pub struct Author {
    /// A key's id, or `operator`.
    pub by: String,
    /// The request's name.
    pub request_id: String,
    /// The operation, as the API names it.
    pub operation: &'static str,
    /// The noun before and after, as the API shows it, secrets left out.
    pub render: fn(Option<Noun<'_>>, Option<Noun<'_>>) -> [Option<Value>; 2],
}

tokio::task_local! {
    static AUTHOR: Arc<Author>;
}

impl Author {
    /// Does `work` in the author's name: what it changes is told of under it. What nobody asked
    /// for is the gateway's own doing.
    pub async fn makes<T>(self, work: impl Future<Output = T>) -> T {
        AUTHOR.scope(Arc::new(self), work).await
    }

    fn current() -> Option<Arc<Self>> {
        AUTHOR.try_with(Arc::clone).ok()
    }
}

/// A change to tell of.
pub(super) struct Change<'a> {
    pub(super) tenant: Option<(&'a Slug, TenantNo)>,
    /// Such as `endpoint ep_…`.
    pub(super) subject: String,
    pub(super) before: Option<Noun<'a>>,
    pub(super) after: Option<Noun<'a>>,
}

/// An audit record on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct AuditRow {
    pub(super) at: u64,
    pub(super) tenant: Option<(String, u32)>,
    by: String,
    request_id: String,
    operation: String,
    subject: String,
    before: Option<String>,
    after: Option<String>,
}

impl AuditRow {
    pub(super) fn into_noun(self, no: u64) -> Result<AuditRecord> {
        let slug =
            |(slug, _): (String, u32)| Slug::parse(&slug).ok_or_else(|| Error::corrupt("tenant"));
        Ok(AuditRecord {
            no,
            at: Timestamp(self.at),
            tenant: self.tenant.map(slug).transpose()?,
            by: self.by,
            request_id: self.request_id,
            operation: self.operation,
            subject: self.subject,
            before: self.before,
            after: self.after,
        })
    }
}

impl Shard {
    /// The record of a change, to be committed with it.
    pub(super) fn audited(&self, change: &Change<'_>) -> Record {
        let author = Author::current();
        let shown = author.as_ref().map(|it| (it.render)(change.before, change.after));
        let [before, after] = shown.unwrap_or_default().map(|it| it.map(|it| it.to_string()));
        let tenant = change.tenant.map(|(slug, no)| (slug.to_string(), no.0));
        let (by, request_id, operation) = match &author {
            Some(it) => (it.by.clone(), it.request_id.clone(), it.operation.to_owned()),
            None => ("gateway".to_owned(), String::new(), "gateway".to_owned()),
        };
        Record::Audited(Box::new(AuditRow {
            at: self.clock.now().0,
            tenant,
            by,
            request_id,
            operation,
            subject: change.subject.clone(),
            before,
            after,
        }))
    }

    /// Commits a change together with its audit record.
    pub(super) async fn commit_change(
        &self,
        change: &Change<'_>,
        mut records: Vec<Record>,
    ) -> Result<()> {
        records.push(self.audited(change));
        self.commit(records).await
    }

    /// Tells of what somebody did that no row of the store shows, such as `backup`.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn tell_done(
        &self,
        subject: &str,
        before: Option<Noun<'_>>,
        after: Option<Noun<'_>>,
    ) -> Result<()> {
        let change = Change { tenant: None, subject: subject.to_owned(), before, after };
        self.commit_change(&change, Vec::new()).await
    }

    /// Tells that a key was refused something for want of its scope. It need not be durable at
    /// once: nothing was changed.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn tell_refusal(&self, tenant: &Slug, key: &str) -> Result<()> {
        let no = self.catalog().tenant(tenant).map(|it| it.tenant.no);
        let tenant = no.map(|no| (tenant, no));
        let subject = format!("refused: key {key} lacks the scope");
        let record = self.audited(&Change { tenant, subject, before: None, after: None });
        self.send(Command::Note { record, leased: false }).await
    }

    /// What was changed in a tenant, or by all in all, before `before`, newest first.
    pub fn audit_before(
        &self,
        tenant: Option<TenantNo>,
        before: (Timestamp, u64),
    ) -> impl Iterator<Item = Result<AuditRecord>> + '_ {
        let tenant = tenant.unwrap_or(ALL);
        let from = self.no.audit(tenant, Timestamp(self.floors().audit), 0);
        let to = self.no.audit(tenant, before.0, before.1);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        self.view.range_back(Table::Audit, from, to).map(|row| {
            let (key, value) = row?;
            decode::<AuditRow>(&value)?.into_noun(u64_at(&key, 12)?)
        })
    }
}

/// Under this number stands everything, whatever tenant it belongs to.
pub(super) const ALL: TenantNo = TenantNo(u32::MAX);
