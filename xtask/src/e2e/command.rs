//! What can be asked of `cargo xtask e2e`.

use clap::{Args, ValueEnum};

use super::traces;
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

What it needs goes into <target>/e2e, once: otelite is built from the crate registry (3 to 5 minutes), MLflow comes
from the Python package index (under a minute, 350 MB). The Debian package `python3-venv` is installed if
that is possible. Everything listens on free ports of 127.0.0.1 and is stopped at the end.

Examples:
  cargo xtask e2e                  a table: what each backend makes of each request
  cargo xtask e2e --keep           then look at the traces, until you press Ctrl-C
  cargo xtask e2e --json | jq .    for scripts

What was read is kept in <target>/e2e/dumps, what the programs said in <target>/e2e/logs.

Exit code: 0 when all is as it should be, 1 when something differs, 2 when something is missing here.")]
pub(crate) struct E2e {
    /// Only this part; may be repeated
    #[arg(long, value_name = "PART")]
    only: Vec<Part>,
    /// Leave the backends running afterwards, until Ctrl-C, and say where they are
    #[arg(long)]
    keep: bool,
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
}

/// How a part is to go about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    pub(crate) keep: bool,
    pub(crate) json: bool,
    pub(crate) may_install: bool,
}

// === impl E2e ===

impl E2e {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        let options = Options { keep: self.keep, json: self.json, may_install: !self.no_install };
        for part in self.parts() {
            match part {
                Part::Traces => traces::run(workspace, options)?,
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
