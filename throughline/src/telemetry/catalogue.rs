//! What is reported, as data: families, labels, primitives, spans and their attributes.
//!
//! Each file declares its own beside the code that reports it; here is the shape of that, and the list. The reference page
//! of the gateway is generated from it, and tests compare it with what is seen.

use super::delivery;
use super::family::{Family, Stability};
use super::label::Label;
use crate::cache::CacheOutcome;
use crate::circuit_breaker::{CircuitCall, CircuitState};
use crate::router::RouteReason;

/// What runs of one primitive report.
#[derive(Clone, Copy, Debug)]
pub struct Reported {
    primitive: &'static str,
    span: Option<&'static str>,
    kind: &'static str,
    parent: &'static str,
    outcomes: fn() -> Vec<&'static str>,
    events: fn() -> Vec<&'static str>,
    attributes: &'static [Attribute],
}

/// An attribute of a span.
#[derive(Clone, Copy, Debug)]
pub struct Attribute {
    name: &'static str,
    kind: &'static str,
    stability: Stability,
    help: &'static str,
}

/// Where the values of a label come from. Never from a request.
#[derive(Clone, Copy, Debug)]
pub struct LabelSource {
    label: &'static str,
    /// `None` for all families that are not named elsewhere.
    family: Option<&'static str>,
    values: Values,
}

#[derive(Clone, Copy, Debug)]
enum Values {
    /// From somewhere, in words.
    From(&'static str),
    /// These.
    Closed(fn() -> Vec<&'static str>),
}

/// Attributes that every span has at its end.
pub static COMMON_ATTRIBUTES: &[Attribute] = &[
    Attribute::string("throughline.outcome", "How the run ended: one of the primitive's outcomes"),
    Attribute::string("error.type", "Why it failed, if it did: a kind of error, or `cancelled`"),
    Attribute::string(
        "throughline.sampling.kept",
        "On the root of a trace that the sampler declined and that is exported all the same: `error` or `slow`",
    ),
];

/// Where the label values of this library come from.
pub static LABELS: &[LabelSource] = &[
    LabelSource::of("primitive", "the primitives below"),
    LabelSource::of("operation", "names in code or configuration"),
    LabelSource::of("outcome", "the primitive's outcomes below"),
    LabelSource::of("event", "the primitive's events below"),
    LabelSource::of("gen_ai_workflow_name", "names in code or configuration"),
    LabelSource::of("route", "configured routes"),
    LabelSource::of(
        "error_type",
        "kinds of errors: `timeout`, `circuit_open`, `rate_limited`, `rejected`, `cancelled`, `invalid_input`, `upstream`, `store`, `internal`",
    ),
    LabelSource::of("hit", "`true`, `false`"),
    LabelSource::of("circuit", "names in code or configuration"),
    LabelSource::closed::<CircuitState>("state"),
    LabelSource::closed::<CircuitState>("from"),
    LabelSource::closed::<CircuitState>("to"),
    LabelSource::of("signal", "`metrics`, `traces`, `logs`: of these only events with content"),
    LabelSource::of("service", "the service's name, from code, configuration or environment"),
    LabelSource::of("version", "the service's version, from code"),
    LabelSource::of("family", "the families of this page"),
    LabelSource::closed::<crate::redact::Kind>("kind"),
    LabelSource::of("worker", "numbers of the runtime's worker threads, from 0"),
    LabelSource::closed::<RouteReason>("reason").in_family("router_decisions"),
    LabelSource::of("route", "configured routes, or `none`").in_family("router_errors"),
    LabelSource::of(
        "error_type",
        "kinds of errors; of the route `none`: `invalid_route`, `routing_function`",
    )
    .in_family("router_errors"),
    LabelSource::closed::<delivery::Loss>("reason").in_family("apm_spans_dropped"),
    LabelSource::closed::<delivery::Loss>("reason").in_family("apm_events_dropped"),
    LabelSource::closed::<delivery::Outcome>("outcome").in_family("apm_declined_traces"),
    LabelSource::of("exporter", "`otlp`, `console`, or the name that code gave an exporter of its own"),
    LabelSource::of("queue", "`intake`, and the exporters"),
    LabelSource::of("store", "names in code or configuration"),
    LabelSource::closed::<CacheOutcome>("outcome").in_family("cache_outcomes"),
    LabelSource::closed::<CircuitCall>("outcome").in_family("circuit_breaker_calls"),
    LabelSource::closed::<delivery::ErrorType>("error_type").in_family("apm_export_failures"),
];

// === impl Reported ===

impl Reported {
    /// Runs of `primitive` end with an `O`; an `E` can happen inside them.
    #[must_use]
    pub const fn new<O: Label, E: Label>(primitive: &'static str, attributes: &'static [Attribute]) -> Self {
        Self {
            primitive,
            span: None,
            kind: "INTERNAL",
            parent: "the stage around it",
            outcomes: texts::<O>,
            events: texts::<E>,
            attributes,
        }
    }

    /// Its spans are called `name`, not `{primitive} {operation}`.
    #[must_use]
    pub const fn spans_called(self, name: &'static str) -> Self {
        Self { span: Some(name), ..self }
    }

    /// Its spans are of `kind`, such as `CLIENT`.
    #[must_use]
    pub const fn spans_of_kind(self, kind: &'static str) -> Self {
        Self { kind, ..self }
    }

    /// Its spans stand below `parent`.
    #[must_use]
    pub const fn spans_within(self, parent: &'static str) -> Self {
        Self { parent, ..self }
    }

    /// The value of the label `primitive`.
    #[must_use]
    pub const fn primitive(&self) -> &'static str {
        self.primitive
    }

    /// What its spans are called.
    #[must_use]
    pub fn span(&self) -> String {
        self.span.map_or_else(|| format!("{} {{operation}}", self.primitive), str::to_owned)
    }

    /// The kind of its spans.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// What its spans stand below.
    #[must_use]
    pub const fn parent(&self) -> &'static str {
        self.parent
    }

