//! `hedge = { after }`: when a second attempt joins a slow first one.

use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// When a second attempt starts beside the first. It costs a second answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hedging {
    /// How long after the first, at most 24 h; at zero both start together.
    pub(crate) after: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct HedgeFile {
    after: Spanned<Value>,
}

// === impl HedgeFile ===

impl HedgeFile {
    /// Checks the section.
    pub(super) fn check(&self, check: &mut Check<'_>) -> Hedging {
        Hedging { after: check.duration("after", Some(&self.after), Duration::ZERO) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    fn route(text: &str) -> String {
        format!("[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n{text}\n")
    }

    fn hedging(text: &str) -> Option<Hedging> {
        accepted(&route(text)).models["a"].routes["r"].hedge.clone()
    }

    #[test]
    fn there_is_none_unless_it_is_written() {
        assert_eq!(hedging(""), None);
        assert_eq!(hedging("hedge = { after = \"2s\" }"), Some(Hedging { after: Duration::from_secs(2) }));
        assert_eq!(hedging("hedge = { after = \"0s\" }"), Some(Hedging { after: Duration::ZERO }));
    }

    #[test]
    fn a_hedge_needs_its_delay() {
        assert_eq!(
            refused(&route("hedge = {}")),
            "t.toml:4:9: missing key `after`\n    4 | hedge = {}\n      |         ^^"
        );
    }

    #[test]
    fn a_delay_of_more_than_a_day_is_refused() {
        assert_eq!(
            refused(&route("hedge = { after = \"25h\" }")),
            "t.toml:4:19: `after` is 25h: write 0s to 24h\n    \
             4 | hedge = { after = \"25h\" }\n      |                   ^^^^^"
        );
    }
}
