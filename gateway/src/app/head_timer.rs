use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};

/// The timer of one connection, which waits for one head at a time. hyper asks for another sleep
/// for each, and drops it when the head is there: it is given the same, whose place in the
/// runtime's list stays (see [`Alarm`](crate::world::Alarm)).
#[derive(Clone, Default)]
pub(super) struct HeadTimer(Arc<Mutex<Option<Pin<Box<tokio::time::Sleep>>>>>);

/// A sleep on loan.
struct Lent {
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    from: HeadTimer,
}

impl HeadTimer {
    fn kept(&self) -> MutexGuard<'_, Option<Pin<Box<tokio::time::Sleep>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let deadline = deadline.into();
        let sleep = match self.kept().take() {
            Some(mut kept) => {
                kept.as_mut().reset(deadline);
                kept
            }
            None => Box::pin(tokio::time::sleep_until(deadline)),
        };
        Box::pin(Lent { sleep: Some(sleep), from: self.clone() })
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into()
    }
}

impl Sleep for Lent {}

impl Future for Lent {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().poll(context),
            None => Poll::Ready(()),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.from.kept() = self.sleep.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_time() {
        let timer = HeadTimer::default();
        for taken in [0, 6, 9, 3] {
            let head = timer.sleep(10 * SECOND);
            tokio::time::timeout(taken * SECOND, head).await.expect_err("it came in time");
            let (asked, next) = (timer.now(), timer.sleep(10 * SECOND));
            next.await;
            assert_eq!((timer.now() - asked).as_secs(), 10, "after a head of {taken} s");
        }
        assert!(timer.kept().is_some(), "it lasts");
    }
}
