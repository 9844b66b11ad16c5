use std::{path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use tokio::{runtime::Handle, sync::mpsc, task::JoinSet};

use crate::domain::Slug;
use crate::storage::answering::Answering;
use crate::storage::codec::decode;
use crate::storage::company::Habit;
use crate::storage::fjall::{self, Fjall};
use crate::storage::fold::Meta;
use crate::storage::journal::{Journal, View};
use crate::storage::keyring::{MasterKey, MasterKeys};
use crate::storage::keys::ShardNo;
use crate::storage::memory::Disk;
use crate::storage::shard::Shard;
use crate::storage::time::{self, Past};
use crate::storage::writer::{Command, Writer};
use crate::storage::{Error, Result, Table};
use crate::telemetry::{STORE_BYTES, STORE_COMPACTIONS};
use crate::world::{Clock, Entropy, allocator};

/// How the store is laid out, and how much memory it takes.
#[derive(Debug, Clone)]
pub struct Config {
    /// Shards that tenants hash to. Fixed when the store is made.
    pub shards: u16,
    /// How long an id or an idempotency key keeps an event from being stored again.
    pub idempotency_window: Duration,
    /// Bytes of the newest events that are kept in memory.
    pub tail_bytes_max: usize,
    /// Commands that wait for the writer; more make their senders wait.
    pub commands_max: usize,
    /// Notices a slow watcher may be behind before it misses some.
    pub notices_max: usize,
    /// The machine's clock is right, whatever the store says of when it was last in use.
    pub trust_clock: bool,
    /// fjall's own settings.
    pub fjall: fjall::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: 1,
            idempotency_window: Duration::from_secs(24 * 3600),
            tail_bytes_max: 32 * 1024 * 1024,
            commands_max: 4096,
            notices_max: 4096,
            trust_clock: false,
            fjall: fjall::Config::default(),
        }
    }
}

/// All shards of a store.
#[derive(Clone)]
pub struct Store {
    shards: Arc<[Arc<Shard>]>,
    /// What it lies in, unless it is simulated.
    pub(super) fjall: Option<Fjall>,
}

/// The writers of a store that was opened; nothing is written until they run.
pub struct Writers(Vec<Writer>);

/// Writers at work on threads of their own.
pub struct RunningWriters {
    store: Store,
    threads: Vec<JoinHandle<()>>,
    answering: JoinSet<()>,
}

