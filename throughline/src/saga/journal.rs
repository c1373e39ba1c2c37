//! What a saga undoes if it fails: one entry a completed step, in the order of completion.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::error::Result;
use crate::primitive::BoxFuture;

/// The entries of one run of a saga. It travels in the [`Context`], branches share it.
#[derive(Clone)]
pub(crate) struct Journal(Arc<Inner>);

struct Inner {
    id: u128,
    bounds: Bounds,
    /// That of the saga around this one.
    outer: Option<Journal>,
    state: Mutex<State>,
}

enum State {
    Open(Vec<Entry>),
    /// The saga has succeeded, and its entries belong to the one around it.
    Committed,
    /// The saga has failed: what is completed after that, by a task of its own, is undone at once.
    Failed(Late),
    /// A compensation is under way, which is not undone itself.
    Refusing,
}

/// Undoes what was completed too late.
pub(super) type Late = Arc<dyn Fn(Vec<Entry>) + Send + Sync>;

/// Something to undo, or to wait for in its place.
pub(super) enum Entry {
    Done(Box<dyn Compensation>, Bounds),
    /// A nested saga undoes its own steps; over when the token is cancelled.
    Undoing(CancellationToken),
}

/// How long one compensation may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) limit: Duration,
    pub(super) attempts: u32,
    pub(super) pause: Duration,
}

/// The way back from one completed step.
pub(super) trait Compensation: Send {
    /// The operation, for logs and errors.
    fn name(&self) -> String;

    /// Tries once.
    fn attempt(&mut self, cx: Context) -> BoxFuture<'static, Result<()>>;
}

// === impl Journal ===

impl Journal {
    pub(super) fn open(bounds: Bounds, outer: Option<Journal>) -> Self {
        let state = Mutex::new(State::Open(Vec::new()));
        Self(Arc::new(Inner { id: fastrand::u128(..), bounds, outer, state }))
    }

    /// For the context of this saga's compensations: the same id, and no entries.
    pub(super) fn refusing(&self) -> Self {
        let Inner { id, bounds, .. } = *self.0;
        Self(Arc::new(Inner { id, bounds, outer: None, state: Mutex::new(State::Refusing) }))
    }

    /// What tells this run of the saga from every other.
    pub(super) fn id(&self) -> u128 {
        self.0.id
    }

    pub(super) fn outer(&self) -> Option<&Journal> {
        self.0.outer.as_ref()
    }

    pub(super) fn takes_entries(&self) -> bool {
        !matches!(*self.state(), State::Refusing)
    }

    /// A step is completed.
    pub(super) fn completed(&self, compensation: Box<dyn Compensation>) {
        self.keep([Entry::Done(compensation, self.0.bounds)]);
    }

    pub(super) fn keep(&self, entries: impl IntoIterator<Item = Entry>) {
        let late = match &mut *self.state() {
            State::Open(kept) => return kept.extend(entries),
            State::Failed(late) => Some(Arc::clone(late)),
            State::Committed | State::Refusing => None,
        };
        match (late, self.outer()) {
            (Some(late), _) => late(entries.into_iter().collect()),
            (None, Some(outer)) => outer.keep(entries),
            (None, None) => {}
        }
    }

    /// The saga has succeeded: the one around it takes over what it did.
    pub(super) fn commit(&self) {
        let entries = self.close(State::Committed);
        if let Some(outer) = self.outer() {
            outer.keep(entries);
        }
    }

    /// The saga has failed: hands out what is to be undone, the last first to be popped.
    pub(super) fn fail(&self, late: Late) -> Vec<Entry> {
        self.close(State::Failed(late))
    }

    fn close(&self, state: State) -> Vec<Entry> {
        match std::mem::replace(&mut *self.state(), state) {
            State::Open(entries) => entries,
            _ => Vec::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
