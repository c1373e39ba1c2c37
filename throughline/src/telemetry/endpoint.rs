//! Serves the metrics: `GET /metrics`.
//!
//! It runs on the thread of the telemetry instance, so a scrape is answered even while the program's own
//! runtime is busy or stuck.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::Semaphore;

use super::health::Health;
use super::sink::Sink;
use super::text::{OPENMETRICS, TEXT, to_text, wants_openmetrics};

/// Scrapes at the same time.
const CONNECTIONS: usize = 64;
/// A client that sends its request more slowly than this is cut off.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// How often a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Binds `address` now, so that the caller learns the port.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, String> {
    if !address.ip().is_loopback() {
        return Err(format!(
            "metrics are not served on {address}: they have no authentication, so only a loopback address is allowed"
        ));
    }
    let listener = TcpListener::bind(address).map_err(|error| format!("metrics port {address}: {error}"))?;
    listener.set_nonblocking(true).map_err(|error| format!("metrics port {address}: {error}"))?;
    Ok(listener)
}

/// Serves on `listener`; without one, keeps trying to bind `address`.
pub(super) async fn serve(
    listener: Option<TcpListener>,
    address: SocketAddr,
    sink: Sink,
    health: Arc<Health>,
) {
    let mut listener = listener;
    loop {
        if listener.is_none() {
            tokio::time::sleep(RETRY).await;
            listener = bind(address).ok();
        }
        let Some(bound) = listener.take().and_then(|bound| tokio::net::TcpListener::from_std(bound).ok())
        else {
            continue;
        };
        health.metrics_up(bound.local_addr().unwrap_or(address));
        accept(bound, &sink).await;
    }
}

async fn accept(listener: tokio::net::TcpListener, sink: &Sink) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                // Out of file descriptors, most likely: wait for some to be closed.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let sink = sink.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let answer = answer(&request, &sink);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_LIMIT)
                .serve_connection(TokioIo::new(stream), answer);
            // A scraper that hangs up is its own affair.
            let _ = connection.await;
            drop(slot);
        });
    }
}

fn answer(request: &Request<Incoming>, sink: &Sink) -> Response<Full<Bytes>> {
    match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET | &Method::HEAD) => {
            let accept =
                request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let page = sink.render();
            if wants_openmetrics(accept) { text(page, OPENMETRICS) } else { text(to_text(&page), TEXT) }
        }
        ("/metrics", _) => {
            let mut response = text("use GET\n".to_owned(), TEXT);
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            response
        }
        _ => {
            let mut response = text("metrics are at /metrics\n".to_owned(), TEXT);
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}

fn text(body: String, kind: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
