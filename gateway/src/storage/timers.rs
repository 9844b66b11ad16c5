use std::collections::BTreeSet;

use crate::domain::{EndpointNo, Timestamp};

/// When which endpoint has a delivery coming due: one entry each, however many wait.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Timestamp, EndpointNo)>);

impl Timers {
    /// Moves an endpoint's entry.
    pub(super) fn set(
        &mut self,
        endpoint: EndpointNo,
        was: Option<Timestamp>,
        next: Option<Timestamp>,
    ) {
        if was == next {
            return;
        }
        if let Some(was) = was {
            self.0.remove(&(was, endpoint));
        }
        if let Some(next) = next {
            self.0.insert((next, endpoint));
        }
    }

    /// The next endpoint whose time has come at `now`.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<EndpointNo> {
        self.0.first().filter(|(due, _)| *due <= now)?;
        self.0.pop_first().map(|(_, endpoint)| endpoint)
    }

    /// When there is something to do next.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.0.first().map(|(due, _)| *due)
    }
}
