//! Chooses one of several workflows by what an input says of itself.
//!
//! A function gives the key of each input, and the case with that key runs. What has no case goes to the
//! default workflow, or passes through where that was chosen: one of the two must be.
//!
//! Use it where the cases are different work: a refund, a complaint, an order. Where they are different ways
//! to do the same work at different prices, use a [`router`](crate::router()): it has names instead of
//! keys, reasons, costs and savings. For two cases there is [`conditional`](crate::conditional()).
//!
//! ```
//! use throughline::{Context, SwitchConfig, switch, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let refund = workflow("refund", |text: String| async move { Ok(format!("money back: {text}")) });
//! let answer = workflow("answer", |text: String| async move { Ok(format!("an answer: {text}")) });
//! let flow = switch(
//!     SwitchConfig::new("ticket")
//!         .on(|text: &String, _| if text.contains("refund") { "refund" } else { "other" })
//!         .case("refund", refund)
//!         .default(answer),
//! )?;
//!
//! assert_eq!(flow.run("a refund!".to_owned(), &Context::new()).await?, "money back: a refund!");
//! assert_eq!(flow.stage().stats().cases, [("refund".to_owned(), 1)]);
//! # Ok(()) }
//! ```
//!
//! Do not let the key be a text of the input itself: an enum says what cases there are. No metric, span or
//! error shows a key that is no case.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::context::Context;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::graph::Node;
use crate::labels;
use crate::primitive::{Boxed, Primitive};
use crate::stream::Streaming;
use crate::telemetry::{Attribute, Ended, Observed, PerLabel, Registry, Reported, Run, Sink, Stage};
use crate::workflow::Workflow;

pub(crate) static REPORTED: Reported = Reported::new::<Ended, SwitchEvent>(
    "switch",
    &[Attribute::string("throughline.switch.case", "The case that was taken")],
);

labels! {
    /// What can happen while a case is chosen.
    #[non_exhaustive]
    pub enum SwitchEvent {
        /// An input had a case.
        CaseTaken = "case_taken",
        /// It had none and went to the default workflow.
        DefaultTaken = "default_taken",
        /// It had none and passed through.
        PassedThrough = "passed_through",
        /// The function that gives the key panicked.
        KeyPanicked = "key_panicked",
    }
}

/// The name of what is no case.
const DEFAULT: &str = "default";

/// What a switch is made of. Pass it to [`switch`].
#[non_exhaustive]
#[must_use = "a configuration does nothing until it is given to `switch`"]
pub struct SwitchConfig<K, In, Out> {
    operation: String,
    key: Option<KeyOf<K, In>>,
    cases: Vec<(K, Boxed<In, Out>)>,
    rest: Option<Rest<In, Out>>,
}

/// Chooses among workflows by key. Made by [`switch`].
pub struct Switch<K, In, Out> {
    operation: String,
    key: KeyOf<K, In>,
    places: HashMap<K, usize>,
    cases: Vec<Case<In, Out>>,
    rest: Rest<In, Out>,
    events: PerLabel<SwitchEvent>,
}

/// What a [`Switch`] has seen since it was built, with telemetry on or off.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwitchStats {
    /// Inputs per case, in the order they were configured.
    pub cases: Vec<(String, u64)>,
    /// Inputs that went to the default workflow.
    pub default: u64,
    /// Inputs that passed through.
    pub passed_through: u64,
    /// Inputs on which the function that gives the key panicked.
    pub panics: u64,
}

type KeyOf<K, In> = Box<dyn Fn(&In, &Context) -> K + Send + Sync>;

struct Case<In, Out> {
    name: String,
    workflow: Boxed<In, Out>,
    taken: AtomicU64,
}

enum Rest<In, Out> {
    Default(Boxed<In, Out>),
    /// Holds the identity, which exists only where both types are the same.
    PassThrough(fn(In) -> Out),
}

