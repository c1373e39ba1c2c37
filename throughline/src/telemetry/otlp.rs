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
/// The standard's limit for one call, unless the environment has another.
const DEFAULT_LIMIT: Duration = Duration::from_secs(10);

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
    limit: Duration,
}

/// The exporter does not hand its limit to a client that it was given.
fn limit() -> Duration {
    let variables = ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"];
    let set = variables.iter().find_map(|name| std::env::var(name).ok()?.trim().parse().ok());
    set.filter(|ms| *ms > 0).map_or(DEFAULT_LIMIT, Duration::from_millis)
}

// === impl OnRuntime ===

impl OnRuntime {
    fn new(runtime: Handle) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), runtime, limit: limit() }
    }
}

#[async_trait::async_trait]
impl HttpClient for OnRuntime {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, limit) = (self.client.clone(), self.limit);
        let call = async move {
            let answer = client.request(request.map(Full::new)).await?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        self.runtime.spawn(async move { tokio::time::timeout(limit, call).await }).await??
    }
}
