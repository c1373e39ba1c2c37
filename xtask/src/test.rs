//! `cargo xtask test`: every test there is.

use clap::Args;

use crate::evidence;
use crate::failure::Failure;
use crate::needs::{self, Needs};
use crate::workspace::{Workspace, run};

#[derive(Args, Debug, Default)]
#[command(after_help = "\
Unit tests, integration tests and documentation tests of the workspace with all features, also those \
marked as ignored because they need more than Rust:

  prometheus, promtool    Debian package `prometheus`
  amtool                  Debian package `prometheus-alertmanager`
  redis-server            Debian package `redis-server`
  python3 with venv       Debian package `python3-venv`
  openai, prometheus-client (Python)
                          into <target>/e2e/venv, as gateway/tests/python/requirements.txt pins them

What is missing is installed when that is possible (root, and apt-get is there). If not, this says \
which packages to install, compiles nothing and ends with exit code 2.

The tests get the programs in THROUGHLINE_E2E_PYTHON, THROUGHLINE_E2E_PROMETHEUS, THROUGHLINE_E2E_PROMTOOL, \
THROUGHLINE_E2E_AMTOOL and THROUGHLINE_E2E_REDIS. Set one of them to use a program of your own.")]
pub(crate) struct Test {
    /// Only the tests of this package; may be repeated
    #[arg(short, long, value_name = "NAME")]
    pub(crate) package: Vec<String>,
    /// Install no system package: say what is missing and stop
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Leave a report of all tests in target/evidence/junit.xml, for `throughline maturity`
    ///
    /// It takes no arguments for the test programs: a part of the tests must not pass for all of them.
    #[arg(long, conflicts_with = "args")]
    pub(crate) report: bool,
    /// For the test programs: a part of a test's name, --nocapture, …
    #[arg(last = true, value_name = "ARGS")]
    pub(crate) args: Vec<String>,
}

// === impl Test ===

impl Test {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        self.run_with(workspace, &needs::meet(workspace, !self.no_install)?)
    }

    pub(crate) fn run_with(&self, workspace: &Workspace, needs: &Needs) -> Result<(), Failure> {
        let mut test = workspace.cargo(self.cargo_args());
        test.envs(needs.environment());
        if self.report {
            return evidence::test(workspace, &mut workspace.cargo(self.build_args()), &mut test);
        }
        run(&mut test)
    }

    fn cargo_args(&self) -> Vec<&str> {
        let mut args = self.build_args();
        args.extend(["--", "--include-ignored"]);
        args.extend(self.args.iter().map(String::as_str));
        args
    }

    /// What decides what is built.
    fn build_args(&self) -> Vec<&str> {
        let mut args = vec!["test", "--all-features", "--no-fail-fast"];
        if self.package.is_empty() {
            args.push("--workspace");
        }
        args.extend(self.package.iter().flat_map(|name| ["--package", name]));
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_the_whole_workspace_with_its_ignored_tests() {
        let args = Test::default().cargo_args().join(" ");
        assert_eq!(args, "test --all-features --no-fail-fast --workspace -- --include-ignored");
    }

    #[test]
    fn narrows_to_packages_and_names() {
        let test = Test { package: vec!["llm".into()], args: vec!["sse".into()], ..Test::default() };
        let args = test.cargo_args().join(" ");
        assert_eq!(args, "test --all-features --no-fail-fast --package llm -- --include-ignored sse");
    }
}
