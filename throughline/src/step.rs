//! A named async function as a stage: what workflows are made of.
//!
//! Use [`workflow`] for every piece of work that deserves a name in traces and metrics.
//!
//! ```
//! use throughline::{Context, Result, workflow};
//!
//! async fn parse(text: String) -> Result<u64> {
//!     text.parse().map_err(|e| throughline::Error::new(throughline::Kind::InvalidInput, "not a number").because(e))
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
//! let double = workflow("double", |n: u64| async move { Ok(n * 2) });
//! let flow = workflow("parse", parse) >> double;
//! assert_eq!(flow.run("21".to_owned(), &Context::new()).await?, 42);
//! # Ok(()) }
//! ```
//!
//! Do not use it for glue that takes a few nanoseconds: two clock reads cost more.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use crate::context::Context;
use crate::error::Result;
use crate::telemetry::{End, Ended, NoEvents, Observed, Registry, Run, Stage};
use crate::workflow::Workflow;

/// A named async function. Made by [`workflow`].
pub struct Step<F, In> {
    name: String,
    function: F,
    input: PhantomData<fn(In)>,
}

/// A named async function that also wants the context. Made by [`workflow_with`].
pub struct StepWith<F, In> {
    name: String,
    function: F,
    input: PhantomData<fn(In)>,
}

/// Makes a workflow of an async function or a closure that returns a future.
///
/// ```
/// use throughline::{Error, Kind, workflow};
///
/// let parse = workflow("parse", |text: String| async move {
///     text.parse::<u64>().map_err(|error| Error::new(Kind::InvalidInput, "not a number").because(error))
/// });
/// # let _ = parse;
/// ```
///
/// `name` becomes the `operation` label: it must come from code or configuration.
pub fn workflow<F, In, Out, Fut>(name: impl Into<String>, function: F) -> Workflow<Observed<Step<F, In>>>
where
    F: Fn(In) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send,
    Out: Send,
{
    Workflow::from_stage(Step { name: name.into(), function, input: PhantomData })
}

/// As [`workflow`], for a function that also takes the [`Context`].
pub fn workflow_with<F, In, Out, Fut>(
    name: impl Into<String>,
    function: F,
) -> Workflow<Observed<StepWith<F, In>>>
where
    F: Fn(In, Context) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send,
    Out: Send,
{
    Workflow::from_stage(StepWith { name: name.into(), function, input: PhantomData })
}

// === impl Step ===

impl<F, In, Out, Fut> Stage for Step<F, In>
where
    F: Fn(In) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send,
    Out: Send,
{
    type In = In;
    type Out = Out;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "step";

    fn operation(&self) -> &str {
        &self.name
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: In, _: &Context, _: &mut Run<'_, Self>) -> Result<Out> {
        (self.function)(input).await
    }

    fn ended(&self, _: &End<'_, Self>) {}
}

impl<F, In> fmt::Debug for Step<F, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({})", self.name)
    }
}

// === impl StepWith ===

impl<F, In, Out, Fut> Stage for StepWith<F, In>
where
    F: Fn(In, Context) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send,
    Out: Send,
{
    type In = In;
    type Out = Out;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "step";

    fn operation(&self) -> &str {
        &self.name
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: In, cx: &Context, _: &mut Run<'_, Self>) -> Result<Out> {
        (self.function)(input, cx.clone()).await
    }

    fn ended(&self, _: &End<'_, Self>) {}
}

impl<F, In> fmt::Debug for StepWith<F, In> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepWith({})", self.name)
    }
}
