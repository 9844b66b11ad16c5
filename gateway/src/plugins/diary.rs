use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use tokio::sync::watch;

use crate::domain::{Canary, PluginName, Timestamp};
use crate::plugins::trial::Trial;
use crate::plugins::{Called, Digest, Fault, LogLine, Tally};

/// Lines kept for a plugin; older ones go.
const LINES_MAX: usize = 1000;
/// Bytes of lines kept for a plugin.
const LINES_BYTES_MAX: usize = 64 * 1024;
/// Bytes of lines kept for all plugins: where there are many, each keeps less, but at least
/// `LINES_BYTES_MIN`.
const ALL_LINES_BYTES_MAX: usize = 32 * 1024 * 1024;
const LINES_BYTES_MIN: usize = 4 * 1024;
/// What a line costs beside its text.
const LINE_BYTES: usize = 128;
/// Versions of a plugin that are told apart; what the oldest did goes with it.
const VERSIONS_MAX: usize = 8;

/// Levels, from the least to the most urgent.
pub const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// A line in a plugin's log: what it logged, or that a call failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    /// Counts up by one for each line of the plugin; the first is 1.
    pub number: u64,
    /// When.
    pub at: Timestamp,
    /// On which event.
    pub event_id: String,
    /// Which version logged it.
    pub version: u32,
    /// SHA-256 of that version's component.
    pub digest: Digest,
    /// The line.
    pub line: LogLine,
}

/// Which call is noted.
#[derive(Debug, Clone, Copy)]
pub struct Noted<'a> {
    /// Whose plugin it is.
    pub tenant: &'a Arc<str>,
    /// Which.
    pub plugin: &'a PluginName,
    /// Which version ran.
    pub version: u32,
    /// SHA-256 of that version's component.
    pub digest: Digest,
    /// On which event.
    pub event_id: &'a str,
    /// When.
    pub at: Timestamp,
    /// The trial that runs, where the call was not pinned to a version.
    pub canary: Option<&'a Canary>,
}

/// Which lines of a log are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Only this version's.
    pub version: Option<u32>,
    /// Only this level and more urgent ones.
    pub level: Option<&'a str>,
    /// Not before this time.
    pub since: Option<Timestamp>,
    /// Only lines with a smaller number.
    pub before: Option<u64>,
    /// Only lines with a greater number.
    pub after: Option<u64>,
}

/// What plugins did and logged since the process started, by tenant and name. In memory, and
/// bounded there.
#[derive(Debug, Default)]
pub struct Diary(RwLock<Pages>);

/// By tenant and plugin.
type Pages = BTreeMap<(Arc<str>, PluginName), Arc<Mutex<Page>>>;

#[derive(Debug)]
struct Page {
    versions: BTreeMap<u32, Tally>,
    trial: Option<Trial>,
    lines: VecDeque<Logged>,
    bytes: usize,
    /// The number of the last line.
    last: watch::Sender<u64>,
}

impl Default for Page {
    fn default() -> Self {
        let (versions, trial, lines, bytes) = Default::default();
        Self { versions, trial, lines, bytes, last: watch::Sender::new(0) }
    }
}

impl Diary {
    /// Notes a call. Whether the version on trial has failed, so that its trial should end.
    pub fn note<A>(&self, it: &Noted<'_>, called: &Called<A>) -> bool {
        let (page, pages) = self.page(it.tenant, it.plugin);
        let mut page = lock(&page);
        page.tally(it.version).note(it.at, it.event_id, called);
        let failed = called.verdict.as_ref().err().map(failed);
        if !called.logs.is_empty() || failed.is_some() {
            page.log(it, called.logs.iter().chain(&failed));
            let share = (ALL_LINES_BYTES_MAX / pages).max(LINES_BYTES_MIN);
            page.trim(share.min(LINES_BYTES_MAX));
        }
        let Some(canary) = it.canary else { return false };
        let trial = page.trial(canary);
        let on_trial = it.version == canary.version;
        let side = if on_trial { &mut trial.canary } else { &mut trial.active };
        side.note(it.at, it.event_id, called);
        on_trial && trial.has_failed(canary)
    }

    /// Notes what the version on trial and the active one said of the same event.
    pub fn compare(&self, it: &Noted<'_>, canary: &Called, active: &Called) {
        let Some(trial) = it.canary else { return };
        let (page, _) = self.page(it.tenant, it.plugin);
        lock(&page).trial(trial).compare(it.event_id, canary, active);
    }

