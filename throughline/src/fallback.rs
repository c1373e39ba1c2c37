//! Answers in another way when a workflow fails.
//!
//! The alternatives are tried in their order until one answers: other workflows on the same input, a
//! constant, or a function of the error. When all of them fail, the caller gets the first error, with the
//! later ones in [`Error::also`]. Which one answered is the run's outcome, an attribute of its span, and
//! [`AnsweredBy`] in the state.
//!
//! Use it for another model, an older answer or a polite refusal when the first choice is down. It belongs
//! outside everything that tries to make the first choice work: retry, circuit breaker and timeout.
//!
//! ```
//! use throughline::fallback::AnsweredBy;
//! use throughline::{Context, Error, FallbackConfig, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let large = workflow("large", |_: String| async { Err(Error::new(Kind::Upstream, "the model answered 503")) });
//! let small = workflow("small", |q: String| async move { Ok(format!("small: {q}")) });
//! let flow = large.fallback(
//!     FallbackConfig::new("ask").then("small", small).then_value("sorry", "try again later".to_owned()),
//! )?;
//!
//! let cx = Context::new();
//! assert_eq!(flow.run("why?".to_owned(), &cx).await?, "small: why?");
//! assert_eq!(cx.state().get::<AnsweredBy>().map(|by| by.name.to_string()).as_deref(), Some("small"));
//! # Ok(()) }
//! ```
//!
//! Do not use it to hide a fault: a constant that looks like an answer is worse than an error. Do not use
//! it to choose by input: that is a router.
//!
//! # Streams
//! A workflow has answered when its first item has come; what fails after that has no alternative.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::attempt::answered;
use crate::budget::Budget;
use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::{Boxed, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{Attribute, End, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<FallbackOutcome, FallbackEvent>(
    "fallback",
    &[Attribute::string("throughline.fallback.answered_by", "The alternative that answered")],
);

labels! {
    /// How a run with alternatives ended.
    #[non_exhaustive]
    pub enum FallbackOutcome {
        /// The workflow itself answered.
        Primary = "primary",
        /// An alternative answered.
        Fallback = "fallback",
        /// Nothing answered.
        Error = "error",
        /// The caller went away, or asked the work to stop.
        Cancelled = "cancelled",
    }
}

labels! {
    /// What can happen after the workflow itself has failed.
    #[non_exhaustive]
    pub enum FallbackEvent {
        /// An alternative is tried.
        FellBack = "fell_back",
        /// The error is not one that alternatives are for.
        NotHandled = "not_handled",
        /// A workflow was passed over because the deadline has come.
        NoTimeLeft = "no_time_left",
        /// A workflow was passed over because the shared budget has no token left.
        BudgetExhausted = "budget_exhausted",
        /// The last alternative has failed.
        Exhausted = "exhausted",
    }
}

/// The name of what is guarded, in [`AnsweredBy`] and in the graph.
const PRIMARY: &str = "primary";

/// What to do when a workflow fails. Pass it to [`Workflow::fallback`].
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `fallback`"]
pub struct FallbackConfig<In, Out> {
    operation: Arc<str>,
    alternatives: Vec<Alternative<In, Out>>,
    when: Arc<dyn Fn(&Error) -> bool + Send + Sync>,
    budget: Option<Budget>,
}

/// Tries alternatives when a workflow fails. Made by [`Workflow::fallback`].
pub struct Fallback<P: Primitive> {
    inner: P,
    config: FallbackConfig<P::In, P::Out>,
    primary: Arc<str>,
    /// The last alternative that needs the input: it gets the last copy.
    last_workflow: Option<usize>,
    outcomes: PerLabel<FallbackOutcome>,
}

struct Alternative<In, Out> {
    name: Arc<str>,
    answer: Answer<In, Out>,
    answers: AtomicU64,
}

enum Answer<In, Out> {
    Workflow(Boxed<In, Out>),
    /// Made on the spot: it adds no load and takes no time.
    Made(Box<Make<Out>>),
}

type Make<Out> = dyn Fn(&Error) -> Result<Out> + Send + Sync;

/// What answered a run of a [`Fallback`], left in [`Context::state`]. Of several fallbacks in one workflow,
/// the state holds the one that answered last.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AnsweredBy {
    /// The operation of the fallback.
    pub operation: Arc<str>,
    /// The name of the alternative, or `primary`.
    pub name: Arc<str>,
}

/// What a [`Fallback`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackStats {
    /// Runs that the workflow itself answered.
    pub primary: u64,
    /// Runs that an alternative answered.
    pub fallback: u64,
    /// Runs that nothing answered.
    pub errors: u64,
    /// Runs whose caller went away or asked them to stop.
    pub cancelled: u64,
    /// Answers per alternative, in their order.
    pub alternatives: Vec<(String, u64)>,
}

