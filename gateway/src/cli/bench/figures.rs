//! The arithmetic of measurements.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Latencies that are being gathered.
#[derive(Debug, Clone)]
pub(super) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new(3).expect("three digits are allowed"))
    }
}

impl Latencies {
    /// Gathers one.
    pub(super) fn record(&mut self, it: Duration) {
        // It grows as it has to.
        let _ = self.0.record(it.as_nanos() as u64);
    }

    /// Gathers those of another.
    pub(super) fn add(&mut self, other: &Self) {
        // Both have the same digits, and grow.
        let _ = self.0.add(&other.0);
    }

    /// Where they lie.
    pub(super) fn quantiles(&self) -> Quantiles {
        let at = |share| self.0.value_at_quantile(share) as f64 / 1000.0;
        Quantiles {
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: self.0.max() as f64 / 1000.0,
        }
    }
}

/// Where latencies lie, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Quantiles {
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

impl Quantiles {
    /// The medians of rounds, and the largest of all.
    pub(super) fn of_rounds(rounds: &[Self]) -> Self {
        let of = |field: fn(&Self) -> f64| median(rounds.iter().map(field).collect());
        Self {
            p50_us: of(|it| it.p50_us),
            p90_us: of(|it| it.p90_us),
            p99_us: of(|it| it.p99_us),
            p999_us: of(|it| it.p999_us),
            max_us: rounds.iter().map(|it| it.max_us).fold(0.0, f64::max),
        }
    }
}

/// A median, what it is on average, and how far the rounds lay apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) median: f64,
    pub(super) mean: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Spread {
    /// Of some rounds; `None` if one of them could not tell.
    pub(super) fn of(values: impl IntoIterator<Item = Option<f64>>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect::<Option<_>>()?;
        let low = values.iter().copied().reduce(f64::min)?;
        let high = values.iter().copied().reduce(f64::max)?;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(Self { median: median(values), mean, low, high })
    }
}

/// The middle one, or what lies between the two in the middle; 0 of none.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        it if it % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// `part` of `whole`; `None` of nothing.
pub(super) fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

/// So much for each of `count`.
pub(super) fn each(total: f64, count: u64) -> Option<f64> {
    share(total, count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        for n in 1..=1000 {
            latencies.record(Duration::from_micros(n));
        }
        let mut more = Latencies::default();
        more.record(Duration::from_millis(90));
        latencies.add(&more);
        let it = latencies.quantiles();
        assert!((it.p50_us - 501.0).abs() <= 1.0, "{it:?}");
        assert!((it.p90_us - 901.0).abs() <= 1.0, "{it:?}");
        assert!((it.p99_us - 991.0).abs() <= 1.0, "{it:?}");
        assert!((it.p999_us - 1000.0).abs() <= 1.0, "{it:?}");
        assert!((it.max_us / 90_000.0 - 1.0).abs() < 0.001, "{it:?}");
    }

    #[test]
    fn medians_and_spreads() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
        let spread = Spread::of([Some(6.0), Some(1.0), Some(2.0)]).unwrap();
        assert_eq!(spread, Spread { median: 2.0, mean: 3.0, low: 1.0, high: 6.0 });
        assert_eq!(Spread::of([Some(1.0), None]), None);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn rounds_have_a_median_and_the_worst_of_all() {
        let round = |p50_us, max_us| Quantiles { p50_us, max_us, ..Quantiles::default() };
        let it = Quantiles::of_rounds(&[round(1.0, 9.0), round(5.0, 5.0), round(2.0, 7.0)]);
        assert_eq!((it.p50_us, it.max_us), (2.0, 9.0));
    }

    #[test]
    fn shares_of_nothing_are_none() {
        assert_eq!(share(1.0, 4.0), Some(0.25));
        assert_eq!(share(1.0, 0.0), None);
        assert_eq!(each(6.0, 3), Some(2.0));
        assert_eq!(each(6.0, 0), None);
    }
}
