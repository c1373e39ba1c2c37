//! Whether a store answers. Every cache on one store shares what is known of it.

use std::fmt;
#[cfg(feature = "redis")]
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use crate::error::{Error, Kind, Result};
use crate::telemetry::{Family, Gauge, Registry, Tick};
use tokio::sync::Notify;

/// Failures in a row after which the store is left alone.
pub(super) const FAILURES: u32 = 5;
/// How long it is left alone before one call may try it again.
const PAUSE: Duration = Duration::from_secs(1);

pub(super) static STORE_UP: Family = Family::gauge(
    "cache_store_up",
    "0 while a cache's store is left alone because it fails, else 1",
    &["store"],
);

/// What is known of a store: a breaker for reads and one for writes, for a store may refuse only these.
///
/// After five failures in a row of one kind there are no more calls of that kind, until one that tries the
/// store has gone well.
pub struct StoreHealth {
    name: String,
    learns: Learns,
    reads: Breaker,
    writes: Breaker,
    gauges: Mutex<Vec<Gauge>>,
    closed: Notify,
}

/// Who finds out how a store is.
enum Learns {
    /// The runs; one of them tries a store that was left alone.
    ByRuns,
    /// The store itself.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only redis does"))]
    ByItself,
    /// The servers that it is made of, each for itself.
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only redis is"))]
    ByParts(Mutex<Vec<Weak<StoreHealth>>>),
    #[cfg_attr(not(feature = "redis"), expect(dead_code, reason = "only redis is"))]
    AsPartOf(Weak<StoreHealth>),
}

/// Why a store is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreDown {
    /// Since when, by the wall clock.
    pub since: SystemTime,
    /// What the last call failed with. It holds nothing secret.
    pub reason: String,
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    Read,
    Write,
}

#[derive(Debug, Default)]
struct Breaker {
    failures: AtomicU32,
    /// Once `failures` has reached its limit.
    closed: Mutex<Option<Closed>>,
}

#[derive(Debug)]
struct Closed {
    /// When it was last found failing.
    tried: Tick,
    down: StoreDown,
}

// === impl StoreHealth ===

