//! Runs compensations, the last step first, in a task that outlives whoever started it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::SagaEvent;
use super::journal::{Bounds, Compensation, Entry, Journal};
use crate::context::Context;
use crate::error::{Error, Kind, Result};

/// What undoing needs, with nothing borrowed from the run that failed.
#[derive(Clone)]
pub(super) struct Undoing {
    pub(super) operation: String,
    pub(super) cx: Context,
    pub(super) handle: Handle,
    pub(super) tracker: TaskTracker,
    pub(super) tell: Tell,
}

/// Counts what happens.
pub(super) type Tell = Arc<dyn Fn(SagaEvent) + Send + Sync>;

/// Entries that are not undone yet. When it is dropped with some left, the runtime has ended.
struct Left {
    entries: Vec<Entry>,
    by: Undoing,
    _over: DropGuard,
}

static ALL: LazyLock<TaskTracker> = LazyLock::new(tracker);

/// Waits until no saga of this process is undoing anything: for a shutdown, after its sagas were dropped.
///
/// It does not hold new ones back, and waits for what they undo as well.
pub async fn settled() {
    ALL.wait().await;
}

/// A tracker that can be waited for whenever it is empty.
pub(super) fn tracker() -> TaskTracker {
    let tracker = TaskTracker::new();
    tracker.close();
    tracker
}

// === impl Undoing ===

impl Undoing {
    /// Undoes `entries` from the back, in a task of its own: what could not be undone. The saga around this
    /// one waits for it before it undoes what it did earlier.
    pub(super) fn start(self, entries: Vec<Entry>, outer: Option<&Journal>) -> JoinHandle<Vec<Error>> {
        let over = CancellationToken::new();
        if let Some(outer) = outer {
            outer.keep(vec![Entry::Undoing(over.clone())]);
        }
        let (tracker, handle) = (self.tracker.clone(), self.handle.clone());
        let left = Left { entries, by: self, _over: over.drop_guard() };
        tracker.spawn_on(ALL.track_future(undo(left)), &handle)
    }

    fn failed(&self, compensation: &str, error: &Error) {
        (self.tell)(SagaEvent::CompensationFailed);
        tracing::error!(
            saga = self.operation,
            compensation,
            correlation = self.cx.correlation_id(),
            ?error,
            "a step could not be undone"
        );
    }
}

async fn undo(mut left: Left) -> Vec<Error> {
    let mut failures = Vec::new();
    while let Some(entry) = left.entries.last_mut() {
        match entry {
            Entry::Undoing(over) => over.cancelled().await,
            Entry::Done(step, bounds) => match repeat(step.as_mut(), *bounds, &left.by).await {
                Ok(()) => (left.by.tell)(SagaEvent::StepUndone),
                Err(error) => {
                    left.by.failed(&step.name(), &error);
                    failures.push(error);
                }
            },
        }
        // Not before: an entry whose undoing was cut short counts as not undone.
        left.entries.pop();
    }
    failures
}

/// Tries one compensation until it succeeds, cannot succeed, or has no attempts left.
async fn repeat(step: &mut dyn Compensation, bounds: Bounds, by: &Undoing) -> Result<()> {
    let Bounds { limit, attempts, pause } = bounds;
    let mut attempt = 1;
    loop {
        let Err(error) = once(step, limit, by.cx.with_attempt(attempt)).await else { return Ok(()) };
        if attempt == attempts || !error.is_retryable() {
            let what = format!("`{}` did not undo its step, attempt {attempt} of {attempts}", step.name());
            return Err(Error::new(error.kind(), what).because(error));
        }
        attempt += 1;
        (by.tell)(SagaEvent::CompensationRetried);
        sleep(pause.max(error.retry_after().unwrap_or_default().min(limit))).await;
    }
}

async fn once(step: &mut dyn Compensation, limit: Duration, cx: Context) -> Result<()> {
    // Asked for inside as well: it copies the step's output, which may panic.
    let work = AssertUnwindSafe(async { step.attempt(cx.with_time_limit(limit)).await }).catch_unwind();
    match timeout(limit, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::new(Kind::Internal, "the compensation panicked")),
        Err(_) => Err(Error::new(Kind::Timeout, format!("no answer within {limit:?}"))),
    }
}

// === impl Left ===

impl Drop for Left {
    fn drop(&mut self) {
        let gone = Error::new(Kind::Cancelled, "the runtime ended before the step was undone");
        for entry in self.entries.iter().rev() {
            if let Entry::Done(step, _) = entry {
                self.by.failed(&step.name(), &gone);
            }
        }
    }
}
