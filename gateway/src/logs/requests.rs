//! What a request has to say beside its answer: that it failed, and why; that it went another way than it should have.

use throughline::fallback::AnsweredBy;
use throughline::router::RouteReason;
use throughline::telemetry::Label as _;
use throughline::{Blame, CacheOutcome, Context, Error, Kind, RouteTaken};

/// The `target` of these lines.
macro_rules! requests {
    () => {
        "throughline::requests"
    };
}

/// The client hears what failed, and the log why. Neither holds anything of what was said.
pub(crate) fn failed(error: &Error, cx: &Context) {
    if error.blame() == Blame::Caller {
        return;
    }
    let (request_id, kind) = (cx.correlation_id(), error.kind().as_str());
    let taken = cx.state().get::<RouteTaken>();
    let route = taken.as_ref().map(|taken| taken.route.as_str());
    match error.kind() {
        Kind::Timeout | Kind::Internal => {
            tracing::error!(target: requests!(), request_id, route, kind, error = ?error, "a request failed");
        }
        _ => tracing::warn!(target: requests!(), request_id, route, kind, error = ?error, "a request failed"),
    }
}

/// Says when choosing a route has failed. That a client names one that does not exist is its own affair: it must not be able
/// to fill the log.
pub(crate) fn routed(taken: &RouteTaken, cx: &Context) {
    if taken.reason == RouteReason::RoutingErrorFallback {
        let (route, reason) = (taken.route.as_str(), taken.reason.as_str());
        let request_id = cx.correlation_id();
        tracing::warn!(target: requests!(), request_id, route, reason, "a request took the default route");
    }
}

/// Says that a fallback answered.
pub(crate) fn fell_back(by: &AnsweredBy, cx: &Context) {
    let (request_id, route) = (cx.correlation_id(), &*by.name);
    tracing::warn!(target: requests!(), request_id, route, "a fallback answered");
}

/// Says when the cache did not do its work.
pub(crate) fn cached(outcome: CacheOutcome, cx: &Context) {
    let request_id = cx.correlation_id();
    match outcome {
        CacheOutcome::Error => tracing::warn!(target: requests!(), request_id, "the cache's store failed"),
        CacheOutcome::Corrupt => {
            tracing::warn!(target: requests!(), request_id, "a stored answer could not be read and was deleted");
        }
        _ => {}
    }
}
