//! How connections are made: name lookup, TCP and TLS, one limit on time for all three, and an error that
//! knows which of them failed.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_rustls::{ConfigBuilderExt, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::GaiResolver;
use rustls::{ClientConfig, RootCertStore};
use tower_service::Service;

use super::{BoxError, ClientErrorKind};

pub(super) type Connector = Stage<HttpsConnector<Stage<HttpConnector<Stage<GaiResolver>>>>>;

/// One stage of connecting: what fails in it, and not already in a stage inside, gets its kind.
#[derive(Clone)]
pub(super) struct Stage<S> {
    inner: S,
    kind: fn(&BoxError) -> ClientErrorKind,
    limit: Option<Duration>,
}

/// A failed connection and the stage that it failed in.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) kind: ClientErrorKind,
    source: BoxError,
}

/// A connector for `http` and `https` whose connections must stand within `limit`.
pub(super) fn connector(limit: Duration) -> Connector {
    let resolver = Stage { inner: GaiResolver::new(), kind: |_| ClientErrorKind::Dns, limit: None };
    let mut tcp = HttpConnector::new_with_resolver(resolver);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    let tcp = Stage { inner: tcp, kind: tcp_kind, limit: None };
    let tls = HttpsConnector::from((tcp, tls_config()));
    Stage { inner: tls, kind: |_| ClientErrorKind::Tls, limit: Some(limit) }
}

fn tcp_kind(error: &BoxError) -> ClientErrorKind {
    match find::<io::Error>(&**error) {
        Some(error) if error.kind() == io::ErrorKind::ConnectionRefused => ClientErrorKind::Refused,
        _ => ClientErrorKind::Connect,
    }
}

/// Whether this machine has no root certificates, so that no TLS connection can succeed.
pub(super) fn trusts_nobody() -> bool {
    native_roots().is_none()
}

/// Trusts the certificates of this machine. The crypto provider is named, because asking for "the default"
/// panics as soon as some dependency turns on a second one.
fn tls_config() -> ClientConfig {
    native_roots()
        .clone()
        .unwrap_or_else(|| builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// Read once: the files hold more than a hundred certificates.
fn native_roots() -> &'static Option<ClientConfig> {
    static ROOTS: OnceLock<Option<ClientConfig>> = OnceLock::new();
    ROOTS.get_or_init(|| match builder().with_native_roots() {
        Ok(config) => Some(config.with_no_client_auth()),
        Err(error) => {
            tracing::warn!(%error, "no root certificates on this machine, https upstreams cannot be reached");
            None
        }
    })
}

fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("this provider has the cipher suites of TLS 1.2 and 1.3")
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

// === impl Stage ===

impl<S, R> Service<R> for Stage<S>
where
    S: Service<R>,
    S::Error: Into<BoxError>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        let kind = self.kind;
        self.inner.poll_ready(cx).map_err(|error| ConnectFailure::new(kind, error.into()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (kind, limit, call) = (self.kind, self.limit, self.inner.call(request));
        Box::pin(async move {
            let result = match limit {
                None => call.await,
                Some(limit) => tokio::time::timeout(limit, call).await.map_err(|elapsed| ConnectFailure {
                    kind: ClientErrorKind::ConnectTimeout,
                    source: elapsed.into(),
                })?,
            };
            result.map_err(|error| ConnectFailure::new(kind, error.into()))
        })
    }
}

// === impl ConnectFailure ===

impl ConnectFailure {
    fn new(kind: fn(&BoxError) -> ClientErrorKind, source: BoxError) -> Self {
        let kind = find::<Self>(&*source).map_or_else(|| kind(&source), |inner| inner.kind);
        Self { kind, source }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "could not connect ({})", self.kind.as_str())
    }
}

impl Error for ConnectFailure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_an_error_behind_io_errors_that_hide_it() {
        let inner = ConnectFailure { kind: ClientErrorKind::Dns, source: "lookup".into() };
        let hidden = io::Error::other(io::Error::other(inner));
        assert_eq!(find::<ConnectFailure>(&hidden).map(|found| found.kind), Some(ClientErrorKind::Dns));
        assert!(find::<fmt::Error>(&hidden).is_none());
    }

    #[test]
    fn the_innermost_stage_names_the_kind() {
        let inner = ConnectFailure { kind: ClientErrorKind::Refused, source: "tcp".into() };
        let outer = ConnectFailure::new(|_| ClientErrorKind::Tls, Box::new(inner));
        assert_eq!(outer.kind, ClientErrorKind::Refused);
    }

    #[test]
    fn a_machine_without_certificates_still_gets_a_tls_setup() {
        let config = builder().with_root_certificates(RootCertStore::empty()).with_no_client_auth();
        assert!(config.alpn_protocols.is_empty());
    }
}
