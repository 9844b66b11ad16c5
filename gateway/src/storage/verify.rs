//! Reads a whole shard and compares its tables with each other: that every row can be read, that
//! no event is missing, and that what points to a row finds it.

use std::ops::Bound;

use bytes::Bytes;

use crate::domain::{DeliveryKey, EndpointNo, Seq, TenantNo};
use crate::storage::codec::decode;
use crate::storage::event_row::decode_event;
use crate::storage::fold::{Meta, undelta};
use crate::storage::history_row::decode_entry;
use crate::storage::journal::{Rows, View};
use crate::storage::keys::{ShardNo, delivery_at, retry_at, u32_at, u64_at};
use crate::storage::{Error, Floors, Result, Table};

/// Findings beyond this many say nothing new.
const FINDINGS_MAX: usize = 100;

/// One shard under examination.
pub(super) struct Verification<'a> {
    pub(super) view: &'a dyn View,
    pub(super) shard: ShardNo,
    pub(super) meta: &'a Meta,
    /// Up to where events are gone.
    pub(super) floors: &'a Floors,
    /// Gets each table's name and how many rows were read.
    pub(super) progress: &'a mut dyn FnMut(&'static str, u64),
    pub(super) findings: Vec<String>,
}

impl Verification<'_> {
    /// Runs all checks; what is wrong is in `findings` then.
    ///
    /// # Errors
    /// When the store cannot be read for a passing reason.
    pub(super) fn run(&mut self) -> Result<()> {
        let owners = self.events()?;
        self.owners(&owners)?;
        self.deliveries()?;
        self.history()?;
        for table in [Table::Retries, Table::Dead] {
            self.rows(table, |this, key, _| {
                let delivery = match table {
                    Table::Retries => retry_at(key)?.2,
                    _ => delivery_at(key, 12)?,
                };
                let gone = match table {
                    Table::Dead => this.floors.of(TenantNo(u32_at(key, 0)?)),
                    _ => Seq(this.floors.shard),
                };
                if delivery.seq <= gone {
                    return Ok(None);
                }
                let first = this.shard.history(delivery, 0);
                let known = this.view.get(Table::History, &first)?.is_some();
                Ok((!known).then(|| format!("{delivery:?} has no history")))
            })?;
        }
        // What these rows say takes the master key to read; that they can be read does not.
        for table in [Table::Ids, Table::Cursors, Table::Catalog, Table::Components] {
            self.rows(table, |_, _, _| Ok(None))?;
        }
        Ok(())
    }

    fn find(&mut self, table: Table, what: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(format!("shard {}, {}: {what}", self.shard.0, table.name()));
        }
    }

    /// Reads a table through; `check` says what is wrong with a row.
    fn rows(
        &mut self,
        table: Table,
        mut check: impl FnMut(&Self, &Bytes, &Bytes) -> Result<Option<String>>,
    ) -> Result<()> {
        let (from, to) = (self.shard.all(), self.shard.end());
        let view = self.view;
        let (from, to) = (Bound::Included(&from[..]), Bound::Excluded(&to[..]));
        let rows: Rows<'_> = view.range(table, from, to);
        let mut read = 0;
        for row in rows {
            read += 1;
            let wrong = match row {
                Ok((key, value)) => check(self, &key, &value),
                Err(error) => Err(error),
            };
            match wrong {
                Ok(None) => {}
                Ok(Some(what)) => self.find(table, what),
                Err(Error::Corrupt(what)) => self.find(table, what),
                Err(error) => return Err(error),
            }
        }
        (self.progress)(table.name(), read);
        Ok(())
    }

    /// The number of the first event that must be there.
    fn first(&self) -> u64 {
        self.floors.shard + 1
    }

    /// The tenant of each event from the first on.
    fn events(&mut self) -> Result<Vec<u32>> {
        let (first, last) = (self.first(), self.meta.last_seq);
        let mut owners = Vec::new();
        self.rows(Table::Events, |_, key, value| {
            let seq = u64_at(key, 0)?;
            if seq < first {
                return Ok(None);
            }
            let next = first + owners.len() as u64;
            let event = decode_event(Seq(seq), value)?;
            owners.resize((seq - first) as usize, 0);
            owners.push(event.tenant_no.0);
            Ok((seq != next).then(|| format!("events {next} to {} are missing", seq - 1)))
        })?;
        let next = first + owners.len() as u64;
        if next != last + 1 {
            self.find(Table::Events, format!("the last is {}, it should be {last}", next - 1));
        }
        Ok(owners)
    }

    fn owners(&mut self, owners: &[u32]) -> Result<()> {
        let (first, mut listed) = (self.first(), vec![false; owners.len()]);
        self.rows(Table::ByTenant, |_, key, value| {
            let tenant = u32_at(key, 0)?;
            for seq in undelta(&decode::<Vec<u64>>(value)?) {
                let Some(place) = seq.0.checked_sub(first).map(|it| it as usize) else { continue };
                if owners.get(place) != Some(&tenant) {
                    return Ok(Some(format!("event {} is not of tenant {tenant}", seq.0)));
                }
                listed[place] = true;
            }
            Ok(None)
        })?;
        let unlisted = (first..).zip(owners.iter().zip(&listed)).filter(|(seq, (owner, it))| {
            **owner != 0 && !**it && Seq(*seq) > self.floors.of(TenantNo(**owner))
        });
        match unlisted.count() {
            0 => {}
            count => self.find(Table::ByTenant, format!("{count} events are not listed")),
        }
        Ok(())
    }

    /// What an event is fanned out to and what an endpoint gets must be the same deliveries.
    fn deliveries(&mut self) -> Result<()> {
        let (first, fanned_out) = (self.first(), self.meta.fanned_out);
        let (mut by_event, mut by_endpoint) = ((0_u64, 0_u64), (0_u64, 0_u64));
        let count = |sum: &mut (u64, u64), seq: u64, endpoint: u32| {
            let digest =
                crc32fast::hash(&[seq.to_le_bytes(), u64::from(endpoint).to_le_bytes()].concat());
            *sum = (sum.0 + 1, sum.1.wrapping_add(u64::from(digest)));
        };
        self.rows(Table::Fanout, |_, _, value| {
            let targets: Vec<(u64, Vec<u32>)> = decode(value)?;
            for (seq, endpoints) in targets.iter().filter(|it| it.0 >= first) {
                endpoints.iter().for_each(|it| count(&mut by_event, *seq, *it));
                if *seq > fanned_out {
                    return Ok(Some(format!("event {seq} is beyond the mark {fanned_out}")));
                }
            }
            Ok(None)
        })?;
        self.rows(Table::ByEndpoint, |_, key, value| {
            let endpoint = u32_at(key, 0)?;
            let seqs = undelta(&decode::<Vec<u64>>(value)?);
            let seqs = seqs.into_iter().filter(|it| it.0 >= first);
            seqs.for_each(|it| count(&mut by_endpoint, it.0, endpoint));
            Ok(None)
        })?;
        if by_event != by_endpoint {
            let what = format!("{} deliveries by event, {} by endpoint", by_event.0, by_endpoint.0);
            self.find(Table::ByEndpoint, what);
        }
        Ok(())
    }

    fn history(&mut self) -> Result<()> {
        let mut last = (DeliveryKey { seq: Seq(0), endpoint: EndpointNo(0) }, 0);
        self.rows(Table::History, |this, key, value| {
            let (delivery, entry) = (delivery_at(key, 0)?, u32_at(key, 12)?);
            if delivery.seq.0 < this.first() {
                return Ok(None);
            }
            let expected = if last.0 == delivery { last.1 + 1 } else { 0 };
            last = (delivery, entry);
            decode_entry(delivery, value)?;
            let wrong = entry != expected;
            Ok(wrong.then(|| format!("{delivery:?} has no entry {expected}")))
        })
    }
}
