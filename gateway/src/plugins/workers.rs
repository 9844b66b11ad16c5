//! The threads that run plugins, apart from those that accept and deliver.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use cpu_time::ThreadTime;
use tokio::{sync::oneshot, time::Instant};
use wasmtime::Engine;

use crate::domain::PluginQuota;
use crate::plugins::deadline::TICK;
use crate::plugins::kept::Kept;
use crate::plugins::turns::{Bounds, Turn, Turns};
use crate::plugins::{Answer, Call, Called, Class, Config, Question};
use crate::telemetry::{PLUGIN_CALLS, PLUGIN_DURATION, PLUGIN_FUEL, PLUGIN_INSTANCES};

/// Too many calls of the tenant wait already: back-pressure, not a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many plugin calls of this tenant wait already")]
pub struct Busy {
    /// When there may be room.
    pub retry_after: Duration,
}

/// The clock rests after so many ticks without a call.
const QUIET_TICKS: u32 = 10;

struct Waiting {
    call: Call<Question>,
    quota: PluginQuota,
    reply: oneshot::Sender<Called<Answer>>,
}

pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    engine: Engine,
    config: Config,
    kept: Kept,
    state: Mutex<State>,
    called: Condvar,
    clock_needed: Condvar,
}

#[derive(Default)]
struct Clock {
    /// Whether a call has begun since the last tick.
    needed: bool,
    rests: bool,
}

struct State {
    turns: Turns<Waiting>,
    running: usize,
    clock: Clock,
    /// Threads that wait for a call.
    idle: usize,
    stopping: bool,
}

impl Workers {
    pub(super) fn start(engine: &Engine, config: &Config) -> std::io::Result<Self> {
        let bounds = Bounds {
            workers: config.workers.max(1),
            waiting_max: config.queue_max,
            waiting_total_max: config.queue_total_max,
        };
        let (turns, clock) = (Turns::new(bounds), Clock::default());
        let state = State { turns, running: 0, clock, idle: 0, stopping: false };
        let shared = Arc::new(Shared {
            engine: engine.clone(),
            config: config.clone(),
            kept: Kept::new(config.kept.clone()),
            state: Mutex::new(state),
            called: Condvar::new(),
            clock_needed: Condvar::new(),
        });
        let mut threads = Vec::new();
        for number in 0..config.workers {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("plugin-{number}"));
            threads.push(thread.spawn(move || work(&shared))?);
        }
        if !threads.is_empty() {
            let ticking = shared.clone();
            let thread = std::thread::Builder::new().name("plugin-clock".to_owned());
            threads.push(thread.spawn(move || tick(&ticking))?);
        }
        Ok(Self { shared, threads })
    }

    pub(super) async fn call(
        &self,
        call: Call<Question>,
        (class, quota): (Class, PluginQuota),
    ) -> Result<Called<Answer>, Busy> {
        if self.threads.is_empty() {
            return Ok(run(&self.shared, &call, &quota));
        }
        let (reply, answer) = oneshot::channel();
        let is_awaited = {
            let mut state = self.shared.lock();
            let (tenant, budget) = (call.tenant.clone(), self.shared.config.cpu_budget(&quota));
            let waiting = Waiting { call, quota, reply };
            let queued = state.turns.push(&tenant, budget, (class, waiting), now());
            queued.map_err(|(_, retry_after)| Busy { retry_after })?;
            state.idle > 0
        };
        // It asks the system, whether somebody waits or not.
        if is_awaited {
            self.shared.called.notify_one();
        }
        answer.await.map_err(|_| Busy { retry_after: Duration::from_secs(1) })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stopping = true;
            drop(state.turns.drain());
        }
        self.shared.called.notify_all();
        self.shared.clock_needed.notify_all();
        for thread in self.threads.drain(..) {
            // A panic in there was reported by the panic hook already.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a call may run; `None`: the host stops.
    fn next(&self) -> Option<Turn<Waiting>> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            let again = match state.turns.next(now()) {
                Ok(turn) => {
                    state.running += 1;
                    state.clock.needed = true;
                    if std::mem::take(&mut state.clock.rests) {
                        self.clock_needed.notify_one();
                    }
                    if state.idle > 0 && state.turns.has_ring() {
                        // What waits may be able to run beside this one.
                        self.called.notify_one();
                    }
                    return Some(turn);
                }
                Err(again) => again,
            };
            state.idle += 1;
            state = match again {
                Some(at) => {
                    let waited = self.called.wait_timeout(state, at - now());
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.called.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
            state.idle -= 1;
        }
    }
}

fn work(shared: &Shared) {
    while let Some(Turn { item: Waiting { call, quota, reply }, ticket }) = shared.next() {
        let (wall, cpu) = (now(), ThreadTime::now());
        // Nobody waits for the answer any more: the attempt was abandoned.
        let called = (!reply.is_closed()).then(|| run(shared, &call, &quota));
        let (wall, cpu) = (wall.elapsed(), cpu.elapsed());
        {
            let mut state = shared.lock();
            state.running -= 1;
            state.turns.ended(&ticket, wall, cpu);
        }
        if let Some(called) = called {
            // The caller may have gone away.
            let _ = reply.send(called);
        }
    }
}

fn run(shared: &Shared, call: &Call<Question>, quota: &PluginQuota) -> Called<Answer> {
    let started = now();
    let usual = || shared.config.limits_of(call.artifact.heavy(), quota);
    let limits = call.limits.unwrap_or_else(usual);
    PLUGIN_INSTANCES.shift(1.0, &[]);
    let mut called = call.artifact.sandboxed.run(call, &limits, &shared.kept);
    PLUGIN_INSTANCES.shift(-1.0, &[]);
    called.duration = started.elapsed();
    if call.dry {
        return called;
    }
    PLUGIN_CALLS.count(1, &[called.result]);
    PLUGIN_DURATION.observe(called.duration.as_secs_f64(), &[]);
    if let Some(fuel) = called.fuel {
        PLUGIN_FUEL.count(fuel, &[]);
    }
    called
}

/// Moves the engine's clock while anything runs and a little longer, since waking it costs as much
/// as a short call; rests otherwise. It stops last: without it nothing would end a guest that
/// loops.
fn tick(shared: &Shared) {
    let (mut state, mut quiet) = (shared.lock(), 0);
    while !state.stopping || state.running > 0 {
        if quiet == QUIET_TICKS && !state.stopping {
            state.clock.rests = true;
            let woken = shared.clock_needed.wait_while(state, |it| it.clock.rests && !it.stopping);
            state = woken.unwrap_or_else(PoisonError::into_inner);
            quiet = 0;
        }
        let waited = shared.clock_needed.wait_timeout(state, TICK);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        shared.engine.increment_epoch();
        let needed = std::mem::take(&mut state.clock.needed) || state.running > 0;
        quiet = if needed { 0 } else { quiet + 1 };
    }
}

fn now() -> Instant {
    Instant::now()
}