impl<P: Primitive<In: Clone>, Shape> Workflow<P, Shape> {
    /// Answers in another way when the workflow fails. The input is copied for every workflow that may
    /// still need it.
    ///
    /// # Errors
    /// When there is no alternative, or a name is given twice. A run returns the workflow's own error, with
    /// those of the alternatives in [`Error::also`].
    ///
    /// # Cancellation
    /// When the work is asked to stop, no further alternative is tried.
    pub fn fallback(
        self,
        config: FallbackConfig<P::In, P::Out>,
    ) -> Result<Workflow<Observed<Fallback<P>>>, ConfigError> {
        Ok(Workflow::from_stage(Fallback::new(self.into_inner(), config)?))
    }
}

// === impl FallbackConfig ===

impl<In: Send + 'static, Out: Send + 'static> FallbackConfig<In, Out> {
    /// Starts without alternatives for the runs of `operation`.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into().into(),
            alternatives: Vec::new(),
            when: Arc::new(|error| !matches!(error.kind(), Kind::InvalidInput | Kind::Cancelled)),
            budget: None,
        }
    }

    /// Next, tries `workflow` on the same input. It is passed over when the deadline has come or the budget
    /// is empty.
    pub fn then<P, Shape>(self, name: impl Into<String>, workflow: Workflow<P, Shape>) -> Self
    where
        P: Primitive<In = In, Out = Out>,
    {
        self.and_then(name, Answer::Workflow(Boxed::new(workflow.into_inner())))
    }

    /// Next, answers with `value`. It takes no time and costs nothing, so neither the deadline nor the
    /// budget prevents it.
    pub fn then_value(self, name: impl Into<String>, value: Out) -> Self
    where
        Out: Clone + Sync,
    {
        self.then_with(name, move |_| Ok(value.clone()))
    }

    /// Next, answers with what `make` makes of the error: the workflow's own, with those of the
    /// alternatives so far in [`Error::also`]. It must not block. As with a value, neither the deadline nor
    /// the budget prevents it.
    pub fn then_with(
        self,
        name: impl Into<String>,
        make: impl Fn(&Error) -> Result<Out> + Send + Sync + 'static,
    ) -> Self {
        self.and_then(name, Answer::Made(Box::new(make)))
    }

    /// After which errors the next alternative is tried, whether the workflow itself failed with it or an
    /// alternative. Default: all but [`Kind::InvalidInput`] and [`Kind::Cancelled`].
    pub fn when(mut self, predicate: impl Fn(&Error) -> bool + Send + Sync + 'static) -> Self {
        self.when = Arc::new(predicate);
        self
    }

    /// Pays for every alternative workflow from `budget`, and counts there what the workflow itself
    /// answers. Default: none.
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    fn and_then(mut self, name: impl Into<String>, answer: Answer<In, Out>) -> Self {
        let name = name.into().into();
        self.alternatives.push(Alternative { name, answer, answers: AtomicU64::new(0) });
        self
    }

    fn checked(self) -> Result<Self, ConfigError> {
        let operation = &self.operation;
        if self.alternatives.is_empty() {
            return Err(ConfigError::new(format!(
                "fallback `{operation}` has no alternatives: add at least one"
            )));
        }
        let names: Vec<&str> = self.alternatives.iter().map(|alternative| &*alternative.name).collect();
        if names.contains(&PRIMARY) {
            return Err(ConfigError::new(format!(
                "an alternative of fallback `{operation}` is called `{PRIMARY}`: that is the workflow itself"
            )));
        }
        match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            Some((_, twice)) => Err(ConfigError::new(format!(
                "alternative `{twice}` of fallback `{operation}` is given twice"
            ))),
            None => Ok(self),
        }
    }
}

impl<In, Out> fmt::Debug for FallbackConfig<In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.alternatives.iter().map(|alternative| &*alternative.name).collect();
        write!(f, "FallbackConfig({}, {})", self.operation, names.join(" > "))
    }
}

// === impl Fallback ===

impl<P: Primitive> Fallback<P> {
    fn new(inner: P, config: FallbackConfig<P::In, P::Out>) -> Result<Self, ConfigError> {
        let config = config.checked()?;
        let is_workflow = |it: &Alternative<_, _>| matches!(it.answer, Answer::Workflow(_));
        let last_workflow = config.alternatives.iter().rposition(is_workflow);
        Ok(Self { inner, config, primary: PRIMARY.into(), last_workflow, outcomes: PerLabel::default() })
    }

    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> FallbackStats {
        let answers =
            |it: &Alternative<_, _>| (it.name.as_ref().to_owned(), it.answers.load(Ordering::Relaxed));
        FallbackStats {
            primary: self.outcomes.get(FallbackOutcome::Primary),
            fallback: self.outcomes.get(FallbackOutcome::Fallback),
            errors: self.outcomes.get(FallbackOutcome::Error),
            cancelled: self.outcomes.get(FallbackOutcome::Cancelled),
            alternatives: self.config.alternatives.iter().map(answers).collect(),
        }
    }

