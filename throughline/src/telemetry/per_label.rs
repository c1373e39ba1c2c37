//! Counts of a stage itself, which go on with telemetry off: for `stats()`.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

use super::label::Label;

/// One count per value of a closed set.
pub(crate) struct PerLabel<L>(Box<[AtomicU64]>, PhantomData<fn(L)>);

// === impl PerLabel ===

impl<L: Label> PerLabel<L> {
    /// Counts one more.
    pub(crate) fn inc(&self, label: L) {
        self.0[label.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self, label: L) -> u64 {
        self.0[label.index()].load(Ordering::Relaxed)
    }
}

impl<L: Label> Default for PerLabel<L> {
    fn default() -> Self {
        Self(L::ALL.iter().map(|_| AtomicU64::default()).collect(), PhantomData)
    }
}

impl<L: Label> fmt::Debug for PerLabel<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(L::ALL.iter().map(|label| (label.as_str(), self.get(*label)))).finish()
    }
}
