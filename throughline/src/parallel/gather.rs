//! What becomes of the answers of several branches, and the loop that runs them.

use std::fmt;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::coop::consume_budget;

use super::{Counts, ParallelEvent};
use crate::attempt::{adopt, answered};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::primitive::Primitive;
use crate::telemetry::{Run, Stage};

/// What becomes of the answers: [`All`], [`Settled`], [`First`] or [`Quorum`].
pub trait Gather: fmt::Debug + Copy + Send + Sync + 'static + Sealed {
    /// What is made of the answers `T`.
    type Out<T: Send + 'static>: Send + 'static;

    /// The `primitive` label.
    const NAME: &'static str;
    /// Whether the first successes decide, so that a stream has to show its first item.
    const BY_SUCCESS: bool;

    /// The fewest branches that can give a result.
    fn least(&self) -> usize;

    /// The result, once it is certain.
    fn decide<T: Send + 'static>(&self, tray: &mut Tray<T>) -> Option<Result<Self::Out<T>>>;

    /// The answer that is the whole result, where one is.
    fn one<T: Send + 'static>(out: &mut Self::Out<T>) -> Option<&mut T> {
        let _ = out;
        None
    }
}

/// Every answer in the order of the branches; the first error ends it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct All;

/// Every result in the order of the branches, errors among them.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Settled;

/// The first answer.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct First;

/// The first so many answers, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub struct Quorum(pub(super) usize);

/// Keeps [`Gather`] closed.
pub trait Sealed {}

/// What has come so far, in the order in which it came.
#[derive(Debug)]
pub struct Tray<T> {
    of: usize,
    answers: Vec<(usize, T)>,
    errors: Vec<(usize, Error)>,
}

/// A branch that has ended.
struct Arrival<'a, P: Primitive> {
    at: usize,
    inner: &'a P,
    cx: Context,
    result: Result<P::Out>,
}

async fn branch<'a, P: Primitive>(
    at: usize,
    inner: &'a P,
    input: P::In,
    cx: Context,
    by_success: bool,
) -> Arrival<'a, P> {
    let result = match by_success {
        true => answered(inner, input, &cx).await,
        false => inner.execute(input, &cx).await,
    };
    Arrival { at, inner, cx, result }
}

/// Runs `branches`, at most so many at once, until the result is certain, and drops the rest.
pub(super) async fn gather<'a, P: Primitive, G: Gather, S: Stage<Event = ParallelEvent>>(
    (mode, max_concurrent): (&G, usize),
    mut branches: impl ExactSizeIterator<Item = (&'a P, P::In)> + Send,
    cx: &Context,
    counts: &Counts,
    run: &mut Run<'_, S>,
) -> Result<G::Out<P::Out>> {
    let base = cx.fork();
    let mut tray = Tray { of: branches.len(), answers: Vec::new(), errors: Vec::new() };
    if tray.of < mode.least() {
        let message = format!("{} inputs are too few for a result: it takes {}", tray.of, mode.least());
        return Err(Error::new(Kind::InvalidInput, message));
    }
    let (mut running, mut begun, mut last) = (FuturesUnordered::new(), 0, None);
    loop {
        if let Some(mut decided) = mode.decide(&mut tray) {
            (0..running.len()).for_each(|_| counts.happened(ParallelEvent::BranchDropped, run));
            drop(running);
            if let (Ok(out), Some((at, inner, branch))) = (&mut decided, last)
                && let Some(answer) = G::one(out)
            {
                run.attribute("throughline.race.won_by", i64::try_from(at).unwrap_or(i64::MAX));
                adopt(cx, &branch, &base, P::stream(inner, answer));
            }
            return decided;
        }
        while running.len() < max_concurrent
            && let Some((inner, input)) = branches.next()
        {
            match unwanted(cx) {
                None => running.push(branch(begun, inner, input, base.fork(), G::BY_SUCCESS)),
                Some(error) => {
                    counts.happened(ParallelEvent::BranchNotStarted, run);
                    tray.errors.push((begun, error));
                }
            }
            begun += 1;
        }
        // However many are done at once, what runs beside them has its turn.
        consume_budget().await;
        let Some(Arrival { at, inner, cx, result }) = running.next().await else { continue };
        match result {
            Ok(answer) => tray.answers.push((at, answer)),
            Err(error) => {
                counts.happened(ParallelEvent::BranchFailed, run);
                tray.errors.push((at, error));
            }
        }
        last = Some((at, inner, cx));
    }
}

