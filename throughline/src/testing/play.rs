//! Wrappers with a model of what they do, so that any two of them can be tested together.
//!
//! A [`Specimen`] knows how to wrap a workflow and has a [`Law`]: what the wrapper is to do, said once more
//! in virtual time, without futures. A [`Scene`] plays a pile of laws over scripted work and tells how it
//! has to end, when, and what metrics must say: [`Told`]. A test runs the real thing and compares.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

use super::script::{Turn, TurnEnd};
use crate::error::{ConfigError, Error, Kind};
use crate::primitive::Boxed;
use crate::workflow::Workflow;

/// A wrapper for tests of pairs.
#[derive(Clone, Copy)]
pub struct Specimen {
    /// The `primitive` label.
    pub primitive: &'static str,
    /// Whether its runs are observed.
    pub observed: bool,
    /// Wraps a workflow.
    pub wrap: Wrap,
    /// The model.
    pub law: Law,
}

/// Builds a wrapper around a workflow.
pub type Wrap = fn(Workflow<Boxed<u64, u64>>, &Place) -> Result<Built, ConfigError>;

/// Where a wrapper stands in a pile.
#[derive(Clone, Debug)]
pub struct Place {
    /// The operation that its metrics are to carry.
    pub operation: String,
    /// 0 for the outermost. Times that depend on it keep two of a kind from doing things at one moment.
    pub level: u32,
}

/// A wrapped workflow.
pub struct Built {
    /// The workflow.
    pub flow: Workflow<Boxed<u64, u64>>,
    /// What it holds at the moment: permits, places in a queue, probe slots, work under way.
    pub held: Box<dyn Fn() -> u64 + Send + Sync>,
}

/// What a wrapper does in one run, told in virtual time. What it knows of earlier runs it has from
/// [`Play::remembered`].
pub type Law = fn(&mut Play<'_>) -> Ending;

/// How a run ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// With what.
    pub how: How,
    /// When, from the beginning of the scene. Of no meaning for [`How::Never`].
    pub at: Duration,
    /// The `outcome` label of the run.
    pub outcome: &'static str,
}

/// What a run ends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// A value.
    Value(u64),
    /// An error.
    Error {
        /// Its kind.
        kind: Kind,
        /// Whether another try may help.
        retryable: bool,
    },
    /// A panic.
    Panic,
    /// It does not end.
    Never,
}

/// One run of a wrapper, as its law sees it.
pub struct Play<'a> {
    scene: &'a mut Scene,
    /// 0 for the outermost wrapper.
    pub level: u32,
    /// When the run begins, from the beginning of the scene.
    pub at: Duration,
    /// The deadline that the run was given.
    pub deadline: Option<Duration>,
}

/// What the record holds of a call of what is wrapped, to cut it off.
#[derive(Clone, Debug)]
pub struct Mark(Range<usize>);

/// Wrappers over scripted work. The outermost comes first.
pub struct Scene {
    laws: Vec<Law>,
    turns: Vec<Turn<u64>>,
    calls: usize,
    record: Vec<Entry>,
}

