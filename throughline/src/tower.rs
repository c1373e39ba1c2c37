//! Workflows as [tower] services, and tower services as workflows. Feature `tower`.
//!
//! [`Workflow::into_service`] puts a workflow behind any tower middleware; [`workflow_of_service`] puts a
//! tower service, with the middleware around it, into a workflow, where it is observed as a stage.
//!
//! Use them at the border to code that speaks tower: an HTTP client, a server, a middleware there is none
//! of here. The service stands innermost, where a plain step would stand.
//!
//! ```
//! use throughline::tower::workflow_of_service;
//! use throughline::{Context, workflow};
//! use tower::{ServiceExt, service_fn};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let double = service_fn(|n: u64| async move { Ok::<_, std::io::Error>(n * 2) });
//! let plus_one = workflow("plus one", |n: u64| async move { Ok(n + 1) });
//!
//! let flow = workflow_of_service("double", double) >> plus_one;
//! assert_eq!(flow.clone().run(20, &Context::new()).await?, 41);
//! assert_eq!(flow.into_service().oneshot(20).await?, 41);
//! # Ok(()) }
//! ```
//!
//! Do not use tower's retry, timeout or limits inside a workflow that has its own: theirs know neither the
//! context's deadline nor our metrics.
//!
//! # Readiness
//! A workflow as a service is always ready: load is refused by an error, such as [`Kind::Rejected`], and not
//! by waiting. A service as a workflow is cloned for every run, and the clone that was asked for readiness is
//! the one that is called. The wait for readiness ends with the context's deadline; the call itself is left
//! to the timeouts around it.
//!
//! [tower]: https://docs.rs/tower

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};

use tower_service::Service;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::primitive::{BoxFuture, Primitive};
use crate::telemetry::{Ended, NoEvents, Observed, Registry, Run, Stage};
use crate::workflow::Workflow;

/// Any error, as tower's middleware returns it.
type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A workflow as a tower service. Made by [`Workflow::into_service`]. Cheap to clone.
///
/// # Cancellation
/// Dropping the future of a call drops the run.
pub struct WorkflowService<P: Primitive> {
    workflow: Arc<P>,
    context: MakeContext<P::In>,
}

type MakeContext<In> = Arc<dyn Fn(&In) -> Context + Send + Sync>;

/// A tower service as a stage. Made by [`workflow_of_service`].
pub struct ServiceStage<S, In, F> {
    operation: String,
    service: S,
    map_error: F,
    input: PhantomData<fn(In)>,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Makes the workflow a tower service that is always ready. Every call has a new [`Context`].
    pub fn into_service(self) -> WorkflowService<P> {
        self.into_service_with(|_| Context::new())
    }

    /// As [`Workflow::into_service`], with the context that `context` makes for each request: to continue its
    /// trace, keep its deadline or know its user.
    pub fn into_service_with(
        self,
        context: impl Fn(&P::In) -> Context + Send + Sync + 'static,
    ) -> WorkflowService<P> {
        WorkflowService { workflow: Arc::new(self.into_inner()), context: Arc::new(context) }
    }
}

/// Makes a workflow of a tower service.
///
/// An [`Error`] of this crate stays what it is; any other is the cause of one of [`Kind::Upstream`]. A service
/// that is not `Sync` becomes so in tower's `Buffer`.
///
/// `operation` becomes the `operation` label: it must come from code or configuration.
#[expect(clippy::type_complexity, reason = "an alias would hide what is made")]
pub fn workflow_of_service<S, In>(
    operation: impl Into<String>,
    service: S,
) -> Workflow<Observed<ServiceStage<S, In, fn(S::Error) -> Error>>>
where
    S: Service<In, Error: Into<AnyError>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    In: Send + 'static,
{
    workflow_of_service_with(operation, service, upstream as fn(S::Error) -> Error)
}

/// As [`workflow_of_service`], with what `map_error` makes of the service's errors.
pub fn workflow_of_service_with<S, In, F>(
    operation: impl Into<String>,
    service: S,
    map_error: F,
) -> Workflow<Observed<ServiceStage<S, In, F>>>
where
    S: Service<In> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    In: Send + 'static,
    F: Fn(S::Error) -> Error + Send + Sync + 'static,
{
    Workflow::from_stage(ServiceStage { operation: operation.into(), service, map_error, input: PhantomData })
}

fn upstream<E: Into<AnyError>>(error: E) -> Error {
    match error.into().downcast::<Error>() {
        Ok(ours) => *ours,
        Err(error) => Error::new(Kind::Upstream, "the service failed").because_of(error),
    }
}

// === impl WorkflowService ===

impl<P: Primitive> Service<P::In> for WorkflowService<P> {
    type Response = P::Out;
    type Error = Error;
    type Future = BoxFuture<'static, Result<P::Out>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, input: P::In) -> Self::Future {
        let (workflow, cx) = (Arc::clone(&self.workflow), (self.context)(&input));
        Box::pin(async move { workflow.execute(input, &cx).await })
    }
}

impl<P: Primitive> Clone for WorkflowService<P> {
    fn clone(&self) -> Self {
        Self { workflow: Arc::clone(&self.workflow), context: Arc::clone(&self.context) }
    }
}

impl<P: Primitive> fmt::Debug for WorkflowService<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkflowService({})", self.workflow.describe().title())
    }
}

// === impl ServiceStage ===

impl<S, In, F> Stage for ServiceStage<S, In, F>
where
    S: Service<In> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Response: Send + 'static,
    In: Send + 'static,
    F: Fn(S::Error) -> Error + Send + Sync + 'static,
{
    type In = In;
    type Out = S::Response;
    type Outcome = Ended;
    type Event = NoEvents;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "service";

    fn operation(&self) -> &str {
        &self.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: In, cx: &Context, _: &mut Run<'_, Self>) -> Result<S::Response> {
        let mut service = self.service.clone();
        let ready = async { poll_fn(|task| service.poll_ready(task)).await.map_err(&self.map_error) };
        cx.while_wanted(ready).await??;
        service.call(input).await.map_err(&self.map_error)
    }
}

impl<S, In, F> fmt::Debug for ServiceStage<S, In, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceStage({})", self.operation)
    }
}
