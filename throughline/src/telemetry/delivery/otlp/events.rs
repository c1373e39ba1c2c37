//! Events as OTLP's log records, each with the span that it happened in.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList,
};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber};
use opentelemetry_proto::tonic::resource::v1::Resource as OtlpResource;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;
use serde_json::Value as Json;

use super::super::super::span::SCOPE;
use super::super::events::Event;

/// Who sends log records.
pub(in super::super) struct Sender(ResourceAttributesWithSchema);

// === impl Sender ===

impl Sender {
    pub(in super::super) fn new(resource: &Resource) -> Self {
        Self(resource.into())
    }

    /// The request that carries `batch`.
    pub(in super::super) fn logs(&self, batch: Vec<Event>) -> ExportLogsServiceRequest {
        let log_records = batch.into_iter().map(record).collect();
        let scope = InstrumentationScope { name: SCOPE.to_owned(), ..Default::default() };
        let scope = ScopeLogs { scope: Some(scope), log_records, ..Default::default() };
        let attributes = self.0.attributes.0.clone();
        let resource = Some(OtlpResource { attributes, ..Default::default() });
        let schema_url = self.0.schema_url.clone().unwrap_or_default();
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs { resource, scope_logs: vec![scope], schema_url }],
        }
    }
}

fn record(event: Event) -> LogRecord {
    let attributes = event.attributes.into_iter().map(|(key, value)| pair(key.into_owned(), value));
    LogRecord {
        time_unix_nano: event.at,
        observed_time_unix_nano: event.at,
        severity_number: SeverityNumber::Info.into(),
        event_name: event.name.to_owned(),
        attributes: attributes.collect(),
        flags: u32::from(event.span.trace_flags().to_u8()),
        trace_id: event.span.trace_id().to_bytes().to_vec(),
        span_id: event.span.span_id().to_bytes().to_vec(),
        ..Default::default()
    }
}

fn pair(key: String, value: Json) -> KeyValue {
    KeyValue { key, value: Some(any(value)), ..Default::default() }
}

fn any(value: Json) -> AnyValue {
    let value = match value {
        Json::Null => None,
        Json::Bool(truth) => Some(Value::BoolValue(truth)),
        Json::Number(number) => Some(match number.as_i64() {
            Some(whole) => Value::IntValue(whole),
            None => Value::DoubleValue(number.as_f64().unwrap_or(f64::NAN)),
        }),
        Json::String(text) => Some(Value::StringValue(text)),
        Json::Array(items) => {
            Some(Value::ArrayValue(ArrayValue { values: items.into_iter().map(any).collect() }))
        }
        Json::Object(fields) => {
            let values = fields.into_iter().map(|(key, value)| pair(key, value)).collect();
            Some(Value::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
    use serde_json::json;

    use super::super::super::otlp_settings::Protocol;
    use super::super::request::written;
    use super::*;

    #[test]
    fn an_event_is_a_log_record_of_its_span_whose_attributes_keep_their_structure() {
        let (trace, span) = (TraceId::from(7), SpanId::from(9));
        let span = SpanContext::new(trace, span, TraceFlags::SAMPLED, false, TraceState::NONE);
        let said = vec![
            ("messages".into(), json!([{"role": "user", "parts": [1, 0.5, true, null]}])),
            ("n".into(), 3.into()),
        ];
        let request = Sender::new(&Resource::builder_empty().build()).logs(vec![Event::now(
            "gen_ai.client.inference.operation.details",
            span,
            said,
        )]);
        let json = written(&request, Protocol::Json).unwrap();
        let json: Json = serde_json::from_slice(&json).unwrap();
        let record = &json["resourceLogs"][0]["scopeLogs"][0]["logRecords"][0];
        assert_eq!(record["eventName"], "gen_ai.client.inference.operation.details");
        assert_eq!(record["traceId"], "00000000000000000000000000000007");
        assert_eq!(record["spanId"], "0000000000000009");
        let message = &record["attributes"][0]["value"]["arrayValue"]["values"][0]["kvlistValue"]["values"];
        assert_eq!(message[1]["key"], "role");
        assert_eq!(message[1]["value"]["stringValue"], "user");
        assert_eq!(record["attributes"][1]["value"]["intValue"], "3");
    }
}
