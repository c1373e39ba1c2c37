//! What travels with a request through every stage of a workflow.
//!
//! A [`Context`] says who asked (workflow, correlation, session and user id, tags, baggage), where the
//! work stands in a trace, how long it may take, and whether it should stop. It also carries the
//! [`Sink`] that stages report to and the [`State`] that they share. Cloning is cheap.
//!
//! ```
//! use std::time::Duration;
//! use throughline::Context;
//!
//! let cx = Context::builder().workflow_id("answer").tag("tier", "gold").time_limit(Duration::from_secs(30)).build();
//! let shorter = cx.with_time_limit(Duration::from_secs(5));
//! let longer = shorter.with_time_limit(Duration::from_secs(60));
//! assert_eq!(longer.deadline(), shorter.deadline(), "a deadline only ever shrinks");
//! assert_eq!(longer.tag("tier"), Some("gold"));
//! ```

mod state;
mod stop;

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use tokio::task::{unconstrained, yield_now};
use tokio::time::Instant;

use crate::error::{Error, Kind, Result};
use crate::propagation;
use crate::saga::Journal;
use crate::telemetry::{Anchor, Clock, Sink, Tick};
pub use state::State;
use stop::Stop;

/// Tags or baggage entries a context may hold; what comes after is left out.
const MAX_ENTRIES: usize = 64;

/// Identity, time limit, cancellation, trace and shared state of one request. Cheap to clone.
///
/// Its `Debug` form holds no ids of people and no values of tags or baggage.
#[derive(Clone)]
pub struct Context {
    request: Arc<Request>,
    /// Where it is not the request's: the copy that a branch works on.
    state: Option<Arc<State>>,
    span: SpanContext,
    anchor: Anchor,
    deadline: Option<Instant>,
    attempt: u32,
    /// Where it is not the request's: of a part that can be stopped by itself.
    stop: Option<Stop>,
    journal: Option<Journal>,
    expects_stream: bool,
}

#[derive(Default)]
struct Request {
    ids: Ids,
    tags: Named,
    baggage: Named,
    sink: Option<Sink>,
    /// What the first span of a new trace points at.
    link: Option<SpanContext>,
    upstream_nanos: AtomicU64,
    state: State,
    /// Made when somebody waits for it or gives it.
    stop: OnceLock<Stop>,
}

/// Texts by name, in no order: there are few, and mostly none.
#[derive(Clone, Default)]
struct Named(Vec<(String, String)>);

#[derive(Clone, Default)]
struct Ids {
    workflow: Option<String>,
    /// Made when it is first asked for, unless it was given.
    correlation: OnceLock<String>,
    session: Option<String>,
    user: Option<String>,
}

/// Builds a [`Context`].
#[derive(Default)]
#[must_use = "a builder does nothing until `build`"]
pub struct ContextBuilder {
    request: Request,
    span: Option<SpanContext>,
    limit: Option<Duration>,
}

// === impl Context ===

impl Context {
    /// A context with a correlation id of its own that reports to [`Sink::current`].
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Starts a context with more to say.
    pub fn builder() -> ContextBuilder {
        ContextBuilder::default()
    }

    /// The name of the workflow that this request runs, if it was given.
    #[must_use]
    pub fn workflow_id(&self) -> Option<&str> {
        self.request.ids.workflow.as_deref()
    }

    /// Ties together what belongs to one request, also across processes.
    #[must_use]
    pub fn correlation_id(&self) -> &str {
        self.request.ids.correlation.get_or_init(|| format!("{:032x}", fastrand::u128(..)))
    }

