//! What a receiver answers: taken, taken in part, refused, and whether it wants to be asked again.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

use super::super::failure::{ErrorType, Failure, Retry};
use super::super::otlp_settings::{Protocol, Signal};
use super::request::GRPC_PREFIX;

/// A receiver that asks for more patience than this does not get it.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

/// An answer that has been read.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// Of HTTP/2.
    pub(super) trailers: Option<HeaderMap>,
}

// === impl Answer ===

impl Answer {
    /// How many spans, log records or data points the receiver took and threw away.
    pub(super) fn rejected(&self, signal: Signal, protocol: Protocol) -> Result<usize, Failure> {
        if protocol == Protocol::Grpc {
            self.grpc_status()?;
            return Ok(rejected(signal, protocol, self.body.get(GRPC_PREFIX..).unwrap_or_default()));
        }
        if self.status.is_success() {
            return Ok(rejected(signal, protocol, &self.body));
        }
        Err(self.http_failure())
    }

    fn http_failure(&self) -> Failure {
        let code = self.status.as_u16();
        let kind = match code {
            400..500 => ErrorType::Http4xx,
            500.. => ErrorType::Http5xx,
            _ => ErrorType::Other,
        };
        let retry = match code {
            429 | 502 | 503 | 504 => self.retry_after().map_or(Retry::Later, Retry::After),
            _ => Retry::Never,
        };
        Failure { retry, ..Failure::new(kind, format!("it answered {code}")) }
    }

    /// Seconds. A date is not understood: it would need two clocks to agree.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(LONGEST_WAIT))
    }

    fn grpc_status(&self) -> Result<(), Failure> {
        if self.status != StatusCode::OK {
            return Err(self.http_failure());
        }
        let said = |name: &str| {
            let trailers = self.trailers.as_ref().and_then(|trailers| trailers.get(name));
            trailers.or_else(|| self.headers.get(name))?.to_str().ok()
        };
        let Some(code) = said("grpc-status").and_then(|code| code.parse::<u32>().ok()) else {
            return Err(Failure::new(ErrorType::Interrupted, "its answer ended without a status").retried());
        };
        let wait = said("grpc-status-details-bin").and_then(retry_delay);
        let retry = match (code, wait) {
            (0, _) => return Ok(()),
            (1 | 4 | 8 | 10 | 11 | 14 | 15, Some(wait)) => Retry::After(wait.min(LONGEST_WAIT)),
            (1 | 4 | 10 | 11 | 14 | 15, None) => Retry::Later,
            // Also 8, exhausted, where the receiver does not say that this passes.
            _ => Retry::Never,
        };
        let message = format!("it answered with the gRPC status {code}");
        Err(Failure { retry, ..Failure::new(ErrorType::GrpcStatus, message) })
    }
}

/// An answer that cannot be read is taken for what its status says.
fn rejected(signal: Signal, protocol: Protocol, body: &[u8]) -> usize {
    let count = match (protocol, signal) {
        (Protocol::Json, _) => rejected_in_json(signal, body),
        (_, Signal::Traces) => ExportTraceServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_spans),
        (_, Signal::Logs) => ExportLogsServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_log_records),
        (_, Signal::Metrics) => ExportMetricsServiceResponse::decode(body)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|partial| partial.rejected_data_points),
    };
    usize::try_from(count.unwrap_or_default()).unwrap_or_default()
}

