//! Whose call runs next. Tenants take turns by deficit round robin over the CPU time that their
//! calls really took, each within a budget; slow tenants leave a thread to the quick ones.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

/// CPU time that a tenant may use in one turn.
const QUANTUM: i64 = 250_000;
/// From this mean duration on a tenant's calls are slow: nobody should have to wait for one.
const SLOW: Duration = Duration::from_millis(1);
/// Accounts that are kept although nothing waits or runs; more are looked through for old ones.
const IDLE_ACCOUNTS_MAX: usize = 4096;
/// The shortest time a caller is asked to stay away.
const RETRY_MIN: Duration = Duration::from_millis(5);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// How urgent a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Class {
    /// An event waits for it.
    #[default]
    Live,
    /// Somebody tries something out: it runs when nothing live can, one at a time.
    Background,
}

/// CPU time that a tenant's calls may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuBudget {
    /// Over time, in each second.
    pub per_second: Duration,
    /// At once, after a rest.
    pub burst: Duration,
}

/// Bounds of what waits and of what runs at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Threads.
    pub(super) workers: usize,
    /// Calls of one tenant that wait.
    pub(super) waiting_max: usize,
    /// Calls of all tenants that wait; they share it.
    pub(super) waiting_total_max: usize,
}

/// The calls that wait, by tenant.
#[derive(Debug)]
pub(super) struct Turns<T> {
    bounds: Bounds,
    accounts: BTreeMap<Arc<str>, Account<T>>,
    /// Tenants with something waiting and something left of their budget.
    ring: VecDeque<Arc<str>>,
    /// Tenants with something waiting whose budget is used up until then.
    resting: BTreeMap<(Instant, Arc<str>), ()>,
    slow_running: usize,
    background_running: usize,
}

#[derive(Debug)]
struct Account<T> {
    live: VecDeque<T>,
    background: VecDeque<T>,
    running: usize,
    /// CPU time left in this round, in nanoseconds; less than nothing after a long call.
    credit: i64,
    /// What a call takes by the clock, smoothed.
    mean: Duration,
    budget: CpuBudget,
    /// CPU time left of the budget, in nanoseconds.
    left: i64,
    filled_at: Instant,
    /// Whether it stands in the ring or rests.
    listed: bool,
}

/// A call that may run now, and what must be told when it has.
#[derive(Debug)]
pub(super) struct Turn<T> {
    pub(super) item: T,
    pub(super) ticket: Ticket,
}

/// Who runs, and as what.
#[derive(Debug)]
pub(super) struct Ticket {
    tenant: Arc<str>,
    class: Class,
    slow: bool,
}

