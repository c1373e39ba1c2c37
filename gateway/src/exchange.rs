//! One HTTP exchange with a client, as a stage: the server span and the gateway's own families.
//!
//! It ends when the last byte of the answer has been handed over, or when the client is gone.

use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::Stream;
use http_body::Frame;
use opentelemetry::trace::SpanKind;
use throughline::telemetry::{
    Attribute, Counter, Deferred, End, Ended, Family, Gauge, Histogram, NoEvents, OWN_SECONDS, Observed,
    Registry, Reported, Run, Stage, WORK_SECONDS,
};
use throughline::{Context, Kind, Result};
use throughline_llm::{ChatStream, sse};

use crate::errors::ApiError;
use crate::gateway::Gateway;
use crate::logs::current::{within, within_now};
use crate::logs::{Access, requests};
use crate::routes::Route;
use crate::served::Served;

static REQUESTS: Family =
    Family::counter("gateway_requests", "Requests of clients, by route and status code", &["route", "code"]);
static DURATION: Family = Family::histogram(
    "gateway_request_duration_seconds",
    "From the request's head to the answer's last byte, in seconds",
    &["route"],
    WORK_SECONDS,
);
static OVERHEAD: Family = Family::histogram(
    "gateway_overhead_seconds",
    "The gateway's own share of a request's time, in seconds: time in calls to providers is taken off",
    &["route"],
    OWN_SECONDS,
);
static IN_FLIGHT: Family =
    Family::gauge("gateway_in_flight_requests", "Requests whose answer is not finished", &["route"]);

pub(crate) static FAMILIES: &[&Family] = &[&REQUESTS, &DURATION, &OVERHEAD, &IN_FLIGHT];

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "gateway",
    &[
        Attribute::string("url.path", "The path of the route, where the route is known"),
        Attribute::string("url.scheme", "`http`"),
        Attribute::string("http.request.method", "The method of the route, or `_OTHER`"),
        Attribute::string("http.route", "The path of the route, or `other`"),
        Attribute::int("http.response.status_code", "What was answered"),
    ],
)
.spans_called("{http.request.method} {http.route}")
.spans_of_kind("SERVER")
.spans_within("the client's span where it is trusted, else nothing");

/// The code for a client that went away before it had its answer.
const CLIENT_GONE: u16 = 499;

/// Requests to one route.
pub(crate) struct Exchange {
    route: Route,
    gateway: Arc<Gateway>,
}

/// A request, and what is served to it.
pub(crate) struct Received {
    pub(crate) request: Request<Body>,
    pub(crate) served: Arc<Served>,
}

/// What a route answers.
pub(crate) enum Reply {
    /// Everything.
    Whole(Response<Body>),
    /// The head, and the rest as it comes.
    Streamed(Response<()>, ChatStream),
}

/// Handles to the gateway's families for one route.
pub(crate) struct Signals {
    duration: Histogram,
    overhead: Histogram,
    in_flight: Gauge,
    ok: Counter,
}

/// The status that was answered.
#[derive(Debug, Default)]
pub(crate) struct Note(Option<StatusCode>);

/// A streamed answer on its way to the client.
struct StreamedBody {
    // Dropped in this order: the call to the provider has ended when the exchange does.
    stream: Option<ChatStream>,
    exchange: Option<Deferred<Exchange>>,
    access: Option<Access>,
    cx: Context,
}

// === impl Exchange ===

impl Exchange {
    /// Answers requests to `route`.
    pub(crate) fn new(route: Route, gateway: Arc<Gateway>) -> Observed<Self> {
        Observed::new(Self { route, gateway })
    }
}

impl Stage for Exchange {
    type In = Received;
    type Out = Response<Body>;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = Signals;
    type Note = Note;

    const PRIMITIVE: &'static str = "gateway";
    const SPAN_KIND: SpanKind = SpanKind::Server;

    fn operation(&self) -> &str {
        self.route.path()
    }