    /// The session, if it was given.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.request.ids.session.as_deref()
    }

    /// The user, if it was given. Never a metric label.
    #[must_use]
    pub fn user_id(&self) -> Option<&str> {
        self.request.ids.user.as_deref()
    }

    /// The tag called `name`.
    #[must_use]
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.request.tags.get(name)
    }

    /// The baggage entry called `name`.
    #[must_use]
    pub fn baggage(&self, name: &str) -> Option<&str> {
        self.request.baggage.get(name)
    }

    /// What stages of this request share.
    #[must_use]
    pub fn state(&self) -> &State {
        self.state.as_deref().unwrap_or(&self.request.state)
    }

    /// Where stages of this request report to.
    #[must_use]
    #[inline]
    pub fn sink(&self) -> &Sink {
        self.request.sink.as_ref().expect("a built context has a sink")
    }

    /// The clock of this request's telemetry.
    #[must_use]
    #[inline]
    pub fn clock(&self) -> Clock {
        self.sink().clock()
    }

    /// The trace this request belongs to, if it has one.
    #[must_use]
    pub fn trace_id(&self) -> Option<TraceId> {
        self.span.is_valid().then(|| self.span.trace_id())
    }

    /// The span that is open now.
    #[must_use]
    #[inline]
    pub fn span(&self) -> &SpanContext {
        &self.span
    }

    /// The W3C `traceparent` to send along with a call made now.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        propagation::traceparent(&self.span)
    }

    /// What a span that begins a trace here points at: the caller's span, where it is not continued.
    pub(crate) fn link(&self) -> Option<&SpanContext> {
        self.request.link.as_ref().filter(|_| !self.span.is_valid())
    }

    /// Whether the caller has asked for a stream, so that its first item can be waited for from the start.
    #[must_use]
    pub fn expects_stream(&self) -> bool {
        self.expects_stream
    }

    /// When the work must be done.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// What is left until the deadline; zero when it has passed.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether `time` is over before the deadline: only then is it worth waiting that long.
    #[must_use]
    pub fn fits(&self, time: Duration) -> bool {
        self.deadline.is_none_or(|end| Instant::now().checked_add(time).is_some_and(|then| then < end))
    }

    /// Waits for `work`, but no longer than until the deadline or until the work is asked to stop.
    ///
    /// # Errors
    /// [`Kind::Timeout`] at the deadline, [`Kind::Cancelled`] when it is asked to stop.
    pub async fn while_wanted<F: Future>(&self, work: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            output = work => Ok(output),
            () = self.cancelled() => Err(Error::new(Kind::Cancelled, "the work was asked to stop")),
            () = until(self.deadline) => Err(Error::new(Kind::Timeout, "the deadline passed while waiting")),
        }
    }

    /// Waits for `time`.
    ///
    /// # Errors
    /// At once with [`Kind::Timeout`] when the deadline comes first, and with [`Kind::Cancelled`] when the
    /// work is asked to stop.
    pub async fn sleep(&self, time: Duration) -> Result<()> {
        if !self.fits(time) {
            let left = self.time_left().unwrap_or_default();
            return Err(Error::new(Kind::Timeout, format!("{left:?} are left, too little to wait {time:?}")));
        }
        let pause = async {
            // A timer of nothing would take up to a millisecond.
            match time.is_zero() {
                true => yield_now().await,
                false => tokio::time::sleep(time).await,
            }
        };
        self.while_wanted(pause).await
    }

    /// Which attempt this is of the nearest [`Workflow::retry`](crate::Workflow::retry) around the work, or
    /// of the compensation that it is part of, from 1; 1 where there is neither. It is said here and not in
    /// [`Context::state`], which attempts that run side by side would overwrite.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Whether the work was asked to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let stop = self.stop.as_ref().or_else(|| self.request.stop.get());
        stop.is_some_and(Stop::is_given)
    }

    /// Completes when the work is asked to stop.
    pub async fn cancelled(&self) {
        self.stop_signal().given().await;
    }

    /// The same request, of which the caller wants a stream.
    #[must_use]
    pub fn expecting_stream(&self) -> Self {
        Self { expects_stream: true, ..self.clone() }
    }

    /// The same request, to be done within `limit` from now, or earlier if it already had to be.
    #[must_use]
    pub fn with_time_limit(&self, limit: Duration) -> Self {
        let mut cx = self.clone();
        cx.shrink(limit);
        cx
    }

    /// The same request, to be done by `end` or earlier, with a stop signal of its own: it stops with this one
    /// and by [`Context::stop`].
    pub(crate) fn bounded(&self, end: Instant) -> Self {
        let deadline = Some(self.deadline.map_or(end, |old| old.min(end)));
        Self { stop: Some(self.stop_signal().inner()), deadline, ..self.clone() }
    }

    /// Asks the work to stop.
    pub(crate) fn stop(&self) {
        self.stop_signal().give();
    }

    fn stop_signal(&self) -> &Stop {
        self.stop.as_ref().unwrap_or_else(|| self.request.stop.get_or_init(Stop::default))
    }

    /// The same request on a copy of the state.
    pub(crate) fn fork(&self) -> Self {
        Self { state: Some(Arc::new(self.state().fork())), ..self.clone() }
    }

    /// The same identity and trace, for work that goes on after the caller is answered: it has no
    /// deadline, is not stopped with the caller, belongs to no saga, and shares no state and no time account
    /// with it.
    #[must_use]
    pub fn detach(&self) -> Self {
        // Both sides have the same one from here on.
        let _ = self.correlation_id();
        let request = Request {
            ids: self.request.ids.clone(),
            tags: self.request.tags.clone(),
            baggage: self.request.baggage.clone(),
            sink: self.request.sink.clone(),
            link: self.request.link.clone(),
            ..Request::default()
        };
        Self {
            request: Arc::new(request),
            state: None,
            span: self.span.clone(),
            anchor: self.anchor,
            deadline: None,
            attempt: 1,
            stop: None,
            journal: None,
            expects_stream: self.expects_stream,
        }
    }

    /// What the saga around this work undoes if it fails.
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    pub(crate) fn with_journal(&self, journal: Journal) -> Self {
        Self { journal: Some(journal), ..self.clone() }
    }

    pub(crate) fn with_attempt(&self, attempt: u32) -> Self {
        Self { attempt, ..self.clone() }
    }

    /// The time of day by which the spans of this trace are dated.
    pub(crate) fn anchor(&self) -> Anchor {
        self.anchor
    }

    pub(crate) fn with_span(&self, span: SpanContext, anchor: Anchor) -> Self {
        // Field by field: a clone would copy the span that is replaced.
        Self {
            request: Arc::clone(&self.request),
            state: self.state.clone(),
            span,
            anchor,
            deadline: self.deadline,
            attempt: self.attempt,
            stop: self.stop.clone(),
            journal: self.journal.clone(),
            expects_stream: self.expects_stream,
        }
    }

    /// Time that calls to other services took, summed over this request.
    #[must_use]
    pub fn upstream_time(&self) -> Duration {
        Duration::from_nanos(self.request.upstream_nanos.load(Ordering::Relaxed))
    }

    /// Waits for somebody else: the time counts as [`Context::upstream_time`] and not as this program's own,
    /// also when the wait is dropped.
    pub async fn elsewhere<F: Future>(&self, work: F) -> F::Output {
        let _wait = Elsewhere { cx: self, since: self.clock().now() };
        work.await
    }

    pub(crate) fn add_upstream_time(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.request.upstream_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn shrink(&mut self, limit: Duration) {
        if let Some(end) = Instant::now().checked_add(limit) {
            self.deadline = Some(self.deadline.map_or(end, |old| old.min(end)));
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("workflow", &self.workflow_id())
            .field("correlation", &self.correlation_id())
            .field("trace", &self.trace_id())
            .field("time_left", &self.time_left())
            .finish_non_exhaustive()
    }
}

impl Default for Context {
    fn default() -> Self {
        Self::new()
    }
}

/// A wait for somebody else that is under way.
struct Elsewhere<'a> {
    cx: &'a Context,
    since: Tick,
}

