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
//! The function gives a [`throughline::Result`](crate::Result). `?` does not turn other errors into ours, because
//! somebody has to say what kind of failure they are: `map_err` as above. A closure says the type of its
//! input, owned: the future outlives a borrow.
//!
//! Do not use it for glue that takes a few nanoseconds: two clock reads cost more.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use crate::context::Context;
use crate::error::Result;
use crate::stream::Streaming;
use crate::telemetry::{Ended, NoEvents, Observed, Registry, Reported, Run, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>("step", &[]);

/// A named async function. Made by [`workflow`], [`workflow_with`] and [`workflow_stream`].
pub struct Step<F> {
    name: String,
    function: F,
}

/// What a [`Step`] calls.
pub trait Function: Send + Sync + 'static {
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;

    /// Whether what it gives is a stream.
    const STREAMS: bool = false;

    /// Calls it.
    fn call(&self, input: Self::In, cx: &Context) -> impl Future<Output = Result<Self::Out>> + Send;

    /// The stream in what it gives.
    fn stream(output: &mut Self::Out) -> Option<&mut dyn Streaming> {
        let _ = output;
        None
    }
}

/// A function of the input.
pub struct Plain<F, In>(F, PhantomData<fn(In)>);

/// A function of the input and the context.
pub struct WithContext<F, In>(F, PhantomData<fn(In)>);

/// A function of the input and the context that gives a stream.
pub struct GivesStream<F, In>(F, PhantomData<fn(In)>);

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
pub fn workflow<F, In, Out, Fut>(
    name: impl Into<String>,
    function: F,
) -> Workflow<Observed<Step<Plain<F, In>>>>
where
    F: Fn(In) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Send + 'static,
{
    Workflow::from_stage(Step { name: name.into(), function: Plain(function, PhantomData) })
}

/// As [`workflow`], for a function that also takes the [`Context`].
pub fn workflow_with<F, In, Out, Fut>(
    name: impl Into<String>,
    function: F,
) -> Workflow<Observed<Step<WithContext<F, In>>>>
where
    F: Fn(In, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Send + 'static,
{
    Workflow::from_stage(Step { name: name.into(), function: WithContext(function, PhantomData) })
}

/// As [`workflow_with`], for a function whose output is a stream, such as an
/// [`ItemStream`](crate::ItemStream): every wrapper goes on until the stream has ended.
pub fn workflow_stream<F, In, Out, Fut>(
    name: impl Into<String>,
    function: F,
) -> Workflow<Observed<Step<GivesStream<F, In>>>>
where
    F: Fn(In, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Streaming + 'static,
{
    Workflow::from_stage(Step { name: name.into(), function: GivesStream(function, PhantomData) })
}

// === impl Step ===

impl<F: Function> Stage for Step<F> {
    type In = F::In;
    type Out = F::Out;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "step";
    const STREAMS: bool = F::STREAMS;

    fn operation(&self) -> &str {
        &self.name
    }

    fn declare(&self, _: &Registry) {}

    // No futures of their own here and below: a chain of a hundred steps would be compiled with each of them.
    fn run(
        &self,
        input: F::In,
        cx: &Context,
        _: &mut Run<'_, Self>,
    ) -> impl Future<Output = Result<F::Out>> + Send {
        self.function.call(input, cx)
    }

    fn stream<'a>(&self, output: &'a mut F::Out) -> Option<&'a mut dyn Streaming> {
        F::stream(output)
    }
}

impl<F> fmt::Debug for Step<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({})", self.name)
    }
}

// === impl Function ===

impl<F, In, Out, Fut> Function for Plain<F, In>
where
    F: Fn(In) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Send + 'static,
{
    type In = In;
    type Out = Out;

    fn call(&self, input: In, _: &Context) -> impl Future<Output = Result<Out>> + Send {
        (self.0)(input)
    }
}

impl<F, In, Out, Fut> Function for WithContext<F, In>
where
    F: Fn(In, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Send + 'static,
{
    type In = In;
    type Out = Out;

    fn call(&self, input: In, cx: &Context) -> impl Future<Output = Result<Out>> + Send {
        (self.0)(input, cx.clone())
    }
}

impl<F, In, Out, Fut> Function for GivesStream<F, In>
where
    F: Fn(In, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Out>> + Send,
    In: Send + 'static,
    Out: Streaming + 'static,
{
    type In = In;
    type Out = Out;

    const STREAMS: bool = true;

    fn call(&self, input: In, cx: &Context) -> impl Future<Output = Result<Out>> + Send {
        (self.0)(input, cx.clone())
    }

    fn stream(output: &mut Out) -> Option<&mut dyn Streaming> {
        Some(output)
    }
}
