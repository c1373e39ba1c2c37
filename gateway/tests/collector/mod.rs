//! A collector that speaks OTLP in all three ways, with TLS or without, and that misbehaves when told to.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::NumberDataPoint;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value;
use rustls::ServerConfig;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::process::until;

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Mode {
    /// Takes it.
    Take,
    /// Answers with this status, and these headers.
    Status(u16, &'static [(&'static str, &'static str)]),
    /// Takes so many that come and never answers them.
    Hang,
    /// Answers each when there is a permit for it.
    Slow(Arc<Semaphore>),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Got {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// The body as it was sent.
    pub(crate) body: Bytes,
    /// What it says, when it is about traces.
    pub(crate) request: ExportTraceServiceRequest,
    /// What it says, when it is about metrics.
    pub(crate) metrics: ExportMetricsServiceRequest,
}

/// A collector that listens. Dropping it closes its port.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    got: Mutex<Vec<Got>>,
    asked: Mutex<usize>,
}

// === impl Collector ===

impl Collector {
    pub(crate) async fn start() -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), None).await
    }

    pub(crate) async fn tls(config: ServerConfig) -> Self {
        Self::on(SocketAddr::from(([127, 0, 0, 1], 0)), Some(config)).await
    }

    /// Listens on `address`.
    pub(crate) async fn on(address: SocketAddr, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener.local_addr().expect("it has an address");
        let shared = Shared { mode: Mutex::new(Mode::Take), got: Mutex::default(), asked: Mutex::default() };
        let shared = Arc::new(shared);
        let acceptor = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let serving = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self { address, shared, serving }
    }

    pub(crate) fn turn(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        lock(&self.shared.got).clone()
    }

    /// The ids of the traces it took, one per server span.
    pub(crate) fn traces(&self) -> Vec<String> {
        let servers = |got: &Got| {
            let scopes = got.request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
            let spans = scopes.flat_map(|scope| &scope.spans).filter(|span| span.parent_span_id.is_empty());
            spans.map(|span| span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect()).collect()
        };
        lock(&self.shared.got).iter().flat_map(|got: &Got| -> Vec<String> { servers(got) }).collect()
    }

    /// The last figure it was sent of the sum called `name`, over all series.
    pub(crate) fn sum(&self, name: &str) -> Option<i64> {
        let got = self.got();
        let scopes = got.iter().rev().flat_map(|got| &got.metrics.resource_metrics);
        let mut metrics =
            scopes.flat_map(|resource| &resource.scope_metrics).flat_map(|scope| &scope.metrics);
        let metric = metrics.find(|metric| metric.name == name)?;
        let Some(Data::Sum(sum)) = &metric.data else { panic!("{name} is no sum") };
        let value = |point: &NumberDataPoint| match point.value {
            Some(Value::AsInt(value)) => value,
            other => panic!("{name} is {other:?}"),
        };
        Some(sum.data_points.iter().map(value).sum())
    }

    /// Waits until it was asked `times` times, whatever it answered.
    pub(crate) async fn asked(&self, times: usize) {
        until("attempts", async || (*lock(&self.shared.asked) >= times).then_some(())).await;
    }

    /// Waits until it has taken the trace `id`.
    pub(crate) async fn takes(&self, id: &str) {
        until("the trace", async || self.traces().iter().any(|taken| taken == id).then_some(())).await;
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, shared) = (tls.clone(), Arc::clone(&shared));
        connections.spawn(async move {
            match tls {
                None => converse(stream, shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        converse(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn converse(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, shared: Arc<Shared>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&shared)));
    // Who hangs up is not its concern.
    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Answer, hyper::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    *lock(&shared.asked) += 1;
    let mode = lock(&shared.mode).clone();
    match mode {
        Mode::Hang => std::future::pending().await,
        Mode::Status(code, headers) => {
            let mut answer = Response::new(Full::default().boxed());
            *answer.status_mut() = StatusCode::from_u16(code).expect("the tests use real ones");
            for (name, value) in headers {
                answer.headers_mut().insert(*name, HeaderValue::from_static(value));
            }
            return Ok(answer);
        }
        Mode::Slow(permits) => permits.acquire().await.expect("the tests do not close it").forget(),
        Mode::Take => {}
    }
    let content = head.headers["content-type"].to_str().expect("it is text").to_owned();
    let (path, headers) = (head.uri.path().to_owned(), head.headers);
    let (mut request, mut metrics) = Default::default();
    match path.to_ascii_lowercase().contains("metrics") {
        true => metrics = read(&content, &headers, &body),
        false => request = read(&content, &headers, &body),
    }
    lock(&shared.got).push(Got { path, headers, body, request, metrics });
    Ok(taken(&content))
}

fn read<M: prost::Message + Default + DeserializeOwned>(
    content: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> M {
    let plain = |body: &[u8], zipped: bool| {
        let mut plain = Vec::new();
        match zipped {
            true => GzDecoder::new(body).read_to_end(&mut plain).expect("it is gzip"),
            false => {
                plain.extend_from_slice(body);
                plain.len()
            }
        };
        plain
    };
    let zipped = headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip");
    match content {
        "application/grpc" => {
            let length = u32::from_be_bytes(body[1..5].try_into().expect("four bytes"));
            assert_eq!(body.len(), 5 + length as usize);
            M::decode(&*plain(&body[5..], body[0] == 1)).expect("it is a request")
        }
        "application/x-protobuf" => M::decode(&*plain(body, zipped)).expect("it is a request"),
        "application/json" => serde_json::from_slice(&plain(body, zipped)).expect("it is a request"),
        other => panic!("what is {other}?"),
    }
}

fn taken(content: &str) -> Answer {
    let mut answer = match content {
        "application/grpc" => {
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                HeaderValue::from_static("0"),
            )]);
            let body = Full::new(Bytes::from_static(&[0; 5]));
            Response::new(body.with_trailers(async { Some(Ok(trailers)) }).boxed())
        }
        "application/json" => Response::new(Full::new(Bytes::from_static(b"{}")).boxed()),
        _ => Response::new(Full::default().boxed()),
    };
    answer.headers_mut().insert("content-type", content.parse().expect("it came as a header"));
    answer
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
