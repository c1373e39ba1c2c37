//! The status page for a repository or a wiki.

use std::fmt::Write as _;

use super::{NONE, percent, plain, summary, verdict};
use crate::maturity::moment;
use crate::maturity::stage::Stage;
use crate::maturity::status::{ComponentStatus, Status};

/// A page under way.
struct Page(String);

/// A table of all components, then each of them.
pub(crate) fn markdown(status: &Status) -> String {
    let mut page = Page(String::new());
    page.line(&format!("# {}: maturity status", escaped(&status.title)));
    page.line(&format!("\nEvaluated {}. {}.", moment::shown(status.evaluated), summary(status)));
    page.line("\n| component | stage | coverage | gates passed | state |\n|---|---|--:|--:|---|");
    for component in &status.components {
        let passed = component.gates.iter().filter(|gate| gate.passed).count();
        let cells = [
            escaped(&component.name),
            component.claimed.to_string(),
            percent(component.coverage),
            format!("{passed}/{}", component.gates.len()),
            verdict(component),
        ];
        page.line(&format!("| {} |", cells.join(" | ")));
    }
    status.components.iter().for_each(|component| page.component(component));
    page.0
}

/// Text from outside, with nothing that Markdown or HTML would act on.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '&' => out.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '>' | '~' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

// === impl Page ===

impl Page {
    fn line(&mut self, text: &str) {
        writeln!(self.0, "{text}").expect("a string takes any text");
    }

    fn component(&mut self, component: &ComponentStatus) {
        let optional = |text: &Option<String>| text.as_deref().map_or(NONE.to_owned(), escaped);
        self.line(&format!(
            "\n## {}\n\n{}\n",
            escaped(&component.name),
            escaped(&component.about.description)
        ));
        self.line(&format!("* **Current stage**: {} ({})", component.claimed, verdict(component)));
        self.line(&format!("* **Owner**: {}", optional(&component.about.owner)));
        self.line(&format!("* **Functional group**: {}", optional(&component.about.group)));
        self.line(&format!("* **Coverage**: {}", percent(component.coverage)));
        self.list("Key features", &component.about.features);
        self.list("Dependencies", &component.about.dependencies);
        for stage in Stage::ALL.into_iter().filter(|stage| component.gates_before(*stage).next().is_some()) {
            self.criteria(component, stage);
        }
        self.files(component);
        self.evidence(component);
        self.promotions(component);
        self.list("Next steps", &component.about.next_steps);
    }

    fn list(&mut self, heading: &str, items: &[String]) {
        if items.is_empty() {
            return;
        }
        self.line(&format!("\n### {heading}\n"));
        items.iter().for_each(|item| self.line(&format!("* {}", escaped(item))));
    }

    fn criteria(&mut self, component: &ComponentStatus, stage: Stage) {
        let before = Stage::ALL.into_iter().rev().find(|before| *before < stage).unwrap_or(stage);
        self.line(&format!("\n### {before} → {stage}\n"));
        for gate in component.gates_before(stage) {
            let tick = if gate.passed { 'x' } else { ' ' };
            self.line(&format!("- [{tick}] {}: {}", gate.gate.name().replace('_', " "), escaped(&gate.why)));
        }
        let (passed, all) = component.count(stage);
        self.line(&format!("\n**Status**: {passed}/{all} criteria met"));
        let blockers: Vec<_> = component.gates_before(stage).filter(|gate| !gate.passed).collect();
        let names: Vec<_> = blockers.iter().map(|gate| gate.gate.name().replace('_', " ")).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        self.line(&format!("\n**Blockers**: {names}"));
    }

    fn files(&mut self, component: &ComponentStatus) {
        if component.files.is_empty() {
            return;
        }
        self.line("\n### Coverage by file\n\n| file | lines run | lines |\n|---|--:|--:|");
        for file in &component.files {
            self.line(&format!("| {} | {} | {} |", escaped(&file.path), file.lines_run, file.lines));
        }
    }

    fn evidence(&mut self, component: &ComponentStatus) {
        if component.evidence.is_empty() {
            return;
        }
        self.line("\n### Evidence\n\n| kind | report | date | counts |\n|---|---|---|---|");
        for report in &component.evidence {
            let date = report.date.map_or(NONE.to_owned(), moment::shown);
            let counts =
                report.problem.as_deref().map_or("yes".to_owned(), |why| format!("no: {}", escaped(why)));
            self.line(&format!("| {} | {} | {date} | {counts} |", report.kind.name(), escaped(&report.path)));
        }
    }

    fn promotions(&mut self, component: &ComponentStatus) {
        if component.promotions.is_empty() {
            return;
        }
        self.line("\n### Promotion history\n");
        for entry in &component.promotions {
            let since = entry.since.map_or("not entered".to_owned(), moment::day);
            let signed =
                entry.signed.as_deref().map_or(String::new(), |by| format!(", signed by {}", escaped(by)));
            self.line(&format!("* {}: {since}{signed}", entry.stage));
        }
    }
}
