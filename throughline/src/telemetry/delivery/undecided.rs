//! Traces that the sampler declined, held until they end: only then is it known whether they are worth keeping.
//!
//! A trace that begins in this process and is declined is recorded all the same, into memory. When its root ends it is
//! exported as a whole if one of its spans failed or the root took long, and forgotten otherwise. What is sent onwards
//! stays honest: the flag says that the trace is not sampled.
//!
//! A trace that a caller declined is not held: it is not known here when it ends.
//!
//! Memory is bounded in four ways (traces, spans of a trace, bytes, age); what does not fit is counted.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, Status, TraceId};
use opentelemetry::{KeyValue, SpanId, Value};

use super::super::clock::{Clock, Tick};
use super::super::family::Family;
use super::super::label::Label as _;
use super::super::registry::{Counter, Registry};
use super::super::span::Record;
use super::exporter::Batch;
use super::keep::Keep;
use super::report::{Loss, Losses};

static DECLINED: Family = Family::counter(
    "apm_declined_traces",
    "Traces that the sampler declined and that were to be held until their end, by what became of them",
    &["outcome"],
);

pub(super) static FAMILIES: &[&Family] = &[&DECLINED];

/// Says on the root of a kept trace why it was kept: such traces are no fair sample.
const KEPT: &str = "throughline.sampling.kept";

/// So many threads rarely want the same lock.
const SHARDS: usize = 16;
/// How many kept traces a shard remembers, for spans that end after their root.
const REMEMBERED: usize = 64;

crate::labels! {
    /// What became of a trace.
    pub(in crate::telemetry) enum Outcome {
        Error = "kept_error",
        Slow = "kept_slow",
        Discarded = "discarded",
        NotHeld = "not_held",
        Expired = "expired",
    }
}

/// How much is held at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    traces: usize,
    spans_of_a_trace: usize,
    bytes: usize,
    age: Duration,
}

/// The traces that are held.
#[derive(Debug)]
pub(in crate::telemetry) struct Undecided {
    keep: Keep,
    bounds: Bounds,
    clock: Clock,
    traces: AtomicUsize,
    bytes: AtomicUsize,
    shards: Vec<Mutex<Shard>>,
    outcomes: Vec<Counter>,
    losses: Losses,
}

#[derive(Debug, Default)]
struct Shard {
    held: HashMap<TraceId, Held>,
    kept: VecDeque<TraceId>,
}

#[derive(Debug)]
struct Held {
    since: Tick,
    spans: Batch,
    bytes: usize,
    /// Spans that did not fit.
    lost: usize,
    failed: bool,
    verdict: Option<Verdict>,
}

#[derive(Clone, Copy, Debug)]
struct Verdict(Outcome);

// === impl Bounds ===

impl Default for Bounds {
    fn default() -> Self {
        Self { traces: 4096, spans_of_a_trace: 512, bytes: 32 << 20, age: Duration::from_secs(600) }
    }
}

// === impl Undecided ===

impl Undecided {
    pub(super) fn new(keep: Keep, clock: Clock, registry: &Registry) -> Arc<Self> {
        Arc::new(Self::bounded(keep, clock, registry, Bounds::default()))
    }

    fn bounded(keep: Keep, clock: Clock, registry: &Registry, bounds: Bounds) -> Self {
        let outcome = |outcome: &Outcome| registry.counter(&DECLINED, &[outcome.as_str()]);
        Self {
            keep,
            bounds,
            clock,
            traces: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            outcomes: Outcome::ALL.iter().map(outcome).collect(),
            losses: Losses::new(registry),
        }
    }

    /// Whether a span of the trace `id` under `parent` is held, which the sampler has declined: of a trace that begins
    /// with it, or that is held already.
    pub(in crate::telemetry) fn takes(&self, parent: &SpanContext, id: TraceId) -> bool {
        match parent.is_valid() {
            false => self.admit(id),
            true => !parent.is_remote() && self.holds(id),
        }
    }

