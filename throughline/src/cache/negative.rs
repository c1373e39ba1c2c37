//! Errors that are given again for a while instead of doing the work.

use std::time::Duration;

use quick_cache::sync::Cache;

use super::key::Key;
use crate::error::{ConfigError, Error, Kind};
use crate::telemetry::Tick;

/// The most errors that are remembered; what is used least goes first.
const MOST: usize = 4096;

/// Which errors are given again, and for how long.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NegativeRule {
    kinds: Vec<Kind>,
    ttl: Duration,
}

/// The errors of late, in this process's memory: an error with its causes is nothing that a store could hold.
#[derive(Debug)]
pub(super) struct Negatives {
    rule: NegativeRule,
    errors: Cache<Key, (Error, Tick)>,
}

// === impl NegativeRule ===

impl NegativeRule {
    /// Errors of `kinds`, for `ttl`.
    pub(super) fn new(kinds: Vec<Kind>, ttl: Duration) -> Result<Self, ConfigError> {
        if ttl < Duration::from_millis(1) {
            return Err(ConfigError::refused("negative ttl", ttl, "at least 1ms"));
        }
        // They say something of one caller, of one moment, or of the store, and nothing of the question.
        let fleeting = [Kind::Timeout, Kind::Cancelled, Kind::Store];
        if kinds.is_empty() {
            return Err(ConfigError::refused("negative kinds", format_args!("none"), "at least one"));
        }
        if let Some(kind) = kinds.iter().find(|kind| fleeting.contains(kind)) {
            let wanted = "none of timeout, cancelled, store";
            return Err(ConfigError::refused("negative kinds", format_args!("{}", kind.as_str()), wanted));
        }
        Ok(Self { kinds, ttl })
    }
}

// === impl Negatives ===

impl Negatives {
    pub(super) fn new(rule: NegativeRule) -> Self {
        Self { rule, errors: Cache::new(MOST) }
    }

    /// The error that came of this key, with its age.
    pub(super) fn get(&self, key: &Key, now: Tick) -> Option<(Error, Duration)> {
        let (error, since) = self.errors.get(key)?;
        let age = now.since(since);
        if age >= self.rule.ttl {
            self.errors.remove(key);
            return None;
        }
        Some((error, age))
    }

    /// Remembers `error` if it is one of those.
    pub(super) fn learn(&self, key: Key, error: &Error, now: Tick) {
        if self.rule.kinds.contains(&error.kind()) {
            self.errors.insert(key, (error.clone(), now));
        }
    }

    /// There is an answer now.
    pub(super) fn forget(&self, key: &Key) {
        self.errors.remove(key);
    }
}