/// JSON writes numbers of 64 bits as text, and readers take both.
fn rejected_in_json(signal: Signal, body: &[u8]) -> Option<i64> {
    let answer: serde_json::Value = serde_json::from_slice(body).ok()?;
    let partial = answer.get("partialSuccess")?;
    let count = match signal {
        Signal::Traces => partial.get("rejectedSpans")?,
        Signal::Logs => partial.get("rejectedLogRecords")?,
        Signal::Metrics => partial.get("rejectedDataPoints")?,
    };
    count.as_i64().or_else(|| count.as_str()?.parse().ok())
}

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, tag = "1")]
    delay: Option<Delay>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_delay(details: &str) -> Option<Duration> {
    let bytes = STANDARD_NO_PAD.decode(details.trim_end_matches('=')).ok()?;
    let details = RpcStatus::decode(&*bytes).ok()?.details;
    let info = details.into_iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.delay.unwrap_or_default();
    Some(Duration::new(u64::try_from(delay.seconds).ok()?, u32::try_from(delay.nanos).ok()?))
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    use super::*;

    fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Bytes>) -> Answer {
        let headers = headers.iter().map(|(name, value)| {
            (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
        });
        let status = StatusCode::from_u16(status).unwrap();
        Answer { status, headers: headers.collect(), body: body.into(), trailers: None }
    }

    fn http(status: u16, headers: &[(&'static str, &str)]) -> (ErrorType, Retry) {
        let failure = answer(status, headers, "").rejected(Signal::Traces, Protocol::Protobuf).unwrap_err();
        (failure.kind, failure.retry)
    }

    fn grpc(code: u32, headers: &[(&'static str, &str)]) -> Retry {
        let code = code.to_string();
        let headers = [headers, &[("grpc-status", &*code)]].concat();
        let failure = answer(200, &headers, "").rejected(Signal::Traces, Protocol::Grpc).unwrap_err();
        assert_eq!(failure.kind, ErrorType::GrpcStatus);
        failure.retry
    }

    #[test]
    fn only_the_statuses_of_the_standard_are_tried_again() {
        for status in [429, 502, 503, 504] {
            assert_eq!(http(status, &[]).1, Retry::Later, "{status}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert_eq!(http(status, &[("retry-after", "1")]).1, Retry::Never, "{status}");
        }
        assert_eq!(http(400, &[]).0, ErrorType::Http4xx);
        assert_eq!(http(503, &[]).0, ErrorType::Http5xx);
        assert_eq!(http(307, &[]).0, ErrorType::Other);
        for code in [1, 4, 10, 11, 14, 15] {
            assert_eq!(grpc(code, &[]), Retry::Later, "{code}");
        }
        for code in [2, 3, 5, 6, 7, 8, 9, 12, 13, 16] {
            assert_eq!(grpc(code, &[]), Retry::Never, "{code}");
        }
    }

    #[test]
    fn the_receiver_says_when_to_come_again() {
        assert_eq!(http(503, &[("retry-after", "7")]).1, Retry::After(Duration::from_secs(7)));
        assert_eq!(http(503, &[("retry-after", "99999999")]).1, Retry::After(LONGEST_WAIT));
        assert_eq!(http(503, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")]).1, Retry::Later);
        let info = RetryInfo { delay: Some(Delay { seconds: 2, nanos: 500_000_000 }) };
        let any =
            Any { type_url: "type.googleapis.com/google.rpc.RetryInfo".into(), value: info.encode_to_vec() };
        let status = RpcStatus { details: vec![any] }.encode_to_vec();
        let details = STANDARD_NO_PAD.encode(status);
        let after = Retry::After(Duration::from_millis(2500));
        assert_eq!(grpc(8, &[("grpc-status-details-bin", &details)]), after);
        assert_eq!(grpc(14, &[("grpc-status-details-bin", "nonsense!")]), Retry::Later);
    }

    #[test]
    fn what_was_rejected_is_counted_in_every_protocol() {
        let partial = ExportTracePartialSuccess { rejected_spans: 3, error_message: "no".into() };
        let message = ExportTraceServiceResponse { partial_success: Some(partial) };
        let proto = message.encode_to_vec();
        let framed = [&[0, 0, 0, 0, u8::try_from(proto.len()).unwrap()][..], &proto].concat();
        let json = r#"{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no"}}"#;
        let rejected = |answer: Answer, protocol| answer.rejected(Signal::Traces, protocol).unwrap();
        assert_eq!(rejected(answer(200, &[], proto), Protocol::Protobuf), 3);
        assert_eq!(rejected(answer(200, &[], json), Protocol::Json), 3);
        assert_eq!(rejected(answer(200, &[("grpc-status", "0")], framed), Protocol::Grpc), 3);
        assert_eq!(rejected(answer(200, &[], "{}"), Protocol::Json), 0);
        assert_eq!(rejected(answer(200, &[], "<html>"), Protocol::Protobuf), 0, "taken all the same");
    }

    #[test]
    fn a_grpc_answer_without_a_status_was_cut_off() {
        let failure = answer(200, &[], "").rejected(Signal::Traces, Protocol::Grpc).unwrap_err();
        assert_eq!((failure.kind, failure.retry), (ErrorType::Interrupted, Retry::Later));
        let failure = answer(503, &[], "").rejected(Signal::Traces, Protocol::Grpc).unwrap_err();
        assert_eq!(failure.kind, ErrorType::Http5xx);
    }
}
