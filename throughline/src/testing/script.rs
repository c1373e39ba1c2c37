//! Work that follows a script.

use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::telemetry::{Ended, NoEvents, Observed, Registry, Run, Stage};
use crate::workflow::Workflow;

/// What one call does.
#[derive(Clone, Debug)]
pub struct Turn<Out> {
    pub(super) after: Duration,
    pub(super) end: TurnEnd<Out>,
}

#[derive(Clone, Debug)]
pub(super) enum TurnEnd<Out> {
    Value(Out),
    Fail(Error),
    Hang,
    Panic,
}

/// Work that does what it was told, call by call; the last turn is repeated. Clones share it.
#[derive(Clone)]
pub struct Script<Out>(Arc<Inner<Out>>);

struct Inner<Out> {
    operation: String,
    turns: Mutex<Vec<Turn<Out>>>,
    calls: AtomicUsize,
    running: AtomicUsize,
    dropped: AtomicUsize,
}

/// The stage that follows a [`Script`].
pub struct Scripted<In, Out> {
    script: Script<Out>,
    input: PhantomData<fn(In)>,
}

/// A call that is under way.
struct Call<'a, Out> {
    inner: &'a Inner<Out>,
    returned: bool,
}

// === impl Turn ===

impl<Out> Turn<Out> {
    /// Answers `value` at once.
    pub fn value(value: Out) -> Self {
        Self { after: Duration::ZERO, end: TurnEnd::Value(value) }
    }

    /// Fails with `error` at once.
    #[must_use]
    pub fn fail(error: Error) -> Self {
        Self { after: Duration::ZERO, end: TurnEnd::Fail(error) }
    }

    /// Never ends.
    #[must_use]
    pub fn hang() -> Self {
        Self { after: Duration::ZERO, end: TurnEnd::Hang }
    }

    /// Panics at once.
    #[must_use]
    pub fn panic() -> Self {
        Self { after: Duration::ZERO, end: TurnEnd::Panic }
    }

    /// The same, but not before `time` has passed.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.after = time;
        self
    }
}

// === impl Script ===

impl<Out: Clone + Send + 'static> Script<Out> {
    /// A script for the stage `operation`. Without a turn its work hangs.
    pub fn new(operation: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            operation: operation.into(),
            turns: Mutex::default(),
            calls: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            dropped: AtomicUsize::new(0),
        }))
    }

    /// Adds the turn of the next call, and of all after it while it is the last.
    #[must_use]
    pub fn then(self, turn: Turn<Out>) -> Self {
        self.0.turns.lock().unwrap_or_else(PoisonError::into_inner).push(turn);
        self
    }

    /// The stage.
    pub fn workflow<In: Send + 'static>(&self) -> Workflow<Observed<Scripted<In, Out>>> {
        Workflow::from_stage(Scripted { script: self.clone(), input: PhantomData })
    }

    fn turn(&self, call: usize) -> Turn<Out> {
        let turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.get(call).or(turns.last()).cloned().unwrap_or_else(Turn::hang)
    }
}

impl<Out> Script<Out> {
    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// Calls under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.0.running.load(Ordering::Relaxed)
    }

    /// Calls that were dropped before they returned.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl<Out> fmt::Debug for Script<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, calls) = (&self.0.operation, self.calls());
        write!(f, "Script({name}, {calls} calls, {} running, {} dropped)", self.running(), self.dropped())
    }
}

// === impl Call ===

impl<'a, Out> Call<'a, Out> {
    fn begin(inner: &'a Inner<Out>) -> Self {
        inner.running.fetch_add(1, Ordering::Relaxed);
        Self { inner, returned: false }
    }
}

impl<Out> Drop for Call<'_, Out> {
    fn drop(&mut self) {
        self.inner.running.fetch_sub(1, Ordering::Relaxed);
        if !self.returned {
            self.inner.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

// === impl Scripted ===

impl<In: Send + 'static, Out: Clone + Send + 'static> Stage for Scripted<In, Out> {
    type In = In;
    type Out = Out;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "step";

    fn operation(&self) -> &str {
        &self.script.0.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, _: In, _: &Context, _: &mut Run<'_, Self>) -> Result<Out> {
        let turn = self.script.turn(self.script.0.calls.fetch_add(1, Ordering::Relaxed));
        let mut call = Call::begin(&self.script.0);
        if !turn.after.is_zero() {
            tokio::time::sleep(turn.after).await;
        }
        let result = match turn.end {
            TurnEnd::Value(value) => Ok(value),
            TurnEnd::Fail(error) => Err(error),
            TurnEnd::Hang => std::future::pending().await,
            TurnEnd::Panic => panic!("the script says so"),
        };
        call.returned = true;
        result
    }
}

impl<In, Out> fmt::Debug for Scripted<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.script.fmt(f)
    }
}
