//! A plugin version that fails for all events of an endpoint is not run there for a while, so that
//! they wait for something better than to use up their retries.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::domain::{EndpointNo, PluginName};

/// A probe that has not come back after this time is as if it had never been.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
/// How long others wait while a probe is under way.
const BEHIND_PROBE: Duration = Duration::from_millis(250);

/// When plugins are given up for a while.
#[derive(Debug, Clone)]
pub struct BreakerConfig {
    /// Calls that fail in a row.
    pub failures: u32,
    /// How long the version is not run then; each time again twice as long.
    pub cool_down: Duration,
    /// At most so long.
    pub cool_down_max: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 10,
            cool_down: Duration::from_secs(30),
            cool_down_max: Duration::from_secs(300),
        }
    }
}

/// Which version of whose plugin, and for which endpoint: with another endpoint's config, and on
/// its events, it may do well. `None`: for events before they are stored.
pub type Subject = (Arc<str>, PluginName, u32, Option<EndpointNo>);

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// It may.
    Open,
    /// Not before this time.
    ShutUntil(Instant),
}

/// What a call's end changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing to tell.
    None,
    /// The version is not run from now on, after so many failures in a row.
    Opened(u32),
    /// The version works again.
    Closed,
}

/// How a breaker stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// `closed`, `open` or `half_open`.
    pub name: &'static str,
    /// Calls that failed in a row.
    pub failures: u32,
    /// How long until it is tried again, where it is open.
    pub reopens_in: Option<Duration>,
}

/// The breakers of all versions that fail; one that works takes no room.
#[derive(Debug)]
pub struct Breakers {
    config: BreakerConfig,
    failing: Mutex<BTreeMap<Subject, Breaker>>,
    /// Counts how often something that was given up could go on.
    closed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Breaker {
    in_row: u32,
    /// How often it opened since it was last closed.
    opened: u32,
    /// Until when it is not run.
    until: Option<Instant>,
    /// Since when a probe is under way.
    probing: Option<Instant>,
}

impl Breakers {
    pub(super) fn new(config: BreakerConfig) -> Self {
        Self { config, failing: Mutex::default(), closed: watch::Sender::new(0) }
    }

    /// Whether a call could be made now, without making it.
    pub fn peek(&self, subject: &Subject, now: Instant) -> Gate {
        self.failing().get(subject).map_or(Gate::Open, |it| it.gate(now))
    }

    /// Whether a call may be made now. After a cool-down one may, to see how it goes; the others
    /// wait for it.
    pub fn admit(&self, subject: &Subject, now: Instant) -> Gate {
        let mut failing = self.failing();
        let Some(breaker) = failing.get_mut(subject) else { return Gate::Open };
        let gate = breaker.gate(now);
        if gate == Gate::Open && breaker.until.is_some() {
            breaker.probing = Some(now);
        }
        gate
    }

    /// Notes how a call went.
    pub fn note(&self, subject: &Subject, failed: bool, now: Instant) -> Change {
        let mut failing = self.failing();
        if !failed {
            let was = failing.remove(subject);
            let reopened = was.is_some_and(|it| it.until.is_some());
            if reopened {
                self.closed.send_modify(|it| *it += 1);
            }
            return if reopened { Change::Closed } else { Change::None };
        }
        let breaker = failing.entry(subject.clone()).or_default();
        breaker.in_row = breaker.in_row.saturating_add(1);
        let probed = breaker.probing.take().is_some();
        let due = breaker.until.is_none() && breaker.in_row >= self.config.failures;
        if !probed && !due {
            return Change::None;
        }
        let doubled = self.config.cool_down.saturating_mul(1 << breaker.opened.min(16));
        breaker.opened += 1;
        breaker.until = Some(now + doubled.min(self.config.cool_down_max));
        if due { Change::Opened(breaker.in_row) } else { Change::None }
    }

    /// How the breaker of a version stands.
    pub fn standing(&self, subject: &Subject, now: Instant) -> Standing {
        let failing = self.failing();
        let breaker = failing.get(subject);
        let until = breaker.and_then(|it| it.until);
        let name = match until {
            None => "closed",
            Some(until) if now < until => "open",
            Some(_) => "half_open",
        };
        let reopens_in = until.map(|it| it - now).filter(|it| !it.is_zero());
        Standing { name, failures: breaker.map_or(0, |it| it.in_row), reopens_in }
    }