    /// Holds the trace `id`, which begins, if there is room.
    fn admit(&self, id: TraceId) -> bool {
        if self.traces.fetch_add(1, Ordering::Relaxed) >= self.bounds.traces {
            self.traces.fetch_sub(1, Ordering::Relaxed);
            self.count(Outcome::NotHeld);
            return false;
        }
        match self.shard(id).held.entry(id) {
            Entry::Vacant(place) => {
                place.insert(Held::since(self.clock.now()));
            }
            Entry::Occupied(_) => {
                self.traces.fetch_sub(1, Ordering::Relaxed);
            }
        }
        true
    }

    /// Whether the trace `id` is held.
    pub(in crate::telemetry) fn holds(&self, id: TraceId) -> bool {
        self.shard(id).held.contains_key(&id)
    }

    /// Whether the trace `id`, whose root ends now, is kept: for exemplars, which are written before the span ends.
    pub(in crate::telemetry) fn verdict(&self, id: TraceId, failed: bool, took: Duration) -> bool {
        let mut shard = self.shard(id);
        let Some(held) = shard.held.get_mut(&id) else { return false };
        held.failed |= failed;
        held.decide(self.keep, took).is_kept()
    }

    /// Takes a span that ended. What comes back is to be exported.
    pub(super) fn ended(&self, span: Box<Record>) -> Batch {
        let id = span.context.trace_id();
        let mut shard = self.shard(id);
        let Some(held) = shard.held.get_mut(&id) else {
            let late = shard.kept.contains(&id);
            return if late { vec![span] } else { Vec::new() };
        };
        held.failed |= matches!(span.status, Status::Error { .. });
        if span.parent != SpanId::INVALID {
            self.hold(held, span);
            return Vec::new();
        }
        let verdict = held.decide(self.keep, span.took());
        let Some(held) = shard.held.remove(&id) else { return Vec::new() };
        if verdict.is_kept() {
            shard.remember(id);
        }
        drop(shard);
        self.settle(held, span, verdict)
    }

    /// Forgets traces that have not ended for too long.
    pub(super) fn sweep(&self) {
        let now = self.clock.now();
        for shard in &self.shards {
            let old = |held: &Held| now.since(held.since) >= self.bounds.age;
            let gone: Vec<Held> =
                lock(shard).held.extract_if(|_, held| old(held)).map(|(_, held)| held).collect();
            for held in gone {
                self.release(&held);
                self.count(Outcome::Expired);
            }
        }
    }

    fn hold(&self, held: &mut Held, span: Box<Record>) {
        let size = size(&span);
        let fits = held.spans.len() < self.bounds.spans_of_a_trace
            && self.bytes.load(Ordering::Relaxed) + size <= self.bounds.bytes;
        if !fits {
            held.lost += 1;
            return;
        }
        self.bytes.fetch_add(size, Ordering::Relaxed);
        held.bytes += size;
        held.spans.push(span);
    }

    fn settle(&self, held: Held, mut root: Box<Record>, verdict: Verdict) -> Batch {
        self.release(&held);
        self.count(verdict.0);
        let Some(why) = verdict.why() else { return Vec::new() };
        self.losses.add(Loss::TraceTooLarge, held.lost);
        root.attributes.push(KeyValue::new(KEPT, why));
        let mut spans = held.spans;
        spans.push(root);
        spans
    }

    fn release(&self, held: &Held) {
        self.traces.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(held.bytes, Ordering::Relaxed);
    }

    fn count(&self, outcome: Outcome) {
        self.outcomes[outcome.index()].inc();
    }

    fn shard(&self, id: TraceId) -> MutexGuard<'_, Shard> {
        // Trace ids are random.
        lock(&self.shards[usize::from(id.to_bytes()[15]) % SHARDS])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// About how many bytes `span` takes, without what it shares with others of its stage.
fn size(span: &Record) -> usize {
    let text = |value: &Value| match value {
        Value::String(text) => text.as_str().len(),
        Value::Array(opentelemetry::Array::String(texts)) => {
            texts.iter().map(|text| text.as_str().len()).sum()
        }
        _ => 0,
    };
    let pairs = |pairs: &[KeyValue]| -> usize {
        pairs.iter().map(|pair| size_of::<KeyValue>() + text(&pair.value)).sum()
    };
    let events = span.events.iter().map(|event| event.name.len() + pairs(&event.attributes));
    let links = span.links.iter().map(|link| pairs(&link.attributes));
    size_of::<Record>() + pairs(&span.attributes) + events.chain(links).sum::<usize>()
}

// === impl Shard ===

impl Shard {
    fn remember(&mut self, id: TraceId) {
        if self.kept.len() == REMEMBERED {
            self.kept.pop_front();
        }
        self.kept.push_back(id);
    }
}

// === impl Held ===

impl Held {
    fn since(since: Tick) -> Self {
        Self { since, spans: Vec::new(), bytes: 0, lost: 0, failed: false, verdict: None }
    }

