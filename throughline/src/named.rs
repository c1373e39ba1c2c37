//! Gives a whole workflow a name: one span and one duration for all of it.
//!
//! Use it on the outside of what a caller runs, so that a trace begins with `invoke_workflow {name}`.
//!
//! ```
//! use throughline::{Context, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let trim = workflow("trim", |s: String| async move { Ok(s.trim().to_owned()) });
//! let len = workflow("len", |s: String| async move { Ok(s.len()) });
//! let flow = (trim >> len).named("measure");
//! assert_eq!(flow.run(" four ".to_owned(), &Context::new()).await?, 4);
//! assert_eq!(flow.describe().operation(), "measure");
//! # Ok(()) }
//! ```
//!
//! Do not use it for a single stage: that has its name already.

use std::borrow::Cow;
use std::fmt;

use opentelemetry::KeyValue;

use crate::context::Context;
use crate::error::{Kind, Result};
use crate::graph::Node;
use crate::primitive::Primitive;
use crate::stream::{StreamEnding, Streaming};
use crate::telemetry::{
    Attribute, Deferred, End, Ended, Family, Histogram, NoEvents, Observed, Registry, Reported, Run, Sink,
    Stage,
};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, NoEvents>(
    "workflow",
    &[
        Attribute::string("gen_ai.operation.name", "`invoke_workflow`").in_development(),
        Attribute::string("gen_ai.workflow.name", "The name of the workflow").in_development(),
    ],
)
.spans_called("invoke_workflow {operation}");

/// Seconds, as the conventions have them: agents work for hours.
const SECONDS: &[f64] = &[1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0];

/// Of the conventions that are being written: whoever follows those of 1.41 has the primitive's own duration.
static DURATION: Family = Family::histogram(
    "gen_ai_invoke_workflow_duration_seconds",
    "How long a run of a named workflow took to its last chunk, in seconds",
    &["gen_ai_workflow_name", "error_type"],
    SECONDS,
)
.in_development();

pub(crate) static FAMILIES: &[&Family] = &[&DURATION];

/// A workflow with a name. Made by [`Workflow::named`].
pub struct Named<P> {
    name: String,
    inner: P,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Names the workflow: `name` becomes the `operation` label, so it must come from code or
    /// configuration.
    pub fn named(self, name: impl Into<String>) -> Workflow<Observed<Named<P>>> {
        Workflow::from_stage(Named { name: name.into(), inner: self.into_inner() })
    }
}

// === impl Named ===

impl<P: Primitive> Stage for Named<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = Ended;
    type Event = NoEvents;
    /// Durations of runs that succeeded, where the newer names are followed.
    type Signals = Option<Histogram>;
    /// Why it failed, if it did.
    type Note = Option<Kind>;

    const PRIMITIVE: &'static str = "workflow";

    fn operation(&self) -> &str {
        &self.name
    }

    fn span_name(&self) -> Cow<'static, str> {
        format!("invoke_workflow {}", self.name).into()
    }

    fn span_attributes(&self) -> Vec<KeyValue> {
        vec![
            KeyValue::new("gen_ai.operation.name", "invoke_workflow"),
            KeyValue::new("gen_ai.workflow.name", self.name.clone()),
        ]
    }

    fn declare(&self, registry: &Registry) -> Option<Histogram> {
        let follows = registry.semconv().gen_ai.latest();
        // An empty label is one that is not there.
        follows.then(|| registry.histogram(&DURATION, &[&self.name, ""]))
    }

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        self.inner.execute(input, cx).await.inspect_err(|error| run.note = Some(error.kind()))
    }

    fn stream_ended(&self, ending: &StreamEnding, run: &mut Deferred<Self>) -> Option<Ended> {
        if let StreamEnding::Failed(error) = ending {
            run.note = Some(error.kind());
        }
        None
    }

    fn ended(&self, end: &End<'_, Self>) {
        let Some(seen) = &end.seen else { return };
        let Some(succeeded) = seen.signals else { return };
        let error = match end.outcome {
            Ended::Success => return succeeded.observe_time(seen.elapsed, seen.trace),
            // Who says nothing has panicked.
            Ended::Error => end.note.unwrap_or(Kind::Internal),
            Ended::Cancelled => Kind::Cancelled,
        };
        if let Some(registry) = seen.cx.sink().registry() {
            let labels = [&*self.name, error.as_str()];
            registry.histogram(&DURATION, &labels).observe_time(seen.elapsed, seen.trace);
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.name).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Named<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Named({})", self.name)
    }
}
