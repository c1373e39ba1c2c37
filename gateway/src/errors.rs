//! Every refusal and failure as HTTP, in OpenAI's error shape. The only place that maps errors to statuses.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use axum::http::{Response, StatusCode};
use bytes::Bytes;
use throughline::cache::NotCached;
use throughline::redact::Redactor;
use throughline::telemetry::Sink;
use throughline::{Error, Kind};
use throughline_llm::Refusal;
use throughline_llm::openai::{RequestError, error_body};

use crate::config::nearest;

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: Cow<'static, str>,
    kind: Cow<'static, str>,
    param: Option<Cow<'static, str>>,
    code: Option<Cow<'static, str>>,
    retry_after: Option<Duration>,
}

const INVALID_REQUEST: &str = "invalid_request_error";
const SERVER_ERROR: &str = "server_error";

/// The longest part of a client's own words that is repeated to it.
const LONGEST_ECHO: usize = 64;

/// The longest message, and the longest of the other words, that is passed on, in characters.
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_WORD: usize = 128;

/// What is found in errors is counted where new requests report to.
fn redactor() -> Redactor {
    Sink::current().redactor()
}

// === impl ApiError ===

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            message: message.into(),
            kind: kind.into(),
            param: None,
            code: Some(code.into()),
            retry_after: None,
        }
    }

    /// A fault of this program.
    pub(crate) fn internal() -> Self {
        let message = "the gateway failed to answer; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal_error", message)
    }

    /// No such path.
    pub(crate) fn unknown_path() -> Self {
        let message = "no such path: there are POST /v1/chat/completions, GET /v1/models, GET /healthz and GET /readyz; metrics \
                       have a port of their own";
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "unknown_path", message)
    }

    /// A path that exists, by the wrong method.
    pub(crate) fn wrong_method() -> Self {
        let message = "wrong method: use POST for /v1/chat/completions and GET for every other path";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, "wrong_method", message)
    }

    /// A request that a web page made a browser send.
    pub(crate) fn foreign_origin() -> Self {
        let message = "requests of web pages are not served, except of pages on this machine";
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, "foreign_origin", message)
    }

    /// A body over the limit.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("the body is larger than {limit} bytes, which is the most that is accepted");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, "request_too_large", message)
    }

    /// A body that did not come in time, or not whole.
    pub(crate) fn body_not_received() -> Self {
        let message = "the body did not arrive completely";
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, "incomplete_body", message)
    }

    /// A model that is not configured.
    pub(crate) fn unknown_model<'a>(asked: &str, models: impl Iterator<Item = &'a str>) -> Self {
        // Before it is cut: half a key is no longer known as one.
        let asked = redactor().text(asked).into_owned();
        let asked: String = asked.chars().filter(|c| !c.is_control()).take(LONGEST_ECHO).collect();
        let models: Vec<_> = models.collect();
        let hint =
            nearest(&asked, &models).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
        let message =
            format!("the model `{asked}` does not exist{hint} (GET /v1/models lists those that do)");
        let error = Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, "model_not_found", message);
        Self { param: Some("model".into()), ..error }
    }

    /// An answer that the client wants from the cache only, where it is not.
    pub(crate) fn not_cached() -> Self {
        let message = "no answer to this request is in the cache, and only-if-cached forbids to ask for one";
        Self::new(StatusCode::GATEWAY_TIMEOUT, INVALID_REQUEST, "not_cached", message)
    }

    /// The body. What a client or a provider said may hold a key: it is taken out.
    pub(crate) fn body(&self) -> Bytes {
        let clean = |text: &str, most| shortened(redactor().text(text).into_owned(), most);
        let word = |text: &Option<Cow<'static, str>>| text.as_deref().map(|text| clean(text, LONGEST_WORD));
        let (param, code) = (word(&self.param), word(&self.code));
        let message = clean(&self.message, LONGEST_MESSAGE);
        error_body(&message, &clean(&self.kind, LONGEST_WORD), param.as_deref(), code.as_deref())
    }

    /// The whole answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.body()));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(delay) = self.retry_after {
            // Who comes back a part of a second too early comes for nothing.
            let seconds = delay.as_secs() + u64::from(delay.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

fn shortened(mut text: String, most: usize) -> String {
    if let Some((end, _)) = text.char_indices().nth(most) {
        text.truncate(end);
    }
    text
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        let code = match error {
            RequestError::NotJson { .. } => "invalid_json",
            RequestError::TooDeep { .. } => "too_deep",
            RequestError::TooManyMessages { .. } => "too_many_messages",
            _ => "invalid_request",
        };
        let refused = Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, code, error.to_string());
        Self { param: error.param().map(Cow::Borrowed), ..refused }
    }
}

