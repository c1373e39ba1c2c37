//! Events of spans that leave as log records, which is what the conventions have them be: content that is wanted apart
//! from traces.
//!
//! As with spans, whoever reports one never waits: it goes into a bounded queue, and a task of the telemetry thread
//! takes secrets out and delivers. What is lost is counted by reason (`apm_events_dropped_total`).

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use futures_util::FutureExt as _;
use opentelemetry::trace::SpanContext;
use opentelemetry_sdk::Resource;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::family::Family;
use super::super::health::Health;
use super::super::label::Label as _;
use super::super::registry::{Counter, Gauge, Registry};
use super::super::worker::Worker;
use super::exporter::{Budget, Stop};
use super::failure::{ErrorType, Failure};
use super::otlp_settings::Signal;
use super::report::{Loss, Report};
use super::settings::{Batching, Delivery};
use crate::redact::Redactor;

static LOST: Family = Family::counter(
    "apm_events_dropped",
    "Events with content that were given up before the receiver had them, by reason",
    &["reason"],
);
static EXPORTED: Family =
    Family::counter("apm_events_exported", "Events with content that were delivered", &[]);

pub(super) static FAMILIES: &[&Family] = &[&LOST, &EXPORTED];

/// An event may be as large as two messages' attributes, so fewer wait than spans do.
const MOST_WAITING: u32 = 512;
/// The most that are sent at once: what many receivers take at most is 4 MiB.
const MOST_AT_ONCE: usize = 64;

/// Something that happened within a span, and what is said of it.
#[derive(Debug)]
pub(in crate::telemetry) struct Event {
    pub(super) name: &'static str,
    /// Nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) span: SpanContext,
    pub(super) attributes: Vec<(Cow<'static, str>, Value)>,
}

/// Where events are put.
#[derive(Clone, Debug)]
pub(in crate::telemetry) struct Events {
    queue: mpsc::Sender<Event>,
    losses: Losses,
}

/// The task that delivers them.
pub(in crate::telemetry) struct Delivering {
    stop: Stop,
    task: JoinHandle<()>,
    runtime: Handle,
}

/// Counts lost events.
#[derive(Clone, Debug)]
struct Losses(Arc<[Counter]>);

#[cfg(feature = "otlp")]
struct Feeder {
    link: super::otlp::Link,
    resource: super::otlp::Sender,
    queue: mpsc::Receiver<Event>,
    report: Report,
    losses: Losses,
    exported: Counter,
    redactor: Redactor,
    /// Characters of a text.
    longest: u32,
    batching: Batching,
    stop: watch::Receiver<Option<Instant>>,
}

/// Everything that the delivery of events is made with.
pub(in crate::telemetry) struct Setup<'a> {
    pub(in crate::telemetry) delivery: &'a Delivery,
    pub(in crate::telemetry) registry: &'a Registry,
    pub(in crate::telemetry) health: &'a Arc<Health>,
    /// `apm_init_success` of logs.
    pub(in crate::telemetry) init: Gauge,
    pub(in crate::telemetry) worker: &'a Worker,
    pub(in crate::telemetry) resource: &'a Resource,
}

// === impl Losses ===

impl Losses {
    fn new(registry: &Registry) -> Self {
        Self(Loss::ALL.iter().map(|loss| registry.counter(&LOST, &[loss.as_str()])).collect())
    }

    fn add(&self, loss: Loss, events: usize) {
        self.0[loss.index()].add(events as u64);
    }
}

// === impl Event ===

impl Event {
    /// One that happens now.
    #[expect(clippy::disallowed_methods, reason = "a date is meant, for the receiver")]
    pub(in crate::telemetry) fn now(
        name: &'static str,
        span: SpanContext,
        attributes: Vec<(Cow<'static, str>, Value)>,
    ) -> Self {
        Self { name, at: super::super::span::nanoseconds(std::time::SystemTime::now()), span, attributes }
    }

    /// Takes out what is secret, in every text, and cuts what is longer than `longest` characters.
    fn clean(&mut self, redactor: &Redactor, longest: u32) {
        self.attributes.iter_mut().for_each(|(key, value)| clean(key, value, redactor, longest));
    }
}

/// As deep as the messages are, which this program has put together.
fn clean(key: &str, value: &mut Value, redactor: &Redactor, longest: u32) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(clean) = redactor.document(key, text) {
                *text = clean;
            }
            if let Some((end, _)) = text.char_indices().nth(longest as usize) {
                text.truncate(end);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(key, item, redactor, longest)),
        Value::Object(fields) => {
            fields.iter_mut().for_each(|(key, value)| clean(key, value, redactor, longest));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

// === impl Events ===

impl Events {
    /// Puts `event` into the queue, or loses it.
    pub(in crate::telemetry) fn push(&self, event: Event) {
        match self.queue.try_send(event) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => self.losses.add(Loss::QueueFull, 1),
            Err(mpsc::error::TrySendError::Closed(_)) => self.losses.add(Loss::Shutdown, 1),
        }
    }
}

// === impl Delivering ===

impl Delivering {
    /// Starts the task, if there is a receiver to deliver to; what is wrong with it is in health.
    #[cfg(feature = "otlp")]
    pub(in crate::telemetry) fn start(setup: Setup<'_>) -> Option<(Events, Self)> {
        let Setup { delivery, registry, health, init, worker, resource } = setup;
        let protocol = delivery.events?;
        let settings = &delivery.otlp_logs;
        let mut link = super::otlp::Link::new(settings, protocol, Signal::Logs);
        let host = settings.host(protocol, Signal::Logs);
        let mut report = Report::new(Signal::Logs, "events_otlp", host, registry, health);
        init.set(1);
        if let Err(failure) = link.check() {
            report.not_set_up(&failure, init);
        }
        let batching = delivery.batching;
        let (sender, queue) = mpsc::channel(batching.queue.min(MOST_WAITING) as usize);
        let (stop, stopped) = watch::channel(None);
        let losses = Losses::new(registry);
        let feeder = Feeder {
            link,
            resource: super::otlp::Sender::new(resource),
            queue,
            report,
            losses: losses.clone(),
            exported: registry.counter(&EXPORTED, &[]),
            redactor: Redactor::standard().counted(registry),
            longest: delivery.limits.text,
            batching,
            stop: stopped,
        };
        let task = worker.run(feeder.run());
        Some((Events { queue: sender, losses }, Self { stop, task, runtime: worker.runtime().clone() }))
    }