    fn span_name(&self) -> Cow<'static, str> {
        self.route.span_name().into()
    }

    fn declare(&self, registry: &Registry) -> Signals {
        let route = self.route.path();
        Signals {
            duration: registry.histogram(&DURATION, &[route]),
            overhead: registry.histogram(&OVERHEAD, &[route]),
            in_flight: registry.gauge(&IN_FLIGHT, &[route]),
            ok: registry.counter(&REQUESTS, &[route, "200"]),
        }
    }

    async fn run(
        &self,
        Received { request, served }: Received,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<Response<Body>> {
        if let Some(signals) = run.signals() {
            signals.in_flight.inc();
        }
        // The path of an unknown route is a stranger's text.
        if !matches!(self.route, Route::Other) {
            run.attribute("url.path", self.route.path());
        }
        run.attribute("url.scheme", "http");
        run.attribute("http.request.method", self.route.method());
        run.attribute("http.route", self.route.path());
        let mut access = self.gateway.logs.access.then(|| Access::begin(self.route, cx));
        let reply = within(cx.span(), self.route.answer(&self.gateway, &served, request, cx)).await;
        let status = match &reply {
            Reply::Whole(response) => response.status(),
            Reply::Streamed(head, _) => head.status(),
        };
        run.note = Note(Some(status));
        if let Some(access) = &mut access {
            access.answered(status.as_u16());
        }
        run.attribute("http.response.status_code", i64::from(status.as_u16()));
        Ok(match reply {
            Reply::Whole(response) => {
                if let Some(access) = &mut access {
                    access.ended(!status.is_server_error());
                }
                if status.is_server_error() {
                    run.defer().end(Ended::Error, Some(error_type(status)));
                }
                response
            }
            Reply::Streamed(head, stream) => {
                let (exchange, cx) = (Some(run.defer()), cx.clone());
                let body = StreamedBody { stream: Some(stream), exchange, cx, access };
                head.map(|()| Body::new(body))
            }
        })
    }

    fn ended(&self, end: &End<'_, Self>) {
        let Some(seen) = &end.seen else { return };
        let handles = seen.signals;
        handles.in_flight.dec();
        let gone = end.outcome == Ended::Cancelled;
        let code =
            if gone { CLIENT_GONE } else { end.note.0.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR).as_u16() };
        if code == 200 {
            handles.ok.inc();
        } else if let Some(registry) = seen.cx.sink().registry() {
            // A status is a number that this program chose or a provider's refusal among five.
            registry.counter(&REQUESTS, &[self.route.path(), &code.to_string()]).inc();
        }
        handles.duration.observe_time(seen.elapsed, seen.trace);
        let overhead = seen.elapsed.saturating_sub(seen.cx.upstream_time());
        handles.overhead.observe_time(overhead, seen.trace);
    }
}

/// The status as a name: that is what the HTTP conventions call the error of a server's span.
fn error_type(status: StatusCode) -> &'static str {
    match status {
        StatusCode::INTERNAL_SERVER_ERROR => "500",
        StatusCode::BAD_GATEWAY => "502",
        StatusCode::SERVICE_UNAVAILABLE => "503",
        StatusCode::GATEWAY_TIMEOUT => "504",
        _ => "_OTHER",
    }
}

// === impl StreamedBody ===

impl StreamedBody {
    fn end(&mut self, failed: Option<Kind>) {
        self.stream = None;
        if let Some(mut access) = self.access.take() {
            access.ended(failed.is_none());
        }
        if let Some(exchange) = self.exchange.take() {
            let outcome = if failed.is_some() { Ended::Error } else { Ended::Success };
            exchange.end(outcome, failed.map(Kind::as_str));
        }
    }
}

impl http_body::Body for StreamedBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Some(stream) = &mut self.stream else { return Poll::Ready(None) };
        let next = ready!(Pin::new(stream).poll_next(task));
        match next {
            Some(Ok(events)) => Poll::Ready(Some(Ok(Frame::data(events)))),
            Some(Err(error)) => {
                within_now(self.cx.span(), || requests::failed(&error, &self.cx));
                self.end(Some(error.kind()));
                // Clients read this event as an error, and no `[DONE]` follows it.
                Poll::Ready(Some(Ok(Frame::data(sse::event(&ApiError::from(&error).body())))))
            }
            None => {
                self.end(None);
                Poll::Ready(None)
            }
        }
    }
}
