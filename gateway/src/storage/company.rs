//! How the writer of a shard waits for company. A batch costs a sync and a few wake-ups however
//! many are in it, and producers that wait for their answers are about as many from one moment to
//! the next. So where many do, the writer waits for them, and no longer than a batch takes: for all
//! while they are few, and else for half of them. Were all of many in one batch, nobody would have
//! anything to do while the disk syncs: of two halves, one is synced while the other is answered
//! and comes again.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicIsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::Duration,
};

use tokio::time::Instant;

/// Where fewer than this wait for a batch, it does not wait for others.
const MANY: usize = 8;
/// So many are enough to share what a batch costs: where half of them are more, half is waited for.
const ENOUGH: usize = 16;
/// Nobody waits longer for others, however slow the disk is.
const WAIT_MAX: Duration = Duration::from_millis(1);
/// So many batches have a say in what is usual.
const BATCHES: u32 = 8;

/// Who waits for the writer, and how many it waits for.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Who wait and are in no batch yet. Below zero while one was taken before it was counted.
    come: AtomicIsize,
    /// With how many the writer goes on; zero while it waits for nobody.
    wanted: AtomicIsize,
    /// The writer's thread. A simulation has none: there the writer takes what is there.
    writer: OnceLock<Thread>,
}

impl Company {
    /// The current thread is the writer's.
    pub(super) fn is_written_here(&self) {
        // A shard has one writer.
        let _ = self.writer.set(thread::current());
    }

    /// One more has come, and waits.
    pub(super) fn one_came(&self) {
        let come = self.come.fetch_add(1, SeqCst) + 1;
        let wanted = self.wanted.load(SeqCst);
        if wanted > 0 && come >= wanted && self.wanted.swap(0, SeqCst) > 0 {
            self.writer.get().inspect(|it| it.unpark());
        }
    }

    /// So many were taken into a batch.
    pub(super) fn taken(&self, count: usize) {
        self.come.fetch_sub(count as isize, SeqCst);
    }

    /// How many wait and are in no batch yet.
    pub(super) fn come(&self) -> usize {
        self.come.load(SeqCst).max(0) as usize
    }

    /// Blocks the writer until so many more have come, or for this long.
    pub(super) fn await_more(&self, count: usize, within: Duration) {
        if self.writer.get().is_none() {
            return;
        }
        let (count, until) = (count as isize, Instant::now() + within);
        // Told before it is counted, so that whoever comes in between sees it or is seen.
        self.wanted.store(count, SeqCst);
        while self.come.load(SeqCst) < count {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        self.wanted.store(0, SeqCst);
    }
}

/// What batches were like lately.
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// How many waited at once, for one and for the next.
    many: usize,
    /// How long one took.
    took: Duration,
}

impl Habit {
    /// How many more are likely to come where `come` are there, and for how long at most they are
    /// worth waiting for.
    pub(super) fn expects(&self, come: usize) -> Option<(usize, Duration)> {
        let enough = self.many.min(ENOUGH).max(self.many / 2);
        let worth_it = come > 0 && self.many >= MANY && come < enough;
        worth_it.then(|| (enough - come, self.took.min(WAIT_MAX)))
    }

    /// A batch is written, and so many wait for it or for the next. Where more do that is usual at
    /// once; where fewer do, by and by.
    pub(super) fn learn(&mut self, many: usize, took: Duration) {
        let fewer = self.many.saturating_sub(many);
        self.many = self.many.max(many) - fewer.div_ceil(BATCHES as usize);
        self.took = (self.took * (BATCHES - 1) + took) / BATCHES;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, mpsc};

    use bytes::Bytes;
    use tokio::task::JoinSet;

    use super::*;
    use crate::domain::{EventType, Quota, Slug};
    use crate::storage::codec::decode;
    use crate::storage::fold::Meta;
    use crate::storage::{
        Config, MasterKey, MasterKeys, NewEvent, RunningWriters, Shard, Store, Table,
    };
    use crate::world::{SeededEntropy, SystemClock};

    const MS: Duration = Duration::from_millis(1);
    const EVENTS: u64 = 50;

    /// A store with one tenant, and what its writer waits for while producers have events accepted.
    struct Bench {
        _folder: tempfile::TempDir,
        store: Store,
        writers: RunningWriters,
        tenant: Slug,
    }

    impl Bench {
        async fn start() -> Self {
            let (folder, tenant) = (tempfile::tempdir().unwrap(), Slug::default_tenant());
            let world = (Arc::new(SystemClock) as _, Arc::new(SeededEntropy::new(1)) as _);
            let masters = MasterKeys::new(MasterKey::simulated());
            let (store, writers) =
                Store::open(folder.path(), &Config::default(), masters, world).unwrap();
            let writers = writers.start(&store).unwrap();
            let shard = store.shard(&tenant).clone();
            shard.put_tenant(&tenant, |_| Ok((String::new(), Quota::default()))).await.unwrap();
            Self { _folder: folder, store, writers, tenant }
        }

        fn shard(&self) -> &Arc<Shard> {
            self.store.shard(&self.tenant)
        }

