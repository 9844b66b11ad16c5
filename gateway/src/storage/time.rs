//! What the store knows of time. To a start, a machine whose clock is wrong looks as one that was
//! off for long; so what the clock says is compared with when the store was last in use.
//!
//! **Invariant:** from one turn to the next, events lie in order of when they were accepted.

use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::domain::{Seq, TenantNo, Timestamp};
use crate::storage::codec::decode;
use crate::storage::event_row::decode_event;
use crate::storage::fold::{Meta, kind};
use crate::storage::journal::View;
use crate::storage::keys::ShardNo;
use crate::storage::record::Record;
use crate::storage::shard::Shard;
use crate::storage::store::Store;
use crate::storage::writer::Command;
use crate::storage::{Result, Table};
use crate::telemetry::CLOCK_SKEWED;
use crate::world::Clock;

/// A clock that is so much ahead of the store is not believed at once.
const AHEAD_MAX: Duration = Duration::from_secs(24 * 3600);
/// For so long it is not: somebody may look, and set it right.
const DOUBTED_FOR: Duration = Duration::from_secs(3600);
/// A clock that is so much behind the store is told of.
const BEHIND_MAX: Duration = Duration::from_secs(30);

/// What a shard has on disk of time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TimeRow {
    /// When it was last in use, by a clock that was believed.
    seen: u64,
    /// Where time went back, in order: from which event on, and to when. It does where a clock
    /// that was wrong for a while is right again.
    turns: Vec<(u64, u64)>,
    /// Whether a clock was in use that was not believed.
    doubted: bool,
}

impl TimeRow {
    /// Where it lies.
    pub(super) fn key(shard: ShardNo) -> Bytes {
        shard.catalog(kind::TIME, TenantNo(0), "")
    }

    /// Of `events`, the part in which the first one that was accepted at `at` or later lies, with
    /// all before it from earlier and all behind it from later.
    fn stretch(&self, at: Timestamp, events: Range<u64>) -> Range<u64> {
        // What lies before a turn was really accepted before it, whatever its clock said.
        let behind = self.turns.iter().rposition(|(_, turned)| *turned < at.0);
        let start = behind.map_or(0, |it| self.turns[it].0).max(events.start);
        let next = self.turns.get(behind.map_or(0, |it| it + 1));
        let end = next.map_or(events.end, |it| it.0.min(events.end));
        start..end.max(start)
    }
}

/// What a start finds in a shard.
pub(super) struct Past {
    row: Option<TimeRow>,
    last_seq: u64,
    /// When its last event was accepted, if it is there.
    last: Option<Timestamp>,
}

impl Past {
    pub(super) fn read(view: &dyn View, shard: ShardNo, meta: &Meta) -> Result<Self> {
        let row = view.get(Table::Catalog, &TimeRow::key(shard))?;
        let row = row.map(|it| decode(&it)).transpose()?;
        let seq = Seq(meta.last_seq);
        let last = view.get(Table::Events, &shard.seq(seq))?;
        let last = last.map(|it| decode_event(seq, &it)).transpose()?.map(|it| it.accepted_at);
        Ok(Self { row, last_seq: meta.last_seq, last })
    }

    /// When it was last in use. Earlier builds did not note that.
    fn seen(&self) -> Option<Timestamp> {
        self.row.as_ref().map(|it| Timestamp(it.seen)).or(self.last)
    }
}

/// Whether the machine's clock is believed; the same for all shards.
#[derive(Debug, Clone, Default)]
pub(super) struct Doubt(Arc<Mutex<Option<Instant>>>);

impl Doubt {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the clock is still not believed. It is after a while, unless it was set back since.
    fn holds(&self, now: Timestamp, wall: Timestamp) -> bool {
        let mut since = self.since();
        let Some(began) = *since else { return false };
        if began.elapsed() < DOUBTED_FOR || wall + AHEAD_MAX < now {
            return true;
        }
        *since = None;
        CLOCK_SKEWED.show(0.0, &[]);
        tracing::warn!("the machine's clock is believed from now on: what is too old goes");
        false
    }
}

