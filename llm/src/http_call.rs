//! One HTTP exchange with a provider: the innermost stage, with a span of its own per attempt.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use hyper::body::Incoming;
use opentelemetry::trace::SpanKind;
use serde::Deserialize;
use serde_json::Value;
use throughline::telemetry::{Attribute, Ended, NoEvents, Registry, Reported, Run, Stage};
use throughline::{Context, Error, Kind, Result};

use crate::client::{ClientError, ClientErrorKind, HttpClient, MAX_ANSWER_BYTES, collect, port};

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "http",
    &[
        Attribute::string("http.request.method", "`POST`"),
        Attribute::string("server.address", "The host that is called"),
        Attribute::int("server.port", "The port that is called"),
        Attribute::string(
            "url.full",
            "The address that is called, which has neither credentials nor a query",
        ),
        Attribute::int("http.response.status_code", "What was answered, if anything was"),
    ],
)
.spans_called("POST")
.spans_of_kind("CLIENT")
.spans_within("`chat {gen_ai.request.model}`");

/// The longest explanation of a refusal that is read, in bytes.
const MAX_EXPLANATION_BYTES: usize = 64 * 1024;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// A request to a provider.
#[derive(Clone)]
pub struct HttpRequest {
    /// Where to.
    pub uri: Uri,
    /// With which headers.
    pub headers: HeaderMap,
    /// With which body.
    pub body: Bytes,
}

/// A provider's answer to a request that it accepted.
pub enum HttpAnswer {
    /// The whole body.
    Full(Bytes),
    /// The body as it comes.
    Stream(Incoming),
}

/// A request that a provider refused because of what is in it. It is the cause of the [`Error`] and may be
/// shown to whoever sent the request.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status: 400, 404, 413, 415 or 422.
    pub status: u16,
    /// What the provider said, at full length: who shortens it takes out what is secret first, since half a key is no
    /// longer known as one.
    pub message: String,
    /// The provider's `type`.
    pub kind: Option<String>,
    /// The field that is wrong.
    pub param: Option<String>,
    /// The provider's `code`.
    pub code: Option<String>,
}

/// Sends requests to one provider.
#[derive(Debug)]
pub struct HttpCall {
    provider: String,
    client: HttpClient,
    forwards_trace: bool,
}

// === impl HttpRequest ===

impl fmt::Debug for HttpRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HttpRequest({} bytes)", self.body.len())
    }
}

// === impl HttpAnswer ===

impl fmt::Debug for HttpAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(body) => write!(f, "Full({} bytes)", body.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

// === impl HttpCall ===

impl HttpCall {
    /// Calls to `provider`, as it is called in the configuration.
    #[must_use]
    pub fn new(provider: impl Into<String>, client: HttpClient) -> Self {
        Self { provider: provider.into(), client, forwards_trace: false }
    }

    /// Sends the attempt's `traceparent` along, unless the environment has switched that off. What vendors and
    /// callers have noted, `tracestate` and `baggage`, is never sent.
    #[must_use]
    pub fn forwarding_trace(self) -> Self {
        Self { forwards_trace: true, ..self }
    }

    fn add_trace(&self, headers: &mut HeaderMap, cx: &Context) {
        if !self.forwards_trace || !cx.sink().propagators().trace_context {
            return;
        }
        if let Some(parent) = cx.traceparent().and_then(|parent| HeaderValue::try_from(parent).ok()) {
            headers.insert(TRACEPARENT, parent);
        }
    }
}

impl Stage for HttpCall {
    type In = HttpRequest;
    type Out = HttpAnswer;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "http";
    const SPAN_KIND: SpanKind = SpanKind::Client;

    fn operation(&self) -> &str {
        &self.provider
    }

    fn span_name(&self) -> Cow<'static, str> {
        "POST".into()
    }

    fn declare(&self, _: &Registry) {}

    async fn run(
        &self,
        mut request: HttpRequest,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<HttpAnswer> {
        self.add_trace(&mut request.headers, cx);
        run.attribute("http.request.method", "POST");
        if run.records() {
            run.attribute("server.address", request.uri.host().unwrap_or_default().to_owned());
            run.attribute("server.port", i64::from(port(&request.uri).unwrap_or_default()));
            run.attribute("url.full", request.uri.to_string());
        }
        let answer =
            self.client.post(&request.uri, request.headers, request.body).await.map_err(unreachable)?;
        let (head, body) = answer.into_parts();
        run.attribute("http.response.status_code", i64::from(head.status.as_u16()));
        if !head.status.is_success() {
            // The body only explains; one that cannot be read explains nothing.
            let body = collect(body, MAX_EXPLANATION_BYTES).await.unwrap_or_default();
            return Err(refused(head.status, &head.headers, &body));
        }
        let streamed = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.as_bytes().get(..EVENT_STREAM.len()))
            .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
        if streamed {
            return Ok(HttpAnswer::Stream(body));
        }
        collect(body, MAX_ANSWER_BYTES).await.map(HttpAnswer::Full).map_err(incomplete)
    }
}

