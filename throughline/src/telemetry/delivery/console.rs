//! Spans as lines of text, for people at a terminal.

use std::fmt::Write as _;

use opentelemetry::trace::Status;

use super::super::span::Record;

/// A line a span.
pub(super) fn lines(batch: &[Box<Record>]) -> String {
    batch.iter().fold(String::new(), |mut lines, span| {
        line(&mut lines, span);
        lines
    })
}

fn line(out: &mut String, span: &Record) {
    let took = span.took();
    let status = match &span.status {
        Status::Error { description } => format!("error({description})"),
        Status::Ok => "ok".to_owned(),
        Status::Unset => "unset".to_owned(),
    };
    let ids = (span.context.trace_id(), span.context.span_id(), span.parent);
    write!(
        out,
        "span {} {took:?} {status} trace={} span={} parent={}",
        span.outline.name, ids.0, ids.1, ids.2
    )
    .expect("writing to a string cannot fail");
    for attribute in span.all_attributes() {
        write!(out, " {}={}", attribute.key, attribute.value).expect("writing to a string cannot fail");
    }
    out.push('\n');
}
