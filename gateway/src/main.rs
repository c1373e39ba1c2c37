//! The Throughline gateway.

mod admin;
mod cache_command;
mod cache_control;
mod catalogue;
mod causes;
mod check;
mod cli;
mod config;
mod config_file;
mod demo;
mod errors;
mod exchange;
mod gateway;
mod inbound;
mod logs;
mod maturity;
mod one_arena;
mod ops;
mod parts;
mod reload;
mod routes;
mod semantic;
mod serve;
mod served;
mod server;
mod stores;
mod tenant;
mod workflows;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use cli::{Cli, Command};
use config::Config;
use logs::{Logs, complain, report_panics};
use workflows::Workflows;

/// The exit code for a configuration that is refused, and for a wrong command line.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::Serve(_) | Command::Demo(_)) {
        one_arena::ensure();
    }
    report_panics();
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
        Command::Catalogue(args) => {
            // A standard output that nobody reads is no failure.
            let _ = std::io::stdout().write_all(catalogue::text(args.json).as_bytes());
            Ok(())
        }
        Command::Check(args) => check::check(args).map_err(refused),
        Command::Cache(args) => cache_command::run(args).map_err(|ended| match ended {
            cache_command::Ended::Refused(message) => refused(message),
            cache_command::Ended::Failed(message) => failed(message),
        }),
        Command::Maturity(args) => maturity::run(args).map_err(|ended| match ended {
            maturity::Ended::Refused(message) => refused(message),
            maturity::Ended::Failed(message) => failed(message),
        }),
        Command::Ops(args) => ops::run(args).map_err(|ended| match ended {
            ops::Ended::Refused(message) => refused(message),
            ops::Ended::Failed(message) => failed(message),
        }),
        Command::Serve(args) => {
            let source = serve::source(args.config.as_deref());
            let config = serve::configuration(source.path.as_deref(), &args.listen).map_err(refused)?;
            let logs = Logs::start(&config.log, args.log.log_format, false);
            logged(&logs, || {
                let built = built(&config)?;
                block_on(serve::serve(source, config, built, &args.listen, &logs)).map_err(failed)
            })
        }
        Command::Demo(args) => {
            let config = serve::built_in(&args.listen).map_err(refused)?;
            let logs = Logs::start(&config.log, args.log.log_format, true);
            logged(&logs, || {
                let built = built(&config)?;
                block_on(demo::demo(&config, built, args, &logs)).map_err(failed)
            })
        }
    }
}

/// What is logged comes before what is said about the end.
fn logged(logs: &Logs, command: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
    let outcome = command();
    logs.flush();
    outcome
}

fn built(config: &Config) -> Result<Workflows, Failure> {
    workflows::build(config).map_err(|error| Failure { message: error.to_string(), code: REFUSED })
}

pub(crate) fn block_on(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime =
        builder.enable_all().build().map_err(|error| format!("the runtime cannot start: {error}"))?;
    let outcome = runtime.block_on(command);
    // A name lookup that hangs must not hold the end of the program.
    runtime.shutdown_background();
    outcome
}