    /// What each version of a plugin did.
    pub fn versions(&self, tenant: &Arc<str>, plugin: &PluginName) -> BTreeMap<u32, Tally> {
        let page = self.known(tenant, plugin);
        page.map(|it| lock(&it).versions.clone()).unwrap_or_default()
    }

    /// What a plugin did, all versions together.
    pub fn stats(&self, tenant: &Arc<str>, plugin: &PluginName) -> Tally {
        let mut all = Tally::default();
        self.versions(tenant, plugin).values().for_each(|it| all.add(it));
        all
    }

    /// How a trial goes.
    pub fn trial(&self, tenant: &Arc<str>, plugin: &PluginName, canary: &Canary) -> Trial {
        let page = self.known(tenant, plugin);
        let known = page.and_then(|it| lock(&it).trial.clone());
        known.filter(|it| it.is_of(canary)).unwrap_or_else(|| Trial::new(canary))
    }

    /// What a plugin logged, newest first.
    pub fn lines(
        &self,
        tenant: &Arc<str>,
        plugin: &PluginName,
        wanted: &Wanted<'_>,
        limit: usize,
    ) -> Vec<Logged> {
        let Some(page) = self.known(tenant, plugin) else { return Vec::new() };
        let page = lock(&page);
        page.lines.iter().rev().filter(|it| wanted.takes(it)).take(limit).cloned().collect()
    }

    /// The number of the plugin's last line, as it grows.
    pub fn watch(&self, tenant: &Arc<str>, plugin: &PluginName) -> watch::Receiver<u64> {
        lock(&self.page(tenant, plugin).0).last.subscribe()
    }

    /// Forgets a plugin that was deleted.
    pub fn forget(&self, tenant: &str, plugin: &PluginName) {
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(owner, name), _| **owner != *tenant || name != plugin);
    }

    /// Forgets all plugins of a tenant that was deleted.
    pub fn forget_tenant(&self, tenant: &str) {
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|(owner, _), _| **owner != *tenant);
    }

    fn known(&self, tenant: &Arc<str>, plugin: &PluginName) -> Option<Arc<Mutex<Page>>> {
        let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
        pages.get(&(tenant.clone(), plugin.clone())).cloned()
    }

    /// The plugin's page, new if need be, and how many there are.
    fn page(&self, tenant: &Arc<str>, plugin: &PluginName) -> (Arc<Mutex<Page>>, usize) {
        let key = (tenant.clone(), plugin.clone());
        {
            let pages = self.0.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(page) = pages.get(&key) {
                return (page.clone(), pages.len());
            }
        }
        let mut pages = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let page = pages.entry(key).or_default().clone();
        (page, pages.len())
    }
}

impl Page {
    fn tally(&mut self, version: u32) -> &mut Tally {
        if self.versions.len() >= VERSIONS_MAX && !self.versions.contains_key(&version) {
            self.versions.pop_first();
        }
        self.versions.entry(version).or_default()
    }

    fn trial(&mut self, canary: &Canary) -> &mut Trial {
        let known = self.trial.take().filter(|it| it.is_of(canary));
        self.trial.insert(known.unwrap_or_else(|| Trial::new(canary)))
    }

    fn log<'a>(&mut self, it: &Noted<'_>, lines: impl Iterator<Item = &'a LogLine>) {
        let mut number = *self.last.borrow();
        for line in lines {
            number += 1;
            self.bytes += LINE_BYTES + line.message.len();
            self.lines.push_back(Logged {
                number,
                at: it.at,
                event_id: it.event_id.to_owned(),
                version: it.version,
                digest: it.digest,
                line: line.clone(),
            });
        }
        self.last.send_replace(number);
    }

    fn trim(&mut self, bytes_max: usize) {
        while self.lines.len() > LINES_MAX || self.bytes > bytes_max {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= LINE_BYTES + oldest.line.message.len();
        }
    }
}

impl Wanted<'_> {
    fn takes(&self, it: &Logged) -> bool {
        let urgency = |level: &str| LEVELS.iter().position(|it| *it == level);
        self.version.is_none_or(|version| it.version == version)
            && self.level.is_none_or(|level| urgency(it.line.level) >= urgency(level))
            && self.since.is_none_or(|since| it.at >= since)
            && self.before.is_none_or(|before| it.number < before)
            && self.after.is_none_or(|after| it.number > after)
    }
}

/// The line that tells of a call which gave no verdict: whoever watches the log misses none.
fn failed(fault: &Fault) -> LogLine {
    let message = format!("the call failed: {fault} ({})", fault.kind.name());
    LogLine { level: "error", message }
}

