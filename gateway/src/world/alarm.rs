use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
};

use tokio::{
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// Ends what takes too long, one thing after another. A timer for each would be entered in the
/// runtime's list under a lock, and taken out again, for a time that hardly ever comes. One that
/// lasts is told the next time, which is a store where that is later than the one before.
#[derive(Debug, Default)]
pub struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// What `work` comes to, if it ends by `deadline`.
    pub fn by<T>(
        &mut self,
        deadline: Instant,
        mut work: impl Future<Output = T> + Unpin,
    ) -> impl Future<Output = Option<T>> {
        let mut is_set = false;
        poll_fn(move |context| {
            if let Poll::Ready(it) = Pin::new(&mut work).poll(context) {
                return Poll::Ready(Some(it));
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if !is_set {
                is_set = true;
                timer.as_mut().reset(deadline);
            }
            // Work that always has something to do must not keep its end from being seen.
            pin!(unconstrained(timer.as_mut())).poll(context).map(|()| None)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn one_alarm_ends_one_thing_after_another_each_at_its_time() {
        let mut alarm = Alarm::default();
        for (after, takes, expected) in [
            (100, 30, Some(30)),
            (100, 200, None),
            // Later than the one before, and before it.
            (500, 400, Some(400)),
            (50, 60, None),
            (50, 40, Some(40)),
            (0, 10, None),
        ] {
            let started = Instant::now();
            let work = pin!(async {
                sleep(takes * MS).await;
                takes
            });
            assert_eq!(alarm.by(started + after * MS, work).await, expected);
            let took = started.elapsed();
            assert!(took.abs_diff(after.min(takes) * MS) <= MS, "{after} {takes}: {took:?}");
            sleep(7 * MS).await;
        }
    }

    #[tokio::test]
    async fn what_never_rests_is_ended_too() {
        let busy = pin!(async {
            for _ in 0..100_000_000 {
                tokio::task::consume_budget().await;
            }
        });
        assert_eq!(Alarm::default().by(Instant::now() + 20 * MS, busy).await, None);
    }
}
