//! Spans to an OTLP receiver.
//!
//! The SDK's batch processor exports from a thread of its own, outside any runtime. The gRPC client's
//! connection and the HTTP client's calls run on the runtime of the telemetry thread.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use tokio::runtime::Handle;

use super::settings::Traces;

/// The largest answer that is read: a receiver says little.
const LARGEST_ANSWER: usize = 1 << 20;
/// Longer than the exporter's own limit, which comes from `OTEL_EXPORTER_OTLP_TIMEOUT`.
const LONGEST_CALL: Duration = Duration::from_secs(60);

/// The exporter for `transport`; address, headers and limits come from the standard variables.
pub(super) fn exporter(transport: Traces, runtime: &Handle) -> Result<SpanExporter, String> {
    let _inside = runtime.enter();
    let built = match transport {
        Traces::OtlpGrpc => SpanExporter::builder().with_tonic().build(),
        _ => SpanExporter::builder()
            .with_http()
            .with_protocol(opentelemetry_otlp::Protocol::HttpBinary)
            .with_http_client(OnRuntime::new(runtime.clone()))
            .build(),
    };
    built.map_err(|error| error.to_string())
}

/// An HTTP client whose calls run on a given runtime, whoever waits for them.
#[derive(Debug)]
struct OnRuntime {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
}

// === impl OnRuntime ===

impl OnRuntime {
    fn new(runtime: Handle) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), runtime }
    }
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let call = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        self.runtime.spawn(async move { tokio::time::timeout(LONGEST_CALL, call).await }).await??
    }
}
