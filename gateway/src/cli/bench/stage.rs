use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::cli::bench::args::Common;
use crate::cli::bench::gateway::Gateway;
use crate::cli::bench::load::{Order, Produced};
use crate::cli::bench::part::{Part, Role};
use crate::cli::bench::progress::Progress;
use crate::cli::bench::receiver::{self, Mood, Received};
use crate::cli::bench::report::Round;
use crate::cli::bench::usage::Usage;

/// What was accepted has to arrive by then.
const PATIENCE: Duration = Duration::from_secs(300);
/// A receiver that got nothing for so long is quiet.
const QUIET: Duration = Duration::from_millis(300);
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Load, receiver and a folder, for all rounds.
pub(super) struct Stage {
    pub(super) common: Common,
    pub(super) progress: Progress,
    pub(super) load: Part,
    pub(super) receiver: Part,
}

/// Who produces how much where.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) url: String,
    pub(super) key: String,
    pub(super) producers: usize,
    pub(super) pace: Option<f64>,
    /// Deliveries that an event becomes.
    pub(super) deliveries: u64,
}

impl Run {
    /// As fast as answers come, each event for one endpoint.
    pub(super) fn new(url: impl Into<String>, producers: usize) -> Self {
        let (url, key) = (url.into(), String::new());
        Self { url, key, producers, pace: None, deliveries: 1 }
    }

    /// The same at a gateway, for its own tenant.
    pub(super) fn at(gateway: &Gateway, producers: usize) -> Self {
        let url = gateway.events_url(&gateway.client.tenant);
        let key = gateway.client.key.clone().unwrap_or_default();
        Self { key, ..Self::new(url, producers) }
    }
}

/// Whose resources are counted.
pub(super) enum Whose<'a> {
    Gateway(&'a Gateway),
    Bound(&'a Part),
}

impl Whose<'_> {
    pub(super) fn usage(&self) -> Result<Option<Usage>> {
        match self {
            Self::Gateway(it) => it.usage(),
            Self::Bound(it) => Ok(Some(Usage::of(it.pid()?)?)),
        }
    }
}

impl Stage {
    pub(super) async fn set(common: &Common, progress: &Progress) -> Result<Self> {
        Ok(Self {
            common: common.clone(),
            progress: progress.clone(),
            load: Part::start(&Role::Load).await?,
            receiver: Part::start(&Role::Receiver(Mood::Answer(200))).await?,
        })
    }

    /// A folder on the disk that is measured. Dropped, it is deleted.
    pub(super) fn folder(&self) -> Result<TempDir> {
        folder(&self.common)
    }

    /// Tells which round is done now.
    pub(super) fn tell(&self, what: &str, round: u16) {
        self.progress.tell(format!("{what}, round {round} of {}", self.common.rounds));
    }

    pub(super) async fn produce(&mut self, run: &Run, seconds: f64) -> Result<Produced> {
        let order = Order {
            url: run.url.clone(),
            key: run.key.clone(),
            producers: run.producers,
            size: self.common.size,
            events: self.common.events,
            seconds,
            pace: run.pace,
        };
        self.load.ask(&order).await
    }

    /// A round without deliveries.
    pub(super) async fn ingest(&mut self, whose: &Whose<'_>, run: &Run) -> Result<Round> {
        self.produce(run, self.common.warm_up).await?;
        let before = whose.usage()?;
        let produced = self.produce(run, self.common.seconds).await?;
        Ok(Round::new(&produced, None, (before, whose.usage()?)))
    }

    /// A round whose end is that all deliveries have come, and their outcomes are stored.
    pub(super) async fn end_to_end(&mut self, whose: &Whose<'_>, run: &Run) -> Result<Round> {
        self.tell_receiver(receiver::Order::Forget).await?;
        let warm = self.produce(run, self.common.warm_up).await?;
        self.await_received(whose, warm.accepted * run.deliveries).await?;
        self.tell_receiver(receiver::Order::Forget).await?;
        let before = whose.usage()?;
        let produced = self.produce(run, self.common.seconds).await?;
        let received = self.await_received(whose, produced.accepted * run.deliveries).await?;
        Ok(Round::new(&produced, Some((run.deliveries, received)), (before, whose.usage()?)))
    }

    pub(super) async fn tell_receiver(&mut self, order: receiver::Order) -> Result<Received> {
        self.receiver.ask(&order).await
    }

    /// Waits until so many deliveries were taken, and nothing is pending.
    async fn await_received(&mut self, whose: &Whose<'_>, count: u64) -> Result<Received> {
        let received = self.await_taken(count).await?;
        if let Whose::Gateway(gateway) = whose {
            gateway.await_pending(|it| it == 0).await?;
            return self.tell_receiver(receiver::Order::Tell).await;
        }
        Ok(received)
    }

    /// Waits until so many deliveries were taken.
    pub(super) async fn await_taken(&mut self, count: u64) -> Result<Received> {
        let (mut seen, mut moved) = (0, Instant::now());
        loop {
            let received = self.tell_receiver(receiver::Order::Tell).await?;
            if received.taken >= count {
                return Ok(received);
            }
            if received.taken > seen {
                (seen, moved) = (received.taken, Instant::now());
            }
            if moved.elapsed() > PATIENCE {
                bail!("of {count} deliveries {seen} have come, and none for {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until nothing comes any more, and forgets what came.
    pub(super) async fn await_quiet(&mut self) -> Result<()> {
        let mut last = u64::MAX;
        loop {
            let count = self.tell_receiver(receiver::Order::Tell).await?.count;
            if count == last {
                break;
            }
            last = count;
            tokio::time::sleep(QUIET).await;
        }
        self.tell_receiver(receiver::Order::Forget).await?;
        Ok(())
    }
}

/// A folder on the disk that is measured. Dropped, it is deleted.
pub(super) fn folder(common: &Common) -> Result<TempDir> {
    let place: PathBuf = common.dir.clone().unwrap_or_else(std::env::temp_dir);
    Ok(tempfile::Builder::new().prefix("hookgate-bench-").tempdir_in(place)?)
}