fn unreachable(error: ClientError) -> Error {
    Error::new(Kind::Upstream, "the provider could not be reached").because(error)
}

fn incomplete(error: ClientError) -> Error {
    match error.kind() {
        ClientErrorKind::TooLarge => {
            let what = format!("the provider's answer is larger than {MAX_ANSWER_BYTES} bytes");
            Error::new(Kind::Upstream, what).fatal()
        }
        _ => Error::new(Kind::Upstream, "the provider broke off its answer"),
    }
    .because(error)
}

/// The error for an answer that is not a success.
pub(crate) fn refused(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    let number = status.as_u16();
    match number {
        400 | 404 | 413 | 415 | 422 => {
            let refusal = Refusal::read(number, body);
            Error::new(Kind::InvalidInput, format!("the provider refused the request with {number}"))
                .because(refusal)
        }
        401 | 403 => {
            Error::new(Kind::Upstream, format!("the provider refused our key with {number}")).fatal()
        }
        408 => Error::new(Kind::Upstream, "the provider gave up waiting for the request"),
        429 => later(Error::new(Kind::RateLimited, "the provider limits our rate"), headers),
        500.. => later(Error::new(Kind::Upstream, format!("the provider answered {number}")), headers),
        _ => Error::new(Kind::Upstream, format!("the provider answered {number}, which was not expected"))
            .fatal(),
    }
}

/// `Retry-After` in seconds; a date is left out, for our clock and theirs may differ.
fn later(error: Error, headers: &HeaderMap) -> Error {
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    match seconds {
        Some(seconds) => error.with_retry_after(Duration::from_secs(seconds)),
        None => error,
    }
}

// === impl Refusal ===

impl Refusal {
    fn read(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Body {
            error: Detail,
        }
        #[derive(Default, Deserialize)]
        struct Detail {
            message: Option<Value>,
            #[serde(rename = "type")]
            kind: Option<Value>,
            param: Option<Value>,
            code: Option<Value>,
        }

        let detail = serde_json::from_slice::<Body>(body).map(|body| body.error).unwrap_or_default();
        let text = |value: Option<Value>| value.and_then(|value| value.as_str().map(str::to_owned));
        let message = text(detail.message).unwrap_or_else(|| format!("the provider answered {status}"));
        let (kind, param, code) = (text(detail.kind), text(detail.param), text(detail.code));
        Self { status, message, kind, param, code }
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({})", self.status)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused with {}", self.status)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, headers: &[(http::HeaderName, &str)], body: &str) -> Error {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        refused(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes())
    }

    #[test]
    fn says_which_failures_may_pass() {
        assert!(error(503, &[], "").is_retryable());
        assert!(error(500, &[], "").is_retryable());
        assert!(!error(401, &[], "").is_retryable());
        assert!(!error(302, &[], "").is_retryable());
        assert!(!error(400, &[], "").is_retryable());
        assert_eq!(error(429, &[(RETRY_AFTER, "7")], "").retry_after(), Some(Duration::from_secs(7)));
        assert_eq!(error(429, &[(RETRY_AFTER, "Wed, 21 Oct 2026 07:28:00 GMT")], "").retry_after(), None);
    }

    #[test]
    fn passes_on_what_was_wrong_with_the_request() {
        let body = r#"{"error":{"message":"max_tokens is too large","type":"invalid_request_error","param":"max_tokens","code":"too_large"}}"#;
        let error = error(400, &[], body);
        let refusal: &Refusal = error.cause().unwrap();
        assert_eq!(refusal.message, "max_tokens is too large");
        assert_eq!(refusal.param.as_deref(), Some("max_tokens"));
        assert_eq!(refusal.code.as_deref(), Some("too_large"));
        assert!(!format!("{error:?}").contains("too large"), "the text stays out of logs and spans");
    }

    #[test]
    fn says_nothing_of_what_was_wrong_with_our_key() {
        let body = r#"{"error":{"message":"Incorrect API key provided: abcdef"}}"#;
        let error = error(401, &[], body);
        assert!(error.cause::<Refusal>().is_none());
        assert_eq!(error.to_string(), "the provider refused our key with 401");
    }

    #[test]
    fn survives_an_explanation_that_is_none() {
        for body in ["", "<html>", "{}", r#"{"error":"no"}"#, r#"{"error":{"code":404}}"#] {
            let error = error(404, &[], body);
            assert_eq!(error.cause::<Refusal>().unwrap().message, "the provider answered 404", "{body}");
        }
    }
}
