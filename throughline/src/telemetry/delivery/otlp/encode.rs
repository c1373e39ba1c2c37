//! Spans as OTLP's protobuf, written in one pass from where they are.
//!
//! By hand, since the types of `opentelemetry-proto` copy every key and text of a span before they write it, which
//! costs several times as much as the writing. A property test holds what is written against those types. Field
//! numbers: `opentelemetry/proto/trace/v1/trace.proto`, `common/v1/common.proto`.

use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{Array, InstrumentationScope, KeyValue, Value};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope as Scope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::trace::SpanData;
use prost::Message;
use prost::encoding::encode_varint;

/// How a value follows its field's number.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// Flags of a span and a link: whether it is known that their context came from elsewhere, and that it did.
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// The `ExportTraceServiceRequest` that carries `batch`.
pub(super) fn request(batch: &[Arc<SpanData>], resource: &ResourceAttributesWithSchema) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 768 * batch.len());
    message(&mut out, 1, |out| {
        let attributes = resource.attributes.0.clone();
        let sent = Resource { attributes, dropped_attributes_count: 0, entity_refs: Vec::new() };
        message(out, 1, |out| foreign(out, &sent));
        for (scope, spans) in by_scope(batch) {
            message(out, 2, |out| of_scope(out, scope, &spans));
        }
        text(out, 3, resource.schema_url.as_deref().unwrap_or_default());
    });
    out
}

/// The spans of each library, in the order in which their first ones stand.
fn by_scope(batch: &[Arc<SpanData>]) -> Vec<(&InstrumentationScope, Vec<&SpanData>)> {
    let mut groups: Vec<(&InstrumentationScope, Vec<&SpanData>)> = Vec::new();
    for span in batch {
        let scope = &span.instrumentation_scope;
        match groups.iter_mut().find(|(known, _)| *known == scope) {
            Some((_, spans)) => spans.push(span),
            None => groups.push((scope, vec![span])),
        }
    }
    groups
}

fn of_scope(out: &mut Vec<u8>, scope: &InstrumentationScope, spans: &[&SpanData]) {
    message(out, 1, |out| foreign(out, &Scope::from((scope, None))));
    for span in spans {
        message(out, 2, |out| one(out, span));
    }
    text(out, 3, scope.schema_url().unwrap_or_default());
}

/// What there is one of in a batch: those types may write it.
fn foreign<M: Message>(out: &mut Vec<u8>, message: &M) {
    message.encode(out).expect("a vector grows");
}

fn one(out: &mut Vec<u8>, span: &SpanData) {
    let context = &span.span_context;
    ids(out, context);
    if span.parent_span_id != SpanId::INVALID {
        bytes(out, 4, &span.parent_span_id.to_bytes());
    }
    text(out, 5, &span.name);
    number(out, 6, kind(&span.span_kind));
    fixed64(out, 7, nanoseconds(span.start_time));
    fixed64(out, 8, nanoseconds(span.end_time));
    attributes(out, 9, &span.attributes);
    number(out, 10, span.dropped_attributes_count.into());
    for event in &span.events.events {
        message(out, 11, |out| {
            fixed64(out, 1, nanoseconds(event.timestamp));
            text(out, 2, &event.name);
            attributes(out, 3, &event.attributes);
            number(out, 4, event.dropped_attributes_count.into());
        });
    }
    number(out, 12, span.events.dropped_count.into());
    for link in &span.links.links {
        message(out, 13, |out| linked(out, link));
    }
    number(out, 14, span.links.dropped_count.into());
    message(out, 15, |out| match &span.status {
        Status::Unset => {}
        Status::Ok => number(out, 3, 1),
        Status::Error { description } => {
            text(out, 2, description);
            number(out, 3, 2);
        }
    });
    flags(out, 16, context, span.parent_span_is_remote);
}

fn linked(out: &mut Vec<u8>, link: &Link) {
    ids(out, &link.span_context);
    attributes(out, 4, &link.attributes);
    number(out, 5, link.dropped_attributes_count.into());
    flags(out, 6, &link.span_context, link.span_context.is_remote());
}

