//! The blocks of the runbooks, carried out as whoever is on call would.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::export::{Addresses, Pack};
use super::prometheus::Api;
use crate::e2e::interrupt::Interrupt;
use crate::e2e::service::Service;
use crate::failure::Failure;

const PATIENCE: Duration = Duration::from_secs(60);

/// Something in a runbook that can be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The alert whose runbook it stands in.
    pub(crate) alert: String,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Shell,
    Query,
}

/// What carrying out takes.
pub(crate) struct Hands<'a> {
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) api: &'a Api,
    pub(crate) addresses: &'a Addresses,
    /// Where `throughline` is.
    pub(crate) programs: &'a Path,
    /// The gateway's folder, with its configuration.
    pub(crate) folder: &'a Path,
    pub(crate) log: &'a Path,
}

/// The blocks of all runbooks.
///
/// # Errors
/// When a runbook cannot be read, or there is none.
pub(crate) fn blocks(pack: &Pack) -> Result<Vec<Block>, Failure> {
    let mut all = Vec::new();
    for (file, text) in pack.texts("runbooks", "md")? {
        let alert = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        all.extend(of_runbook(&alert, &text));
    }
    if all.is_empty() {
        return Err(Failure::new("the runbooks that were exported have no block that can be carried out"));
    }
    Ok(all)
}

fn of_runbook(alert: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut fence = Fence::None;
    for (index, line) in text.lines().enumerate() {
        match (line.trim(), fence) {
            ("```sh" | "```promql", Fence::None) => {
                let kind = if line.trim() == "```sh" { Kind::Shell } else { Kind::Query };
                blocks.push(Block { alert: alert.to_owned(), line: index + 2, kind, text: String::new() });
                fence = Fence::Ours;
            }
            (mark, Fence::None) if mark.starts_with("```") => fence = Fence::Other,
            ("```", _) => fence = Fence::None,
            (_, Fence::Ours) => {
                if let Some(block) = blocks.last_mut() {
                    block.text += &format!("{line}\n");
                }
            }
            _ => {}
        }
    }
    blocks
}

/// Where a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fence {
    None,
    Ours,
    Other,
}

// === impl Block ===

impl Block {
    pub(crate) fn shown(&self) -> String {
        let what = match self.kind {
            Kind::Shell => "sh",
            Kind::Query => "promql",
        };
        format!("runbooks/{}.md:{} ({what})", self.alert, self.line)
    }

    /// Carries it out, and says what was wrong.
    ///
    /// # Errors
    /// When the run is to end.
    pub(crate) fn carry_out(&self, hands: &Hands<'_>) -> Result<Outcome, Failure> {
        let outcome = match self.kind {
            Kind::Query => match hands.api.instant(self.text.trim()) {
                Ok(series) if series.is_empty() => Outcome::Silent,
                Ok(_) => Outcome::Told,
                Err(error) => Outcome::Wrong(error),
            },
            Kind::Shell => {
                let path = std::env::var("PATH").unwrap_or_default();
                let mut command = Command::new("sh");
                command.args(["-eu", "-c", &hands.addresses.put_into(&self.text)]).current_dir(hands.folder);
                command.env("PATH", format!("{}:{path}", hands.programs.display()));
                let service = Service::start("the block", &mut command, hands.log)?;
                let ended = service.finish(hands.interrupt, PATIENCE);
                hands.interrupt.check()?;
                judge(&ended.map_err(|failure| failure.to_string()))
            }
        };
        Ok(outcome)
    }
}

/// What came of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It said something.
    Told,
    /// It said nothing, which is an answer too where something is wrong.
    Silent,
    /// It failed, as it may where something is wrong: `curl` of a port where nobody is.
    Failed(String),
    /// It cannot be carried out at all.
    Wrong(String),
}

/// What came of a command, by what it said.
fn judge(ended: &Result<String, String>) -> Outcome {
    // What failed within a pipe does not show in the exit code.
    let failed = |said: &str| said.lines().any(|line| line.starts_with("curl: ("));
    match ended {
        Ok(said) if failed(said) => Outcome::Failed(said.clone()),
        Ok(said) if said.trim().is_empty() => Outcome::Silent,
        Ok(said) if said.contains(": not found") => Outcome::Wrong(said.clone()),
        Ok(_) => Outcome::Told,
        Err(failure) if failure.contains(": not found") => Outcome::Wrong(failure.clone()),
        Err(failure) => Outcome::Failed(failure.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_can_be_carried_out_and_leaves_the_rest() {
        let text = "# A\n```sh\nls\n```\n```text\n```sh\nnot this\n```\n\n```promql\nup == 0\n  or x\n```\n";
        let blocks = of_runbook("A", text);
        let found: Vec<_> =
            blocks.iter().map(|block| (block.line, block.kind, block.text.as_str())).collect();
        assert_eq!(found, [(3, Kind::Shell, "ls\n"), (11, Kind::Query, "up == 0\n  or x\n")]);
        assert_eq!(blocks[1].shown(), "runbooks/A.md:11 (promql)");
    }

    #[test]
    fn a_failure_within_a_pipe_is_one_and_an_unknown_program_is_worse() {
        let said = |text: &str| judge(&Ok(text.to_owned()));
        assert_eq!(said("up 1\n"), Outcome::Told);
        assert_eq!(said("\n"), Outcome::Silent);
        assert!(matches!(said("curl: (7) could not connect\n"), Outcome::Failed(_)));
        assert!(matches!(said("sh: 1: thruline: not found\n"), Outcome::Wrong(_)));
        assert!(matches!(judge(&Err("ended with 127: sh: 1: x: not found".to_owned())), Outcome::Wrong(_)));
        assert!(matches!(judge(&Err("ended with 1".to_owned())), Outcome::Failed(_)));
    }
}
