//! How many runs a server takes at once, found from how long they take: AIMD on latency.
//!
//! The limit grows by its square root while latency stays near the *baseline*, that of a server without a queue,
//! and is cut when it does not, or when the server gives up on runs.
//!
//! Why this one: Gradient2 (Netflix' concurrency-limits) compares with a long average of the very same latency,
//! which follows the load, so that under steady load its limit creeps up without end. Vegas compares with the
//! least latency ever seen, which who comes to a loaded server has not seen. A cut empties the queue and shows
//! the baseline anew, to everybody at that server; and with additive increase and multiplicative decrease
//! their shares become equal (Chiu and Jain, *Analysis of the increase and decrease algorithms*, 1989).
//!
//! * Time goes by in *rounds*: so many samples of runs that began in the round, so that each change is judged by
//!   what it has done. A round counts by its median.
//! * Above `tolerance` times the baseline, twice in a row, the limit *dips* for a round to three quarters of what
//!   the server had at work without the queue (Little's law). The baseline follows what the dip shows. If
//!   latency has fallen below it, there was a queue nobody knew of, and the next dip follows. Otherwise the
//!   climb goes on from what the server had at work. A long climb is interrupted by a dip as well.
//! * While less than half of the limit is in use, nothing grows, and what is seen is taken for the baseline.
//!   So a limit should begin low: at one that is never reached a queue cannot be told from slow work.

use std::time::Duration;

/// Samples that a round takes at least and at most; in between, as many as the limit.
const FEWEST: usize = 30;
const MOST: usize = 100;
/// What is left of the limit in a round in which so many runs failed of overload: from all to one.
const DEEPEST_CUT: f64 = 0.5;
const LIGHTEST_CUT: f64 = 0.9;
/// What is left in a dip of what the server has at work.
const DIP: f64 = 0.75;
/// A dip that brings latency below this share of the baseline has found a queue.
const FALLEN: f64 = 0.87;
/// How far the baseline follows a round of little load, and a dip.
const IDLE: f64 = 0.25;
const DIPPED: f64 = 0.5;
/// Rounds after which the baseline is looked at again.
const LONGEST_CLIMB: u32 = 30;

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
    /// The last round that ended with a cut for overload.
    cut: Option<u64>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Up, for so many rounds; `slow`: the last one was above the tolerance.
    Climb { rounds: u32, slow: bool },
    /// Down for a round, from so many under way, with whom this latency was seen.
    Dip { from: f64, seen: f64 },
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
            phase: Phase::Climb { rounds: 0, slow: false },
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
            let left = 1.0 - round.overloads as f64 / samples as f64;
            self.cut = Some(round.number);
            self.climb();
            self.set(self.estimate * left.clamp(DEEPEST_CUT, LIGHTEST_CUT));
        } else {
            self.judge(round.peak, median(&mut round.seconds));
        }
    }

    fn judge(&mut self, peak: usize, seconds: f64) {
        let known = self.baseline.is_some();
        let baseline = self.follow(0.0, seconds);
        match self.phase {
            Phase::Climb { .. } if peak * 2 < self.allowed() => {
                self.follow(IDLE, seconds);
            }
            Phase::Climb { .. } if !known => self.dip(peak, seconds, seconds),
            Phase::Climb { rounds, slow } => {
                let still_slow = seconds > self.tolerance * baseline;
                if (slow && still_slow) || rounds >= LONGEST_CLIMB {
                    self.dip(peak, seconds, baseline);
                    return;
                }
                self.phase = Phase::Climb { rounds: rounds + 1, slow: still_slow };
                if !still_slow {
                    self.set(self.estimate + self.estimate.sqrt());
                }
            }
            Phase::Dip { from, seen } => {
                let fallen = seconds < FALLEN * baseline;
                let baseline = self.follow(DIPPED, seconds);
                if fallen && self.estimate > self.least {
                    self.dip(peak, seconds, seconds);
                } else {
                    self.climb();
                    self.set(from * (baseline / seen).min(1.0));
                }
            }
        }
    }

    fn climb(&mut self) {
        self.phase = Phase::Climb { rounds: 0, slow: false };
    }

    /// A dip below what was really under way, or it would show nothing.
    fn dip(&mut self, peak: usize, seen: f64, baseline: f64) {
        let from = self.estimate.min(peak as f64);
        self.phase = Phase::Dip { from, seen };
        self.set(from * (baseline / seen).min(1.0) * DIP);
    }

    fn follow(&mut self, share: f64, seconds: f64) -> f64 {
        let baseline = self.baseline.get_or_insert(seconds);
        *baseline += share * (seconds - *baseline);
        *baseline
    }

    fn set(&mut self, estimate: f64) {
        self.estimate = estimate.clamp(self.least, self.most);
    }
}

