//! The branches of `a | b | c` as tuples.

use std::fmt;
use std::future::Future;

use super::{Counts, First, Parallel, ParallelConfig, ParallelEvent, ParallelStats, Quorum, parallel};
use crate::context::Context;
use crate::error::{ConfigError, Result};
use crate::graph::Node;
use crate::primitive::{Boxed, Primitive};
use crate::telemetry::{End, Ended, Observed, Registry, Run, Sink, Stage};
use crate::workflow::{Branches, Fan, Workflow, branch};

/// Branches of one input.
pub trait Tuple: Send + Sync + 'static {
    /// The input.
    type In: Clone + Send + 'static;
    /// The results, as a tuple.
    type Settled: Send + 'static;

    /// Runs all of them to their end.
    fn settle(&self, input: Self::In, cx: &Context) -> impl Future<Output = Self::Settled> + Send;
    /// How many have failed.
    fn failed(settled: &Self::Settled) -> usize;
    /// The stages.
    fn nodes(&self) -> Vec<Node>;
    /// Creates their series.
    fn bind(&self, sink: &Sink);
}

/// Branches of one input and one type of output.
pub trait Alike: Tuple {
    /// The output.
    type Out: Send + 'static;

    /// The branches, with their types erased.
    fn boxed(self) -> Vec<Workflow<Boxed<Self::In, Self::Out>>>;
}

/// Branches of which the first successes decide.
pub type Joint<T, G> = Parallel<Boxed<<T as Tuple>::In, <T as Alike>::Out>, G>;

/// Waits for every branch and gives every result. Made by [`Workflow::settle`].
pub struct Settle<T> {
    operation: String,
    branches: T,
    counts: Counts,
}

impl<T: Tuple> Workflow<Fan<T>, Branches> {
    /// Waits for every branch, and gives the tuple of their results, in written order. `operation` becomes a
    /// label: it must come from code or configuration.
    pub fn settle(self, operation: impl Into<String>) -> Workflow<Observed<Settle<T>>> {
        let branches = self.into_branches();
        Workflow::from_stage(Settle { operation: operation.into(), branches, counts: Counts::default() })
    }

    /// Gives the first answer and drops the other branches. When all fail, the error is the first, with the
    /// others in [`Error::also`](crate::Error::also). A stream has answered with its first item. What the winner
    /// wrote to the state is taken over.
    pub fn race(self, operation: impl Into<String>) -> Workflow<Observed<Joint<T, First>>>
    where
        T: Alike,
    {
        let branches = self.into_branches().boxed();
        parallel(ParallelConfig::new(operation).race(), branches).expect("two branches are enough for a race")
    }

    /// Gives the first `n` answers, in the order in which they come, and drops the other branches. It fails
    /// as soon as `n` cannot be reached any more, with the first error and the others in
    /// [`Error::also`](crate::Error::also).
    ///
    /// # Errors
    /// When `n` is zero or more than there are branches.
    pub fn quorum(
        self,
        operation: impl Into<String>,
        n: usize,
    ) -> Result<Workflow<Observed<Joint<T, Quorum>>>, ConfigError>
    where
        T: Alike,
    {
        let branches = self.into_branches().boxed();
        parallel(ParallelConfig::new(operation).quorum(n)?, branches)
    }
}

// === impl Settle ===

impl<T> Settle<T> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> ParallelStats {
        self.counts.stats()
    }
}

impl<T: Tuple> Stage for Settle<T> {
    type In = T::In;
    type Out = T::Settled;
    type Outcome = Ended;
    type Event = ParallelEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "settle";

    fn operation(&self) -> &str {
        &self.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: T::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<T::Settled> {
        let settled = self.branches.settle(input, cx).await;
        (0..T::failed(&settled)).for_each(|_| self.counts.happened(ParallelEvent::BranchFailed, run));
        Ok(settled)
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.counts.ended(end.outcome);
    }

    fn describe(&self) -> Node {
        let start = Node::leaf(Self::PRIMITIVE, &self.operation);
        self.branches.nodes().into_iter().fold(start, Node::holding)
    }

    fn bind(&self, sink: &Sink) {
        self.branches.bind(sink);
    }
}

impl<T> fmt::Debug for Settle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Settle({}, {})", self.operation, self.counts)
    }
}

// === tuples of 2 to 12 branches ===

macro_rules! tuple {
    ($($name:ident)+) => {
        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<In: Clone + Send + 'static, $($name: Primitive<In = In>),+> Tuple for ($($name,)+) {
            type In = In;
            type Settled = ($(Result<$name::Out>,)+);

            async fn settle(&self, input: In, cx: &Context) -> Self::Settled {
                let ($($name,)+) = self;
                $(let $name = branch($name, input.clone(), cx.fork());)+
                futures_util::join!($($name),+)
            }

            fn failed(($($name,)+): &Self::Settled) -> usize {
                [$($name.is_err()),+].into_iter().filter(|failed| *failed).count()
            }

            fn nodes(&self) -> Vec<Node> {
                let ($($name,)+) = self;
                vec![$($name.describe()),+]
            }

            fn bind(&self, sink: &Sink) {
                let ($($name,)+) = self;
                $($name.bind(sink);)+
            }
        }

        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<In, Out, $($name: Primitive<In = In, Out = Out>),+> Alike for ($($name,)+)
        where
            In: Clone + Send + 'static,
            Out: Send + 'static,
        {
            type Out = Out;

            fn boxed(self) -> Vec<Workflow<Boxed<In, Out>>> {
                let ($($name,)+) = self;
                vec![$(Workflow::from_primitive(Boxed::new($name))),+]
            }
        }
    };
}

macro_rules! tuples {
    ([$($done:ident)+]) => { tuple!($($done)+); };
    ([$($done:ident)+] $next:ident $($more:ident)*) => {
        tuple!($($done)+);
        tuples!([$($done)+ $next] $($more)*);
    };
}

tuples!([P0 P1] P2 P3 P4 P5 P6 P7 P8 P9 P10 P11);
