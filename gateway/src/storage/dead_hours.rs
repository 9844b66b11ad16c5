use std::collections::{BTreeMap, BTreeSet};

use crate::domain::{Seq, TenantNo, Timestamp};

/// An hour in milliseconds.
pub(super) const HOUR: u64 = 3_600_000;

/// In which hours a tenant's deliveries died, and the first event of each hour: what tells up to
/// where dead letters hold events back, and where those lie that are too old, without a look at
/// the rest. A dead letter that was taken back counts until its hour is over all the same.
#[derive(Debug, Default)]
pub(super) struct DeadHours(BTreeMap<(u32, u64), Seq>);

impl DeadHours {
    /// A delivery of this event died.
    pub(super) fn note(&mut self, tenant: TenantNo, died_at: Timestamp, seq: Seq) {
        let first = self.0.entry((tenant.0, died_at.0 / HOUR)).or_insert(seq);
        *first = seq.min(*first);
    }

    /// The first event of which a delivery died between `cutoff` and now, to the hour. What died
    /// later than now did so by a clock that was wrong, and goes with its event.
    pub(super) fn first_since(
        &self,
        tenant: TenantNo,
        cutoff: Timestamp,
        now: Timestamp,
    ) -> Option<Seq> {
        let (since, now) = ((tenant.0, cutoff.0 / HOUR), (tenant.0, now.0 / HOUR));
        let since = since.min(now);
        self.0.range(since..=now).map(|(_, seq)| *seq).min()
    }

    /// The hours that were over before what `cutoff` tells for their tenant, and those to come.
    pub(super) fn outside(
        &self,
        cutoff: impl Fn(TenantNo) -> Option<Timestamp>,
        now: Timestamp,
    ) -> Vec<(TenantNo, u64)> {
        let hours = self.0.keys().map(|(tenant, hour)| (TenantNo(*tenant), *hour));
        let over = |(tenant, hour): &(TenantNo, u64)| {
            *hour > now.0 / HOUR || cutoff(*tenant).is_some_and(|it| *hour < it.0 / HOUR)
        };
        hours.filter(over).collect()
    }

    /// Nothing is left of this hour.
    pub(super) fn forget(&mut self, tenant: TenantNo, hour: u64) {
        self.0.remove(&(tenant.0, hour));
    }
}

/// How many dead letters are kept, by tenant. Those of a tenant that is gone do not count: nobody
/// can ask for them, and their rows go with retention.
#[derive(Debug, Default)]
pub(super) struct DeadCounts {
    total: u64,
    of: BTreeMap<u32, u64>,
    gone: BTreeSet<u32>,
}

impl DeadCounts {
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// So many more. What was under way when its tenant was deleted does not count.
    pub(super) fn add(&mut self, tenant: TenantNo, count: u64) {
        if count > 0 && !self.gone.contains(&tenant.0) {
            *self.of.entry(tenant.0).or_default() += count;
            self.total += count;
        }
    }

    /// So many fewer.
    pub(super) fn remove(&mut self, tenant: TenantNo, count: u64) {
        let Some(known) = self.of.get_mut(&tenant.0) else { return };
        let fewer = count.min(*known);
        *known -= fewer;
        self.total -= fewer;
        if *known == 0 {
            self.of.remove(&tenant.0);
        }
    }

    /// Its tenant is gone.
    pub(super) fn forget(&mut self, tenant: TenantNo) {
        self.remove(tenant, u64::MAX);
        self.gone.insert(tenant.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_of_a_tenant_that_is_gone_do_not_count() {
        let (one, other) = (TenantNo(1), TenantNo(2));
        let mut counts = DeadCounts::default();
        counts.add(one, 3);
        counts.add(other, 2);
        counts.remove(one, 1);
        assert_eq!(counts.total(), 4);
        counts.forget(one);
        assert_eq!(counts.total(), 2);
        counts.add(one, 1);
        counts.remove(one, 1);
        assert_eq!(counts.total(), 2, "not even what ends later");
        counts.remove(other, 5);
        assert_eq!(counts.total(), 0);
    }

    #[test]
    fn the_first_event_of_what_died_since() {
        let (one, other) = (TenantNo(1), TenantNo(2));
        let mut hours = DeadHours::default();
        for (tenant, hour, seq) in [(one, 1, 9), (one, 3, 7), (one, 3, 8), (other, 1, 1)] {
            hours.note(tenant, Timestamp(hour * HOUR + 5), Seq(seq));
        }
        let first = |since, now| hours.first_since(one, Timestamp(since), Timestamp(now));
        assert_eq!(first(0, 4 * HOUR), Some(Seq(7)));
        assert_eq!(first(3 * HOUR + 9, 3 * HOUR + 10), Some(Seq(7)), "to the hour");
        assert_eq!(first(4 * HOUR, 5 * HOUR), None);
        assert_eq!(first(0, 2 * HOUR), Some(Seq(9)), "the other died by a wrong clock");
        let cutoff = |it: TenantNo| (it == one).then_some(Timestamp(3 * HOUR));
        assert_eq!(hours.outside(cutoff, Timestamp(4 * HOUR)), [(one, 1)]);
        hours.forget(one, 1);
        assert_eq!(hours.outside(cutoff, Timestamp(4 * HOUR)), []);
        assert_eq!(hours.outside(cutoff, Timestamp(2 * HOUR)), [(one, 3)]);
    }
}
