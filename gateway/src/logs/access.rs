//! One line a request, when that is asked for.

use std::sync::Arc;

use throughline::fallback::AnsweredBy;
use throughline::telemetry::{Label as _, Tick};
use throughline::{CacheOutcome, Context, RouteTaken};
use throughline_llm::openai::Usage;
use throughline_llm::{Attempts, Spent};

use super::current;
use crate::routes::Route;

/// The `target` of these lines.
pub(super) const ACCESS: &str = "throughline::access";

/// The code for a client that went away before it had its answer.
const CLIENT_GONE: u16 = 499;

/// A request that is being answered. Its line is written when this is dropped.
pub(crate) struct Access {
    cx: Context,
    began: Tick,
    route: Route,
    status: Option<u16>,
    outcome: &'static str,
}

/// The configured model that a request is for, left in [`Context::state`].
#[derive(Clone, Debug)]
pub(crate) struct Asked(pub(crate) Arc<str>);

/// The tokens of the answer, left in [`Context::state`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used(pub(crate) Usage);

// === impl Access ===

impl Access {
    /// A request to `route` begins.
    pub(crate) fn begin(route: Route, cx: &Context) -> Self {
        Self { cx: cx.clone(), began: cx.clock().now(), route, status: None, outcome: "cancelled" }
    }

    /// The head of the answer, of which the rest follows.
    pub(crate) fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// The answer is complete, or has failed.
    pub(crate) fn ended(&mut self, well: bool) {
        self.outcome = if well { "success" } else { "error" };
    }

    fn tell(&self) {
        let state = self.cx.state();
        let (taken, by) = (state.get::<RouteTaken>(), state.get::<AnsweredBy>());
        let model = state.get::<Asked>();
        let usage = state.get::<Used>().map(|used| used.0);
        let attempts = state.get::<Attempts>().map(|attempts| attempts.count());
        let cost = state.get::<Spent>().map_or_else(|| (attempts == Some(0)).then_some(0.0), |spent| spent.0);
        tracing::info!(
            target: ACCESS,
            method = self.route.method(),
            path = self.route.path(),
            status = self.status.unwrap_or(CLIENT_GONE),
            outcome = self.outcome,
            duration_ms = milliseconds(self.cx.clock().now().since(self.began)),
            upstream_ms = milliseconds(self.cx.upstream_time()),
            model = model.as_ref().map(|asked| &*asked.0),
            route = taken.as_ref().map(|taken| taken.route.as_str()),
            answered_by = by.as_ref().map(|by| &*by.name),
            cache = state.get::<CacheOutcome>().map(|outcome| outcome.as_str()),
            attempts,
            input_tokens = usage.map(|usage| usage.prompt_tokens),
            output_tokens = usage.map(|usage| usage.completion_tokens),
            cost_usd = cost,
            request_id = self.cx.correlation_id(),
            "a request was answered"
        );
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        current::within_now(self.cx.span(), || self.tell());
    }
}

/// To a microsecond.
fn milliseconds(time: std::time::Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
