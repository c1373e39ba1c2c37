//! `timeout = { limit, grace }`: how long a workflow or one of its routes may take.

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct TimeoutFile {
    limit: Spanned<Value>,
    grace: Option<Spanned<Value>>,
}

// === impl TimeoutFile ===

impl TimeoutFile {
    /// Checks the section.
    pub(super) fn check(&self, check: &mut Check<'_>) -> TimeLimit {
        TimeLimit {
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
            Some(TimeLimit { limit, grace: Duration::ZERO })
        );
        assert_eq!(
            timeout("timeout = { limit = \"1m\", grace = \"2s\" }"),
            Some(TimeLimit { limit, grace: Duration::from_secs(2) })
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
    fn a_grace_below_zero_is_refused() {
        assert_eq!(
            refusal("timeout = { limit = \"1s\", grace = \"-1s\" }"),
            "t.toml:2:35: `grace` is -1s: write 0s to 24h\n    \
             2 | timeout = { limit = \"1s\", grace = \"-1s\" }\n      |                                   ^^^^^"
        );
    }
}
