//! How a stream that has come to its end gets into the store.

use std::fmt;

use bytes::Bytes;

use super::CacheEvent;

/// Takes the bytes of a stream that is complete. Dropped without, nothing is stored.
pub struct Keep {
    most: usize,
    keep: Box<dyn FnOnce(Result<Bytes, CacheEvent>) + Send>,
}

// === impl Keep ===

impl Keep {
    pub(super) fn new(most: usize, keep: impl FnOnce(Result<Bytes, CacheEvent>) + Send + 'static) -> Self {
        Self { most, keep: Box::new(keep) }
    }

    /// The most bytes that are stored: more need not be held until the end.
    #[must_use]
    pub fn most(&self) -> usize {
        self.most
    }

    /// Stores `value`.
    pub fn value(self, value: Bytes) {
        (self.keep)(Ok(value));
    }

    /// Counts that there was more than could be stored.
    pub fn too_large(self) {
        (self.keep)(Err(CacheEvent::TooLarge));
    }

    /// Counts that the stream was not one to be stored.
    pub fn refuse(self) {
        (self.keep)(Err(CacheEvent::NotCacheable));
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep(at most {} bytes)", self.most)
    }
}
