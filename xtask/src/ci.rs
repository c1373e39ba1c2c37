//! `cargo xtask ci`: all that must hold before a change lands.

#![expect(clippy::print_stdout, reason = "the summary is what this command is asked for")]

use std::time::{Duration, Instant};

use clap::Args;

use crate::docs_check;
use crate::evidence;
use crate::examples;
use crate::failure::Failure;
use crate::generate::Gen;
use crate::needs;
use crate::test::Test;
use crate::workspace::{Workspace, run};

#[derive(Args, Debug)]
#[command(after_help = "\
Steps, in this order; the first that fails ends the run:

  needs        what the tests need is there (see `cargo xtask test --help`)
  fmt          cargo fmt --check
  clippy       all targets and features, warnings denied
  doc          all features, warnings denied
  test         cargo xtask test
  examples     cargo xtask examples
  demo         cargo run -- demo, as the README has it but shorter
  gen          cargo xtask gen --check
  docs-check   cargo xtask docs-check
  ops          cargo xtask e2e --only ops, with the two faults that are over soonest
  maturity     throughline maturity check, over the reports that the steps above left in target/evidence")]
pub(crate) struct Ci {
    /// Install no system package: say what is missing and stop
    #[arg(long)]
    no_install: bool,
}

/// How long each step took.
#[derive(Default)]
struct Report {
    began: String,
    steps: Vec<(&'static str, Duration, bool)>,
}

// === impl Ci ===

impl Ci {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        let mut report = Report { began: evidence::now(), ..Report::default() };
        let outcome = self.steps(workspace, &mut report);
        println!("{}", report.summary());
        if outcome.is_err() {
            // Of an older run nothing may be left that says that all was well.
            report.leave(workspace)?;
        }
        outcome
    }

    fn steps(&self, workspace: &Workspace, report: &mut Report) -> Result<(), Failure> {
        let needs = report.step("needs", || needs::meet(workspace, !self.no_install))?;
        report.step("fmt", || run(&mut workspace.cargo(["fmt", "--all", "--check"])))?;
        report.step("clippy", || clippy(workspace))?;
        report.step("doc", || doc(workspace))?;
        report.step("test", || Test { report: true, ..Test::default() }.run_with(workspace, &needs))?;
        report.step("examples", || examples::run_all(workspace))?;
        report.step("demo", || run(&mut workspace.cargo(DEMO)))?;
        report.step("gen", || Gen { check: true }.run(workspace))?;
        report.step("docs-check", || docs_check::run(workspace))?;
        report.step("ops", || run(&mut workspace.cargo(OPS)))?;
        report.leave(workspace)?;
        report.step("maturity", || run(&mut workspace.cargo(MATURITY)))
    }
}

/// The README's first command, in the profile that is built already.
const DEMO: [&str; 8] =
    ["run", "--", "demo", "--duration=3s", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];

/// Alerts that a real Prometheus and a real Alertmanager send, and what panels show meanwhile.
const OPS: [&str; 8] =
    ["xtask", "e2e", "--only", "ops", "--fault", "slow provider", "--fault", "Redis stopped"];

/// Whether the project's own components hold what they claim.
const MATURITY: [&str; 4] = ["run", "--", "maturity", "check"];

fn clippy(workspace: &Workspace) -> Result<(), Failure> {
    let what = ["clippy", "--workspace", "--all-targets", "--all-features"];
    run(workspace.cargo(what).args(["--", "-D", "warnings"]))
}

/// The library and the gateway's program have one name and so one folder. The library comes last: its pages
/// are the ones to be read.
fn doc(workspace: &Workspace) -> Result<(), Failure> {
    for kind in ["--bins", "--lib"] {
        let what = ["doc", "--no-deps", "--workspace", "--all-features", kind];
        run(workspace.cargo(what).env("RUSTDOCFLAGS", "-D warnings"))?;
    }
    Ok(())
}

// === impl Report ===

impl Report {
    #[expect(clippy::disallowed_methods, reason = "a step's real duration is the figure that is wanted")]
    fn step<T>(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        println!("== {name}");
        let begun = Instant::now();
        let outcome = work().map_err(|failure| failure.in_step(name));
        self.steps.push((name, begun.elapsed(), outcome.is_ok()));
        outcome
    }

    /// Leaves the steps that were done as evidence.
    fn leave(&self, workspace: &Workspace) -> Result<(), Failure> {
        let done = self.steps.iter().map(|(name, _, passed)| (*name, *passed));
        evidence::checks(workspace, &self.began, done)
    }

    fn summary(&self) -> String {
        let mut lines = vec!["== summary".to_owned()];
        for (name, took, passed) in &self.steps {
            let outcome = if *passed { "ok" } else { "FAILED" };
            lines.push(format!("{name:<12}{:>8.1} s  {outcome}", took.as_secs_f64()));
        }
        let total: Duration = self.steps.iter().map(|(_, took, _)| *took).sum();
        lines.push(format!("{:<12}{:>8.1} s", "in all", total.as_secs_f64()));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_step_that_failed() {
        let mut report = Report { began: evidence::now(), ..Report::default() };
        let failure = report.step("fmt", || Err::<(), _>(Failure::new("two files differ"))).unwrap_err();
        assert_eq!(failure.to_string(), "step `fmt` failed: two files differ");
        assert!(report.summary().lines().any(|line| line.starts_with("fmt") && line.ends_with("FAILED")));
    }

    #[test]
    fn sums_up_in_the_order_of_the_steps() {
        let steps =
            vec![("needs", Duration::from_millis(500), true), ("fmt", Duration::from_millis(1500), true)];
        let summary = Report { steps, ..Report::default() }.summary();
        let names: Vec<_> = summary.lines().filter_map(|line| line.split_whitespace().next()).collect();
        assert_eq!(names, ["==", "needs", "fmt", "in"]);
        assert!(summary.ends_with("2.0 s"), "{summary}");
    }
}
