//! What somebody asks for while an attempt is under way: that another follows at once, unless this
//! one delivers.

use crate::domain::{DeliveryKey, EndpointNo, Seq};
use crate::storage::lane::Lane;
use crate::storage::lend::Lease;
use crate::storage::shard::Shard;

/// What becomes of such a wish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// No attempt is under way.
    Free,
    /// It is remembered.
    Noted,
    /// What follows is being decided, and in the view soon: ask again then.
    Late,
}

impl Lane {
    fn wish(&mut self, seq: Seq) -> Wish {
        match self.loans.get_mut(&seq) {
            None => Wish::Free,
            Some(loan) if loan.closing => Wish::Late,
            Some(loan) => {
                loan.wanted = true;
                Wish::Noted
            }
        }
    }
}

impl Shard {
    /// Remembers that another attempt is to follow the one that is under way.
    pub(super) fn wish(&self, key: DeliveryKey) -> Wish {
        let mut queue = self.queue();
        match queue.peek(key.endpoint) {
            Some(_) => queue.lane(key.endpoint).wish(key.seq),
            None => Wish::Free,
        }
    }

    /// The attempt is over and did not deliver: whether somebody asked for another one meanwhile,
    /// so that it is to be made at once. Settle it soon: who asks from now on waits for that.
    pub fn is_wanted_again(&self, lease: &mut Lease) -> bool {
        let (endpoint, seq): (EndpointNo, Seq) = (lease.key.endpoint, lease.key.seq);
        let mut queue = self.queue();
        if queue.peek(endpoint).is_none() {
            return false;
        }
        let loan = queue.lane(endpoint).loans.get_mut(&seq);
        lease.wanted = loan.is_some_and(|it| {
            it.closing = true;
            it.wanted
        });
        lease.wanted
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use tokio::task::JoinSet;

    use crate::domain::{DeliveryState, Ordering, Quota, Slug, Trigger, Verdict};
    use crate::storage::conformance::Bench;
    use crate::storage::memory::Disk;
    use crate::storage::{Allowance, Config, Store};
    use crate::world::{Clock, SeededEntropy};

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_wish_that_comes_while_it_is_decided_what_follows_is_kept() {
        let (disk, tenant) = (Disk::default(), Slug::default_tenant());
        let open = |clock: Arc<dyn Clock>| {
            let world = (clock, Arc::new(SeededEntropy::new(1)) as _);
            Store::simulated(&disk, &Config::default(), world)
        };
        let bench = Bench::start(&open).unwrap();
        let shard = bench.shard().clone();
        let tenant =
            shard.put_tenant(&tenant, |_| Ok(("T".into(), Quota::default()))).await.unwrap();
        let endpoint = bench.endpoint_with(Ordering::None, 1).await.unwrap();
        let mut lease = bench.lease(&endpoint, 1).await.unwrap().remove(0);
        let key = lease.key;
        assert!(!shard.is_wanted_again(&mut lease));
        let (asking, no) = (shard.clone(), tenant.0.no);
        let mut asked = JoinSet::new();
        asked.spawn(async move { asking.requeue(no, key, Trigger::Manual).await });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(asked.try_join_next().is_none(), "it waits for what is decided");
        let now = bench.clock.now();
        bench.settle(lease, Verdict::RetryAt(now + HOUR)).await.unwrap();
        assert!(asked.join_next().await.unwrap().unwrap().unwrap());
        let DeliveryState::Retrying { due } = shard.state(key).unwrap() else { panic!() };
        assert!(due <= now + Duration::from_secs(1), "and then it goes at once");

        // An attempt that could not be made is asked for all the same: beside what is allowed.
        let endpoint = bench.endpoint_with(Ordering::None, 2).await.unwrap();
        let lease = bench.lease(&endpoint, 1).await.unwrap().remove(0);
        let key = lease.key;
        assert!(shard.requeue(no, key, Trigger::Manual).await.unwrap());
        drop(lease);
        let lent = shard.lease(endpoint.no, Allowance::default()).await.unwrap();
        assert_eq!(lent.leases.iter().map(|it| it.key).collect::<Vec<_>>(), [key]);
    }
}