/// Why a branch need not be started any more.
fn unwanted(cx: &Context) -> Option<Error> {
    if cx.is_cancelled() {
        return Some(Error::new(Kind::Cancelled, "the work was asked to stop before this branch started"));
    }
    let late = !cx.fits(std::time::Duration::ZERO);
    late.then(|| Error::new(Kind::Timeout, "the deadline passed before this branch started"))
}

// === impl Gather ===

impl Gather for All {
    type Out<T: Send + 'static> = Vec<T>;

    const NAME: &'static str = "parallel";
    const BY_SUCCESS: bool = false;

    fn least(&self) -> usize {
        0
    }

    fn decide<T: Send + 'static>(&self, tray: &mut Tray<T>) -> Option<Result<Vec<T>>> {
        match tray.errors.pop() {
            Some((_, error)) => Some(Err(error)),
            None => (tray.answers.len() == tray.of).then(|| Ok(in_order(&mut tray.answers))),
        }
    }
}

impl Gather for Settled {
    type Out<T: Send + 'static> = Vec<Result<T>>;

    const NAME: &'static str = "settle";
    const BY_SUCCESS: bool = false;

    fn least(&self) -> usize {
        0
    }

    fn decide<T: Send + 'static>(&self, tray: &mut Tray<T>) -> Option<Result<Vec<Result<T>>>> {
        (tray.answers.len() + tray.errors.len() == tray.of).then(|| {
            let answers = tray.answers.drain(..).map(|(at, answer)| (at, Ok(answer)));
            let errors = tray.errors.drain(..).map(|(at, error)| (at, Err(error)));
            Ok(in_order(&mut answers.chain(errors).collect()))
        })
    }
}

impl Gather for First {
    type Out<T: Send + 'static> = T;

    const NAME: &'static str = "race";
    const BY_SUCCESS: bool = true;

    fn least(&self) -> usize {
        1
    }

    fn decide<T: Send + 'static>(&self, tray: &mut Tray<T>) -> Option<Result<T>> {
        match tray.answers.pop() {
            Some((_, answer)) => Some(Ok(answer)),
            None => (tray.errors.len() == tray.of).then(|| Err(tray.failure())),
        }
    }

    fn one<T: Send + 'static>(out: &mut T) -> Option<&mut T> {
        Some(out)
    }
}

impl Gather for Quorum {
    type Out<T: Send + 'static> = Vec<T>;

    const NAME: &'static str = "quorum";
    const BY_SUCCESS: bool = true;

    fn least(&self) -> usize {
        self.0
    }

    fn decide<T: Send + 'static>(&self, tray: &mut Tray<T>) -> Option<Result<Vec<T>>> {
        if tray.answers.len() == self.0 {
            return Some(Ok(tray.answers.drain(..).map(|(_, answer)| answer).collect()));
        }
        (tray.errors.len() > tray.of - self.0).then(|| Err(tray.failure()))
    }
}

impl Sealed for All {}
impl Sealed for Settled {}
impl Sealed for First {}
impl Sealed for Quorum {}

// === impl Tray ===

impl<T> Tray<T> {
    /// The first error, with the others.
    fn failure(&mut self) -> Error {
        let errors = self.errors.drain(..).map(|(_, error)| error);
        errors.reduce(Error::and).expect("it has failed by an error")
    }
}

fn in_order<T>(results: &mut Vec<(usize, T)>) -> Vec<T> {
    results.sort_unstable_by_key(|(at, _)| *at);
    results.drain(..).map(|(_, result)| result).collect()
}
