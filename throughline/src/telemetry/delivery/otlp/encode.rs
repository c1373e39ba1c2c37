//! Spans as OTLP's protobuf, written in one pass from where they are.
//!
//! By hand, since the types of `opentelemetry-proto` copy every key and text of a span before they write it, which
//! costs several times as much as the writing. What is the same for all spans of a stage is written once and copied; what
//! stands around all spans is written last, into room that was left in front of them. A property test holds what is
//! written against those types. Field numbers: `opentelemetry/proto/trace/v1/trace.proto`, `common/v1/common.proto`.

use bytes::Bytes;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceState};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use prost::Message;
use prost::encoding::{encode_varint, encoded_len_varint};

use super::super::super::span::{Outline, Record, SCOPE, nanoseconds};

/// How a value follows its field's number.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// Flags of a span and a link: whether it is known that their context came from elsewhere, and that it did.
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// Lengths below this are one byte.
const SHORT: usize = 0x80;
/// The most that a length and the number of its field take.
const LONGEST_HEAD: usize = 11;

/// What stands around the spans of a request: who sends them, and what made them.
pub(super) struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
    schema: Vec<u8>,
}

// === impl Envelope ===

impl Envelope {
    pub(super) fn new(resource: &ResourceAttributesWithSchema) -> Self {
        let attributes = resource.attributes.0.clone();
        let sent = Resource { attributes, dropped_attributes_count: 0, entity_refs: Vec::new() };
        let scope = InstrumentationScope { name: SCOPE.to_owned(), ..Default::default() };
        let mut schema = Vec::new();
        text(&mut schema, 3, resource.schema_url.as_deref().unwrap_or_default());
        Self { resource: foreign(&sent), scope: foreign(&scope), schema }
    }

    /// The `ExportTraceServiceRequest` that carries `batch`.
    pub(super) fn around(&self, batch: &[Box<Record>]) -> Bytes {
        let room = 2 * LONGEST_HEAD + self.resource.len() + self.scope.len();
        let mut out = Vec::with_capacity(room + 512 * batch.len());
        out.resize(room, 0);
        let mut span = Vec::with_capacity(2048);
        for record in batch {
            span.clear();
            one(&mut span, record);
            bytes(&mut out, 2, &span);
        }
        let of_scope = self.scope.len() + out.len() - room;
        let in_resource = 1 + encoded_len_varint(of_scope as u64) + of_scope;
        out.extend_from_slice(&self.schema);
        let mut front = Vec::with_capacity(room);
        delimited(&mut front, 1, self.resource.len() + in_resource + self.schema.len());
        front.extend_from_slice(&self.resource);
        delimited(&mut front, 2, of_scope);
        front.extend_from_slice(&self.scope);
        let start = room - front.len();
        out[start..room].copy_from_slice(&front);
        Bytes::from(out).slice(start..)
    }
}

/// A first field that there is one of for all spans: those types may write it.
fn foreign<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    bytes(&mut out, 1, &message.encode_to_vec());
    out
}

fn one(out: &mut Vec<u8>, span: &Record) {
    ids(out, &span.context);
    if span.parent != SpanId::INVALID {
        bytes(out, 4, &span.parent.to_bytes());
    }
    out.extend_from_slice(span.outline.written.get_or_init(|| outline(&span.outline)));
    fixed64(out, 7, span.start);
    fixed64(out, 8, span.end);
    attributes(out, 9, &span.attributes);
    span.closed().for_each(|(key, value)| said(out, 9, key, value));
    number(out, 10, span.dropped.into());
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
    flags(out, 16, &span.context, span.parent_is_remote);
}

