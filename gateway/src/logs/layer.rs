//! Takes down events where they happen.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use throughline::telemetry::{Clock, Tick};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::access::ACCESS;
use super::condition::now;
use super::current;
use super::record::{Fields, Record};
use super::repeats::{Repeats, Verdict};
use super::writer::Queue;

/// Hands events to the thread that writes.
#[derive(Debug)]
pub(super) struct TakeDown {
    pub(super) queue: Queue,
    pub(super) repeats: Arc<Repeats>,
    pub(super) clock: Clock,
    /// Where the time of [`Repeats`] begins.
    pub(super) origin: Tick,
}

// === impl TakeDown ===

impl<S: Subscriber> Layer<S> for TakeDown {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        // What is shown here may be anybody's, and a request does not fail for it.
        let said = catch_unwind(AssertUnwindSafe(|| {
            let mut fields = Fields::default();
            event.record(&mut fields);
            fields
        }));
        let Fields { message, fields } = said.unwrap_or_else(|_| Fields {
            message: format!("{} cannot be shown", metadata.name()),
            fields: Vec::new(),
        });
        let (level, target) = (*metadata.level(), metadata.target());
        let record = Record { at: now(), level, target, message, fields, ids: current::ids() };
        // One a request is what was asked for.
        if target == ACCESS {
            return self.queue.put(record);
        }
        let elapsed = self.clock.now().since(self.origin);
        if let Verdict::Write(sum) = self.repeats.judge(metadata.callsite(), &record, elapsed) {
            sum.into_iter().for_each(|sum| self.queue.put(sum));
            self.queue.put(record);
        }
    }
}