/// The first three fields of a span and of a link.
fn ids(out: &mut Vec<u8>, context: &SpanContext) {
    bytes(out, 1, &context.trace_id().to_bytes());
    bytes(out, 2, &context.span_id().to_bytes());
    let state = context.trace_state();
    if *state != opentelemetry::trace::TraceState::NONE {
        text(out, 3, &state.header());
    }
}

fn flags(out: &mut Vec<u8>, field: u32, context: &SpanContext, remote: bool) {
    let flags = u32::from(context.trace_flags().to_u8()) | REMOTE_KNOWN | if remote { REMOTE } else { 0 };
    tag(out, field, FIXED32);
    out.extend_from_slice(&flags.to_le_bytes());
}

fn kind(kind: &SpanKind) -> u64 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attributes(out: &mut Vec<u8>, field: u32, attributes: &[KeyValue]) {
    for attribute in attributes {
        message(out, field, |out| {
            text(out, 1, attribute.key.as_str());
            message(out, 2, |out| value(out, &attribute.value));
        });
    }
}

/// An `AnyValue`. What is one of several is written also when it is empty or zero.
fn value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::String(text) => bytes(out, 1, text.as_str().as_bytes()),
        Value::Bool(value) => yes_or_no(out, *value),
        Value::I64(value) => integer(out, *value),
        Value::F64(value) => fraction(out, *value),
        Value::Array(array) => message(out, 5, |out| match array {
            Array::Bool(values) => each(out, values, |out, value| yes_or_no(out, *value)),
            Array::I64(values) => each(out, values, |out, value| integer(out, *value)),
            Array::F64(values) => each(out, values, |out, value| fraction(out, *value)),
            Array::String(values) => each(out, values, |out, text| bytes(out, 1, text.as_str().as_bytes())),
            // A kind that this version of the API does not have.
            _ => {}
        }),
        _ => {}
    }
}

fn each<T>(out: &mut Vec<u8>, values: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    for value in values {
        message(out, 1, |out| write(out, value));
    }
}

fn yes_or_no(out: &mut Vec<u8>, value: bool) {
    tag(out, 2, VARINT);
    out.push(value.into());
}

fn integer(out: &mut Vec<u8>, value: i64) {
    tag(out, 3, VARINT);
    encode_varint(value.cast_unsigned(), out);
}

fn fraction(out: &mut Vec<u8>, value: f64) {
    tag(out, 4, FIXED64);
    out.extend_from_slice(&value.to_le_bytes());
}

/// A message within a message. Its length stands in front of it and is known behind it: one byte is left free, and what
/// is longer moves on.
fn message(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    tag(out, field, DELIMITED);
    let start = out.len() + 1;
    out.push(0);
    write(out);
    let length = out.len() - start;
    match u8::try_from(length) {
        Ok(short @ ..0x80) => out[start - 1] = short,
        _ => {
            let mut written = [0; 10];
            let mut free = &mut written[..];
            encode_varint(length as u64, &mut free);
            let used = 10 - free.len();
            out.splice(start - 1..start, written.into_iter().take(used));
        }
    }
}

fn text(out: &mut Vec<u8>, field: u32, text: &str) {
    if !text.is_empty() {
        bytes(out, field, text.as_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    tag(out, field, DELIMITED);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, VARINT);
        encode_varint(value, out);
    }
}

