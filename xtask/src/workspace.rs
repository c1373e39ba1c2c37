//! Where the workspace is, and how its tools are run.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// The folders of this workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

// === impl Workspace ===

impl Workspace {
    pub(crate) fn find() -> Result<Self, Failure> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .ok_or_else(|| Failure::missing("not started by cargo: run it as `cargo xtask`"))?;
        let root = Path::new(&manifest).parent().map(Path::to_owned).unwrap_or_default();
        let target = match given("CARGO_TARGET_DIR") {
            Some(dir) => env::current_dir().unwrap_or_default().join(dir),
            None => root.join("target"),
        };
        Ok(Self { root, target })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Where the tests that look from outside keep what they need.
    pub(crate) fn e2e(&self) -> PathBuf {
        self.target.join("e2e")
    }

    /// The cargo that runs this, on this workspace.
    pub(crate) fn cargo<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(args).current_dir(&self.root);
        // `cargo run` describes xtask in these. Build scripts that watch one would run again for nothing.
        for (name, _) in env::vars_os().filter(|(name, _)| describes_a_package(name)) {
            command.env_remove(name);
        }
        // A relative one would mean another folder from the root.
        if given("CARGO_TARGET_DIR").is_some() {
            command.env("CARGO_TARGET_DIR", &self.target);
        }
        command
    }
}

fn describes_a_package(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_"))
}

/// The value of an environment variable that is set and not empty.
pub(crate) fn given(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Runs a program to its end, its output unchanged.
pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    let what = shown(command);
    let status =
        command.status().map_err(|error| Failure::missing(format!("cannot start {what}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::ended(&what, status.code())) }
}

/// Whether a program can be started and succeeds; its output is nobody's business.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}

/// The file that the shell would run for `name`.
pub(crate) fn in_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let words = std::iter::once(program).chain(command.get_args());
    format!("`{}`", words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_its_own_description_from_the_cargo_it_starts() {
        let workspace = Workspace::find().unwrap();
        let command = workspace.cargo(["check"]);
        let removed: Vec<_> =
            command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
        assert!(removed.contains(&OsStr::new("CARGO_MANIFEST_DIR")), "{removed:?}");
        assert!(!removed.contains(&OsStr::new("CARGO")), "{removed:?}");
    }

    #[test]
    fn names_the_program_and_its_arguments_when_it_fails() {
        let failure = run(Command::new("/bin/sh").args(["-c", "exit 3"])).unwrap_err();
        assert_eq!(failure.to_string(), "`sh -c exit 3` ended with exit code 3");
    }

    #[test]
    fn finds_programs_as_a_shell_would() {
        assert!(in_path("sh").is_some_and(|file| file.ends_with("sh")));
        assert_eq!(in_path("no-such-program-here"), None);
    }
}
