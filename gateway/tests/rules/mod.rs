//! The pack's rules as text, rule by rule, and promtool to judge them.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod mutant;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tempfile::TempDir;

use crate::process::prometheus::program;

/// A rule as it stands in its file, without its group.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) group: String,
    /// The alert's or the record's name.
    pub(crate) name: String,
    pub(crate) text: String,
}

/// A file of tests.
pub(crate) struct Tests {
    pub(crate) name: String,
    pub(crate) text: String,
    /// The groups that it evaluates, in its order.
    pub(crate) groups: Vec<String>,
}

/// A pack as it is exported with these options.
pub(crate) struct Pack {
    directory: TempDir,
}

/// What promtool thinks of rules under a file of tests.
pub(crate) enum Verdict {
    Passed,
    /// With what it says.
    Failed(String),
}

/// The files of tests beside this one.
pub(crate) fn tests() -> Vec<Tests> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rules");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yml"));
    files.sort();
    files.iter().map(|path| Tests::read(path)).collect()
}

// === impl Pack ===

impl Pack {
    pub(crate) async fn exported(options: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut export = tokio::process::Command::new(env!("CARGO_BIN_EXE_throughline"));
        export.args(["ops", "export"]).arg(directory.path()).args(options);
        let output = export.output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { directory }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// Every rule of every file.
    pub(crate) fn rules(&self) -> Vec<Rule> {
        let names = ["recording", "slo", "alerts"];
        let read = |name| std::fs::read_to_string(self.folder().join(format!("prometheus/rules/{name}.yml")));
        names.iter().flat_map(|name| parse(&read(name).unwrap())).collect()
    }
}

/// The rules of a file in the one form that the pack is written in.
fn parse(text: &str) -> Vec<Rule> {
    let (mut rules, mut group) = (Vec::<Rule>::new(), String::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("  - name: ") {
            name.clone_into(&mut group);
        } else if let Some((_, name)) = line.strip_prefix("      - ").and_then(|rule| rule.split_once(": ")) {
            rules.push(Rule { group: group.clone(), name: name.to_owned(), text: format!("{line}\n") });
        } else if line.starts_with("        ") {
            let rule = rules.last_mut().expect("lines of a rule stand below its name");
            rule.text += &format!("{line}\n");
        }
    }
    rules
}

// === impl Tests ===

impl Tests {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        let head = text.split("\ntests:\n").next().unwrap();
        let groups = head.lines().filter_map(|line| line.strip_prefix("  - ")).map(str::to_owned).collect();
        Self { name: path.file_name().unwrap().to_str().unwrap().to_owned(), text, groups }
    }

    /// How often an alert is expected to fire, and to be silent.
    pub(crate) fn expectations(&self) -> BTreeMap<String, (usize, usize)> {
        let mut found = BTreeMap::<String, (usize, usize)>::new();
        for check in self.text.split("- alertname: ").skip(1) {
            let (name, check) = check.split_once('\n').unwrap();
            let counts = found.entry(name.to_owned()).or_default();
            let silent =
                check.lines().find(|line| line.trim().starts_with("exp_alerts:")).unwrap().ends_with("[]");
            if silent { counts.1 += 1 } else { counts.0 += 1 }
        }
        found
    }

    /// Runs them against the rules that they ask for, of these.
    pub(crate) async fn judge(&self, rules: &[Rule]) -> Verdict {
        let directory = tempfile::tempdir().unwrap();
        let mut text = "groups:\n".to_owned();
        for group in &self.groups {
            text += &format!("  - name: {group}\n    rules:\n");
            let of: Vec<_> = rules.iter().filter(|rule| rule.group == *group).collect();
            assert!(!of.is_empty(), "{}: there is no group {group}", self.name);
            text.extend(of.iter().map(|rule| rule.text.as_str()));
        }
        std::fs::write(directory.path().join("rules.yml"), text).unwrap();
        std::fs::write(directory.path().join(&self.name), &self.text).unwrap();
        let ran = promtool(directory.path(), &["test", "rules", &self.name]).await;
        match ran {
            Ok(_) => Verdict::Passed,
            Err(said) => Verdict::Failed(said),
        }
    }
}

/// Runs promtool in a folder: what it says, as an error when it does not end well.
pub(crate) async fn promtool(folder: &Path, args: &[&str]) -> Result<String, String> {
    run("THROUGHLINE_E2E_PROMTOOL", folder, args).await
}

/// Runs the program that a variable names.
pub(crate) async fn run(variable: &str, folder: &Path, args: &[&str]) -> Result<String, String> {
    let output =
        program(variable).stdin(Stdio::null()).current_dir(folder).args(args).output().await.unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    if output.status.success() { Ok(said) } else { Err(said) }
}
