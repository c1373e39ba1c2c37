//! How long to wait between attempts.
//!
//! # Source
//! The jitters are those of Marc Brooker, [Exponential Backoff And
//! Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), AWS, 2015.

use std::time::Duration;

use crate::error::ConfigError;

/// The longest delay: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How the delays between attempts grow, and how they are spread.
///
/// ```
/// use std::time::Duration;
/// use throughline::{Backoff, Jitter};
///
/// # fn main() -> Result<(), throughline::ConfigError> {
/// let backoff = Backoff::exponential(Duration::from_millis(200), Duration::from_secs(1))?.jitter(Jitter::None);
/// let delays: Vec<_> = backoff.delays(0).take(4).map(|delay| delay.as_millis()).collect();
/// assert_eq!(delays, [200, 400, 800, 1_000]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    base: Duration,
    cap: Duration,
    jitter: Jitter,
}

/// How delays are spread, so that clients which failed together do not come back together.
///
/// `d` is what the backoff says, `cap` its longest delay. No jitter leads above the cap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// Exactly `d`. For one client, or where something else spreads them.
    None,
    /// Anything from 0 to `d`: the least load for many clients.
    #[default]
    Full,
    /// Half of `d`, and anything up to the other half: where a very short delay is of no use.
    Equal,
    /// Anything from the base to three times the delay before, however many attempts there were. On a
    /// constant backoff, where base and cap are the same, it spreads nothing.
    Decorrelated,
}

/// The delays of one run, without end. Made by [`Backoff::delays`].
#[derive(Clone, Debug)]
pub struct Delays {
    backoff: Backoff,
    random: fastrand::Rng,
    /// What the next delay is made of: `d`, or for decorrelated jitter the delay before.
    at: Duration,
}

// === impl Backoff ===

impl Backoff {
    /// The same delay every time, spread by [`Jitter::Full`] unless told otherwise. Zero is allowed: the
    /// next attempt then begins at once.
    ///
    /// # Errors
    /// When `delay` is longer than a day.
    pub fn constant(delay: Duration) -> Result<Self, ConfigError> {
        if delay > LONGEST {
            return Err(ConfigError::refused("backoff delay", delay, format_args!("at most {LONGEST:?}")));
        }
        Ok(Self { base: delay, cap: delay, jitter: Jitter::default() })
    }

    /// `base`, then twice as much each time, but never more than `cap`; spread by [`Jitter::Full`] unless
    /// told otherwise.
    ///
    /// # Errors
    /// When `base` is zero, or `cap` is shorter than `base` or longer than a day.
    pub fn exponential(base: Duration, cap: Duration) -> Result<Self, ConfigError> {
        if base.is_zero() {
            return Err(ConfigError::refused(
                "backoff base",
                format_args!("0s"),
                "more, or nothing grows; use a constant backoff for no delay",
            ));
        }
        if cap < base || cap > LONGEST {
            let allowed = format_args!("from the base of {base:?} to {LONGEST:?}");
            return Err(ConfigError::refused("backoff cap", cap, allowed));
        }
        Ok(Self { base, cap, jitter: Jitter::default() })
    }

    /// How the delays are spread. Default: [`Jitter::Full`].
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The delays of one run, drawn from `seed`.
    #[must_use]
    pub fn delays(&self, seed: u64) -> Delays {
        Delays { backoff: self.clone(), random: fastrand::Rng::with_seed(seed), at: self.base }
    }
}

impl Default for Backoff {
    /// 100ms, doubling up to 10s, with full jitter.
    fn default() -> Self {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(10));
        Self { base, cap, jitter: Jitter::default() }
    }
}

// === impl Delays ===

impl Delays {
    fn draw(&mut self, from: Duration, to: Duration) -> Duration {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.random.u64(nanos(from)..=nanos(to)))
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let Backoff { base, cap, jitter } = self.backoff;
        let at = self.at;
        let delay = match jitter {
            Jitter::None => at,
            Jitter::Full => self.draw(Duration::ZERO, at),
            Jitter::Equal => self.draw(at / 2, at),
            Jitter::Decorrelated => self.draw(base, at.saturating_mul(3)),
        };
        let delay = delay.min(cap);
        // What grows is capped as well, and not only what was drawn: else, once it is far above the cap,
        // nearly every draw would be the cap, and clients would come back together again.
        self.at = match jitter {
            Jitter::Decorrelated => delay,
            Jitter::None | Jitter::Full | Jitter::Equal => at.saturating_mul(2).min(cap),
        };
        Some(delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_millis(1_500);
    /// What an exponential backoff of these says, in milliseconds.
    const STEPS: [u64; 6] = [100, 200, 400, 800, 1_500, 1_500];

    fn backoff(jitter: Jitter) -> Backoff {
        Backoff::exponential(BASE, CAP).unwrap().jitter(jitter)
    }

    /// For every step the least, the mean and the most of many draws, as shares of `d`.
    fn spread(jitter: Jitter) -> Vec<[f64; 3]> {
        const RUNS: u32 = 4_000;
        let mut steps = vec![[f64::MAX, 0.0, 0.0]; STEPS.len()];
        for seed in 0..RUNS {
            for ((delay, d), [least, mean, most]) in
                backoff(jitter).delays(u64::from(seed)).zip(STEPS).zip(&mut steps)
            {
                assert!(delay <= CAP, "{delay:?} is above the cap");
                let share = delay.as_secs_f64() / Duration::from_millis(d).as_secs_f64();
                *least = least.min(share);
                *most = most.max(share);
                *mean += share / f64::from(RUNS);
            }
        }
        steps
    }

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 0.02
    }

