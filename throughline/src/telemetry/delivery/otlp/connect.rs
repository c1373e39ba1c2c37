//! How a connection to a receiver is made, and which step of it failed: name lookup, TCP or TLS.

use std::error::Error;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use rustls::ClientConfig;
use tower_service::Service;

use super::super::failure::ErrorType;

pub(super) type BoxError = Box<dyn Error + Send + Sync>;

/// Makes connections for `http` and `https`.
pub(super) type Connector = Step<HttpsConnector<Step<HttpConnector<Step<GaiResolver>>>>>;

/// One step: what fails in it, and not already in a step inside, gets its kind.
#[derive(Clone)]
pub(super) struct Step<S> {
    inner: S,
    kind: fn(&BoxError) -> ErrorType,
}

/// A connection that could not be made, and the step that failed.
#[derive(Debug)]
pub(super) struct NotConnected {
    pub(super) kind: ErrorType,
    source: BoxError,
}

/// A connector that speaks TLS as `tls` says, and HTTP/2 where `http2` wants nothing else.
pub(super) fn connector(mut tls: ClientConfig, http2: bool) -> Connector {
    let resolver = Step { inner: GaiResolver::new(), kind: |_| ErrorType::Dns };
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tcp = Step { inner: tcp, kind: tcp_kind };
    tls.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Step { inner: HttpsConnector::from((tcp, tls)), kind: |_| ErrorType::Tls }
}

fn tcp_kind(error: &BoxError) -> ErrorType {
    match find::<io::Error>(&**error).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => ErrorType::Refused,
        Some(io::ErrorKind::TimedOut) => ErrorType::Timeout,
        _ => ErrorType::Other,
    }
}

/// The first error of type `E` in a chain of causes. An I/O error hides the error that it wraps from
/// [`Error::source`], hence the extra step.
pub(super) fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|wrapped| wrapped as &(dyn Error + 'static)).or_else(|| error.source());
    }
    None
}

// === impl Step ===

impl<S, R> Service<R> for Step<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = NotConnected;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, NotConnected>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotConnected>> {
        let kind = self.kind;
        self.inner.poll_ready(cx).map_err(|error| NotConnected::new(kind, error.into()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (kind, call) = (self.kind, self.inner.call(request));
        Box::pin(async move { call.await.map_err(|error| NotConnected::new(kind, error.into())) })
    }
}

// === impl NotConnected ===

impl NotConnected {
    fn new(kind: fn(&BoxError) -> ErrorType, source: BoxError) -> Self {
        let kind = find::<Self>(&*source).map_or_else(|| kind(&source), |inner| inner.kind);
        Self { kind, source }
    }
}

impl fmt::Display for NotConnected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no connection")
    }
}

impl Error for NotConnected {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
