//! `cargo xtask examples`: every example of the library runs, and stands in the index of questions.

#![expect(clippy::print_stdout, reason = "which example runs is what a reader of the log looks for")]

use std::fs;
use std::path::Path;

use crate::failure::Failure;
use crate::markdown;
use crate::workspace::{Workspace, run};

const FOLDER: &str = "throughline/examples";

/// Builds all of them at once, then runs one after the other; each asserts what it shows.
///
/// # Errors
/// When one does not build or fails, or is missing in the index.
pub(crate) fn run_all(workspace: &Workspace) -> Result<(), Failure> {
    let folder = workspace.root().join(FOLDER);
    let names = names(&folder).map_err(|error| Failure::new(format!("cannot read {FOLDER}: {error}")))?;
    let index = fs::read_to_string(folder.join("README.md"))
        .map_err(|error| Failure::new(format!("cannot read {FOLDER}/README.md: {error}")))?;
    let missing = missing(&names, &index);
    if !missing.is_empty() {
        return Err(Failure::new(format!("{FOLDER}/README.md does not link to {}", missing.join(", "))));
    }
    run(workspace.cargo(OPTIONS).arg("--examples"))?;
    for name in &names {
        println!("-- {name}");
        let program = workspace.target().join("debug/examples").join(name);
        run(&mut std::process::Command::new(program))?;
    }
    println!("{} examples did what they say", names.len());
    Ok(())
}

/// As the tests are built, so that nothing is built twice.
const OPTIONS: [&str; 4] = ["build", "--package", "throughline", "--all-features"];

fn names(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

fn missing(names: &[String], index: &str) -> Vec<String> {
    let links = markdown::links(index);
    let files = names.iter().map(|name| format!("{name}.rs"));
    files.filter(|file| !links.iter().any(|link| link.text == *file)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_examples_that_nobody_would_find() {
        let names = ["hedge".to_owned(), "saga".to_owned()];
        assert_eq!(missing(&names, "* How? [hedge](hedge.rs)\n"), ["saga.rs"]);
    }
}
