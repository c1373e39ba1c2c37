use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use tower_service::Service;

use super::{nothing, transparent};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::graph::Node;
use crate::primitive::{Boxed, Primitive};
use crate::telemetry::Sink;
use crate::testing::play::{Built, Specimen};
use crate::tower::workflow_of_service;
use crate::workflow::{Workflow, join};

/// A tower service that is told of the context, since the model is about deadlines as well.
pub(super) const SPECIMEN: Specimen = Specimen {
    primitive: "service",
    observed: true,
    wrap: |inner, place| {
        let service = workflow_of_service(&place.operation, Told(inner.clone())).into_inner();
        let flow: Workflow<_> = join(Tells { service, inner });
        Ok(Built { flow: flow.boxed(), held: nothing() })
    },
    law: transparent,
};

#[derive(Clone)]
struct Told(Workflow<Boxed<u64, u64>>);

impl Service<(u64, Context)> for Told {
    type Response = u64;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<u64>> + Send>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (input, cx): (u64, Context)) -> Self::Future {
        let flow = self.0.clone();
        Box::pin(async move { flow.run(input, &cx).await })
    }
}

/// Sends the context along with the input.
struct Tells<P> {
    service: P,
    inner: Workflow<Boxed<u64, u64>>,
}

impl<P: Primitive<In = (u64, Context), Out = u64>> Primitive for Tells<P> {
    type In = u64;
    type Out = u64;

    async fn execute(&self, input: u64, cx: &Context) -> Result<u64> {
        self.service.execute((input, cx.clone()), cx).await
    }

    fn describe(&self) -> Node {
        self.service.describe()
    }

    fn bind(&self, sink: &Sink) {
        self.service.bind(sink);
        self.inner.bind(sink);
    }
}
