//! The tasks that make attempts. They last from one attempt to the next: a task for each costs three
//! pieces of memory, one of them of 3.5 KiB, and a place in two lists.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{
    sync::{
        Notify,
        mpsc::{self, UnboundedReceiver, UnboundedSender},
    },
    task::JoinSet,
};

use crate::dispatch::Dispatcher;
use crate::dispatch::capacity::Begun;
use crate::dispatch::dispatcher::Ended;
use crate::dispatch::lane::Limits;
use crate::domain::Endpoint;
use crate::storage::Lease;
use crate::world::Alarm;

/// Hands that are kept while there is nothing to do, some 4 KiB each.
const AT_REST_MAX: usize = 256;

/// An attempt to make.
pub(super) struct Turn {
    pub(super) lease: Lease,
    pub(super) endpoint: Option<Arc<Endpoint>>,
    pub(super) begun: Begun,
    pub(super) limits: Limits,
}

/// Who makes the attempts of a shard.
pub(super) struct Crew {
    hands: JoinSet<()>,
    at_rest: Vec<Arc<Hand>>,
    under_way: usize,
    told: UnboundedReceiver<Told>,
    tell: UnboundedSender<Told>,
}

/// What became of an attempt, and whose hands are free again.
type Told = (Ended, Arc<Hand>);

/// One task, which makes one attempt at a time.
#[derive(Default)]
struct Hand {
    turn: Mutex<Option<Turn>>,
    called: Notify,
}

impl Crew {
    pub(super) fn new() -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self { hands: JoinSet::new(), at_rest: Vec::new(), under_way: 0, told, tell }
    }

    /// Attempts under way.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// Begins an attempt.
    pub(super) fn begin(&mut self, work: &Arc<Dispatcher>, turn: Turn) {
        self.under_way += 1;
        // Who rests since a moment ago has its memory at hand still.
        let hand = self.at_rest.pop().unwrap_or_else(|| {
            let hand = Arc::<Hand>::default();
            self.hands.spawn(hand.clone().run(work.clone(), self.tell.clone()));
            hand
        });
        hand.call(Some(turn));
    }

    /// Waits until an attempt ends; for ever where none is under way.
    ///
    /// # Panics
    /// When a hand panicked, whose attempt would count as under way for ever.
    pub(super) async fn ended(&mut self) -> Ended {
        loop {
            tokio::select! {
                biased;
                told = self.told.recv() => {
                    return self.rest(told.expect("the crew could tell as well"));
                }
                Some(gone) = self.hands.join_next() => gone.expect("attempts catch their panics"),
            }
        }
    }

    /// What has ended by now.
    pub(super) fn ended_already(&mut self) -> Option<Ended> {
        let told = self.told.try_recv().ok()?;
        Some(self.rest(told))
    }

    fn rest(&mut self, (ended, hand): Told) -> Ended {
        self.under_way -= 1;
        if self.at_rest.len() < AT_REST_MAX {
            self.at_rest.push(hand);
        } else {
            hand.call(None);
        }
        ended
    }
}

impl Hand {
    /// Has the task make an attempt, or end.
    fn call(&self, turn: Option<Turn>) {
        *self.turn.lock().unwrap_or_else(PoisonError::into_inner) = turn;
        self.called.notify_one();
    }

    async fn run(self: Arc<Self>, work: Arc<Dispatcher>, tell: UnboundedSender<Told>) {
        let mut alarm = Alarm::default();
        loop {
            self.called.notified().await;
            let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(turn) = turn else { return };
            let ended = work.guarded(turn, &mut alarm).await;
            if tell.send((ended, self.clone())).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::dispatch::watchdog::tests::Bench;
    use crate::domain::{Claim, Ordering};
    use crate::storage::Allowance;

    const LIMITS: Limits = Limits { in_flight_max: 64, rate: None };

    /// Deliveries of this many events, each withdrawn since its endpoint is gone.
    async fn withdraw(bench: &mut Bench, events: usize) {
        let endpoint = bench.endpoint_with(Ordering::None).await;
        for _ in 0..events {
            bench.publish(&endpoint).await;
        }
        let work = bench.floor.work.clone();
        let lent = work.shard.lease(endpoint.no, Allowance::of(events)).await.unwrap();
        assert_eq!(lent.leases.len(), events);
        for lease in lent.leases {
            let begun = bench.floor.scheduler.begin(endpoint.no, (Claim::First, 1), Instant::now());
            bench.crew.begin(&work, Turn { lease, endpoint: None, begun, limits: LIMITS });
        }
        assert_eq!(bench.crew.under_way(), events);
        for _ in 0..events {
            let ended = bench.crew.ended().await;
            assert_eq!(ended.begun.endpoint, endpoint.no);
        }
        assert!(bench.crew.under_way() == 0 && bench.crew.ended_already().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn hands_last_and_the_many_of_a_rush_do_not() {
        let mut bench = Bench::new().await;
        withdraw(&mut bench, 3).await;
        withdraw(&mut bench, 2).await;
        assert_eq!(bench.crew.hands.len(), 3, "the same make one attempt behind another");
        withdraw(&mut bench, AT_REST_MAX + 20).await;
        assert_eq!(bench.crew.at_rest.len(), AT_REST_MAX);
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        while bench.crew.hands.try_join_next().is_some() {}
        assert_eq!(bench.crew.hands.len(), AT_REST_MAX);
        withdraw(&mut bench, 1).await;
        assert_eq!(bench.crew.hands.len(), AT_REST_MAX);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "attempts catch their panics")]
    async fn a_hand_that_panics_is_not_waited_for() {
        let mut crew = Crew::new();
        crew.hands.spawn(async { panic!("of its own accord") });
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), crew.ended()).await;
    }
}
