//! `cargo xtask e2e --only dashboards`: grafatui, which imports Grafana's dashboards and shares no code with Grafana, reads
//! every dashboard of the pack without a warning, and one that is broken with one.

#![expect(clippy::print_stdout, reason = "the result of this command")]

use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::command::Options;
use crate::failure::Failure;
use crate::workspace::{Workspace, run, succeeds};

const VERSION: &str = "0.1.18";
/// Where the dashboards are that `cargo xtask gen` keeps.
const FOLDER: &str = "ops/grafana/dashboards";

/// What was made of a dashboard.
struct Read {
    file: String,
    panels: u64,
    /// Without a warning.
    clean: bool,
    said: String,
}

/// Runs the part.
///
/// # Errors
/// When a dashboard is read with a warning, or a broken one without.
pub(crate) fn run_part(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let program = install(workspace)?;
    let files = dashboards(&workspace.root().join(FOLDER))?;
    let read: Vec<_> = files.iter().map(|file| validate(&program, file)).collect::<Result<_, _>>()?;
    show(&read, options.json);
    if let Some(bad) = read.iter().find(|read| !read.clean) {
        return Err(Failure::new(format!("grafatui warns of {}: {}", bad.file, bad.said)));
    }
    let (good, bad) = (&files[0], workspace.e2e().join("broken-dashboard.json"));
    fs::read_to_string(good)
        .map_err(|error| error.to_string())
        .and_then(|text| broken(&text))
        .and_then(|page| fs::write(&bad, page.to_string()).map_err(|error| error.to_string()))
        .map_err(|why| {
            Failure::new(format!("cannot make a broken dashboard of {}: {why}", good.display()))
        })?;
    if validate(&program, &bad)?.clean {
        return Err(Failure::new(
            "grafatui has no warning for a broken dashboard: it says nothing of the others",
        ));
    }
    Ok(())
}

fn show(read: &[Read], as_json: bool) {
    if as_json {
        let all: Vec<_> = read
            .iter()
            .map(|one| json!({"file": one.file, "panels": one.panels, "clean": one.clean}))
            .collect();
        println!("{:#}", json!({ "dashboards": all }));
        return;
    }
    for one in read {
        let verdict = if one.clean { "read without a warning" } else { "WARNINGS" };
        println!("{:<20} {:>3} panels  {verdict}", one.file, one.panels);
    }
}

fn dashboards(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::missing(format!("cannot read {FOLDER}: {error}; run `cargo xtask gen`"));
    let entries = fs::read_dir(folder).map_err(failed)?;
    let mut files: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|found| found == "json"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Failure::missing(format!("{FOLDER} has no dashboard: run `cargo xtask gen`")));
    }
    Ok(files)
}

fn validate(program: &Path, file: &Path) -> Result<Read, Failure> {
    let mut command = Command::new(program);
    command.args(["--validate", "--strict", "--format", "json", "--grafana-json"]).arg(file);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Failure::missing(format!("cannot start {}: {error}", program.display())))?;
    let said = String::from_utf8_lossy(&[output.stdout.as_slice(), &output.stderr].concat()).into_owned();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(Read {
        file: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        panels: report["panel_count"].as_u64().unwrap_or_default(),
        clean: output.status.success() && report["panel_count"].as_u64().is_some_and(|panels| panels > 0),
        said,
    })
}

/// A dashboard with a panel of a kind that there is not.
fn broken(text: &str) -> Result<Value, String> {
    let mut page: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut panels = page["panels"].as_array_mut().into_iter().flatten();
    let panel = panels.find(|panel| panel["type"] != "row").ok_or("it has no panel")?;
    panel["type"] = "hologram".into();
    Ok(page)
}

/// Builds it, which takes some minutes, unless that is done.
fn install(workspace: &Workspace) -> Result<PathBuf, Failure> {
    let root = workspace.e2e().join(format!("grafatui-{VERSION}"));
    let program = root.join("bin/grafatui");
    if succeeds(Command::new(&program).arg("--version")) {
        return Ok(program);
    }
    eprintln!("building grafatui {VERSION} into <target>/e2e (3 to 8 minutes, once)");
    run(&mut installation(workspace, &root))
        .map_err(|why| Failure::missing(format!("cannot install grafatui {VERSION}: {why}")))?;
    // Nothing needs what it was built from again.
    let _kept = fs::remove_dir_all(root.join("build"));
    Ok(program)
}

fn installation(workspace: &Workspace, root: &Path) -> Command {
    let mut command = workspace.cargo(["install", "--locked", "--debug", "grafatui"]);
    command.args((!std::io::stderr().is_terminal()).then_some("--quiet"));
    command.args(["--version", VERSION, "--config", "profile.dev.debug=0", "--root"]).arg(root);
    command.arg("--target-dir").arg(root.join("build"));
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_dashboards_of_the_repository() {
        let files = dashboards(&Workspace::find().unwrap().root().join(FOLDER)).unwrap();
        assert_eq!(files.len(), 7, "{files:?}");
        let lost = dashboards(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(lost.contains("run `cargo xtask gen`"), "{lost}");
    }

    #[test]
    fn a_broken_dashboard_differs_in_the_kind_of_one_panel() {
        let page = broken(r#"{"panels":[{"type":"row"},{"type":"stat"},{"type":"stat"}]}"#).unwrap();
        assert_eq!(page, json!({"panels": [{"type": "row"}, {"type": "hologram"}, {"type": "stat"}]}));
        assert!(broken(r#"{"panels":[]}"#).is_err());
    }

    #[test]
    fn is_installed_in_one_version() {
        let workspace = Workspace::find().unwrap();
        let command = installation(&workspace, Path::new("root"));
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let args = args.join(" ");
        assert!(args.starts_with("install --locked --debug grafatui ") && args.contains(VERSION), "{args}");
    }
}
