//! What of telemetry does not work, and since when.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
#[cfg(feature = "endpoint")]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::registry::Gauge;

/// A part that does not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Degraded {
    /// Which: `metrics` (the port), `endpoint_security` (its files), an exporter (`traces_otlp`, `metrics_console`, or the name
    /// that code gave it), `span_processor`, `thread`, or a part of the program.
    pub part: Cow<'static, str>,
    /// Why. It holds nothing secret.
    pub reason: String,
    /// Since when, by the wall clock.
    pub since: SystemTime,
}

/// What works and what does not, shared with the telemetry thread.
#[derive(Default)]
pub(super) struct Health {
    state: Mutex<State>,
    /// Parts of the program that say for themselves whether they work.
    #[cfg(feature = "endpoint")]
    beside: Mutex<Vec<Beside>>,
}

/// Tells what of a part of the program does not work.
#[cfg(feature = "endpoint")]
pub(super) type Beside = Arc<dyn Fn() -> Vec<Degraded> + Send + Sync>;

#[derive(Debug, Default)]
struct State {
    parts: BTreeMap<&'static str, Degraded>,
    metrics_address: Option<SocketAddr>,
    metrics_up: Option<Gauge>,
    #[cfg(feature = "endpoint")]
    draining: bool,
}

// === impl Degraded ===

impl Degraded {
    /// `part` does not work, for `reason`, since `since`: for parts that a program has beside its telemetry.
    #[must_use]
    pub fn new(part: impl Into<Cow<'static, str>>, reason: impl Into<String>, since: SystemTime) -> Self {
        Self { part: part.into(), reason: reason.into(), since }
    }
}

// === impl Health ===

impl Health {
    /// `part` does not work. What is said again keeps its first moment.
    pub(super) fn degraded(&self, part: &'static str, reason: String) {
        let mut state = self.lock();
        let since = state.parts.get(part).map_or_else(now, |known| known.since);
        state.parts.insert(part, Degraded::new(part, reason, since));
        if let (Some(up), "metrics") = (&state.metrics_up, part) {
            up.set(0);
        }
    }

    pub(super) fn recovered(&self, part: &'static str) {
        self.lock().parts.remove(part);
    }

    pub(super) fn degraded_parts(&self) -> Vec<Degraded> {
        self.lock().parts.values().cloned().collect()
    }

    #[cfg(feature = "endpoint")]
    pub(super) fn drain(&self) {
        self.lock().draining = true;
    }

    #[cfg(feature = "endpoint")]
    pub(super) fn readiness(&self) -> super::Readiness {
        let draining = self.lock().draining;
        let mut parts = self.degraded_parts();
        let beside = self.beside.lock().unwrap_or_else(PoisonError::into_inner).clone();
        parts.extend(beside.iter().flat_map(|part| part()));
        super::Readiness::new(draining, parts)
    }

    /// Asks `part` as well whenever readiness is asked for.
    #[cfg(feature = "endpoint")]
    pub(super) fn ask(&self, part: Beside) {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner).push(part);
    }

    /// Says in `gauge` whether metrics are served.
    pub(super) fn shows_in(&self, gauge: Option<Gauge>) {
        self.lock().metrics_up = gauge;
    }

    pub(super) fn metrics_address(&self) -> Option<SocketAddr> {
        self.lock().metrics_address
    }

    pub(super) fn metrics_down(&self) {
        self.lock().metrics_address = None;
    }

    #[cfg_attr(not(feature = "endpoint"), expect(dead_code, reason = "only the endpoint comes up"))]
    pub(super) fn metrics_up(&self, address: SocketAddr) {
        let mut state = self.lock();
        state.metrics_address = Some(address);
        if let Some(up) = &state.metrics_up {
            up.set(1);
        }
        if state.parts.remove("metrics").is_some() {
            tracing::info!("metrics are served on {address} again");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock().fmt(f)
    }
}

#[expect(clippy::disallowed_methods, reason = "a date is meant, for people to read")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_again_keeps_its_first_moment_and_what_comes_back_begins_anew() {
        let health = Health::default();
        health.degraded("export", "refused".to_owned());
        let first = health.degraded_parts().remove(0);
        health.degraded("export", "timed out".to_owned());
        let again = health.degraded_parts().remove(0);
        assert_eq!((again.reason.as_str(), again.since), ("timed out", first.since));
        health.recovered("export");
        assert_eq!(health.degraded_parts(), []);
        health.degraded("export", "refused".to_owned());
        assert!(health.degraded_parts()[0].since >= first.since);
    }
}
