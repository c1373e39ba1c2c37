//! How long a run may take.

use std::time::Duration;

use crate::error::ConfigError;

/// The longest limit or grace: a day.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);
const LIMITS: &str = "more than 0 s and at most 86400 s";
const GRACES: &str = "from 0 s to 86400 s";

/// How long a run may take.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `timeout`"]
pub struct TimeoutConfig {
    pub(super) operation: String,
    pub(super) limit: Duration,
    pub(super) grace: Duration,
    pub(super) first_item: Option<Duration>,
    pub(super) between_items: Option<Duration>,
}

// === impl TimeoutConfig ===

impl TimeoutConfig {
    /// Limits the runs of `operation` to `limit`, without grace.
    ///
    /// # Errors
    /// When `limit` is zero or longer than a day.
    pub fn new(operation: impl Into<String>, limit: Duration) -> Result<Self, ConfigError> {
        let limit = bounded("limit", limit)?;
        let operation = operation.into();
        Ok(Self { operation, limit, grace: Duration::ZERO, first_item: None, between_items: None })
    }

    /// As [`TimeoutConfig::new`], with the limit in seconds.
    ///
    /// # Errors
    /// When `seconds` is not a number, not above zero or more than a day.
    pub fn from_secs(operation: impl Into<String>, seconds: f64) -> Result<Self, ConfigError> {
        Self::new(operation, duration("limit", seconds, LIMITS)?)
    }

    /// Leaves work that was asked to stop this long before it is dropped. Default: 0s.
    ///
    /// # Errors
    /// When `grace` is longer than a day.
    pub fn grace(mut self, grace: Duration) -> Result<Self, ConfigError> {
        if grace > LONGEST {
            return Err(refused("grace", grace.as_secs_f64(), GRACES));
        }
        self.grace = grace;
        Ok(self)
    }

    /// How long a stream's first item may take, from the start of the run where the context says that a
    /// stream is expected ([`Context::expects_stream`](crate::Context::expects_stream)). Default: no limit but the whole.
    ///
    /// # Errors
    /// When `limit` is zero or longer than a day.
    pub fn first_item(mut self, limit: Duration) -> Result<Self, ConfigError> {
        self.first_item = Some(bounded("first item", limit)?);
        Ok(self)
    }

    /// How long a stream may pause between two items. Default: no limit but the whole.
    ///
    /// # Errors
    /// When `limit` is zero or longer than a day.
    pub fn between_items(mut self, limit: Duration) -> Result<Self, ConfigError> {
        self.between_items = Some(bounded("between items", limit)?);
        Ok(self)
    }

    /// As [`TimeoutConfig::grace`], in seconds. Default: 0.
    ///
    /// # Errors
    /// When `seconds` is not a number, negative or more than a day.
    pub fn grace_secs(self, seconds: f64) -> Result<Self, ConfigError> {
        let grace = duration("grace", seconds, GRACES)?;
        self.grace(grace)
    }

    /// When the work is asked to stop.
    #[must_use]
    pub fn limit(&self) -> Duration {
        self.limit
    }
}

fn bounded(field: &str, limit: Duration) -> Result<Duration, ConfigError> {
    match limit.is_zero() || limit > LONGEST {
        true => Err(refused(field, limit.as_secs_f64(), LIMITS)),
        false => Ok(limit),
    }
}

fn duration(field: &str, seconds: f64, allowed: &str) -> Result<Duration, ConfigError> {
    Duration::try_from_secs_f64(seconds).map_err(|_| refused(field, seconds, allowed))
}

fn refused(field: &str, seconds: f64, allowed: &str) -> ConfigError {
    ConfigError::refused(&format!("timeout {field}"), format_args!("{seconds:?} s"), allowed)
}
