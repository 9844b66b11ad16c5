use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tempfile::TempDir;
use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use hookgate::{
    dispatch::{self, Dispatcher},
    domain::{
        Endpoint, EndpointNo, EventType, Filter, Pattern, PluginName, Quota, Slug, Timestamp,
    },
    fanout,
    plugins::{self, Host},
    retention,
    storage::{Appended, Config, Keep, NewEvent, Shard, Store, conformance, memory::Disk},
    world::{
        Clock, Entropy, FailureClass, Request, Response, SeededEntropy, SendResult, SimClock,
        SteadyClock, Timings, Transport,
    },
};

/// A gateway whose rooms run on one thread, with one seed and paused time, and can be killed and
/// started again over the same simulated disk.
pub struct Sim {
    /// The receivers' side.
    pub receiver: Arc<Receiver>,
    /// Ids of the events that were acknowledged, with their bodies.
    pub acknowledged: BTreeMap<String, Bytes>,
    /// How long what is kept.
    pub keep: Keep,
    /// How much is attempted at once.
    pub config: dispatch::Config,
    /// The machine's clock, which may be wrong.
    pub machine: Machine,
    /// Whether the next start is told that it is right.
    pub trust_clock: bool,
    disk: Disk,
    clock: Arc<dyn Clock>,
    entropy: Arc<SeededEntropy>,
    /// Where compiled plugins lie; without it there are none.
    plugins: Option<TempDir>,
    running: Option<(Store, JoinSet<()>)>,
    host: Option<Host>,
}

/// The machine's clock: right, unless it is set ahead or back.
#[derive(Clone)]
pub struct Machine(Arc<(SimClock, AtomicI64)>);

impl Default for Machine {
    fn default() -> Self {
        let right = SimClock::starting_at(Timestamp(1_800_000_000_000));
        Self(Arc::new((right, AtomicI64::new(0))))
    }
}

impl Machine {
    /// So many milliseconds ahead of what is right.
    pub fn be_ahead(&self, millis: i64) {
        self.0.1.store(millis, Ordering::Relaxed);
    }
}

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.0.now().0.saturating_add_signed(self.0.1.load(Ordering::Relaxed)))
    }
}

/// Fuel of a plugin's call: a hundred times what the examples need.
const FUEL: u64 = 5_000_000;

/// The types of what is published, in turns.
const KINDS: [&str; 2] = ["invoice.paid", "invoice.sent"];

impl Sim {
    /// A stopped gateway on an empty disk. `refusing` is the share of requests that endpoints
    /// refuse.
    pub fn new(seed: u64, refusing: f64) -> Self {
        let entropy = Arc::new(SeededEntropy::new(seed));
        let receiver = Receiver {
            entropy: SeededEntropy::new(seed ^ 0xdead),
            refusing: Mutex::new(refusing),
            moods: Mutex::default(),
            got: Mutex::default(),
            started: now(),
        };
        Self {
            receiver: Arc::new(receiver),
            acknowledged: BTreeMap::new(),
            keep: Keep::default(),
            config: dispatch::Config { in_flight_max: 16, ..Default::default() },
            machine: Machine::default(),
            trust_clock: false,
            disk: Disk::default(),
            clock: Arc::new(Machine::default()),
            entropy,
            plugins: None,
            running: None,
            host: None,
        }
    }

    /// The same with plugins, which fuel alone bounds.
    pub fn with_plugins(seed: u64, refusing: f64) -> Self {
        let plugins = Some(tempfile::tempdir().expect("a folder"));
        Self { plugins, ..Self::new(seed, refusing) }
    }

    /// Opens the store and starts all rooms.
    pub async fn start(&mut self) {
        let config = Config { shards: 2, trust_clock: self.trust_clock, ..Config::default() };
        self.clock = Arc::new(SteadyClock::following(self.machine.clone()));
        let world = (self.clock.clone(), self.entropy.clone() as Arc<dyn Entropy>);
        let (store, writers) = Store::simulated(&self.disk, &config, world).expect("the disk");
        self.host = self.plugins.as_ref().map(|cache| {
            let config = plugins::Config::simulated(cache.path().to_owned(), FUEL);
            Host::start(config, &*self.entropy).expect("a host")
        });
        let mut tasks = JoinSet::new();
        writers.into_futures().for_each(|it| drop(tasks.spawn(it)));
        store.note_start().await.expect("the disk");
        let trimming = retention::run(store.clone(), self.keep, CancellationToken::new());
        tasks.spawn(trimming);
        for shard in store.shards() {
            let stopping = CancellationToken::new();
            tasks.spawn(fanout::run(shard.clone(), stopping.clone()));
            let dispatcher = Dispatcher {
                shard: shard.clone(),
                plugins: self.host.clone(),
                transport: self.receiver.clone(),
                clock: self.clock.clone(),
                entropy: self.entropy.clone(),
                config: self.config.clone(),
            };
            tasks.spawn(dispatcher.run(stopping));
        }
        let tenant = Slug::default_tenant();
        let known = store.shard(&tenant).catalog().tenant(&tenant).is_some();
        if !known {
            store
                .shard(&tenant)
                .put_tenant(&tenant, |_| Ok(("Default".into(), Quota::default())))
                .await
                .expect("a tenant");
        }
        self.running = Some((store, tasks));
    }