impl<T> Turns<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            accounts: BTreeMap::new(),
            ring: VecDeque::new(),
            resting: BTreeMap::new(),
            slow_running: 0,
            background_running: 0,
        }
    }

    /// Queues a call; when too many wait already, it comes back with when to try again.
    pub(super) fn push(
        &mut self,
        tenant: &Arc<str>,
        budget: CpuBudget,
        (class, item): (Class, T),
        now: Instant,
    ) -> Result<(), (T, Duration)> {
        let room = self.room();
        let account = self.account(tenant, budget, now);
        if class == Class::Live && account.live.len() >= room {
            let wait = account.retry_after();
            return Err((item, wait));
        }
        match class {
            Class::Live => account.live.push_back(item),
            Class::Background => account.background.push_back(item),
        }
        if !std::mem::replace(&mut account.listed, true) {
            self.ring.push_back(tenant.clone());
        }
        Ok(())
    }

    /// How many calls of one tenant may wait: its share of the whole, or what keeps the threads
    /// busy.
    fn room(&self) -> usize {
        let share = self.bounds.waiting_total_max / (self.ring.len() + self.resting.len()).max(1);
        share.clamp(2 * self.bounds.workers, self.bounds.waiting_max.max(2 * self.bounds.workers))
    }

    /// The next call that may run; else when to look again, if waiting alone can change that.
    pub(super) fn next(&mut self, now: Instant) -> Result<Turn<T>, Option<Instant>> {
        self.wake(now);
        let turn = self.next_of(Class::Live, now);
        let turn = turn.or_else(|| {
            let idle = self.background_running == 0;
            idle.then(|| self.next_of(Class::Background, now)).flatten()
        });
        turn.ok_or_else(|| self.resting.first_key_value().map(|((at, _), ())| *at))
    }

    fn next_of(&mut self, class: Class, now: Instant) -> Option<Turn<T>> {
        let mut debts = None;
        for _ in 0..self.ring.len() {
            let tenant = self.ring.pop_front()?;
            let account = self.accounts.get_mut(&tenant)?;
            account.fill(now);
            if account.left <= 0 {
                self.resting.insert((now + account.wait(), tenant), ());
                continue;
            }
            if !account.may_run(class, self.slow_running, self.bounds.workers) {
                self.ring.push_back(tenant);
                continue;
            }
            if account.credit > 0 {
                return Some(self.give(tenant, class));
            }
            let least = debts.map_or(account.credit, |it: i64| it.max(account.credit));
            debts = Some(least);
            self.ring.push_back(tenant);
        }
        // All that may run have used their turn: as many rounds begin as give one of them a turn.
        let rounds = 1 - debts? / QUANTUM;
        for tenant in &self.ring {
            let account = self.accounts.get_mut(tenant)?;
            if account.may_run(class, self.slow_running, self.bounds.workers) {
                account.credit = (account.credit + rounds * QUANTUM).min(QUANTUM);
            }
        }
        self.next_of(class, now)
    }

    /// Gives the tenant's first call out; the tenant keeps its turn while it has credit.
    fn give(&mut self, tenant: Arc<str>, class: Class) -> Turn<T> {
        let account = self.accounts.get_mut(&tenant).expect("it stood in the ring");
        let waiting = match class {
            Class::Live => &mut account.live,
            Class::Background => &mut account.background,
        };
        let item = waiting.pop_front().expect("it may run, so something waits");
        account.running += 1;
        // What the call will cost is taken now and put right when it has ended.
        account.credit -= nanos(account.mean);
        let slow = account.is_slow();
        self.slow_running += usize::from(slow);
        self.background_running += usize::from(class == Class::Background);
        if account.is_waiting() {
            self.ring.push_front(tenant.clone());
        } else {
            account.listed = false;
        }
        Turn { item, ticket: Ticket { tenant, class, slow } }
    }

    /// A call has ended, and took this much by the clock and of the CPU.
    pub(super) fn ended(&mut self, ticket: &Ticket, wall: Duration, cpu: Duration) {
        self.slow_running -= usize::from(ticket.slow);
        self.background_running -= usize::from(ticket.class == Class::Background);
        let Some(account) = self.accounts.get_mut(&ticket.tenant) else { return };
        account.running -= 1;
        account.credit += nanos(account.mean) - nanos(cpu);
        account.left -= nanos(cpu);
        account.mean = match account.mean {
            Duration::ZERO => wall,
            mean => mean.mul_f64(0.75) + wall / 4,
        };
    }

    /// Whether something waits that its budget lets run.
    pub(super) fn has_ring(&self) -> bool {
        !self.ring.is_empty()
    }

    /// Takes all that wait out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = T> {
        self.ring.clear();
        self.resting.clear();
        let accounts = std::mem::take(&mut self.accounts);
        accounts.into_values().flat_map(|it| it.live.into_iter().chain(it.background))
    }

    fn wake(&mut self, now: Instant) {
        while let Some(entry) = self.resting.first_entry().filter(|it| it.key().0 <= now) {
            let ((_, tenant), ()) = entry.remove_entry();
            self.ring.push_back(tenant);
        }
    }

    fn account(&mut self, tenant: &Arc<str>, budget: CpuBudget, now: Instant) -> &mut Account<T> {
        if self.accounts.len() >= IDLE_ACCOUNTS_MAX && !self.accounts.contains_key(tenant) {
            let burst = |it: &Account<T>| now - it.filled_at > Duration::from_secs(60);
            self.accounts.retain(|_, it| it.is_waiting() || it.running > 0 || !burst(it));
        }
        let account = self.accounts.entry(tenant.clone()).or_insert_with(|| Account {
            live: VecDeque::new(),
            background: VecDeque::new(),
            running: 0,
            credit: QUANTUM,
            mean: Duration::ZERO,
            budget,
            left: nanos(budget.burst),
            filled_at: now,
            listed: false,
        });
        account.budget = budget;
        account.fill(now);
        account
    }
}

impl<T> Account<T> {
    fn is_waiting(&self) -> bool {
        !self.live.is_empty() || !self.background.is_empty()
    }

    fn is_slow(&self) -> bool {
        self.mean > SLOW
    }

