//! `cargo xtask bench`: what things cost.

use clap::Args;

use crate::failure::Failure;
use crate::workspace::{Workspace, run};

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cargo xtask bench primitives
  cargo xtask bench primitives --rounds 31
  cargo xtask bench overhead
  cargo xtask bench primitives --json target/evidence/bench.json
  cargo xtask bench primitives --help

Everything here is handed to the package `bench`. Results that matter are kept in bench/RESULTS.md, \
with commit, machine and command.")]
pub(crate) struct Bench {
    /// Which benchmark, and its options
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "BENCHMARK")]
    pub(crate) args: Vec<String>,
}

// === impl Bench ===

impl Bench {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        // What a benchmark starts stands beside it.
        run(&mut workspace.cargo(["build", "--release", "--package", "throughline-gateway"]))?;
        run(workspace.cargo(["run", "--release", "--package", "bench", "--"]).args(&self.args))
    }
}
