//! What can be asked of `cargo xtask e2e`.

use clap::{Args, ValueEnum};

use super::{dashboards, ops, traces};
use crate::failure::Failure;
use crate::workspace::Workspace;

#[derive(Args, Debug, Default)]
#[command(after_help = "\
Parts, all of them unless --only names some:

  traces   Two backends that know nothing of each other, otelite and MLflow, get the same spans of the real
           gateway, by OTLP over HTTP, and otelite once more over gRPC. They are then asked for what they have:
           for a cache miss, a hit, a routed, a retried, a hedged, a timed out, a cancelled, a streamed and a
           parallel request there must be one trace each, with the right parents, the attributes that the
           conventions require and the tokens that the provider reported, and no prompt, no answer and no key.

  ops      A real Prometheus and a real Alertmanager, with the files that `throughline ops export` writes, watch a
           gateway with traffic while one thing after another breaks: a slow provider, Redis stopped, a cheap route
           broken, the metrics port taken, providers down and more. Exactly the expected alerts must arrive at a
           webhook and be over afterwards; every query of every panel must have data and move when it should;
           what the runbooks tell people to do is done; panels with a 95th percentile must answer within 1 s at
           10,000 series. Durations in the pack's files are divided by 120 for this, all of them alike.

  dashboards
           grafatui, which imports Grafana's dashboards and shares no code with Grafana, reads every dashboard of
           `ops/grafana` without a warning.

What it needs goes into <target>/e2e, once: otelite and grafatui are built from the crate registry (3 to 5 minutes each),
MLflow comes from the Python package index (under a minute, 350 MB). Debian packages are installed if that is possible:
`python3-venv` for `traces`; `prometheus`, `prometheus-alertmanager`, `redis-server`, `redis-tools`, `curl` and `jq` for
`ops`. Everything listens on free ports of 127.0.0.1 and is stopped at the end.

Examples:
  cargo xtask e2e                  a table: what each backend makes of each request
  cargo xtask e2e --keep           then look at the traces, until you press Ctrl-C
  cargo xtask e2e --json | jq .    for scripts
  cargo xtask e2e --only ops --short                  the five faults that matter most, without 10,000 series
  cargo xtask e2e --only ops --fault 'slow provider'  one fault

What was read is kept in <target>/e2e/dumps, what the programs said in <target>/e2e/logs, all of `ops` in <target>/e2e/ops.

Exit code: 0 when all is as it should be, 1 when something differs, 2 when something is missing here.")]
pub(crate) struct E2e {
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Leave the backends running afterwards, until Ctrl-C, and say where they are
    #[arg(long)]
    keep: bool,
    /// Of the part `ops` only the faults that matter most, and not how it does with many series
    #[arg(long)]
    short: bool,
    /// Of the part `ops` only this fault; may be repeated
    #[arg(long, value_name = "NAME")]
    fault: Vec<String>,
    /// The result as JSON, in place of the table
    #[arg(long)]
    json: bool,
    /// Install no system package: say what is missing and stop
    #[arg(long)]
    pub(crate) no_install: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What two backends make of the spans
    Traces,
    /// What alerts, panels and runbooks tell when something breaks
    Ops,
    /// Whether another program than Grafana can import the dashboards
    Dashboards,
}

/// How a part is to go about it.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) keep: bool,
    pub(crate) json: bool,
    pub(crate) may_install: bool,
    pub(crate) short: bool,
    /// Names of faults; all of them when there is none.
    pub(crate) faults: Vec<String>,
}

// === impl E2e ===

impl E2e {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        let options = Options {
            keep: self.keep,
            json: self.json,
            may_install: !self.no_install,
            short: self.short,
            faults: self.fault.clone(),
        };
        for part in self.parts() {
            match part {
                Part::Traces => traces::run(workspace, &options)?,
                Part::Ops => ops::run(workspace, &options)?,
                Part::Dashboards => dashboards::run_part(workspace, &options)?,
            }
        }
        Ok(())
    }

    /// In the order of their declaration, each once.
    fn parts(&self) -> impl Iterator<Item = &Part> {
        let wanted = |part: &&Part| self.only.is_empty() || self.only.contains(part);
        Part::value_variants().iter().filter(wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_every_part_once_unless_some_are_named() {
        let parts = |only: &[Part]| -> Vec<Part> {
            E2e { only: only.to_vec(), ..E2e::default() }.parts().copied().collect()
        };
        assert_eq!(parts(&[]), Part::value_variants());
        assert_eq!(parts(&[Part::Traces, Part::Traces]), [Part::Traces]);
    }
}
