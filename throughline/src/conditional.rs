//! Does something only where it is called for: if, and else.
//!
//! A predicate looks at each input. Where it holds, one workflow runs; where it does not, another, or none:
//! without [`ConditionalConfig::otherwise`] the input passes through, which compiles only where the workflow
//! gives what it takes.
//!
//! Use it to leave out work that an input does not need, such as summarising a question that is short
//! already. It stands anywhere in a pipe. For a choice by more than yes and no there is
//! [`switch`](crate::switch()), and for one that has a price, [`router`](crate::router()).
//!
//! ```
//! use throughline::{ConditionalConfig, Context, conditional, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let shorten = workflow("shorten", |q: String| async move { Ok(q.chars().take(10).collect::<String>()) });
//! let greet = workflow("greet", |q: String| async move { Ok(q.len()) });
//! let count = workflow("count", |q: String| async move { Ok(q.split(' ').count()) });
//!
//! let when_long = conditional(ConditionalConfig::new("when long", |q: &String, _| q.len() > 10, shorten));
//! let either = ConditionalConfig::new("greeting", |q: &String, _| q.starts_with("hello"), greet).otherwise(count);
//! let flow = when_long >> conditional(either);
//!
//! assert_eq!(flow.run("hello to everybody".to_owned(), &Context::new()).await?, 10);
//! assert_eq!(flow.run("who is it".to_owned(), &Context::new()).await?, 3);
//! # Ok(()) }
//! ```
//!
//! Do not use it to try something else after a failure: an error of a branch is the error of the whole.

use std::fmt;
use std::panic::AssertUnwindSafe;

use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{
    Attribute, Ended, Label as _, Observed, PerLabel, Registry, Reported, Run, Sink, Stage,
};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, ConditionalEvent>(
    "conditional",
    &[Attribute::string("throughline.conditional.branch", "The branch that was taken: one of the events")],
);

labels! {
    /// What can happen while a branch is chosen.
    #[non_exhaustive]
    pub enum ConditionalEvent {
        /// The predicate held.
        Then = "then",
        /// The predicate did not hold.
        Otherwise = "else",
        /// The predicate panicked.
        PredicatePanicked = "predicate_panicked",
    }
}

type Predicate<In> = Box<dyn Fn(&In, &Context) -> bool + Send + Sync>;

/// What a conditional is made of. Pass it to [`conditional`].
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `conditional`"]
pub struct ConditionalConfig<P: Primitive, Else> {
    operation: String,
    predicate: Predicate<P::In>,
    then: P,
    otherwise: Else,
}

/// Runs one of two workflows, or one or none. Made by [`conditional`].
pub struct Conditional<P: Primitive, Else> {
    config: ConditionalConfig<P, Else>,
    events: PerLabel<ConditionalEvent>,
}

/// The other branch of a conditional that has none: its input is its output.
#[derive(Clone, Copy, Debug)]
pub struct PassThrough;

/// A workflow as the other branch of a conditional.
#[derive(Clone, Debug)]
pub struct Otherwise<E>(E);

/// What runs where the predicate does not hold.
#[diagnostic::on_unimplemented(
    message = "this conditional has no other branch, and a `{In}` cannot pass through as a `{Out}`",
    label = "what runs where the predicate does not hold is missing",
    note = "add `.otherwise(workflow)` to its configuration, with a workflow from `{In}` to `{Out}`"
)]
pub trait Else<In, Out>: Send + Sync + 'static {
    /// Does the work.
    fn execute(&self, input: In, cx: &Context) -> impl Future<Output = Result<Out>> + Send;

    /// The stages it holds, if it holds any.
    fn describe(&self) -> Option<Node>;

    /// The stream in an output, if there is one.
    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming>;

    /// Creates the series of the stages it holds.
    fn bind(&self, sink: &Sink);
}

/// What a [`Conditional`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConditionalStats {
    /// Inputs for which the predicate held.
    pub then: u64,
    /// Inputs for which it did not.
    pub otherwise: u64,
    /// Inputs on which it panicked.
    pub panics: u64,
}

/// Makes a conditional.
///
/// A predicate that panics is an error of [`Kind::Internal`].
pub fn conditional<P, E>(config: ConditionalConfig<P, E>) -> Workflow<Observed<Conditional<P, E>>>
where
    P: Primitive,
    E: Else<P::In, P::Out>,
{
    Workflow::from_stage(Conditional { config, events: PerLabel::default() })
}

// === impl ConditionalConfig ===