    /// Whether its next call may run: slow tenants together leave a thread free, and one alone
    /// takes at most half of them.
    fn may_run(&self, class: Class, slow_running: usize, workers: usize) -> bool {
        let waits = match class {
            Class::Live => !self.live.is_empty(),
            Class::Background => !self.background.is_empty(),
        };
        let fits =
            slow_running < workers.saturating_sub(1).max(1) && self.running < (workers / 2).max(1);
        waits && (!self.is_slow() || fits)
    }

    fn fill(&mut self, now: Instant) {
        let full = nanos(self.budget.burst);
        let rate = self.budget.per_second.as_secs_f64();
        let filled = (now - self.filled_at).as_secs_f64() * rate * 1e9;
        self.left = self.left.saturating_add(filled as i64).min(full);
        if !self.is_waiting() {
            // Nobody waited while it rested, so its debt to the others is forgiven with time.
            let rested = nanos(now - self.filled_at);
            self.credit = self.credit.saturating_add(rested).min(QUANTUM);
        }
        self.filled_at = now;
    }

    /// How long until something is left of its budget.
    fn wait(&self) -> Duration {
        let missing = (1 - self.left) as f64 / 1e9;
        let wait = missing / self.budget.per_second.as_secs_f64().max(1e-6);
        Duration::try_from_secs_f64(wait).unwrap_or(RETRY_MAX).max(Duration::from_micros(100))
    }

    /// When there may be room for another call.
    fn retry_after(&self) -> Duration {
        let queue = self.mean * u32::try_from(self.live.len() / 2).unwrap_or(u32::MAX);
        let budget = if self.left <= 0 { self.wait() } else { Duration::ZERO };
        queue.max(budget).clamp(RETRY_MIN, RETRY_MAX)
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: CpuBudget =
        CpuBudget { per_second: Duration::from_secs(1000), burst: Duration::from_secs(1000) };

    fn turns(workers: usize) -> Turns<&'static str> {
        Turns::new(Bounds { workers, waiting_max: 64, waiting_total_max: 512 })
    }

    fn push(turns: &mut Turns<&'static str>, tenant: &'static str, now: Instant) {
        turns.push(&tenant.into(), PLENTY, (Class::Live, tenant), now).unwrap();
    }

