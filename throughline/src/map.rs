//! A plain function over what a workflow gives.
//!
//! Use it for glue between two parts: to pick a field, to take a tuple of branches apart, to turn one
//! type into another. It stands where a stage of a pipe would stand, and the graph shows it as `map`.
//!
//! **It is not observed**: no span, no duration, no series. Two clock reads cost more than the work.
//!
//! ```
//! use throughline::{Context, Error, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let words = workflow("words", |text: String| async move { Ok(text.split(' ').count()) });
//! let chars = workflow("chars", |text: String| async move { Ok(text.chars().count()) });
//!
//! let mean = (words | chars)
//!     .try_map(|(words, chars)| chars.checked_div(words).ok_or(Error::new(Kind::InvalidInput, "no words")))
//!     .map(|mean| format!("{mean} characters a word"));
//! assert_eq!(mean.run("two words".to_owned(), &Context::new()).await?, "4 characters a word");
//! # Ok(()) }
//! ```
//!
//! Do not use it for work that waits, that can fail for reasons worth a metric, or that takes longer than
//! a microsecond: that is a [`workflow()`](crate::workflow()) and has a name.
//!
//! # Streams
//! An output that keeps its type keeps its stream. One of another type has none, also where the function
//! wraps the stream: make it with [`workflow_stream`](crate::workflow_stream()) instead.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

use crate::context::Context;
use crate::error::Result;
use crate::graph::{Node, PIPE};
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::Sink;
use crate::workflow::{Workflow, join};

/// A function behind a workflow. Made by [`Workflow::map`] and [`Workflow::try_map`].
pub struct Map<P, F, Out> {
    inner: P,
    function: F,
    out: PhantomData<fn() -> Out>,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Turns the output into another. Not observed.
    ///
    /// # Panics
    /// When `function` does: it counts as a panic of the stage around it.
    #[expect(clippy::type_complexity, reason = "an alias could not hold the `impl Fn`")]
    pub fn map<Out, F>(
        self,
        function: F,
    ) -> Workflow<Map<P, impl Fn(P::Out) -> Result<Out> + Send + Sync + 'static, Out>>
    where
        F: Fn(P::Out) -> Out + Send + Sync + 'static,
        Out: Send + 'static,
    {
        self.try_map(move |output| Ok(function(output)))
    }

    /// Turns the output into another or into an error. Not observed.
    ///
    /// # Panics
    /// When `function` does: it counts as a panic of the stage around it.
    pub fn try_map<Out, F>(self, function: F) -> Workflow<Map<P, F, Out>>
    where
        F: Fn(P::Out) -> Result<Out> + Send + Sync + 'static,
        Out: Send + 'static,
    {
        join(Map { inner: self.into_inner(), function, out: PhantomData })
    }
}

// === impl Map ===

impl<P, F, Out> Primitive for Map<P, F, Out>
where
    P: Primitive,
    F: Fn(P::Out) -> Result<Out> + Send + Sync + 'static,
    Out: Send + 'static,
{
    type In = P::In;
    type Out = Out;

    async fn execute(&self, input: P::In, cx: &Context) -> Result<Out> {
        (self.function)(self.inner.execute(input, cx).await?)
    }

    fn describe(&self) -> Node {
        Node::leaf(PIPE, "").holding(self.inner.describe()).holding(Node::leaf("map", ""))
    }

    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming> {
        let same = (output as &mut dyn Any).downcast_mut::<P::Out>()?;
        self.inner.stream(same)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P: Clone, F: Clone, Out> Clone for Map<P, F, Out> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), function: self.function.clone(), out: PhantomData }
    }
}

impl<P, F, Out> fmt::Debug for Map<P, F, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Map")
    }
}
