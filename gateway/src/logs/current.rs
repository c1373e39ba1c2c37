//! The trace that the code is working for, so that lines from deep inside carry its ids.
//!
//! A task-local: it costs a few nanoseconds a request, where a `tracing` span costs a third of a microsecond
//! ([ADR 19](../../../docs/adr/0019-log-lines-on-a-thread-of-their-own.md)). What a request spawns as tasks of its own is outside of it.

use std::future::Future;

use opentelemetry::trace::{SpanContext, SpanId, TraceId};

tokio::task_local! {
    static CURRENT: Option<(TraceId, SpanId)>;
}

fn of(span: &SpanContext) -> Option<(TraceId, SpanId)> {
    span.is_valid().then(|| (span.trace_id(), span.span_id()))
}

/// `work`, done for the request that `span` is open for.
pub(crate) fn within<F: Future>(span: &SpanContext, work: F) -> impl Future<Output = F::Output> + use<F> {
    CURRENT.scope(of(span), work)
}

/// As [`within`], for work that does not wait.
pub(crate) fn within_now<T>(span: &SpanContext, work: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(of(span), work)
}

/// The ids of the trace and the span that are worked for.
pub(super) fn ids() -> Option<(TraceId, SpanId)> {
    CURRENT.try_with(|ids| *ids).ok().flatten()
}