    #[cfg(not(feature = "otlp"))]
    pub(in crate::telemetry) fn start(setup: Setup<'_>) -> Option<(Events, Self)> {
        let Setup { delivery, init, health, .. } = setup;
        let _ = delivery.events?;
        init.set(0);
        let reason = "events are not sent: built without the feature `otlp`".to_owned();
        health.degraded("events_otlp", reason);
        None
    }

    /// Delivers what waits and ends, within `limit`. What comes back says when.
    pub(in crate::telemetry) fn finish(self, limit: Duration) -> Receiver<()> {
        let (done, wait) = sync_channel(1);
        self.stop.send_replace(Some(Instant::now() + limit));
        self.runtime.spawn(async move {
            // One that has panicked has ended as well.
            let _ = self.task.await;
            // Who asked may have stopped waiting.
            let _ = done.send(());
        });
        wait
    }
}

// === impl Feeder ===

#[cfg(feature = "otlp")]
impl Feeder {
    async fn run(mut self) {
        let most = MOST_AT_ONCE.min(self.batching.batch as usize);
        loop {
            let mut batch = Vec::with_capacity(most);
            let is_last = self.gather(&mut batch, most).await;
            if !batch.is_empty() {
                self.deliver(batch).await;
            }
            if is_last && self.queue.is_empty() {
                return;
            }
        }
    }

    /// Waits for an event, and for others to go with it. True when there will be no more.
    async fn gather(&mut self, batch: &mut Vec<Event>, most: usize) -> bool {
        let mut stop = self.stop.clone();
        let queue = &mut self.queue;
        let fill = async {
            let Some(first) = queue.recv().await else { return true };
            batch.push(first);
            let others = async {
                while batch.len() < most {
                    let Some(event) = queue.recv().await else { return };
                    batch.push(event);
                }
            };
            tokio::select! {
                () = others => {}
                () = sleep(self.batching.delay) => {}
            }
            false
        };
        tokio::select! {
            is_last = fill => return is_last,
            // A sender that is gone says stop as well.
            _ = stop.wait_for(Option::is_some) => {}
        }
        // What waits is still delivered.
        self.queue.close();
        while batch.len() < most
            && let Ok(event) = self.queue.try_recv()
        {
            batch.push(event);
        }
        true
    }

    async fn deliver(&mut self, batch: Vec<Event>) {
        let before = batch.len();
        let batch: Vec<_> = batch.into_iter().filter_map(|event| self.cleaned(event)).collect();
        self.losses.add(Loss::NotRedacted, before - batch.len());
        let count = batch.len();
        if self.stop.borrow().is_some_and(|end| Instant::now() >= end) {
            return self.losses.add(Loss::Shutdown, count);
        }
        let budget = Budget::new(self.batching.timeout, &self.stop);
        let attempt = AssertUnwindSafe(async {
            let message = self.link.written(&self.resource.logs(batch));
            self.link.deliver(message, &budget, &self.report).await
        });
        let lost = match budget.bound(attempt.catch_unwind()).await {
            Some(Ok(Ok(0))) => {
                self.report.works();
                return self.exported.add(count as u64);
            }
            Some(Ok(Ok(rejected))) => {
                let rejected = rejected.min(count);
                let message = format!("{rejected} of {count} events were rejected");
                self.report.failed(&Failure::new(ErrorType::Rejected, message));
                self.exported.add((count - rejected) as u64);
                return self.losses.add(Loss::Rejected, rejected);
            }
            // It has been reported.
            Some(Ok(Err(_))) => Loss::ExportFailed,
            Some(Err(_)) => {
                self.report.failed(&Failure::panicked());
                Loss::ExportFailed
            }
            None if self.stop.borrow().is_none() => {
                self.report.failed(&Failure::timeout(self.batching.timeout));
                Loss::ExportFailed
            }
            None => Loss::Shutdown,
        };
        let lost = if self.stop.borrow().is_some() { Loss::Shutdown } else { lost };
        self.losses.add(lost, count);
    }

    /// `None` when it could not be found out what is secret in it.
    fn cleaned(&self, mut event: Event) -> Option<Event> {
        catch_unwind(AssertUnwindSafe(|| event.clean(&self.redactor, self.longest))).ok()?;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_secret_is_left_at_any_depth_and_long_texts_are_cut() {
        let said =
            json!([{"role": "user", "parts": [{"type": "text", "content": "of ann@example.com"}], "n": 7}]);
        let mut event = Event::now(
            "e",
            SpanContext::NONE,
            vec![("gen_ai.input.messages".into(), said), ("t".into(), "éé".into())],
        );
        event.clean(&Redactor::standard(), 100);
        let expected =
            json!([{"role": "user", "parts": [{"type": "text", "content": "of [REDACTED:EMAIL]"}], "n": 7}]);
        assert_eq!(event.attributes[0].1, expected);
        event.clean(&Redactor::standard(), 1);
        assert_eq!(event.attributes[1].1, "é");
    }
}
