//! What `/readyz` says.

use std::borrow::Cow;
use std::time::SystemTime;

use serde::Serialize;

use super::health::Degraded;

/// Whether a program takes work, and what beside the work is broken; as JSON the same on every port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Readiness {
    /// `ready`, `degraded` (it works, but something beside the work is broken) or `draining`.
    pub status: &'static str,
    /// What is broken. Left out for readers who have shown no credentials where these are asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub degraded: Option<Vec<Broken>>,
}

/// A part that is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Broken {
    /// Which.
    pub part: Cow<'static, str>,
    /// When that began, by RFC 3339 in UTC.
    pub since: String,
    /// Why. It holds nothing secret.
    pub reason: String,
}

// === impl Readiness ===

impl Readiness {
    pub(super) fn new(draining: bool, degraded: Vec<Degraded>) -> Self {
        let status = match (draining, degraded.is_empty()) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "degraded",
        };
        Self { status, degraded: Some(degraded.into_iter().map(Broken::from).collect()) }
    }

    /// Whether work is still taken: not while draining.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.status != "draining"
    }

    /// The same without the reasons.
    #[must_use]
    pub fn without_reasons(self) -> Self {
        Self { degraded: None, ..self }
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("text and lists of text serialise")
    }
}

// === impl Broken ===

impl From<Degraded> for Broken {
    fn from(Degraded { part, reason, since }: Degraded) -> Self {
        Self { part, since: date(since), reason }
    }
}

fn date(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_broken_and_since_when_or_only_that_something_is() {
        let part = Degraded::new("export", "refused", SystemTime::UNIX_EPOCH);
        let readiness = Readiness::new(false, vec![part]);
        assert!(readiness.is_ready());
        assert_eq!(
            readiness.to_json(),
            r#"{"status":"degraded","degraded":[{"part":"export","since":"1970-01-01T00:00:00Z","reason":"refused"}]}"#
        );
        assert_eq!(readiness.without_reasons().to_json(), r#"{"status":"degraded"}"#);
        assert_eq!(Readiness::new(false, Vec::new()).to_json(), r#"{"status":"ready","degraded":[]}"#);
        assert!(!Readiness::new(true, Vec::new()).is_ready());
    }
}
