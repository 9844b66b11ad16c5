//! What is left of endpoints that were deleted, and when it goes: what waited for another attempt
//! at once, the name with the last delivery that shows it.

use std::ops::Bound;

use bytes::Bytes;

use crate::domain::{EndpointId, EndpointNo, Seq, TenantNo};
use crate::storage::codec::decode;
use crate::storage::fold::{kind, undelta};
use crate::storage::keys::u64_at;
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

/// Rows removed at once.
const ROWS_AT_ONCE: usize = 500;
/// Endpoints looked at before others have a turn.
const ENDPOINTS_AT_ONCE: usize = 64;

/// What is remembered of an endpoint that was deleted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deleted {
    pub(super) tenant: TenantNo,
    /// The id it had, for its deliveries.
    pub(super) id: EndpointId,
    /// The last event that it was to have; `None`: its rows have not been looked at.
    pub(super) last: Option<Seq>,
}

impl Shard {
    /// Removes what waited for endpoints that were deleted, and the names of those of which no
    /// delivery is shown any more. After a crash some of it may be there again, and goes again.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub(super) async fn sweep_deleted(&self) -> Result<()> {
        let all = self.catalog().deleted().clone();
        for (place, (no, deleted)) in all.into_iter().enumerate() {
            if place % ENDPOINTS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
            let floor = {
                // Nobody can ask for anything of a tenant that is gone.
                let asks = self.catalog().has_tenant(deleted.tenant);
                if asks { self.floors().of(deleted.tenant) } else { Seq(u64::MAX) }
            };
            if deleted.last.is_some_and(|it| it > floor) {
                continue;
            }
            // What was under way when it was deleted may have left something since the last look.
            self.remove_waiting(no).await?;
            let last = self.last_of(no)?;
            if last <= floor && deleted.last.is_some() {
                self.forget_name(no, &deleted)?;
            } else if let Some(it) = self.catalog_mut().deleted_mut().get_mut(&no) {
                it.last = Some(last);
            }
        }
        Ok(())
    }

    /// Removes the rows of what waits for another attempt, its cursor and its health.
    async fn remove_waiting(&self, no: EndpointNo) -> Result<()> {
        let (from, to) = (self.no.endpoint(no), self.no.endpoint(EndpointNo(no.0 + 1)));
        loop {
            let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            let rows = self.view.range(Table::Retries, range.0, range.1).take(ROWS_AT_ONCE);
            let keys: Vec<Bytes> = rows.map(|it| Ok(it?.0)).collect::<Result<_>>()?;
            if keys.is_empty() {
                break;
            }
            self.view.remove(Table::Retries, keys)?;
            tokio::task::yield_now().await;
        }
        for table in [Table::Cursors, Table::Health] {
            if self.view.get(table, &from)?.is_some() {
                self.view.remove(table, vec![from.clone()])?;
            }
        }
        Ok(())
    }

    /// The last event that an endpoint was to have, by itself or by a replay; 0: none.
    fn last_of(&self, no: EndpointNo) -> Result<Seq> {
        let (from, to) = (self.no.endpoint(no), self.no.endpoint(EndpointNo(no.0 + 1)));
        let newest = |table| {
            let range = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
            self.view.range_back(table, range.0, range.1).next().transpose()
        };
        let own = match newest(Table::ByEndpoint)? {
            Some((_, chunk)) => undelta(&decode::<Vec<u64>>(&chunk)?).last().copied(),
            None => None,
        };
        let replayed = match newest(Table::Backfills)? {
            Some((key, _)) => Some(Seq(u64_at(&key, 4)?)),
            None => None,
        };
        Ok(own.max(replayed).unwrap_or(Seq(0)))
    }

    fn forget_name(&self, no: EndpointNo, deleted: &Deleted) -> Result<()> {
        let key = self.no.catalog(kind::DELETED_ENDPOINT, deleted.tenant, &format!("{:010}", no.0));
        self.view.remove(Table::Catalog, vec![key])?;
        self.catalog_mut().deleted_mut().remove(&no);
        Ok(())
    }
}
