//! The sampler while traces are kept after the fact: what the head declines is recorded where it is held.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt as _, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

use super::undecided::Undecided;

/// Samples as the head says, and records what is held.
#[derive(Clone, Debug)]
pub(super) struct Tail {
    pub(super) head: Sampler,
    pub(super) undecided: Arc<Undecided>,
}

// === impl Tail ===

impl ShouldSample for Tail {
    fn should_sample(
        &self,
        parent: Option<&opentelemetry::Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let head = self.head.should_sample(parent, trace, name, kind, attributes, links);
        if head.decision != SamplingDecision::Drop {
            return head;
        }
        let parent = parent.map_or(SpanContext::NONE, |parent| parent.span().span_context().clone());
        let held = self.undecided.takes(&parent, trace);
        let decision = if held { SamplingDecision::RecordOnly } else { SamplingDecision::Drop };
        SamplingResult { decision, ..head }
    }
}
