//! One opaque error for every primitive.
//!
//! An [`Error`] says what kind of failure it is, whether another try could help, how long to wait
//! before it, and whose fault it is. Retry, fallback, cache and the gateway decide by these answers
//! and never by text. The text shows one level only; the causes are reached through
//! [`std::error::Error::source`].
//!
//! ```
//! use std::time::Duration;
//! use throughline::{Blame, Error, Kind};
//!
//! let error = Error::new(Kind::Upstream, "the model answered 503").with_retry_after(Duration::from_secs(2));
//! assert!(error.is_retryable());
//! assert_eq!(error.blame(), Blame::Upstream);
//! assert_eq!(error.to_string(), "the model answered 503");
//! ```

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What every stage returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as a closed set: it becomes the `error_type` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A limit on time was reached.
    Timeout,
    /// A circuit breaker refused the call.
    CircuitOpen,
    /// A rate limit refused the call, ours or the upstream's.
    RateLimited,
    /// Load was shed, or a queue was full.
    Rejected,
    /// The caller gave up.
    Cancelled,
    /// The input cannot be worked on, now or later.
    InvalidInput,
    /// The called service failed.
    Upstream,
    /// A cache or state store failed.
    Store,
    /// A fault of this program.
    Internal,
}

impl Kind {
    /// The label value: snake_case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::CircuitOpen => "circuit_open",
            Self::RateLimited => "rate_limited",
            Self::Rejected => "rejected",
            Self::Cancelled => "cancelled",
            Self::InvalidInput => "invalid_input",
            Self::Upstream => "upstream",
            Self::Store => "store",
            Self::Internal => "internal",
        }
    }
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The caller sent something wrong or went away.
    Caller,
    /// The called service.
    Upstream,
    /// This program or its configuration.
    Us,
}

/// A failure of a stage. Cheap to clone, so that it can be handed to several waiters.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: Kind,
    message: Cow<'static, str>,
    retryable: bool,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    also: Vec<Error>,
}

// === impl Error ===

impl Error {
    /// An error of `kind` with a message in lower case that holds no payload.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        let retryable =
            matches!(kind, Kind::Timeout | Kind::RateLimited | Kind::Rejected | Kind::Upstream | Kind::Store);
        let message = message.into();
        Self(Arc::new(Inner { kind, message, retryable, retry_after: None, source: None, also: Vec::new() }))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::new(source));
        self
    }

    /// As [`Error::because`], for a cause whose type is not known.
    #[cfg(feature = "tower")]
    pub(crate) fn because_of(mut self, source: Box<dyn std::error::Error + Send + Sync>) -> Self {
        Arc::make_mut(&mut self.0).source = Some(source.into());
        self
    }

    /// The same error, with another that came after it: what a fallback or a compensation failed with.
    #[must_use]
    pub fn and(mut self, later: Error) -> Self {
        Arc::make_mut(&mut self.0).also.push(later);
        self
    }

    /// The same error, fatal: another try would fail as well.
    #[must_use]
    pub fn fatal(mut self) -> Self {
        Arc::make_mut(&mut self.0).retryable = false;
        self
    }

    /// The same error, worth another try, but not before `delay` has passed. Made [`fatal`](Error::fatal) after
    /// that, it says when the failing side takes calls again, and not to wait for it here.
    #[must_use]
    pub fn with_retry_after(mut self, delay: Duration) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.retryable = true;
        inner.retry_after = Some(delay);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether another try may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// How long to wait before another try, where the failing side said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The errors that came after this one, in that order.
    #[must_use]
    pub fn also(&self) -> &[Error] {
        &self.0.also
    }

    /// Whether this is that very error, handed on.
    pub(crate) fn is(&self, other: &Error) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self.0.kind {
            Kind::InvalidInput | Kind::Cancelled => Blame::Caller,
            Kind::Timeout | Kind::CircuitOpen | Kind::Upstream => Blame::Upstream,
            Kind::RateLimited | Kind::Rejected | Kind::Store | Kind::Internal => Blame::Us,
        }
    }

    /// The nearest cause of type `T`.
    #[must_use]
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let mut next: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind.as_str(), self.0.message)?;
        let mut next = std::error::Error::source(self);
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        self.also().iter().try_for_each(|later| write!(f, "; then {later:?}"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// A value that a primitive cannot be built with.
///
/// The message names the field, what was given and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(Cow<'static, str>);

impl ConfigError {
    /// A refusal in lower case: field, what was given, what is allowed.
    #[must_use]
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self(message.into())
    }

    /// The usual refusal.
    pub(crate) fn refused(field: &str, given: impl fmt::Debug, allowed: impl fmt::Display) -> Self {
        Self::new(format!("{field} is {given:?}: it must be {allowed}"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_one_level_and_keeps_the_causes() {
        let cause = std::io::Error::other("connection reset");
        let error = Error::new(Kind::Upstream, "no answer from the model").because(cause);
        assert_eq!(error.to_string(), "no answer from the model");
        assert_eq!(format!("{error:?}"), "upstream: no answer from the model: connection reset");
        assert_eq!(error.cause::<std::io::Error>().map(ToString::to_string), Some("connection reset".into()));
    }

    #[test]
    fn only_passing_failures_are_worth_another_try() {
        assert!(Error::new(Kind::Timeout, "late").is_retryable());
        assert!(!Error::new(Kind::InvalidInput, "bad").is_retryable());
        assert!(!Error::new(Kind::Upstream, "gone for good").fatal().is_retryable());
        let limited = Error::new(Kind::RateLimited, "slow down").with_retry_after(Duration::from_secs(3));
        assert_eq!(limited.retry_after(), Some(Duration::from_secs(3)));
        let open = Error::new(Kind::CircuitOpen, "open").with_retry_after(Duration::from_secs(4)).fatal();
        assert_eq!((open.is_retryable(), open.retry_after()), (false, Some(Duration::from_secs(4))));
    }

    #[test]
    fn says_whose_fault_it_is() {
        assert_eq!(Error::new(Kind::InvalidInput, "bad").blame(), Blame::Caller);
        assert_eq!(Error::new(Kind::Timeout, "late").blame(), Blame::Upstream);
        assert_eq!(Error::new(Kind::Internal, "bug").blame(), Blame::Us);
    }
}