/// What metrics have to say: counts by level (0 is the outermost wrapper, the last is the work) and label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Runs by outcome.
    pub runs: BTreeMap<(u32, &'static str), u64>,
    /// Events.
    pub events: BTreeMap<(u32, &'static str), u64>,
}

#[derive(Clone, Debug)]
enum Entry {
    Run { level: u32, at: Duration, end: Option<Ending> },
    Event { level: u32, at: Duration, event: &'static str },
    Memory { level: u32, at: Duration, what: u64 },
    Cut,
}

// === impl Ending ===

impl Ending {
    /// A run that ends with an error of `kind`, as retryable as [`Error::new`] makes it.
    #[must_use]
    pub fn error(kind: Kind, at: Duration, outcome: &'static str) -> Self {
        let how = How::Error { kind, retryable: Error::new(kind, "").is_retryable() };
        Self { how, at, outcome }
    }

    /// The same end for the run around it: `success` with a value, `error` otherwise.
    #[must_use]
    pub fn hand_on(&self) -> Self {
        let outcome = if matches!(self.how, How::Value(_)) { "success" } else { "error" };
        Self { outcome, ..self.clone() }
    }

    /// Whether it ends, and at `time` at the latest.
    #[must_use]
    pub fn by(&self, time: Duration) -> bool {
        self.how != How::Never && self.at <= time
    }

    /// The value, if there is one.
    #[must_use]
    pub fn value(&self) -> Option<u64> {
        if let How::Value(value) = self.how { Some(value) } else { None }
    }
}

// === impl Play ===

impl Play<'_> {
    /// Runs what is wrapped, from `at` on, with a deadline.
    pub fn call(&mut self, at: Duration, deadline: Option<Duration>) -> (Ending, Mark) {
        let from = self.scene.record.len();
        let ending = self.scene.run(self.level + 1, at, deadline);
        (ending, Mark(from..self.scene.record.len()))
    }

    /// Runs what is wrapped as the run itself was called.
    pub fn pass(&mut self) -> Ending {
        self.call(self.at, self.deadline).0
    }

    /// Drops at `at` the call of `mark`, or what of it has not ended by then.
    pub fn cut(&mut self, mark: Mark, at: Duration) {
        self.scene.cut(mark.0, at);
    }

    /// The end of another run of this wrapper that is under way, begun by the same run around it. Where
    /// several attempts run side by side, the law around them calls one after the other.
    #[must_use]
    pub fn under_way(&self) -> Option<Ending> {
        let record = &self.scene.record;
        let around = |entry: &Entry| matches!(entry, Entry::Run { level, .. } if *level + 1 == self.level);
        let from = record.iter().rposition(around)?;
        let mine = |entry: &&Entry| matches!(entry, Entry::Run { level, .. } if *level == self.level);
        let mut runs: Vec<&Entry> = record[from..].iter().filter(mine).collect();
        // The last one is this run itself.
        runs.pop();
        runs.into_iter().find_map(|run| match run {
            Entry::Run { end: Some(end), .. } if end.at <= self.at => None,
            Entry::Run { end: Some(end), .. } => Some(end.clone()),
            _ => Some(Ending { how: How::Never, at: self.at, outcome: "cancelled" }),
        })
    }

    /// Something happens that is counted.
    pub fn event(&mut self, at: Duration, event: &'static str) {
        self.scene.record.push(Entry::Event { level: self.level, at, event });
    }

    /// Keeps something from `at` on, for this run and for later ones; a run that is dropped before that does
    /// not get so far.
    pub fn remember(&mut self, at: Duration, what: u64) {
        self.scene.record.push(Entry::Memory { level: self.level, at, what });
    }

    /// What was kept so far, and when.
    #[must_use]
    pub fn remembered(&self) -> Vec<(Duration, u64)> {
        let mine = |entry: &Entry| match entry {
            Entry::Memory { level, at, what } if *level == self.level => Some((*at, *what)),
            _ => None,
        };
        self.scene.record.iter().filter_map(mine).collect()
    }
}

// === impl Scene ===

impl Scene {
    /// Wrappers, outermost first, over work that takes these turns; the last is repeated.
    #[must_use]
    pub fn new(wrappers: &[Specimen], turns: &[Turn<u64>]) -> Self {
        let laws = wrappers.iter().map(|wrapper| wrapper.law).collect();
        Self { laws, turns: turns.to_vec(), calls: 0, record: Vec::new() }
    }

    /// Plays one run from `at` on that is dropped at `dropped`, if it is; its end, or `None` if it was dropped.
    pub fn play(&mut self, at: Duration, dropped: Option<Duration>) -> Option<Ending> {
        let from = self.record.len();
        let ending = self.run(0, at, None);
        match dropped {
            Some(time) if !ending.by(time) => {
                self.cut(from..self.record.len(), time);
                None
            }
            _ => Some(ending),
        }
    }

    /// What metrics have to say by now.
    #[must_use]
    pub fn told(&self) -> Told {
        let mut told = Told::default();
        for entry in &self.record {
            match entry {
                Entry::Run { level, end, .. } => {
                    let outcome = end.as_ref().map_or("cancelled", |end| end.outcome);
                    *told.runs.entry((*level, outcome)).or_default() += 1;
                }
                Entry::Event { level, event, .. } => *told.events.entry((*level, event)).or_default() += 1,
                Entry::Memory { .. } | Entry::Cut => {}
            }
        }
        told
    }

    /// Calls of the work by now.
    #[must_use]
    pub fn calls(&self) -> usize {
        let is_work =
            |entry: &&Entry| matches!(entry, Entry::Run { level, .. } if *level as usize == self.laws.len());
        self.record.iter().filter(is_work).count()
    }

    fn run(&mut self, level: u32, at: Duration, deadline: Option<Duration>) -> Ending {
        let entry = self.record.len();
        self.record.push(Entry::Run { level, at, end: None });
        let ending = match self.laws.get(level as usize) {
            Some(law) => law(&mut Play { scene: self, level, at, deadline }),
            None => self.work(at),
        };
        if ending.how != How::Never {
            self.record[entry] = Entry::Run { level, at, end: Some(ending.clone()) };
        }
        ending
    }

    fn work(&mut self, at: Duration) -> Ending {
        let turn = self.turns.get(self.calls).or(self.turns.last()).cloned().unwrap_or_else(Turn::hang);
        self.calls += 1;
        let (how, outcome) = match turn.end {
            TurnEnd::Value(value) => (How::Value(value), "success"),
            TurnEnd::Fail(error) => {
                (How::Error { kind: error.kind(), retryable: error.is_retryable() }, "error")
            }
            TurnEnd::Panic => (How::Panic, "error"),
            TurnEnd::Hang => (How::Never, "cancelled"),
        };
        Ending { how, at: at + turn.after, outcome }
    }

    fn cut(&mut self, which: Range<usize>, time: Duration) {
        for entry in &mut self.record[which] {
            match entry {
                Entry::Run { at, .. } | Entry::Event { at, .. } | Entry::Memory { at, .. } if *at > time => {
                    *entry = Entry::Cut;
                }
                Entry::Run { end, .. } if end.as_ref().is_some_and(|end| end.at > time) => *end = None,
                _ => {}
            }
        }
    }
}

impl fmt::Debug for Specimen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.primitive)
    }
}

impl fmt::Debug for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Built({:?}, holds {})", self.flow, (self.held)())
    }
}

impl fmt::Debug for Play<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Play(level {}, at {:?}, deadline {:?})", self.level, self.at, self.deadline)
    }
}

impl fmt::Debug for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.record).finish()
    }
}
