//! `cargo xtask`: what CI runs, you run. One file per command.

mod bench;
mod ci;
mod docs_check;
mod e2e;
mod evidence;
mod examples;
mod failure;
mod generate;
mod generated_ops;
mod junit;
mod markdown;
mod needs;
mod test;
mod venv;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::workspace::Workspace;

/// What CI runs, you run.
#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    max_term_width = 100,
    after_help = "\
Examples:
  cargo xtask test                 every test, with what they need installed if it is missing
  cargo xtask test -- cache        the tests whose name contains `cache`
  cargo xtask test --report        … and leave a JUnit report in target/evidence
  cargo xtask ci                   all that must pass before a change lands
  cargo xtask e2e                  do two real backends show the right traces?
  cargo xtask bench primitives     what each primitive costs

Exit code: 0 when all is well, 2 when something is missing here or the command line is wrong, \
otherwise that of what failed."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every test, after making sure that what they need is there
    Test(test::Test),
    /// Run all that CI runs, and stop at the first step that fails
    Ci(ci::Ci),
    /// Measure, in a release build
    Bench(bench::Bench),
    /// Let other people's programs judge what the gateway sends them
    E2e(e2e::E2e),
    /// Check that links and named paths in the Markdown files lead somewhere
    DocsCheck,
    /// Run every example of the library
    Examples,
    /// Write the pages that are generated from the code
    Gen(generate::Gen),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    let workspace = Workspace::find()?;
    match command {
        Command::Test(test) => test.run(&workspace),
        Command::Ci(ci) => ci.run(&workspace),
        Command::Bench(bench) => bench.run(&workspace),
        Command::E2e(e2e) => e2e.run(&workspace),
        Command::DocsCheck => docs_check::run(&workspace),
        Command::Examples => examples::run_all(&workspace),
        Command::Gen(command) => command.run(&workspace),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn has_a_command_line_without_contradictions() {
        Cli::command().debug_assert();
    }

    #[test]
    fn hands_what_follows_two_dashes_to_the_tests() {
        let cli = Cli::parse_from(["xtask", "test", "-p", "throughline", "--", "cache", "--nocapture"]);
        let Command::Test(test) = cli.command else { panic!("not `test`") };
        assert_eq!(test.package, ["throughline"]);
        assert_eq!(test.args, ["cache", "--nocapture"]);
    }

    #[test]
    fn hands_options_of_a_benchmark_on() {
        let cli = Cli::parse_from(["xtask", "bench", "primitives", "--rounds", "3"]);
        let Command::Bench(bench) = cli.command else { panic!("not `bench`") };
        assert_eq!(bench.args, ["primitives", "--rounds", "3"]);
    }
}
