//! What every part of a workflow is.
//!
//! To use workflows takes none of it but a bound: a function that makes a workflow returns
//! `Workflow<impl Primitive<In = String, Out = String>>`, with `+ Clone` where it is to be run in two places.
//! [`Boxed`] is for collections of unlike workflows, and for a type that can be written down.
//!
//! ```
//! use throughline::{Boxed, Context, Primitive, Workflow, workflow};
//!
//! fn model(name: &'static str) -> Workflow<impl Primitive<In = String, Out = String> + Clone> {
//!     workflow(name, move |q: String| async move { Ok(format!("{name}: {q}")) })
//! }
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let large = model("large");
//! let all: Vec<Workflow<Boxed<String, String>>> = vec![large.clone().boxed(), (large >> model("check")).boxed()];
//! assert_eq!(all[1].run("why?".to_owned(), &Context::new()).await?, "check: large: why?");
//! # Ok(()) }
//! ```

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::context::Context;
use crate::error::Result;
use crate::graph::Node;
use crate::stream::Streaming;
use crate::telemetry::Sink;

/// Work that takes an input and gives an output or an [`Error`](crate::Error).
///
/// Both ends are associated types, so a mismatch is reported where two parts are joined. Implement
/// [`Stage`](crate::telemetry::Stage) instead when the work should be observed.
///
/// # Cancellation
/// Dropping the future cancels the work. What it holds must be released on drop.
pub trait Primitive: Send + Sync + 'static {
    /// What it takes.
    type In: Send + 'static;
    /// What it gives.
    type Out: Send + 'static;

    /// Does the work.
    ///
    /// # Errors
    /// As the implementation says.
    fn execute(&self, input: Self::In, cx: &Context) -> impl Future<Output = Result<Self::Out>> + Send;

    /// This part and what it holds.
    fn describe(&self) -> Node;

    /// The stream in an output of this part, if there is one.
    fn stream<'a>(&self, output: &'a mut Self::Out) -> Option<&'a mut dyn Streaming> {
        let _ = output;
        None
    }

    /// Creates the series of this part and of what it holds in `sink`, at zero. Without it they appear
    /// with the first run.
    fn bind(&self, sink: &Sink) {
        let _ = sink;
    }
}

/// A workflow whose inner types are erased, so that unlike workflows fit into one collection.
///
/// It costs one allocation a run.
pub struct Boxed<In, Out>(Arc<dyn Erased<In, Out>>);

trait Erased<In, Out>: Send + Sync {
    fn execute<'a>(&'a self, input: In, cx: &'a Context) -> BoxFuture<'a, Result<Out>>;
    fn describe(&self) -> Node;
    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming>;
    fn bind(&self, sink: &Sink);
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

// === impl Boxed ===

impl<In: Send + 'static, Out: Send + 'static> Boxed<In, Out> {
    pub(crate) fn new<P: Primitive<In = In, Out = Out>>(primitive: P) -> Self {
        Self(Arc::new(primitive))
    }
}

impl<In: Send + 'static, Out: Send + 'static> Primitive for Boxed<In, Out> {
    type In = In;
    type Out = Out;

    async fn execute(&self, input: In, cx: &Context) -> Result<Out> {
        self.0.execute(input, cx).await
    }

    fn describe(&self) -> Node {
        self.0.describe()
    }

    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming> {
        self.0.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.0.bind(sink);
    }
}

impl<In, Out> Clone for Boxed<In, Out> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<In, Out> std::fmt::Debug for Boxed<In, Out> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let node = self.0.describe();
        write!(f, "{} {}", node.primitive(), node.operation())
    }
}

impl<P: Primitive> Erased<P::In, P::Out> for P {
    fn execute<'a>(&'a self, input: P::In, cx: &'a Context) -> BoxFuture<'a, Result<P::Out>> {
        Box::pin(Primitive::execute(self, input, cx))
    }

    fn describe(&self) -> Node {
        Primitive::describe(self)
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        Primitive::stream(self, output)
    }

    fn bind(&self, sink: &Sink) {
        Primitive::bind(self, sink);
    }
}
