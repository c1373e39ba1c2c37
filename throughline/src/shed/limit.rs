//! How many runs a server takes at once, found from how long they take: AIMD on latency.
//!
//! The limit grows step by step while latency stays near that of an unloaded server, the *baseline*, and is cut
//! to below what the server took without a queue when it does not, or when the server gives up on runs.
//!
//! Why this one: Gradient2 (Netflix' concurrency-limits) compares with a long average of the very same latency,
//! which follows the load, so that under steady load its limit creeps up without end. Vegas compares with the
//! least latency, which who comes to a loaded server has never seen. A cut of AIMD empties the queue, and
//! everybody at the server cuts when they all see it, so all of them see the baseline again and again, and their
//! shares become equal (Chiu and Jain, *Analysis of the increase and decrease algorithms*, 1989).
//!
//! * Time goes by in *rounds*: so many samples of runs that began in the round, so that each change is judged by
//!   what it has done. A round counts by its median.
//! * Above `tolerance` times the baseline the limit is cut to nine tenths of what Little's law says the
//!   server had at work without the queue, but to no less than half.
//! * If latency is as high after the cut, it was not a queue: the server has become slower, which is the
//!   new baseline.
//! * While less than half of the limit is in use, it says nothing: nothing changes but the baseline.

use std::time::Duration;

/// Samples that a round takes at least and at most; in between, as many as the limit.
const FEWEST: usize = 20;
const MOST: usize = 100;
const DEEPEST_CUT: f64 = 0.5;
const LIGHTEST_CUT: f64 = 0.9;
/// How fast the baseline follows a lower median, a higher one, and a higher one of an idle server.
const DOWN: f64 = 0.5;
const UP: f64 = 0.05;
const UP_IDLE: f64 = 0.25;

/// The limit and what it is found from.
#[derive(Debug)]
pub(crate) struct Limit {
    least: f64,
    most: f64,
    tolerance: f64,
    estimate: f64,
    /// Seconds.
    baseline: Option<f64>,
    round: Round,
    /// The last round that ended with a cut.
    cut: Option<u64>,
    /// What was seen before the cut, and how deep it was, until it has been judged.
    on_trial: Option<(f64, f64)>,
}

/// What was seen since the limit was last looked at.
#[derive(Debug, Default)]
struct Round {
    number: u64,
    seconds: Vec<f64>,
    overloads: usize,
    /// The most runs under way.
    peak: usize,
}

/// The round that a run began in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Began(u64);

// === impl Limit ===

impl Limit {
    /// Starts at `initial` and stays from `least` to `most`.
    pub(crate) fn new(least: u32, initial: u32, most: u32, tolerance: f64) -> Self {
        Self {
            least: least.into(),
            most: most.into(),
            tolerance,
            estimate: initial.into(),
            baseline: None,
            round: Round::default(),
            cut: None,
            on_trial: None,
        }
    }

    /// How many runs may be under way.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to 2^32")]
    pub(crate) fn allowed(&self) -> usize {
        self.estimate as usize
    }

    /// What an unloaded server takes.
    pub(crate) fn baseline(&self) -> Option<Duration> {
        self.baseline.map(Duration::from_secs_f64)
    }

    /// A run begins; with it `in_flight` are under way.
    pub(crate) fn begin(&mut self, in_flight: usize) -> Began {
        self.round.peak = self.round.peak.max(in_flight);
        Began(self.round.number)
    }

    /// A run has answered.
    pub(crate) fn answered(&mut self, began: Began, latency: Duration) {
        if began.0 == self.round.number {
            self.round.seconds.push(latency.as_secs_f64());
            self.look();
        }
    }

    /// The server has given up on a run, or was given up on. Runs from before a cut are what it was for.
    pub(crate) fn overloaded(&mut self, began: Began) {
        if self.cut.is_none_or(|cut| began.0 > cut) {
            self.round.overloads += 1;
            self.look();
        }
    }

    /// The caller of a run went away. That says something only after twice the time that is tolerated.
    pub(crate) fn left(&mut self, began: Began, after: Duration) {
        if self.baseline.is_some_and(|baseline| after.as_secs_f64() > 2.0 * self.tolerance * baseline) {
            self.overloaded(began);
        }
    }

    fn look(&mut self) {
        let samples = self.round.seconds.len() + self.round.overloads;
        if samples < self.allowed().clamp(FEWEST, MOST) {
            return;
        }
        let next = Round { number: self.round.number + 1, ..Round::default() };
        let mut round = std::mem::replace(&mut self.round, next);
        if round.overloads > 0 {
            self.on_trial = None;
            self.cut(round.number, 1.0 - round.overloads as f64 / samples as f64);
        } else {
            let seconds = median(&mut round.seconds);
            self.judge(&round, seconds);
        }
    }

    fn judge(&mut self, round: &Round, seconds: f64) {
        let baseline = *self.baseline.get_or_insert(seconds);
        let busy = round.peak * 2 >= self.allowed();
        if let Some((before, cut)) = self.on_trial.take()
            && seconds > before * (1.0 + cut) / 2.0
        {
            self.baseline = Some(seconds);
        } else if busy && seconds > self.tolerance * baseline {
            let cut = self.cut(round.number, LIGHTEST_CUT * baseline / seconds);
            self.on_trial = Some((seconds, cut));
        } else {
            let follow = match (seconds < baseline, busy) {
                (true, _) => DOWN,
                (false, true) => UP,
                (false, false) => UP_IDLE,
            };
            self.baseline = Some(baseline + follow * (seconds - baseline));
            if busy {
                self.set(self.estimate + self.estimate.sqrt());
            }
        }
    }

    fn cut(&mut self, round: u64, to: f64) -> f64 {
        let cut = to.clamp(DEEPEST_CUT, LIGHTEST_CUT);
        self.set(self.estimate * cut);
        self.cut = Some(round);
        cut
    }

    fn set(&mut self, estimate: f64) {
        self.estimate = estimate.clamp(self.least, self.most);
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    let middle = seconds.len() / 2;
    *seconds.select_nth_unstable_by(middle, f64::total_cmp).1
}
