//! Outputs that come in pieces: a stream is under way long after the stage that began it has returned.
//!
//! Every wrapper treats a stream in the same three ways. It waits for the first item before it calls an
//! attempt a success, so that a retry, a fallback or a hedge can still take another way. It leaves
//! limits on the stream for the time after. And it learns of the end: permits are given back, durations
//! and spans close, results are counted when the stream is complete, has failed, or was dropped.
//!
//! A wrapper finds the stream in an output through [`Primitive::stream`](crate::Primitive::stream).
//! [`workflow_stream`](crate::workflow_stream) makes a stage whose output is one; [`ItemStream`] is the stream to
//! return.
//!
//! ```
//! use futures_util::{StreamExt, stream};
//! use throughline::{Context, ItemStream, workflow_stream};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let count = workflow_stream("count", |to: u64, _cx: Context| async move {
//!     Ok(ItemStream::new(stream::iter((1..=to).map(Ok))))
//! });
//! let items: Vec<_> = count.run(3, &Context::new()).await?.collect().await;
//! assert_eq!(items.into_iter().collect::<throughline::Result<Vec<_>>>()?, [1, 2, 3]);
//! # Ok(()) }
//! ```
//!
//! Do not return a stream of something that fits into one value: every wrapper has less to decide by.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use futures_util::Stream;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::{Error, Result};

/// What a wrapper needs of a stream.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a stream that a workflow can give",
    note = "give an `ItemStream::new(stream)`, or use `workflow_with` for an output that is one value"
)]
pub trait Streaming: Send {
    /// Ready when the first item that counts has come, or the stream has ended well without one. Nothing
    /// is lost for whoever reads the stream.
    ///
    /// # Errors
    /// When the stream has failed before that; then it is over.
    fn poll_first(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<()>>;

    /// Fails the stream with the limit's error once the limit is reached. Limits add up.
    fn limit(&mut self, limit: StreamLimit);

    /// Calls `hear` once, when the stream has ended in whichever way, or now if it has; the first to ask is
    /// called first.
    fn on_end(&mut self, hear: OnEnd);

    /// Reads on and throws away what comes; ready when the stream has ended.
    fn poll_rest(&mut self, task: &mut TaskContext<'_>) -> Poll<()>;
}

/// What [`Streaming::on_end`] takes.
pub type OnEnd = Box<dyn FnOnce(&StreamEnding) + Send>;

/// The longest pause that is waited for: a year, which a clock can always add to now.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How a stream ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEnding {
    /// It is complete.
    Complete,
    /// It failed.
    Failed(Error),
    /// Its reader went away.
    Dropped,
}

/// How long a stream may go on, and with what it fails then.
#[derive(Clone, Debug)]
pub struct StreamLimit {
    bound: Bound,
    error: Error,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    Until(Instant),
    Between(Duration),
}

/// What an item is to a stream. See [`ItemStream::told_by`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It comes before anything that counts, such as a header.
    Preamble,
    /// It counts.
    Content,
    /// It counts, and the stream is complete with it, so that nobody has to wait for more.
    Last,
}

/// A stream as an output.
///
/// # Errors
/// The last item is an error when the source failed or a limit was reached.
///
/// # Cancellation
/// Dropping it drops the source; who wanted to know learns that the stream was dropped.
pub struct ItemStream<T> {
    source: Pin<Box<dyn Stream<Item = Result<T>> + Send>>,
    told_by: fn(&T) -> Part,
    /// Items that were waited for and not read yet.
    head: VecDeque<T>,
    exhausted: bool,
    waiting: bool,
    timers: Vec<Timer>,
    taps: Vec<Tap<T>>,
    hear: Vec<OnEnd>,
    ending: Option<StreamEnding>,
}

/// Says whether it wants to see more.
type Tap<T> = Box<dyn FnMut(&T) -> bool + Send>;

struct Timer {
    limit: StreamLimit,
    sleep: Pin<Box<Sleep>>,
}

/// Waits until the first item has come. See [`Streaming::poll_first`].
///
/// # Errors
/// When the stream has failed before that.
pub async fn first(stream: &mut dyn Streaming) -> Result<()> {
    poll_fn(|task| stream.poll_first(task)).await
}

/// Reads a stream to its end and throws away what comes.
pub async fn rest(stream: &mut dyn Streaming) {
    poll_fn(|task| stream.poll_rest(task)).await;
}

// === impl StreamLimit ===

impl StreamLimit {
    /// The stream fails with `error` when it is not complete at `end`.
    #[must_use]
    pub fn until(end: Instant, error: Error) -> Self {
        Self { bound: Bound::Until(end), error }
    }

    /// The stream fails with `error` when nothing comes for `pause`.
    #[must_use]
    pub fn between(pause: Duration, error: Error) -> Self {
        Self { bound: Bound::Between(pause.min(LONGEST)), error }
    }
}

// === impl Timer ===

impl Timer {
    fn new(limit: StreamLimit) -> Self {
        let end = match limit.bound {
            Bound::Until(end) => end,
            Bound::Between(pause) => Instant::now() + pause,
        };
        Self { limit, sleep: Box::pin(sleep_until(end)) }
    }

    fn restart(&mut self) {
        if let Bound::Between(pause) = self.limit.bound {
            self.sleep.as_mut().reset(Instant::now() + pause);
        }
    }

