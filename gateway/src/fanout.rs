//! Turns each accepted event into a delivery for every endpoint that wants it.
//!
//! **Invariant:** doing it twice changes nothing: deliveries are named by event and endpoint, and
//! the mark moves with them.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::domain::{Event, Timestamp};
use crate::storage::{Result, Shard};
use crate::telemetry::{ended, tracing_is_on};
use crate::world::reach;

/// Events fanned out at once; they share a row.
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
    let events = shard.read_after(shard.fanned_out(), BATCH_MAX).await?;
    let targets: Vec<_> = {
        let catalog = shard.catalog();
        let wanting = |event: Arc<Event>| {
            let endpoints = catalog.wanting(&event);
            (event, endpoints)
        };
        events.into_iter().map(wanting).collect()
    };
    reach("before_fan_out");
    shard.enqueue(&targets).await?;
    if tracing_is_on() {
        let now = shard.draw().0;
        targets.iter().for_each(|(event, endpoints)| note(event, endpoints.len(), now));
    }
    Ok(())
}

/// The span of an event's fan-out: from its acceptance to its deliveries.
fn note(event: &Event, deliveries: usize, now: Timestamp) {
    let Some(trace) = event.trace else { return };
    let facts = vec![
        ("hookgate.tenant", event.tenant.as_str().to_owned().into()),
        ("hookgate.event_id", event.id.as_str().to_owned().into()),
        ("hookgate.deliveries", (deliveries as i64).into()),
    ];
    ended("fan out", trace, now - event.accepted_at, facts);
}
