//! Puts faults into a workflow by chance: late answers, errors, and answers that are none.
//!
//! Use it in tests and in exercises on a staging system, to see that retries, fallbacks, alerts and
//! people do what they should. It belongs right around the call that it makes sick, inside everything
//! that is to cope with it.
//!
//! ```
//! use throughline::testing::ChaosConfig;
//! use throughline::{Context, Error, Kind, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = workflow("model", |n: u64| async move { Ok(n) });
//! let sick = ChaosConfig::new("model").seed(7).fault(0.5, || Error::new(Kind::Upstream, "503 by chance"))?;
//! let flow = model.chaos(sick);
//!
//! let mut failures = 0;
//! for n in 0..100 {
//!     failures += u32::from(flow.run(n, &Context::new()).await.is_err());
//! }
//! assert!((30..70).contains(&failures), "about half: {failures}");
//! # Ok(()) }
//! ```
//!
//! Do not use it to test one exact sequence of events: [`Script`](super::Script) does that.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::context::Context;
use crate::error::{ConfigError, Error, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::Primitive;
use crate::stream::Streaming;
use crate::telemetry::{Ended, Observed, Registry, Run, Sink, Stage};
use crate::workflow::Workflow;

labels! {
    /// What was done to a run.
    #[non_exhaustive]
    pub enum ChaosEvent {
        /// It was held up.
        Latency = "latency",
        /// It failed instead of being done.
        Fault = "fault",
        /// It was answered instead of being done.
        Outcome = "outcome",
    }
}

/// Which faults, and how often. Rates are shares of all runs, 0 to 1, drawn independently.
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `chaos`"]
pub struct ChaosConfig<Out> {
    operation: String,
    latency: (f64, RangeInclusive<Duration>),
    fault: Option<(f64, Arc<dyn Fn() -> Error + Send + Sync>)>,
    outcome: Option<(f64, Arc<dyn Fn() -> Out + Send + Sync>)>,
    seed: Option<u64>,
    switch: Arc<AtomicBool>,
}

/// Makes a workflow sick. Made by [`Workflow::chaos`].
pub struct Chaos<P: Primitive> {
    inner: P,
    config: ChaosConfig<P::Out>,
    dice: Mutex<fastrand::Rng>,
}

impl<P: Primitive, Shape> Workflow<P, Shape> {
    /// Puts faults into the workflow by chance.
    pub fn chaos(self, config: ChaosConfig<P::Out>) -> Workflow<Observed<Chaos<P>>> {
        let dice = Mutex::new(config.seed.map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed));
        Workflow::from_stage(Chaos { inner: self.into_inner(), config, dice })
    }
}

// === impl ChaosConfig ===

impl<Out> ChaosConfig<Out> {
    /// No faults yet, switched on.
    pub fn new(operation: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            latency: (0.0, Duration::ZERO..=Duration::ZERO),
            fault: None,
            outcome: None,
            seed: None,
            switch: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Holds up runs for a time out of `range` before they are done. Default: none.
    ///
    /// # Errors
    /// When the rate is not between 0 and 1, or the range is empty.
    pub fn latency(mut self, rate: f64, range: RangeInclusive<Duration>) -> Result<Self, ConfigError> {
        if range.is_empty() {
            let (from, to) = range.into_inner();
            return Err(ConfigError::new(format!(
                "chaos latency is from {from:?} to {to:?}: it must not end before it begins"
            )));
        }
        self.latency = (share("latency", rate)?, range);
        Ok(self)
    }

    /// Fails runs with what `error` makes. Default: none.
    ///
    /// # Errors
    /// When the rate is not between 0 and 1.
    pub fn fault(
        mut self,
        rate: f64,
        error: impl Fn() -> Error + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        self.fault = Some((share("fault", rate)?, Arc::new(error)));
        Ok(self)
    }

    /// Answers runs with what `answer` makes. Default: none.
    ///
    /// # Errors
    /// When the rate is not between 0 and 1.
    pub fn outcome(
        mut self,
        rate: f64,
        answer: impl Fn() -> Out + Send + Sync + 'static,
    ) -> Result<Self, ConfigError> {
        self.outcome = Some((share("outcome", rate)?, Arc::new(answer)));
        Ok(self)
    }

    /// Draws the same faults again in every run of the program. Default: others each time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Does nothing while `switch` is false. Default: always on.
    pub fn switch(mut self, switch: Arc<AtomicBool>) -> Self {
        self.switch = switch;
        self
    }
}

fn share(field: &str, rate: f64) -> Result<f64, ConfigError> {
    match (0.0..=1.0).contains(&rate) {
        true => Ok(rate),
        false => Err(ConfigError::new(format!("chaos {field} rate is {rate}: it must be from 0 to 1"))),
    }
}

impl<Out> fmt::Debug for ChaosConfig<Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |rate: Option<f64>| rate.unwrap_or_default();
        let (fault, outcome) = (self.fault.as_ref().map(|f| f.0), self.outcome.as_ref().map(|o| o.0));
        write!(f, "latency {}, fault {}, outcome {}", self.latency.0, rate(fault), rate(outcome))
    }
}

