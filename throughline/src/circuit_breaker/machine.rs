//! The states of a circuit, as a function of calls and of time.
//!
//! It does no I/O and reads no clock: time is what the caller passes in, from the making of the circuit.
//! Transitions that come with time are not done by a background task but at the next look, under the time at
//! which they were due, so that nobody can tell the difference.

use std::time::Duration;

use super::rules::{Cause, Decision, Rules, Undecided};
use super::window::{Record, Tally};
use crate::labels;

labels! {
    /// What a circuit does with calls.
    #[non_exhaustive]
    pub enum CircuitState {
        /// Lets them through and counts them.
        Closed = "closed",
        /// Refuses them, for a time.
        Open = "open",
        /// Lets some through to find out whether to close.
        HalfOpen = "half_open",
        /// Refuses them until it is told otherwise.
        ForcedOpen = "forced_open",
        /// Lets them through and counts nothing.
        Disabled = "disabled",
        /// Lets them through, counts them, and says when it would have opened.
        MetricsOnly = "metrics_only",
    }
}

labels! {
    /// What a call was to the circuit.
    #[non_exhaustive]
    pub enum CircuitCall {
        /// It succeeded in time.
        Success = "success",
        /// It succeeded, and took longer than a call should.
        SlowSuccess = "slow_success",
        /// It failed in time.
        Failure = "failure",
        /// It failed, and took longer than a call should. Counts in both rates.
        SlowFailure = "slow_failure",
        /// It says nothing about the target: dropped, or an error that is none of the target's.
        Ignored = "ignored",
        /// It ended in another state than it began in, and does not count there.
        Late = "late",
        /// It was refused.
        Rejected = "rejected",
    }
}

pub(super) const STATES: usize = 6;
const CALLS: usize = 7;

#[derive(Debug)]
pub(super) struct Machine {
    rules: Rules,
    phase: Phase,
    /// Tells one stay in a state from every other. Never 0.
    generation: u64,
    since: Duration,
    /// The latest time it was told.
    now: Duration,
    record: Record,
    /// Times it opened without having been closed for long.
    trips: u32,
    last_pause: Duration,
    random: fastrand::Rng,
    totals: Totals,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Duration, cause: Cause },
    HalfOpen(Trials),
    ForcedOpen,
    Disabled,
    MetricsOnly { over: bool },
}

#[derive(Clone, Copy, Debug, Default)]
struct Trials {
    out: u32,
    ended: Tally,
    /// Since when none has ended, while some are out.
    waiting_since: Option<Duration>,
}

/// A call that was let through.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    pub(super) generation: u64,
    pub(super) trial: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Counts { failed: bool, slow: bool },
    Ignored,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    /// `None` while the circuit is disabled.
    pub(super) call: Option<CircuitCall>,
    /// The circuit would have opened now, but only counts.
    pub(super) would_open: bool,
}

/// Why a call is not let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Open { left: Duration, cause: Cause },
    HalfOpen { trials: u32 },
    ForcedOpen,
}

/// What has happened since the circuit was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    /// By state, and the present stay only in a [`Snapshot`].
    pub(super) time: [Duration; STATES],
    /// By the state that was left and the one that was entered.
    pub(super) transitions: [[u64; STATES]; STATES],
    pub(super) calls: [u64; CALLS],
    pub(super) would_open: u64,
}

/// The circuit at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) state: CircuitState,
    /// Until an open circuit is half-open.
    pub(super) open_left: Option<Duration>,
    pub(super) trials_out: u32,
    /// Of the calls in the window, once there are enough.
    pub(super) rates: Option<(f64, f64)>,
    pub(super) totals: Totals,
}

// === impl Machine ===

