//! `cargo xtask gen`: writes what is generated, or with `--check` finds out whether it is up to date.
//!
//! A metric that is on the page and no longer in the code has vanished from somebody's dashboard: that is refused until
//! docs/reference/telemetry-stability.md says since when it is gone and what to use instead.

#![expect(clippy::print_stdout, reason = "what was written is the result of this command")]

use std::collections::BTreeSet;
use std::fs;

use clap::Args;

use crate::failure::Failure;
use crate::generated_ops;
use crate::workspace::Workspace;

const PAGE: &str = "docs/reference/telemetry.md";
const POLICY: &str = "docs/reference/telemetry-stability.md";

/// The program that knows, in the profile that tests have built already.
const ASK: [&str; 6] = ["run", "--quiet", "--package", "throughline-gateway", "--", "catalogue"];

#[derive(Args, Debug)]
pub(crate) struct Gen {
    /// Write nothing: fail if something is out of date
    #[arg(long)]
    pub(crate) check: bool,
}

// === impl Gen ===

impl Gen {
    pub(crate) fn run(&self, workspace: &Workspace) -> Result<(), Failure> {
        let page = workspace.root().join(PAGE);
        let new = catalogue(workspace)?;
        // Where there is none yet, nothing can vanish.
        let old = fs::read_to_string(&page).unwrap_or_default();
        let policy = fs::read_to_string(workspace.root().join(POLICY))
            .map_err(|error| Failure::new(format!("cannot read {POLICY}: {error}")))?;
        let gone = vanished(&old, &new, &policy);
        if !gone.is_empty() {
            return Err(Failure::new(format!(
                "{} vanished: keep the old name beside the new one, or name it under `Removed` in {POLICY}",
                gone.into_iter().collect::<Vec<_>>().join(", ")
            )));
        }
        if old == new {
            println!("{PAGE} is up to date");
        } else if self.check {
            return Err(Failure::new(format!("{PAGE} is out of date: run `cargo xtask gen`")));
        } else {
            fs::write(&page, new).map_err(|error| Failure::new(format!("cannot write {PAGE}: {error}")))?;
            println!("{PAGE} is written");
        }
        generated_ops::run_in(workspace, self.check)
    }
}

fn catalogue(workspace: &Workspace) -> Result<String, Failure> {
    let output = workspace
        .cargo(ASK)
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| Failure::missing(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::ended("`throughline catalogue`", output.status.code()));
    }
    String::from_utf8(output.stdout).map_err(|_| Failure::new("the catalogue is not UTF-8"))
}

/// The metrics of the page: its headings of the third level above `## Primitives`.
fn metrics(page: &str) -> BTreeSet<&str> {
    let metrics = page.split("\n## Primitives").next().unwrap_or_default();
    metrics.lines().filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`')).collect()
}

/// The metrics that are on the `old` page only and that the policy does not list as removed.
fn vanished<'a>(old: &'a str, new: &str, policy: &str) -> BTreeSet<&'a str> {
    let removed = policy.split("\n## Removed").nth(1).unwrap_or_default();
    let (old, new) = (metrics(old), metrics(new));
    old.into_iter().filter(|name| !new.contains(name) && !removed.contains(&format!("`{name}`"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_vanish_without_a_word() {
        let old = "## Metrics\n\n### `a_total`\n\n### `b`\n\n## Primitives\n\n### `chat {model}`\n";
        let new = "## Metrics\n\n### `a_total`\n\n## Primitives\n";
        assert_eq!(vanished(old, new, "`b` in the policy's prose\n\n## Removed\n"), BTreeSet::from(["b"]));
        assert_eq!(vanished(old, new, "\n## Removed\n\n| `b` | 0.2.0 | `c` |\n"), BTreeSet::new());
        assert_eq!(vanished("", new, ""), BTreeSet::new());
    }
}
