//! The machine against a model that keeps the whole history and recomputes everything from it.

use std::time::Duration;

use proptest::prelude::*;

use super::{Ended, Rig, millis, secs};
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::circuit_breaker::machine::{CircuitCall, CircuitState, Ticket};
use crate::circuit_breaker::rules::Undecided;
use crate::circuit_breaker::window::Window;
use crate::telemetry::Label as _;

const WAIT: Duration = secs(40);

#[derive(Clone, Copy, Debug)]
enum Step {
    Call,
    Finish { which: usize, failed: bool, slow: bool },
    Drop { which: usize },
    Advance(Duration),
    Set(CircuitState),
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    window: Kind,
    minimum: u32,
    failure_percent: u32,
    slow_percent: u32,
    trials: u32,
    reopen: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Count(u32),
    Time(Duration),
    Consecutive(u32),
}

/// Something that has happened, and when.
#[derive(Clone, Copy, Debug)]
enum Entry {
    Entered(CircuitState),
    /// A call was let through; it is known by its place in the history.
    Admitted,
    Ended {
        call: usize,
        failed: bool,
        slow: bool,
    },
    Dropped {
        call: usize,
    },
}

/// No field holds a sum: what it knows is read from the history each time.
struct Model {
    settings: Settings,
    history: Vec<(Duration, Entry)>,
    now: Duration,
}

impl Model {
    fn new(settings: Settings) -> Self {
        let history = vec![(Duration::ZERO, Entry::Entered(CircuitState::Closed))];
        Self { settings, history, now: Duration::ZERO }
    }

    fn entered(&self) -> (usize, Duration, CircuitState) {
        let found = self.history.iter().enumerate().rev().find_map(|(at, (time, entry))| match entry {
            Entry::Entered(state) => Some((at, *time, *state)),
            _ => None,
        });
        found.unwrap()
    }

    fn state(&self) -> CircuitState {
        self.entered().2
    }

    fn enter(&mut self, time: Duration, state: CircuitState) {
        self.history.push((time, Entry::Entered(state)));
    }

    /// How long the last stay in the state open lasts: twice as long as the one before it, unless the circuit was
    /// closed for as long as that in between, or was reset.
    fn open_time(&self) -> Duration {
        let stays: Vec<_> = self
            .history
            .iter()
            .filter_map(
                |(time, entry)| if let Entry::Entered(state) = entry { Some((*time, *state)) } else { None },
            )
            .collect();
        let (mut trips, mut last) = (0_u32, Duration::ZERO);
        for (at, (time, state)) in stays.iter().enumerate() {
            let before = at.checked_sub(1).map(|before| stays[before]);
            match (state, before) {
                (CircuitState::Open, Some((since, CircuitState::Closed))) if *time - since >= last => {
                    trips = 0;
                }
                (CircuitState::Closed, Some((_, from))) if !closed_by_itself(from, at, &stays) => {
                    (trips, last) = (0, Duration::ZERO);
                }
                _ => {}
            }
            if *state == CircuitState::Open {
                last = (secs(10) * 2_u32.pow(trips.min(10))).min(secs(60));
                trips += 1;
            }
        }
        last
    }

    /// Results since the state was entered: when, failed, slow.
    fn results(&self) -> Vec<(Duration, bool, bool)> {
        let (from, ..) = self.entered();
        let results = self.history.iter().skip(from).filter_map(|(time, entry)| match entry {
            Entry::Ended { call, failed, slow } if *call > from => Some((*time, *failed, *slow)),
            _ => None,
        });
        results.collect()
    }

    fn trials_out(&self) -> u32 {
        let (from, ..) = self.entered();
        let later = || self.history.iter().enumerate().skip(from);
        let over = |begun: usize| {
            later().any(|(_, (_, entry))| {
                matches!(entry, Entry::Ended { call, .. } | Entry::Dropped { call } if *call == begun)
            })
        };
        let out = later().filter(|(at, (_, entry))| matches!(entry, Entry::Admitted) && !over(*at));
        u32::try_from(out.count()).unwrap()
    }

    /// When trials have not ended for too long, if some are out.
    fn wait_is_over_at(&self) -> Option<Duration> {
        if self.trials_out() == 0 {
            return None;
        }
        // The last moment at which one counted or the first of those that are out came to an empty circuit.
        let (from, ..) = self.entered();
        let (mut out, mut since) = (0_u32, None);
        for (time, entry) in self.history.iter().skip(from) {
            match entry {
                Entry::Admitted => {
                    since = if out == 0 { Some(*time) } else { since };
                    out += 1;
                }
                Entry::Ended { call, .. } if *call > from => {
                    out -= 1;
                    since = Some(*time);
                }
                Entry::Dropped { call } if *call > from => out -= 1,
                _ => {}
            }
        }
        since.map(|since| since + WAIT)
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        loop {
            let (_, since, state) = self.entered();
            let due = match state {
                CircuitState::Open => Some((since + self.open_time(), CircuitState::HalfOpen)),
                CircuitState::HalfOpen => self.wait_is_over_at().map(|due| {
                    (due, if self.settings.reopen { CircuitState::Open } else { CircuitState::Closed })
                }),
                _ => None,
            };
            match due {
                Some((due, next)) if due <= self.now => self.enter(due, next),
                _ => break,
            }
        }
    }