impl<P: Primitive> ConditionalConfig<P, PassThrough> {
    /// Runs `then` where `predicate` holds.
    pub fn new<Shape>(
        operation: impl Into<String>,
        predicate: impl Fn(&P::In, &Context) -> bool + Send + Sync + 'static,
        then: Workflow<P, Shape>,
    ) -> Self {
        Self {
            operation: operation.into(),
            predicate: Box::new(predicate),
            then: then.into_inner(),
            otherwise: PassThrough,
        }
    }

    /// Runs `workflow` where the predicate does not hold. Default: the input passes through.
    pub fn otherwise<E, Shape>(self, workflow: Workflow<E, Shape>) -> ConditionalConfig<P, Otherwise<E>>
    where
        E: Primitive<In = P::In, Out = P::Out>,
    {
        let Self { operation, predicate, then, .. } = self;
        ConditionalConfig { operation, predicate, then, otherwise: Otherwise(workflow.into_inner()) }
    }
}

impl<P: Primitive, E> fmt::Debug for ConditionalConfig<P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConditionalConfig({})", self.operation)
    }
}

// === impl Conditional ===

impl<P: Primitive, E> Conditional<P, E> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> ConditionalStats {
        ConditionalStats {
            then: self.events.get(ConditionalEvent::Then),
            otherwise: self.events.get(ConditionalEvent::Otherwise),
            panics: self.events.get(ConditionalEvent::PredicatePanicked),
        }
    }
}

impl<P: Primitive, E: Else<P::In, P::Out>> Conditional<P, E> {
    fn decide(&self, input: &P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<bool> {
        let holds = std::panic::catch_unwind(AssertUnwindSafe(|| (self.config.predicate)(input, cx)));
        let event = match holds {
            Ok(true) => ConditionalEvent::Then,
            Ok(false) => ConditionalEvent::Otherwise,
            Err(_) => ConditionalEvent::PredicatePanicked,
        };
        self.events.inc(event);
        run.event(event);
        run.attribute("throughline.conditional.branch", event.as_str());
        holds.map_err(|_| Error::new(Kind::Internal, "the predicate panicked"))
    }
}

impl<P: Primitive, E: Else<P::In, P::Out>> Stage for Conditional<P, E> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = Ended;
    type Event = ConditionalEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "conditional";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        if self.decide(&input, cx, run)? {
            self.config.then.execute(input, cx).await
        } else {
            self.config.otherwise.execute(input, cx).await
        }
    }

    fn describe(&self) -> Node {
        let then = self.config.then.describe().by("then");
        let node = Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(then);
        match self.config.otherwise.describe() {
            Some(otherwise) => node.holding(otherwise.by("else")),
            None => node,
        }
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        // Either branch may have made it, and the other finds nothing.
        if self.config.then.stream(output).is_some() {
            return self.config.then.stream(output);
        }
        self.config.otherwise.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.config.then.bind(sink);
        self.config.otherwise.bind(sink);
    }
}

impl<P: Primitive, E> fmt::Debug for Conditional<P, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConditionalStats { then, otherwise, .. } = self.stats();
        write!(f, "Conditional({}, {then} then, {otherwise} else)", self.config.operation)
    }
}

// === impl Else ===

impl<T: Send + 'static> Else<T, T> for PassThrough {
    async fn execute(&self, input: T, _: &Context) -> Result<T> {
        Ok(input)
    }

    fn describe(&self) -> Option<Node> {
        None
    }

    fn stream<'a>(&self, _: &'a mut T) -> Option<&'a mut dyn Streaming> {
        None
    }

    fn bind(&self, _: &Sink) {}
}

/// No workflow gives it. It is there for a second candidate: with one alone the compiler takes both types to
/// be the same and reports a mismatch inside the workflow; with two it finds out the types first, and then says
/// what [`Else`] has to say.
struct Nothing<T>(T);

impl<T: Send + 'static> Else<T, Nothing<T>> for PassThrough {
    async fn execute(&self, input: T, _: &Context) -> Result<Nothing<T>> {
        Ok(Nothing(input))
    }

    fn describe(&self) -> Option<Node> {
        None
    }

    fn stream<'a>(&self, _: &'a mut Nothing<T>) -> Option<&'a mut dyn Streaming> {
        None
    }

    fn bind(&self, _: &Sink) {}
}

impl<E: Primitive> Else<E::In, E::Out> for Otherwise<E> {
    async fn execute(&self, input: E::In, cx: &Context) -> Result<E::Out> {
        self.0.execute(input, cx).await
    }

    fn describe(&self) -> Option<Node> {
        Some(self.0.describe())
    }

    fn stream<'a>(&self, output: &'a mut E::Out) -> Option<&'a mut dyn Streaming> {
        self.0.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.0.bind(sink);
    }
}
