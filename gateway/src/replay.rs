//! Goes through replays: events of the past become deliveries again, a part at a time and never
//! more than the endpoint has room for, so that what is new does not wait behind what is old.
//!
//! **Invariant:** a replay's place in the log moves in the same batch as the deliveries it set
//! off, so a restart goes on where it was and does nothing twice.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::storage::{Result, Shard};

const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Follows a shard's replays until told to stop.
pub async fn run(shard: Arc<Shard>, stopping: CancellationToken) {
    loop {
        let step = tokio::select! {
            biased;
            () = stopping.cancelled() => return,
            step = advance_all(&shard) => step,
        };
        if let Err(error) = step {
            tracing::error!(%error, "a replay cannot go on; trying again");
            tokio::time::sleep(TRY_AGAIN_AFTER).await;
        }
    }
}

/// One step of each replay that has room; waits when none has.
async fn advance_all(shard: &Shard) -> Result<()> {
    let running = shard.running_replays();
    if running.is_empty() {
        shard.replays_changed().await;
        return Ok(());
    }
    // Watched only meanwhile: telling what happens costs whoever makes it happen.
    let mut notices = shard.watch();
    let mut moved = false;
    for replay in &running {
        // Else what is about to be fanned out would be set off twice.
        shard.targets_known(replay.last).await?;
        let room = shard.replay_room(replay.endpoint_no);
        if room > 0 {
            shard.advance_replay(replay, room).await?;
            moved = true;
        }
    }
    if !moved {
        tokio::select! {
            () = shard.replays_changed() => {}
            // An attempt that ended makes room. Whether notices were missed does not matter.
            _ = notices.recv() => {}
        }
    }
    Ok(())
}
