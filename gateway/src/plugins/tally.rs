//! What a plugin's calls came to, in bounded memory.

use std::{collections::BTreeMap, time::Duration};

use crate::domain::{Share, Timestamp};
use crate::plugins::{Called, FaultKind};

/// Buckets in each doubling: a quantile is off by at most a sixteenth.
const PER_DOUBLING: usize = 8;
/// Durations up to 2^26 µs, which is 67 s, are told apart.
const DOUBLINGS: usize = 26;
const BUCKETS: usize = (DOUBLINGS - 2) * PER_DOUBLING;

/// What calls of one plugin, or of one version of it, came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events it was given.
    pub calls: u64,
    /// Events it dropped or rejected.
    pub drops: u64,
    /// Events it rewrote or split.
    pub rewrites: u64,
    /// Calls without a verdict, by the kind of the fault.
    pub errors: BTreeMap<&'static str, u64>,
    /// How long calls took.
    pub durations: Durations,
    /// Fuel that metered calls used, and how many there were.
    pub fuel: (u64, u64),
    /// The last fault.
    pub last_error: Option<LastError>,
}

/// The last fault of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// On which event.
    pub event_id: String,
    /// Its kind.
    pub kind: FaultKind,
    /// A sentence for the author.
    pub detail: String,
}

impl Tally {
    pub(super) fn note<A>(&mut self, at: Timestamp, event_id: &str, called: &Called<A>) {
        self.calls += 1;
        self.durations.note(called.duration);
        if let Some(fuel) = called.fuel {
            self.fuel = (self.fuel.0.saturating_add(fuel), self.fuel.1 + 1);
        }
        match called.result {
            "drop" | "reject" => self.drops += 1,
            "modified" | "split" => self.rewrites += 1,
            _ => {}
        }
        if let Err(fault) = &called.verdict {
            *self.errors.entry(fault.kind.name()).or_default() += 1;
            let (kind, event_id, detail) = (fault.kind, event_id.to_owned(), fault.detail.clone());
            self.last_error = Some(LastError { at, event_id, kind, detail });
        }
    }

    /// Calls without a verdict.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Their share of all calls.
    pub fn error_rate(&self) -> Share {
        Share::ratio(self.failed(), self.calls)
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.drops += other.drops;
        self.rewrites += other.rewrites;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind).or_default() += count;
        }
        self.durations.add(&other.durations);
        self.fuel = (self.fuel.0.saturating_add(other.fuel.0), self.fuel.1 + other.fuel.1);
        let newer = |it: &LastError| self.last_error.as_ref().is_none_or(|own| own.at <= it.at);
        if let Some(last) = other.last_error.as_ref().filter(|it| newer(it)) {
            self.last_error = Some(last.clone());
        }
    }
}

/// How often calls took how long: counts in buckets whose width grows with the duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durations(Box<[u32; BUCKETS]>);

impl Default for Durations {
    fn default() -> Self {
        Self(Box::new([0; BUCKETS]))
    }
}

impl Durations {
    /// Counts a call.
    pub fn note(&mut self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = &mut self.0[bucket_of(micros)];
        *bucket = bucket.saturating_add(1);
    }

    fn add(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0.iter()) {
            *own = own.saturating_add(*other);
        }
    }

    /// The duration that a share `quantile` of the calls did not exceed, give or take a
    /// sixteenth; `None` before the first call.
    pub fn at(&self, quantile: f64) -> Option<Duration> {
        let all: u64 = self.0.iter().map(|it| u64::from(*it)).sum();
        let wanted = ((all as f64 * quantile).ceil() as u64).max(1);
        let mut seen = 0;
        let reaches = |count: &u32| {
            seen += u64::from(*count);
            seen >= wanted
        };
        let place = self.0.iter().position(reaches)?;
        Some(Duration::from_micros(middle_of(place)))
    }
}

/// Short durations have a bucket each; then each doubling is cut into equal parts.
fn bucket_of(micros: u64) -> usize {
    if micros < PER_DOUBLING as u64 {
        return micros as usize;
    }
    let doubling = micros.ilog2() as usize;
    let part = (micros >> (doubling - 3)) as usize % PER_DOUBLING;
    ((doubling - 2) * PER_DOUBLING + part).min(BUCKETS - 1)
}

fn middle_of(bucket: usize) -> u64 {
    if bucket < PER_DOUBLING {
        return bucket as u64;
    }
    let (doubling, part) = (bucket / PER_DOUBLING + 2, bucket % PER_DOUBLING);
    let width = 1_u64 << (doubling - 3);
    (PER_DOUBLING as u64 + part as u64) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_off_by_a_sixteenth_at_most() {
        let mut durations = Durations::default();
        assert_eq!(durations.at(0.5), None);
        for micros in 1..=10_000 {
            durations.note(Duration::from_micros(micros));
        }
        for (quantile, exact) in [(0.5, 5000.0), (0.99, 9900.0), (0.0001, 1.0)] {
            let told = durations.at(quantile).unwrap().as_secs_f64() * 1e6;
            assert!((told - exact).abs() <= exact / 16.0 + 0.5, "p{quantile}: {told}");
        }
    }

    #[test]
    fn every_duration_has_a_bucket_near_it() {
        for micros in (0..64).flat_map(|it| [(1_u64 << it) - 1, 1 << it, (1 << it) + 1]) {
            let bucket = bucket_of(micros);
            assert!(bucket < BUCKETS, "{micros}");
            if bucket < BUCKETS - 1 {
                let off = middle_of(bucket).abs_diff(micros);
                assert!(off <= micros / 16 + 1, "{micros}: {}", middle_of(bucket));
            }
        }
    }

    #[test]
    fn a_thousand_plugins_are_cheap() {
        assert!(size_of::<Tally>() + size_of::<[u32; BUCKETS]>() <= 1024);
    }
}
