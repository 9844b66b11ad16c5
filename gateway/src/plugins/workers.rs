//! The threads that run plugins. Tenants take turns, so that one with many calls waits for
//! itself.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};
use wasmtime::Engine;

use crate::plugins::{Answer, Call, Called, Config, FaultKind, Question};

/// How often the engine's clock ticks while anything runs.
const TICK: Duration = Duration::from_millis(1);

type Waiting = (Call<Question>, oneshot::Sender<Called<Answer>>);

pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    engine: Engine,
    config: Config,
    state: Mutex<State>,
    called: Condvar,
    running: Condvar,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<Arc<str>, VecDeque<Waiting>>,
    turns: VecDeque<Arc<str>>,
    running: usize,
    stopping: bool,
}

impl Workers {
    pub(super) fn start(engine: &Engine, config: &Config) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            engine: engine.clone(),
            config: config.clone(),
            state: Mutex::default(),
            called: Condvar::new(),
            running: Condvar::new(),
        });
        let mut threads = Vec::new();
        for number in 0..config.workers.max(1) {
            let shared = shared.clone();
            let thread = std::thread::Builder::new().name(format!("plugin-{number}"));
            threads.push(thread.spawn(move || work(&shared))?);
        }
        let ticking = shared.clone();
        let thread = std::thread::Builder::new().name("plugin-clock".to_owned());
        threads.push(thread.spawn(move || tick(&ticking))?);
        Ok(Self { shared, threads })
    }

    pub(super) async fn call(&self, call: Call<Question>) -> Called<Answer> {
        let (reply, answer) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            let tenant = call.tenant.clone();
            let waiting = state.waiting.entry(tenant.clone()).or_default();
            if waiting.len() >= self.shared.config.queue_max {
                return Called::failed(FaultKind::Overloaded, "too many calls wait already");
            }
            waiting.push_back((call, reply));
            if waiting.len() == 1 {
                state.turns.push_back(tenant);
            }
        }
        self.shared.called.notify_one();
        let stopped = || Called::failed(FaultKind::Overloaded, "the plugin host stops");
        answer.await.unwrap_or_else(|_| stopped())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.lock().stopping = true;
        self.shared.called.notify_all();
        self.shared.running.notify_all();
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
}

impl State {
    fn next(&mut self) -> Option<Waiting> {
        let tenant = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&tenant)?;
        let next = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        next
    }
}

fn work(shared: &Shared) {
    let mut state = shared.lock();
    loop {
        let Some((call, reply)) = state.next() else {
            if state.stopping {
                return;
            }
            state = shared.called.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        state.running += 1;
        if state.running == 1 {
            shared.running.notify_one();
        }
        drop(state);
        let called = run(shared, &call);
        // The caller may have gone away.
        let _ = reply.send(called);
        state = shared.lock();
        state.running -= 1;
    }
}

fn run(shared: &Shared, call: &Call<Question>) -> Called<Answer> {
    let started = Instant::now();
    let limits = call.limits.as_ref().unwrap_or(&shared.config.limits);
    // One more, since the first tick may come at once.
    let ticks = limits.deadline.as_millis() as u64 / TICK.as_millis() as u64 + 1;
    let sandboxed = &call.artifact.sandboxed;
    let mut called = sandboxed.run(&call.config, &call.question, limits, ticks);
    called.duration = started.elapsed();
    metrics::counter!("hookgate_plugin_calls_total", "result" => called.result).increment(1);
    let seconds = called.duration.as_secs_f64();
    metrics::histogram!("hookgate_plugin_duration_seconds").record(seconds);
    called
}

/// Moves the engine's clock while anything runs, and rests otherwise.
fn tick(shared: &Shared) {
    let mut state = shared.lock();
    while !state.stopping {
        if state.running == 0 {
            state = shared.running.wait(state).unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let waited = shared.running.wait_timeout(state, TICK);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
        shared.engine.increment_epoch();
    }
}
