//! What can be looked up. Lists go from the newest to the oldest and read what they show, not
//! what is stored; `before` is where the page before ended.

use std::{ops::Bound, sync::Arc};

use crate::domain::{
    DeadLetter, DeliveryKey, DeliveryState, EndpointNo, Event, Seq, TenantNo, Timestamp,
};
use crate::storage::codec::decode;
use crate::storage::fold::undelta;
use crate::storage::history_row::{Entry, decode_entry, reason_of};
use crate::storage::keys::{delivery_at, u32_at, u64_at};
use crate::storage::shard::Shard;
use crate::storage::{Result, Table};

impl Shard {
    /// The tenant's events before `before`, newest first.
    pub fn events_before(
        &self,
        tenant: TenantNo,
        before: Seq,
    ) -> impl Iterator<Item = Result<Arc<Event>>> + '_ {
        let seqs = self.seqs_before(Table::ByTenant, tenant.0, before);
        let kept = kept_above(self.floors().of(tenant));
        seqs.take_while(kept).filter_map(|seq| match seq.and_then(|it| self.event(it)) {
            Ok(event) => event.map(Ok),
            Err(error) => Some(Err(error)),
        })
    }

    /// The endpoint's deliveries of events before `before`, newest first.
    pub fn deliveries_before(
        &self,
        endpoint: EndpointNo,
        before: Seq,
    ) -> impl Iterator<Item = Result<DeliveryKey>> + '_ {
        let mut fanned = self.seqs_before(Table::ByEndpoint, endpoint.0, before).peekable();
        let mut replayed = self.backfills_before(endpoint, before).peekable();
        let merged = std::iter::from_fn(move || match (fanned.peek(), replayed.peek()) {
            (Some(Ok(one)), Some(Ok(other))) if other > one => replayed.next(),
            (None, _) => replayed.next(),
            _ => fanned.next(),
        });
        let kept = kept_above(self.floor_of(endpoint));
        merged.take_while(kept).map(move |seq| Ok(DeliveryKey { seq: seq?, endpoint }))
    }

    /// The last event that is gone for an endpoint.
    fn floor_of(&self, endpoint: EndpointNo) -> Seq {
        let catalog = self.catalog();
        let slug = catalog.endpoint(endpoint).map(|it| &it.tenant);
        let tenant = slug.and_then(|it| catalog.tenant(it)).map(|it| it.tenant.no);
        let floors = self.floors();
        tenant.map_or(Seq(floors.shard), |it| floors.of(it))
    }

    fn backfills_before(
        &self,
        endpoint: EndpointNo,
        before: Seq,
    ) -> impl Iterator<Item = Result<Seq>> + '_ {
        let from = self.no.endpoint_seq(endpoint, Seq(0));
        let to = self.no.endpoint_seq(endpoint, before);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let rows = self.view.range_back(Table::Backfills, from, to);
        rows.map(|row| Ok(Seq(u64_at(&row?.0, 4)?)))
    }

    /// The endpoints an event was given to, by fan-out or by a replay.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn receivers(&self, seq: Seq) -> Result<Vec<EndpointNo>> {
        let mut endpoints = self.targets(seq)?;
        let key = |endpoint| self.no.backfill(DeliveryKey { seq, endpoint: EndpointNo(endpoint) });
        let (from, to) = (key(0), key(u32::MAX));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        for row in self.view.range(Table::Backfills, range.0, range.1) {
            endpoints.push(EndpointNo(u32_at(&row?.0, 12)?));
        }
        endpoints.sort_unstable();
        Ok(endpoints)
    }

    fn seqs_before(
        &self,
        table: Table,
        owner: u32,
        before: Seq,
    ) -> impl Iterator<Item = Result<Seq>> + '_ {
        // Tenants and endpoints have keys of one form.
        let from = self.no.tenant_seq(TenantNo(owner), Seq(0));
        let to = self.no.tenant_seq(TenantNo(owner), before);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let chunks = self.view.range_back(table, from, to);
        chunks.flat_map(move |row| match row.and_then(|(_, value)| decode::<Vec<u64>>(&value)) {
            Ok(deltas) => {
                let seqs = undelta(&deltas).into_iter().rev().filter(|it| *it < before);
                seqs.map(Ok).collect::<Vec<_>>()
            }
            Err(error) => vec![Err(error)],
        })
    }

    /// The endpoints an event was fanned out to.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn targets(&self, seq: Seq) -> Result<Vec<EndpointNo>> {
        let (from, to) = (self.no.all(), self.no.seq(seq));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let Some(row) = self.view.range_back(Table::Fanout, range.0, range.1).next() else {
            return Ok(Vec::new());
        };
        let targets: Vec<(u64, Vec<u32>)> = decode(&row?.1)?;
        let found = targets.into_iter().find(|(it, _)| *it == seq.0);
        let endpoints = found.map(|(_, endpoints)| endpoints).unwrap_or_default();
        Ok(endpoints.into_iter().map(EndpointNo).collect())
    }

    /// Everything that happened to a delivery, oldest first.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn history(&self, key: DeliveryKey) -> Result<Vec<Entry>> {
        let (from, to) = (self.no.history(key, 0), self.no.history(key, u32::MAX));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let rows = self.view.range(Table::History, range.0, range.1);
        rows.map(|row| decode_entry(key, &row?.1)).collect()
    }

    /// Where a delivery stands. What an endpoint that is gone has not received is cancelled.
    ///
    /// # Errors
    /// When storage cannot be read.
    pub fn state(&self, key: DeliveryKey) -> Result<DeliveryState> {
        let (from, to) = (self.no.history(key, 0), self.no.history(key, u32::MAX));
        let range = (Bound::Included(&from[..]), Bound::Included(&to[..]));
        let last = self.view.range_back(Table::History, range.0, range.1).next();
        let last = last.map(|row| decode_entry(key, &row?.1)).transpose()?;
        Ok(self.state_after(key, last.as_ref()))
    }

    /// Where a delivery stands of which this happened last.
    pub fn state_after(&self, key: DeliveryKey, last: Option<&Entry>) -> DeliveryState {
        let state = last.map_or(DeliveryState::Pending, Entry::state);
        let open = matches!(state, DeliveryState::Pending | DeliveryState::Retrying { .. });
        let gone = open && self.catalog().endpoint(key.endpoint).is_none();
        if gone { DeliveryState::Cancelled } else { state }
    }

    /// The tenant's dead letters that died before `before`, newest first.
    pub fn dead_before(
        &self,
        tenant: TenantNo,
        before: (Timestamp, DeliveryKey),
    ) -> impl Iterator<Item = Result<DeadLetter>> + '_ {
        let least = DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) };
        let from = self.no.dead(tenant, Timestamp(0), least);
        let to = self.no.dead(tenant, before.0, before.1);
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let floor = self.floors().of(tenant);
        let letters = self.view.range_back(Table::Dead, from, to).map(|row| {
            let (key, value) = row?;
            Ok(DeadLetter {
                delivery: delivery_at(&key, 12)?,
                reason: reason_of(decode(&value)?),
                died_at: Timestamp(u64_at(&key, 4)?),
            })
        });
        let gone =
            move |it: &Result<DeadLetter>| it.as_ref().is_ok_and(|it| it.delivery.seq <= floor);
        letters.filter(move |it| !gone(it))
    }
}

/// Whether an event is above the last one that is gone; from new to old, so the first that is not
/// ends a list.
fn kept_above(floor: Seq) -> impl Fn(&Result<Seq>) -> bool {
    move |seq| !seq.as_ref().is_ok_and(|it| *it <= floor)
}