/// Makes a switch.
///
/// # Errors
/// When there is no case or nothing for the rest, when no function gives the key, or when two cases have the
/// same key or name, or one is called `default`.
#[expect(clippy::type_complexity, reason = "an alias would hide what is made")]
pub fn switch<K, In, Out>(
    config: SwitchConfig<K, In, Out>,
) -> Result<Workflow<Observed<Switch<K, In, Out>>>, ConfigError>
where
    K: Eq + Hash + fmt::Display + Send + Sync + 'static,
    In: Send + 'static,
    Out: Send + 'static,
{
    Ok(Workflow::from_stage(Switch::new(config)?))
}

// === impl SwitchConfig ===

impl<K, In: Send + 'static, Out: Send + 'static> SwitchConfig<K, In, Out> {
    /// Starts a switch called `operation`.
    pub fn new(operation: impl Into<String>) -> Self {
        Self { operation: operation.into(), key: None, cases: Vec::new(), rest: None }
    }

    /// Says which key an input has; this is required. What the key displays as names its case in metrics and in
    /// the graph, so an enum needs `Display`. A panic is an error of [`Kind::Internal`].
    pub fn on(mut self, key: impl Fn(&In, &Context) -> K + Send + Sync + 'static) -> Self {
        self.key = Some(Box::new(key));
        self
    }

    /// Runs `workflow` for inputs with this key. The key's text names the case in graphs and spans.
    pub fn case<P, Shape>(mut self, key: impl Into<K>, workflow: Workflow<P, Shape>) -> Self
    where
        P: Primitive<In = In, Out = Out>,
    {
        self.cases.push((key.into(), Boxed::new(workflow.into_inner())));
        self
    }

    /// Runs `workflow` for inputs that have no case. This or `pass_through` must be called; the last call
    /// counts.
    pub fn default<P, Shape>(mut self, workflow: Workflow<P, Shape>) -> Self
    where
        P: Primitive<In = In, Out = Out>,
    {
        self.rest = Some(Rest::Default(Boxed::new(workflow.into_inner())));
        self
    }
}

impl<K, T> SwitchConfig<K, T, T> {
    /// Lets inputs that have no case pass through unchanged: possible where the cases give what they take.
    /// Default: neither this nor a default workflow, which is an error.
    pub fn pass_through(mut self) -> Self {
        self.rest = Some(Rest::PassThrough(std::convert::identity));
        self
    }
}

impl<K, In, Out> fmt::Debug for SwitchConfig<K, In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwitchConfig({}, {} cases)", self.operation, self.cases.len())
    }
}

// === impl Switch ===

impl<K: Eq + Hash + fmt::Display, In, Out> Switch<K, In, Out> {
    fn new(config: SwitchConfig<K, In, Out>) -> Result<Self, ConfigError> {
        let SwitchConfig { operation, key, cases, rest } = config;
        let refuse = |why: &str| ConfigError::new(format!("switch `{operation}` {why}"));
        let key = key.ok_or_else(|| refuse("has no function that gives the key: call `on`"))?;
        let rest = rest.ok_or_else(|| {
            refuse("has nothing for inputs without a case: call `default`, or `pass_through` where they may pass unchanged")
        })?;
        if cases.is_empty() {
            return Err(refuse("has no cases: add at least one"));
        }
        let mut places = HashMap::with_capacity(cases.len());
        let mut named: Vec<Case<In, Out>> = Vec::with_capacity(cases.len());
        for (place, (key, workflow)) in cases.into_iter().enumerate() {
            let name = key.to_string();
            if name == DEFAULT {
                return Err(refuse("has a case called `default`: that is the name of what has no case"));
            }
            let known = named.iter().any(|case| case.name == name);
            if places.insert(key, place).is_some() || known {
                return Err(refuse(&format!("has the case `{name}` twice")));
            }
            named.push(Case { name, workflow, taken: AtomicU64::new(0) });
        }
        Ok(Self { operation, key, places, cases: named, rest, events: PerLabel::default() })
    }
}

