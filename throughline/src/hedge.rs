//! Cuts the slowest answers: when the first attempt takes long, another one starts, and the first to
//! succeed wins.
//!
//! Use it where a few answers take much longer than the rest for no reason of the request's own: a second
//! attempt then costs a few per cent more calls and takes the slow tail away. It stands inside a retry
//! and outside of breaker, limits and the timeout of one attempt, so that each attempt is limited and counted.
//!
//! The delay is fixed or learned: the percentile of what first attempts that succeed take (Dean and Barroso,
//! *The Tail at Scale*, 2013). An attempt that fails sooner starts the next at once; an error that asks for a
//! pause ([`Error::retry_after`]) starts no more, one that is not retryable ends the run, and an open circuit
//! inside only keeps further attempts from starting. When all fail, the first error has the others in
//! [`Error::also`]. All run in the caller's task. Of a stream the first item wins.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use throughline::hedge::WonBy;
//! use throughline::{Context, HedgeConfig, HedgeDelay, workflow};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let calls = AtomicU32::new(0);
//! let model = workflow("model", move |question: &str| {
//!     let slow = calls.fetch_add(1, Ordering::Relaxed) == 0;
//!     async move {
//!         tokio::time::sleep(Duration::from_secs(if slow { 60 } else { 1 })).await;
//!         Ok(format!("{question} yes"))
//!     }
//! });
//! let delay = HedgeDelay::fixed(Duration::from_secs(2))?;
//! let flow = model.hedge(HedgeConfig::for_idempotent_work("model", delay));
//! let (cx, start) = (Context::new(), tokio::time::Instant::now());
//! assert_eq!(flow.run("sure?", &cx).await?, "sure? yes");
//! assert_eq!(start.elapsed(), Duration::from_secs(3));
//! assert_eq!(cx.state().get::<WonBy>().as_deref(), Some(&WonBy::Hedge(1)));
//! # Ok(()) }
//! ```
//!
//! Do not use it for work that must happen once: both attempts may take effect. Do not use it against an
//! overload, which it makes worse; a shared budget bounds that. Do not put a cache inside: it would have the
//! second attempt wait for the first.

mod config;

use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use config::{Delay, MOST_EXTRA};
pub use config::{HedgeConfig, HedgeDelay};

use crate::attempt::{adopt, answered};
use crate::context::{Context, until};
use crate::error::{Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::latency::Latency;
use crate::primitive::{BoxFuture, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{Attribute, End, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<HedgeOutcome, HedgeEvent>(
    "hedge",
    &[
        Attribute::string("throughline.hedge.won_by", "The attempt that answered"),
        Attribute::double("throughline.hedge.wasted_seconds", "How long the attempts ran that lost"),
    ],
);

labels! {
    /// How a hedged run ended.
    #[non_exhaustive]
    pub enum HedgeOutcome {
        /// The first attempt answered.
        Primary = "primary",
        /// An extra attempt answered.
        Hedge = "hedge",
        /// No attempt answered.
        Error = "error",
        /// The caller went away.
        Cancelled = "cancelled",
    }
}

labels! {
    /// What can happen while a hedged run is under way.
    #[non_exhaustive]
    pub enum HedgeEvent {
        /// The delay passed and an extra attempt started.
        Hedged = "hedged",
        /// An attempt failed and an extra one started at once.
        FailedOver = "failed_over",
        /// An attempt was dropped, because another had decided the run.
        LoserDropped = "loser_dropped",
        /// The shared budget allowed no extra attempt.
        BudgetExhausted = "budget_exhausted",
        /// The deadline left no time for an extra attempt.
        NoTimeLeft = "no_time_left",
    }
}

/// What the span calls the attempts.
const NAMES: [&str; 1 + MOST_EXTRA as usize] = [
    "primary", "hedge_1", "hedge_2", "hedge_3", "hedge_4", "hedge_5", "hedge_6", "hedge_7", "hedge_8",
    "hedge_9", "hedge_10",
];

/// Starts another attempt when one takes long. Made by [`Workflow::hedge`].
pub struct Hedge<P> {
    inner: P,
    config: HedgeConfig,
    /// What first attempts take, where the delay is learned.
    latency: Option<Latency>,
    counts: Counts,
}

/// Which attempt answered, left in [`Context::state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WonBy {
    /// The first.
    Primary,
    /// The extra attempt of this number, from 1.
    Hedge(u32),
}

/// What a [`Hedge`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct HedgeStats {
    /// Runs that the first attempt answered.
    pub primary: u64,
    /// Runs that an extra attempt answered.
    pub hedge: u64,
    /// Runs that no attempt answered.
    pub errors: u64,
    /// Runs whose caller went away.
    pub cancelled: u64,
    /// Extra attempts that were started.
    pub extra_attempts: u64,
    /// Attempts that were dropped because another had decided the run.
    pub losers: u64,
    /// How long those ran, summed up.
    pub wasted: Duration,
    /// Extra attempts that the shared budget did not allow.
    pub budget_exhausted: u64,
    /// The delay in force now.
    pub delay: Duration,
}

#[derive(Debug, Default)]
struct Counts {
    outcomes: PerLabel<HedgeOutcome>,
    events: PerLabel<HedgeEvent>,
    wasted_nanos: AtomicU64,
}

impl<P: Primitive<In: Clone>, Shape> Workflow<P, Shape> {
    /// Starts another attempt when one takes long; the first to succeed wins.
    pub fn hedge(self, config: HedgeConfig) -> Workflow<Observed<Hedge<P>>> {
        let latency = match config.delay {
            Delay::Fixed(_) => None,
            Delay::Percentile { window, min_samples, .. } => Some(Latency::new(window, min_samples)),
        };
        Workflow::from_stage(Hedge { inner: self.into_inner(), config, latency, counts: Counts::default() })
    }
}

// === impl Hedge ===

impl<P> Hedge<P> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> HedgeStats {
        let Counts { outcomes, events, wasted_nanos } = &self.counts;
        HedgeStats {
            primary: outcomes.get(HedgeOutcome::Primary),
            hedge: outcomes.get(HedgeOutcome::Hedge),
            errors: outcomes.get(HedgeOutcome::Error),
            cancelled: outcomes.get(HedgeOutcome::Cancelled),
            extra_attempts: events.get(HedgeEvent::Hedged) + events.get(HedgeEvent::FailedOver),
            losers: events.get(HedgeEvent::LoserDropped),
            wasted: Duration::from_nanos(wasted_nanos.load(Ordering::Relaxed)),
            budget_exhausted: events.get(HedgeEvent::BudgetExhausted),
            delay: self.delay(Instant::now()),
        }
    }

    fn delay(&self, now: Instant) -> Duration {
        match (&self.config.delay, &self.latency) {
            (Delay::Percentile { quantile, floor, ceiling, .. }, Some(latency)) => {
                latency.quantile(*quantile, now).map_or(*ceiling, |delay| delay.clamp(*floor, *ceiling))
            }
            (Delay::Fixed(delay), _) | (Delay::Percentile { ceiling: delay, .. }, None) => *delay,
        }
    }

    /// Learns from a first attempt: what it took, or that it was cut short.
    fn learn(&self, took: Duration, cut: bool, now: Instant) {
        let (Delay::Percentile { quantile, .. }, Some(latency)) = (&self.config.delay, &self.latency) else {
            return;
        };
        match cut {
            true => _ = latency.record_cut(took, *quantile, now),
            false => latency.record(took, now),
        }
    }
}

