//! A batch of spans as OTLP says it.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;

use super::super::exporter::Batch;

/// The request that carries `batch`.
pub(super) fn request(batch: Batch, resource: &ResourceAttributesWithSchema) -> ExportTraceServiceRequest {
    let spans = batch.into_iter().map(|span| span.into_data()).collect();
    ExportTraceServiceRequest { resource_spans: group_spans_by_resource_and_scope(spans, resource) }
}
