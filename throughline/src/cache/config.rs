//! How values are cached.

use std::time::Duration;

use super::key::KeyBuilder;
use super::negative::NegativeRule;
use crate::error::{ConfigError, Kind};

/// How values are cached.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `cache`"]
pub struct CacheConfig {
    pub(super) operation: String,
    pub(super) ttl: Duration,
    pub(super) jitter: f64,
    pub(super) stale_while_revalidate: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) store_deadline: Duration,
    pub(super) schema: u32,
    pub(super) scope: String,
    pub(super) caller_policy: bool,
    pub(super) early: f64,
    pub(super) negative: Option<NegativeRule>,
    pub(super) largest: usize,
}

// === impl CacheConfig ===

impl CacheConfig {
    /// Serves the values of `operation` for `ttl`. The operation is part of every key, so that two caches
    /// on one store do not meet.
    ///
    /// # Errors
    /// When `ttl` is shorter than a millisecond.
    pub fn new(operation: impl Into<String>, ttl: Duration) -> Result<Self, ConfigError> {
        if ttl < Duration::from_millis(1) {
            return Err(ConfigError::refused("cache ttl", ttl, "at least 1ms"));
        }
        Ok(Self {
            operation: operation.into(),
            ttl,
            jitter: 0.1,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            store_deadline: Duration::from_millis(20),
            schema: 0,
            scope: String::new(),
            caller_policy: true,
            early: 0.0,
            negative: None,
            largest: usize::MAX,
        })
    }

    /// How the keys of this cache begin, for whoever wants to find in its store what it has put there.
    pub fn keys(&self) -> KeyBuilder {
        KeyBuilder::scoped(&self.operation, self.schema, &self.scope)
    }

    /// The operation.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }

    /// How long values are fresh, at most.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether callers are asked for their [`CachePolicy`](super::CachePolicy).
    #[must_use]
    pub fn asks_callers(&self) -> bool {
        self.caller_policy
    }

    /// Shortens each value's time by a random share of up to this much, so that values stored together
    /// do not expire together. Default: 0.1.
    ///
    /// # Errors
    /// When it is not between 0 and 0.5.
    pub fn jitter(mut self, share: f64) -> Result<Self, ConfigError> {
        if !(0.0..=0.5).contains(&share) {
            return Err(ConfigError::refused("cache jitter", format_args!("{share}"), "from 0 to 0.5"));
        }
        self.jitter = share;
        Ok(self)
    }

    /// Serves a value for this long after its time, while it is refreshed in the background (RFC 5861).
    /// Default: 0s.
    pub fn stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// Serves a value for this long after its time when the workflow fails in a way that may pass
    /// (RFC 5861). Default: 0s.
    pub fn stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }

    /// Refreshes a value in the background before its time is over, by chance: the dearer it was to compute and the
    /// nearer its end, the more likely. Many processes then do not refresh it at the same moment. `eagerness` is the β of
    /// XFetch (Vattani, Chierichetti and Lowenstein, 2015): 1 is what the paper finds best, more is earlier.
    /// Default: 0, which is never.
    ///
    /// # Errors
    /// When it is not between 0 and 10.
    pub fn early_refresh(mut self, eagerness: f64) -> Result<Self, ConfigError> {
        if !(0.0..=10.0).contains(&eagerness) {
            return Err(ConfigError::refused("early refresh", format_args!("{eagerness}"), "from 0 to 10"));
        }
        self.early = eagerness;
        Ok(self)
    }

    /// Gives an error of one of `kinds` again for `ttl`, without doing the work. It is held in this process's memory, of
    /// which the last few thousand are; a value that is there is served all the same. Default: no error is.
    ///
    /// # Errors
    /// When `ttl` is below a millisecond, there is no kind, or it is one that says nothing of the input:
    /// [`Kind::Timeout`], [`Kind::Cancelled`] or [`Kind::Store`].
    pub fn negative(
        mut self,
        kinds: impl IntoIterator<Item = Kind>,
        ttl: Duration,
    ) -> Result<Self, ConfigError> {
        self.negative = Some(NegativeRule::new(kinds.into_iter().collect(), ttl)?);
        Ok(self)
    }

    /// Stores no value of more bytes than this; it is counted as `too_large`. Default: what the store takes.
    ///
    /// # Errors
    /// When it is zero.
    pub fn largest_value(mut self, bytes: usize) -> Result<Self, ConfigError> {
        if bytes == 0 {
            return Err(ConfigError::refused("largest cached value", format_args!("0 bytes"), "more"));
        }
        self.largest = bytes;
        Ok(self)
    }

    /// How long one call to the store may keep its caller. It is given up 4ms earlier, or halfway where that is less than 4ms
    /// away: timers may be late by as much. Default: 20ms.
    ///
    /// # Errors
    /// When it is zero.
    pub fn store_deadline(mut self, deadline: Duration) -> Result<Self, ConfigError> {
        if deadline.is_zero() {
            return Err(ConfigError::refused("cache store deadline", format_args!("0s"), "more"));
        }
        self.store_deadline = deadline;
        Ok(self)
    }

    /// Part of every key. Change it when the meaning of stored values changes. Default: 0.
    pub fn schema(mut self, version: u32) -> Self {
        self.schema = version;
        self
    }

    /// Part of every key: what decides the answers beside the inputs, such as which model is behind the workflow.
    /// Who shares a store shares answers only with the same scope. Default: none.
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Takes no notice of a [`CachePolicy`](crate::cache::CachePolicy): no caller decides what is served or stored.
    /// Default: it is followed.
    pub fn without_caller_policy(mut self) -> Self {
        self.caller_policy = false;
        self
    }
}