// === impl Chaos ===

impl<P: Primitive> Chaos<P> {
    fn dice<T>(&self, throw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        throw(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hits(&self, rate: f64) -> bool {
        self.config.switch.load(Ordering::Relaxed) && self.dice(fastrand::Rng::f64) < rate
    }

    fn delay(&self) -> Duration {
        let (from, to) = self.config.latency.1.clone().into_inner();
        from + (to - from).mul_f64(self.dice(fastrand::Rng::f64))
    }
}

impl<P: Primitive> Stage for Chaos<P> {
    type In = P::In;
    type Out = P::Out;
    type Outcome = Ended;
    type Event = ChaosEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "chaos";

    fn operation(&self) -> &str {
        &self.config.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: P::In, cx: &Context, run: &mut Run<'_, Self>) -> Result<P::Out> {
        if self.hits(self.config.latency.0) {
            run.event(ChaosEvent::Latency);
            cx.while_wanted(tokio::time::sleep(self.delay())).await?;
        }
        if let Some((rate, error)) = &self.config.fault
            && self.hits(*rate)
        {
            run.event(ChaosEvent::Fault);
            return Err(error());
        }
        if let Some((rate, answer)) = &self.config.outcome
            && self.hits(*rate)
        {
            run.event(ChaosEvent::Outcome);
            return Ok(answer());
        }
        self.inner.execute(input, cx).await
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

impl<P: Primitive> fmt::Debug for Chaos<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chaos({}, {:?})", self.config.operation, self.config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::testing::{Recorder, Script, Turn};

    #[tokio::test(start_paused = true)]
    async fn does_at_each_rate_what_it_was_told() {
        let (recorder, work) = (Recorder::new(), Script::new("work").then(Turn::value(1)));
        let seconds = Duration::from_secs;
        let flow = work.workflow().chaos(
            ChaosConfig::new("sick")
                .latency(1.0, seconds(1)..=seconds(2))
                .and_then(|sick| sick.outcome(1.0, || 99))
                .unwrap(),
        );
        let start = tokio::time::Instant::now();
        assert_eq!(flow.run(0, &recorder.context()).await.unwrap(), 99);
        assert!((seconds(1)..=seconds(2)).contains(&start.elapsed()));
        assert_eq!(work.calls(), 0, "the answer came instead");
        let events = |event| recorder.metric("throughline_primitive_events_total", &[("event", event)]);
        assert_eq!(
            (events("latency"), events("outcome"), events("fault")),
            (Some(1.0), Some(1.0), Some(0.0))
        );
    }

    #[tokio::test]
    async fn the_same_seed_draws_the_same_faults_and_the_switch_turns_them_off() {
        let switch = Arc::new(AtomicBool::new(true));
        let sick = || {
            let config = ChaosConfig::new("sick").seed(3).switch(Arc::clone(&switch));
            let config = config.fault(0.5, || Error::new(Kind::Upstream, "by chance")).unwrap();
            Script::new("work").then(Turn::value(1)).workflow::<u64>().chaos(config)
        };
        let (a, b, cx) = (sick(), sick(), Context::new());
        let mut failed = 0;
        for _ in 0..50 {
            let (a, b) = (a.run(0, &cx).await.is_err(), b.run(0, &cx).await.is_err());
            assert_eq!(a, b);
            failed += u32::from(a);
        }
        assert!((1..50).contains(&failed));
        switch.store(false, Ordering::Relaxed);
        for _ in 0..50 {
            assert!(a.run(0, &cx).await.is_ok());
        }
    }

    #[test]
    fn refuses_rates_that_are_no_shares() {
        let refusal = |rate| ChaosConfig::<u64>::new("x").outcome(rate, || 1).unwrap_err().to_string();
        assert_eq!(refusal(1.5), "chaos outcome rate is 1.5: it must be from 0 to 1");
        assert!(refusal(f64::NAN).contains("NaN"));
        let backwards = Duration::from_secs(2)..=Duration::from_secs(1);
        assert!(ChaosConfig::<u64>::new("x").latency(0.5, backwards).is_err());
    }
}