impl Store {
    /// Opens the store in a data directory.
    ///
    /// # Errors
    /// `InUse`, `Newer`, `Corrupt`, `WrongKey`; `Unavailable` when the directory cannot be used.
    pub fn open(
        folder: &Path,
        config: &Config,
        masters: MasterKeys,
        world: (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<(Self, Writers)> {
        let fjall = Fjall::open(folder, &config.fjall, config.shards)?;
        let (mut store, writers) = Self::assemble(config, masters, world, |shard| {
            Ok((Box::new(fjall.journal(shard)), Box::new(fjall.clone())))
        })?;
        store.fjall = Some(fjall);
        Ok((store, writers))
    }

    /// Opens a simulated store on what `disk` holds.
    ///
    /// # Errors
    /// `Corrupt` when it holds no history.
    pub fn simulated(
        disk: &Disk,
        config: &Config,
        world: (Arc<dyn Clock>, Arc<dyn Entropy>),
    ) -> Result<(Self, Writers)> {
        let masters = MasterKeys::new(MasterKey::simulated());
        Self::assemble(config, masters, world, |shard| {
            let (journal, view) = disk.open(shard, config.shards)?;
            Ok((Box::new(journal), Box::new(view)))
        })
    }

    fn assemble(
        config: &Config,
        masters: MasterKeys,
        world: (Arc<dyn Clock>, Arc<dyn Entropy>),
        open: impl Fn(ShardNo) -> Result<(Box<dyn Journal>, Box<dyn View>)>,
    ) -> Result<(Self, Writers)> {
        let (mut shards, mut writers) = (Vec::new(), Vec::new());
        let (mut opened, mut pasts) = (Vec::new(), Vec::new());
        for no in (0..config.shards.max(1)).map(ShardNo) {
            let (journal, view) = open(no)?;
            let meta = match view.get(Table::Meta, &no.all())? {
                Some(row) => decode(&row)?,
                None => Meta::new(config.shards),
            };
            pasts.push(Past::read(&*view, no, &meta)?);
            opened.push((no, journal, view, meta));
        }
        let (times, doubt) = time::begin(pasts, &*world.0, config.trust_clock);
        for ((no, journal, view, meta), time) in opened.into_iter().zip(times) {
            let (sender, commands) = mpsc::channel(config.commands_max);
            let known = (&meta, masters.clone(), (time, doubt.clone()));
            let shard = Shard::new(no, view, world.clone(), config.clone(), known, sender)?;
            let shard = Arc::new(shard);
            shards.push(shard.clone());
            let (answering, habit) = (Answering::default(), Habit::default());
            writers.push(Writer { shard, journal, meta, commands, answering, habit });
        }
        Ok((Self { shards: shards.into(), fjall: None }, Writers(writers)))
    }

    /// The shard of a tenant.
    pub fn shard(&self, tenant: &Slug) -> &Arc<Shard> {
        let digest = crc32fast::hash(tenant.as_str().as_bytes());
        &self.shards[digest as usize % self.shards.len()]
    }

    /// All shards. The first also keeps what belongs to no tenant.
    pub fn shards(&self) -> &[Arc<Shard>] {
        &self.shards
    }

    /// Whether all shards can take events.
    pub fn is_well(&self) -> bool {
        let damaged = self.fjall.as_ref().is_some_and(|it| it.damage().borrow().is_some());
        !damaged && self.shards.iter().all(|it| it.is_well())
    }

    /// Shows what it takes of the disk.
    pub fn show_usage(&self) {
        let Some(fjall) = &self.fjall else { return };
        let (bytes, compactions) = fjall.usage();
        for (table, bytes) in bytes {
            STORE_BYTES.show(bytes as f64, &[table]);
        }
        STORE_COMPACTIONS.counting(&[]).absolute(compactions);
    }

    /// Waits until the store fails or turns out to be damaged: then the process must end.
    pub async fn failure(&self) -> Error {
        let shards = self.shards.iter().map(|it| Box::pin(it.failure()));
        let failed = futures_util::future::select_all(shards);
        let damaged = async {
            let mut damage = self.fjall.as_ref()?.damage();
            damage.wait_for(Option::is_some).await.ok()?.clone()
        };
        tokio::select! {
            (error, ..) = failed => error,
            Some(error) = damaged => error,
        }
    }

    /// Writes everything as it is at this instant, while it goes on changing; how many rows.
    ///
    /// # Errors
    /// When the store cannot be read, or `to` not be written.
    pub fn backup(&self, to: &mut dyn std::io::Write) -> Result<u64> {
        let fjall = self.fjall.as_ref();
        let fjall = fjall.ok_or_else(|| Error::unavailable("a simulated store has no backup"))?;
        fjall.backup(self.shards.len() as u16, to)
    }

    /// Asks the writers to write what has come and end.
    pub async fn close(&self) {
        for shard in self.shards.iter() {
            // A writer that is gone has ended already.
            let _ = shard.send(Command::Stop).await;
        }
    }
}

impl Writers {
    /// The writers as futures, for a simulation to poll.
    pub fn into_futures(self) -> impl Iterator<Item = impl Future<Output = ()> + Send> {
        self.0.into_iter().map(Writer::run)
    }

    /// Runs each on a thread of its own, since a sync blocks. Whoever waits for an event to be
    /// durable is answered from a task on the current runtime.
    ///
    /// # Errors
    /// `Unavailable` when the system gives no thread.
    pub fn start(self, store: &Store) -> Result<RunningWriters> {
        let (mut threads, mut answering) = (Vec::new(), JoinSet::new());
        for mut writer in self.0 {
            writer.answering = Answering::by_task(&mut answering);
            let name = format!("writer-{}", writer.shard.no.0);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let runtime = runtime.map_err(Error::unavailable)?;
            let thread = std::thread::Builder::new().name(name);
            let run = move || {
                writer.shard.company.is_written_here();
                runtime.block_on(async {
                    let mut beside = JoinSet::new();
                    beside.spawn(allocator::keep_small(Handle::current()));
                    writer.run().await;
                });
            };
            threads.push(thread.spawn(run).map_err(Error::unavailable)?);
        }
        Ok(RunningWriters { store: store.clone(), threads, answering })
    }
}

impl RunningWriters {
    /// Ends the writers once everything that was sent before is on disk.
    pub async fn stop(mut self) {
        self.store.close().await;
        for thread in self.threads {
            let ended = tokio::task::spawn_blocking(move || thread.join());
            if !matches!(ended.await, Ok(Ok(()))) {
                tracing::error!("a writer ended in panic");
            }
        }
        // Each ends behind the last answer of its writer.
        while self.answering.join_next().await.is_some() {}
    }
}
