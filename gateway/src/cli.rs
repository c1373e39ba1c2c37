//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::logs::Format;

/// An LLM gateway that routes, caches and bounds, and shows everything it does.
#[derive(Debug, Parser)]
#[command(
    name = "throughline",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  throughline demo                          see it work: no key, no other server
  throughline demo --keep                   … and leave it running, to try it with curl
  throughline check                         find out what is wrong with ./throughline.toml
  throughline serve                         serve it; both take another by --config FILE
  throughline cache stats                   what do the stores hold?
  throughline maturity check                do the parts of a project hold what they claim?
  throughline ops export ops                alerts, dashboards and runbooks, into ./ops

Environment:
  THROUGHLINE_LOG=debug                     what is logged (default: info)
  ENABLE_OBSERVABILITY=false                no metrics, no traces; everything else works as usual
  OTEL_EXPORTER_OTLP_ENDPOINT=http://…:4318 send traces there"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the configured models behind OpenAI's API
    Serve(Serve),
    /// Check a configuration and show the workflow of each model
    Check(Check),
    /// Look into the stores of a configuration, purge them, or simulate a cache on a trace
    Cache(crate::cache_command::args::Cache),
    /// Say how far each part of a project has come, by evidence
    Maturity(crate::maturity::args::Maturity),
    /// Write what operations need, and ask a live Prometheus whether all of it can be seen
    Ops(crate::ops::args::Ops),
    /// Start a gateway with simulated providers, drive traffic through it, and report
    Demo(Demo),
    /// Print what is reported: every metric, span and attribute
    Catalogue(Catalogue),
}

#[derive(Args, Debug)]
pub(crate) struct Catalogue {
    /// Print it as JSON, in place of the reference page
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Without --config, `throughline.toml` in the working directory is used if it is there; otherwise the \
built-in demonstration models (simulated, no key) are served. A configuration to begin with:

  [providers.openai.openai]
  base_url = \"https://api.openai.com/v1\"
  api_key = \"env:OPENAI_API_KEY\"

  [models.auto.routes.only]
  provider = \"openai\"
  model = \"gpt-4o-mini\"

`throughline check` says what is wrong with it; docs/guides/configuration.md has every key.

SIGHUP, or a change of the file, has the configuration read anew: requests under way end by the one that they \
began with, and a file with a mistake changes nothing.

Standard output gets two lines: where the gateway and where its metrics are, and a third with [admin]: where operators \
reach its stores. Ctrl-C or SIGTERM lets \
requests in flight finish, delivers telemetry and exits with 0.")]
pub(crate) struct Serve {
    /// The configuration [default: throughline.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) log: Log,
}

#[derive(Args, Debug)]
pub(crate) struct Log {
    /// Log as `json` or as `text`; wins over a configuration. Default: text on a terminal, JSON elsewhere
    #[arg(long, value_name = "FORMAT", value_parser = format)]
    pub(crate) log_format: Option<Format>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct Listen {
    /// Serve on this address, port 0 for a free one; wins over a configuration
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) listen: Option<SocketAddr>,
    /// Serve metrics on this address, port 0 for a free one; wins over a configuration and the environment
    #[arg(long, value_name = "ADDR:PORT", value_parser = address)]
    pub(crate) metrics_listen: Option<SocketAddr>,
}

#[derive(Args, Debug)]
#[command(after_help = "\
The first line says which file was read. With --json, only the workflows are printed.

Examples:
  throughline check                         ./throughline.toml, which `throughline serve` would read
  throughline check next.toml               another one; the same as --config next.toml
  throughline check --json | jq 'keys'      the names of the models

Exits with 0 if the configuration is good and with 2 if it is not, or if there is none.")]
pub(crate) struct Check {
    /// The configuration [default: throughline.toml]
    #[arg(value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The same, named as `serve` does
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub(crate) config: Option<PathBuf>,
    /// Print the workflows as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Every figure in the report is computed from the page that /metrics serves.

Prompts: a file of plain lines, one prompt each, or JSONL with {\"prompt\": \"…\"} or {\"messages\": […]}. \
They are asked in turn, again and again, until the time is over.")]
pub(crate) struct Demo {
    /// How long to drive traffic, such as 10s or 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) duration: Duration,
    /// Ask the prompts in this file instead of the built-in ones
    #[arg(long, value_name = "FILE")]
    pub(crate) prompts: Option<PathBuf>,
    /// Leave the gateway serving after the report, until Ctrl-C
    #[arg(long)]
    pub(crate) keep: bool,
    /// Print the report as JSON, and nothing else on standard output
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) listen: Listen,
    #[command(flatten)]
    pub(crate) log: Log,
}

fn format(text: &str) -> Result<Format, String> {
    Format::named(text).ok_or_else(|| "write json or text".to_owned())
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}: use a time such as 10s or 2m"))?;
    match duration {
        Duration::ZERO => Err("it must be more than 0s".to_owned()),
        long if long > Duration::from_secs(24 * 60 * 60) => Err("it must be at most 24h".to_owned()),
        fine => Ok(fine),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_configuration_that_the_help_shows_is_good() {
        let command = Cli::command();
        let serve = command.find_subcommand("serve").unwrap();
        let help = serve.get_after_help().unwrap().to_string();
        let example: String =
            help.lines().filter(|line| line.starts_with("  ")).map(|line| format!("{line}\n")).collect();
        let config = Config::parse(&example, "throughline.toml", &|_| Some("a-key".to_owned()));
        assert!(config.unwrap().models.contains_key("auto"), "{example}");
    }

    #[test]
    fn a_duration_is_refused_with_a_hint() {
        assert!(duration("ten").unwrap_err().ends_with("use a time such as 10s or 2m"));
        assert_eq!(duration("0s").unwrap_err(), "it must be more than 0s");
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
    }
}