impl Drop for Elsewhere<'_> {
    fn drop(&mut self) {
        self.cx.add_upstream_time(self.cx.clock().now().since(self.since));
    }
}

// === impl ContextBuilder ===

impl fmt::Debug for ContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContextBuilder").finish_non_exhaustive()
    }
}

impl ContextBuilder {
    /// The name of the workflow. Default: none.
    pub fn workflow_id(mut self, id: impl Into<String>) -> Self {
        self.request.ids.workflow = Some(id.into());
        self
    }

    /// Ties this request to others. Default: a random one.
    pub fn correlation_id(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.request.ids.correlation = if id.is_empty() { OnceLock::new() } else { id.into() };
        self
    }

    /// The session. Default: none.
    pub fn session_id(mut self, id: impl Into<String>) -> Self {
        self.request.ids.session = Some(id.into());
        self
    }

    /// The user. Default: none.
    pub fn user_id(mut self, id: impl Into<String>) -> Self {
        self.request.ids.user = Some(id.into());
        self
    }

    /// Adds a tag; at most 64 are kept. Default: none.
    pub fn tag(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.tags.keep(name.into(), value.into());
        self
    }

    /// Adds a baggage entry; at most 64 are kept. Default: none.
    pub fn baggage(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.baggage.keep(name.into(), value.into());
        self
    }

    /// Continues the trace of a W3C `traceparent` and `tracestate`; malformed ones start a new trace.
    /// Default: a new trace.
    pub fn trace_parent(mut self, traceparent: &str, tracestate: Option<&str>) -> Self {
        self.span = propagation::trace_context([traceparent], tracestate);
        self
    }

    /// Continues the trace of `span`, such as [`propagation::trace_context`] reads it from headers. One that is not
    /// valid starts a new trace. Default: a new trace.
    pub fn parent(mut self, span: SpanContext) -> Self {
        self.span = Some(span).filter(SpanContext::is_valid);
        self
    }

    /// Starts a new trace whose first span points at `caller`, for callers that are not to decide which trace this
    /// is and whether it is recorded. It says nothing where a trace is continued. Default: none.
    pub fn link(mut self, caller: SpanContext) -> Self {
        self.request.link = Some(caller).filter(SpanContext::is_valid);
        self
    }

