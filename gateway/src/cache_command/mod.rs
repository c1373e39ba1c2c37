//! `throughline cache`: what the stores of a configuration hold, taking it out of them, and what a cache would have
//! done for the requests of a trace, and what a semantic one may do.
//!
//! A command is a file: it reads what [`args`] has, asks stores or simulates one, and says what came of it, for people
//! or as JSON. What takes long shows how far it is on standard error.

pub(crate) mod args;
mod flush;
pub(crate) mod get;
mod learn;
mod learned;
pub(crate) mod open;
mod pairs;
mod policy;
mod progress;
pub(crate) mod purge;
mod remote;
pub(crate) mod report;
mod simulate;
pub(crate) mod stats;
pub(crate) mod target;
mod trace;

use args::{Cache, Command};

use crate::block_on;

/// Why a command did not do what it was asked to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The command line, the configuration or the trace is not good.
    Refused(String),
    /// A store did not do it.
    Failed(String),
}

/// Runs one of the commands.
///
/// # Errors
/// When what it was given is not good, or a store fails.
pub(crate) fn run(args: &Cache) -> Result<(), Ended> {
    match &args.command {
        Command::Stats(args) => waited(stats::run(args)),
        Command::Get(args) => waited(get::run(args)),
        Command::Purge(args) => waited(purge::run(args)),
        Command::Flush(args) => waited(flush::run(args)),
        Command::Simulate(args) => simulate::run(args),
        Command::Learn(args) => waited(learn::run(args)),
    }
}

fn waited(command: impl Future<Output = Result<(), Ended>>) -> Result<(), Ended> {
    let mut ended = Ok(());
    let run = async {
        ended = command.await;
        Ok(())
    };
    block_on(run).map_err(Ended::Failed)?;
    ended
}
