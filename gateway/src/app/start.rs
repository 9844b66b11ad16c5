use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpSocket,
    runtime::{Handle, Runtime},
    sync::watch,
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, Pace, Parts, STOPPING, hash_key, new_key};
use crate::app::descriptors::files_max;
use crate::app::disk::watch_space;
use crate::app::{Config, master_key, server};
use crate::dispatch::Dispatcher;
use crate::domain::{Quota, Slug};
use crate::plugins::{self, Host};
use crate::storage::{self, Refused, RunningWriters, Shard, Store};
use crate::world::client::{self, HttpTransport};
use crate::world::egress::{EgressPolicy, own_addresses};
use crate::world::{Clock, Entropy, SteadyClock, SystemClock, SystemEntropy, allocator};
use crate::{fanout, replay, retention, telemetry};

/// Idle connections to endpoints, if the process may have eight times as many files open.
const IDLE_CONNECTIONS_MAX: usize = 4096;
/// How long answers that are on their way are waited for when the store has failed.
const GRACE_WITHOUT_STORE: Duration = Duration::from_secs(2);
/// How long answers that are on their way have at least, when the grace is over.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The gateway cannot start; what to do about it stands in the sentence.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store cannot be opened.
    #[error(transparent)]
    Storage(#[from] storage::Error),
    /// There is no master key, or it cannot be used.
    #[error("the master key: {0}")]
    MasterKey(String),
    /// The plugin host cannot start.
    #[error(transparent)]
    Plugins(#[from] plugins::Error),
    /// It cannot listen where it should.
    #[error("cannot listen at {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// The machine gives no runtime or certificates.
    #[error("{0}")]
    Machine(String),
}

impl StartError {
    /// The exit code that tells a supervisor what is wrong (sysexits.h where it has one): 64 an
    /// address that it cannot listen at, 65 a damaged store, 73 a data directory in use, 74 a store that fails, 78 a newer format or
    /// another master key than the store's.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Storage(storage::Error::Corrupt(_)) => 65,
            Self::Storage(storage::Error::InUse(_)) => 73,
            Self::Storage(storage::Error::Unavailable(_)) => 74,
            Self::Storage(storage::Error::Newer { .. } | storage::Error::WrongKey) => 78,
            Self::MasterKey(_) => 78,
            Self::Listen(..) => 64,
            Self::Plugins(_) | Self::Machine(_) => 1,
        }
    }
}

/// A running gateway.
pub struct App {
    address: SocketAddr,
    made_operator_key: Option<String>,
    store: Store,
    unready: watch::Sender<Option<&'static str>>,
    stopping_front: CancellationToken,
    stopping_rooms: CancellationToken,
    hurry: CancellationToken,
    front: JoinSet<()>,
    rooms: JoinSet<()>,
    writers: Option<RunningWriters>,
    /// Deliveries have a runtime of their own, so that a flood of answers delays nobody who
    /// brings events.
    delivering: Option<Runtime>,
    transport: Arc<HttpTransport>,
    grace: Duration,
}

