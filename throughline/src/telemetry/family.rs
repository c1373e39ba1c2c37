//! What a metric family is: declared once, beside the code that moves it.
//!
//! ```
//! use throughline::telemetry::Family;
//!
//! static SHED: Family = Family::counter("shed", "Calls refused because of load", &["operation"]);
//! assert_eq!(SHED.exposed_name(), "shed_total");
//! ```

/// Seconds of work that calls a model: 1 ms to 2 min.
pub const WORK_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0,
    20.0, 30.0, 60.0, 120.0,
];

/// Seconds of our own work, such as a cache lookup: 1 us to 1 s.
pub const OWN_SECONDS: &[f64] = &[
    0.000_001,
    0.000_002_5,
    0.000_005,
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
];

/// A metric family: name, help, labels and type.
#[derive(Debug)]
pub struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) shape: Shape,
    pub(super) stability: Stability,
}

/// How much a name can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stability {
    /// It is not renamed without the old name beside the new one for a while.
    Stable,
    /// It follows a convention that is in development, and is renamed with it.
    Development,
}

/// The type of a family, with what it needs.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Shape {
    /// Whole events. Exposed with the suffix `_total`.
    Counter,
    /// An amount that only grows, in fractions: money. Exposed with the suffix `_total`.
    Amount,
    /// A whole value that goes up and down.
    Gauge,
    /// A value with fractions that goes up and down.
    Level,
    /// The share of events of the last five minutes that had a property; absent without events.
    Rate,
    /// A distribution over these upper bounds.
    Histogram(&'static [f64]),
}

// === impl Family ===

impl Family {
    /// Whole events; `name` without `_total`.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, shape: Shape::Counter, stability: Stability::Stable }
    }

    /// A growing amount in fractions; `name` without `_total`.
    #[must_use]
    pub const fn amount(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, shape: Shape::Amount, stability: Stability::Stable }
    }

    /// A whole value that goes up and down.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, shape: Shape::Gauge, stability: Stability::Stable }
    }

    /// A value with fractions that goes up and down.
    #[must_use]
    pub const fn level(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, shape: Shape::Level, stability: Stability::Stable }
    }

    /// A share of the last five minutes, 0 to 1.
    #[must_use]
    pub const fn rate(name: &'static str, help: &'static str, labels: &'static [&'static str]) -> Self {
        Self { name, help, labels, shape: Shape::Rate, stability: Stability::Stable }
    }

    /// A distribution over `buckets`, in the unit that the name ends with.
    #[must_use]
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        buckets: &'static [f64],
    ) -> Self {
        Self { name, help, labels, shape: Shape::Histogram(buckets), stability: Stability::Stable }
    }

    /// The same, following a convention that is in development.
    #[must_use]
    pub const fn in_development(self) -> Self {
        Self { stability: Stability::Development, ..self }
    }

    /// The name that a query uses: counters end in `_total`; a histogram's samples add `_bucket`,
    /// `_sum` and `_count`.
    #[must_use]
    pub fn exposed_name(&self) -> String {
        match self.shape {
            Shape::Counter | Shape::Amount => format!("{}_total", self.name),
            Shape::Gauge | Shape::Level | Shape::Rate | Shape::Histogram(_) => self.name.to_owned(),
        }
    }

    /// The label names, in order.
    #[must_use]
    pub fn labels(&self) -> &'static [&'static str] {
        self.labels
    }

    /// What it measures, in one sentence.
    #[must_use]
    pub fn help(&self) -> &'static str {
        self.help
    }

    /// How much the name can be relied on.
    #[must_use]
    pub fn stability(&self) -> Stability {
        self.stability
    }

    /// The type.
    #[must_use]
    pub fn shape(&self) -> Shape {
        self.shape
    }
}
