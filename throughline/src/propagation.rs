//! What a caller says of its trace: W3C Trace Context and W3C Baggage, read strictly.
//!
//! Give the values of the headers, as they came, to [`trace_context`] and [`baggage`], and what they answer to
//! [`ContextBuilder::parent`](crate::context::ContextBuilder::parent) (continue the caller's trace),
//! [`ContextBuilder::link`](crate::context::ContextBuilder::link) (start a trace that points at it) and
//! [`ContextBuilder::baggage`](crate::context::ContextBuilder::baggage). Which of them are wanted at all says
//! [`Sink::propagators`](crate::telemetry::Sink::propagators).
//!
//! ```
//! use throughline::{Context, propagation};
//!
//! let caller = propagation::trace_context(
//!     ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
//!     ["vendor=1", "other=2"],
//! );
//! let cx = Context::builder().parent(caller.expect("it is well formed")).build();
//! assert_eq!(cx.trace_id().unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
//! assert_eq!(propagation::baggage(["shop=7,who=caf%C3%A9;kind=x"])[1].1, "café");
//! ```
//!
//! Do not believe strangers: who may write these headers can join any trace, have it recorded and name what it likes.
//! What is malformed is left out and is never an error.

mod baggage;
mod traceparent;
mod tracestate;

use opentelemetry::trace::SpanContext;

pub use baggage::{MAX_BYTES, MAX_MEMBERS, parse as baggage};

/// Which of a caller's headers are read, and which are written. Default: all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Propagators {
    /// `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// `baggage`.
    pub baggage: bool,
}

/// The span of the caller, by all the values of its `traceparent` and `tracestate` headers.
///
/// `None` when there is no `traceparent`, more than one, or a malformed one; `tracestate` counts for nothing then. A
/// malformed `tracestate` is left out alone.
pub fn trace_context<P: AsRef<[u8]>, S: AsRef<[u8]>>(
    traceparent: impl IntoIterator<Item = P>,
    tracestate: impl IntoIterator<Item = S>,
) -> Option<SpanContext> {
    let mut parents = traceparent.into_iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let (trace, span, flags) = traceparent::parse(parent.as_ref())?;
    Some(SpanContext::new(trace, span, flags, true, tracestate::parse(tracestate)))
}

/// The `traceparent` that says that `span` is the caller; `None` for one that is not valid.
#[must_use]
pub fn traceparent(span: &SpanContext) -> Option<String> {
    span.is_valid().then(|| traceparent::write(span))
}

// === impl Propagators ===

impl Propagators {
    /// None of them.
    pub const NONE: Self = Self { trace_context: false, baggage: false };
}

impl Default for Propagators {
    fn default() -> Self {
        Self { trace_context: true, baggage: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn several_parents_are_none() {
        assert!(trace_context([PARENT], [""; 0]).is_some());
        assert_eq!(trace_context([PARENT, PARENT], ["a=1"]), None);
        assert_eq!(trace_context([""; 0], ["a=1"]), None);
        let joined = format!("{PARENT},{PARENT}");
        assert_eq!(trace_context([joined.as_str()], [""; 0]), None, "some servers join them");
        let newer = joined.replace("00-", "01-");
        assert_eq!(trace_context([newer.as_str()], [""; 0]), None, "of whichever version");
    }

    #[test]
    fn a_malformed_state_costs_the_state_and_a_malformed_parent_costs_both() {
        let caller = trace_context([PARENT], ["a=1", "b=2"]).unwrap();
        assert_eq!(caller.trace_state().header(), "a=1,b=2");
        assert!(caller.is_remote());
        let stateless = trace_context([PARENT], ["A=1"]).unwrap();
        assert_eq!(stateless.trace_state().header(), "");
        assert_eq!(trace_context(["00-nonsense-01"], ["a=1"]), None);
    }

    #[test]
    fn what_is_no_span_is_not_written() {
        assert_eq!(traceparent(&SpanContext::NONE), None);
        let caller = trace_context([PARENT], [""; 0]).unwrap();
        assert_eq!(traceparent(&caller).as_deref(), Some(PARENT));
    }
}
