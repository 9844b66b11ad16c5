//! Turns each accepted event into a delivery for every endpoint that wants it, where the store's
//! writer has not done so with the event itself: filters are asked here, and masses are made here.
//!
//! **Invariant:** doing it twice changes nothing: deliveries are named by event and endpoint, and
//! the mark moves with them.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::domain::Event;
use crate::storage::{Result, Shard, Wanted};
use crate::world::reach;

/// Events taken at a time.
const BATCH_MAX: usize = 256;
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Follows a shard's events until told to stop.
pub async fn run(shard: Arc<Shard>, stopping: CancellationToken) {
    loop {
        let step = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            step = fan_out_next(&shard) => step,
        };
        if let Err(error) = step {
            tracing::error!(%error, "fan-out cannot go on; trying again");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    }
}

async fn fan_out_next(shard: &Shard) -> Result<()> {
    let events = shard.left_to_fan_out(BATCH_MAX).await?;
    let wanted: Wanted = {
        let catalog = shard.catalog();
        let wanting = |event: Arc<Event>| {
            let endpoints = catalog.wanting(&event);
            (event, endpoints)
        };
        events.into_iter().map(wanting).collect()
    };
    reach("before_fan_out");
    shard.enqueue(&wanted).await
}