    fn answered_by(&self, name: &Arc<str>, cx: &Context) {
        let operation = Arc::clone(&self.config.operation);
        cx.state().insert(AnsweredBy { operation, name: Arc::clone(name) });
    }
}

impl<P: Primitive<In: Clone>> Fallback<P> {
    /// Whether one more workflow may be run now. One token of the budget is spent for it.
    fn admits(&self, cx: &Context, run: &mut Run<'_, Self>) -> bool {
        let refusal = match &self.config.budget {
            _ if !cx.fits(Duration::ZERO) => FallbackEvent::NoTimeLeft,
            Some(budget) if !budget.withdraw() => FallbackEvent::BudgetExhausted,
            _ => return true,
        };
        run.event(refusal);
        false
    }

    /// Tries the alternatives in their order.
    async fn fall_back(
        &self,
        mut input: Option<P::In>,
        error: Error,
        cx: &Context,
        run: &mut Run<'_, Self>,
    ) -> Result<P::Out> {
        let (mut failure, mut latest) = (error.clone(), error);
        for (at, alternative) in self.config.alternatives.iter().enumerate() {
            if cx.is_cancelled() {
                run.outcome(FallbackOutcome::Cancelled);
                return Err(failure);
            }
            if !(self.config.when)(&latest) {
                run.event(FallbackEvent::NotHandled);
                return Err(failure);
            }
            let result = match &alternative.answer {
                Answer::Workflow(_) if !self.admits(cx, run) => continue,
                Answer::Workflow(workflow) => {
                    run.event(FallbackEvent::FellBack);
                    let input = if self.last_workflow == Some(at) { input.take() } else { input.clone() };
                    answered(workflow, input.expect("only the last workflow takes what is kept"), cx).await
                }
                Answer::Made(make) => {
                    run.event(FallbackEvent::FellBack);
                    make(&failure)
                }
            };
            match result {
                Ok(output) => {
                    self.answered_by(&alternative.name, cx);
                    run.note = Some(at);
                    run.outcome(FallbackOutcome::Fallback);
                    run.attribute("throughline.fallback.answered_by", alternative.name.to_string());
                    return Ok(output);
                }
                Err(same) if same.is(&failure) => {}
                Err(later) => {
                    latest = later.clone();
                    failure = failure.and(later);
                }
            }
        }
        run.event(FallbackEvent::Exhausted);
        Err(failure)
    }
}

impl<P: Primitive<In: Clone>> Stage for Fallback<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = FallbackOutcome;
    type Event = FallbackEvent;
    type Signals = ();
    /// The alternative that answered.
    type Note = Option<usize>;

    const PRIMITIVE: &'static str = "fallback";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let kept = self.last_workflow.map(|_| input.clone());
        match answered(&self.inner, input, cx).await {
            Ok(output) => {
                if let Some(budget) = &self.config.budget {
                    budget.deposit();
                }
                self.answered_by(&self.primary, cx);
                Ok(output)
            }
            Err(error) => self.fall_back(kept, error, cx, run).await,
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.outcomes.inc(end.outcome);
        if let (FallbackOutcome::Fallback, Some(at)) = (end.outcome, end.note) {
            self.config.alternatives[*at].answers.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn describe(&self) -> Node {
        let primary =
            Node::leaf(Self::PRIMITIVE, &*self.config.operation).holding(self.inner.describe().by(PRIMARY));
        self.config.alternatives.iter().fold(primary, |node, alternative| {
            let inner = match &alternative.answer {
                Answer::Workflow(workflow) => workflow.describe(),
                Answer::Made(_) => Node::leaf("value", &*alternative.name),
            };
            node.holding(inner.by(&*alternative.name))
        })
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        // Any of them may have made it, and those that did not find nothing.
        if self.inner.stream(output).is_some() {
            return self.inner.stream(output);
        }
        let workflows = self.config.alternatives.iter().filter_map(|it| match &it.answer {
            Answer::Workflow(workflow) => Some(workflow),
            Answer::Made(_) => None,
        });
        let found = workflows.clone().position(|workflow| workflow.stream(output).is_some())?;
        workflows.into_iter().nth(found)?.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
        for alternative in &self.config.alternatives {
            if let Answer::Workflow(workflow) = &alternative.answer {
                workflow.bind(sink);
            }
        }
    }
}

impl<P: Primitive> fmt::Debug for Fallback<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.config.alternatives.iter().map(|it| &*it.name).collect();
        let stats = self.stats();
        write!(f, "Fallback({}, {PRIMARY} > {}, ", self.config.operation, names.join(" > "))?;
        write!(f, "{} primary, {} fallback)", stats.primary, stats.fallback)
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for FallbackOutcome {
    const SUCCESS: Self = Self::Primary;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
