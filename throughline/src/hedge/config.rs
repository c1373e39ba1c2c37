//! When a hedge starts another attempt, and how many.

use std::time::Duration;

use crate::budget::Budget;
use crate::error::{ConfigError, Result};

/// The most extra attempts.
pub(super) const MOST_EXTRA: u32 = 10;
/// The longest delay or window: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a hedge waits for the attempts under way before it starts another.
#[derive(Clone, Debug, PartialEq)]
pub struct HedgeDelay(pub(super) Delay);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Delay {
    Fixed(Duration),
    Percentile { quantile: f64, floor: Duration, ceiling: Duration, min_samples: u64, window: Duration },
}

/// How work that may run more than once is hedged.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `hedge`"]
pub struct HedgeConfig {
    pub(super) operation: String,
    pub(super) delay: Delay,
    pub(super) extra_attempts: u32,
    pub(super) budget: Option<Budget>,
}

// === impl HedgeDelay ===

impl HedgeDelay {
    /// Always `delay`; without any, all attempts start together.
    ///
    /// # Errors
    /// When `delay` is longer than a day.
    pub fn fixed(delay: Duration) -> Result<Self, ConfigError> {
        if delay > LONGEST {
            return Err(ConfigError::refused("hedge delay", delay, "from 0s to 24h"));
        }
        Ok(Self(Delay::Fixed(delay)))
    }

    /// What the share `quantile` of first attempts that succeed does not exceed, such as 0.95, between
    /// `floor` and `ceiling`. Until there are samples enough, and after a window without any, it is the
    /// ceiling: to start late costs what no hedge costs, to start early may double the load.
    ///
    /// A first attempt that lost has no latency. Leaving it out would pull the percentile down with every
    /// hedge; it counts as no shorter than it ran.
    ///
    /// # Errors
    /// When `quantile` is not between 0 and 1, `floor` is above `ceiling`, or `ceiling` is zero or longer than
    /// a day.
    pub fn percentile(quantile: f64, floor: Duration, ceiling: Duration) -> Result<Self, ConfigError> {
        if !(quantile > 0.0 && quantile < 1.0) {
            return Err(ConfigError::refused("hedge quantile", quantile, "above 0 and below 1"));
        }
        if ceiling.is_zero() || ceiling > LONGEST {
            return Err(ConfigError::refused("hedge ceiling", ceiling, "more than 0s and at most 24h"));
        }
        if floor > ceiling {
            let allowed = format!("at most the ceiling, {ceiling:?}");
            return Err(ConfigError::refused("hedge floor", floor, allowed));
        }
        let (min_samples, window) = (20, Duration::from_secs(60));
        Ok(Self(Delay::Percentile { quantile, floor, ceiling, min_samples, window }))
    }

    /// How many samples a percentile takes to be believed. Default: 20. A fixed delay needs none.
    ///
    /// # Errors
    /// When `samples` is zero.
    pub fn min_samples(mut self, samples: u64) -> Result<Self, ConfigError> {
        if samples == 0 {
            return Err(ConfigError::refused("hedge min_samples", samples, "at least 1"));
        }
        if let Delay::Percentile { min_samples, .. } = &mut self.0 {
            *min_samples = samples;
        }
        Ok(self)
    }

    /// How long a sample counts at most; at least it counts for half of this. Default: 60s. A fixed delay
    /// has none.
    ///
    /// # Errors
    /// When `window` is zero or longer than a day.
    pub fn window(mut self, window: Duration) -> Result<Self, ConfigError> {
        if window.is_zero() || window > LONGEST {
            return Err(ConfigError::refused("hedge window", window, "more than 0s and at most 24h"));
        }
        if let Delay::Percentile { window: own, .. } = &mut self.0 {
            *own = window;
        }
        Ok(self)
    }
}

// === impl HedgeConfig ===

impl HedgeConfig {
    /// Hedges `operation`. By calling this the caller says that the work is idempotent: that nothing but
    /// cost changes when it is done twice, at the same time, or half.
    pub fn for_idempotent_work(operation: impl Into<String>, delay: HedgeDelay) -> Self {
        Self { operation: operation.into(), delay: delay.0, extra_attempts: 1, budget: None }
    }

    /// How many attempts a run may start beside the first; each waits the delay after the one before.
    /// Default: 1.
    ///
    /// # Errors
    /// When `attempts` is zero or more than 10.
    pub fn extra_attempts(mut self, attempts: u32) -> Result<Self, ConfigError> {
        if attempts == 0 || attempts > MOST_EXTRA {
            return Err(ConfigError::refused("hedge extra_attempts", attempts, "from 1 to 10"));
        }
        self.extra_attempts = attempts;
        Ok(self)
    }

    /// Lets a budget decide whether an extra attempt may start; a success is deposited there. Exhausted, it
    /// leaves the attempts under way alone. Default: none.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }
}