    fn set(&mut self, state: CircuitState) {
        self.enter(self.now, state);
        if state == CircuitState::Closed {
            // Twice, as the mark of a reset.
            self.enter(self.now, state);
        }
    }

    fn admit(&mut self) -> Option<usize> {
        let admitted = match self.state() {
            CircuitState::Closed | CircuitState::Disabled | CircuitState::MetricsOnly => true,
            CircuitState::Open | CircuitState::ForcedOpen => false,
            CircuitState::HalfOpen => {
                self.trials_out() + u32::try_from(self.results().len()).unwrap() < self.settings.trials
            }
        };
        admitted.then(|| {
            self.history.push((self.now, Entry::Admitted));
            self.history.len() - 1
        })
    }

    fn finish(&mut self, call: usize, failed: bool, slow: bool) -> Option<CircuitCall> {
        let (from, _, state) = self.entered();
        self.history.push((self.now, Entry::Ended { call, failed, slow }));
        if call < from {
            return Some(CircuitCall::Late);
        }
        match state {
            CircuitState::Disabled => return None,
            CircuitState::Closed if self.should_open() => self.enter(self.now, CircuitState::Open),
            CircuitState::HalfOpen => self.decide(),
            _ => {}
        }
        Some(match (failed, slow) {
            (false, false) => CircuitCall::Success,
            (false, true) => CircuitCall::SlowSuccess,
            (true, false) => CircuitCall::Failure,
            (true, true) => CircuitCall::SlowFailure,
        })
    }

    fn drop(&mut self, call: usize) {
        self.history.push((self.now, Entry::Dropped { call }));
    }

    fn should_open(&self) -> bool {
        let results = self.results();
        let seen: Vec<_> = match self.settings.window {
            Kind::Count(calls) => results.iter().rev().take(calls as usize).collect(),
            Kind::Time(window) => {
                let part = |time: Duration| time.as_nanos() / (window.as_nanos() / 10);
                let newest = part(self.now);
                results.iter().filter(|(time, ..)| part(*time) + 10 > newest).collect()
            }
            Kind::Consecutive(calls) => {
                let row = results.iter().rev().take_while(|(_, failed, slow)| *failed || *slow).count();
                return row >= calls as usize;
            }
        };
        let enough = match self.settings.window {
            Kind::Count(calls) => self.settings.minimum.min(calls),
            _ => self.settings.minimum,
        };
        let failed = seen.iter().filter(|(_, failed, _)| *failed).count();
        let slow = seen.iter().filter(|(_, _, slow)| *slow).count();
        seen.len() >= enough as usize && self.too_many(failed, slow, seen.len())
    }

    /// In whole numbers, where equal is equal.
    fn too_many(&self, failed: usize, slow: usize, of: usize) -> bool {
        let reaches = |bad: usize, percent: u32| bad > 0 && bad * 100 >= percent as usize * of;
        reaches(failed, self.settings.failure_percent) || reaches(slow, self.settings.slow_percent)
    }

    /// Tries every way in which the trials that are missing could end.
    fn decide(&mut self) {
        let (results, trials) = (self.results(), self.settings.trials as usize);
        let left = trials - results.len();
        let failed = results.iter().filter(|(_, failed, _)| *failed).count();
        let slow = results.iter().filter(|(_, _, slow)| *slow).count();
        let mut opens = Vec::new();
        for more_failed in 0..=left {
            for more_slow in 0..=left {
                let (failed, slow) = (failed + more_failed, slow + more_slow);
                opens.push(match self.settings.window {
                    Kind::Consecutive(_) => failed + slow > 0,
                    _ => self.too_many(failed, slow, trials),
                });
            }
        }
        if opens.iter().all(|opens| *opens) {
            self.enter(self.now, CircuitState::Open);
        } else if opens.iter().all(|opens| !*opens) {
            self.enter(self.now, CircuitState::Closed);
        }
    }

    /// From the history, up to now.
    fn time_in(&self, wanted: CircuitState) -> Duration {
        let stays: Vec<_> = self
            .history
            .iter()
            .filter_map(
                |(time, entry)| if let Entry::Entered(state) = entry { Some((*time, *state)) } else { None },
            )
            .collect();
        let ends = stays.iter().skip(1).map(|(time, _)| *time).chain([self.now]);
        stays
            .iter()
            .zip(ends)
            .filter(|((_, state), _)| *state == wanted)
            .map(|((from, _), to)| to - *from)
            .sum()
    }
}

