//! The metric families of components.
//!
//! Dates are exposed, not ages: an age that nobody brings up to date stays young, `time() - date` does not.

use throughline::telemetry::{Family, Registry};

use super::moment;
use super::stage::Stage;
use super::status::Status;

static STAGE: Family = Family::gauge(
    "component_stage",
    "Whether a component is in this stage (1) or not (0), as far as evidence supports its claim",
    &["component", "stage"],
);
static CLAIM: Family = Family::gauge(
    "component_claim_holds",
    "Whether evidence supports the stage that a component claims (1) or not (0)",
    &["component"],
);
static COVERAGE: Family = Family::level(
    "component_coverage_ratio",
    "Share of a component's lines that tests run; absent when it is not known",
    &["component"],
);
static GATE: Family = Family::gauge(
    "component_quality_gate_passed",
    "Whether a component shows what a gate asks for (1) or not (0); the gate's name begins with its stage",
    &["component", "gate"],
);
static EVIDENCE: Family = Family::gauge(
    "component_evidence_timestamp_seconds",
    "Date of the oldest report of this kind that a component is judged by; absent when there is none",
    &["component", "evidence"],
);
static EVALUATED: Family = Family::gauge(
    "component_last_evaluated_timestamp_seconds",
    "When the components were evaluated last",
    &[],
);

pub(crate) static FAMILIES: &[&Family] = &[&STAGE, &CLAIM, &COVERAGE, &GATE, &EVIDENCE, &EVALUATED];

/// A series: label values in the family's order, and the figure.
type Series = (Vec<String>, f64);

/// Has the registry show what `status` says, and nothing of what was shown before.
pub(crate) fn publish(status: &Status, registry: &Registry) {
    registry.show_only(&STAGE, stages(status));
    registry.show_only(&CLAIM, claims(status));
    registry.show_only(&COVERAGE, coverage(status));
    registry.show_only(&GATE, gates(status));
    registry.show_only(&EVIDENCE, evidence(status));
    registry.show_only(&EVALUATED, vec![(Vec::new(), seconds(moment::seconds(status.evaluated)))]);
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
fn seconds(seconds: u64) -> f64 {
    seconds as f64
}

fn truth(holds: bool) -> f64 {
    f64::from(u8::from(holds))
}

fn stages(status: &Status) -> Vec<Series> {
    let of = status.components.iter().flat_map(|component| {
        Stage::ALL.map(|stage| {
            (vec![component.name.clone(), stage.name().to_owned()], truth(component.supported == stage))
        })
    });
    of.collect()
}

fn claims(status: &Status) -> Vec<Series> {
    let of = status.components.iter();
    of.map(|component| (vec![component.name.clone()], truth(component.holds))).collect()
}

fn coverage(status: &Status) -> Vec<Series> {
    let of = status.components.iter();
    of.filter_map(|component| Some((vec![component.name.clone()], component.coverage?))).collect()
}

fn gates(status: &Status) -> Vec<Series> {
    let of = status.components.iter().flat_map(|component| {
        component.gates.iter().map(|gate| {
            (vec![component.name.clone(), format!("{}_{}", gate.stage, gate.gate)], truth(gate.passed))
        })
    });
    of.collect()
}

fn evidence(status: &Status) -> Vec<Series> {
    let mut oldest = std::collections::BTreeMap::new();
    for component in &status.components {
        for (report, date) in component.evidence.iter().filter_map(|report| Some((report, report.date?))) {
            let labels = vec![component.name.clone(), report.kind.name().to_owned()];
            let date = moment::seconds(date);
            oldest.entry(labels).and_modify(|known: &mut u64| *known = date.min(*known)).or_insert(date);
        }
    }
    oldest.into_iter().map(|(labels, date)| (labels, seconds(date))).collect()
}
