//! `circuit_breaker = { failure_rate, min_calls, open_for }`: when a route is left alone.

use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// When a route is not called for a while.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Breaker {
    /// The share of calls that fail from which it opens; above 0, at most 1. Default: 0.5.
    pub(crate) failure_rate: f64,
    /// The fewest calls to judge by, 1 to 100000. Default: 20.
    pub(crate) min_calls: u32,
    /// How long it stays open at first. Above zero, at most 24 h. Default: 10 s.
    pub(crate) open_for: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct BreakerFile {
    failure_rate: Option<Spanned<f64>>,
    min_calls: Option<Spanned<i64>>,
    open_for: Option<Spanned<Value>>,
}

// === impl BreakerFile ===

impl BreakerFile {
    /// Checks the section.
    pub(super) fn check(&self, check: &mut Check<'_>) -> Breaker {
        let (rates, wanted) = (f64::MIN_POSITIVE..=1.0, "a number above 0 and at most 1");
        Breaker {
            failure_rate: check.number("failure_rate", self.failure_rate.as_ref(), rates, wanted, 0.5),
            min_calls: check.whole("min_calls", self.min_calls.as_ref(), 1..=100_000, 20),
            open_for: check.timeout("open_for", self.open_for.as_ref(), Duration::from_secs(10)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    fn route(text: &str) -> String {
        format!("[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n{text}\n")
    }

    fn breaker(text: &str) -> Option<Breaker> {
        accepted(&route(text)).models["a"].routes["r"].circuit_breaker.clone()
    }

    #[test]
    fn there_is_none_unless_it_is_written_and_no_key_is_needed() {
        assert_eq!(breaker(""), None);
        let open_for = Duration::from_secs(10);
        let expected = Breaker { failure_rate: 0.5, min_calls: 20, open_for };
        assert_eq!(breaker("circuit_breaker = {}"), Some(expected));
    }

    #[test]
    fn all_keys_are_read() {
        let text = "circuit_breaker = { failure_rate = 1.0, min_calls = 3, open_for = \"1m\" }";
        let open_for = Duration::from_secs(60);
        assert_eq!(breaker(text), Some(Breaker { failure_rate: 1.0, min_calls: 3, open_for }));
    }

    #[test]
    fn a_rate_that_is_no_share_is_refused() {
        for wrong in ["0.0", "-0.5", "1.1", "nan", "inf"] {
            let found: f64 = wrong.parse().unwrap();
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refused(&route(&format!("circuit_breaker = {{ failure_rate = {wrong} }}"))),
                format!(
                    "t.toml:4:36: `failure_rate` is {found}: write a number above 0 and at most 1\n    \
                     4 | circuit_breaker = {{ failure_rate = {wrong} }}\n      |                                    {marks}"
                )
            );
        }
    }

    #[test]
    fn a_judgment_by_no_calls_or_of_no_length_is_refused() {
        assert!(
            refused(&route("circuit_breaker = { min_calls = 0 }"))
                .starts_with("t.toml:4:33: `min_calls` is 0: write 1 to 100000\n")
        );
        assert!(
            refused(&route("circuit_breaker = { open_for = \"0s\" }"))
                .starts_with("t.toml:4:32: `open_for` is 0s: write 1ms to 24h\n")
        );
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        assert!(
            refused(&route("circuit_breaker = { failure_rates = 0.5 }"))
                .starts_with("t.toml:4:21: unknown key `failure_rates`, did you mean `failure_rate`?")
        );
    }
}