/// Fields of a span that are the same for its whole stage.
fn outline(outline: &Outline) -> Box<[u8]> {
    let mut out = Vec::new();
    text(&mut out, 5, &outline.name);
    number(&mut out, 6, kind(&outline.kind));
    attributes(&mut out, 9, &outline.attributes);
    out.into()
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
    if *state != TraceState::NONE {
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

fn attributes(out: &mut Vec<u8>, field: u32, attributes: &[KeyValue]) {
    for KeyValue { key, value: told, .. } in attributes {
        match told {
            Value::String(text) => said(out, field, key.as_str(), text.as_str()),
            _ => message(out, field, |out| {
                text(out, 1, key.as_str());
                message(out, 2, |out| value(out, told));
            }),
        }
    }
}

/// An attribute that is a text: nearly all are, and short.
fn said(out: &mut Vec<u8>, field: u32, key: &str, said: &str) {
    let in_value = 1 + encoded_len_varint(said.len() as u64) + said.len();
    let of_key = if key.is_empty() { 0 } else { 1 + encoded_len_varint(key.len() as u64) + key.len() };
    delimited(out, field, of_key + 1 + encoded_len_varint(in_value as u64) + in_value);
    text(out, 1, key);
    delimited(out, 2, in_value);
    bytes(out, 1, said.as_bytes());
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
    delimited(out, field, bytes.len());
    out.extend_from_slice(bytes);
}

/// What stands in front of so many bytes.
#[inline]
fn delimited(out: &mut Vec<u8>, field: u32, length: usize) {
    match (u8::try_from(field << 3), u8::try_from(length)) {
        (Ok(field), Ok(short)) if usize::from(field) < SHORT && length < SHORT => {
            out.extend_from_slice(&[field | DELIMITED, short]);
        }
        _ => {
            tag(out, field, DELIMITED);
            encode_varint(length as u64, out);
        }
    }
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

#[inline]
fn tag(out: &mut Vec<u8>, field: u32, wire: u8) {
    match u8::try_from(field << 3) {
        Ok(field) if usize::from(field) < SHORT => out.push(field | wire),
        _ => encode_varint(u64::from(field << 3 | u32::from(wire)), out),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{Event, TraceFlags, TraceId};
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
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

    fn any_data() -> impl Strategy<Value = SpanData> {
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
        let lists = (vec(event, 0..3), any::<u32>(), vec(link, 0..3), any::<u32>());
        let about = (".{0,200}", proptest::sample::select(kinds.to_vec()), status);
        let ids = (any_context(), any::<u64>(), any::<bool>(), any_time(), any_time());
        (ids, about, any_attributes(), any::<u32>(), lists).prop_map(
            |(ids, (name, span_kind, status), attributes, dropped, lists)| {
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
                    instrumentation_scope: opentelemetry::InstrumentationScope::default(),
                }
            },
        )
    }

    /// As one comes from the SDK, with some of what is in it moved to where our own spans have it.
    fn any_span() -> impl Strategy<Value = Box<Record>> {
        let closed = prop_oneof![
            Just((None, None)),
            Just((Some("success"), None)),
            Just((Some(""), Some("timeout"))),
        ];
        (any_data(), any_attributes(), closed).prop_map(|(data, attributes, (outcome, error))| {
            let mut record = Record::from(data);
            record.outline = record.outline.changed(|outline| outline.attributes = attributes);
            record.say(outcome, error);
            Box::new(record)
        })
    }

    proptest! {
        #[test]
        fn a_request_is_what_the_types_of_otlp_would_have_written(mut batch in vec(any_span(), 1..5)) {
            // Spans of one stage share what is the same in them.
            batch.push(batch[0].clone());
            prop_assert!(Arc::ptr_eq(&batch[0].outline, &batch[batch.len() - 1].outline));
            let resource = opentelemetry_sdk::Resource::builder_empty()
                .with_schema_url([KeyValue::new("service.name", "x")], "https://x/2")
                .build();
            let resource = ResourceAttributesWithSchema::from(&resource);
            let written = Envelope::new(&resource).around(&batch);
            let read = ExportTraceServiceRequest::decode(&*written).unwrap();
            let expected = super::super::spans::request(batch, &resource);
            prop_assert_eq!(&read, &expected);
            // Nothing is written that need not be.
            prop_assert_eq!(written.len(), expected.encoded_len());
        }
    }
}
