use crate::domain::{Slug, Timestamp};

/// One change that somebody made: history, never edited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number within the shard.
    pub no: u64,
    /// When.
    pub at: Timestamp,
    /// In which tenant, unless it belongs to none.
    pub tenant: Option<Slug>,
    /// Who: a key's id, `operator`, or `gateway` when it did so by itself.
    pub by: String,
    /// The request that asked for it.
    pub request_id: String,
    /// The operation, as the API names it.
    pub operation: String,
    /// What was changed, such as `endpoint ep_…`.
    pub subject: String,
    /// JSON of how it was, secrets left out.
    pub before: Option<String>,
    /// JSON of how it is, secrets left out.
    pub after: Option<String>,
}
