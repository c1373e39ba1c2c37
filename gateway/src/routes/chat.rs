//! `POST /v1/chat/completions`: the life of a chat request.
//!
//! receive the body -> peek at the fields we act on -> find the model -> run its workflow (cache, route,
//! fallbacks, attempts, provider) -> answer whole or streamed, and say in headers what happened.

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use throughline::cache::{CachePolicy, CachedAge};
use throughline::fallback::AnsweredBy;
use throughline::telemetry::Label as _;
use throughline::{CacheOutcome, Context, Node, RouteTaken};
use throughline_llm::openai::ChatRequest;
use throughline_llm::semantic::Similarity;
use throughline_llm::{Answer, Attempts, Spent};

use crate::cache_control;
use crate::config::PRIMARY;
use crate::errors::ApiError;
use crate::exchange::Reply;
use crate::gateway::{BODY_LIMIT, Gateway};
use crate::logs::{Asked, Used, requests};
use crate::served::Served;

const ROUTE: HeaderName = HeaderName::from_static("x-throughline-route");
const FALLBACK: HeaderName = HeaderName::from_static("x-throughline-fallback");
const CACHE: HeaderName = HeaderName::from_static("x-throughline-cache");
const SIMILARITY: HeaderName = HeaderName::from_static("x-throughline-semantic-similarity");
const ATTEMPTS: HeaderName = HeaderName::from_static("x-throughline-attempts");
const COST: HeaderName = HeaderName::from_static("x-throughline-cost-usd");
const TRACE_ID: HeaderName = HeaderName::from_static("x-throughline-trace-id");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Answers a chat request.
pub(super) async fn answer(
    gateway: &Gateway,
    served: &Served,
    request: Request<Body>,
    cx: &Context,
) -> Reply {
    let mut reply = match converse(gateway, served, request, cx).await {
        Ok(Answer::Full(answer)) => {
            let mut response = Response::new(Body::from(answer.body));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Reply::Whole(response)
        }
        Ok(Answer::Stream(stream)) => {
            let mut head = Response::new(());
            head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
            head.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            Reply::Streamed(head, stream)
        }
        Ok(_) => Reply::Whole(ApiError::internal().into_response()),
        Err(error) => Reply::Whole(error.into_response()),
    };
    let headers = match &mut reply {
        Reply::Whole(response) => response.headers_mut(),
        Reply::Streamed(head, _) => head.headers_mut(),
    };
    tell(headers, cx);
    reply
}

async fn converse(
    gateway: &Gateway,
    served: &Served,
    request: Request<Body>,
    cx: &Context,
) -> Result<Answer, ApiError> {
    let wanted = cache_control::policy(request.headers());
    let body = cx.elsewhere(receive(request.into_body(), served.max_body)).await?;
    let request = ChatRequest::parse(body, &served.limits)?;
    let model = served
        .models
        .get(request.model())
        .ok_or_else(|| ApiError::unknown_model(request.model(), served.models.keys().map(String::as_str)))?;
    if gateway.logs.access {
        cx.state().insert(Asked(request.model().into()));
    }
    if wanted != CachePolicy::new() {
        if wanted.is_only_if_cached() && !has_cache(&model.describe()) {
            return Err(ApiError::not_cached());
        }
        cx.state().insert(wanted);
    }
    // There before anything is tried, so that attempts side by side count together.
    cx.state().insert(Attempts::default());
    let answer = match request.stream() {
        true => model.run(request, &cx.expecting_stream()).await,
        false => model.run(request, cx).await,
    };
    let answer = match gateway.logs.access {
        true => answer.map(|answer| noted(answer, cx)),
        false => answer,
    };
    answer.map_err(|error| {
        requests::failed(&error, cx);
        ApiError::from(&error)
    })
}

/// Whether answers of this workflow are kept anywhere.
fn has_cache(part: &Node) -> bool {
    part.primitive() == "cache" || part.children().iter().any(has_cache)
}

/// What a client is told of the cache. That a stored answer could not be read, that the store has failed, or that it was
/// an error that was given again, is for the operator: the metrics and the log say it.
fn told(outcome: CacheOutcome) -> &'static str {
    match outcome {
        CacheOutcome::Corrupt => CacheOutcome::Miss.as_str(),
        CacheOutcome::Error => CacheOutcome::Bypass.as_str(),
        CacheOutcome::Negative => CacheOutcome::Hit.as_str(),
        other => other.as_str(),
    }
}

/// Leaves the tokens of an answer for the line about the request.
fn noted(answer: Answer, cx: &Context) -> Answer {
    match answer {
        Answer::Stream(stream) => {
            let cx = cx.clone();
            let note = move |usage| cx.state().insert(Used(usage));
            Answer::Stream(stream.on_end(move |end| end.usage.into_iter().for_each(note)))
        }
        Answer::Full(full) => {
            full.usage.into_iter().for_each(|usage| cx.state().insert(Used(usage)));
            Answer::Full(full)
        }
        other => other,
    }
}

async fn receive(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    // A body that is announced as too large need not be sent at all.
    if body.size_hint().lower() > limit as u64 {
        return Err(ApiError::too_large(limit));
    }
    match tokio::time::timeout(BODY_LIMIT, Limited::new(body, limit).collect()).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::too_large(limit)),
        Ok(Err(_)) | Err(_) => Err(ApiError::body_not_received()),
    }
}

/// Says in headers what happened to the request. What is unknown is left out: the cost of a stream, for
/// one, is known only after its head.
fn tell(headers: &mut HeaderMap, cx: &Context) {
    let state = cx.state();
    let mut put = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(REQUEST_ID, cx.correlation_id());
    if let Some(trace) = cx.trace_id() {
        put(TRACE_ID, &trace.to_string());
    }
    if let Some(taken) = state.get::<RouteTaken>() {
        requests::routed(&taken, cx);
        put(ROUTE, &taken.route);
    }
    if let Some(by) = state.get::<AnsweredBy>().filter(|by| *by.name != *PRIMARY) {
        requests::fell_back(&by, cx);
        put(FALLBACK, &by.name);
    }
    if let Some(outcome) = state.get::<CacheOutcome>() {
        requests::cached(*outcome, cx);
        put(CACHE, told(*outcome));
        if let (CacheOutcome::Hit | CacheOutcome::Stale, Some(age)) = (*outcome, state.get::<CachedAge>()) {
            put(AGE, &age.0.as_secs().to_string());
        }
    }
    if let Some(similarity) = state.get::<Similarity>() {
        put(SIMILARITY, &format!("{:.4}", similarity.0));
    }
    let attempts = state.get::<Attempts>().map_or(0, |attempts| attempts.count());
    put(ATTEMPTS, &attempts.to_string());
    let spent = match state.get::<Spent>() {
        Some(spent) => spent.0,
        None => (attempts == 0).then_some(0.0),
    };
    if let Some(usd) = spent {
        put(COST, &format!("{usd:.9}"));
    }
}