    /// Runs one call after the other, each taking what `cost` says; how often each ran.
    fn run(
        turns: &mut Turns<&'static str>,
        calls: usize,
        now: Instant,
        cost: impl Fn(&str) -> Duration,
    ) -> BTreeMap<&'static str, u32> {
        let mut ran = BTreeMap::new();
        for _ in 0..calls {
            let turn = turns.next(now).unwrap();
            *ran.entry(turn.item).or_default() += 1;
            turns.ended(&turn.ticket, cost(turn.item), cost(turn.item));
            push(turns, turn.item, now);
        }
        ran
    }

    #[tokio::test(start_paused = true)]
    async fn tenants_share_the_cpu_and_not_the_calls() {
        let (mut turns, now) = (turns(4), Instant::now());
        for tenant in ["a", "b"] {
            (0..4).for_each(|_| push(&mut turns, tenant, now));
        }
        let cost = |it: &str| Duration::from_micros(if it == "a" { 900 } else { 30 });
        let ran = run(&mut turns, 3100, now, cost);
        let ratio = f64::from(ran["b"]) / f64::from(ran["a"]);
        assert!((24.0..36.0).contains(&ratio), "30 times cheaper, {ratio} times as often");
    }

    #[tokio::test(start_paused = true)]
    async fn one_long_call_is_paid_for() {
        let (mut turns, now) = (turns(4), Instant::now());
        for tenant in ["a", "b"] {
            (0..4).for_each(|_| push(&mut turns, tenant, now));
        }
        let cost = |it: &str| Duration::from_micros(if it == "a" { 50_000 } else { 100 });
        let ran = run(&mut turns, 1002, now, cost);
        assert!(ran["a"] <= 3, "{ran:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_tenants_leave_a_thread_to_the_quick() {
        let (mut turns, now) = (turns(2), Instant::now());
        push(&mut turns, "slow", now);
        let turn = turns.next(now).unwrap();
        turns.ended(&turn.ticket, Duration::from_millis(10), Duration::from_millis(10));
        for tenant in ["slow", "slow", "slow too"] {
            push(&mut turns, tenant, now);
        }
        let first = turns.next(now).unwrap();
        let second = turns.next(now);
        assert_eq!(first.item, "slow too", "nobody knows yet that it is slow");
        let second = second.unwrap();
        assert_eq!(second.item, "slow");
        assert_eq!(turns.next(now).unwrap_err(), None, "a third call of a slow tenant waits");
        turns.ended(&first.ticket, Duration::from_millis(9), Duration::from_millis(9));
        push(&mut turns, "slow too", now);
        assert!(turns.next(now).is_err(), "both are known to be slow");
        push(&mut turns, "quick", now);
        assert_eq!(turns.next(now).unwrap().item, "quick");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_used_its_budget_waits_and_nobody_else() {
        let (mut turns, now) = (turns(2), Instant::now());
        let tight =
            CpuBudget { per_second: Duration::from_millis(100), burst: Duration::from_millis(5) };
        let push_tight = |turns: &mut Turns<_>, now| {
            turns.push(&"a".into(), tight, (Class::Live, "a"), now).unwrap();
        };
        push_tight(&mut turns, now);
        push_tight(&mut turns, now);
        let turn = turns.next(now).unwrap();
        turns.ended(&turn.ticket, Duration::from_millis(15), Duration::from_millis(15));
        let again = turns.next(now).unwrap_err().expect("it has a time");
        let wait = (again - now).as_millis();
        assert!((95..=105).contains(&wait), "10 ms over at 100 ms a second: {wait} ms");
        push(&mut turns, "b", now);
        assert_eq!(turns.next(now).unwrap().item, "b");
        assert_eq!(turns.next(again).unwrap().item, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_says_when_to_come_again() {
        let (mut turns, now) = (turns(2), Instant::now());
        let mut taken = 0;
        let wait = loop {
            match turns.push(&"a".into(), PLENTY, (Class::Live, "a"), now) {
                Ok(()) => taken += 1,
                Err((_, wait)) => break wait,
            }
        };
        assert_eq!(taken, 64);
        assert!((RETRY_MIN..=RETRY_MAX).contains(&wait));
        push(&mut turns, "b", now);
        (0..200).for_each(|n| {
            let tenant = Arc::from(format!("t{n}"));
            turns.push(&tenant, PLENTY, (Class::Live, "t"), now).unwrap();
        });
        let (mut few, tenant) = (0, Arc::from("late"));
        while turns.push(&tenant, PLENTY, (Class::Live, "t"), now).is_ok() {
            few += 1;
        }
        assert_eq!(few, 4, "where many wait, each has room for less");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_wait_is_shared_evenly() {
        for (tenants, room) in [(8, 64), (9, 56), (16, 32), (128, 4), (129, 4)] {
            let (mut turns, now) = (turns(2), Instant::now());
            for n in 1..tenants {
                let tenant = Arc::from(format!("t{n}"));
                turns.push(&tenant, PLENTY, (Class::Live, "t"), now).unwrap();
            }
            push(&mut turns, "last", now);
            let taken = (0..100).take_while(|_| {
                turns.push(&"last".into(), PLENTY, (Class::Live, "last"), now).is_ok()
            });
            assert_eq!(taken.count() + 1, room, "{tenants} tenants share 512 places");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_tenant_takes_at_most_half_of_the_threads() {
        let (mut turns, now) = (turns(8), Instant::now());
        push(&mut turns, "slow", now);
        let turn = turns.next(now).unwrap();
        turns.ended(&turn.ticket, Duration::from_millis(10), Duration::from_millis(10));
        (0..8).for_each(|_| push(&mut turns, "slow", now));
        let running: Vec<_> = std::iter::from_fn(|| turns.next(now).ok()).collect();
        assert_eq!(running.len(), 4, "of 8 threads");
        turns.ended(&running[0].ticket, Duration::from_millis(9), Duration::from_millis(9));
        assert!(turns.next(now).is_ok() && turns.next(now).is_err(), "one for one");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_tried_out_runs_when_nothing_live_can() {
        let (mut turns, now) = (turns(2), Instant::now());
        for _ in 0..2 {
            turns.push(&"a".into(), PLENTY, (Class::Background, "trial"), now).unwrap();
        }
        push(&mut turns, "b", now);
        assert_eq!(turns.next(now).unwrap().item, "b");
        let trial = turns.next(now).unwrap();
        assert_eq!(trial.item, "trial");
        assert!(turns.next(now).is_err(), "one at a time");
        turns.ended(&trial.ticket, Duration::ZERO, Duration::ZERO);
        assert_eq!(turns.next(now).unwrap().item, "trial");
    }
}
