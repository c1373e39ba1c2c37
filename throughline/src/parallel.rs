//! Runs work side by side: several workflows on one input, or one workflow on many inputs.
//!
//! `a | b | c` is the plain form: all must succeed, and the first error drops the rest. The methods of such
//! branches say otherwise: [`Workflow::settle`] waits for every result, [`Workflow::race`] takes the first
//! answer, [`Workflow::quorum`] the first few. [`parallel()`] does the same for a collection of workflows,
//! and [`Workflow::each`] runs one workflow for each input of a list; both can bound how many run at
//! once.
//!
//! Use it for calls that do not depend on each other. It stands wherever a stage can stand; what it runs
//! has wrappers of its own. Each branch works on a copy of the state, of which only a race takes one over:
//! that of the winner. Branches run in the caller's task, so a panic in one is a panic of all, and work that
//! blocks its thread keeps the others waiting.
//!
//! ```
//! use throughline::{Context, ParallelConfig, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let shout = workflow("shout", |prompt: String| async move { Ok(prompt.to_uppercase()) });
//! let flow = shout.each(ParallelConfig::new("batch").max_concurrent(8)?);
//!
//! let prompts = (0..100).map(|n| format!("prompt {n}")).collect();
//! let answers = flow.run(prompts, &Context::new()).await?;
//! assert_eq!((answers.len(), answers[42].as_str()), (100, "PROMPT 42"));
//! # Ok(()) }
//! ```
//!
//! Do not use it without a bound on a list that a caller sends: its length would decide the load. Do not use
//! a race to cut slow answers of one service, which doubles its load; that is what a hedge is for.

mod fan;
mod gather;

use std::fmt;

pub use fan::{Alike, Joint, Settle, Tuple};
pub use gather::{All, First, Gather, Quorum, Settled, Tray};

use crate::context::Context;
use crate::error::{ConfigError, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{Attribute, End, Ended, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: &[Reported] = &[
    Reported::new::<Ended, ParallelEvent>("parallel", &[]),
    Reported::new::<Ended, ParallelEvent>("settle", &[]),
    Reported::new::<Ended, ParallelEvent>("each", &[]),
    Reported::new::<Ended, ParallelEvent>("quorum", &[]),
    Reported::new::<Ended, ParallelEvent>(
        "race",
        &[Attribute::int("throughline.race.won_by", "The branch that answered first, from 0")],
    ),
];

labels! {
    /// What can happen while branches are under way.
    #[non_exhaustive]
    pub enum ParallelEvent {
        /// A branch failed.
        BranchFailed = "branch_failed",
        /// A branch was dropped, because the result was certain without it.
        BranchDropped = "branch_dropped",
        /// A branch did not start, because the deadline had passed or the work was asked to stop.
        BranchNotStarted = "branch_not_started",
    }
}

/// How branches run, and what becomes of their answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `parallel` or `each`"]
pub struct ParallelConfig<G = All> {
    operation: String,
    max_concurrent: usize,
    gather: G,
}

/// Runs several workflows on one input. Made by [`parallel()`], [`Workflow::race`] and [`Workflow::quorum`].
pub struct Parallel<P, G = All> {
    branches: Vec<P>,
    config: ParallelConfig<G>,
    counts: Counts,
}

/// Runs a workflow on each of many inputs. Made by [`Workflow::each`].
pub struct Each<P, G = All> {
    inner: P,
    config: ParallelConfig<G>,
    counts: Counts,
}

/// What has been seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ParallelStats {
    /// Runs that gave a result.
    pub successes: u64,
    /// Runs that failed.
    pub errors: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
    /// Branches that failed.
    pub branches_failed: u64,
    /// Branches that were dropped because the result was certain without them.
    pub branches_dropped: u64,
    /// Branches that did not start because there was no time left, or nobody wanted them any more.
    pub branches_not_started: u64,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: PerLabel<Ended>,
    events: PerLabel<ParallelEvent>,
}

/// Runs all `workflows` on a copy of the input. The result is the answers in the order of the workflows, unless
/// the configuration says otherwise.
///
/// # Errors
/// When there are no workflows, or fewer than the quorum.
pub fn parallel<P, Shape, G>(
    config: ParallelConfig<G>,
    workflows: Vec<Workflow<P, Shape>>,
) -> Result<Workflow<Observed<Parallel<P, G>>>, ConfigError>
where
    P: Primitive<In: Clone>,
    G: Gather,
{
    let (given, least) = (workflows.len(), config.gather.least().max(1));
    if given < least {
        let operation = &config.operation;
        return Err(ConfigError::new(format!(
            "{} `{operation}` has {given} branches: it must have at least {least}",
            G::NAME
        )));
    }
    let branches = workflows.into_iter().map(Workflow::into_inner).collect();
    Ok(Workflow::from_stage(Parallel { branches, config, counts: Counts::default() }))
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Runs the workflow once for each input of a list. The result is the answers in the order of the inputs,
    /// unless the configuration says otherwise; for an empty list it is empty.
    pub fn each<G: Gather>(self, config: ParallelConfig<G>) -> Workflow<Observed<Each<P, G>>> {
        Workflow::from_stage(Each { inner: self.into_inner(), config, counts: Counts::default() })
    }
}

// === impl ParallelConfig ===

impl ParallelConfig {
    /// Runs the branches of `operation` all at once. All of them must succeed; the first error ends the run.
    pub fn new(operation: impl Into<String>) -> Self {
        Self { operation: operation.into(), max_concurrent: usize::MAX, gather: All }
    }
}

impl<G> ParallelConfig<G> {
    /// How many branches run at once; the next starts when one ends. Default: all.
    ///
    /// # Errors
    /// When `n` is zero.
    pub fn max_concurrent(mut self, n: usize) -> Result<Self, ConfigError> {
        if n == 0 {
            return Err(ConfigError::refused("parallel max_concurrent", n, "at least 1"));
        }
        self.max_concurrent = n;
        Ok(self)
    }

    /// Waits for every branch. The result is all results, errors among them; the run itself does not fail.
    /// Default: every answer, in order; the first error ends the run.
    pub fn settle(self) -> ParallelConfig<Settled> {
        self.gathering(Settled)
    }

    /// The first answer is the result and the other branches are dropped. When all fail, the error is the
    /// first, with the others in [`Error::also`](crate::Error::also). Default: every answer, in order.
    pub fn race(self) -> ParallelConfig<First> {
        self.gathering(First)
    }

    /// The first `n` answers are the result, in the order in which they come, and the other branches are
    /// dropped. The run fails as soon as `n` cannot be reached any more, and with
    /// [`Kind::InvalidInput`](crate::Kind::InvalidInput) for a list of fewer than `n` inputs. Default: every answer,
    /// in order.
    ///
    /// # Errors
    /// When `n` is zero.
    pub fn quorum(self, n: usize) -> Result<ParallelConfig<Quorum>, ConfigError> {
        if n == 0 {
            return Err(ConfigError::refused("parallel quorum", n, "at least 1"));
        }
        Ok(self.gathering(Quorum(n)))
    }

    fn gathering<To>(self, gather: To) -> ParallelConfig<To> {
        ParallelConfig { operation: self.operation, max_concurrent: self.max_concurrent, gather }
    }
}

// === impl Parallel ===

impl<P, G> Parallel<P, G> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> ParallelStats {
        self.counts.stats()
    }
}

