//! What the project's own `maturity.toml` is judged by: test reports that a run leaves behind.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

use crate::failure::Failure;
use crate::junit::{End, Report};
use crate::workspace::{Workspace, run};

/// Where reports are kept, from the root; `maturity.toml` names it.
const FOLDER: &str = "target/evidence";

/// When something begins, as reports write it.
#[expect(clippy::disallowed_methods, reason = "a report has a date")]
pub(crate) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// Runs `cargo test` with its output unchanged, and keeps a report of it in `junit.xml`. `build` is the same
/// command without the arguments of the test programs.
pub(crate) fn test(workspace: &Workspace, build: &mut Command, test: &mut Command) -> Result<(), Failure> {
    // Of an older run nothing may be left, whatever becomes of this one.
    let path = prepare(workspace, "junit.xml")?;
    let mut report = Report::new(programs(workspace, build)?);
    let began = now();
    let (ours, theirs) =
        std::io::pipe().map_err(|error| Failure::missing(format!("cannot make a pipe: {error}")))?;
    // Standard error says which program runs, standard output which tests: one pipe keeps their order.
    let both =
        theirs.try_clone().map_err(|error| Failure::missing(format!("cannot make a pipe: {error}")))?;
    test.stdout(theirs).stderr(both);
    let reading = std::thread::spawn(move || {
        let mut lines = BufReader::new(ours).split(b'\n');
        while let Some(Ok(line)) = lines.next() {
            // A standard output that nobody reads is no reason to stop the tests.
            let _ = std::io::stdout().write_all(&[line.as_slice(), b"\n"].concat());
            report.line(&String::from_utf8_lossy(&line));
        }
        report
    });
    let ended = run(test);
    // The command holds the pipe's other end open.
    test.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let report = reading.join().map_err(|_| Failure::new("the tests' output could not be read"))?;
    write(&path, &report.finish(&began))?;
    ended
}

/// Keeps a report of the steps that were done so far in `checks.xml`.
pub(crate) fn checks(
    workspace: &Workspace,
    began: &str,
    steps: impl Iterator<Item = (&'static str, bool)>,
) -> Result<(), Failure> {
    let path = prepare(workspace, "checks.xml")?;
    let end = |passed| if passed { End::Passed } else { End::Failed };
    let mut report = Report::new(BTreeMap::new());
    report.suite("ci", steps.map(|(name, passed)| (name.to_owned(), end(passed))));
    write(&path, &report.finish(began))
}

fn prepare(workspace: &Workspace, name: &str) -> Result<PathBuf, Failure> {
    let folder = workspace.root().join(FOLDER);
    let path = folder.join(name);
    let failed = |error| Failure::new(format!("cannot write {}: {error}", path.display()));
    fs::create_dir_all(&folder).map_err(failed)?;
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(path),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::new(format!("cannot write {}: {error}", path.display())))
}

/// Builds the test programs and names them as nextest does: `PACKAGE`, `PACKAGE::TEST`, `PACKAGE::bin/NAME`.
fn programs(workspace: &Workspace, build: &mut Command) -> Result<BTreeMap<String, String>, Failure> {
    let output = build
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| Failure::missing(format!("cannot start cargo: {error}")))?;
    if !output.status.success() {
        return Err(Failure::ended("`cargo test --no-run`", output.status.code()));
    }
    let messages = String::from_utf8_lossy(&output.stdout);
    Ok(messages
        .lines()
        .filter_map(|line| named(&serde_json::from_str(line).ok()?, workspace.root()))
        .collect())
}

/// A test program's file, as `cargo test` shows it, and its name.
fn named(message: &Value, root: &Path) -> Option<(String, String)> {
    let executable = Path::new(message["executable"].as_str()?);
    let shown = executable.strip_prefix(root).unwrap_or(executable).display().to_string();
    // `path+file:///…/gateway#throughline-gateway@0.1.0`, and without a name where the folder has it.
    let (before, id) = message["package_id"].as_str()?.rsplit_once('#')?;
    let package =
        id.split_once('@').map_or_else(|| before.rsplit('/').next().unwrap_or(id), |(name, _)| name);
    let (target, kind) = (message["target"]["name"].as_str()?, message["target"]["kind"][0].as_str()?);
    let name = match kind {
        "lib" | "proc-macro" => package.to_owned(),
        "test" => format!("{package}::{target}"),
        kind => format!("{package}::{kind}/{target}"),
    };
    Some((shown, name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_test_programs_as_nextest_does() {
        let message = |id: &str, kind: &str, name: &str| {
            json!({"reason": "compiler-artifact", "package_id": id, "executable": "/w/target/debug/deps/x-1",
                   "target": {"kind": [kind], "name": name}})
        };
        let gateway = "path+file:///w/gateway#throughline-gateway@0.1.0";
        for (message, name) in [
            (message("path+file:///w/throughline#0.1.0", "lib", "throughline"), "throughline"),
            (message("path+file:///w/throughline#0.1.0", "test", "retry"), "throughline::retry"),
            (message(gateway, "bin", "throughline"), "throughline-gateway::bin/throughline"),
        ] {
            let expected = ("target/debug/deps/x-1".to_owned(), name.to_owned());
            assert_eq!(named(&message, Path::new("/w")), Some(expected));
        }
        assert_eq!(named(&json!({"reason": "build-finished"}), Path::new("/w")), None);
    }
}
