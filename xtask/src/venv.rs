//! Virtual environments, for the Python test client and for programs that are written in Python.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::workspace::{Workspace, in_path, run, succeeds};

/// What the Python test client needs.
pub(crate) const CLIENT: Recipe =
    Recipe { requirements: "gateway/tests/python/requirements.txt", folder: "venv" };

/// What is to be in an environment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// A list for `pip`, every version pinned.
    pub(crate) requirements: &'static str,
    /// Its name under `<target>/e2e`.
    pub(crate) folder: &'static str,
}

/// A virtual environment, to be filled when what it must hold has changed.
#[derive(Debug)]
pub(crate) struct Venv {
    name: &'static str,
    folder: PathBuf,
    requirements: PathBuf,
    wanted: String,
    maker: Option<Maker>,
}

/// What can make a virtual environment here.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Maker {
    /// This Python, by its own `venv`.
    Python(PathBuf),
    /// The program `virtualenv`, where Python came without `venv`.
    Virtualenv(PathBuf),
}

/// The environment if it is there or can be made, `None` if this machine lacks what makes one.
///
/// # Errors
/// When the list of requirements cannot be read.
pub(crate) fn look(workspace: &Workspace, recipe: Recipe) -> Result<Option<Venv>, Failure> {
    let requirements = workspace.root().join(recipe.requirements);
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| Failure::new(format!("cannot read {}: {error}", recipe.requirements)))?;
    let folder = workspace.e2e().join(recipe.folder);
    let venv = Venv { name: recipe.folder, folder, requirements, wanted, maker: None };
    if venv.is_ready() {
        return Ok(Some(venv));
    }
    Ok(Maker::look().map(|maker| Venv { maker: Some(maker), ..venv }))
}

// === impl Venv ===

impl Venv {
    /// Makes and fills it unless that is done, and gives its Python.
    pub(crate) fn fill(self) -> Result<PathBuf, Failure> {
        if let Some(maker) = &self.maker {
            eprintln!("installing {} into <target>/e2e/{}", packages(&self.wanted), self.name);
            self.clear()?;
            run(maker.command(&self.folder).stdin(Stdio::null()).stdout(std::io::stderr()))
                .and_then(|()| run(&mut self.pip()))
                .map_err(|why| {
                    Failure::missing(format!("cannot install {}: {why}", packages(&self.wanted)))
                })?;
            fs::write(self.stamp(), &self.wanted).map_err(|error| {
                Failure::missing(format!("cannot write into <target>/e2e/{}: {error}", self.name))
            })?;
        }
        Ok(self.python())
    }

    fn pip(&self) -> Command {
        let mut pip = Command::new(self.python());
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        pip.arg(&self.requirements).stdin(Stdio::null()).stdout(std::io::stderr());
        pip
    }

    fn clear(&self) -> Result<(), Failure> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Failure::missing(format!("cannot remove the old <target>/e2e/{}: {error}", self.name)))
            }
            _ => Ok(()),
        }
    }

    /// Filled with what is wanted now. The interpreter is started, because one that links to a Python that
    /// has gone is still a file.
    fn is_ready(&self) -> bool {
        fs::read_to_string(self.stamp()).is_ok_and(|filled| filled == self.wanted)
            && succeeds(Command::new(self.python()).arg("--version"))
    }

    /// Written last, with what was installed.
    fn stamp(&self) -> PathBuf {
        self.folder.join("installed.txt")
    }

    fn python(&self) -> PathBuf {
        self.folder.join("bin").join("python")
    }
}

/// The requirements without comments, on one line.
fn packages(requirements: &str) -> String {
    let lines = requirements.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect::<Vec<_>>().join(" ")
}

// === impl Maker ===

impl Maker {
    fn look() -> Option<Self> {
        // The one in the path may be a version manager's; Debian's package completes only Debian's own.
        let pythons = [in_path("python3"), Some("/usr/bin/python3".into())];
        let python = pythons.into_iter().flatten().find(|python| has_venv(python));
        python.map(Self::Python).or_else(|| in_path("virtualenv").map(Self::Virtualenv))
    }

    fn command(&self, folder: &Path) -> Command {
        let mut command = match self {
            Self::Python(python) => {
                let mut command = Command::new(python);
                command.args(["-m", "venv"]);
                command
            }
            Self::Virtualenv(virtualenv) => Command::new(virtualenv),
        };
        command.arg(folder);
        command
    }
}

/// Debian leaves `ensurepip` out, and `venv` then fails half-way.
fn has_venv(python: &Path) -> bool {
    succeeds(Command::new(python).args(["-c", "import ensurepip, venv"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_it_installs_without_comments() {
        assert_eq!(packages("# why\nopenai==1.2.3\n\n  anyio==4.0 \n"), "openai==1.2.3 anyio==4.0");
    }

    #[test]
    fn is_not_ready_before_it_is_filled() {
        let venv = Venv {
            name: "venv",
            folder: "no/such/folder".into(),
            requirements: "requirements.txt".into(),
            wanted: "openai==1.2.3".to_owned(),
            maker: None,
        };
        assert!(!venv.is_ready());
    }

    #[test]
    fn makes_one_by_either_program() {
        let shown = |maker: Maker| {
            let command = maker.command(Path::new("target/e2e/venv"));
            let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
            format!("{} {}", command.get_program().to_string_lossy(), args.join(" "))
        };
        assert_eq!(shown(Maker::Python("python3".into())), "python3 -m venv target/e2e/venv");
        assert_eq!(shown(Maker::Virtualenv("virtualenv".into())), "virtualenv target/e2e/venv");
    }

    #[test]
    fn what_it_installs_is_pinned() {
        let workspace = Workspace::find().unwrap();
        let wanted = fs::read_to_string(workspace.root().join(CLIENT.requirements)).unwrap();
        assert!(packages(&wanted).split(' ').all(|package| package.contains("==")), "{wanted}");
    }
}
