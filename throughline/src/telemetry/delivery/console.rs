//! Spans as lines of text, for people at a terminal.

use std::fmt::Write as _;
use std::sync::Arc;

use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;

/// A line a span.
pub(super) fn lines(batch: &[Arc<SpanData>]) -> String {
    batch.iter().fold(String::new(), |mut lines, span| {
        line(&mut lines, span);
        lines
    })
}

fn line(out: &mut String, span: &SpanData) {
    let took = span.end_time.duration_since(span.start_time).unwrap_or_default();
    let status = match &span.status {
        Status::Error { description } => format!("error({description})"),
        Status::Ok => "ok".to_owned(),
        Status::Unset => "unset".to_owned(),
    };
    let ids = (span.span_context.trace_id(), span.span_context.span_id(), span.parent_span_id);
    write!(out, "span {} {took:?} {status} trace={} span={} parent={}", span.name, ids.0, ids.1, ids.2)
        .expect("writing to a string cannot fail");
    for attribute in &span.attributes {
        write!(out, " {}={}", attribute.key, attribute.value).expect("writing to a string cannot fail");
    }
    out.push('\n');
}
