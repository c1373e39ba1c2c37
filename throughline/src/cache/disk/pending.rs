//! What has been put and is not in the file yet: it is read from here, and bounded in bytes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::cache::key::Key;
use crate::error::{Error, Kind, Result};

/// Bytes that may wait to be written.
const MOST: usize = 64 << 20;

/// What is to become of a key.
#[derive(Clone, Debug)]
pub(super) enum Waiting {
    Put(Bytes),
    Deleted,
}

/// Changes by key, each with the number of the write that makes it.
#[derive(Debug, Default)]
pub(super) struct Pending(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    changes: HashMap<Key, (u64, Waiting)>,
    bytes: usize,
    next: u64,
}

// === impl Pending ===

impl Pending {
    pub(super) fn get(&self, key: &Key) -> Option<Waiting> {
        Some(self.lock().changes.get(key)?.1.clone())
    }

    /// Remembers a change and gives it its number.
    ///
    /// # Errors
    /// When too much waits already.
    pub(super) fn add(&self, key: Key, change: Waiting) -> Result<u64> {
        let mut inner = self.lock();
        if inner.bytes + change.bytes() > MOST {
            return Err(Error::new(
                Kind::Store,
                format!("the disk does not keep up: {MOST} bytes wait to be written"),
            ));
        }
        inner.next += 1;
        inner.bytes += change.bytes();
        let number = inner.next;
        if let Some((_, old)) = inner.changes.insert(key, (number, change)) {
            inner.bytes -= old.bytes();
        }
        Ok(number)
    }

    /// Forgets a change that was made, or never will be, unless there is a newer one.
    pub(super) fn remove(&self, key: &Key, number: u64) {
        let mut inner = self.lock();
        if inner.changes.get(key).is_some_and(|(newest, _)| *newest == number)
            && let Some((_, change)) = inner.changes.remove(key)
        {
            inner.bytes -= change.bytes();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Waiting ===

impl Waiting {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(sealed) => sealed.len(),
            Self::Deleted => 0,
        }
    }
}