fn lock(page: &Mutex<Page>) -> MutexGuard<'_, Page> {
    page.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::{Answer, EventIn, FaultKind, Verdict};

    fn called(level: &'static str, message: &str) -> Called {
        let message = message.to_owned();
        let passed = Called::new(Ok(Answer::Event(Verdict::Deliver))).typed::<EventIn>();
        Called { logs: vec![LogLine { level, message }], ..passed }
    }

    fn note(diary: &Diary, version: u32, at: u64, called: &Called) {
        let (tenant, plugin) = ("one".into(), PluginName::parse("p").unwrap());
        diary.note(
            &Noted {
                tenant: &tenant,
                plugin: &plugin,
                version,
                digest: Digest([version as u8; 32]),
                event_id: "evt_1",
                at: Timestamp(at),
                canary: None,
            },
            called,
        );
    }

    fn numbers(diary: &Diary, wanted: Wanted<'_>, limit: usize) -> Vec<u64> {
        let lines = diary.lines(&"one".into(), &PluginName::parse("p").unwrap(), &wanted, limit);
        lines.iter().map(|it| it.number).collect()
    }

    #[test]
    fn lines_are_found_by_version_level_and_time() {
        let diary = Diary::default();
        note(&diary, 1, 10, &called("debug", "a"));
        note(&diary, 1, 20, &called("error", "b"));
        note(&diary, 2, 30, &called("info", "c"));
        let all = Wanted::default();
        for (wanted, expected) in [
            (all, &[3, 2, 1][..]),
            (Wanted { version: Some(1), ..all }, &[2, 1]),
            (Wanted { level: Some("info"), ..all }, &[3, 2]),
            (Wanted { since: Some(Timestamp(20)), ..all }, &[3, 2]),
            (Wanted { before: Some(3), ..all }, &[2, 1]),
            (Wanted { after: Some(2), ..all }, &[3]),
        ] {
            assert_eq!(numbers(&diary, wanted, 9), expected, "{wanted:?}");
        }
        assert_eq!(numbers(&diary, all, 1), [3]);
    }

    #[test]
    fn a_call_that_fails_is_the_last_line_of_what_it_logged() {
        let diary = Diary::default();
        let broken = Called::fault(FaultKind::Timeout, "it ran over");
        let said = vec![LogLine { level: "info", message: "begin".to_owned() }];
        note(&diary, 1, 0, &Called { logs: said, ..broken });
        let wanted = Wanted { level: Some("error"), ..Wanted::default() };
        assert_eq!(numbers(&diary, wanted, 9), [2]);
        let (tenant, plugin) = ("one".into(), PluginName::parse("p").unwrap());
        let lines = diary.lines(&tenant, &plugin, &wanted, 9);
        assert_eq!(lines[0].line.message, "the call failed: it ran over (plugin_timeout)");
        assert_eq!(lines[0].event_id, "evt_1");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let diary = Diary::default();
        for n in 0..3000 {
            note(&diary, n % 20, 0, &called("info", if n < 2000 { "short" } else { "" }));
        }
        let all = numbers(&diary, Wanted::default(), 5000);
        assert!(all.len() <= LINES_BYTES_MAX / LINE_BYTES, "{} lines", all.len());
        assert_eq!(all[0], 3000);
        note(&diary, 1, 0, &called("info", &"x".repeat(LINES_BYTES_MAX - LINE_BYTES)));
        assert_eq!(numbers(&diary, Wanted::default(), 5000), [3001], "a long one takes all room");
        let (tenant, plugin) = ("one".into(), PluginName::parse("p").unwrap());
        assert!(diary.versions(&tenant, &plugin).len() <= VERSIONS_MAX);
    }

    #[test]
    fn each_version_is_counted_for_itself_and_all_together() {
        let diary = Diary::default();
        let (tenant, plugin) = ("one".into(), PluginName::parse("p").unwrap());
        for version in [1, 1, 2] {
            note(&diary, version, 0, &called("info", ""));
        }
        let counts = diary.versions(&tenant, &plugin);
        let counts: Vec<_> = counts.iter().map(|(version, it)| (*version, it.calls)).collect();
        assert_eq!(counts, [(1, 2), (2, 1)]);
        assert_eq!(diary.stats(&tenant, &plugin).calls, 3);
        diary.forget("one", &plugin);
        assert_eq!(diary.stats(&tenant, &plugin).calls, 0);
    }
}
