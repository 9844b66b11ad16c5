//! Series that a thread has counted in before. Looking one up by the words of its labels costs more
//! than counting does, and some are counted in a dozen times for each event.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use metrics::{Counter, Gauge, Histogram};

/// Labels that a metric with a place here can have.
const LABELS_MAX: usize = 3;

/// A metric's name, and the values of its labels.
pub(super) type Name<'a> = (&'static str, &'a [&'static str]);

/// Where the words lie, and how long they are: they are the program's own and stay there.
type Place = (usize, [(usize, usize); LABELS_MAX]);

#[derive(Default)]
struct Known {
    counters: BTreeMap<Place, Counter>,
    gauges: BTreeMap<Place, Gauge>,
    histograms: BTreeMap<Place, Histogram>,
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// Set once there is a recorder; what was counted in before is nobody's.
static RECORDED: AtomicBool = AtomicBool::new(false);

pub(super) fn begin() {
    RECORDED.store(true, Ordering::Release);
}

pub(super) fn counter(name: Name<'_>, make: impl Fn() -> Counter, with: impl FnOnce(&Counter)) {
    in_place(name, |it| &mut it.counters, make, with);
}

pub(super) fn gauge(name: Name<'_>, make: impl Fn() -> Gauge, with: impl FnOnce(&Gauge)) {
    in_place(name, |it| &mut it.gauges, make, with);
}

pub(super) fn histogram(
    name: Name<'_>,
    make: impl Fn() -> Histogram,
    with: impl FnOnce(&Histogram),
) {
    in_place(name, |it| &mut it.histograms, make, with);
}

fn in_place<T>(
    name: Name<'_>,
    of: impl Fn(&mut Known) -> &mut BTreeMap<Place, T>,
    make: impl Fn() -> T,
    with: impl FnOnce(&T),
) {
    let Some(place) = place(name).filter(|_| RECORDED.load(Ordering::Acquire)) else {
        return with(&make());
    };
    KNOWN.with_borrow_mut(|known| with(of(known).entry(place).or_insert_with(make)));
}

fn place((name, values): Name<'_>) -> Option<Place> {
    let mut labels = [(0, 0); LABELS_MAX];
    for (label, value) in labels.iter_mut().zip(values) {
        *label = (value.as_ptr().addr(), value.len());
    }
    (values.len() <= LABELS_MAX).then(|| (name.as_ptr().addr(), labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_and_value_has_a_place_of_its_own() {
        let places = [
            place(("a", &[])),
            place(("b", &[])),
            place(("a", &["x"])),
            place(("a", &["y"])),
            place(("a", &["x", "y"])),
            place(("a", &["y", "x"])),
        ];
        for (n, one) in places.iter().enumerate() {
            assert!(one.is_some() && !places[..n].contains(one), "{n}: {places:?}");
        }
        assert_eq!(place(("a", &["x"; LABELS_MAX + 1])), None);
    }
}
