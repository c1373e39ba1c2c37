//! `retry = { attempts, first_delay, longest_delay }`: how often a route is tried.

use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// When a route is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retries {
    /// How many attempts a request has, the first included, 1 to 100. Default: 3.
    pub(crate) attempts: u32,
    /// How long to wait at most before the second attempt; doubled before each further one. Above zero, at most
    /// 24 h. Default: 100 ms.
    pub(crate) first_delay: Duration,
    /// What the delay is never above, at least `first_delay`, at most 24 h. Default: 10 s, or `first_delay` where
    /// that is longer.
    pub(crate) longest_delay: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RetryFile {
    attempts: Option<Spanned<i64>>,
    first_delay: Option<Spanned<Value>>,
    longest_delay: Option<Spanned<Value>>,
}

// === impl RetryFile ===

impl RetryFile {
    /// Checks the section.
    pub(super) fn check(&self, check: &mut Check<'_>) -> Retries {
        let first_delay = check.timeout("first_delay", self.first_delay.as_ref(), Duration::from_millis(100));
        let default = first_delay.max(Duration::from_secs(10));
        let longest_delay = check.timeout("longest_delay", self.longest_delay.as_ref(), default);
        if let Some(written) = self.longest_delay.as_ref().filter(|_| longest_delay < first_delay) {
            let problem = format!(
                "`longest_delay` is {longest_delay:?}: write {first_delay:?}, the `first_delay`, or more"
            );
            check.refuse(written.span(), problem);
        }
        Retries {
            attempts: check.whole("attempts", self.attempts.as_ref(), 1..=100, 3),
            first_delay,
            longest_delay,
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

    fn retries(text: &str) -> Option<Retries> {
        accepted(&route(text)).models["a"].routes["r"].retry.clone()
    }

    #[test]
    fn there_is_none_unless_it_is_written_and_no_key_is_needed() {
        assert_eq!(retries(""), None);
        let (first_delay, longest_delay) = (Duration::from_millis(100), Duration::from_secs(10));
        assert_eq!(retries("retry = {}"), Some(Retries { attempts: 3, first_delay, longest_delay }));
    }

    #[test]
    fn all_keys_are_read() {
        let expected = Retries {
            attempts: 5,
            first_delay: Duration::from_millis(200),
            longest_delay: Duration::from_secs(5),
        };
        let text = "retry = { attempts = 5, first_delay = \"200ms\", longest_delay = \"5s\" }";
        assert_eq!(retries(text), Some(expected));
    }

    #[test]
    fn a_long_first_delay_is_the_longest_as_well() {
        assert_eq!(
            retries("retry = { first_delay = \"20s\" }").unwrap().longest_delay,
            Duration::from_secs(20)
        );
    }

    #[test]
    fn no_attempt_at_all_is_refused() {
        assert_eq!(
            refused(&route("retry = { attempts = 0 }")),
            "t.toml:4:22: `attempts` is 0: write 1 to 100\n    4 | retry = { attempts = 0 }\n      |                      ^"
        );
    }

    #[test]
    fn a_longest_delay_below_the_first_is_refused() {
        assert_eq!(
            refused(&route("retry = { first_delay = \"2s\", longest_delay = \"1s\" }")),
            "t.toml:4:47: `longest_delay` is 1s: write 2s, the `first_delay`, or more\n    \
             4 | retry = { first_delay = \"2s\", longest_delay = \"1s\" }\n      |                                               ^^^^"
        );
        assert!(
            refused(&route("retry = { longest_delay = \"50ms\" }"))
                .contains("write 100ms, the `first_delay`")
        );
    }

    #[test]
    fn a_delay_of_nothing_is_refused() {
        assert!(
            refused(&route("retry = { first_delay = \"0s\" }"))
                .starts_with("t.toml:4:25: `first_delay` is 0s: write 1ms to 24h\n")
        );
    }

    #[test]
    fn a_key_that_does_not_exist_is_refused() {
        assert!(
            refused(&route("retry = { attemps = 2 }")).starts_with(
                "t.toml:4:11: unknown key `attemps`, did you mean `attempts`? (allowed: attempts, first_delay, longest_delay)\n"
            )
        );
    }
}
