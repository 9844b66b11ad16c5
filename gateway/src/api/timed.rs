use std::{sync::OnceLock, time::Duration};

use http::{Method, StatusCode};
use metrics::Histogram;

use crate::telemetry::{REQUESTS, Values};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// How long the requests of one operation take, by class of status. A class has no series before
/// it was answered for the first time.
#[derive(Debug)]
pub(super) struct Timed {
    method: &'static str,
    route: &'static str,
    classes: [OnceLock<Histogram>; 5],
}

impl Timed {
    pub(super) fn new(method: &Method, route: &'static str) -> Self {
        let known = match REQUESTS.labels[0].values {
            Values::Of(known) => known,
            Values::AtMost(_) => &[],
        };
        let method = known.iter().find(|it| **it == method.as_str()).copied().unwrap_or("other");
        Self { method, route, classes: Default::default() }
    }

    pub(super) fn route(&self) -> &'static str {
        self.route
    }

    /// An answer was made.
    pub(super) fn note(&self, status: StatusCode, took: Duration) {
        let class = usize::from(status.as_u16() / 100).clamp(1, 5) - 1;
        let values = [self.method, self.route, CLASSES[class]];
        self.classes[class].get_or_init(|| REQUESTS.observing(&values)).record(took.as_secs_f64());
    }
}