/// A reset is told from a circuit that closed by itself by the mark that [`Model::set`] leaves.
fn closed_by_itself(from: CircuitState, at: usize, stays: &[(Duration, CircuitState)]) -> bool {
    from == CircuitState::HalfOpen && stays.get(at + 1) != Some(&(stays[at].0, CircuitState::Closed))
}

fn machine(settings: Settings) -> Rig {
    let window = match settings.window {
        Kind::Count(calls) => Window::count(calls),
        Kind::Time(time) => Window::time(time),
        Kind::Consecutive(calls) => Window::consecutive(calls),
    };
    let rate = |percent: u32| f64::from(percent) / 100.0;
    let undecided = if settings.reopen { Undecided::Reopen } else { Undecided::Close };
    let build = || {
        CircuitBreakerConfig::new("target")
            .window(window)?
            .min_calls(settings.minimum)?
            .failure_rate(rate(settings.failure_percent))?
            .slow_rate(rate(settings.slow_percent))?
            .trials(settings.trials)?
            .open_for(secs(10))?
            .max_open_for(secs(60))?
            .half_open_wait(WAIT, undecided)?
            .jitter(0.0)
    };
    Rig::new(build().unwrap())
}

fn settings() -> impl Strategy<Value = Settings> {
    let window = prop_oneof![
        (1_u32..8).prop_map(Kind::Count),
        (1_u64..30).prop_map(|tenths| Kind::Time(secs(tenths))),
        (1_u32..5).prop_map(Kind::Consecutive),
    ];
    (window, 1_u32..10, 1_u32..=100, 1_u32..=100, 1_u32..5, any::<bool>()).prop_map(
        |(window, minimum, failure_percent, slow_percent, trials, reopen)| Settings {
            window,
            minimum,
            failure_percent,
            slow_percent,
            trials,
            reopen,
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => Just(Step::Call),
        8 => (any::<usize>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(which, failed, slow)| Step::Finish { which, failed, slow }),
        2 => any::<usize>().prop_map(|which| Step::Drop { which }),
        3 => (0_u64..15_000).prop_map(|time| Step::Advance(millis(time))),
        1 => (0_u64..90).prop_map(|time| Step::Advance(secs(time))),
        1 => (0..CircuitState::ALL.len()).prop_map(|state| Step::Set(CircuitState::ALL[state])),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn does_what_a_model_recomputes_from_the_whole_history(settings in settings(), steps in steps()) {
        let (mut rig, mut model) = (machine(settings), Model::new(settings));
        let mut under_way: Vec<(Ticket, usize)> = Vec::new();
        let mut calls = [0_u64; 7];
        for (at, step) in steps.iter().enumerate() {
            match *step {
                Step::Call => match (rig.admit(), model.admit()) {
                    (Ok(ticket), Some(call)) => under_way.push((ticket, call)),
                    (Err(_), None) => calls[CircuitCall::Rejected.index()] += 1,
                    (real, model) => prop_assert!(false, "step {at}: {real:?} but {model:?}"),
                },
                Step::Finish { which, failed, slow } if !under_way.is_empty() => {
                    let (ticket, call) = under_way.swap_remove(which % under_way.len());
                    let settled = rig.finish(ticket, Ended::Counts { failed, slow });
                    prop_assert_eq!(settled.call, model.finish(call, failed, slow), "step {}", at);
                    settled.call.into_iter().for_each(|call| calls[call.index()] += 1);
                }
                Step::Drop { which } if !under_way.is_empty() => {
                    let (ticket, call) = under_way.swap_remove(which % under_way.len());
                    let settled = rig.finish(ticket, Ended::Ignored);
                    model.drop(call);
                    settled.call.into_iter().for_each(|call| calls[call.index()] += 1);
                }
                Step::Finish { .. } | Step::Drop { .. } => {}
                Step::Advance(time) => {
                    rig.pass(time);
                    model.advance(time);
                }
                Step::Set(state) => {
                    rig.set(state);
                    model.set(state);
                }
            }
            let snapshot = rig.snapshot();
            prop_assert_eq!(snapshot.state, model.state(), "step {}: {:?}", at, step);
            if snapshot.state == CircuitState::HalfOpen {
                prop_assert_eq!(snapshot.trials_out, model.trials_out(), "step {}", at);
                prop_assert!(snapshot.trials_out <= settings.trials);
            }
            let time: Vec<_> = CircuitState::ALL.iter().map(|state| model.time_in(*state)).collect();
            prop_assert_eq!(&snapshot.totals.time[..], &time[..], "step {}", at);
            prop_assert_eq!(snapshot.totals.calls, calls, "step {}", at);
        }
    }
}
