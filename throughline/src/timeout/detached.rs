//! Work in a task of its own.

use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::Sink;

/// Runs a workflow as a task of its own. Made by [`Workflow::timeout_detached`](crate::Workflow::timeout_detached).
pub struct Detached<P>(pub(super) Arc<P>);

// === impl Detached ===

impl<P: Primitive> Primitive for Detached<P> {
    type In = P::In;
    type Out = P::Out;

    async fn execute(&self, input: P::In, cx: &Context) -> Result<P::Out> {
        let (inner, cx) = (Arc::clone(&self.0), cx.clone());
        let task =
            tokio_util::task::AbortOnDropHandle::new(tokio::spawn(
                async move { inner.execute(input, &cx).await },
            ));
        task.await.unwrap_or_else(|error| {
            let (kind, what) = match error.is_cancelled() {
                true => (Kind::Cancelled, "the detached work was stopped with its runtime"),
                false => (Kind::Internal, "the detached work panicked"),
            };
            Err(Error::new(kind, what).because(error))
        })
    }

    fn describe(&self) -> Node {
        self.0.describe()
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.0.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.0.bind(sink);
    }
}
