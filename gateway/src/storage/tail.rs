use std::{collections::VecDeque, sync::Arc};

use crate::domain::{Event, Seq};

/// The newest events, so that fan-out and delivery need not read them back from disk.
#[derive(Debug)]
pub(super) struct Tail {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    bytes_max: usize,
}

impl Tail {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { events: VecDeque::new(), bytes: 0, bytes_max }
    }

    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += weight(&event);
        self.events.push_back(event);
        while self.bytes > self.bytes_max {
            let Some(oldest) = self.events.pop_front() else { return };
            self.bytes -= weight(&oldest);
        }
    }

    pub(super) fn get(&self, seq: Seq) -> Option<Arc<Event>> {
        let first = self.events.front()?.seq;
        let place = usize::try_from(seq.0.checked_sub(first.0)?).ok()?;
        self.events.get(place).cloned()
    }

    /// Events after `seq`, if the one right behind it is still here.
    pub(super) fn after(&self, seq: Seq, limit: usize) -> Vec<Arc<Event>> {
        let Some(first) = self.events.front().map(|it| it.seq) else { return Vec::new() };
        let Some(place) = (seq.0 + 1).checked_sub(first.0) else { return Vec::new() };
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        self.events.iter().skip(place).take(limit).cloned().collect()
    }
}

fn weight(event: &Event) -> usize {
    event.data.len() + 256
}
