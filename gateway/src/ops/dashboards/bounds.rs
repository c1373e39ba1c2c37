//! Where alerts begin, in the units of queries: what is green on a dashboard and fires as an alert would be a lie.

use crate::ops::options::Options;

/// Shares are 0 to 1, times in seconds.
pub(super) struct Bounds {
    /// The share of requests that must succeed.
    pub(super) objective: f64,
    pub(super) hit_rate: f64,
    pub(super) savings: f64,
    pub(super) timeout_rate: f64,
    pub(super) overhead: f64,
    /// What models may cost in 30 days, in USD, if anybody has said so.
    pub(super) budget: Option<f64>,
    /// The share of it that is too much.
    pub(super) budget_spent: f64,
}

// === impl Bounds ===

impl Bounds {
    pub(super) fn of(options: &Options) -> Self {
        let limits = &options.thresholds;
        Self {
            objective: share(options.objective),
            hit_rate: share(limits.cache_hit_rate),
            savings: share(limits.savings),
            timeout_rate: share(limits.timeout_rate),
            overhead: limits.overhead,
            budget: options.monthly_budget,
            budget_spent: share(limits.budget_spent),
        }
    }

    /// The share of requests that may fail.
    pub(super) fn allowed_errors(&self) -> f64 {
        rounded(1.0 - self.objective)
    }

    /// A share as people read it.
    pub(super) fn percent(share: f64) -> String {
        format!("{} %", rounded(100.0 * share))
    }

    /// A time as people read it.
    pub(super) fn seconds(seconds: f64) -> String {
        if seconds < 1.0 {
            format!("{} ms", rounded(1000.0 * seconds))
        } else {
            format!("{} s", rounded(seconds))
        }
    }
}

fn share(percent: f64) -> f64 {
    rounded(percent / 100.0)
}

/// Without the last digits, which are the machine's: 1 - 0.999 is 0.001.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_that_were_written() {
        let bounds = Bounds::of(&Options::default());
        assert_eq!(bounds.allowed_errors(), 0.001);
        assert_eq!(Bounds::percent(bounds.allowed_errors()), "0.1 %");
        assert_eq!(Bounds::percent(bounds.hit_rate), "40 %");
        assert_eq!(Bounds::seconds(bounds.overhead), "50 ms");
        assert_eq!(Bounds::seconds(1.5), "1.5 s");
    }
}
