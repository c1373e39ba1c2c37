//! Component Maturity: where each component stands, and whether evidence still says so.

use super::describe::{Dashboard, Panel, Row, Unit, Variable, Word, no_yes};
use crate::ops::board::Board;

static STAGES: [Word; 3] = [
    Word { value: 1, text: "development", colour: "orange" },
    Word { value: 2, text: "staging", colour: "blue" },
    Word { value: 3, text: "production", colour: "green" },
];
static HOLDS: [Word; 2] = no_yes("not supported", "holds");
static PASSED: [Word; 2] = no_yes("shut", "open");

/// After so many seconds figures are no longer those of now: they are made anew every minute.
const OLD: f64 = 300.0;
/// A month: what evidence of production may be old by default.
const MONTH: f64 = 2_592_000.0;

pub(super) fn dashboard() -> Dashboard {
    Dashboard {
        board: Board::Maturity,
        title: "Component Maturity",
        purpose: "Which stage each component has reached, which gates are shut, and how old the evidence is.",
        variable: Variable {
            name: "component",
            label: "Component",
            series: "component_stage{@}",
            of: "component",
        },
        rows: vec![fine(), components()],
    }
}

fn fine() -> Row {
    let panels = vec![
        Panel::stat("Components", Unit::Count)
            .shows("Components that are evaluated.")
            .good("As many as `maturity.toml` lists.")
            .query("components", r#"count(max by (component) (component_claim_holds{@,component=~"$component"}))"#),
        Panel::stat("In production", Unit::Count)
            .shows("Components whose evidence supports the stage `production`.")
            .good("Does not fall: a component that falls back has lost a test, a report or its freshness.")
            .alert("ComponentGateLost")
            .query(
                "in production",
                r#"sum(max by (component) (component_stage{@,component=~"$component",stage="production"}))"#,
            ),
        Panel::stat("Claims that hold", Unit::Share)
            .shows("Share of the components whose evidence supports the stage that they claim.")
            .good("100 %. The table of claims names the others, and `throughline maturity check` says what is missing.")
            .bad_below(1.0, 0.5)
            .alert("ComponentGateLost")
            .query("hold", r#"avg(max by (component) (component_claim_holds{@,component=~"$component"}))"#),
        Panel::stat("Gates that are open", Unit::Share)
            .shows("Share of all gates that are open, whatever stage is claimed.")
            .good("Rises over weeks. A fall on one day: a report is missing or no longer says yes.")
            .alert("ComponentGateLost")
            .query(
                "open",
                r#"avg(max by (component, gate) (component_quality_gate_passed{@,component=~"$component"}))"#,
            ),
        Panel::stat("Age of these figures", Unit::Seconds)
            .shows("Time since the components were evaluated last.")
            .good("Below two minutes. More: `maturity.toml` cannot be read, and the last figures stand; `/readyz` says why.")
            .bad_above(OLD, 12.0 * OLD)
            .query("age", "time() - max(component_last_evaluated_timestamp_seconds{@})"),
        Panel::stat("Oldest evidence", Unit::Seconds)
            .shows("Age of the oldest report that any component is judged by.")
            .good("Below 30 days, after which reports no longer count.")
            .bad_above(MONTH / 2.0, MONTH)
            .query(
                "age",
                r#"time() - min(component_evidence_timestamp_seconds{@,component=~"$component"})"#,
            ),
    ];
    Row::new("Is it fine?", panels)
}

fn components() -> Row {
    let stage = |name: &str, value: u8| {
        format!(
            r#"{value} * max by (component, stage) (component_stage{{@,component=~"$component",stage="{name}"}})"#
        )
    };
    let stages = format!(
        "max by (component) ({} or {} or {})",
        stage("development", 1),
        stage("staging", 2),
        stage("production", 3)
    );
    let panels = vec![
        Panel::steps("Stage over time", &STAGES)
            .shows("The stage that evidence supports, for each component.")
            .good("Steps go up. One that goes down is a gate that was lost.")
            .alert("ComponentPromoted")
            .query("{{component}}", stages),
        Panel::table("Claims", Unit::State)
            .words(&HOLDS)
            .shows("Whether evidence supports the stage that each component claims.")
            .good("`holds` throughout. Else lower the claim or bring the evidence.")
            .alert("ComponentGateLost")
            .query("claim", r#"max by (component) (component_claim_holds{@,component=~"$component"})"#),
        Panel::table("Gates", Unit::State)
            .words(&PASSED)
            .shows("Every gate of every component; a gate's name begins with its stage.")
            .good("`open` up to the stage that is claimed. The shut ones above it are what is left to do.")
            .alert("ComponentGateLost")
            .query(
                "gate is",
                r#"max by (component, gate) (component_quality_gate_passed{@,component=~"$component"})"#,
            ),
        Panel::bars("Coverage", Unit::Share)
            .width(6)
            .shows("Share of each component's lines that tests run.")
            .good("Above what its stage asks for: 80 % for production by default.")
            .bad_below(0.8, 0.6)
            .query(
                "{{component}}",
                r#"max by (component) (component_coverage_ratio{@,component=~"$component"})"#,
            ),
        Panel::bars("Age of evidence", Unit::Seconds)
            .width(6)
            .shows("Age of the oldest report of each kind.")
            .good("Below 30 days. An old kind of report is one that CI no longer makes.")
            .bad_above(MONTH / 2.0, MONTH)
            .query(
                "{{evidence}}",
                r#"time() - min by (evidence) (component_evidence_timestamp_seconds{@,component=~"$component"})"#,
            ),
    ];
    Row::new("Components", panels)
}
