//! Composition: `a >> b` pipes, `a | b` runs side by side, methods wrap.
//!
//! * `a >> b`: the input of `b` is the output of `a`; an error stops the pipe and travels unchanged.
//! * `a | b`: both run on a copy of the same input; the result is a tuple in written order. The first
//!   error wins and the other branch is dropped. Each branch has a copy of the state.
//! * `>>` binds tighter than `|`: `a >> b | c >> d` has two branches. Brackets are not flattened:
//!   `a | (b | c)` yields `(A, (B, C))`.
//! * **Piping is not wrapping.** In `route >> cache_of(x) >> timeout_of(y)` each guards its own inner
//!   workflow and none guards what stands to its left. To guard that, call methods:
//!   `route.cache(..).timeout(..)`, outermost last.
//!
//! Chains are flat tuples that compile to what one would write by hand.
//!
//! ```
//! use throughline::{Context, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> throughline::Result<()> {
//! let words = workflow("words", |text: String| async move { Ok(text.split(' ').count()) });
//! let chars = workflow("chars", |text: String| async move { Ok(text.chars().count()) });
//! let trim = workflow("trim", |text: String| async move { Ok(text.trim().to_owned()) });
//!
//! let flow = trim >> (words | chars);
//! assert_eq!(flow.run("  two words ".to_owned(), &Context::new()).await?, (2, 9));
//! # Ok(()) }
//! ```

use std::fmt;
use std::marker::PhantomData;
use std::ops::{BitOr, Shr};

use crate::context::Context;
use crate::error::Result;
use crate::graph::{Node, PIPE};
use crate::primitive::{Boxed, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{Observed, Sink, Stage};

/// A composable piece of work: the only type with operators. [`workflow`](crate::workflow()) makes one.
///
/// A function can hand one out as `Workflow<impl Primitive<In = …, Out = …>>`; give a pipe or a fan a name
/// first ([`Workflow::named`]), which makes it one piece.
#[must_use = "a workflow does nothing until it is run"]
pub struct Workflow<P, Shape = One>(P, PhantomData<fn() -> Shape>);

/// The shape of a workflow that is one piece.
#[derive(Debug)]
pub enum One {}

/// The shape of a pipe: `>>` makes it longer.
#[derive(Debug)]
pub enum Pipe {}

/// The shape of branches side by side: `|` adds one.
#[derive(Debug)]
pub enum Branches {}

/// Stages that run one after the other, as a flat tuple.
#[derive(Clone)]
pub struct Chain<T>(T);

/// Stages that run side by side, as a flat tuple.
#[derive(Clone)]
pub struct Fan<T>(T);

// === impl Workflow ===

impl<S: Stage> Workflow<Observed<S>> {
    /// Makes a stage, built in or one's own, a workflow.
    pub fn from_stage(stage: S) -> Self {
        join(Observed::new(stage))
    }

    /// The outermost stage, to read its `stats()`.
    pub fn stage(&self) -> &S {
        self.0.stage()
    }
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Runs the workflow. Each stage is a span; a name for the whole ([`Workflow::named`]) makes one trace of
    /// them where the context does not continue one.
    ///
    /// # Errors
    /// What the first failing stage returned, unchanged.
    ///
    /// # Cancellation
    /// Dropping the future drops every stage in flight.
    ///
    /// # Panics
    /// Outside a tokio runtime with its clock (`#[tokio::main]` and `#[tokio::test]` have it), as soon as a
    /// stage waits or bounds a time.
    pub async fn run(&self, input: P::In, cx: &Context) -> Result<P::Out> {
        self.0.execute(input, cx).await
    }

    /// The graph of stages.
    #[must_use]
    pub fn describe(&self) -> Node {
        self.0.describe()
    }

    /// Creates the series of every stage in `sink`, at zero, so that alerts see them before the first
    /// event.
    pub fn bind(&self, sink: &Sink) {
        self.0.bind(sink);
    }

    /// Erases the inner types, for collections of unlike workflows.
    pub fn boxed(self) -> Workflow<Boxed<P::In, P::Out>> {
        join(Boxed::new(self.0))
    }

    /// Makes a primitive of one's own a workflow. It is not observed: implement [`Stage`] for that.
    pub fn from_primitive(primitive: P) -> Self {
        join(primitive)
    }

    /// What the workflow runs, to be held in a primitive of one's own.
    pub fn into_inner(self) -> P {
        self.0
    }
}

impl<P: Primitive, Shape: 'static> Primitive for Workflow<P, Shape> {
    type In = P::In;
    type Out = P::Out;

    async fn execute(&self, input: P::In, cx: &Context) -> Result<P::Out> {
        self.0.execute(input, cx).await
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

impl<P: Clone, Shape> Clone for Workflow<P, Shape> {
    fn clone(&self) -> Self {
        join(self.0.clone())
    }
}

impl<P: Primitive, Shape> fmt::Debug for Workflow<P, Shape> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.0.describe();
        write!(f, "Workflow({} {})", node.primitive(), node.operation())
    }
}

