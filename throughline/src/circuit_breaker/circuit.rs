//! The circuit itself, which workflows share, and what a scrape shows of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::config::CircuitBreakerConfig;
use super::gate::Gate;
use super::machine::{CircuitCall, CircuitState, Ended, Refusal, STATES, Settled, Snapshot, Ticket, Totals};
use crate::error::{Error, Kind};
use crate::telemetry::{Amount, Counter, Family, Gauge, Label as _, Refresh, Registry};

pub(super) static STATE: Family =
    Family::gauge("circuit_breaker_state", "1 for the state that a circuit is in", &["circuit", "state"]);
pub(super) static TRANSITIONS: Family = Family::counter(
    "circuit_breaker_transitions",
    "Changes of a circuit's state since it was made",
    &["circuit", "from", "to"],
);
pub(super) static TIME_IN_STATE: Family = Family::amount(
    "circuit_breaker_time_in_state_seconds",
    "How long a circuit was in a state since it was made, in seconds",
    &["circuit", "state"],
);

/// The transitions that calls and time bring about; others come by hand, and show once they have happened.
const EXPECTED: [(CircuitState, CircuitState); 4] = [
    (CircuitState::Closed, CircuitState::Open),
    (CircuitState::Open, CircuitState::HalfOpen),
    (CircuitState::HalfOpen, CircuitState::Open),
    (CircuitState::HalfOpen, CircuitState::Closed),
];

/// What is known of one target: whether to call it. Clones are the same circuit.
///
/// Give it to every workflow that calls the target ([`Workflow::circuit_breaker`](crate::Workflow::circuit_breaker)),
/// and keep one to read it or to control it by hand. A state that was set by hand begins with nothing counted,
/// and calls that are under way then are late.
#[derive(Clone)]
pub struct Circuit(Arc<Core>);

struct Core {
    config: CircuitBreakerConfig,
    gate: Gate,
    made: Instant,
    books: Mutex<Vec<Book>>,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permit {
    ticket: Ticket,
    began: Duration,
}

/// What a circuit has seen since it was made, over all workflows that share it, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct CircuitBreakerStats {
    /// The state it is in.
    pub state: CircuitState,
    /// How long it stays open.
    pub open_left: Option<Duration>,
    /// Trials under way while it is half-open.
    pub trials: u32,
    /// Share of failures in the window, 0 to 1; `None` as long as it holds too few calls to judge by, and with
    /// a window of consecutive calls.
    pub failure_rate: Option<f64>,
    /// Share of slow calls in the window, likewise.
    pub slow_rate: Option<f64>,
    /// Times it opened, by itself or by hand.
    pub opened: u64,
    /// Times it would have opened if it did not count only.
    pub would_open: u64,
    /// Calls that succeeded in time.
    pub successes: u64,
    /// Calls that succeeded and were slow.
    pub slow_successes: u64,
    /// Calls that failed in time.
    pub failures: u64,
    /// Calls that failed and were slow.
    pub slow_failures: u64,
    /// Calls that said nothing about the target.
    pub ignored: u64,
    /// Calls that ended in another state than they began in.
    pub late: u64,
    /// Calls that were refused.
    pub rejected: u64,
}

/// What one telemetry instance shows of the circuit.
struct Book {
    registry: u64,
    states: [Gauge; STATES],
    time: [Amount; STATES],
    transitions: BTreeMap<(usize, usize), Counter>,
    shown: Totals,
}

// === impl Circuit ===

impl Circuit {
    /// A closed circuit.
    #[must_use]
    pub fn new(config: CircuitBreakerConfig) -> Self {
        let gate = Gate::new(config.rules, config.seed.unwrap_or_else(|| fastrand::u64(..)));
        Self(Arc::new(Core { config, gate, made: Instant::now(), books: Mutex::default() }))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.config.circuit
    }

