//! One attempt to reach a receiver: the same HTTP client for gRPC and for both kinds of bodies.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::super::failure::{ErrorType, Failure};
use super::super::otlp_settings::{Otlp, Protocol, Signal};
use super::answer::Answer;
use super::connect::{self, BoxError, Connector, NotConnected, find};
use super::{request, tls};

/// The largest answer that is read: a receiver says little.
const LARGEST_ANSWER: usize = 1 << 20;
/// Closing an idle connection before the receiver does avoids most lost races.
const IDLE: Duration = Duration::from_secs(50);

/// Sends bodies to one address.
pub(super) struct Client {
    inner: HyperClient<Connector, Full<Bytes>>,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
}

// === impl Client ===

impl Client {
    /// # Errors
    /// Why the settings cannot be followed.
    pub(super) fn new(settings: &Otlp, protocol: Protocol, signal: Signal) -> Result<Self, Failure> {
        let grpc = protocol == Protocol::Grpc;
        let uri = address(&settings.url(protocol, signal), grpc, signal)
            .map_err(|reason| Failure::new(ErrorType::Other, reason))?;
        // Files that are named are read also where nothing asks for them yet: a mistake is better seen now.
        let wants_tls = uri.scheme_str() == Some("https") || settings.tls != Default::default();
        let config = match wants_tls {
            // The file may be there by the next attempt.
            true => {
                tls::config(&settings.tls).map_err(|reason| Failure::new(ErrorType::Tls, reason).retried())?
            }
            false => tls::none(),
        };
        let inner = HyperClient::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .http2_only(grpc)
            .build(connect::connector(config, grpc));
        let headers = request::headers(settings, protocol);
        Ok(Self { inner, uri, headers, timeout: settings.timeout })
    }

    /// Sends `body` and reads the answer, within the time for one attempt.
    pub(super) async fn send(&self, body: Bytes) -> Result<Answer, Failure> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let call = async {
            let (head, body) = self.inner.request(request).await?.into_parts();
            let body = Limited::new(body, LARGEST_ANSWER).collect().await?;
            let trailers = body.trailers().cloned();
            Ok::<_, BoxError>(Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
                trailers,
            })
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(result) => result.map_err(|error| failure(&error)),
            Err(_) => Err(Failure::timeout(self.timeout).retried()),
        }
    }
}

/// Where requests go: gRPC adds the name of the service.
fn address(url: &str, grpc: bool, signal: Signal) -> Result<Uri, String> {
    let wrong = || "the address of the OTLP receiver is not an http or https URL with a host".to_owned();
    let url = match (grpc, signal) {
        (false, _) => url.to_owned(),
        (true, Signal::Traces) => {
            format!(
                "{}/opentelemetry.proto.collector.trace.v1.TraceService/Export",
                url.trim_end_matches('/')
            )
        }
        (true, Signal::Logs) => {
            format!("{}/opentelemetry.proto.collector.logs.v1.LogsService/Export", url.trim_end_matches('/'))
        }
        (true, Signal::Metrics) => {
            format!(
                "{}/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
                url.trim_end_matches('/')
            )
        }
    };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    let usable =
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty());
    if usable { Ok(uri) } else { Err(wrong()) }
}

/// The texts are ours: those of the libraries may hold the address with what is secret in it.
fn failure(error: &BoxError) -> Failure {
    let kind = find::<NotConnected>(&**error).map_or(ErrorType::Interrupted, |failed| failed.kind);
    let message = match kind {
        ErrorType::Dns => "its name could not be resolved".to_owned(),
        ErrorType::Refused => "it refused the connection".to_owned(),
        ErrorType::Tls => match find::<rustls::Error>(&**error) {
            Some(error) => format!("no TLS: {error}"),
            None => "no TLS: the handshake broke off".to_owned(),
        },
        ErrorType::Interrupted => "the connection broke before the answer was complete".to_owned(),
        _ => "no connection".to_owned(),
    };
    Failure::new(kind, message).retried()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_adds_the_service_and_http_nothing() {
        let of = |url: &str, grpc, signal| address(url, grpc, signal).map(|uri| uri.to_string());
        assert_eq!(of("http://c:1/x", false, Signal::Traces).unwrap(), "http://c:1/x");
        assert_eq!(
            of("https://c:1/", true, Signal::Traces).unwrap(),
            "https://c:1/opentelemetry.proto.collector.trace.v1.TraceService/Export"
        );
        assert_eq!(
            of("http://c", true, Signal::Metrics).unwrap(),
            "http://c/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
        );
        for wrong in ["c:1", "ftp://c", "http://", "http:///x", "http://a b", "/x"] {
            assert!(of(wrong, false, Signal::Traces).unwrap_err().ends_with("http or https URL with a host"));
        }
    }
}
