//! Memory for the bodies of all requests together. Each body has a bound, but a thousand of them at
//! once would fill any machine; and a process that is killed for want of memory refuses everybody.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::api::problem::{Problem, Result};

/// What a body may take without asking. Most are smaller, and connections take in as much anyway.
const FREE_BYTES: usize = 64 * 1024;
/// What is asked for at once.
const STEP_BYTES: usize = 64 * 1024;
/// How long a body waits for others to be done with. All may wait for each other, so not for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// What all bodies may take beyond their first 64 KiB, in steps.
#[derive(Debug, Clone)]
pub struct BodyMemory(Arc<Semaphore>);

/// What one body has taken.
#[derive(Debug)]
pub(super) struct Held<'a> {
    of: &'a BodyMemory,
    permit: Option<OwnedSemaphorePermit>,
}

/// A body that counts until nothing of it is left.
struct Counted {
    bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl BodyMemory {
    /// Room for about so many bytes; at least one of the largest bodies must fit.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max / STEP_BYTES)))
    }

    pub(super) fn hold(&self) -> Held<'_> {
        Held { of: self, permit: None }
    }
}

impl Held<'_> {
    /// Takes what a body of so many bytes needs; waits for others where there is too little.
    pub(super) async fn grow_to(&mut self, bytes: usize) -> Result<()> {
        let missing = self.missing(bytes);
        if missing == 0 {
            return Ok(());
        }
        let more = timeout(PATIENCE, self.of.0.clone().acquire_many_owned(missing)).await;
        self.take(more.ok().and_then(std::result::Result::ok))
    }

    /// The same without a wait; whether there was enough.
    pub(super) fn try_grow_to(&mut self, bytes: usize) -> bool {
        let missing = self.missing(bytes);
        missing == 0 || self.take(self.of.0.clone().try_acquire_many_owned(missing).ok()).is_ok()
    }

    /// The body, which counts as long as any part of it is used.
    pub(super) fn with(self, bytes: Bytes) -> Bytes {
        match self.permit {
            None => bytes,
            Some(permit) => Bytes::from_owner(Counted { bytes, _permit: permit }),
        }
    }

    fn missing(&self, bytes: usize) -> u32 {
        let steps = bytes.saturating_sub(FREE_BYTES).div_ceil(STEP_BYTES);
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        u32::try_from(steps.saturating_sub(held)).unwrap_or(u32::MAX)
    }

    fn take(&mut self, more: Option<OwnedSemaphorePermit>) -> Result<()> {
        let more = more.ok_or_else(|| {
            let detail = "too many large bodies at once; send smaller ones, or this one again";
            Problem::unavailable("overloaded", detail)
        })?;
        match &mut self.permit {
            Some(held) => held.merge(more),
            held => *held = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_counts_until_nothing_of_it_is_left() {
        let memory = BodyMemory::new(4 * STEP_BYTES);
        let mut first = memory.hold();
        first.grow_to(FREE_BYTES).await.unwrap();
        assert_eq!(memory.0.available_permits(), 4, "small bodies are free");
        first.grow_to(FREE_BYTES + 1).await.unwrap();
        first.grow_to(FREE_BYTES + 3 * STEP_BYTES).await.unwrap();
        assert_eq!(memory.0.available_permits(), 1);
        let body = first.with(Bytes::from(vec![7; 1000]));
        let part = body.slice(10..20);
        drop(body);
        let mut second = memory.hold();
        assert!(second.try_grow_to(FREE_BYTES + STEP_BYTES));
        assert!(!second.try_grow_to(FREE_BYTES + 2 * STEP_BYTES));
        let refused = second.grow_to(FREE_BYTES + 2 * STEP_BYTES).await.unwrap_err();
        assert_eq!(refused.code(), "overloaded");
        let (waited, ()) = tokio::join!(second.grow_to(FREE_BYTES + 4 * STEP_BYTES), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert_eq!(part, vec![7; 10]);
            drop(part);
        });
        waited.unwrap();
        drop(second);
        assert_eq!(memory.0.available_permits(), 4);
    }
}
