//! What is asked of the port for operators: JSON by POST, the same for the commands and for `curl`.

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use crate::logs::visible;

/// The header that says the gateway's version, on every answer.
pub(crate) const VERSION: &str = "x-throughline-version";

/// The header that says what stores said that failed, beside an answer that is no JSON: a JSON list.
pub(crate) const FAILURES: &str = "x-throughline-failures";

/// What stands in [`FAILURES`]; `None` where there are none.
pub(super) fn failures(said: &[String]) -> Option<HeaderValue> {
    let said: Vec<_> = said.iter().map(|said| visible(said)).collect();
    let list = serde_json::to_vec(&said).expect("texts serialise");
    (!said.is_empty()).then(|| HeaderValue::from_bytes(&list).expect("nothing in it controls anything"))
}

/// Something that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    Stats,
    Get,
    Purge,
    Flush,
}

/// How much is held, of which models and tenants.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Stats {
    /// Only these stores; all if there are none.
    pub(crate) stores: Vec<String>,
    /// Tenants that are to be named.
    pub(crate) tenants: Vec<String>,
}

/// What is under a key.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Get {
    /// The key, or at least 8 digits of its beginning.
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) stores: Vec<String>,
    /// Whether the answer itself is wanted, and nothing else.
    #[serde(default)]
    pub(crate) value: bool,
}

/// Removing what all of this applies to; something must be said.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Purge {
    pub(crate) stores: Vec<String>,
    pub(crate) keys: Vec<String>,
    pub(crate) prefix: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) model: Option<String>,
    /// Whether it is only counted.
    pub(crate) dry_run: bool,
}

/// Removing everything.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Flush {
    pub(crate) stores: Vec<String>,
    pub(crate) dry_run: bool,
}

// === impl Task ===

impl Task {
    const ALL: [Self; 4] = [Self::Stats, Self::Get, Self::Purge, Self::Flush];

    /// Where it is asked.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Stats => "/admin/cache/stats",
            Self::Get => "/admin/cache/get",
            Self::Purge => "/admin/cache/purge",
            Self::Flush => "/admin/cache/flush",
        }
    }

    /// What is asked at `path`.
    pub(super) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|task| task.path() == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_a_header_whatever_they_say() {
        assert_eq!(failures(&[]), None);
        let header = failures(&["store a: \u{1b}[2J\r\nx\u{7f}".to_owned(), "größer".to_owned()]).unwrap();
        let list: Vec<String> = serde_json::from_slice(header.as_bytes()).unwrap();
        assert_eq!(list, ["store a: \\u{1b}[2J\\r\\nx\\u{7f}", "größer"]);
    }
}