impl App {
    /// Opens the store, starts every room and listens.
    ///
    /// # Errors
    /// What is in the way.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::following(SystemClock));
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let world = (clock.clone(), entropy.clone());
        let config = within_files(config);
        let metrics = telemetry::install(config.owners.clone());
        // Before a new store is made: where nobody can listen there should be none.
        let (socket, address) = bind(config.listen)?;
        let masters = master_key::find(&config, &*entropy)?;
        let (store, writers) =
            Store::open(&config.data_dir, &config.storage, masters.clone(), world)?;
        let writers = writers.start(&store)?;
        master_key::adopt(&config, &store, &masters).await?;
        let made_operator_key = prepare(&store, &config, &*entropy).await?;
        let plugins = Host::start(config.plugins.clone(), &*entropy)?;
        grant(&plugins, &store);
        let listener = server::listen_with(socket).map_err(|it| StartError::Listen(address, it))?;
        let (delivering, transport) = start_delivering(&config, address)?;
        let stopping_rooms = CancellationToken::new();
        let dispatcher = |shard: &Arc<Shard>| Dispatcher {
            shard: shard.clone(),
            plugins: Some(plugins.clone()),
            transport: transport.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
            config: config.dispatch.clone(),
        };
        let on = (delivering.handle(), &stopping_rooms);
        let rooms = start_rooms(&store, dispatcher, config.keep, on);
        let unready = watch::Sender::new(None);
        let parts = Parts {
            store: store.clone(),
            plugins,
            transport: transport.clone(),
            clock,
            entropy,
            limits: config.limits.clone(),
            unready: unready.subscribe(),
            pace: Pace::default(),
            metrics,
            runtimes: vec![("front", Handle::current()), ("deliver", delivering.handle().clone())],
        };
        let stopping_front = CancellationToken::new();
        let mut front = keep_watch(config.data_dir, &parts, &unready, &stopping_front);
        front.spawn(server::serve(listener, Api::of(&parts.into()), stopping_front.clone()));
        Ok(Self {
            address,
            made_operator_key,
            store,
            unready,
            stopping_front,
            stopping_rooms,
            hurry: CancellationToken::new(),
            front,
            rooms,
            writers: Some(writers),
            delivering: Some(delivering),
            transport,
            grace: config.shutdown_grace,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The operator's key, if this start made it. It is shown this once.
    pub fn made_operator_key(&self) -> Option<&str> {
        self.made_operator_key.as_deref()
    }

    /// From now on deliveries go where `policy` says; connections that it denies are closed.
    pub fn set_egress(&self, policy: EgressPolicy) {
        self.transport.set_policy(about_this_machine(policy, self.address));
    }

    /// Waits until the store fails: then the process must end and start again.
    pub async fn failure(&self) -> storage::Error {
        self.store.failure().await
    }

    /// Cancelled, it ends the grace of a stop that has begun.
    pub fn hurry(&self) -> CancellationToken {
        self.hurry.clone()
    }

    /// Ends soon, since the store has failed: nothing that is in flight can be written down.
    pub async fn give_up(mut self) {
        self.grace = self.grace.min(GRACE_WITHOUT_STORE);
        self.stop().await;
    }

    /// Drains: refuses new events, finishes what is in flight within the grace, saves, and ends.
    /// Whether everything was finished. Who asks meanwhile is told to come again; nobody is
    /// listened to any more once there is nothing left to finish.
    pub async fn stop(mut self) -> bool {
        self.unready.send_replace(Some(STOPPING));
        self.stopping_rooms.cancel();
        let end = Instant::now() + self.grace;
        let finished = all_end(&mut self.rooms, end, &self.hurry).await;
        self.stopping_front.cancel();
        let end = end.max(Instant::now() + LAST_ANSWERS);
        let drained = all_end(&mut self.front, end, &self.hurry).await && finished;
        self.front.shutdown().await;
        self.rooms.shutdown().await;
        if let Some(writers) = self.writers.take() {
            writers.stop().await;
        }
        if let Some(delivering) = self.delivering.take() {
            delivering.shutdown_background();
        }
        drained
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(delivering) = self.delivering.take() {
            delivering.shutdown_background();
        }
    }
}

/// Waits for tasks until `end`, or until there is a hurry; whether all ended by themselves.
async fn all_end(tasks: &mut JoinSet<()>, end: Instant, hurry: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = async { while tasks.join_next().await.is_some() {} } => true,
        () = tokio::time::sleep_until(end) => false,
        () = hurry.cancelled() => false,
    }
}

/// Lets the plugin host know what each tenant is granted, as the catalog has it at each call.
fn grant(plugins: &Host, store: &Store) {
    let store = store.clone();
    plugins.grant_by(move |tenant| {
        let quota = |slug: &Slug| Some(store.shard(slug).catalog().tenant(slug)?.tenant.quota);
        Slug::parse(tenant).as_ref().and_then(quota).unwrap_or_default().plugins
    });
}

/// Files of the store, connections in, connections out: each has its share of what may be open.
fn within_files(mut config: Config) -> Config {
    let (files, in_flight) = (files_max() / 8, files_max() / 4);
    config.storage.fjall.files_max = config.storage.fjall.files_max.min(files);
    config.dispatch.in_flight_max = config.dispatch.in_flight_max.min(in_flight);
    config
}

/// The runtime of deliveries, and the transport that lives on it.
fn start_delivering(
    config: &Config,
    listener: SocketAddr,
) -> Result<(Runtime, Arc<HttpTransport>), StartError> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.thread_name("deliver").enable_all().build();
    let runtime = runtime.map_err(|it| StartError::Machine(it.to_string()))?;
    let egress = about_this_machine(config.egress.clone(), listener);
    let transport = {
        let _here = runtime.enter();
        let idle_max = IDLE_CONNECTIONS_MAX.min(files_max() / 8);
        HttpTransport::start(client::Config { egress, extra_roots: Vec::new(), idle_max })
    };
    let transport = transport.map_err(|it| StartError::Machine(format!("TLS: {it}")))?;
    Ok((runtime, Arc::new(transport)))
}

