//! The folder `ops/`: what `throughline ops export` writes with defaults, and nothing else.
//!
//! Written beside the build first and then compared, so that a check changes nothing. What is written by hand in `ops/` is
//! part of the binary, and so of what it exports; a file that it does not know is refused.

#![expect(clippy::print_stdout, reason = "what was written is the result of this command")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use crate::failure::Failure;
use crate::workspace::{Workspace, run};

const FOLDER: &str = "ops";

/// The program that knows, in the profile that tests have built already.
const EXPORT: [&str; 7] = ["run", "--quiet", "--package", "throughline-gateway", "--", "ops", "export"];

/// Texts by path.
type Files = BTreeMap<String, Vec<u8>>;

/// How what is there differs from what is exported.
#[derive(Debug, Default, PartialEq, Eq)]
struct Difference {
    stale: Vec<String>,
    unknown: Vec<String>,
}

/// Writes the folder, or with `check` finds out whether it is up to date.
///
/// # Errors
/// When it is not, or when it holds a file that the binary does not export.
pub(crate) fn run_in(workspace: &Workspace, check: bool) -> Result<(), Failure> {
    let new = exported(workspace)?;
    let folder = workspace.root().join(FOLDER);
    let old = read(&folder)?;
    let difference = Difference::between(&old, &new);
    if !difference.unknown.is_empty() {
        return Err(Failure::new(format!(
            "{FOLDER}/ holds what `throughline ops export` does not write: {}; list it in \
             gateway/src/ops/deployment.rs, or remove it",
            difference.unknown.join(", ")
        )));
    }
    if difference.stale.is_empty() {
        println!("{FOLDER}/ is up to date, {} files", new.len());
        return Ok(());
    }
    if check {
        let names = difference.stale.join(", ");
        return Err(Failure::new(format!("{FOLDER}/ is out of date ({names}): run `cargo xtask gen`")));
    }
    for path in &difference.stale {
        put(&folder.join(path), &new[path])?;
    }
    println!("{FOLDER}/ is written: {}", difference.stale.join(", "));
    Ok(())
}

fn exported(workspace: &Workspace) -> Result<Files, Failure> {
    let folder = workspace.target().join("ops-export");
    if let Err(error) = fs::remove_dir_all(&folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(failure("remove", &folder, &error));
    }
    run(workspace.cargo(EXPORT).arg(&folder).stdout(std::process::Stdio::null()))?;
    read(&folder)
}

/// Every file of a folder, except those whose name begins with a dot. None where there is no folder.
fn read(folder: &Path) -> Result<Files, Failure> {
    let mut files = Files::new();
    if folder.exists() {
        add(&mut files, folder, "")?;
    }
    Ok(files)
}

fn add(files: &mut Files, folder: &Path, prefix: &str) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|error| failure("read", folder, &error))? {
        let entry = entry.map_err(|error| failure("read", folder, &error))?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            add(files, &path, &format!("{prefix}{name}/"))?;
        } else {
            let text = fs::read(&path).map_err(|error| failure("read", &path, &error))?;
            files.insert(format!("{prefix}{name}"), text);
        }
    }
    Ok(())
}

fn put(path: &Path, text: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|error| failure("write", path, &error))
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::new(format!("cannot {what} {}: {error}", path.display()))
}

// === impl Difference ===

impl Difference {
    fn between(old: &Files, new: &Files) -> Self {
        let stale = new.iter().filter(|(path, text)| old.get(*path) != Some(*text));
        let unknown = old.keys().filter(|path| !new.contains_key(*path));
        Self { stale: stale.map(|(path, _)| path.clone()).collect(), unknown: unknown.cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(files: &[(&str, &str)]) -> Files {
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    }

    #[test]
    fn tells_the_stale_from_the_unknown() {
        let new = files(&[("a", "1"), ("b", "2"), ("c/d", "3")]);
        let old = files(&[("a", "1"), ("b", "0"), ("c/e", "4")]);
        let difference = Difference::between(&old, &new);
        assert_eq!(difference.stale, ["b", "c/d"]);
        assert_eq!(difference.unknown, ["c/e"]);
        assert_eq!(Difference::between(&new, &new), Difference::default());
    }
}