impl From<&Error> for ApiError {
    fn from(error: &Error) -> Self {
        if let Some(refusal) = error.cause::<Refusal>() {
            return refusal.into();
        }
        if error.cause::<NotCached>().is_some() {
            return Self::not_cached();
        }
        let (status, kind, code) = match error.kind() {
            Kind::InvalidInput => (StatusCode::BAD_REQUEST, INVALID_REQUEST, "invalid_request"),
            Kind::Timeout => (StatusCode::GATEWAY_TIMEOUT, SERVER_ERROR, "timeout"),
            Kind::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", "rate_limited"),
            Kind::Rejected => (StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "overloaded"),
            Kind::CircuitOpen => (StatusCode::SERVICE_UNAVAILABLE, SERVER_ERROR, "circuit_open"),
            Kind::Upstream => (StatusCode::BAD_GATEWAY, SERVER_ERROR, "upstream_error"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, SERVER_ERROR, "internal_error"),
        };
        Self { retry_after: error.retry_after(), ..Self::new(status, kind, code, error.to_string()) }
    }
}

impl From<&Refusal> for ApiError {
    fn from(refusal: &Refusal) -> Self {
        Self {
            status: StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST),
            message: refusal.message.clone().into(),
            kind: refusal.kind.clone().map_or(INVALID_REQUEST.into(), Cow::Owned),
            param: refusal.param.clone().map(Cow::Owned),
            code: refusal.code.clone().map(Cow::Owned),
            retry_after: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_status_and_a_code() {
        for (kind, status, code) in [
            (Kind::InvalidInput, 400, "invalid_request"),
            (Kind::Timeout, 504, "timeout"),
            (Kind::RateLimited, 429, "rate_limited"),
            (Kind::Rejected, 503, "overloaded"),
            (Kind::CircuitOpen, 503, "circuit_open"),
            (Kind::Upstream, 502, "upstream_error"),
            (Kind::Internal, 500, "internal_error"),
        ] {
            let error = ApiError::from(&Error::new(kind, "it failed"));
            let body: serde_json::Value = serde_json::from_slice(&error.body()).unwrap();
            assert_eq!(error.status.as_u16(), status);
            assert_eq!(body["error"]["code"], code);
            assert_eq!(body["error"]["message"], "it failed");
        }
    }

    #[test]
    fn says_when_to_come_back() {
        for (delay, expected) in [(0, "1"), (200, "1"), (7000, "7"), (9100, "10")] {
            let delay = Duration::from_millis(delay);
            let limited = Error::new(Kind::RateLimited, "slow down").with_retry_after(delay);
            let open = Error::new(Kind::CircuitOpen, "circuit open").with_retry_after(delay).fatal();
            for error in [limited, open] {
                let response = ApiError::from(&error).into_response();
                assert_eq!(response.headers()[RETRY_AFTER], expected);
            }
        }
    }

    #[test]
    fn takes_secrets_out_of_every_word_before_it_is_shortened() {
        let secret = "ann@example.com";
        let refusal = Refusal {
            status: 400,
            message: format!("{}{secret}", " ".repeat(LONGEST_MESSAGE - 5)),
            kind: Some(secret.to_owned()),
            param: Some(secret.to_owned()),
            code: Some(format!("{}{secret}", " ".repeat(LONGEST_WORD - 5))),
        };
        let body: serde_json::Value = serde_json::from_slice(&ApiError::from(&refusal).body()).unwrap();
        let error = &body["error"];
        assert!(error["message"].as_str().unwrap().ends_with(" [REDA"), "{error}");
        assert!(error["code"].as_str().unwrap().ends_with(" [REDA"), "{error}");
        assert_eq!(
            (&error["type"], &error["param"]),
            (&"[REDACTED:EMAIL]".into(), &"[REDACTED:EMAIL]".into())
        );
    }

    #[test]
    fn repeats_only_a_harmless_part_of_what_was_asked() {
        let asked = format!("x\r\n\u{1b}[31m{}", "y".repeat(500));
        let error = ApiError::unknown_model(&asked, ["auto"].into_iter());
        assert!(error.message.len() < 150, "{}", error.message);
        assert!(!error.message.chars().any(char::is_control));
    }
}
