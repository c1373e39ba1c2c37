//! The port that stages report to.
//!
//! A [`Sink`] is what a running stage needs of telemetry: a clock, the metrics, a tracer. It travels in
//! the [`Context`](crate::Context), so a primitive is bound to telemetry when it runs and not when it is
//! built, and several telemetry instances live side by side in one process.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};

use arc_swap::ArcSwap;

use super::clock::Clock;
use super::delivery::{Events, Undecided};
use super::registry::Registry;
use super::semconv::Semconv;
use super::settings::Settings;
use super::tracer::Tracer;
use crate::propagation::Propagators;
use crate::redact::Redactor;

/// Where stages report what they did. Cheap to clone.
#[derive(Clone)]
pub struct Sink(Arc<Inner>);

struct Inner {
    id: u64,
    clock: Clock,
    propagators: Propagators,
    on: Option<On>,
}

struct On {
    registry: Registry,
    tracer: Option<Tracer>,
    undecided: Option<Arc<Undecided>>,
    events: Option<Events>,
    /// Whether the sampler does as a remote parent says.
    follows_parent: bool,
    exemplars: bool,
    redactor: OnceLock<Redactor>,
}

static OFF: LazyLock<Sink> = LazyLock::new(|| Sink::without_telemetry(Clock::default()));
static CURRENT: LazyLock<ArcSwap<Inner>> = LazyLock::new(|| ArcSwap::new(Arc::clone(&OFF.0)));

// === impl Sink ===

impl Sink {
    pub(super) fn new(
        settings: &Settings,
        clock: Clock,
        registry: Registry,
        tracer: Option<Tracer>,
        undecided: Option<Arc<Undecided>>,
        events: Option<Events>,
    ) -> Self {
        let exemplars = settings.exemplars;
        let follows_parent = settings.delivery.head.by_parent();
        let redactor = OnceLock::new();
        let on = On { registry, tracer, undecided, events, follows_parent, exemplars, redactor };
        Self::of(clock, settings.propagators, Some(on))
    }

    /// A sink that records nothing but still tells the time by `clock`.
    #[must_use]
    pub fn without_telemetry(clock: Clock) -> Self {
        Self::off(clock, Propagators::default())
    }

    /// As [`Sink::without_telemetry`]: what is said to and by others stays the same when nothing is recorded.
    pub(super) fn off(clock: Clock, propagators: Propagators) -> Self {
        Self::of(clock, propagators, None)
    }

    fn of(clock: Clock, propagators: Propagators, on: Option<On>) -> Self {
        Self(Arc::new(Inner { id: next_id(), clock, propagators, on }))
    }

    /// The sink that new contexts report to: that of the telemetry initialised last, or none.
    #[must_use]
    pub fn current() -> Self {
        Self(CURRENT.load_full())
    }

    pub(super) fn make_current(&self) {
        CURRENT.store(Arc::clone(&self.0));
    }

    /// New contexts report nowhere, unless another instance has taken over since.
    pub(super) fn retire(&self) {
        let current = CURRENT.load_full();
        if current.id == self.0.id {
            CURRENT.compare_and_swap(&current, Arc::clone(&OFF.0));
        }
    }

    /// Tells one telemetry instance from another.
    #[must_use]
    #[inline]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The clock of this instance.
    #[must_use]
    #[inline]
    pub fn clock(&self) -> Clock {
        self.0.clock
    }

    /// The metrics, unless telemetry is off.
    #[must_use]
    #[inline]
    pub fn registry(&self) -> Option<&Registry> {
        self.0.on.as_ref().map(|on| &on.registry)
    }

    /// Whether spans go anywhere.
    #[must_use]
    pub fn traces(&self) -> bool {
        self.tracer().is_some()
    }

    /// Which headers of a caller's trace are to be read, and written to others.
    #[must_use]
    pub fn propagators(&self) -> Propagators {
        self.0.propagators
    }

    /// Whether histograms may show traces beside what they count.
    #[must_use]
    #[inline]
    pub fn exemplars(&self) -> bool {
        self.0.on.as_ref().is_some_and(|on| on.exemplars)
    }

    /// What of the GenAI conventions this instance follows.
    #[must_use]
    #[inline]
    pub fn semconv(&self) -> Semconv {
        self.registry().map(Registry::semconv).unwrap_or_default()
    }

    /// A redactor that counts in these metrics, if they are on.
    #[must_use]
    pub fn redactor(&self) -> Redactor {
        let made = |on: &On| on.redactor.get_or_init(|| Redactor::standard().counted(&on.registry)).clone();
        self.0.on.as_ref().map(made).unwrap_or_default()
    }

    #[inline]
    pub(super) fn tracer(&self) -> Option<&Tracer> {
        self.0.on.as_ref().and_then(|on| on.tracer.as_ref())
    }

    /// Where traces are held that the sampler declined, if they are.
    #[inline]
    pub(super) fn follows_parent(&self) -> bool {
        self.0.on.as_ref().is_none_or(|on| on.follows_parent)
    }

    /// Where events go, if they go anywhere.
    pub(super) fn events(&self) -> Option<&Events> {
        self.0.on.as_ref().and_then(|on| on.events.as_ref())
    }

    pub(super) fn undecided(&self) -> Option<&Undecided> {
        self.0.on.as_ref().and_then(|on| on.undecided.as_deref())
    }

    /// Everything recorded so far in the OpenMetrics text format; empty when telemetry is off.
    #[must_use]
    pub fn render(&self) -> String {
        self.registry().map(Registry::render).unwrap_or_default()
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tracing = self.tracer().is_some();
        f.debug_struct("Sink").field("on", &self.0.on.is_some()).field("traces", &tracing).finish()
    }
}

fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