pub(crate) const fn join<P, Shape>(primitive: P) -> Workflow<P, Shape> {
    Workflow(primitive, PhantomData)
}

// === the operators, for what is one piece ===

impl<P, Next, Shape> Shr<Workflow<Next, Shape>> for Workflow<P>
where
    P: Primitive,
    Next: Primitive<In = P::Out>,
{
    type Output = Workflow<Chain<(P, Next)>, Pipe>;
    fn shr(self, next: Workflow<Next, Shape>) -> Self::Output {
        join(Chain((self.0, next.0)))
    }
}

impl<P, Side, Shape> BitOr<Workflow<Side, Shape>> for Workflow<P>
where
    P: Primitive<In: Clone>,
    Side: Primitive<In = P::In>,
{
    type Output = Workflow<Fan<(P, Side)>, Branches>;
    fn bitor(self, side: Workflow<Side, Shape>) -> Self::Output {
        join(Fan((self.0, side.0)))
    }
}

// === chains: flat tuples of 2 to 16 stages ===

macro_rules! chain {
    ($first:ident, $($rest:ident $before:ident),+; $last:ident) => {
        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<$first: Primitive, $($rest: Primitive<In = $before::Out>),+> Primitive for Chain<($first, $($rest),+)> {
            type In = $first::In;
            type Out = $last::Out;

            async fn execute(&self, input: $first::In, cx: &Context) -> Result<$last::Out> {
                let ($first, $($rest),+) = &self.0;
                let value = $first.execute(input, cx).await?;
                $(let value = $rest.execute(value, cx).await?;)+
                Ok(value)
            }

            fn describe(&self) -> Node {
                let ($first, $($rest),+) = &self.0;
                Node::leaf(PIPE, "").holding($first.describe())$(.holding($rest.describe()))+
            }

            fn stream<'a>(&self, output: &'a mut $last::Out) -> Option<&'a mut dyn Streaming> {
                let (.., last) = &self.0;
                last.stream(output)
            }

            fn bind(&self, sink: &Sink) {
                let ($first, $($rest),+) = &self.0;
                $first.bind(sink);
                $($rest.bind(sink);)+
            }
        }

        impl<$first: Primitive, $($rest: Primitive<In = $before::Out>,)+ Side, Shape> BitOr<Workflow<Side, Shape>>
            for Workflow<Chain<($first, $($rest),+)>, Pipe>
        where
            $first::In: Clone,
            Side: Primitive<In = $first::In>,
        {
            type Output = Workflow<Fan<(Chain<($first, $($rest),+)>, Side)>, Branches>;
            fn bitor(self, side: Workflow<Side, Shape>) -> Self::Output {
                join(Fan((self.0, side.0)))
            }
        }
    };
}

/// What stands before the last stage was found to fit when it was added: asking for it again would have the compiler
/// prove every stage as often as the chain grows.
macro_rules! longer {
    ($first:ident, $($rest:ident $before:ident),+; $last:ident) => {
        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<$first, $($rest,)+ Next, Shape> Shr<Workflow<Next, Shape>>
            for Workflow<Chain<($first, $($rest),+)>, Pipe>
        where
            $last: Primitive,
            Next: Primitive<In = $last::Out>,
        {
            type Output = Workflow<Chain<($first, $($rest,)+ Next)>, Pipe>;
            fn shr(self, next: Workflow<Next, Shape>) -> Self::Output {
                let ($first, $($rest),+) = self.0.0;
                join(Chain(($first, $($rest,)+ next.0)))
            }
        }
    };
}