/// Adds what nobody configures, and says where deliveries may go.
fn about_this_machine(policy: EgressPolicy, listener: SocketAddr) -> EgressPolicy {
    let policy = EgressPolicy { own: own_addresses(), listener: Some(listener), ..policy };
    let (allowed, denied) = (&policy.allowed, &policy.denied);
    tracing::info!(
        allow_private_endpoints = policy.allow_private,
        allow_http = policy.allow_http,
        allow_cidr = ?allowed.iter().map(ToString::to_string).collect::<Vec<_>>(),
        deny_cidr = ?denied.iter().map(ToString::to_string).collect::<Vec<_>>(),
        allow_ports = ?policy.ports,
        proxy = ?policy.proxy,
        "where deliveries may go, beside public addresses by https"
    );
    policy
}

fn bind(at: SocketAddr) -> Result<(TcpSocket, SocketAddr), StartError> {
    let bound = server::bind(at).and_then(|it| Ok((it.local_addr()?, it)));
    let (address, socket) = bound.map_err(|it| StartError::Listen(at, it))?;
    Ok((socket, address))
}

/// What looks after the process beside its work: space on the disk, metrics and memory kept small.
fn keep_watch(
    folder: PathBuf,
    parts: &Parts,
    unready: &watch::Sender<Option<&'static str>>,
    stopping: &CancellationToken,
) -> JoinSet<()> {
    let mut watching = JoinSet::new();
    let (metrics, until) = (parts.metrics.clone(), stopping.clone());
    watching.spawn(async move {
        until.run_until_cancelled(metrics.keep_small()).await;
    });
    watching.spawn(watch_space(folder, unready.clone(), stopping.clone()));
    for (_, runtime) in &parts.runtimes {
        let (runtime, until) = (runtime.clone(), stopping.clone());
        watching.spawn(async move {
            until.run_until_cancelled(allocator::keep_small(runtime)).await;
        });
    }
    watching
}

/// Fan-out and dispatch of each shard.
fn start_rooms(
    store: &Store,
    dispatcher: impl Fn(&Arc<Shard>) -> Dispatcher,
    keep: storage::Keep,
    (on, stopping): (&Handle, &CancellationToken),
) -> JoinSet<()> {
    let mut rooms = JoinSet::new();
    for shard in store.shards() {
        rooms.spawn_on(fanout::run(shard.clone(), stopping.clone()), on);
        rooms.spawn_on(replay::run(shard.clone(), stopping.clone()), on);
        rooms.spawn_on(dispatcher(shard).run(stopping.clone()), on);
    }
    rooms.spawn_on(retention::run(store.clone(), keep, stopping.clone()), on);
    rooms
}

/// Makes what exists from the start: the default tenant and the operator's key.
async fn prepare(
    store: &Store,
    config: &Config,
    entropy: &dyn Entropy,
) -> Result<Option<String>, StartError> {
    store.note_start().await?;
    let default = Slug::default_tenant();
    let shard = store.shard(&default);
    let keeper = &store.shards()[0];
    let known = keeper.catalog().operator_key().copied();
    // Later it is missing because somebody deleted it.
    if known.is_none() && shard.catalog().tenant(&default).is_none() {
        let made = shard.put_tenant(&default, |_| Ok(("Default".to_owned(), Quota::default())));
        made.await.map_err(|it| match it {
            Refused::Storage(error) => StartError::Storage(error),
            other => StartError::Machine(other.to_string()),
        })?;
    }
    let (hash, made) = match (&config.operator_key, known) {
        (Some(given), _) => (hash_key(given), None),
        (None, Some(known)) => (known, None),
        (None, None) => {
            let mut random = [0; 32];
            entropy.fill(&mut random);
            let key = new_key("operator", random);
            (hash_key(&key), Some(key))
        }
    };
    if known != Some(hash) {
        keeper.set_operator_key(hash).await?;
    }
    Ok(made)
}
