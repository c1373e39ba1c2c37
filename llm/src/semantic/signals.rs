//! What is counted of lookups, in the request and behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use throughline::labels;
use throughline::telemetry::{Amount, Counter, Family, Gauge, Histogram, Label as _, OWN_SECONDS, Registry};

use super::compare::Verdict;
use super::config::Mode;
use super::index::Index;

static LOOKUPS: Family = Family::counter(
    "semantic_cache_lookups",
    "Questions by what the semantic cache had for them; in shadow mode, what it would have had",
    &["operation", "mode", "outcome"],
);
static COMPARISONS: Family = Family::counter(
    "semantic_cache_comparisons",
    "Answers to other questions by how they compare with the provider's: in shadow mode what would have been given, in answer mode \
     what was given and audited",
    &["operation", "mode", "verdict"],
);
static OF_SHADOW: Family = Family::counter(
    "semantic_cache_shadow",
    "Deprecated since 0.1.0: semantic_cache_comparisons_total with mode=\"shadow\" counts the same. Answers that would have been \
     given, by how they compare with the provider's",
    &["operation", "verdict"],
);
static SECONDS: Family = Family::histogram(
    "semantic_cache_seconds",
    "Time to embed a question, look for it and fetch the answer, in seconds; in shadow mode nobody waits for it",
    &["operation"],
    OWN_SECONDS,
);
static SAVED: Family = Family::amount(
    "semantic_cache_saved_usd",
    "What answers of the semantic cache would have cost, in USD, before what embedding has cost; only where that is known",
    &["operation"],
);
static EMBEDDING: Family = Family::amount(
    "semantic_cache_embedding_usd",
    "What the semantic cache has spent on embeddings, in USD; it is in llm_cost_usd_total as well",
    &["operation"],
);
static AUDIT: Family = Family::amount(
    "semantic_cache_audit_usd",
    "What audits of the semantic cache have spent on answers that nobody waited for, in USD; it is in llm_cost_usd_total as well",
    &["operation"],
);
static ENTRIES: Family =
    Family::gauge("semantic_cache_entries", "Questions that the semantic cache knows", &["operation"]);
static BYTES: Family = Family::gauge(
    "semantic_cache_bytes",
    "Memory that these questions take, in bytes, about",
    &["operation"],
);

pub(crate) static FAMILIES: &[&Family] =
    &[&LOOKUPS, &COMPARISONS, &OF_SHADOW, &SECONDS, &SAVED, &EMBEDDING, &AUDIT, &ENTRIES, &BYTES];

labels! {
    /// What the semantic cache has for a question, or would have had.
    #[non_exhaustive]
    pub enum SemanticOutcome {
        /// The answer to a question that is near enough.
        Hit = "hit",
        /// No question is near enough.
        Miss = "miss",
        /// A question is near enough, but numbers, names, negations or opposites differ.
        Guarded = "guarded",
        /// A question is near enough, but its answer is gone, or too old for the caller.
        Gone = "gone",
        /// The request is not one to look for: of its form, of its length, or by the caller's wish.
        Ineligible = "ineligible",
        /// There was no embedding to be had in time, or the store failed.
        Error = "error",
    }
}

/// Handles to the families of the semantic cache of an operation. A clone counts together.
#[derive(Clone, Debug)]
pub struct SemanticSignals(Arc<Series>);

#[derive(Debug)]
struct Series {
    lookups: Vec<Counter>,
    comparisons: Vec<Counter>,
    /// By the name that is deprecated, in shadow mode.
    of_shadow: Option<Vec<Counter>>,
    seconds: Histogram,
    saved: Amount,
    embedding: Amount,
    audit: Amount,
    entries: Gauge,
    bytes: Gauge,
}

/// The same with telemetry off.
#[derive(Debug, Default)]
pub(super) struct Counts {
    outcomes: [AtomicU64; SemanticOutcome::ALL.len()],
    verdicts: [AtomicU64; Verdict::ALL.len()],
}

// === impl SemanticSignals ===

impl SemanticSignals {
    pub(super) fn new(registry: &Registry, operation: &str, mode: Mode) -> Self {
        let lookup = |outcome: &SemanticOutcome| {
            registry.counter(&LOOKUPS, &[operation, mode.as_str(), outcome.as_str()])
        };
        let compared =
            |verdict: &Verdict| registry.counter(&COMPARISONS, &[operation, mode.as_str(), verdict.as_str()]);
        let of_shadow = |verdict: &Verdict| registry.counter(&OF_SHADOW, &[operation, verdict.as_str()]);
        Self(Arc::new(Series {
            lookups: SemanticOutcome::ALL.iter().map(lookup).collect(),
            comparisons: Verdict::ALL.iter().map(compared).collect(),
            of_shadow: (mode == Mode::Shadow).then(|| Verdict::ALL.iter().map(of_shadow).collect()),
            seconds: registry.histogram(&SECONDS, &[operation]),
            saved: registry.amount(&SAVED, &[operation]),
            embedding: registry.amount(&EMBEDDING, &[operation]),
            audit: registry.amount(&AUDIT, &[operation]),
            entries: registry.gauge(&ENTRIES, &[operation]),
            bytes: registry.gauge(&BYTES, &[operation]),
        }))
    }

    pub(super) fn outcome(&self, outcome: SemanticOutcome) {
        self.0.lookups[outcome.index()].inc();
    }

    pub(super) fn verdict(&self, verdict: Verdict) {
        self.0.comparisons[verdict.index()].inc();
        if let Some(of_shadow) = &self.0.of_shadow {
            of_shadow[verdict.index()].inc();
        }
    }

    pub(super) fn took(&self, seconds: f64) {
        self.0.seconds.observe(seconds, None);
    }

    pub(super) fn saved(&self, usd: f64) {
        self.0.saved.add(usd);
    }

    pub(super) fn embedded(&self, usd: f64) {
        self.0.embedding.add(usd);
    }

    pub(super) fn audited(&self, usd: f64) {
        self.0.audit.add(usd);
    }

    pub(super) fn holds(&self, index: &Index) {
        let whole = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        self.0.entries.set(whole(index.len()));
        self.0.bytes.set(whole(index.bytes()));
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn outcome(&self, outcome: SemanticOutcome) {
        self.outcomes[outcome.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn verdict(&self, verdict: Verdict) {
        self.verdicts[verdict.index()].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn of(&self, outcome: SemanticOutcome) -> u64 {
        self.outcomes[outcome.index()].load(Ordering::Relaxed)
    }

    pub(super) fn with(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict.index()].load(Ordering::Relaxed)
    }
}
