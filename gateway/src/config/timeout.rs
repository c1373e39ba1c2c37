//! `timeout = { limit, grace, first_token, between_chunks }`: how long a workflow or one of its routes may take.

use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// A limit in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TimeLimit {
    /// When work is asked to stop. Above zero, at most 24 h.
    pub(crate) limit: Duration,
    /// How long after that it is dropped, at most 24 h. Default: 0 s.
    pub(crate) grace: Duration,
    /// How long the first token of a streamed answer may take. Default: no limit but the whole.
    pub(crate) first_token: Option<Duration>,
    /// How long a streamed answer may pause. Default: no limit but the whole.
    pub(crate) between_chunks: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TimeoutFile {
    limit: Spanned<Value>,
    grace: Option<Spanned<Value>>,
    first_token: Option<Spanned<Value>>,
    between_chunks: Option<Spanned<Value>>,
}

// === impl TimeoutFile ===

impl TimeoutFile {
    /// Checks the section.
    pub(super) fn check(&self, check: &mut Check<'_>) -> TimeLimit {
        let mut optional = |key, value: &Option<Spanned<Value>>| {
            value.as_ref().map(|value| check.timeout(key, Some(value), Duration::ZERO))
        };
        let first_token = optional("first_token", &self.first_token);
        let between_chunks = optional("between_chunks", &self.between_chunks);
        TimeLimit {
            first_token,
            between_chunks,
            limit: check.timeout("limit", Some(&self.limit), Duration::ZERO),
            grace: check.duration("grace", self.grace.as_ref(), Duration::ZERO),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    fn timeout(text: &str) -> Option<TimeLimit> {
        accepted(&format!("[models.a]\n{text}\n[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n"))
            .models["a"]
            .timeout
            .clone()
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[models.a]\n{text}\n[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n"))
    }

    #[test]
    fn there_is_none_unless_it_is_written_and_no_grace_unless_it_is_given() {
        assert_eq!(timeout(""), None);
        let limit = Duration::from_secs(60);
        assert_eq!(
            timeout("timeout = { limit = \"60s\" }"),
            Some(TimeLimit { limit, grace: Duration::ZERO, first_token: None, between_chunks: None })
        );
        assert_eq!(
            timeout(
                "timeout = { limit = \"1m\", grace = \"2s\", first_token = \"5s\", between_chunks = \"1s\" }"
            ),
            Some(TimeLimit {
                limit,
                grace: Duration::from_secs(2),
                first_token: Some(Duration::from_secs(5)),
                between_chunks: Some(Duration::from_secs(1)),
            })
        );
    }

    #[test]
    fn a_limit_of_zero_is_refused() {
        assert_eq!(
            refusal("timeout = { limit = \"0s\" }"),
            "t.toml:2:21: `limit` is 0s: write 1ms to 24h\n    \
             2 | timeout = { limit = \"0s\" }\n      |                     ^^^^"
        );
    }

    #[test]
    fn a_first_token_in_no_time_is_refused() {
        assert!(
            refusal("timeout = { limit = \"1s\", first_token = \"0s\" }")
                .starts_with("t.toml:2:41: `first_token` is 0s: write 1ms to 24h\n")
        );
    }

    #[test]
    fn a_grace_below_zero_is_refused() {
        assert_eq!(
            refusal("timeout = { limit = \"1s\", grace = \"-1s\" }"),
            "t.toml:2:35: `grace` is -1s: write 0s to 24h\n    \
             2 | timeout = { limit = \"1s\", grace = \"-1s\" }\n      |                                   ^^^^^"
        );
    }
}