impl<K, In, Out> Switch<K, In, Out> {
    /// What it has seen so far.
    #[must_use]
    pub fn stats(&self) -> SwitchStats {
        let cases = self.cases.iter().map(|case| (case.name.clone(), case.taken.load(Ordering::Relaxed)));
        SwitchStats {
            cases: cases.collect(),
            default: self.events.get(SwitchEvent::DefaultTaken),
            passed_through: self.events.get(SwitchEvent::PassedThrough),
            panics: self.events.get(SwitchEvent::KeyPanicked),
        }
    }

    fn workflows(&self) -> impl Iterator<Item = (&str, &Boxed<In, Out>)> {
        let rest = match &self.rest {
            Rest::Default(workflow) => Some((DEFAULT, workflow)),
            Rest::PassThrough(_) => None,
        };
        self.cases.iter().map(|case| (case.name.as_str(), &case.workflow)).chain(rest)
    }
}

impl<K, In, Out> Switch<K, In, Out>
where
    K: Eq + Hash + Send + Sync + 'static,
    In: Send + 'static,
    Out: Send + 'static,
{
    /// The case of an input, if it has one.
    fn find(&self, input: &In, cx: &Context, run: &mut Run<'_, Self>) -> Result<Option<&Case<In, Out>>> {
        let key = std::panic::catch_unwind(AssertUnwindSafe(|| (self.key)(input, cx)));
        let case = key.as_ref().map(|key| self.places.get(key).map(|place| &self.cases[*place]));
        let event = match (&case, &self.rest) {
            (Ok(Some(_)), _) => SwitchEvent::CaseTaken,
            (Ok(None), Rest::Default(_)) => SwitchEvent::DefaultTaken,
            (Ok(None), Rest::PassThrough(_)) => SwitchEvent::PassedThrough,
            (Err(_), _) => SwitchEvent::KeyPanicked,
        };
        self.events.inc(event);
        run.event(event);
        let case =
            case.map_err(|_| Error::new(Kind::Internal, "the function that gives the key panicked"))?;
        if let Some(case) = case {
            case.taken.fetch_add(1, Ordering::Relaxed);
        }
        run.attribute("throughline.switch.case", case.map_or(DEFAULT.to_owned(), |case| case.name.clone()));
        Ok(case)
    }
}

impl<K, In, Out> Stage for Switch<K, In, Out>
where
    K: Eq + Hash + Send + Sync + 'static,
    In: Send + 'static,
    Out: Send + 'static,
{
    type In = In;
    type Out = Out;
    type Outcome = Ended;
    type Event = SwitchEvent;
    type Signals = ();
    type Note = ();

    const PRIMITIVE: &'static str = "switch";

    fn operation(&self) -> &str {
        &self.operation
    }

    fn declare(&self, _: &Registry) {}

    async fn run(&self, input: In, cx: &Context, run: &mut Run<'_, Self>) -> Result<Out> {
        match (self.find(&input, cx, run)?, &self.rest) {
            (Some(case), _) => case.workflow.execute(input, cx).await,
            (None, Rest::Default(workflow)) => workflow.execute(input, cx).await,
            (None, Rest::PassThrough(identity)) => Ok(identity(input)),
        }
    }

    fn describe(&self) -> Node {
        let start = Node::leaf(Self::PRIMITIVE, &self.operation);
        self.workflows().fold(start, |node, (name, workflow)| node.holding(workflow.describe().by(name)))
    }

    fn stream<'a>(&self, output: &'a mut Out) -> Option<&'a mut dyn Streaming> {
        // Any case may have made it, and those that did not find nothing.
        let (_, made) = self.workflows().find(|(_, workflow)| workflow.stream(output).is_some())?;
        made.stream(output)
    }

    fn bind(&self, sink: &Sink) {
        self.workflows().for_each(|(_, workflow)| workflow.bind(sink));
    }
}

impl<K, In, Out> fmt::Debug for Switch<K, In, Out> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.cases.iter().map(|case| case.name.as_str()).collect();
        let rest = match self.rest {
            Rest::Default(_) => DEFAULT,
            Rest::PassThrough(_) => "pass through",
        };
        write!(f, "Switch({}, cases {}, else {rest})", self.operation, names.join("|"))
    }
}
