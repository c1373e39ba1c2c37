//! The body of a request: protobuf, JSON or a gRPC message, compressed where that is wanted.

use std::io::Write as _;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use prost::Message;
use serde::Serialize;

use super::super::otlp_settings::{Otlp, Protocol};

/// The length of what stands before a gRPC message: whether it is compressed, and its length.
pub(super) const GRPC_PREFIX: usize = 5;

/// `message` as `protocol` writes it.
pub(super) fn written<M: Message + Serialize>(message: &M, protocol: Protocol) -> Result<Vec<u8>, String> {
    match protocol {
        Protocol::Json => serde_json::to_vec(message).map_err(|error| error.to_string()),
        Protocol::Grpc | Protocol::Protobuf => Ok(message.encode_to_vec()),
    }
}

/// What a message that is written as `plain` is sent as.
pub(super) fn body(plain: Bytes, protocol: Protocol, gzip: bool) -> Result<Bytes, String> {
    let payload = if gzip { compressed(&plain).into() } else { plain };
    if protocol != Protocol::Grpc {
        return Ok(payload);
    }
    let length = u32::try_from(payload.len()).map_err(|error| error.to_string())?;
    let mut framed = BytesMut::with_capacity(GRPC_PREFIX + payload.len());
    framed.put_u8(u8::from(gzip));
    framed.put_u32(length);
    framed.put_slice(&payload);
    Ok(framed.freeze())
}

fn compressed(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

/// The headers of every request. What the configuration says cannot replace what the protocol needs.
pub(super) fn headers(settings: &Otlp, protocol: Protocol) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &settings.headers.0 {
        if let (Ok(name), Ok(mut value)) =
            (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value))
        {
            value.set_sensitive(true);
            headers.insert(name, value);
        }
    }
    let agent = concat!("throughline/", env!("CARGO_PKG_VERSION"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    let content = match protocol {
        Protocol::Grpc => "application/grpc",
        Protocol::Protobuf => "application/x-protobuf",
        Protocol::Json => "application/json",
    };
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    if protocol == Protocol::Grpc {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if settings.gzip {
        let name = match protocol {
            Protocol::Grpc => HeaderName::from_static("grpc-encoding"),
            _ => header::CONTENT_ENCODING,
        };
        headers.insert(name, HeaderValue::from_static("gzip"));
    }
    headers
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
    use opentelemetry::{InstrumentationScope, KeyValue};
    use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

    use super::super::super::super::span::Record;
    use super::super::spans::request;
    use super::*;

    fn span() -> Box<Record> {
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let context = SpanContext::new(
            TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
            SpanId::from(0xb7ad_6b71_6920_3331),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let span = SpanData {
            span_context: context,
            parent_span_id: SpanId::from(0x00f0_67aa_0ba9_02b7),
            parent_span_is_remote: true,
            span_kind: SpanKind::Client,
            name: "chat".into(),
            start_time: at(1_000),
            end_time: at(1_250),
            attributes: vec![KeyValue::new("tokens", 7), KeyValue::new("model", "m")],
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::error("timeout"),
            instrumentation_scope: InstrumentationScope::builder("throughline").build(),
        };
        Box::new(Record::from(span))
    }

    #[test]
    fn json_writes_ids_in_hex_enums_as_numbers_and_times_as_text() {
        let request = request(vec![span()], &Default::default());
        let json = written(&request, Protocol::Json).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let span = &json["resourceSpans"][0]["scopeSpans"][0]["spans"][0];
        assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(span["spanId"], "b7ad6b7169203331");
        assert_eq!(span["parentSpanId"], "00f067aa0ba902b7");
        assert_eq!(span["kind"], 3, "a number, not `SPAN_KIND_CLIENT`");
        assert_eq!(span["status"]["code"], 2);
        assert_eq!(span["startTimeUnixNano"], "1000000000");
        assert_eq!(span["attributes"][0]["value"]["intValue"], "7");
        assert_eq!(span["attributes"][1]["value"]["stringValue"], "m");
    }

    #[test]
    fn a_grpc_message_has_its_length_in_front_and_says_whether_it_is_compressed() {
        let request = request(vec![span()], &Default::default());
        let plain = Bytes::from(written(&request, Protocol::Protobuf).unwrap());
        let framed = body(plain.clone(), Protocol::Grpc, false).unwrap();
        assert_eq!(framed[..GRPC_PREFIX], [0, 0, 0, 0, u8::try_from(plain.len()).unwrap()]);
        assert_eq!(framed[GRPC_PREFIX..], plain);
        let small = body(plain, Protocol::Grpc, true).unwrap();
        assert_eq!((small[0], usize::from(small[4])), (1, small.len() - GRPC_PREFIX));
    }

    #[test]
    fn the_configured_headers_are_sensitive_and_replace_none_of_the_protocols() {
        let mut settings = Otlp::default();
        settings.gzip = true;
        let pairs = [("authorization", "Bearer x"), ("content-type", "text/plain")];
        settings.headers.0 = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let headers = headers(&settings, Protocol::Protobuf);
        assert!(headers["authorization"].is_sensitive());
        assert_eq!(headers["content-type"], "application/x-protobuf");
        assert_eq!(headers["content-encoding"], "gzip");
    }
}