    /// In half of the worlds, makes an endpoint whose filter wants none, but has to be asked: the
    /// writer leaves every other event to the fan-out, and what comes just behind it.
    pub async fn endpoint_to_ask(&self) {
        if self.draw(2) == 0 {
            let never = Filter::compile("false").expect("a filter");
            let sent = Pattern::parse(KINDS[1]).expect("a pattern");
            let asked = |it: &mut Endpoint| {
                (it.filter, it.event_types) = (Some(never), vec![sent]);
            };
            self.endpoint(asked).await;
        }
    }

    /// Kills every room wherever it stands; of what was not synced, a part survives.
    pub fn crash(&mut self) {
        (self.running, self.host) = (None, None);
        self.disk.lose_power(self.entropy.fraction());
    }

    /// Lets the disk fail somewhere in what is written next; the batch that failed may be found
    /// after the crash, or not.
    pub fn fail_disk(&self) {
        self.fail_disk_within(60);
    }

    /// The same within so many batches.
    pub fn fail_disk_within(&self, batches: u64) {
        self.disk.fail_after(self.draw(batches), self.draw(2) == 0);
    }

    /// The shard of the tenant that everything belongs to.
    pub fn shard(&self) -> &Arc<Shard> {
        let (store, _) = self.running.as_ref().expect("it runs");
        store.shard(&Slug::default_tenant())
    }

    /// Makes an endpoint that wants everything.
    pub async fn endpoint(&self, change: impl FnOnce(&mut Endpoint) + Send) -> Endpoint {
        let make = |no: EndpointNo| {
            let mut endpoint = conformance::endpoint(no);
            change(&mut endpoint);
            endpoint
        };
        let made = self.shard().create_endpoint(&Slug::default_tenant(), make).await;
        made.expect("an endpoint")
    }

    /// Uploads a plugin.
    pub async fn plugin(&self, name: &str, component: &Bytes) {
        let host = self.host.as_ref().expect("it runs with plugins");
        let artifact = host.check(component.clone()).await.expect("a plugin");
        let (name, kind) = (PluginName::parse(name).expect("a name"), artifact.hooks().kind());
        let upload = (component.clone(), artifact.digest().0);
        let tenant = Slug::default_tenant();
        self.shard().put_plugin(&tenant, (&name, &kind), upload, true).await.expect("an upload");
    }

    /// Publishes an event; once acknowledged it must never be lost.
    pub async fn publish(&mut self, n: u64) {
        self.publish_keyed(n, None).await;
    }

    /// The same with an ordering key.
    pub async fn publish_keyed(&mut self, n: u64, ordering_key: Option<String>) {
        let body = Bytes::from(format!("{{\"n\":{n}}}"));
        let mut event = NewEvent::new(event_type(n), body.clone());
        event.ordering_key = ordering_key;
        let appended = self.shard().append(&Slug::default_tenant(), vec![event], true).await;
        if let Ok([Appended::New { id, .. }]) = appended.as_deref() {
            self.acknowledged.insert(id.to_string(), body);
        }
    }

    /// Publishes an event under an idempotency key; what became of it, if that was acknowledged.
    ///
    /// # Errors
    /// When the disk failed: whether it is stored, nobody knows.
    pub async fn append_named(&self, n: u64, key: &str) -> hookgate::storage::Result<Appended> {
        let mut event = NewEvent::new(event_type(n), Bytes::from(format!("{{\"n\":{n}}}")));
        event.idempotency_key = Some(key.to_owned());
        let appended = self.shard().append(&Slug::default_tenant(), vec![event], true).await?;
        Ok(appended.into_iter().next().expect("an answer for each event"))
    }

    /// How long it has been since the simulation began.
    pub fn elapsed(&self) -> Duration {
        self.receiver.started.elapsed()
    }

    /// A random number below `end`.
    pub fn draw(&self, end: u64) -> u64 {
        self.entropy.draw() % end
    }
}

fn event_type(n: u64) -> EventType {
    EventType::parse(KINDS[n as usize % KINDS.len()]).expect("a type")
}