    /// What is decided first stands: an exemplar may have been written.
    fn decide(&mut self, keep: Keep, took: Duration) -> Verdict {
        let failed = self.failed;
        *self.verdict.get_or_insert_with(|| {
            let slow = keep.slower_than.is_some_and(|limit| took > limit);
            match (keep.errors && failed, slow) {
                (true, _) => Verdict(Outcome::Error),
                (false, true) => Verdict(Outcome::Slow),
                (false, false) => Verdict(Outcome::Discarded),
            }
        })
    }
}

// === impl Verdict ===

impl Verdict {
    fn why(self) -> Option<&'static str> {
        match self.0 {
            Outcome::Error => Some("error"),
            Outcome::Slow => Some("slow"),
            _ => None,
        }
    }

    fn is_kept(self) -> bool {
        self.why().is_some()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::InstrumentationScope;
    use opentelemetry::trace::{SpanContext, SpanKind, TraceFlags, TraceState};
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

    use super::*;
    use crate::telemetry::Telemetry;

    const BOTH: Keep = Keep { errors: true, slower_than: Some(Duration::from_secs(2)) };

    fn span(trace: u128, parent: u64, status: Status, took: Duration) -> Box<Record> {
        let start = std::time::SystemTime::UNIX_EPOCH;
        let flags = TraceFlags::NOT_SAMPLED;
        let span = SpanData {
            span_context: SpanContext::new(
                TraceId::from(trace),
                SpanId::from(9),
                flags,
                false,
                TraceState::NONE,
            ),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            name: "x".into(),
            start_time: start,
            end_time: start + took,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            instrumentation_scope: InstrumentationScope::default(),
        };
        Box::new(Record::from(span))
    }

    fn fine(trace: u128, parent: u64) -> Box<Record> {
        span(trace, parent, Status::Ok, Duration::from_millis(1))
    }

    fn broken(trace: u128, parent: u64) -> Box<Record> {
        span(trace, parent, Status::error("timeout"), Duration::from_millis(1))
    }

    struct Scene {
        telemetry: Telemetry,
        undecided: Undecided,
    }

    fn scene(keep: Keep, bounds: Bounds) -> Scene {
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let registry = telemetry.sink().registry().unwrap();
        let undecided = Undecided::bounded(keep, Clock::Tokio, registry, bounds);
        Scene { telemetry, undecided }
    }

    impl Scene {
        fn count(&self, outcome: &str) -> f64 {
            let page = crate::telemetry::Scrape::parse(&self.telemetry.sink().render());
            page.sum("apm_declined_traces_total", &[("outcome", outcome)]).unwrap()
        }

        fn is_empty(&self) -> bool {
            let held: usize = self.undecided.shards.iter().map(|shard| lock(shard).held.len()).sum();
            let counted = self.undecided.traces.load(Ordering::Relaxed);
            (held, counted, self.undecided.bytes.load(Ordering::Relaxed)) == (0, 0, 0)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_anywhere_or_a_slow_root_keeps_the_whole_trace() {
        let scene = scene(BOTH, Bounds::default());
        let slow = |trace| span(trace, 0, Status::Ok, Duration::from_secs(3));
        let cases = [
            (1, vec![fine(1, 9), fine(1, 0)], 0, None),
            (2, vec![broken(2, 9), fine(2, 0)], 2, Some("error")),
            (3, vec![fine(3, 9), broken(3, 0)], 2, Some("error")),
            (4, vec![fine(4, 9), slow(4)], 2, Some("slow")),
        ];
        for (trace, spans, exported, why) in cases {
            assert!(scene.undecided.admit(TraceId::from(trace)));
            let out: Vec<_> = spans.into_iter().flat_map(|span| scene.undecided.ended(span)).collect();
            assert_eq!(out.len(), exported, "{trace}");
            let said = out.last().and_then(|root| root.attributes.last()).map(|pair| pair.value.to_string());
            assert_eq!(said.as_deref(), why);
        }
        let counts = ["kept_error", "kept_slow", "discarded"].map(|outcome| scene.count(outcome));
        assert_eq!(counts, [2.0, 1.0, 1.0]);
        assert!(scene.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_asked_for_is_kept() {
        for (keep, spans) in [
            (Keep { errors: false, ..BOTH }, broken(1, 0)),
            (Keep { slower_than: None, ..BOTH }, span(1, 0, Status::Ok, Duration::from_secs(9))),
        ] {
            let scene = scene(keep, Bounds::default());
            scene.undecided.admit(TraceId::from(1));
            assert!(scene.undecided.ended(spans).is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn spans_that_end_after_their_root_share_its_fate() {
        let scene = scene(BOTH, Bounds::default());
        for (trace, root, late) in [(1, broken(1, 0), 1), (2, fine(2, 0), 0)] {
            scene.undecided.admit(TraceId::from(trace));
            scene.undecided.ended(root);
            assert_eq!(scene.undecided.ended(fine(trace, 9)).len(), late);
            assert!(!scene.undecided.holds(TraceId::from(trace)));
        }
        assert!(scene.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_verdict_for_an_exemplar_stands() {
        let scene = scene(BOTH, Bounds::default());
        let id = TraceId::from(1);
        assert!(!scene.undecided.verdict(id, true, Duration::ZERO), "not held");
        scene.undecided.admit(id);
        assert!(scene.undecided.verdict(id, false, Duration::from_secs(3)));
        let kept = scene.undecided.ended(fine(1, 0));
        assert_eq!(kept.len(), 1, "although the two clocks disagree about how long it took");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_what_does_not_fit_is_counted() {
        let few = Bounds { traces: 2, spans_of_a_trace: 3, ..Bounds::default() };
        let scene = scene(BOTH, few);
        let admitted: Vec<_> = (1..=4).map(|trace| scene.undecided.admit(TraceId::from(trace))).collect();
        assert_eq!((admitted, scene.count("not_held")), (vec![true, true, false, false], 2.0));
        for _ in 0..5 {
            scene.undecided.ended(broken(1, 9));
            scene.undecided.ended(broken(3, 9));
        }
        assert_eq!(scene.undecided.ended(fine(1, 0)).len(), 4, "three and the root");
        let page = crate::telemetry::Scrape::parse(&scene.telemetry.sink().render());
        assert_eq!(page.sum("apm_spans_dropped_total", &[("reason", "trace_too_large")]), Some(2.0));
        assert!(scene.undecided.admit(TraceId::from(5)), "there is room again");

        let small = super::tests::scene(BOTH, Bounds { bytes: size(&fine(1, 9)), ..Bounds::default() });
        small.undecided.admit(TraceId::from(1));
        (0..3).for_each(|_| drop(small.undecided.ended(fine(1, 9))));
        assert_eq!(small.undecided.ended(broken(1, 0)).len(), 2, "one and the root");
        assert!(small.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trace_that_never_ends_is_forgotten() {
        let scene = scene(BOTH, Bounds { age: Duration::from_secs(10), ..Bounds::default() });
        scene.undecided.admit(TraceId::from(1));
        scene.undecided.ended(fine(1, 9));
        tokio::time::advance(Duration::from_secs(9)).await;
        scene.undecided.admit(TraceId::from(2));
        scene.undecided.sweep();
        assert_eq!(scene.count("expired"), 0.0);
        tokio::time::advance(Duration::from_secs(1)).await;
        scene.undecided.sweep();
        assert_eq!(scene.count("expired"), 1.0);
        assert!(!scene.undecided.holds(TraceId::from(1)) && scene.undecided.holds(TraceId::from(2)));
        assert!(scene.undecided.ended(broken(1, 0)).is_empty());
    }
}
