//! What this library reports, as data: see [`throughline::telemetry::catalogue`].

use throughline::telemetry::{Family, LabelSource, Reported};

use crate::semantic::{Mode, SemanticOutcome, Verdict};

/// Where the values of the labels come from that [`throughline::telemetry::LABELS`] does not know.
pub static LABELS: &[LabelSource] = &[
    LabelSource::of("provider", "names of providers in the configuration"),
    LabelSource::of("model", "models of routes in the configuration"),
    LabelSource::of("gen_ai_operation_name", "`chat`"),
    LabelSource::of(
        "gen_ai_provider_name",
        "the conventions' name for the configured provider, or the one it was given; `throughline` in `gen_ai_server_*`",
    ),
    LabelSource::of(
        "gen_ai_request_model",
        "models of routes in the configuration; in `gen_ai_server_*` the names that models are served under",
    ),
    LabelSource::closed::<SemanticOutcome>("outcome").in_family("semantic_cache_lookups"),
    LabelSource::closed::<Mode>("mode"),
    LabelSource::closed::<Verdict>("verdict"),
    LabelSource::of("gen_ai_token_type", "`input`, `output`"),
    LabelSource::of("gen_ai_token_modality", "`unknown`: no provider says"),
];

/// Every family that this library declares, a list a file.
#[must_use]
pub fn families() -> Vec<&'static Family> {
    [crate::chat::FAMILIES, crate::genai::FAMILIES, crate::semantic::FAMILIES].concat()
}

/// What every primitive of this library reports.
#[must_use]
pub fn primitives() -> Vec<&'static Reported> {
    vec![
        &crate::chat::REPORTED,
        &crate::http_call::REPORTED,
        &crate::semantic::AUDIT,
        &crate::semantic::EMBEDDINGS,
        &crate::semantic::REPORTED,
        &crate::semantic::SHADOW,
    ]
}