    /// What it does with calls now.
    #[must_use]
    pub fn state(&self) -> CircuitState {
        self.0.snapshot().state
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> CircuitBreakerStats {
        CircuitBreakerStats::of(&self.0.snapshot())
    }

    /// Closes it and forgets what it has counted and how often it has opened.
    pub fn reset(&self) {
        self.set(CircuitState::Closed);
    }

    /// Opens it as if it had done so by itself.
    pub fn open(&self) {
        self.set(CircuitState::Open);
    }

    /// Lets trials through now.
    pub fn half_open(&self) {
        self.set(CircuitState::HalfOpen);
    }

    /// Refuses every call until another state is set.
    pub fn force_open(&self) {
        self.set(CircuitState::ForcedOpen);
    }

    /// Lets every call through and counts none until another state is set.
    pub fn disable(&self) {
        self.set(CircuitState::Disabled);
    }

    /// Lets every call through and counts it until another state is set. When it would have opened, the event
    /// `would_open` and [`CircuitBreakerStats::would_open`] say so, once each time that a rate reaches its limit.
    pub fn metrics_only(&self) {
        self.set(CircuitState::MetricsOnly);
    }

    fn set(&self, state: CircuitState) {
        let now = self.0.now();
        self.0.gate.with(|machine| machine.set(now, state));
    }

    pub(super) fn config(&self) -> &CircuitBreakerConfig {
        &self.0.config
    }

    pub(super) fn admit(&self) -> Result<Permit, Refusal> {
        let began = self.0.now();
        let ticket = self.0.gate.admit(began)?;
        Ok(Permit { ticket, began })
    }

    /// How long the call has gone on.
    pub(super) fn since(&self, permit: Permit) -> Duration {
        self.0.now().saturating_sub(permit.began)
    }

    pub(super) fn finish(&self, permit: Permit, judge: impl FnOnce(Duration) -> Ended) -> Settled {
        let now = self.0.now();
        self.0.gate.finish(now, permit.ticket, judge(now.saturating_sub(permit.began)))
    }

    /// Has `registry` show it from now on.
    pub(super) fn shown_in(&self, registry: &Registry) {
        let mut books = self.0.books();
        if books.iter().any(|book| book.registry == registry.id()) {
            return;
        }
        books.push(Book::new(registry, self.name()));
        drop(books);
        let core: Arc<dyn Refresh> = Arc::clone(&self.0) as _;
        registry.before_scrape(Arc::downgrade(&core));
    }
}

impl From<&Circuit> for Circuit {
    fn from(circuit: &Circuit) -> Self {
        circuit.clone()
    }
}

impl From<CircuitBreakerConfig> for Circuit {
    fn from(config: CircuitBreakerConfig) -> Self {
        Self::new(config)
    }
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        write!(f, "Circuit({}, {}, ", self.name(), stats.state.as_str())?;
        write!(f, "{} of {} calls failed, ", stats.failures + stats.slow_failures, stats.counted())?;
        write!(f, "{} rejected)", stats.rejected)
    }
}

// === impl Permit ===

impl Permit {
    pub(super) fn is_trial(self) -> bool {
        self.ticket.trial
    }
}

// === impl CircuitBreakerStats ===

impl CircuitBreakerStats {
    fn of(snapshot: &Snapshot) -> Self {
        let calls = |call: CircuitCall| snapshot.totals.calls[call as usize];
        let open = CircuitState::Open as usize;
        Self {
            state: snapshot.state,
            open_left: snapshot.open_left,
            trials: snapshot.trials_out,
            failure_rate: snapshot.rates.map(|(failures, _)| failures),
            slow_rate: snapshot.rates.map(|(_, slow)| slow),
            opened: snapshot.totals.transitions.iter().map(|to| to[open]).sum(),
            would_open: snapshot.totals.would_open,
            successes: calls(CircuitCall::Success),
            slow_successes: calls(CircuitCall::SlowSuccess),
            failures: calls(CircuitCall::Failure),
            slow_failures: calls(CircuitCall::SlowFailure),
            ignored: calls(CircuitCall::Ignored),
            late: calls(CircuitCall::Late),
            rejected: calls(CircuitCall::Rejected),
        }
    }

