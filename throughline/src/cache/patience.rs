//! One timer for everybody who waits for a store.
//!
//! A timer of the runtime for every call takes a lock twice, and a system call where it is the first one. Waits of one
//! length end in the order in which they began: a task watches the oldest, and is there only while somebody waits. It
//! watches for its own runtime alone, for one that nobody drives would keep the callers of another waiting: these have a
//! timer each meanwhile.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::runtime::{Handle, Id};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

/// What the runtime's timers may be late by: they are rounded up to the next millisecond, and so is the sleep of the
/// thread that drives them. The rest is for the way back to the caller.
const LATE: Duration = Duration::from_millis(4);

/// Waits that are kept to be used again.
const SPARE: usize = 64;

const WAITS: u8 = 0;
const ANSWERED: u8 = 1;
const OVER: u8 = 2;

/// How long calls are waited for.
#[derive(Debug)]
pub(super) struct Patience {
    length: Duration,
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    /// The oldest first.
    waits: VecDeque<(Instant, Arc<Wait>)>,
    /// Waits that are over, to be used again.
    spare: Vec<Arc<Wait>>,
    /// The runtime of the task that watches.
    watched_on: Option<Id>,
}

#[derive(Debug, Default)]
struct Wait {
    caller: AtomicWaker,
    state: AtomicU8,
}

/// The caller's side of a wait: with it the wait ends.
enum Waiting {
    InLine(Arc<Wait>),
    Alone(Pin<Box<Sleep>>),
}

/// The task that watches. Dropped with its runtime, it leaves nobody waiting.
struct Watch {
    queue: Arc<Mutex<Queue>>,
    ended: bool,
}

// === impl Patience ===

impl Patience {
    /// Waits so that callers go on after `limit` at the latest.
    pub(super) fn new(limit: Duration) -> Self {
        Self { length: limit - LATE.min(limit / 2), queue: Arc::default() }
    }

