use std::collections::VecDeque;

use crate::domain::{Canary, Timestamp};
use crate::plugins::{Called, Tally};

/// Calls a version on trial must have had before its failures end the trial.
pub const TRIAL_CALLS_MIN: u64 = 20;
/// Examples kept of events on which the versions differ.
const EXAMPLES_MAX: usize = 20;

/// How a version on trial does beside the active one, since the trial began or the process
/// started.
#[derive(Debug, Clone)]
pub struct Trial {
    pub(super) version: u32,
    pub(super) started_at: Timestamp,
    /// The version on trial.
    pub canary: Tally,
    /// The active version on the other events.
    pub active: Tally,
    /// Events that both saw and agreed on.
    pub same: u64,
    /// Events that both saw and did not agree on.
    pub different: u64,
    /// The newest of those, oldest first.
    pub examples: VecDeque<Example>,
}

/// An event on which two versions differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Which event.
    pub event_id: String,
    /// What the version on trial said: `pass`, `drop`, `modified`, …, or the kind of its fault.
    pub canary: &'static str,
    /// What the active version said.
    pub active: &'static str,
}

impl Trial {
    pub(super) fn new(canary: &Canary) -> Self {
        Self {
            version: canary.version,
            started_at: canary.started_at,
            canary: Tally::default(),
            active: Tally::default(),
            same: 0,
            different: 0,
            examples: VecDeque::new(),
        }
    }

    pub(super) fn is_of(&self, canary: &Canary) -> bool {
        (self.version, self.started_at) == (canary.version, canary.started_at)
    }

    /// Whether the version on trial fails so much more than the active one that it must go.
    pub(super) fn has_failed(&self, canary: &Canary) -> bool {
        let Some(margin) = canary.abort_on_error_rate else { return false };
        let active = self.active.error_rate().millionths();
        self.canary.calls >= TRIAL_CALLS_MIN
            && self.canary.error_rate().millionths() > active + margin.millionths()
    }

    /// Notes what both said of one event.
    pub(super) fn compare(&mut self, event_id: &str, canary: &Called, active: &Called) {
        if canary.says_as(active) {
            self.same += 1;
            return;
        }
        self.different += 1;
        if self.examples.len() == EXAMPLES_MAX {
            self.examples.pop_front();
        }
        self.examples.push_back(Example {
            event_id: event_id.to_owned(),
            canary: canary.result,
            active: active.result,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Share;
    use crate::plugins::{Answer, EventIn, FaultKind, Verdict};

    fn called(fails: bool) -> Called {
        match fails {
            true => Called::fault(FaultKind::Trap, "it trapped"),
            false => Called::new(Ok(Answer::Event(Verdict::Deliver))).typed::<EventIn>(),
        }
    }

    #[test]
    fn a_trial_ends_when_it_fails_more_than_the_margin_allows() {
        let canary = Canary {
            version: 2,
            share: Share::of(0.5).unwrap(),
            compare: false,
            abort_on_error_rate: Share::of(0.2),
            started_at: Timestamp(1),
        };
        for (canary_fails, active_fails, ends) in
            [(0, 0, false), (4, 0, false), (5, 0, true), (9, 5, false), (10, 5, true)]
        {
            let mut trial = Trial::new(&canary);
            for n in 0..20 {
                trial.canary.note(Timestamp(2), "e", &called(n < canary_fails));
                trial.active.note(Timestamp(2), "e", &called(n < active_fails));
            }
            assert_eq!(trial.has_failed(&canary), ends, "{canary_fails} against {active_fails}");
        }
        let mut early = Trial::new(&canary);
        early.canary.note(Timestamp(2), "e", &called(true));
        assert!(!early.has_failed(&canary), "one call tells nothing");
    }
}