/// Compares the machine's clock with what the shards hold, and lets the clock begin where it may.
pub(super) fn begin(pasts: Vec<Past>, clock: &dyn Clock, trusted: bool) -> (Vec<TimeRow>, Doubt) {
    let (machine, doubt) = (clock.wall(), Doubt::default());
    let seen = pasts.iter().filter_map(Past::seen).max().filter(|_| !trusted);
    if let Some(seen) = seen {
        if machine > seen + AHEAD_MAX {
            tracing::warn!(
                machine_clock = %machine,
                last_in_use = %seen,
                "the machine's clock is far ahead of when the store was last in use: for an hour \
                 nothing expires, no event is trimmed and no endpoint is disabled. If the clock \
                 is wrong, stop the gateway and set it; if it is right, wait, or start with \
                 --trust-clock"
            );
            CLOCK_SKEWED.show(1.0, &[]);
            *doubt.since() = Some(Instant::now());
        } else if machine + BEHIND_MAX < seen {
            tracing::warn!(
                machine_clock = %machine,
                last_in_use = %seen,
                "the machine's clock is behind when the store was last in use: the gateway's time \
                 goes on from there. If the clock is wrong, set it; if it is right, start once \
                 with --trust-clock"
            );
        }
        clock.not_before(seen);
        // Beyond that, a clock that was not believed said so.
        let last = pasts.iter().filter_map(|it| it.last).max();
        let last = last.filter(|it| *it <= clock.now() + AHEAD_MAX);
        last.into_iter().for_each(|it| clock.not_before(it));
    }
    let now = clock.now();
    let begun = |it: Past| {
        let mut row = it.row.unwrap_or_default();
        row.doubted |= trusted;
        if it.last.is_some_and(|it| it > now) {
            row.doubted = true;
            row.turns.push((it.last_seq + 1, now.0));
        }
        TimeRow { seen: seen.unwrap_or(now).0, ..row }
    };
    (pasts.into_iter().map(begun).collect(), doubt)
}

impl Shard {
    /// By which time what is old may go; `None` while the machine's clock is not believed. What
    /// is gone does not come back: where the clock was set back since, the earlier time.
    pub fn time_of_expiry(&self) -> Option<Timestamp> {
        let (now, wall) = (self.clock.now(), self.clock.wall());
        (!self.doubt.holds(now, wall)).then_some(now.min(wall))
    }

    /// Writes down that the store is in use, unless the machine's clock is not believed.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn note_time(&self) -> Result<()> {
        if self.time_of_expiry().is_none() {
            return Ok(());
        }
        let record = Record::TimeNoted(self.time_now());
        self.send(Command::Note { record, leased: false }).await
    }

    fn time_now(&self) -> TimeRow {
        let (now, floor) = (self.clock.now(), self.floors().shard);
        let mut time = self.time();
        time.turns.retain(|it| it.0 > floor);
        time.doubted = self.time_of_expiry().is_none();
        if !time.doubted {
            time.seen = now.0;
        }
        time.clone()
    }

    /// Of `events`, the part in which the first one that was accepted at `at` or later lies.
    pub(super) fn stretch(&self, at: Timestamp, events: Range<u64>) -> Range<u64> {
        self.time().stretch(at, events)
    }

    fn time(&self) -> MutexGuard<'_, TimeRow> {
        self.time.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Writes down what a start found of time, and plans again what a wrong clock planned; to be
    /// done before events are accepted.
    ///
    /// # Errors
    /// When the store has stopped.
    pub async fn note_start(&self) -> Result<()> {
        for shard in self.shards() {
            if shard.time().doubted {
                shard.plan_again().await?;
            }
            // What was counted is in memory from here on: a crash must not leave it as it was.
            let found = vec![Record::TimeNoted(shard.time_now()), Record::StatsKept(None)];
            shard.commit(found).await?;
        }
        Ok(())
    }

    /// Whether the machine's clock is not believed for now.
    pub fn doubts_clock(&self) -> bool {
        self.shards().iter().any(|it| it.time_of_expiry().is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_searched_for_between_two_turns() {
        // A right clock, one that is ahead, one that is ahead less, and a right one again.
        let accepted = [10, 20, 30, 900, 910, 910, 500, 510, 31, 32, 45];
        let row = TimeRow { seen: 45, turns: vec![(7, 500), (9, 31)], doubted: false };
        for at in 0..1000 {
            let expected = (0..accepted.len()).find(|it| {
                // Whatever came before something was accepted before it.
                accepted[*it..].iter().all(|it| *it >= at)
            });
            let part = row.stretch(Timestamp(at), 1..12);
            let found = part.clone().find(|seq| accepted[*seq as usize - 1] >= at);
            let found = found.unwrap_or(part.end);
            assert_eq!(found, expected.map_or(12, |it| it as u64 + 1), "{at}: {part:?}");
            let sorted = accepted[part.start as usize - 1..part.end as usize - 1].is_sorted();
            assert!(sorted, "{at}: {part:?}");
        }
        assert_eq!(row.stretch(Timestamp(5), 10..12), 10..10, "all of that part is gone");
        assert_eq!(TimeRow::default().stretch(Timestamp(5), 3..9), 3..9);
    }
}