impl<P: Primitive<In: Clone>> Stage for Hedge<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = HedgeOutcome;
    type Event = HedgeEvent;
    type Signals = ();
    /// When the first attempt started, while it is under way.
    type Note = Option<Instant>;

    const PRIMITIVE: &'static str = "hedge";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        let now = Instant::now();
        let mut race = Race::new(self, input, cx, now);
        run.note = Some(now);
        race.start(now);
        loop {
            let landed = tokio::select! {
                biased;
                landed = landing(&mut race.flights) => Some(landed),
                () = until(race.next) => None,
            };
            match landed {
                None => race.another(HedgeEvent::Hedged, run),
                Some((number, cx, Ok(output))) => return Ok(race.won(number, &cx, output, run)),
                Some((number, cx, Err(error))) => race.lost(number, cx, error, run)?,
            }
        }
    }

    fn ended(&self, end: &End<'_, Self>) {
        self.counts.outcomes.inc(end.outcome);
        if let Some(started) = *end.note {
            let now = Instant::now();
            self.learn(now - started, true, now);
        }
    }

    fn describe(&self) -> Node {
        Node::leaf(Self::PRIMITIVE, &self.config.operation).holding(self.inner.describe())
    }

    fn stream<'a>(&self, output: &'a mut P::Out) -> Option<&'a mut dyn Streaming> {
        self.inner.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.inner.bind(sink);
    }
}

impl<P> fmt::Debug for Hedge<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let HedgeConfig { operation, extra_attempts, .. } = &self.config;
        let stats = self.stats();
        write!(f, "Hedge({operation}, {extra_attempts} extra after {:?}, ", stats.delay)?;
        write!(f, "{} of {} won by a hedge)", stats.hedge, stats.primary + stats.hedge)
    }
}

// === impl Race ===

/// The attempts of one run.
struct Race<'a, P: Primitive> {
    hedge: &'a Hedge<P>,
    input: P::In,
    cx: &'a Context,
    /// What every attempt's state is a copy of.
    base: Context,
    wait: Duration,
    flights: Vec<Flight<'a, P::Out>>,
    started: u32,
    /// When the next attempt starts, if one may.
    next: Option<Instant>,
    /// The errors so far, the one to return first, with the context of its attempt.
    failed: Option<(Error, Context)>,
}

/// An attempt under way. The first has the number 0.
struct Flight<'a, Out> {
    number: u32,
    since: Instant,
    work: BoxFuture<'a, (Context, Result<Out>)>,
}

