//! The command line of `throughline maturity`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::address;

#[derive(Args, Debug)]
#[command(after_help = "\
A component claims a stage in maturity.toml: development, staging or production. What is asked before a stage, \
such as passing tests or a share of covered lines, is a gate. A gate opens by evidence alone: a report that is \
there, whole, recent and says yes. Missing, broken, stale or empty evidence leaves it shut.

Examples:
  throughline maturity check                       do the claims in ./maturity.toml hold? (for CI)
  throughline maturity check --json | jq '.components[] | select(.ready) | .name'
  throughline maturity report --format html --output maturity.html
  throughline maturity export --output /var/lib/node_exporter/maturity.prom
  throughline maturity export --listen 127.0.0.1:9465

The smallest maturity.toml:
  [evidence]
  tests = [\"target/evidence/junit.xml\"]

  [components.router]
  description = \"Chooses a model\"
  stage = \"development\"

docs/guides/maturity.md has every key.")]
pub(crate) struct Maturity {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether every component meets the gates of the stage that it claims
    Check(Check),
    /// Print the status page
    Report(Report),
    /// Give the figures to Prometheus
    Export(Export),
}

#[derive(Args, Debug)]
#[command(after_help = "\
Exits with 0 if every claim holds, with 1 if one does not, and with 2 if the file is not good.")]
pub(crate) struct Check {
    /// What to evaluate [default: maturity.toml]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print everything that was found as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "Exits with 0 whether the claims hold or not, and with 2 if the file is not good.")]
pub(crate) struct Report {
    /// What to evaluate [default: maturity.toml]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// How it is written
    #[arg(long, value_enum, default_value_t = Format::Markdown)]
    pub(crate) format: Format,
    /// Write it to this file instead of standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For a repository or a wiki
    Markdown,
    /// One page that needs nothing else
    Html,
    /// For programs
    Json,
    /// For a terminal
    Text,
}

#[derive(Args, Debug)]
#[command(after_help = "\
--output writes a file for the textfile collector of Prometheus' node exporter, in one rename, so that no half \
page is ever read. Run it after the evidence has changed, or from a timer.

--listen serves /metrics until Ctrl-C, and evaluates again when a file changes and every minute.

A gateway does the same beside its own figures: [maturity] file = \"maturity.toml\" in its configuration.")]
pub(crate) struct Export {
    /// What to evaluate [default: maturity.toml]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Write this file, whose name ends in .prom, instead of standard output
    #[arg(long, value_name = "FILE", conflicts_with = "listen")]
    pub(crate) output: Option<PathBuf>,
    /// Serve /metrics on this loopback address, port 0 for a free one
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
}
