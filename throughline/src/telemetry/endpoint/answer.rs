//! What is answered: `/metrics`, `/healthz`, `/readyz`, and that there is nothing else.
//!
//! | path | who has shown nothing | who may read everything |
//! |---|---|---|
//! | `/healthz` | `ok` | `ok` |
//! | `/readyz` | the status | the status, and what is broken and why |
//! | `/metrics` | 401 | the page |
//!
//! Where nothing is asked for, everybody may read everything: that is allowed on this machine only. Wrong credentials
//! are refused on every path that looks at them.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};

use super::guard::{Access, Guard, Peer};
use super::security::Rules;
use crate::telemetry::health::Health;
use crate::telemetry::sink::Sink;
use crate::telemetry::text::{OPENMETRICS, TEXT, to_text, wants_openmetrics};

const PLAIN: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Answers requests.
pub(super) struct Answers {
    pub(super) sink: Sink,
    pub(super) health: Arc<Health>,
    pub(super) guard: Arc<Guard>,
}

// === impl Answers ===

impl Answers {
    /// The answer to `request` of the client at `peer`.
    pub(super) async fn answer<B>(&self, request: &Request<B>, peer: &Peer) -> Response<Full<Bytes>> {
        let rules = self.guard.rules();
        let mut response = self.respond(request, peer, &rules).await;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if !Arc::ptr_eq(&rules, &peer.rules) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        for (name, value) in &rules.headers {
            headers.insert(name, value.clone());
        }
        response
    }

    async fn respond<B>(&self, request: &Request<B>, peer: &Peer, rules: &Rules) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            return text(StatusCode::NOT_FOUND, PLAIN, "metrics are at /metrics\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "use GET\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if path == "/healthz" {
            return text(StatusCode::OK, PLAIN, "ok");
        }
        match (self.guard.admit(rules, peer, request.headers()).await, path) {
            (Access::Refused, _) | (Access::Anonymous, "/metrics") => unauthorized(rules),
            (Access::Busy, _) => later(),
            (access, "/readyz") => self.readiness(access == Access::Granted),
            (Access::Granted | Access::Anonymous, _) => self.page(request),
        }
    }

    fn readiness(&self, reasons: bool) -> Response<Full<Bytes>> {
        let readiness = self.health.readiness();
        let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let shown = if reasons { readiness } else { readiness.without_reasons() };
        text(status, JSON, shown.to_json())
    }

    fn page<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let page = self.sink.render();
        if wants_openmetrics(accept) {
            text(StatusCode::OK, OPENMETRICS, page)
        } else {
            text(StatusCode::OK, TEXT, to_text(&page))
        }
    }
}

fn unauthorized(rules: &Rules) -> Response<Full<Bytes>> {
    let mut response = text(StatusCode::UNAUTHORIZED, PLAIN, "credentials are needed here\n");
    let mut challenge =
        |value| response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(value));
    if !rules.users.is_empty() {
        challenge("Basic realm=\"metrics\", charset=\"UTF-8\"");
    }
    if !rules.tokens.is_empty() {
        challenge("Bearer realm=\"metrics\"");
    }
    response
}

fn later() -> Response<Full<Bytes>> {
    let mut response = text(
        StatusCode::TOO_MANY_REQUESTS,
        PLAIN,
        "too many passwords are being checked: come again later\n",
    );
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
