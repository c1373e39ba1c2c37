//! The status page for a terminal, which `check` prints too.

use std::fmt::Write as _;

use super::{percent, plain, summary, verdict};
use crate::maturity::stage::Stage;
use crate::maturity::status::{GateStatus, Status};

/// Every component, its gates up to the next stage, and what decided.
pub(crate) fn text(status: &Status) -> String {
    let mut page = String::new();
    for component in &status.components {
        let mark = if component.holds { "ok  " } else { "FAIL" };
        let (name, claimed) = (&component.name, component.claimed);
        line(
            &mut page,
            format_args!(
                "{mark} {name}: {claimed}, {}; coverage {}",
                verdict(component),
                percent(component.coverage)
            ),
        );
        let upto = component.next.unwrap_or(claimed);
        for stage in Stage::ALL.into_iter().filter(|stage| *stage <= upto) {
            component
                .gates_before(stage)
                .for_each(|gate| line(&mut page, format_args!("{}", shown(gate, claimed))));
        }
    }
    line(&mut page, format_args!("\n{}", summary(status)));
    page
}

/// A gate of the next stage that is shut is no failure yet.
fn shown(gate: &GateStatus, claimed: Stage) -> String {
    let mark = match (gate.passed, gate.stage <= claimed) {
        (true, _) => "passed",
        (false, true) => "FAILED",
        (false, false) => "needed",
    };
    format!("       {mark}  {:<10}  {:<17}  {}", gate.stage, gate.gate, plain(&gate.why))
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(page, "{text}").expect("a string takes any text");
}