/// The next attempt to end, with its number and context; of several that end together the one that started first.
async fn landing<Out>(flights: &mut Vec<Flight<'_, Out>>) -> (u32, Context, Result<Out>) {
    poll_fn(|task| {
        let ended =
            flights.iter_mut().enumerate().find_map(|(at, flight)| match flight.work.as_mut().poll(task) {
                Poll::Ready(result) => Some((at, result)),
                Poll::Pending => None,
            });
        ended.map_or(Poll::Pending, |(at, (cx, result))| Poll::Ready((flights.remove(at).number, cx, result)))
    })
    .await
}

impl<'a, P: Primitive<In: Clone>> Race<'a, P> {
    fn new(hedge: &'a Hedge<P>, input: P::In, cx: &'a Context, now: Instant) -> Self {
        let wait = hedge.delay(now);
        let (base, flights) = (cx.fork(), Vec::with_capacity(1));
        Self { hedge, input, cx, base, wait, flights, started: 0, next: None, failed: None }
    }

    fn start(&mut self, since: Instant) {
        let (inner, input, cx) = (&self.hedge.inner, self.input.clone(), self.base.fork());
        let work = Box::pin(async move {
            let result = answered(inner, input, &cx).await;
            (cx, result)
        });
        self.flights.push(Flight { number: self.started, since, work });
        self.started += 1;
        self.next = since.checked_add(self.wait).filter(|_| self.started <= self.hedge.config.extra_attempts);
    }

    /// Starts another attempt, if number, deadline and budget allow it.
    fn another(&mut self, why: HedgeEvent, run: &mut Run<'_, Hedge<P>>) {
        if self.next.take().is_none() || self.cx.is_cancelled() {
            return;
        }
        if !self.cx.fits(Duration::ZERO) {
            return self.count(HedgeEvent::NoTimeLeft, run);
        }
        if self.hedge.config.budget.as_ref().is_some_and(|budget| !budget.withdraw()) {
            return self.count(HedgeEvent::BudgetExhausted, run);
        }
        self.start(Instant::now());
        self.count(why, run);
    }

    /// Decides the run for the attempt of this number.
    fn won(&mut self, number: u32, cx: &Context, mut output: P::Out, run: &mut Run<'_, Hedge<P>>) -> P::Out {
        let (won_by, outcome) = match number {
            0 => (WonBy::Primary, HedgeOutcome::Primary),
            number => (WonBy::Hedge(number), HedgeOutcome::Hedge),
        };
        if let Some(budget) = &self.hedge.config.budget {
            budget.deposit();
        }
        self.decided(won_by == WonBy::Primary, run);
        adopt(self.cx, cx, &self.base, self.hedge.inner.stream(&mut output));
        self.cx.state().insert(won_by);
        run.attribute("throughline.hedge.won_by", NAMES[number as usize]);
        run.outcome(outcome);
        output
    }

    /// Goes on without the attempt of this number, if there is a way.
    fn lost(&mut self, number: u32, cx: Context, error: Error, run: &mut Run<'_, Hedge<P>>) -> Result<()> {
        if number == 0 {
            run.note = None;
        }
        if error.kind() == Kind::CircuitOpen && !self.flights.is_empty() {
            // It was not made, and says nothing of those that were let through.
            self.next = None;
            return Ok(());
        }
        let fatal = !error.is_retryable();
        if fatal || error.retry_after().is_some() {
            self.next = None;
        }
        let (error, cx) = match self.failed.take() {
            Some((earlier, _)) if fatal => (error.and(earlier), cx),
            Some((first, cx)) => (first.and(error), cx),
            None => (error, cx),
        };
        self.another(HedgeEvent::FailedOver, run);
        if fatal || self.flights.is_empty() {
            self.decided(false, run);
            adopt(self.cx, &cx, &self.base, None);
            return Err(error);
        }
        self.failed = Some((error, cx));
        Ok(())
    }

    /// Learns from the first attempt, if it has not failed, and drops what is under way.
    fn decided(&mut self, primary: bool, run: &mut Run<'_, Hedge<P>>) {
        let now = Instant::now();
        if let Some(started) = run.note.take() {
            self.hedge.learn(now - started, !primary, now);
        }
        let wasted: Duration = self.flights.iter().map(|flight| now - flight.since).sum();
        self.flights.iter().for_each(|_| self.count(HedgeEvent::LoserDropped, run));
        self.flights.clear();
        if !wasted.is_zero() {
            let nanos = u64::try_from(wasted.as_nanos()).unwrap_or(u64::MAX);
            self.hedge.counts.wasted_nanos.fetch_add(nanos, Ordering::Relaxed);
            run.attribute("throughline.hedge.wasted_seconds", wasted.as_secs_f64());
        }
    }

    fn count(&self, event: HedgeEvent, run: &mut Run<'_, Hedge<P>>) {
        self.hedge.counts.events.inc(event);
        run.event(event);
    }
}

// === impl Outcome ===

impl crate::telemetry::Outcome for HedgeOutcome {
    const SUCCESS: Self = Self::Primary;
    const ERROR: Self = Self::Error;
    const CANCELLED: Self = Self::Cancelled;
}
