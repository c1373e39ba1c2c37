//! A request of an operator that is not done.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use http_body_util::Full;
use throughline_llm::openai::error_body;

use super::wire::Task;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    message: Cow<'static, str>,
}

// === impl Refusal ===

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// It is not sent to this machine, as far as its `Host` says.
    pub(super) fn foreign_host() -> Self {
        let message = "the Host of a request to this port is localhost or a loopback address";
        Self::new(StatusCode::FORBIDDEN, "foreign_host", message)
    }

    /// A browser sends it for a page.
    pub(super) fn browser() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "browser",
            "requests of web pages are not served here, whichever they are",
        )
    }

    /// It does not show a token of `[admin]`.
    pub(super) fn unauthorized() -> Self {
        let message = "a token of bearer_tokens in [admin] is needed: Authorization: Bearer TOKEN";
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", message)
    }

    /// There is no such path.
    pub(super) fn unknown_path() -> Self {
        let paths = [Task::Stats, Task::Get, Task::Purge, Task::Flush].map(Task::path).join(", ");
        Self::new(StatusCode::NOT_FOUND, "unknown_path", format!("no such path: there are {paths}"))
    }

    /// A path of this port, by another method.
    pub(super) fn wrong_method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "use POST")
    }

    /// A body that is not said to be JSON.
    pub(super) fn not_json() -> Self {
        let message = "the body is JSON, and so says its Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_content_type", message)
    }

    /// A body over the limit.
    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("the body is larger than {most} bytes, which is the most that is accepted");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message)
    }

    /// A body that did not come in time, or not whole.
    pub(super) fn body_not_received() -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "incomplete_body", "the body did not arrive completely")
    }

    /// Something in the body is wrong.
    pub(super) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// A model that is not configured, and of which nothing is stored.
    pub(super) fn unknown_model(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "unknown_model", message)
    }

    /// More than one key fits.
    pub(super) fn ambiguous(message: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "ambiguous", message)
    }

    /// Nothing is there.
    pub(super) fn not_stored(message: String) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_stored", message)
    }

    /// A store did not do it.
    pub(super) fn failed(message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_failed", message)
    }

    /// Something is being done already.
    pub(super) fn busy() -> Self {
        let message = "another command is under way, and one is done at a time: come again when it has ended";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
    }

    /// The whole answer.
    pub(super) fn into_response(self) -> Response<Full<Bytes>> {
        let body = error_body(&self.message, "admin_error", None, Some(self.code));
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            // Who is not let in holds no place either.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"admin\""));
            }
            StatusCode::METHOD_NOT_ALLOWED => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
            }
            _ => {}
        }
        response
    }
}