    #[test]
    fn without_jitter_every_delay_is_what_the_backoff_says() {
        let delays: Vec<_> = backoff(Jitter::None).delays(1).take(STEPS.len()).collect();
        assert_eq!(delays, STEPS.map(Duration::from_millis));
        let constant = Backoff::constant(BASE).unwrap().jitter(Jitter::None);
        assert_eq!(constant.delays(1).take(3).collect::<Vec<_>>(), [BASE; 3]);
    }

    #[test]
    fn full_jitter_draws_evenly_from_nothing_to_the_whole_delay() {
        for [least, mean, most] in spread(Jitter::Full) {
            assert!(near(least, 0.0) && near(mean, 0.5) && near(most, 1.0), "{least} {mean} {most}");
        }
    }

    #[test]
    fn equal_jitter_keeps_half_and_draws_the_other() {
        for [least, mean, most] in spread(Jitter::Equal) {
            assert!(least >= 0.5, "{least}");
            assert!(near(least, 0.5) && near(mean, 0.75) && near(most, 1.0), "{least} {mean} {most}");
        }
    }

    #[test]
    fn decorrelated_jitter_stays_between_the_base_and_three_times_the_delay_before() {
        let mut longest = Duration::ZERO;
        for seed in 0..1_000 {
            let mut before = BASE;
            for delay in backoff(Jitter::Decorrelated).delays(seed).take(30) {
                assert!(delay >= BASE && delay <= CAP.min(before * 3), "{delay:?} after {before:?}");
                longest = longest.max(delay);
                before = delay;
            }
        }
        assert_eq!(longest, CAP);
    }

    /// AWS's article caps what grows before it draws. A cap on the drawn value alone would make nearly all
    /// late delays the same.
    #[test]
    fn the_cap_leaves_the_spread_of_late_attempts_as_it_was() {
        for (jitter, mean) in [(Jitter::Full, 0.5), (Jitter::Equal, 0.75)] {
            let late: Vec<_> = (0..2_000).filter_map(|seed| backoff(jitter).delays(seed).nth(40)).collect();
            let capped = late.iter().filter(|delay| **delay == CAP).count();
            let total: Duration = late.iter().sum();
            assert!(capped < 5, "{capped} of 2000 draws are the cap");
            assert!(near(total.as_secs_f64() / 2_000.0 / CAP.as_secs_f64(), mean));
        }
    }

    #[test]
    fn a_seed_decides_every_delay() {
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
            let delays = |seed| backoff(jitter).delays(seed).take(6).collect::<Vec<_>>();
            assert_eq!(delays(7), delays(7));
            assert_ne!(delays(7), delays(8));
        }
        let millis = |jitter| backoff(jitter).delays(7).take(4).map(|d| d.as_millis()).collect::<Vec<_>>();
        assert_eq!(millis(Jitter::Full), [77, 44, 287, 384]);
        assert_eq!(millis(Jitter::Equal), [88, 122, 343, 592]);
        assert_eq!(millis(Jitter::Decorrelated), [254, 247, 562, 863]);
    }

    #[test]
    fn thousands_of_attempts_do_not_overflow() {
        let day = Backoff::exponential(LONGEST, LONGEST).unwrap();
        for jitter in [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
            assert!(day.clone().jitter(jitter).delays(1).take(5_000).all(|delay| delay <= LONGEST));
        }
    }

    #[test]
    fn refuses_what_is_no_backoff_and_says_what_is() {
        let text = |base, cap| Backoff::exponential(base, cap).unwrap_err().to_string();
        assert_eq!(
            text(Duration::ZERO, CAP),
            "backoff base is 0s: it must be more, or nothing grows; use a constant backoff for no delay"
        );
        let allowed = "it must be from the base of 1.5s to 86400s";
        assert_eq!(text(CAP, BASE), format!("backoff cap is 100ms: {allowed}"));
        let two_days = LONGEST * 2;
        assert_eq!(text(CAP, two_days), format!("backoff cap is 172800s: {allowed}"));
        assert_eq!(
            Backoff::constant(two_days).unwrap_err().to_string(),
            "backoff delay is 172800s: it must be at most 86400s"
        );
        assert!(Backoff::constant(Duration::ZERO).is_ok(), "an instant retry");
    }
}