impl Machine {
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        Self {
            rules,
            phase: Phase::Closed,
            generation: 1,
            since: Duration::ZERO,
            now: Duration::ZERO,
            record: Record::new(rules.window),
            trips: 0,
            last_pause: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
            totals: Totals::default(),
        }
    }

    /// The generation, while every call is let through.
    pub(super) fn passing(&self) -> Option<u64> {
        let passes = matches!(self.phase, Phase::Closed | Phase::Disabled | Phase::MetricsOnly { .. });
        passes.then_some(self.generation)
    }

    pub(super) fn admit(&mut self, now: Duration) -> Result<Ticket, Refusal> {
        self.advance(now);
        let (generation, now, rules) = (self.generation, self.now, self.rules);
        let refusal = match &mut self.phase {
            Phase::Closed | Phase::Disabled | Phase::MetricsOnly { .. } => {
                return Ok(Ticket { generation, trial: false });
            }
            Phase::HalfOpen(trials) if trials.out + trials.ended.calls < rules.trials => {
                trials.out += 1;
                trials.waiting_since.get_or_insert(now);
                return Ok(Ticket { generation, trial: true });
            }
            Phase::HalfOpen(_) => Refusal::HalfOpen { trials: rules.trials },
            Phase::Open { until, cause } => Refusal::Open { left: *until - now, cause: *cause },
            Phase::ForcedOpen => Refusal::ForcedOpen,
        };
        self.totals.calls[CircuitCall::Rejected as usize] += 1;
        Err(refusal)
    }

    pub(super) fn finish(&mut self, now: Duration, ticket: Ticket, ended: Ended) -> Settled {
        self.advance(now);
        let mut settled = Settled { call: Some(ended.call()), would_open: false };
        if ticket.generation != self.generation {
            if ended != Ended::Ignored {
                settled.call = Some(CircuitCall::Late);
            }
        } else if matches!(self.phase, Phase::Disabled) {
            settled.call = None;
        } else if matches!(self.phase, Phase::HalfOpen(_)) {
            self.end_trial(ended);
        } else if let Ended::Counts { failed, slow } = ended {
            settled.would_open = self.count(failed, slow);
        }
        if let Some(call) = settled.call {
            self.totals.calls[call as usize] += 1;
        }
        settled
    }

    /// Goes to a state by hand, as if nothing had been counted before.
    pub(super) fn set(&mut self, now: Duration, state: CircuitState) {
        self.advance(now);
        let now = self.now;
        match state {
            CircuitState::Closed => {
                (self.trips, self.last_pause) = (0, Duration::ZERO);
                self.enter(Phase::Closed, now);
            }
            CircuitState::Open => self.trip(now, Cause::Hand),
            CircuitState::HalfOpen => self.enter(Phase::HalfOpen(Trials::default()), now),
            CircuitState::ForcedOpen => self.enter(Phase::ForcedOpen, now),
            CircuitState::Disabled => self.enter(Phase::Disabled, now),
            CircuitState::MetricsOnly => self.enter(Phase::MetricsOnly { over: false }, now),
        }
    }

    pub(super) fn snapshot(&mut self, now: Duration) -> Snapshot {
        self.advance(now);
        let (state, tally) = (self.phase.state(), self.record.tally(self.now));
        let mut totals = self.totals;
        totals.time[state as usize] += self.now - self.since;
        Snapshot {
            state,
            open_left: match self.phase {
                Phase::Open { until, .. } => Some(until - self.now),
                _ => None,
            },
            trials_out: if let Phase::HalfOpen(trials) = self.phase { trials.out } else { 0 },
            rates: self.rules.rates(tally),
            totals,
        }
    }

    /// Does what time alone does.
    fn advance(&mut self, now: Duration) {
        self.now = self.now.max(now);
        loop {
            match self.phase {
                Phase::Open { until, .. } if until <= self.now => {
                    self.enter(Phase::HalfOpen(Trials::default()), until);
                }
                Phase::HalfOpen(Trials { waiting_since: Some(since), .. })
                    if since + self.rules.half_open_wait <= self.now =>
                {
                    let due = since + self.rules.half_open_wait;
                    match self.rules.undecided {
                        Undecided::Reopen => self.trip(due, Cause::NoEnd(self.rules.half_open_wait)),
                        Undecided::Close => self.enter(Phase::Closed, due),
                    }
                }
                _ => break,
            }
        }
    }

    /// Whether it would open now, but only counts.
    fn count(&mut self, failed: bool, slow: bool) -> bool {
        self.record.add(self.now, failed, slow);
        let cause = self.rules.excess(self.record.tally(self.now));
        match (&mut self.phase, cause) {
            (Phase::MetricsOnly { over }, cause) => {
                let was_over = std::mem::replace(over, cause.is_some());
                let would_open = *over && !was_over;
                self.totals.would_open += u64::from(would_open);
                would_open
            }
            (_, Some(cause)) => {
                self.trip(self.now, cause);
                false
            }
            (_, None) => false,
        }
    }

    fn end_trial(&mut self, ended: Ended) {
        let Phase::HalfOpen(trials) = &mut self.phase else { return };
        trials.out -= 1;
        if let Ended::Counts { failed, slow } = ended {
            trials.ended.add(failed, slow);
            trials.waiting_since = Some(self.now);
        }
        if trials.out == 0 {
            trials.waiting_since = None;
        }
        match self.rules.decide(trials.ended) {
            Decision::Open(cause) => self.trip(self.now, cause),
            Decision::Close => self.enter(Phase::Closed, self.now),
            Decision::Wait => {}
        }
    }

    fn trip(&mut self, at: Duration, cause: Cause) {
        let stayed_closed =
            matches!(self.phase, Phase::Closed).then(|| at.saturating_sub(self.since) >= self.last_pause);
        if stayed_closed == Some(true) {
            self.trips = 0;
        }
        self.last_pause = self.rules.pause(self.trips, self.random.f64());
        self.trips = self.trips.saturating_add(1);
        self.enter(Phase::Open { until: at + self.last_pause, cause }, at);
    }

    fn enter(&mut self, phase: Phase, at: Duration) {
        let (from, to) = (self.phase.state() as usize, phase.state() as usize);
        self.totals.time[from] += at.saturating_sub(self.since);
        if from != to {
            self.totals.transitions[from][to] += 1;
        }
        (self.phase, self.since) = (phase, at);
        self.generation += 1;
        self.record.clear();
    }
}

// === impl Phase ===

impl Phase {
    fn state(self) -> CircuitState {
        match self {
            Self::Closed => CircuitState::Closed,
            Self::Open { .. } => CircuitState::Open,
            Self::HalfOpen(_) => CircuitState::HalfOpen,
            Self::ForcedOpen => CircuitState::ForcedOpen,
            Self::Disabled => CircuitState::Disabled,
            Self::MetricsOnly { .. } => CircuitState::MetricsOnly,
        }
    }
}

// === impl Ended ===

impl Ended {
    fn call(self) -> CircuitCall {
        match self {
            Self::Counts { failed: false, slow: false } => CircuitCall::Success,
            Self::Counts { failed: false, slow: true } => CircuitCall::SlowSuccess,
            Self::Counts { failed: true, slow: false } => CircuitCall::Failure,
            Self::Counts { failed: true, slow: true } => CircuitCall::SlowFailure,
            Self::Ignored => CircuitCall::Ignored,
        }
    }
}
