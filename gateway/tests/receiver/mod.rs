//! A receiver of traces and log records by OTLP, over gRPC and over HTTP, and the trees of what it got.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;

use crate::process::until;

/// Takes every span that is sent to it.
pub(crate) struct Receiver {
    address: SocketAddr,
    got: Got,
}

#[derive(Clone, Default)]
struct Got {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    logs: Arc<Mutex<Vec<ExportLogsServiceRequest>>>,
}

/// A log record that is an event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) trace: String,
    pub(crate) span: String,
    pub(crate) attributes: BTreeMap<String, serde_json::Value>,
}

/// The spans of one trace.
pub(crate) struct Trace(Vec<Span>);

// === impl Receiver ===

impl Receiver {
    /// A gRPC server.
    pub(crate) async fn grpc() -> Self {
        let (listener, address, got) = bind().await;
        let service = TraceServiceServer::new(got.clone());
        let logs = LogsServiceServer::new(got.clone());
        let server = tonic::transport::Server::builder().add_service(service).add_service(logs);
        tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
        Self { address, got }
    }

    /// An HTTP server that takes protobuf bodies at `/v1/traces` and `/v1/logs`.
    pub(crate) async fn http() -> Self {
        let (listener, address, got) = bind().await;
        let served = got.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let got = served.clone();
                let service = service_fn(move |request| receive(got.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { address, got }
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` is to be.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The trace called `id`, once its server span has come: that ends last.
    pub(crate) async fn trace(&self, id: &str) -> Trace {
        let whole = async || self.got.traces().remove(id).filter(Trace::has_server_span);
        until("a whole trace", whole).await
    }

    /// The ids of all traces.
    pub(crate) fn ids(&self) -> Vec<String> {
        self.got.traces().into_keys().collect()
    }

    /// Everything that was received, as text.
    pub(crate) fn dump(&self) -> String {
        format!("{:?} {:?}", self.got.lock(), self.got.logs())
    }

    /// How many events there are.
    pub(crate) fn count_events(&self) -> u32 {
        u32::try_from(self.got.events().len()).expect("a test makes few")
    }

    /// The events of the trace `id`, once there are as many as this.
    pub(crate) async fn events(&self, id: &str, count: usize) -> Vec<Event> {
        let of_trace = async || {
            let mut events = self.got.events();
            events.retain(|event| event.trace == id);
            (events.len() >= count).then_some(events)
        };
        until("events", of_trace).await
    }
}

async fn bind() -> (TcpListener, SocketAddr, Got) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    (listener, address, Got::default())
}

async fn receive(got: Got, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let body = request.into_body().collect().await.expect("the body comes to its end").to_bytes();
    let is_one = "it is an export request";
    match &*path {
        "/v1/traces" => got.lock().push(ExportTraceServiceRequest::decode(body).expect(is_one)),
        "/v1/logs" => got.logs().push(ExportLogsServiceRequest::decode(body).expect(is_one)),
        other => panic!("nothing is taken at {other}"),
    }
    Ok(Response::new(Full::default()))
}

// === impl Got ===

impl Got {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<ExportTraceServiceRequest>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logs(&self) -> std::sync::MutexGuard<'_, Vec<ExportLogsServiceRequest>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> Vec<Event> {
        let logs = self.logs();
        let scopes = logs.iter().flat_map(|request| &request.resource_logs).flat_map(|logs| &logs.scope_logs);
        scopes.flat_map(|scope| &scope.log_records).map(Event::of).collect()
    }

    fn traces(&self) -> BTreeMap<String, Trace> {
        let mut traces = BTreeMap::new();
        for request in self.lock().iter() {
            let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                traces.entry(hex(&span.trace_id)).or_insert(Trace(Vec::new())).0.push(span.clone());
            }
        }
        traces
    }
}

#[tonic::async_trait]
impl TraceService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.lock().push(request.into_inner());
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Got {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, tonic::Status> {
        self.logs().push(request.into_inner());
        Ok(tonic::Response::new(ExportLogsServiceResponse::default()))
    }
}

// === impl Event ===

impl Event {
    fn of(record: &LogRecord) -> Self {
        let pair = |pair: &KeyValue| (pair.key.clone(), json(pair.value.as_ref()));
        Self {
            name: record.event_name.clone(),
            trace: hex(&record.trace_id),
            span: hex(&record.span_id),
            attributes: record.attributes.iter().map(pair).collect(),
        }
    }
}

fn json(value: Option<&AnyValue>) -> serde_json::Value {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone().into(),
        Some(Value::IntValue(number)) => (*number).into(),
        Some(Value::DoubleValue(number)) => (*number).into(),
        Some(Value::BoolValue(truth)) => (*truth).into(),
        Some(Value::ArrayValue(list)) => list.values.iter().map(|value| json(Some(value))).collect(),
        Some(Value::KvlistValue(fields)) => {
            fields.values.iter().map(|pair| (pair.key.clone(), json(pair.value.as_ref()))).collect()
        }
        other => serde_json::Value::String(format!("{other:?}")),
    }
}

// === impl Trace ===

impl Trace {
    /// The caller's trace and span that the server span points at, as `TRACE-SPAN STATE`.
    pub(crate) fn links(&self) -> Vec<String> {
        let spans = self.0.iter().flat_map(|span| &span.links);
        let text =
            |link: &Link| format!("{}-{} {}", hex(&link.trace_id), hex(&link.span_id), link.trace_state);
        spans.map(text).collect()
    }

    /// The ids of the spans called `name`.
    pub(crate) fn span_ids(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|span| span.name == name).map(|span| hex(&span.span_id)).collect()
    }

    /// What vendors have noted, of every span the same.
    pub(crate) fn state(&self) -> &str {
        let state = &self.0[0].trace_state;
        assert!(self.0.iter().all(|span| span.trace_state == *state), "{}", self.tree());
        state
    }

    fn has_server_span(&self) -> bool {
        self.0.iter().any(|span| span.kind() == SpanKind::Server)
    }

    fn roots(&self) -> impl Iterator<Item = &Span> {
        let known = |id: &[u8]| self.0.iter().any(|span| span.span_id == id);
        self.0.iter().filter(move |span| !known(&span.parent_span_id))
    }

    /// The parent of the only span whose parent is not in the trace.
    pub(crate) fn remote_parent(&self) -> String {
        let roots: Vec<_> = self.roots().collect();
        assert_eq!(roots.len(), 1, "{}", self.tree());
        hex(&roots[0].parent_span_id)
    }

    /// A line a span, with its kind and how it ended, children under their parents.
    pub(crate) fn tree(&self) -> String {
        let mut text = String::new();
        self.roots().for_each(|root| self.write(&mut text, root, 0));
        text
    }

    fn write(&self, text: &mut String, span: &Span, depth: usize) {
        let status = span.status.clone().unwrap_or_default();
        let ended = match status.code() {
            StatusCode::Ok => "ok".to_owned(),
            StatusCode::Error => format!("error: {}", status.message),
            StatusCode::Unset => "unset".to_owned(),
        };
        let kind = span.kind().as_str_name().trim_start_matches("SPAN_KIND_");
        writeln!(text, "{:indent$}{kind} {} ({ended})", "", span.name, indent = 2 * depth)
            .expect("writing to a string cannot fail");
        let children = self.0.iter().filter(|child| child.parent_span_id == span.span_id);
        children.for_each(|child| self.write(text, child, depth + 1));
    }

    /// The attributes of the span called `name`, as text.
    pub(crate) fn attributes(&self, name: &str) -> BTreeMap<String, String> {
        let span = self.0.iter().find(|span| span.name == name);
        let span = span.unwrap_or_else(|| panic!("no span `{name}` in\n{}", self.tree()));
        span.attributes.iter().map(attribute).collect()
    }
}

fn attribute(pair: &KeyValue) -> (String, String) {
    let value = match &pair.value {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text.clone(),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        Some(AnyValue { value: Some(Value::BoolValue(truth)) }) => truth.to_string(),
        other => format!("{other:?}"),
    };
    (pair.key.clone(), value)
}

fn hex(id: &[u8]) -> String {
    id.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
