//! A batch of spans as OTLP says it.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::trace::SpanData;

/// The request that carries `batch`.
pub(super) fn request(
    batch: Vec<Arc<SpanData>>,
    resource: &ResourceAttributesWithSchema,
) -> ExportTraceServiceRequest {
    let spans = batch.into_iter().map(Arc::unwrap_or_clone).collect();
    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, resource) }
}
