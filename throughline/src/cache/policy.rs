//! What one caller wants of a cache.

use std::fmt;
use std::time::Duration;

/// What a caller wants of the caches on its way: the request's side of HTTP's `Cache-Control` (RFC 9111, section
/// 5.2.1). It is left in [`Context::state`](crate::Context::state) before the run; without one a caller takes what
/// there is. A refresh in the background has none.
///
/// ```
/// use std::time::Duration;
/// use throughline::cache::CachePolicy;
/// use throughline::{CacheConfig, CacheOutcome, Context, JsonCaching, Memory, workflow};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let flow = workflow("square", |n: u64| async move { Ok(n * n) }).cache(
///     CacheConfig::new("square", Duration::from_secs(60))?,
///     JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
///     Memory::new(1 << 20)?,
/// );
/// let cx = Context::new();
/// cx.state().insert(CachePolicy::new().only_if_cached());
/// assert_eq!(flow.run(7, &cx).await.unwrap_err().to_string(), "no value that the caller would take is cached");
///
/// cx.state().insert(CachePolicy::new().no_cache());
/// assert_eq!(flow.run(7, &cx).await?, 49);
/// assert_eq!(*cx.state().get::<CacheOutcome>().unwrap(), CacheOutcome::Bypass);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "a policy does nothing until it is in the state of a context"]
pub struct CachePolicy {
    no_cache: bool,
    no_store: bool,
    only_if_cached: bool,
    max_age: Option<Duration>,
}

/// There was no value that a caller of [`CachePolicy::only_if_cached`] would take. The cause of such an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NotCached;

/// How old the value was that a cache has served. Left in [`Context::state`](crate::Context::state) beside
/// [`CacheOutcome`](crate::CacheOutcome), where that is `Hit` or `Stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CachedAge(pub Duration);

/// A cache refreshes a value in the background: what answers inside of it is to make a new one. Left in
/// [`Context::state`](crate::Context::state).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshing;

// === impl CachePolicy ===

impl CachePolicy {
    /// Takes what there is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wants an answer of its own and no stored one, nor one that others wait for. The answer is stored.
    pub fn no_cache(mut self) -> Self {
        self.no_cache = true;
        self
    }

    /// Wants to leave no trace: neither a stored answer, nor one that is stored or shared.
    pub fn no_store(mut self) -> Self {
        self.no_store = true;
        self
    }

    /// Takes a stored answer that is no older than this and not past its time. Said twice, the shorter time counts.
    pub fn max_age(mut self, age: Duration) -> Self {
        self.max_age = Some(self.max_age.map_or(age, |before| before.min(age)));
        self
    }

    /// Wants a stored answer, or the error [`NotCached`]: the work is not done, and nobody is waited for.
    pub fn only_if_cached(mut self) -> Self {
        self.only_if_cached = true;
        self
    }

    /// Whether the work must not be done.
    #[must_use]
    pub fn is_only_if_cached(&self) -> bool {
        self.only_if_cached
    }

    /// Whether the caller wants an answer of its own.
    #[must_use]
    pub fn is_no_cache(&self) -> bool {
        self.no_cache
    }

    /// Whether the caller wants to leave no trace.
    #[must_use]
    pub fn is_no_store(&self) -> bool {
        self.no_store
    }

    /// Whether a value within its time may be that old.
    #[must_use]
    pub fn takes(&self, age: Duration) -> bool {
        self.max_age.is_none_or(|most| age <= most)
    }

    /// Whether a value past its time will do. Who says how old it may be wants none (RFC 9111, section 5.2.1.1).
    pub(super) fn takes_stale(&self) -> bool {
        self.max_age.is_none()
    }
}

// === impl NotCached ===

impl fmt::Display for NotCached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the caller asked for a cached value only")
    }
}

impl std::error::Error for NotCached {}