        /// Each producer has events accepted, one after the other; how many batches that takes.
        async fn produce(&self, producers: usize) -> u64 {
            let shard = self.shard();
            let batches = || {
                let row = shard.view.get(Table::Meta, &shard.no.all()).unwrap().unwrap();
                decode::<Meta>(&row).unwrap().lsn
            };
            let (before, mut producing) = (batches(), JoinSet::new());
            for _ in 0..producers {
                let (shard, tenant) = (shard.clone(), self.tenant.clone());
                producing.spawn(async move {
                    for _ in 0..EVENTS {
                        let kind = EventType::parse("a.b").unwrap();
                        let event = NewEvent::new(kind, Bytes::from("1"));
                        shard.append(&tenant, vec![event], true).await.unwrap();
                    }
                });
            }
            while let Some(ended) = producing.join_next().await {
                ended.unwrap();
            }
            batches() - before
        }

        /// How many batches each of 20 turns takes, and how many more the writer waits for at most
        /// once it knows what is usual.
        async fn produce_again_and_again(&self, producers: usize) -> (Vec<u64>, isize) {
            let mut batches = vec![self.produce(producers).await];
            let (wanted, mut watching) = (Arc::new(AtomicIsize::new(0)), JoinSet::new());
            let (shard, most) = (self.shard().clone(), wanted.clone());
            watching.spawn(async move {
                loop {
                    most.fetch_max(shard.company.wanted.load(SeqCst), SeqCst);
                    tokio::task::yield_now().await;
                }
            });
            while batches.len() < 20 {
                batches.push(self.produce(producers).await);
            }
            batches.sort_unstable();
            (batches, wanted.load(SeqCst))
        }

        async fn stop(self) {
            let shard = self.shard().clone();
            self.writers.stop().await;
            assert_eq!(shard.company.come.load(SeqCst), 0, "each is counted, and taken");
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn producers_that_come_again_and_again_share_a_batch() {
        let bench = Bench::start().await;
        let (batches, wanted) = bench.produce_again_and_again(ENOUGH).await;
        assert!(wanted > 0, "the writer waited for nobody");
        // The machine may be busy with something else for a while.
        assert!(batches[5] < EVENTS + EVENTS / 5, "{EVENTS} rounds took batches {batches:?}");
        bench.stop().await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn of_many_producers_half_are_waited_for() {
        let (bench, half) = (Bench::start().await, 2 * ENOUGH as isize);
        let (_, wanted) = bench.produce_again_and_again(4 * ENOUGH).await;
        // One of them is there already, and who is in a batch counts as well.
        assert!(wanted < half && wanted > half / 2, "the writer waited for {wanted} more");
        bench.stop().await;
    }

    #[test]
    fn of_many_enough_are_expected_again_and_of_few_nobody_is() {
        let mut habit = Habit::default();
        assert_eq!(habit.expects(1), None);
        for _ in 0..100 {
            habit.learn(MANY - 1, MS);
        }
        assert_eq!(habit.expects(1), None);
        for (many, more) in [(MANY, MANY - 1), (16, 15), (24, 15), (34, 16), (64, 31)] {
            habit.learn(many, MS / 4);
            assert_eq!(habit.expects(1).unwrap().0, more, "of {many}");
        }
        assert!(habit.expects(20).unwrap().1 < MS);
        assert_eq!((habit.expects(32), habit.expects(0)), (None, None));
        // One batch of few is an exception, many are the rule.
        habit.learn(8, MS);
        assert_eq!(habit.expects(8).unwrap().0, 20);
        for _ in 0..40 {
            habit.learn(1, MS);
        }
        assert_eq!(habit.expects(1), None);
        // A slow disk lets many come by itself.
        for _ in 0..100 {
            habit.learn(64, 20 * MS);
        }
        assert_eq!(habit.expects(1), Some((31, WAIT_MAX)));
    }

    #[test]
    fn the_writer_goes_on_when_enough_have_come_or_its_time_is_over() {
        const LONG: Duration = Duration::from_secs(10);
        let company = Company::default();
        // Nobody could wake it, and nobody else would come.
        company.await_more(1, LONG);
        company.is_written_here();
        let come = |count| (0..count).for_each(|_| company.one_came());
        come(3);
        company.await_more(3, LONG);
        company.taken(3);
        let begun = Instant::now();
        come(2);
        company.await_more(3, 20 * MS);
        assert!(begun.elapsed() >= 20 * MS);
        let (over, wait) = mpsc::channel::<()>();
        let (company, come) = (&company, &come);
        thread::scope(|scope| {
            scope.spawn(move || {
                while company.wanted.load(SeqCst) == 0 {
                    thread::yield_now();
                }
                come(1);
                // The end of a thread here would wake the writer as well.
                let _ = wait.recv();
            });
            let begun = Instant::now();
            company.await_more(3, LONG);
            drop(over);
            assert!(begun.elapsed() < LONG / 2);
        });
        // Who is taken before it is counted is counted once all the same.
        company.taken(4);
        come(1);
        assert_eq!(company.come.load(SeqCst), 0);
    }
}
