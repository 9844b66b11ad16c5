use metrics::{Counter, Gauge, Label as Named, SharedString};

use crate::telemetry::{owners, series};

/// Buckets of a histogram, in the metric's unit.
pub type Histogram = &'static [f64];

/// What a metric is; a histogram with its buckets.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows; a restart begins at 0.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many observations were at most so large.
    Histogram(Histogram),
}

/// What a metric counts. Prometheus wants base units, and the unit in the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

/// A label and the values it can have.
#[derive(Debug, Clone, Copy)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

impl Label {
    /// One that has the same value as long as the process lives.
    pub(super) const fn one(name: &'static str) -> Self {
        Self { name, values: Values::AtMost(1) }
    }
}

/// The values of a label: never as many as tenants, endpoints or events.
#[derive(Debug, Clone, Copy)]
pub enum Values {
    /// These; they are there from the start, at 0.
    Of(&'static [&'static str]),
    /// Words of the code, so many at most: codes of problems, routes.
    AtMost(usize),
}

/// One metric: everything that is said of it.
#[derive(Debug)]
pub struct Metric {
    /// Its name by
    /// [Prometheus' rules](https://prometheus.io/docs/practices/naming/).
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it counts.
    pub unit: Unit,
    /// A sentence.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [Label],
    /// Whether it is told apart by tenant and endpoint where the operator asks for that.
    pub owned: bool,
}

impl Metric {
    pub(super) const fn counter(name: &'static str, help: &'static str) -> Self {
        Self::new(name, Kind::Counter, Unit::Count, help)
    }

    pub(super) const fn gauge(name: &'static str, unit: Unit, help: &'static str) -> Self {
        Self::new(name, Kind::Gauge, unit, help)
    }

    pub(super) const fn seconds(
        name: &'static str,
        buckets: Histogram,
        help: &'static str,
    ) -> Self {
        Self::new(name, Kind::Histogram(buckets), Unit::Seconds, help)
    }

    pub(super) const fn new(
        name: &'static str,
        kind: Kind,
        unit: Unit,
        help: &'static str,
    ) -> Self {
        Self { name, kind, unit, help, labels: &[], owned: false }
    }

    pub(super) const fn by(mut self, labels: &'static [Label]) -> Self {
        self.labels = labels;
        self
    }

    pub(super) const fn owned(mut self) -> Self {
        self.owned = true;
        self
    }

    /// Counts `n` more; `values` stand in the order of the labels.
    pub fn count(&self, n: u64, values: &[&'static str]) {
        let make = || metrics::counter!(self.name, self.named(values));
        series::counter((self.name, values), make, |it| it.increment(n));
    }

    /// The counter of these values.
    pub fn counting(&self, values: &[&'static str]) -> Counter {
        metrics::counter!(self.name, self.named(values))
    }

    /// Counts one more, of an endpoint or a tenant.
    pub fn count_for(&self, values: &[&'static str], tenant: &str, endpoint: Option<&str>) {
        self.add_for(1, values, tenant, endpoint);
    }

    /// Counts `n` more, of an endpoint or a tenant.
    pub fn add_for(&self, n: u64, values: &[&'static str], tenant: &str, endpoint: Option<&str>) {
        debug_assert!(self.owned, "{} is not told apart", self.name);
        if !owners::asked_for() {
            return self.count(n, values);
        }
        let mut labels = self.named(values);
        owners::name(&mut labels, tenant, endpoint);
        metrics::counter!(self.name, labels).increment(n);
    }

    /// The histogram of these values.
    pub fn observing(&self, values: &[&'static str]) -> metrics::Histogram {
        metrics::histogram!(self.name, self.named(values))
    }

    /// Shows `delta` more, or less, than before.
    pub fn shift(&self, delta: f64, values: &[&'static str]) {
        let make = || metrics::gauge!(self.name, self.named(values));
        series::gauge((self.name, values), make, |it| it.increment(delta));
    }

    /// The gauge of these values.
    pub fn showing(&self, values: &[&'static str]) -> Gauge {
        metrics::gauge!(self.name, self.named(values))
    }

    /// Shows `value` from now on.
    pub fn show(&self, value: f64, values: &[&'static str]) {
        self.showing(values).set(value);
    }

    /// Observes `value`, in the metric's unit.
    pub fn observe(&self, value: f64, values: &[&'static str]) {
        let make = || metrics::histogram!(self.name, self.named(values));
        series::histogram((self.name, values), make, |it| it.record(value));
    }

    /// The labels, named; a value that is not in the table would grow it without bound.
    pub(super) fn named(&self, values: &[&'static str]) -> Vec<Named> {
        debug_assert_eq!(values.len(), self.labels.len(), "{}", self.name);
        let named = self.labels.iter().zip(values).map(|(label, value)| {
            if let Values::Of(known) = label.values {
                debug_assert!(known.contains(value), "{} {}={value}", self.name, label.name);
            }
            Named::new(label.name, SharedString::const_str(value))
        });
        named.collect()
    }
}