    /// How a run can end.
    #[must_use]
    pub fn outcomes(&self) -> Vec<&'static str> {
        (self.outcomes)()
    }

    /// What can happen inside a run.
    #[must_use]
    pub fn events(&self) -> Vec<&'static str> {
        (self.events)()
    }

    /// The attributes of its spans, without [`COMMON_ATTRIBUTES`].
    #[must_use]
    pub const fn attributes(&self) -> &'static [Attribute] {
        self.attributes
    }
}

fn texts<L: Label>() -> Vec<&'static str> {
    L::ALL.iter().map(|label| label.as_str()).collect()
}

// === impl Attribute ===

impl Attribute {
    const fn new(name: &'static str, kind: &'static str, help: &'static str) -> Self {
        Self { name, kind, stability: Stability::Stable, help }
    }

    /// A text.
    #[must_use]
    pub const fn string(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "string", help)
    }

    /// Several texts.
    #[must_use]
    pub const fn strings(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "string[]", help)
    }

    /// A whole number.
    #[must_use]
    pub const fn int(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "int", help)
    }

    /// A number with fractions.
    #[must_use]
    pub const fn double(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "double", help)
    }

    /// True or false.
    #[must_use]
    pub const fn boolean(name: &'static str, help: &'static str) -> Self {
        Self::new(name, "boolean", help)
    }

    /// The same, of a convention that is in development.
    #[must_use]
    pub const fn in_development(self) -> Self {
        Self { stability: Stability::Development, ..self }
    }

    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The type of its value: `string`, `string[]`, `int`, `double` or `boolean`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        self.kind
    }

    /// How much the name can be relied on.
    #[must_use]
    pub const fn stability(&self) -> Stability {
        self.stability
    }

    /// What it says.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        self.help
    }
}

// === impl LabelSource ===

impl LabelSource {
    /// The values of `label` come from `source`.
    #[must_use]
    pub const fn of(label: &'static str, source: &'static str) -> Self {
        Self { label, family: None, values: Values::From(source) }
    }

    /// The values of `label` are those of `L`.
    #[must_use]
    pub const fn closed<L: Label>(label: &'static str) -> Self {
        Self { label, family: None, values: Values::Closed(texts::<L>) }
    }

    /// In this family only, named without suffix.
    #[must_use]
    pub const fn in_family(self, family: &'static str) -> Self {
        Self { family: Some(family), ..self }
    }

    /// Whether it is about `label` of `family`.
    #[must_use]
    pub fn is_of(&self, family: &Family, label: &str) -> bool {
        self.label == label && self.family.is_none_or(|name| name == family.name)
    }

    /// Every value, where there is a list.
    #[must_use]
    pub fn values(&self) -> Option<Vec<&'static str>> {
        match self.values {
            Values::From(_) => None,
            Values::Closed(values) => Some(values()),
        }
    }

    /// Where the values come from, or which there are, in words.
    #[must_use]
    pub fn text(&self) -> String {
        match self.values {
            Values::From(source) => source.to_owned(),
            Values::Closed(values) => {
                values().iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// What `sources` say of `label` of `family`: what is about that family alone comes first.
    #[must_use]
    pub fn find<'a>(sources: &'a [Self], family: &Family, label: &str) -> Option<&'a Self> {
        let mut about = sources.iter().filter(|source| source.is_of(family, label));
        about.clone().find(|source| source.family.is_some()).or_else(|| about.next())
    }
}