fn fixed64(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        tag(out, field, FIXED64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

fn tag(out: &mut Vec<u8>, field: u32, wire: u8) {
    encode_varint(u64::from(field << 3 | u32::from(wire)), out);
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::time::Duration;

    use opentelemetry::trace::{Event, TraceFlags, TraceId, TraceState};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let number = prop_oneof![any::<f64>().prop_filter("comparable", |v| !v.is_nan()), Just(0.0)];
        prop_oneof![
            ".{0,200}".prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            prop_oneof![any::<i64>(), -3_i64..3].prop_map(Value::from),
            number.prop_map(Value::from),
            vec(any::<bool>(), 0..4).prop_map(|values| Value::Array(Array::Bool(values))),
            vec(any::<i64>(), 0..4).prop_map(|values| Value::Array(Array::I64(values))),
            vec(-1e9..1e9, 0..4).prop_map(|values| Value::Array(Array::F64(values))),
            vec(".{0,9}", 0..4).prop_map(|values| {
                Value::Array(Array::String(values.into_iter().map(Into::into).collect()))
            }),
        ]
    }

    fn any_attributes() -> impl Strategy<Value = Vec<KeyValue>> {
        vec(("[a-z.]{0,20}", any_value()).prop_map(|(key, value)| KeyValue::new(key, value)), 0..6)
    }

    fn any_context() -> impl Strategy<Value = SpanContext> {
        let state = prop_oneof![Just(""), Just("vendor=1,other=b")];
        (any::<u128>(), any::<u64>(), any::<u8>(), any::<bool>(), state).prop_map(
            |(trace, span, flags, remote, state)| {
                let state: TraceState = state.parse().unwrap();
                let flags = TraceFlags::new(flags);
                SpanContext::new(TraceId::from(trace), SpanId::from(span), flags, remote, state)
            },
        )
    }

    fn any_time() -> impl Strategy<Value = SystemTime> {
        any::<u64>().prop_map(|nanos| SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos))
    }

    fn any_span() -> impl Strategy<Value = SpanData> {
        let event = (".{0,9}", any_time(), any_attributes(), any::<u32>())
            .prop_map(|(name, at, attributes, dropped)| Event::new(name, at, attributes, dropped));
        let link = (any_context(), any_attributes(), any::<u32>())
            .prop_map(|(context, attributes, dropped)| Link::new(context, attributes, dropped));
        let kinds =
            [SpanKind::Client, SpanKind::Server, SpanKind::Internal, SpanKind::Producer, SpanKind::Consumer];
        let status = prop_oneof![
            Just(Status::Unset),
            Just(Status::Ok),
            ".{0,9}".prop_map(|text| Status::Error { description: Cow::Owned(text) }),
        ];
        let scope = prop_oneof![Just("a"), Just("b")].prop_map(|name| {
            let scope =
                InstrumentationScope::builder(name).with_version("1.2").with_schema_url("https://x/1");
            scope.with_attributes([KeyValue::new("k", 1)]).build()
        });
        let lists = (vec(event, 0..3), any::<u32>(), vec(link, 0..3), any::<u32>());
        let about = (".{0,200}", proptest::sample::select(kinds.to_vec()), status, scope);
        let ids = (any_context(), any::<u64>(), any::<bool>(), any_time(), any_time());
        (ids, about, any_attributes(), any::<u32>(), lists).prop_map(
            |(ids, (name, span_kind, status, scope), attributes, dropped, lists)| {
                let (mut events, mut links) = (SpanEvents::default(), SpanLinks::default());
                (events.events, events.dropped_count, links.links, links.dropped_count) = lists;
                SpanData {
                    span_context: ids.0,
                    parent_span_id: SpanId::from(ids.1),
                    parent_span_is_remote: ids.2,
                    span_kind,
                    name: name.into(),
                    start_time: ids.3,
                    end_time: ids.4,
                    attributes,
                    dropped_attributes_count: dropped,
                    events,
                    links,
                    status,
                    instrumentation_scope: scope,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn a_request_is_what_the_types_of_otlp_would_have_written(batch in vec(any_span(), 0..5)) {
            let resource = opentelemetry_sdk::Resource::builder_empty()
                .with_schema_url([KeyValue::new("service.name", "x")], "https://x/2")
                .build();
            let resource = ResourceAttributesWithSchema::from(&resource);
            let batch: Vec<_> = batch.into_iter().map(Arc::new).collect();
            let written = request(&batch, &resource);
            let mut read = ExportTraceServiceRequest::decode(written.as_slice()).unwrap();
            let mut expected = super::super::spans::request(batch, &resource);
            // They group by a map, whose order is any.
            for request in [&mut read, &mut expected] {
                let scopes = &mut request.resource_spans[0].scope_spans;
                scopes.sort_by_key(|spans| spans.scope.as_ref().map(|scope| scope.name.clone()));
            }
            prop_assert_eq!(&read, &expected);
            // Nothing is written that need not be.
            prop_assert_eq!(written.len(), expected.encoded_len());
        }
    }
}