    /// Gives the request a trace id even where nothing records it, unless it continues a trace.
    pub fn new_trace(mut self) -> Self {
        if self.span.is_none() {
            let trace = TraceId::from(fastrand::u128(1..));
            let span = SpanId::from(fastrand::u64(1..));
            self.span = Some(SpanContext::new(trace, span, TraceFlags::NOT_SAMPLED, false, TraceState::NONE));
        }
        self
    }

    /// The work must be done within `limit` from the moment of `build`. Default: no deadline.
    pub fn time_limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Where stages report to. Default: [`Sink::current`].
    pub fn sink(mut self, sink: &Sink) -> Self {
        self.request.sink = Some(sink.clone());
        self
    }

    /// The context.
    #[must_use]
    pub fn build(mut self) -> Context {
        self.request.sink.get_or_insert_with(Sink::current);
        let mut cx = Context {
            request: Arc::new(self.request),
            state: None,
            span: self.span.unwrap_or(SpanContext::NONE),
            anchor: Anchor::NONE,
            deadline: None,
            attempt: 1,
            stop: None,
            journal: None,
            expects_stream: false,
        };
        if let Some(limit) = self.limit {
            cx.shrink(limit);
        }
        cx
    }
}

/// Waits until `end`, or for ever where there is none.
///
/// It does not take part in tokio's budget: work at its side that uses the budget up in every turn, such as
/// reading from a peer that sends without a pause, would keep it from ever ending.
pub(crate) async fn until(end: Option<Instant>) {
    match end {
        Some(end) => unconstrained(tokio::time::sleep_until(end)).await,
        None => std::future::pending().await,
    }
}

// === impl Named ===

impl Named {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn keep(&mut self, name: String, value: String) {
        let has_room = self.0.len() < MAX_ENTRIES;
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None if has_room => self.0.push((name, value)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continues_a_well_formed_trace_and_its_sampling_flag() {
        let header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
        let cx = Context::builder().trace_parent(header, None).new_trace().build();
        assert_eq!(cx.traceparent().as_deref(), Some(header), "the flag is inherited, not set");
    }

    #[test]
    fn starts_anew_where_the_parent_is_malformed() {
        for header in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            let cx = Context::builder().trace_parent(header, None).build();
            assert_eq!(cx.trace_id(), None, "{header}");
        }
    }

    #[test]
    fn every_request_has_a_correlation_id_of_its_own() {
        assert_ne!(Context::new().correlation_id(), Context::new().correlation_id());
        let cx = Context::builder().correlation_id("c-1").build();
        assert_eq!(cx.fork().detach().correlation_id(), "c-1");
    }

    #[test]
    fn state_is_shared_along_a_pipe_and_forked_per_branch() {
        let cx = Context::new();
        cx.state().update::<u32>(|count| *count += 1);
        let later = cx.clone();
        later.state().update::<u32>(|count| *count += 1);
        let branch = cx.fork();
        branch.state().update::<u32>(|count| *count += 10);
        assert_eq!(cx.state().get::<u32>().as_deref(), Some(&2));
        assert_eq!(branch.state().get::<u32>().as_deref(), Some(&12));
    }

    #[test]
    fn a_fork_hands_back_what_it_has_changed_and_nothing_else() {
        let cx = Context::new();
        cx.state().insert("kept");
        cx.state().insert(1_u32);
        let base = cx.fork();
        let branch = base.fork();
        branch.state().insert(2_u32);
        branch.state().insert(3_u64);
        cx.state().insert("written meanwhile");
        cx.state().adopt(branch.state(), base.state());
        assert_eq!(cx.state().get::<&str>().as_deref(), Some(&"written meanwhile"));
        assert_eq!(cx.state().get::<u32>().as_deref(), Some(&2));
        assert_eq!(cx.state().get::<u64>().as_deref(), Some(&3));
    }

    #[test]
    fn holds_a_bounded_number_of_tags() {
        let builder = (0..100).fold(Context::builder(), |b, n| b.tag(format!("t{n}"), "x"));
        assert_eq!(builder.build().request.tags.0.len(), MAX_ENTRIES);
    }

    #[tokio::test(start_paused = true)]
    async fn bounded_work_stops_by_itself() {
        let outer = Context::new();
        let inner = outer.bounded(Instant::now() + Duration::from_secs(1));
        inner.stop();
        assert!(inner.is_cancelled());
        assert!(!outer.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_of_no_time_takes_none() {
        let cx = Context::new();
        let start = Instant::now();
        cx.sleep(Duration::ZERO).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO, "a timer would end with the next millisecond");
        let late = Context::new().with_time_limit(Duration::ZERO);
        assert_eq!(late.sleep(Duration::ZERO).await.unwrap_err().kind(), Kind::Timeout);
    }
}