    /// Calls that were a success or a failure to it.
    #[must_use]
    pub fn counted(&self) -> u64 {
        self.successes + self.slow_successes + self.failures + self.slow_failures
    }
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn state(self) -> CircuitState {
        match self {
            Self::Open { .. } => CircuitState::Open,
            Self::HalfOpen { .. } => CircuitState::HalfOpen,
            Self::ForcedOpen => CircuitState::ForcedOpen,
        }
    }

    pub(super) fn into_error(self) -> Error {
        let error = |message: String| Error::new(Kind::CircuitOpen, message);
        match self {
            Self::Open { left, cause } => {
                error(format!("circuit open for another {left:.1?} {cause}")).with_retry_after(left).fatal()
            }
            Self::HalfOpen { trials } => error(format!("circuit half-open with all {trials} trials taken")),
            Self::ForcedOpen => error("circuit forced open until it is reset".to_owned()),
        }
    }
}

// === impl Core ===

impl Core {
    fn now(&self) -> Duration {
        self.made.elapsed()
    }

    fn snapshot(&self) -> Snapshot {
        let now = self.now();
        self.gate.with(|machine| machine.snapshot(now))
    }

    fn books(&self) -> MutexGuard<'_, Vec<Book>> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Refresh for Core {
    fn refresh(&self, registry: &Registry) {
        let mut books = self.books();
        let snapshot = self.snapshot();
        if let Some(book) = books.iter_mut().find(|book| book.registry == registry.id()) {
            book.resolve(registry, &self.config.circuit, &snapshot);
            book.show(&snapshot);
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let snapshot = self.snapshot();
        for book in self.books().iter_mut() {
            book.show(&snapshot);
            // It is in no state any more.
            book.states.iter().for_each(|state| state.set(0));
        }
    }
}

// === impl Book ===

impl Book {
    fn new(registry: &Registry, circuit: &str) -> Self {
        let name = |state: usize| CircuitState::ALL[state].as_str();
        let pair = |from: CircuitState, to: CircuitState| {
            registry.counter(&TRANSITIONS, &[circuit, from.as_str(), to.as_str()])
        };
        Self {
            registry: registry.id(),
            states: std::array::from_fn(|state| registry.gauge(&STATE, &[circuit, name(state)])),
            time: std::array::from_fn(|state| registry.amount(&TIME_IN_STATE, &[circuit, name(state)])),
            transitions: EXPECTED.map(|(from, to)| ((from as usize, to as usize), pair(from, to))).into(),
            shown: Totals::default(),
        }
    }

    /// Finds the series of transitions that have happened for the first time.
    fn resolve(&mut self, registry: &Registry, circuit: &str, snapshot: &Snapshot) {
        let name = |state: usize| CircuitState::ALL[state].as_str();
        for (from, to) in pairs().filter(|(from, to)| snapshot.totals.transitions[*from][*to] > 0) {
            self.transitions
                .entry((from, to))
                .or_insert_with(|| registry.counter(&TRANSITIONS, &[circuit, name(from), name(to)]));
        }
    }

    fn show(&mut self, snapshot: &Snapshot) {
        let (totals, shown) = (&snapshot.totals, &self.shown);
        for state in 0..STATES {
            self.states[state].set((state == snapshot.state as usize).into());
            self.time[state].add((totals.time[state].saturating_sub(shown.time[state])).as_secs_f64());
        }
        for ((from, to), counter) in &self.transitions {
            (shown.transitions[*from][*to]..totals.transitions[*from][*to]).for_each(|_| counter.inc());
        }
        self.shown = *totals;
    }
}

fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..STATES).flat_map(|from| (0..STATES).map(move |to| (from, to)))
}