    /// How a version stands where it does worst.
    pub fn worst(&self, tenant: &str, plugin: &PluginName, version: u32, now: Instant) -> Standing {
        let failing = self.failing();
        let of_version = |it: &&Subject| *it.0 == *tenant && it.1 == *plugin && it.2 == version;
        let subjects: Vec<_> = failing.keys().filter(of_version).cloned().collect();
        drop(failing);
        let standings = subjects.iter().map(|it| self.standing(it, now));
        let worst = standings.max_by_key(|it| (it.reopens_in, it.name != "closed", it.failures));
        worst.unwrap_or(Standing { name: "closed", failures: 0, reopens_in: None })
    }

    /// Forgets how a tenant's plugin did: it was deleted, or another version is active.
    pub fn forget(&self, tenant: &str, plugin: Option<&PluginName>) {
        let other = |it: &Subject| *it.0 != *tenant || plugin.is_some_and(|name| it.1 != *name);
        self.failing().retain(|subject, _| other(subject));
        self.closed.send_modify(|it| *it += 1);
    }

    /// Changes when a breaker closes: what was deferred can go on.
    pub fn watch_closed(&self) -> watch::Receiver<u64> {
        self.closed.subscribe()
    }

    fn failing(&self) -> MutexGuard<'_, BTreeMap<Subject, Breaker>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Breaker {
    fn gate(&self, now: Instant) -> Gate {
        match (self.until, self.probing) {
            (Some(until), _) if now < until => Gate::ShutUntil(until),
            (Some(_), Some(since)) if now < since + PROBE_PATIENCE => {
                Gate::ShutUntil(now + BEHIND_PROBE)
            }
            _ => Gate::Open,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(version: u32) -> Subject {
        ("one".into(), PluginName::parse("p").unwrap(), version, Some(EndpointNo(1)))
    }

    fn breakers() -> Breakers {
        Breakers::new(BreakerConfig { failures: 3, ..BreakerConfig::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn it_opens_after_failures_in_a_row_and_closes_on_a_success() {
        let (breakers, p, mut now) = (breakers(), subject(1), Instant::now());
        let note = |failed, now| breakers.note(&p, failed, now);
        assert_eq!([note(true, now), note(true, now)], [Change::None; 2]);
        assert_eq!(note(false, now), Change::None, "a success starts the count again");
        assert_eq!([note(true, now), note(true, now)], [Change::None; 2]);
        assert_eq!(note(true, now), Change::Opened(3));
        let cool = Duration::from_secs(30);
        assert_eq!(breakers.admit(&p, now), Gate::ShutUntil(now + cool));
        assert_eq!(breakers.admit(&subject(2), now), Gate::Open, "another version is its own");
        assert_eq!(note(true, now), Change::None, "what was under way tells nothing new");
        now += cool;
        assert_eq!(breakers.standing(&p, now).name, "half_open");
        assert_eq!(breakers.admit(&p, now), Gate::Open, "a probe");
        assert_eq!(breakers.admit(&p, now), Gate::ShutUntil(now + BEHIND_PROBE));
        assert_eq!(note(true, now), Change::None, "it is known to fail");
        assert_eq!(breakers.admit(&p, now), Gate::ShutUntil(now + cool * 2));
        now += cool * 2;
        assert_eq!(breakers.admit(&p, now), Gate::Open);
        assert_eq!(note(false, now), Change::Closed);
        assert_eq!(breakers.standing(&p, now).name, "closed");
        assert!(breakers.failing().is_empty(), "what works takes no room");
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_for_one_endpoint_goes_on_for_another() {
        let (breakers, now) = (breakers(), Instant::now());
        let at = |no| ("one".into(), PluginName::parse("p").unwrap(), 1, Some(EndpointNo(no)));
        let _ = [0; 3].map(|_| breakers.note(&at(1), true, now));
        assert_eq!(breakers.note(&at(2), true, now), Change::None);
        assert_ne!(breakers.peek(&at(1), now), Gate::Open);
        assert_eq!(breakers.peek(&at(2), now), Gate::Open);
        let worst = |version| breakers.worst("one", &at(1).1, version, now);
        assert_eq!((worst(1).name, worst(1).failures), ("open", 3));
        assert_eq!((worst(2).name, worst(2).failures), ("closed", 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_is_lost_is_repeated() {
        let (breakers, p, now) = (breakers(), subject(1), Instant::now());
        let _ = [0; 3].map(|_| breakers.note(&p, true, now));
        let later = now + Duration::from_secs(31);
        assert_eq!(breakers.admit(&p, later), Gate::Open);
        assert_ne!(breakers.peek(&p, later), Gate::Open);
        assert_eq!(breakers.admit(&p, later + PROBE_PATIENCE), Gate::Open);
    }
}
