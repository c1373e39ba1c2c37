//! Evaluates a project: every gate of every component, with the number that decided.
//!
//! A gate opens only by evidence that is there, whole, recent and says yes. Everything else leaves it shut.

use std::time::SystemTime;

use super::component::Component;
use super::criteria::{Criteria, Criterion};
use super::evidence::Shelf;
use super::file::Maturity;
use super::findings::Findings;
use super::moment::{self, DAY};
use super::stage::{Gate, Stage};
use super::status::{ComponentStatus, GateStatus, Promotion, Status};

/// Evaluates as of `now`. It reads files and takes as long as that takes.
pub(crate) fn assess(maturity: &Maturity, now: SystemTime) -> Status {
    let mut shelf = Shelf::new(&maturity.dir);
    let mut components = Vec::new();
    for (name, component) in &maturity.components {
        components.push(component_status(name, component, &maturity.criteria, &mut shelf, now));
    }
    let holds = components.iter().all(|component| component.holds);
    Status { title: maturity.title.clone(), evaluated: now, holds, components }
}

fn component_status(
    name: &str,
    component: &Component,
    criteria: &Criteria,
    shelf: &mut Shelf,
    now: SystemTime,
) -> ComponentStatus {
    let mut findings = Findings::of(component, shelf, now);
    let gates: Vec<GateStatus> = Stage::ALL
        .into_iter()
        .flat_map(|stage| criteria.before(stage).iter().map(move |criterion| (stage, criterion)))
        .map(|(stage, criterion)| judge(stage, *criterion, component, &findings, shelf, now))
        .collect();
    let open = |stage: &Stage| gates.iter().all(|gate| gate.stage != *stage || gate.passed);
    let reached = Stage::ALL.into_iter().take_while(open).last().unwrap_or(Stage::Development);
    let (claimed, next) = (component.stage, component.stage.next());
    let promotion = |stage: Stage| Promotion {
        stage,
        since: component.since.get(&stage).copied(),
        signed: component.sign_off.get(&stage).map(|by| format!("{} on {}", by.by, moment::day(by.on))),
    };
    let promotions = Stage::ALL.map(promotion).into_iter();
    ComponentStatus {
        name: name.to_owned(),
        about: component.about.clone(),
        claimed,
        supported: reached.min(claimed),
        holds: reached >= claimed,
        next,
        ready: next.is_some_and(|next| reached >= next),
        coverage: findings.coverage.as_ref().ok().copied(),
        files: std::mem::take(&mut findings.files),
        gates,
        evidence: findings.evidence,
        promotions: promotions.filter(|entry| entry.since.is_some() || entry.signed.is_some()).collect(),
    }
}

fn judge(
    stage: Stage,
    criterion: Criterion,
    component: &Component,
    findings: &Findings,
    shelf: &Shelf,
    now: SystemTime,
) -> GateStatus {
    let Criterion { gate, bound } = criterion;
    let judged = match gate {
        Gate::Tests => findings.tests.clone(),
        Gate::IntegrationTests => findings.integration_tests.clone(),
        Gate::Checks => findings.checks.clone(),
        Gate::Coverage => findings.coverage.clone().and_then(|ratio| enough(ratio, bound)),
        Gate::Advisories => findings.advisories.clone().and_then(|open| few(&open, bound)),
        Gate::Benchmarks => findings.benchmarks.clone(),
        Gate::Documentation => documents("documentation", &component.documentation, shelf),
        Gate::Runbook => documents("runbook", &component.runbook, shelf),
        Gate::DaysInStage => days(component, stage, bound, now),
        Gate::SignOff => signed(component, stage, now),
    };
    let passed = judged.is_ok();
    GateStatus { stage, gate, passed, why: judged.unwrap_or_else(|why| why) }
}

fn enough(ratio: f64, least: f64) -> Result<String, String> {
    let said = format!("{:.2} % of lines, {} % or more are asked for", ratio * 100.0, percent(least));
    if ratio >= least { Ok(said) } else { Err(said) }
}

/// A share in percent, without the noise of its binary form.
fn percent(share: f64) -> f64 {
    (share * 1e6).round() / 1e4
}

fn few((open, ids): &(u64, String), most: f64) -> Result<String, String> {
    let said = match *open {
        0 => "no open advisories".to_owned(),
        open => format!("{open} open, at most {most} allowed: {ids}"),
    };
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let few = *open as f64 <= most;
    if few { Ok(said) } else { Err(said) }
}

fn documents(key: &str, paths: &[String], shelf: &Shelf) -> Result<String, String> {
    if paths.is_empty() {
        return Err(format!("no document is named: list them in `{key}`"));
    }
    for path in paths {
        shelf.document(path).map_err(|why| format!("{path}: {why}"))?;
    }
    Ok(paths.join(", "))
}

/// How long the component was in the stage before `stage`.
fn days(component: &Component, stage: Stage, least: f64, now: SystemTime) -> Result<String, String> {
    let before = Stage::ALL.into_iter().rev().find(|before| *before < stage).unwrap_or(stage);
    let from = component.since.get(&before).copied();
    let from =
        from.ok_or_else(|| format!("no date says since when it is in {before}: write `since.{before}`"))?;
    let until = component.since.get(&stage).copied().unwrap_or(now).min(now);
    let Ok(time) = until.duration_since(from) else {
        return Err(format!("`since.{before}` is {}, in the future", moment::day(from)));
    };
    let days = time.as_secs() / DAY.as_secs();
    let said = format!("{days} days in {before}, {least} or more are asked for");
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    let enough = days as f64 >= least;
    if enough { Ok(said) } else { Err(said) }
}

fn signed(component: &Component, stage: Stage, now: SystemTime) -> Result<String, String> {
    let Some(signature) = component.sign_off.get(&stage) else {
        return Err(format!("nobody has signed: write `sign_off.{stage}` with `by` and `on`"));
    };
    let said = format!("{} on {}", signature.by, moment::day(signature.on));
    if signature.on > now { Err(format!("{said}, in the future")) } else { Ok(said) }
}