    /// The limit's error, once it is reached.
    fn poll(&mut self, task: &mut TaskContext<'_>) -> Option<Error> {
        // A source that uses up tokio's budget in every turn would keep a timer that takes part in it from firing.
        let sleep = Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(task);
        sleep.is_ready().then(|| self.limit.error.clone())
    }

    fn overdue(&self) -> Option<Error> {
        let overdue = matches!(self.limit.bound, Bound::Until(end) if end <= Instant::now());
        overdue.then(|| self.limit.error.clone())
    }
}

// === impl ItemStream ===

impl<T> ItemStream<T> {
    /// The items of `source`, of which the first error is the last.
    pub fn new(source: impl Stream<Item = Result<T>> + Send + 'static) -> Self {
        Self {
            source: Box::pin(source),
            told_by: |_| Part::Content,
            head: VecDeque::new(),
            exhausted: false,
            waiting: false,
            timers: Vec::new(),
            taps: Vec::new(),
            hear: Vec::new(),
            ending: None,
        }
    }

    /// Says what each item is to the stream. Default: all of them count, and the source says when it is
    /// complete.
    #[must_use]
    pub fn told_by(mut self, part: fn(&T) -> Part) -> Self {
        self.told_by = part;
        self
    }

    /// Shows `tap` every item that is read from now on.
    pub fn on_item(&mut self, mut tap: impl FnMut(&T) + Send + 'static) {
        self.on_item_while(move |item| {
            tap(item);
            true
        });
    }

    /// As [`ItemStream::on_item`], as long as `tap` wants to see more.
    pub fn on_item_while(&mut self, tap: impl FnMut(&T) -> bool + Send + 'static) {
        self.taps.push(Box::new(tap));
    }

    /// Whether the stream has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ending.is_some()
    }

    fn end(&mut self, ending: StreamEnding) {
        self.timers.clear();
        let ending = self.ending.insert(ending);
        for hear in self.hear.drain(..) {
            hear(ending);
        }
    }

    fn fail(&mut self, error: &Error) {
        self.end(StreamEnding::Failed(error.clone()));
    }

    /// The error of a limit that has passed: a source that always has an item gives the timers no turn.
    fn overdue(&self) -> Option<Error> {
        self.timers.iter().find_map(Timer::overdue)
    }

    /// The next item of the source, under the limits.
    fn poll_source(&mut self, task: &mut TaskContext<'_>) -> Poll<Option<Result<T>>> {
        match self.source.as_mut().poll_next(task) {
            Poll::Ready(next) => {
                self.waiting = false;
                let too_late = next.as_ref().is_some_and(Result::is_ok).then(|| self.overdue()).flatten();
                Poll::Ready(too_late.map_or(next, |error| Some(Err(error))))
            }
            Poll::Pending => {
                // A pause of the reader is not one of the source.
                if !self.waiting {
                    self.waiting = true;
                    self.timers.iter_mut().for_each(Timer::restart);
                }
                let reached = self.timers.iter_mut().find_map(|timer| timer.poll(task));
                reached.map_or(Poll::Pending, |error| Poll::Ready(Some(Err(error))))
            }
        }
    }

    fn deliver(&mut self, item: T) -> Poll<Option<Result<T>>> {
        self.taps.retain_mut(|tap| tap(&item));
        if (self.told_by)(&item) == Part::Last {
            self.end(StreamEnding::Complete);
        }
        Poll::Ready(Some(Ok(item)))
    }
}

impl<T: Send + Unpin> Streaming for ItemStream<T> {
    fn poll_first(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<()>> {
        while !self.is_over()
            && !self.exhausted
            && self.head.back().is_none_or(|item| (self.told_by)(item) == Part::Preamble)
        {
            match ready!(self.poll_source(task)) {
                Some(Ok(item)) => self.head.push_back(item),
                Some(Err(error)) => {
                    self.fail(&error);
                    return Poll::Ready(Err(error));
                }
                None => self.exhausted = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn limit(&mut self, limit: StreamLimit) {
        if !self.is_over() {
            self.timers.push(Timer::new(limit));
        }
    }

    fn on_end(&mut self, hear: OnEnd) {
        match &self.ending {
            Some(ending) => hear(ending),
            None => self.hear.push(hear),
        }
    }

    fn poll_rest(&mut self, task: &mut TaskContext<'_>) -> Poll<()> {
        while ready!(Pin::new(&mut *self).poll_next(task)).is_some() {}
        Poll::Ready(())
    }
}

impl<T: Unpin> Stream for ItemStream<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<Result<T>>> {
        if self.is_over() {
            return Poll::Ready(None);
        }
        if let Some(item) = self.head.pop_front() {
            return self.deliver(item);
        }
        let next = if self.exhausted { None } else { ready!(self.poll_source(task)) };
        match next {
            Some(Ok(item)) => self.deliver(item),
            Some(Err(error)) => {
                self.fail(&error);
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.end(StreamEnding::Complete);
                Poll::Ready(None)
            }
        }
    }
}

impl<T> Drop for ItemStream<T> {
    fn drop(&mut self) {
        if !self.is_over() {
            self.end(StreamEnding::Dropped);
        }
    }
}

impl<T> fmt::Debug for ItemStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemStream").field("over", &self.is_over()).finish_non_exhaustive()
    }
}
