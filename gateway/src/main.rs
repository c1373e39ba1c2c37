//! The Throughline gateway.

mod check;
mod cli;
mod config;
mod demo;
mod errors;
mod exchange;
mod gateway;
mod routes;
mod serve;
mod server;
mod workflows;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command};

/// The exit code for a configuration that is refused, and for a wrong command line.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(matches!(cli.command, Command::Demo(_)));
    match run(&cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

/// Why the program ends, and with which code.
struct Failure {
    message: String,
    code: u8,
}

fn run(command: &Command) -> Result<(), Failure> {
    let refused = |message| Failure { message, code: REFUSED };
    let failed = |message| Failure { message, code: 1 };
    match command {
        Command::Check(args) => check::check(args).map_err(refused),
        Command::Serve(args) => {
            let config = serve::configuration(args.config.as_deref(), &args.listen).map_err(refused)?;
            let built = workflows::build(&config).map_err(|error| refused(error.to_string()))?;
            block_on(serve::serve(&config, built, &args.listen)).map_err(failed)
        }
        Command::Demo(args) => {
            let config = serve::built_in(&args.listen).map_err(refused)?;
            let built = workflows::build(&config).map_err(|error| refused(error.to_string()))?;
            block_on(demo::demo(&config, built, args)).map_err(failed)
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.enable_all().build().map_err(|error| format!("the runtime cannot start: {error}"))?;
    let outcome = runtime.block_on(command);
    // A name lookup that hangs must not hold the end of the program.
    runtime.shutdown_background();
    outcome
}

/// Logs go to standard error. The demonstration shows its report and is quiet otherwise.
fn log(quiet: bool) {
    // Its requests fail on purpose now and then: the report counts them.
    let default = if quiet { "warn,throughline::routes=error" } else { "info" };
    let filter = std::env::var("THROUGHLINE_LOG").unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        complain(&format!("THROUGHLINE_LOG is no log filter ({error}): logging at {default}"));
        EnvFilter::new(default)
    });
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .log_internal_errors(false)
        .init();
}

/// A standard error that nobody reads any more must not end the program.
fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