/// What one request looked like and how it was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Its `webhook-id`.
    pub id: String,
    /// Which endpoint's connection pool it came from.
    pub pool: u64,
    /// Its body.
    pub body: Bytes,
    /// Whether it was accepted.
    pub accepted: bool,
    /// When it came, since the simulation began.
    pub at: Duration,
    /// When it was answered.
    pub answered: Duration,
}

/// How a receiver answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Mood {
    /// With this status and `Retry-After`.
    Answers(u16, Option<&'static str>),
    /// Not within the timeout.
    Hangs,
    /// Never, whatever the timeout: the gateway itself has lost the request.
    Lost,
    /// Well, but to a body with this text the gateway itself fails.
    Breaks(&'static str),
}

type Answer = Result<Response, (FailureClass, String)>;

fn now() -> Instant {
    Instant::now()
}

/// The receivers: they refuse a share of what they get, by the seed.
pub struct Receiver {
    entropy: SeededEntropy,
    refusing: Mutex<f64>,
    /// Receivers that answer otherwise, by the endpoint's number.
    moods: Mutex<BTreeMap<u32, Mood>>,
    started: Instant,
    got: Mutex<Vec<Received>>,
}

impl Receiver {
    /// Every request so far, in order.
    pub fn got(&self) -> Vec<Received> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on this share of requests is refused.
    pub fn refuse(&self, share: f64) {
        *self.refusing.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }

    /// From now on this endpoint answers so; `None`: as the others.
    pub fn be(&self, endpoint: EndpointNo, mood: Option<Mood>) {
        let mut moods = self.moods.lock().unwrap_or_else(PoisonError::into_inner);
        match mood {
            Some(mood) => drop(moods.insert(endpoint.0, mood)),
            None => drop(moods.remove(&endpoint.0)),
        }
    }

    /// What an endpoint got, in order.
    pub fn got_by(&self, endpoint: EndpointNo) -> Vec<Received> {
        let mut got = self.got();
        got.retain(|it| it.pool as u32 == endpoint.0);
        got
    }

    async fn moody(&self, mood: Mood, timeout: Duration) -> Answer {
        match mood {
            Mood::Hangs => {
                tokio::time::sleep(timeout).await;
                Err((FailureClass::Timeout, "no answer in time".to_owned()))
            }
            Mood::Lost => std::future::pending().await,
            Mood::Breaks(_) => self.answer(),
            Mood::Answers(status, retry_after) => {
                tokio::time::sleep(Duration::from_millis(self.entropy.draw() % 20)).await;
                let mut headers = HeaderMap::new();
                if let Some(text) = retry_after {
                    headers.insert("retry-after", text.parse().expect("a value"));
                }
                let status = StatusCode::from_u16(status).expect("a status");
                Ok(Response { status, headers, body: Bytes::new(), body_truncated: false })
            }
        }
    }

    fn answer(&self) -> Answer {
        let refusing = *self.refusing.lock().unwrap_or_else(PoisonError::into_inner);
        let status = match self.entropy.fraction() < refusing {
            true if self.entropy.draw().is_multiple_of(3) => {
                return Err((FailureClass::Timeout, "no answer in time".to_owned()));
            }
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::OK,
        };
        let (headers, body) = (HeaderMap::new(), Bytes::new());
        Ok(Response { status, headers, body, body_truncated: false })
    }
}

#[async_trait]
impl Transport for Receiver {
    async fn send(&self, request: Request) -> SendResult {
        let at = self.started.elapsed();
        let moods = self.moods.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = match moods.get(&(request.pool as u32)) {
            Some(mood) => self.moody(mood.clone(), request.timeout).await,
            None => {
                tokio::time::sleep(Duration::from_millis(self.entropy.draw() % 500)).await;
                self.answer()
            }
        };
        let accepted = answer.as_ref().is_ok_and(|it| it.status.is_success());
        let id = request.headers["webhook-id"].to_str().expect("an id").to_owned();
        let (pool, body, answered) = (request.pool, request.body, self.started.elapsed());
        let breaks = match moods.get(&(pool as u32)) {
            Some(Mood::Breaks(text)) => String::from_utf8_lossy(&body).contains(text),
            _ => false,
        };
        let accepted = accepted && !breaks;
        let received = Received { id, pool, body, accepted, at, answered };
        self.got.lock().unwrap_or_else(PoisonError::into_inner).push(received);
        assert!(!breaks, "of its own accord");
        SendResult { answer, timings: Timings::default() }
    }

    fn check_url(&self, url: &str) -> Result<url::Url, (&'static str, String)> {
        url.parse().map_err(|_| ("url_invalid", "no URL".to_owned()))
    }
}