impl StoreHealth {
    /// The health of a store that has this name in metrics: nothing bad is known yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            learns: Learns::ByRuns,
            reads: Breaker::default(),
            writes: Breaker::default(),
            gauges: Mutex::default(),
            closed: Notify::new(),
        }
    }

    /// As [`StoreHealth::new`], for a store that finds out by itself when it works again: no run is made to try it.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(super) fn found_out_by_the_store(name: impl Into<String>) -> Self {
        Self { learns: Learns::ByItself, ..Self::new(name) }
    }

    /// The health of a store of several servers: it is as its [parts](StoreHealth::part) are.
    #[cfg(feature = "redis")]
    pub(super) fn of_parts(name: impl Into<String>) -> Self {
        Self { learns: Learns::ByParts(Mutex::default()), ..Self::new(name) }
    }

    /// A server of a store of several.
    #[cfg(feature = "redis")]
    pub(super) fn part(whole: &Arc<Self>, name: &impl fmt::Display) -> Arc<Self> {
        let learns = Learns::AsPartOf(Arc::downgrade(whole));
        let part = Arc::new(Self { learns, ..Self::new(format!("{} {name}", whole.name)) });
        if let Learns::ByParts(parts) = &whole.learns {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.push(Arc::downgrade(&part));
        }
        part
    }

    /// A server that is no part of the store any more.
    #[cfg(feature = "redis")]
    pub(super) fn leaves(self: &Arc<Self>) {
        let Learns::AsPartOf(whole) = &self.learns else { return };
        let Some(whole) = whole.upgrade() else { return };
        if let Learns::ByParts(parts) = &whole.learns {
            let mut parts = parts.lock().unwrap_or_else(PoisonError::into_inner);
            parts.retain(|part| part.as_ptr() != Arc::as_ptr(self));
        }
        whole.show();
    }

    /// Its name in metrics.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why the store is left alone; `None` when it is not.
    #[must_use]
    pub fn down(&self) -> Option<StoreDown> {
        let down = |breaker: &Breaker| Some(breaker.lock().as_ref()?.down.clone());
        let itself = down(&self.reads).or_else(|| down(&self.writes));
        match &self.learns {
            Learns::ByParts(parts) => {
                itself.or_else(|| down_of(&parts.lock().unwrap_or_else(PoisonError::into_inner)))
            }
            _ => itself,
        }
    }

    /// Shows in `registry` whether the store is left alone.
    pub fn shows_in(&self, registry: &Registry) {
        let gauge = registry.gauge(&STORE_UP, &[&self.name]);
        let mut gauges = self.gauges();
        gauge.set(i64::from(self.down().is_none()));
        gauges.push(gauge);
    }

    /// Whether a call may be made.
    ///
    /// # Errors
    /// Of [`Kind::CircuitOpen`] when the store is left alone.
    pub(super) fn admit(&self, call: Call, now: Tick) -> Result<()> {
        if matches!(self.learns, Learns::ByParts(_)) { Ok(()) } else { self.admit_itself(call, now) }
    }

    /// As [`StoreHealth::admit`], also where parts of the store are asked before each call: whether they may be
    /// looked for.
    ///
    /// # Errors
    /// Of [`Kind::CircuitOpen`] when the store is left alone.
    pub(super) fn admit_itself(&self, call: Call, now: Tick) -> Result<()> {
        let breaker = self.breaker(call);
        if breaker.failures.load(Ordering::Relaxed) < FAILURES {
            return Ok(());
        }
        match &mut *breaker.lock() {
            Some(closed) if !self.is_tried_by_runs() || now.since(closed.tried) < PAUSE => {
                Err(Error::new(Kind::CircuitOpen, format!("the store failed {FAILURES} times in a row")))
            }
            // This call is the probe; the others stay away until the store is back, or for another pause.
            Some(closed) => {
                closed.tried = now;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Takes note of how a call that began at `now` has ended.
    pub(super) fn learn(&self, call: Call, now: Tick, failure: Option<&Error>) {
        if !matches!(self.learns, Learns::ByParts(_)) {
            self.learn_itself(call, now, failure);
        }
    }

    /// As [`StoreHealth::learn`], also where the store's parts learn of each call: how looking for them has ended.
    pub(super) fn learn_itself(&self, call: Call, now: Tick, failure: Option<&Error>) {
        let breaker = self.breaker(call);
        let Some(error) = failure else {
            if breaker.failures.load(Ordering::Relaxed) > 0 {
                self.works(breaker);
            }
            return;
        };
        if breaker.failures.fetch_add(1, Ordering::Relaxed) + 1 < FAILURES {
            return;
        }
        let mut closed = breaker.lock();
        // A call that went well has come between.
        if breaker.failures.load(Ordering::Relaxed) < FAILURES {
            return;
        }
        let since = closed.as_ref().map_or_else(wall_clock, |closed| closed.down.since);
        if closed.is_none() {
            tracing::warn!(store = self.name, reason = %error, "a cache's store fails and is left alone");
        }
        *closed = Some(Closed { tried: now, down: StoreDown { since, reason: error.to_string() } });
        drop(closed);
        self.show();
        self.closed.notify_one();
    }

    fn works(&self, breaker: &Breaker) {
        let mut closed = breaker.lock();
        breaker.failures.store(0, Ordering::Relaxed);
        if closed.take().is_some() {
            tracing::info!(store = self.name, "a cache's store works again");
        }
        drop(closed);
        self.show();
    }

    /// Completes once the store is to be left alone.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(super) async fn closed(&self) {
        self.closed.notified().await;
    }

    /// Whether there are no calls of this kind for now.
    #[cfg(any(feature = "disk", feature = "redis"))]
    pub(super) fn is_closed(&self, call: Call) -> bool {
        self.breaker(call).lock().is_some()
    }

    fn is_tried_by_runs(&self) -> bool {
        matches!(self.learns, Learns::ByRuns)
    }

    /// Shows how it is, as it is now.
    pub(super) fn show(&self) {
        if let Learns::AsPartOf(whole) = &self.learns {
            return whole.upgrade().into_iter().for_each(|whole| whole.show());
        }
        let gauges = self.gauges();
        let up = i64::from(self.down().is_none());
        gauges.iter().for_each(|gauge| gauge.set(up));
    }

    fn gauges(&self) -> MutexGuard<'_, Vec<Gauge>> {
        self.gauges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn breaker(&self, call: Call) -> &Breaker {
        match call {
            Call::Read => &self.reads,
            Call::Write => &self.writes,
        }
    }
}

impl fmt::Debug for StoreHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.down() {
            None => write!(f, "StoreHealth({}, up)", self.name),
            Some(down) => write!(f, "StoreHealth({}, down: {})", self.name, down.reason),
        }
    }
}

/// The first of the parts that are left alone, and how many there are of them.
fn down_of(parts: &[Weak<StoreHealth>]) -> Option<StoreDown> {
    let parts: Vec<_> = parts.iter().filter_map(Weak::upgrade).collect();
    let down: Vec<_> = parts.iter().filter_map(|part| part.down()).collect();
    let first = down.iter().min_by_key(|down| down.since)?;
    let reason = format!("{} of {} servers: {}", down.len(), parts.len(), first.reason);
    Some(StoreDown { since: first.since, reason })
}

// === impl Breaker ===

impl Breaker {
    fn lock(&self) -> MutexGuard<'_, Option<Closed>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(clippy::disallowed_methods, reason = "a date is meant, for people to read")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Clock;

    fn fail(health: &StoreHealth, call: Call, reason: &'static str) {
        health.learn(call, Clock::Tokio.now(), Some(&Error::new(Kind::Store, reason)));
    }

    #[tokio::test(start_paused = true)]
    async fn writes_that_fail_leave_reads_alone() {
        let health = StoreHealth::new("shared");
        for _ in 0..FAILURES {
            fail(&health, Call::Write, "it is read only");
            health.learn(Call::Read, Clock::Tokio.now(), None);
        }
        assert!(health.admit(Call::Write, Clock::Tokio.now()).is_err());
        assert!(health.admit(Call::Read, Clock::Tokio.now()).is_ok());
        assert_eq!(health.down().map(|down| down.reason).as_deref(), Some("it is read only"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_moment_is_kept_and_the_last_reason_is_said() {
        let health = StoreHealth::new("shared");
        for _ in 0..FAILURES {
            fail(&health, Call::Read, "refused");
        }
        let since = health.down().unwrap().since;
        fail(&health, Call::Read, "timed out");
        assert_eq!(health.down(), Some(StoreDown { since, reason: "timed out".to_owned() }));
        health.learn(Call::Read, Clock::Tokio.now(), None);
        assert_eq!(health.down(), None);
    }
}