    /// What `call` gives; `None` when that takes too long.
    pub(super) async fn wait_for<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        let mut call = pin!(call);
        let mut waiting = None;
        poll_fn(|cx| {
            if let Poll::Ready(output) = call.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let waiting = waiting.get_or_insert_with(|| self.begin());
            if waiting.is_over(cx) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    fn begin(&self) -> Waiting {
        let runtime = Handle::current();
        let mut queue = lock(&self.queue);
        if queue.watched_on.is_some_and(|other| other != runtime.id()) {
            drop(queue);
            return Waiting::Alone(Box::pin(sleep(self.length)));
        }
        queue.forget_answered();
        let wait = queue.spare.pop().unwrap_or_default();
        queue.waits.push_back((Instant::now() + self.length, Arc::clone(&wait)));
        if queue.watched_on.replace(runtime.id()).is_none() {
            drop(queue);
            runtime.spawn(Watch { queue: Arc::clone(&self.queue), ended: false }.run());
        }
        Waiting::InLine(wait)
    }
}

// === impl Queue ===

impl Queue {
    fn forget_answered(&mut self) {
        while let Some((_, wait)) = self.waits.pop_front_if(|(_, wait)| wait.is(ANSWERED)) {
            self.spare(wait);
        }
    }

    fn spare(&mut self, mut wait: Arc<Wait>) {
        // Whoever waited has let go of it.
        if self.spare.len() < SPARE
            && let Some(unused) = Arc::get_mut(&mut wait)
        {
            *unused = Wait::default();
            self.spare.push(wait);
        }
    }

    /// Ends the waits whose time is over, and says when the next one's is.
    fn end(&mut self, now: Instant) -> Option<Instant> {
        self.forget_answered();
        while let Some((_, wait)) = self.waits.pop_front_if(|(end, _)| *end <= now) {
            wait.end();
            self.forget_answered();
        }
        self.waits.front().map(|(end, _)| *end)
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Wait ===

impl Wait {
    fn is(&self, state: u8) -> bool {
        self.state.load(Ordering::Acquire) == state
    }

    fn end(&self) {
        if self.state.compare_exchange(WAITS, OVER, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.caller.wake();
        }
    }
}

// === impl Waiting ===

impl Waiting {
    fn is_over(&mut self, cx: &mut Context<'_>) -> bool {
        match self {
            Self::InLine(wait) => {
                wait.caller.register(cx.waker());
                wait.is(OVER)
            }
            Self::Alone(timer) => timer.as_mut().poll(cx).is_ready(),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Self::InLine(wait) = self {
            wait.state.store(ANSWERED, Ordering::Release);
        }
    }
}

// === impl Watch ===

impl Watch {
    async fn run(mut self) {
        while let Some(end) = self.look() {
            sleep_until(end).await;
        }
    }

    fn look(&mut self) -> Option<Instant> {
        let mut queue = lock(&self.queue);
        let next = queue.end(Instant::now());
        self.ended = next.is_none();
        if self.ended {
            queue.watched_on = None;
        }
        next
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.ended {
            let mut queue = lock(&self.queue);
            queue.watched_on = None;
            queue.waits.drain(..).for_each(|(_, wait)| wait.end());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use tokio::runtime::{Builder, Runtime};
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(20);
    const HOUR: Duration = Duration::from_secs(3_600);

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    fn waiting(patience: &Patience) -> usize {
        lock(&patience.queue).waits.len()
    }

    #[tokio::test(start_paused = true)]
    async fn everybody_goes_on_shortly_before_the_limit_counted_from_their_own_beginning() {
        let patience = Patience::new(LIMIT);
        let waits = (0..50).map(|n| {
            let patience = &patience;
            async move {
                sleep(Duration::from_millis(n)).await;
                let begun = Instant::now();
                assert_eq!(patience.wait_for(pending::<()>()).await, None);
                begun.elapsed()
            }
        });
        for took in join_all(waits).await {
            assert!((LIMIT - LATE..LIMIT).contains(&took), "{took:?}");
        }
        assert_eq!(waiting(&patience), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_in_time_is_given_and_leaves_nothing_behind() {
        let patience = Patience::new(LIMIT);
        let answer = patience.wait_for(async {
            sleep(Duration::from_millis(10)).await;
            7
        });
        assert_eq!(answer.await, Some(7));
        assert_eq!(patience.wait_for(ready(8)).await, Some(8));
        sleep(LIMIT).await;
        assert_eq!(waiting(&patience), 0);
        assert_eq!(lock(&patience.queue).watched_on, None, "the task ends when there is nobody to watch for");
    }

    #[tokio::test(start_paused = true)]
    async fn many_answers_while_one_hangs_do_not_pile_up_for_longer_than_the_limit() {
        let patience = Patience::new(LIMIT);
        let hangs = patience.wait_for(pending::<()>());
        let others = async {
            for _ in 0..1_000 {
                patience.wait_for(sleep(Duration::from_millis(1))).await;
                assert!(waiting(&patience) <= 25, "{}", waiting(&patience));
            }
        };
        futures_util::future::join(hangs, others).await;
    }

    #[test]
    fn who_waits_goes_on_when_the_runtime_of_the_task_has_ended() {
        let patience = Patience::new(HOUR);
        let (first, second) = (runtime(), runtime());
        let mut hangs = Box::pin(patience.wait_for(pending::<()>()));
        first.block_on(async { assert!(futures_util::poll!(hangs.as_mut()).is_pending()) });
        drop(first);
        assert_eq!(second.block_on(hangs), None);
    }

    #[test]
    fn a_runtime_that_nobody_drives_any_more_keeps_nobody_on_another_waiting() {
        let patience = Patience::new(HOUR);
        let (idle, driven) = (runtime(), runtime());
        let wait = || async { timeout(2 * HOUR, patience.wait_for(pending::<()>())).await };
        let mut hangs = Box::pin(patience.wait_for(pending::<()>()));
        idle.block_on(async { assert!(futures_util::poll!(hangs.as_mut()).is_pending()) });
        assert_eq!(driven.block_on(wait()), Ok(None));
        assert_eq!(waiting(&patience), 1, "the other had a timer of its own");
        drop(idle);
        driven.block_on(async {
            let mut next = Box::pin(wait());
            assert!(futures_util::poll!(next.as_mut()).is_pending());
            assert_eq!(waiting(&patience), 1, "the queue is for the next runtime");
            assert_eq!(next.await, Ok(None));
        });
    }

    #[test]
    fn a_wait_without_a_runtime_spoils_none_that_comes_later() {
        let patience = Patience::new(HOUR);
        let wait = || patience.wait_for(pending::<()>());
        assert!(catch_unwind(AssertUnwindSafe(|| wait().now_or_never())).is_err());
        assert_eq!(runtime().block_on(async { timeout(2 * HOUR, wait()).await }), Ok(None));
    }
}