/// The longest chain becomes the first stage of the next: every tuple type costs compile time, and
/// sixteen levels of sixteen are still far from the compiler's depth limit.
macro_rules! longest {
    ($first:ident, $($rest:ident $before:ident),+; $last:ident) => {
        impl<$first, $($rest,)+ Next, Shape> Shr<Workflow<Next, Shape>>
            for Workflow<Chain<($first, $($rest),+)>, Pipe>
        where
            $last: Primitive,
            Next: Primitive<In = $last::Out>,
        {
            type Output = Workflow<Chain<(Chain<($first, $($rest),+)>, Next)>, Pipe>;
            fn shr(self, next: Workflow<Next, Shape>) -> Self::Output {
                join(Chain((self.0, next.0)))
            }
        }
    };
}

/// Calls `chain!` for every prefix of the list, with the operator that makes it longer.
macro_rules! chains {
    (@grow [$first:ident $($done:ident $before:ident)*] $last:ident) => {
        longest!($first, $($done $before),*; $last);
    };
    (@grow [$first:ident] $last:ident $next:ident $($more:ident)*) => {
        chain!($first, $next $last; $next);
        chains!(@grow [$first $next $last] $next $($more)*);
    };
    (@grow [$first:ident $($done:ident $before:ident)+] $last:ident $next:ident $($more:ident)*) => {
        longer!($first, $($done $before),+; $last);
        chain!($first, $($done $before,)+ $next $last; $next);
        chains!(@grow [$first $($done $before)+ $next $last] $next $($more)*);
    };
    ($first:ident $($more:ident)+) => { chains!(@grow [$first] $first $($more)+); };
}

chains!(P0 P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11 P12 P13 P14 P15);

// === fans: flat tuples of 2 to 12 branches ===

impl<T> Workflow<Fan<T>, Branches> {
    /// The branches, for what does something else with them.
    pub(crate) fn into_branches(self) -> T {
        self.0.0
    }
}

macro_rules! fan {
    ($first:ident, $($rest:ident),+) => {
        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<$first: Primitive, $($rest: Primitive<In = $first::In>),+> Primitive for Fan<($first, $($rest),+)>
        where
            $first::In: Clone,
        {
            type In = $first::In;
            type Out = ($first::Out, $($rest::Out),+);

            async fn execute(&self, input: $first::In, cx: &Context) -> Result<Self::Out> {
                let ($first, $($rest),+) = &self.0;
                $(let $rest = branch($rest, input.clone(), cx.fork());)+
                let $first = branch($first, input, cx.fork());
                futures_util::try_join!($first, $($rest),+)
            }

            fn describe(&self) -> Node {
                let ($first, $($rest),+) = &self.0;
                Node::leaf("parallel", "").holding($first.describe())$(.holding($rest.describe()))+
            }

            fn bind(&self, sink: &Sink) {
                let ($first, $($rest),+) = &self.0;
                $first.bind(sink);
                $($rest.bind(sink);)+
            }
        }

        impl<$first: Primitive, $($rest: Primitive<In = $first::In>,)+ Next, Shape> Shr<Workflow<Next, Shape>>
            for Workflow<Fan<($first, $($rest),+)>, Branches>
        where
            $first::In: Clone,
            Next: Primitive<In = ($first::Out, $($rest::Out),+)>,
        {
            type Output = Workflow<Chain<(Fan<($first, $($rest),+)>, Next)>, Pipe>;
            fn shr(self, next: Workflow<Next, Shape>) -> Self::Output {
                join(Chain((self.0, next.0)))
            }
        }

        #[allow(non_snake_case, reason = "a tuple's fields are named after its types")]
        impl<$first: Primitive, $($rest: Primitive<In = $first::In>,)+ Side, Shape> BitOr<Workflow<Side, Shape>>
            for Workflow<Fan<($first, $($rest),+)>, Branches>
        where
            $first::In: Clone,
            Side: Primitive<In = $first::In>,
        {
            type Output = Workflow<Fan<($first, $($rest,)+ Side)>, Branches>;
            fn bitor(self, side: Workflow<Side, Shape>) -> Self::Output {
                let ($first, $($rest),+) = self.0.0;
                join(Fan(($first, $($rest,)+ side.0)))
            }
        }
    };
}

/// Runs one branch on a context of its own.
pub(crate) async fn branch<P: Primitive>(primitive: &P, input: P::In, cx: Context) -> Result<P::Out> {
    primitive.execute(input, &cx).await
}

macro_rules! fans {
    ($first:ident; [$($done:ident)*]) => {};
    ($first:ident; [$($done:ident)*] $next:ident $($more:ident)*) => {
        fan!($first, $($done,)* $next);
        fans!($first; [$($done)* $next] $($more)*);
    };
}

fans!(P0; [] P1 P2 P3 P4 P5 P6 P7 P8 P9 P10 P11);
