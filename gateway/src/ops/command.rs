//! `throughline ops export|check`.

use super::args::{Command, Export, Ops};
use super::{check, export, pack};
use crate::check::show;

/// Why a command did not do what it was asked to.
pub(crate) enum Ended {
    /// The command line is not good, or something is in the way.
    Refused(String),
    /// Something cannot be written, or is missing.
    Failed(String),
}

/// Runs one of the commands.
///
/// # Errors
/// When an option makes no sense, a file cannot be written, or a series is missing.
pub(crate) fn run(args: &Ops) -> Result<(), Ended> {
    match &args.command {
        Command::Export(args) => export(args),
        Command::Check(args) => check::run(args),
    }
}

fn export(args: &Export) -> Result<(), Ended> {
    let options = args.options().map_err(|refused| Ended::Refused(refused.to_string()))?;
    let done = export::write(&args.folder, &pack::files(&options), args.force)?;
    show(&done.to_string());
    Ok(())
}