impl<P: Primitive<In: Clone>, G: Gather> Stage for Parallel<P, G> {
    type In = P::In;
    type Out = G::Out<P::Out>;
    type Outcome = Ended;
    type Event = ParallelEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = G::NAME;

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<Self::Out> {
        let inputs = std::iter::repeat_n(input, self.branches.len());
        let how = (&self.config.gather, self.config.max_concurrent);
        gather::gather(how, self.branches.iter().zip(inputs), cx, &self.counts, run).await
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.counts.ended(end.outcome);
    }

    fn describe(&self) -> Node {
        let start = Node::leaf(Self::PRIMITIVE, &self.config.operation);
        self.branches.iter().fold(start, |node, branch| node.holding(branch.describe()))
    }

    fn stream<'a>(&self, output: &'a mut Self::Out) -> Option<&'a mut dyn Streaming> {
        let answer = G::one(output)?;
        // Any branch may have made it, and those that did not find nothing.
        let found = self.branches.iter().position(|branch| branch.stream(answer).is_some())?;
        self.branches[found].stream(answer)
    }

    fn bind(&self, sink: &Sink) {
        self.branches.iter().for_each(|branch| branch.bind(sink));
    }
}

impl<P, G: Gather> fmt::Debug for Parallel<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, branches) = (&self.config.operation, self.branches.len());
        write!(f, "Parallel({name}, {} of {branches}, {})", G::NAME, self.counts)
    }
}

// === impl Each ===

impl<P, G> Each<P, G> {
    /// What it has seen so far; a branch is the run for one input.
    #[must_use]
    pub fn stats(&self) -> ParallelStats {
        self.counts.stats()
    }
}

impl<P: Primitive, G: Gather> Stage for Each<P, G> {
    type In = Vec<P::In>;
    type Out = G::Out<P::Out>;
    type Outcome = Ended;
    type Event = ParallelEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "each";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, inputs: Vec<P::In>, cx: &Context, run: &mut Run<'_, Self>) -> Result<Self::Out> {
        let branches = inputs.into_iter().map(|input| (&self.inner, input));
        let how = (&self.config.gather, self.config.max_concurrent);
        gather::gather(how, branches, cx, &self.counts, run).await
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.counts.ended(end.outcome);
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut Self::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(G::one(output)?)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P, G: Gather> fmt::Debug for Each<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Each({}, {}, {})", self.config.operation, G::NAME, self.counts)
    }
}

// === impl Counts ===

impl Counts {
    fn happened<S: Stage<Event = ParallelEvent>>(&self, event: ParallelEvent, run: &mut Run<'_, S>) {
        self.events.inc(event);
        run.event(event);
    }

    fn ended(&self, outcome: Ended) {
        self.outcomes.inc(outcome);
    }

    fn stats(&self) -> ParallelStats {
        ParallelStats {
            successes: self.outcomes.get(Ended::Success),
            errors: self.outcomes.get(Ended::Error),
            cancelled: self.outcomes.get(Ended::Cancelled),
            branches_failed: self.events.get(ParallelEvent::BranchFailed),
            branches_dropped: self.events.get(ParallelEvent::BranchDropped),
            branches_not_started: self.events.get(ParallelEvent::BranchNotStarted),
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        let runs = stats.successes + stats.errors + stats.cancelled;
        write!(f, "{} of {runs} failed", stats.errors)
    }
}
