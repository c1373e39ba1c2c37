//! `throughline cache`: what the stores of a configuration hold, taking it out of them, and what a cache would have
//! done for the requests of a trace.
//!
//! A command is a file: it reads what [`args`] has, asks a store or simulates one, and says what came of it, for people
//! or as JSON. What takes long shows how far it is on standard error.

pub(crate) mod args;
mod policy;
mod progress;
mod report;
mod simulate;
mod trace;

use args::{Cache, Command};

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The command line, the configuration or the trace is not good.
    Refused(String),
    /// A store did not do it.
    #[expect(dead_code, reason = "no command asks a store yet")]
    Failed(String),
}

/// Runs one of the commands.
///
/// # Errors
/// When what it was given is not good, or a store fails.
pub(crate) fn run(args: &Cache) -> Result<(), Ended> {
    match &args.command {
        Command::Simulate(args) => simulate::run(args),
    }
}
