//! Where spans go when they end: into a bounded queue that never blocks.
//!
//! What happens in the request is one push; everything else (redaction, encoding, sending) is done on the telemetry
//! thread. That thread is woken once a batch and not once a span.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::{Notify, mpsc};

use super::super::span::Record;
use super::report::{Loss, Losses};
use super::settings::Batching;
use super::undecided::Undecided;

/// The program's end of the queue.
#[derive(Debug)]
pub(in crate::telemetry) struct Intake {
    spans: SyncSender<Box<Record>>,
    waiting: Arc<Waiting>,
    commands: mpsc::UnboundedSender<Command>,
    losses: Losses,
    timeout: Duration,
    undecided: Option<Arc<Undecided>>,
    closed: AtomicBool,
}

/// For the SDK, whose spans are turned into ours.
#[derive(Debug)]
pub(super) struct FromSdk(pub(super) Intake);

/// The telemetry thread's end of the queue.
#[derive(Debug)]
pub(super) struct Outlet {
    spans: Receiver<Box<Record>>,
    waiting: Arc<Waiting>,
    capacity: usize,
}

/// How many spans wait, and that they are enough for a batch.
#[derive(Debug)]
pub(super) struct Waiting {
    count: AtomicUsize,
    batch: usize,
    enough: Notify,
}

/// What the program asks of the telemetry thread. Who asked is told when it is done.
#[derive(Debug)]
pub(super) enum Command {
    /// Deliver what there is.
    Flush(SyncSender<()>),
    /// Deliver what there is within this time, and end.
    Stop(Duration, SyncSender<()>),
}

/// Both ends, and the commands.
pub(super) fn queue(
    batching: Batching,
    losses: &Losses,
    undecided: Option<Arc<Undecided>>,
) -> (Intake, Outlet, mpsc::UnboundedReceiver<Command>) {
    let (sender, receiver) = sync_channel(batching.queue as usize);
    let (commands, commanded) = mpsc::unbounded_channel();
    let batch = batching.batch as usize;
    let waiting = Arc::new(Waiting { count: AtomicUsize::new(0), batch, enough: Notify::new() });
    let intake = Intake {
        spans: sender,
        waiting: Arc::clone(&waiting),
        commands,
        losses: losses.clone(),
        timeout: batching.timeout,
        undecided,
        closed: AtomicBool::new(false),
    };
    (intake, Outlet { spans: receiver, waiting, capacity: batching.queue as usize }, commanded)
}

// === impl Intake ===

impl Intake {
    fn ask(&self, command: impl FnOnce(SyncSender<()>) -> Command, limit: Duration) -> OTelSdkResult {
        let (done, wait) = sync_channel(1);
        self.commands.send(command(done)).map_err(|_| OTelSdkError::AlreadyShutdown)?;
        wait.recv_timeout(limit).map_err(|_| OTelSdkError::Timeout(limit))
    }

    /// Takes a span that has ended.
    pub(in crate::telemetry) fn ended(&self, span: Box<Record>) {
        if span.context.is_sampled() {
            self.push(span);
        } else if let Some(undecided) = &self.undecided {
            undecided.ended(span).into_iter().for_each(|span| self.push(span));
        }
    }

    /// Whether it has been stopped: no span need be opened any more.
    #[inline]
    pub(in crate::telemetry) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Delivers what there is, within `timeout`, and ends.
    ///
    /// # Errors
    /// When not everything was delivered in time, or it had ended.
    pub(in crate::telemetry) fn stop(&self, timeout: Duration) -> OTelSdkResult {
        self.closed.store(true, Ordering::Relaxed);
        // The telemetry thread gives up in time to say so.
        self.ask(|done| Command::Stop(timeout, done), timeout + Duration::from_millis(100))
    }

    /// Puts `span` into the queue, or loses it.
    #[inline]
    fn push(&self, span: Box<Record>) {
        if self.spans.try_send(span).is_err() {
            self.losses.add(Loss::QueueFull, 1);
            self.waiting.enough.notify_one();
            return;
        }
        // It may have been taken before it is counted here: then the count wraps, for that moment.
        let count = self.waiting.count.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        if count.is_multiple_of(self.waiting.batch) {
            self.waiting.enough.notify_one();
        }
    }
}

// === impl FromSdk ===

impl SpanProcessor for FromSdk {
    fn on_start(&self, _: &mut Span, _: &opentelemetry::Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.ended(Box::new(Record::from(span)));
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.ask(Command::Flush, self.0.timeout)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.stop(timeout)
    }
}

// === impl Outlet ===

impl Outlet {
    /// Completes when there is enough for a batch.
    pub(super) async fn enough(&mut self) {
        self.waiting.enough.notified().await;
    }

    /// Whether there is enough for a batch.
    pub(super) fn has_enough(&self) -> bool {
        self.waiting.count() >= self.waiting.batch
    }

    /// The most spans that can wait.
    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The next span, if one waits.
    pub(super) fn next(&self) -> Option<Box<Record>> {
        let span = self.spans.try_recv().ok()?;
        // Counted by the sender only after it was sent: the count may be behind for a moment, and wrap.
        self.waiting.count.fetch_sub(1, Ordering::Relaxed);
        Some(span)
    }

    pub(super) fn waiting(&self) -> Arc<Waiting> {
        Arc::clone(&self.waiting)
    }
}

// === impl Waiting ===

impl Waiting {
    /// How many spans wait.
    pub(super) fn count(&self) -> usize {
        // What was taken out before it was counted makes it wrap for a moment.
        self.count.load(Ordering::Relaxed).cast_signed().max(0).cast_unsigned()
    }
}
