//! Lets events go that are beyond retention, at the start and from then on again and again, and
//! notes that the store is in use.
//!
//! **Invariant:** nothing is removed by hand here: the shard decides up to where its events may
//! go, and what it decides is a record like any other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::storage::{Keep, Result, Store};
use crate::telemetry::{EVENTS_OLDEST, EVENTS_TRIMMED};

/// How often it is looked what is too old.
const EVERY: Duration = Duration::from_secs(600);

/// Looks after all shards until told to stop.
pub async fn run(store: Store, keep: Keep, stopping: CancellationToken) {
    loop {
        match stopping.run_until_cancelled(trim(&store, keep)).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "what is too old stays; trying again"),
            None => return,
        }
        // The start has noted its own time.
        let later = async {
            tokio::time::sleep(EVERY).await;
            note_time(&store).await
        };
        match stopping.run_until_cancelled(later).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::error!(%error, "the time is not noted; trying again"),
            None => return,
        }
    }
}

async fn note_time(store: &Store) -> Result<()> {
    for shard in store.shards() {
        shard.note_time().await?;
    }
    Ok(())
}

async fn trim(store: &Store, keep: Keep) -> Result<()> {
    let mut oldest = Duration::ZERO;
    for shard in store.shards() {
        let trimmed = shard.trim(keep).await?;
        EVENTS_TRIMMED.count(trimmed.events, &[]);
        oldest = oldest.max(trimmed.oldest.unwrap_or_default());
        if trimmed.events > 0 {
            let (shard, events) = (shard.number(), trimmed.events);
            tracing::info!(shard, events, "events beyond retention are gone");
        }
    }
    EVENTS_OLDEST.show(oldest.as_secs_f64(), &[]);
    Ok(())
}