fn median(seconds: &mut [f64]) -> f64 {
    let middle = seconds.len() / 2;
    *seconds.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round in which `in_flight` runs at once each took `seconds`.
    fn round(limit: &mut Limit, in_flight: usize, seconds: f64) {
        let number = limit.round.number;
        while limit.round.number == number {
            let began = limit.begin(in_flight);
            limit.answered(began, Duration::from_secs_f64(seconds));
        }
    }

    /// A limit that knows its baseline of a second and climbs.
    fn settled(initial: u32) -> Limit {
        let mut limit = Limit::new(1, initial, 1_000, 1.5);
        round(&mut limit, initial as usize, 1.0);
        assert!(limit.allowed() < initial as usize, "it dips to learn the baseline");
        round(&mut limit, initial as usize, 1.0);
        assert_eq!(limit.allowed(), initial as usize);
        limit
    }

    #[test]
    fn grows_by_its_square_root_while_answers_take_as_long_as_without_a_queue() {
        let mut limit = settled(100);
        round(&mut limit, 100, 1.0);
        assert_eq!(limit.allowed(), 110);
    }

    #[test]
    fn one_slow_round_is_chance_and_a_second_is_a_queue() {
        let mut limit = settled(100);
        round(&mut limit, 100, 2.0);
        assert_eq!(limit.allowed(), 100, "it waits and sees");
        round(&mut limit, 100, 2.0);
        assert_eq!(limit.allowed(), 37, "three quarters of what was at work, which was half");
        round(&mut limit, 37, 1.0);
        assert_eq!(limit.allowed(), 50, "up to what was at work");
    }

    #[test]
    fn a_slow_round_between_two_good_ones_changes_nothing() {
        let mut limit = settled(100);
        round(&mut limit, 100, 2.0);
        round(&mut limit, 100, 1.0);
        round(&mut limit, 110, 2.0);
        assert_eq!(limit.allowed(), 110);
    }

    #[test]
    fn a_server_that_has_become_slower_gets_a_new_baseline() {
        let mut limit = settled(100);
        for _ in 0..30 {
            round(&mut limit, 100, 2.0);
        }
        assert!(limit.baseline() > Some(Duration::from_millis(1_900)), "{limit:?}");
        assert!(limit.allowed() > 100, "it has grown back: {limit:?}");
    }

    #[test]
    fn a_baseline_that_was_learnt_under_load_is_found_out() {
        let mut limit = Limit::new(1, 100, 1_000, 1.5);
        // A server of ten workers: latency is proportional to what is under way.
        for _ in 0..40 {
            let in_flight = limit.allowed();
            round(&mut limit, in_flight, (in_flight as f64 / 10.0).max(1.0));
        }
        assert!((7..=20).contains(&limit.allowed()), "{limit:?}");
        assert!(limit.baseline() < Some(Duration::from_millis(1_200)), "{limit:?}");
    }

    #[test]
    fn does_not_grow_while_less_than_half_of_it_is_in_use() {
        let mut limit = settled(100);
        round(&mut limit, 40, 1.0);
        assert_eq!(limit.allowed(), 100);
        round(&mut limit, 40, 1.4);
        assert_eq!(
            limit.baseline(),
            Some(Duration::from_millis(1_100)),
            "which is what an idle server takes"
        );
    }

    #[test]
    fn failures_of_overload_cut_it_by_their_share_and_once_for_what_began_together() {
        let mut limit = settled(100);
        let began: Vec<_> = (1..=100).map(|in_flight| limit.begin(in_flight)).collect();
        for run in &began {
            limit.overloaded(*run);
        }
        assert_eq!(limit.allowed(), 50, "to no less than half");
        for run in &began {
            limit.overloaded(*run);
        }
        assert_eq!(limit.allowed(), 50, "those were from before the cut");

        let mut limit = settled(100);
        let began = limit.begin(100);
        limit.overloaded(began);
        round(&mut limit, 100, 1.0);
        assert_eq!(limit.allowed(), 90, "one of a hundred");
    }

    #[test]
    fn a_caller_that_leaves_says_something_only_long_after_the_answer_was_due() {
        let mut limit = settled(100);
        for _ in 0..200 {
            let began = limit.begin(100);
            limit.left(began, Duration::from_millis(2_900));
        }
        assert_eq!(limit.allowed(), 100);
        for _ in 0..100 {
            let began = limit.begin(100);
            limit.left(began, Duration::from_millis(3_100));
        }
        assert_eq!(limit.allowed(), 50);
    }

    #[test]
    fn answers_from_before_a_change_do_not_judge_it() {
        let mut limit = settled(100);
        let early = limit.begin(100);
        round(&mut limit, 100, 1.0);
        for _ in 0..200 {
            limit.answered(early, Duration::from_secs(60));
        }
        assert_eq!(limit.allowed(), 110);
    }

    #[test]
    fn stays_within_its_bounds() {
        let mut limit = Limit::new(5, 6, 8, 1.5);
        for _ in 0..50 {
            round(&mut limit, 8, 1.0);
            assert!((5..=8).contains(&limit.allowed()));
        }
        for seconds in 1..50 {
            round(&mut limit, 8, f64::from(seconds * seconds));
            assert!((5..=8).contains(&limit.allowed()));
        }
    }
}
