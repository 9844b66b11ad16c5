use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::domain::{PluginName, Timestamp};
use crate::plugins::{Called, LogLine};

/// Lines kept for a plugin; older ones go.
const LINES_MAX: usize = 1000;

/// What a plugin did since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events it was given.
    pub calls: u64,
    /// Events it dropped.
    pub drops: u64,
    /// Events it gave no verdict on.
    pub errors: u64,
}

/// A line in a plugin's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// When.
    pub at: Timestamp,
    /// On which event.
    pub event_id: String,
    /// The line.
    pub line: LogLine,
}

/// What plugins did and logged, in memory, by tenant and name.
#[derive(Debug, Default)]
pub struct Diary(Mutex<BTreeMap<(Arc<str>, PluginName), Page>>);

#[derive(Debug, Default)]
struct Page {
    stats: Stats,
    lines: VecDeque<Logged>,
}

impl Diary {
    /// Notes a call.
    pub fn note<A>(
        &self,
        (tenant, plugin): (&Arc<str>, &PluginName),
        (at, event_id): (Timestamp, &str),
        called: &Called<A>,
    ) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.entry((tenant.clone(), plugin.clone())).or_default();
        page.stats.calls += 1;
        page.stats.drops += u64::from(called.result == "drop");
        page.stats.errors += u64::from(called.verdict.is_err());
        for line in &called.logs {
            let event_id = event_id.to_owned();
            page.lines.push_back(Logged { at, event_id, line: line.clone() });
        }
        let surplus = page.lines.len().saturating_sub(LINES_MAX);
        page.lines.drain(..surplus);
    }

    /// What a plugin did.
    pub fn stats(&self, tenant: &Arc<str>, plugin: &PluginName) -> Stats {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(&(tenant.clone(), plugin.clone())).map(|it| it.stats).unwrap_or_default()
    }

    /// What a plugin logged, newest first.
    pub fn lines(&self, tenant: &Arc<str>, plugin: &PluginName, limit: usize) -> Vec<Logged> {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = pages.get(&(tenant.clone(), plugin.clone()));
        page.into_iter().flat_map(|it| it.lines.iter().rev()).take(limit).cloned().collect()
    }
}
