//! What the tests need beside Rust: found, installed, or named to who can install it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::venv::{self, Recipe, Venv};
use crate::workspace::{Workspace, given, in_path, run, succeeds};

const PYTHON: &str = "THROUGHLINE_E2E_PYTHON";
const PROMETHEUS: &str = "THROUGHLINE_E2E_PROMETHEUS";
const PROMTOOL: &str = "THROUGHLINE_E2E_PROMTOOL";
const AMTOOL: &str = "THROUGHLINE_E2E_AMTOOL";
const REDIS: &str = "THROUGHLINE_E2E_REDIS";

/// The programs that tests from outside run.
#[derive(Debug)]
pub(crate) struct Needs {
    python: PathBuf,
    prometheus: PathBuf,
    promtool: PathBuf,
    amtool: PathBuf,
    redis: PathBuf,
}

/// The programs that the operations pack is for, as Debian has them.
#[derive(Debug)]
pub(crate) struct Monitoring {
    pub(crate) prometheus: PathBuf,
    pub(crate) promtool: PathBuf,
    pub(crate) alertmanager: PathBuf,
    pub(crate) redis: PathBuf,
}

/// What is here already.
#[derive(Debug)]
struct Found {
    prometheus: Option<PathBuf>,
    promtool: Option<PathBuf>,
    amtool: Option<PathBuf>,
    redis: Option<PathBuf>,
    python: Option<Python>,
}

#[derive(Debug)]
enum Python {
    /// The user's own, with what the tests import.
    Own(PathBuf),
    Venv(Venv),
}

/// Whether Debian packages may be installed, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Installer {
    Apt,
    NotRoot,
    NoApt,
    Forbidden,
}

#[derive(Debug, PartialEq, Eq)]
enum Plan {
    Ready,
    Install(Vec<&'static str>),
    Stop(String),
}

/// Finds what the tests need, and installs what is missing if it may.
///
/// # Errors
/// With exit code 2, when something is missing and may not or cannot be installed.
pub(crate) fn meet(workspace: &Workspace, may_install: bool) -> Result<Needs, Failure> {
    let mut found = Found::look(workspace)?;
    match plan(&found.missing(), Installer::look(may_install)) {
        Plan::Ready => {}
        Plan::Stop(why) => return Err(Failure::missing(why)),
        Plan::Install(packages) => {
            install(&packages)?;
            found = Found::look(workspace)?;
        }
    }
    found.complete()
}

/// The Python of a filled environment. Debian's `python3-venv` is installed for it, if it is missing and may be.
///
/// # Errors
/// With exit code 2, when something is missing and may not or cannot be installed.
pub(crate) fn python(workspace: &Workspace, recipe: Recipe, may_install: bool) -> Result<PathBuf, Failure> {
    if let Some(venv) = venv::look(workspace, recipe)? {
        return venv.fill();
    }
    match plan(&["python3-venv"], Installer::look(may_install)) {
        Plan::Stop(why) => return Err(Failure::missing(why)),
        Plan::Ready => {}
        Plan::Install(packages) => install(&packages)?,
    }
    let venv = venv::look(workspace, recipe)?;
    venv.ok_or_else(|| Failure::missing("a Python with `venv` is not in the path, though it was installed"))?
        .fill()
}

/// Finds the programs that the operations pack is for, and the tools of its runbooks, and installs what is missing if
/// it may.
///
/// # Errors
/// With exit code 2, when something is missing and may not or cannot be installed.
pub(crate) fn monitoring(may_install: bool) -> Result<Monitoring, Failure> {
    let mut absent = absent_monitoring()?;
    match plan(&absent, Installer::look(may_install)) {
        Plan::Ready => {}
        Plan::Stop(why) => return Err(Failure::missing(why)),
        Plan::Install(packages) => {
            install(&packages)?;
            absent = absent_monitoring()?;
        }
    }
    let found = |program: Option<PathBuf>, what: &str| {
        program
            .ok_or_else(|| Failure::missing(format!("`{what}` is not in the path, though it was installed")))
    };
    if !absent.is_empty() {
        let absent = absent.join(" ");
        return Err(Failure::missing(format!(
            "programs of {absent} are not in the path, though it was installed"
        )));
    }
    Ok(Monitoring {
        prometheus: found(program(PROMETHEUS, "prometheus")?, "prometheus")?,
        promtool: found(program(PROMTOOL, "promtool")?, "promtool")?,
        alertmanager: found(alertmanager(), "prometheus-alertmanager")?,
        redis: found(program(REDIS, "redis-server")?, "redis-server")?,
    })
}

/// The Debian packages whose programs are not here.
fn absent_monitoring() -> Result<Vec<&'static str>, Failure> {
    let here = [
        (
            "prometheus",
            program(PROMETHEUS, "prometheus")?.is_some() && program(PROMTOOL, "promtool")?.is_some(),
        ),
        ("prometheus-alertmanager", alertmanager().is_some() && in_path("amtool").is_some()),
        ("redis-server", program(REDIS, "redis-server")?.is_some()),
        ("redis-tools", in_path("redis-cli").is_some()),
        ("curl", in_path("curl").is_some()),
        ("jq", in_path("jq").is_some()),
    ];
    Ok(here.into_iter().filter(|(_, here)| !here).map(|(package, _)| package).collect())
}

/// Debian calls it differently than its authors.
fn alertmanager() -> Option<PathBuf> {
    in_path("prometheus-alertmanager").or_else(|| in_path("alertmanager"))
}

/// What to do about missing Debian packages.
fn plan(missing: &[&'static str], installer: Installer) -> Plan {
    if missing.is_empty() {
        return Plan::Ready;
    }
    let packages = missing.join(" ");
    let command = format!("apt-get update && apt-get install -y --no-install-recommends {packages}");
    let cure = match installer {
        Installer::Apt => return Plan::Install(missing.to_vec()),
        Installer::NotRoot => format!("install them as root:\n\n    {command}\n"),
        Installer::Forbidden => format!("install them, or leave --no-install out:\n\n    {command}\n"),
        Installer::NoApt => {
            format!("there is no apt-get here; on Debian it would be\n\n    {command}\n")
        }
    };
    Plan::Stop(format!(
        "the tests need what these Debian packages contain: {packages}\n{cure}\n\
         Programs in other places can be named in {PROMETHEUS}, {PROMTOOL}, {AMTOOL}, {REDIS} and {PYTHON} (a Python with `openai` and `prometheus-client`)."
    ))
}

fn install(packages: &[&str]) -> Result<(), Failure> {
    eprintln!("installing {}", packages.join(" "));
    // One source of packages that cannot be reached fails this, and need not be the one that has them.
    if let Err(failure) = apt_get(&["update", "-q"], packages) {
        eprintln!("warning: {failure}; trying all the same");
    }
    apt_get(&[&["install", "-q", "-y", "--no-install-recommends"], packages].concat(), packages)
}

fn apt_get(args: &[&str], packages: &[&str]) -> Result<(), Failure> {
    // Standard output belongs to the results of the tests.
    let done = run(Command::new("apt-get")
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // A package that brings a server does not start it in this runlevel: the tests start their own.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(std::io::stderr()));
    done.map_err(|why| Failure::missing(format!("cannot install {}: {why}", packages.join(" "))))
}

/// The program that `variable` names, else the one in the path.
fn program(variable: &str, name: &str) -> Result<Option<PathBuf>, Failure> {
    Ok(own(variable)?.or_else(|| in_path(name)))
}

fn own(variable: &str) -> Result<Option<PathBuf>, Failure> {
    let Some(path) = given(variable).map(PathBuf::from) else { return Ok(None) };
    if path.is_file() {
        return Ok(Some(path));
    }
    Err(Failure::missing(format!("{variable} names `{}`, and there is no such file", path.display())))
}

// === impl Needs ===

impl Needs {
    /// How the tests are told.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 5] {
        [
            (PYTHON, &self.python),
            (PROMETHEUS, &self.prometheus),
            (PROMTOOL, &self.promtool),
            (AMTOOL, &self.amtool),
            (REDIS, &self.redis),
        ]
    }
}

// === impl Found ===

impl Found {
    fn look(workspace: &Workspace) -> Result<Self, Failure> {
        let python = match own(PYTHON)? {
            Some(python) => Some(Python::Own(python)),
            None => venv::look(workspace, venv::CLIENT)?.map(Python::Venv),
        };
        Ok(Self {
            prometheus: program(PROMETHEUS, "prometheus")?,
            promtool: program(PROMTOOL, "promtool")?,
            amtool: program(AMTOOL, "amtool")?,
            redis: program(REDIS, "redis-server")?,
            python,
        })
    }

    /// The Debian packages that would complete this.
    fn missing(&self) -> Vec<&'static str> {
        let mut packages = Vec::new();
        if self.prometheus.is_none() || self.promtool.is_none() {
            packages.push("prometheus");
        }
        if self.amtool.is_none() {
            packages.push("prometheus-alertmanager");
        }
        if self.python.is_none() {
            packages.push("python3-venv");
        }
        if self.redis.is_none() {
            packages.push("redis-server");
        }
        packages
    }

    fn complete(self) -> Result<Needs, Failure> {
        let absent =
            |what: &str| Failure::missing(format!("{what} is not in the path, though it was installed"));
        Ok(Needs {
            prometheus: self.prometheus.ok_or_else(|| absent("`prometheus`"))?,
            promtool: self.promtool.ok_or_else(|| absent("`promtool`"))?,
            amtool: self.amtool.ok_or_else(|| absent("`amtool`"))?,
            redis: self.redis.ok_or_else(|| absent("`redis-server`"))?,
            python: match self.python.ok_or_else(|| absent("a Python with `venv`"))? {
                Python::Own(python) => python,
                Python::Venv(venv) => venv.fill()?,
            },
        })
    }
}

// === impl Installer ===

impl Installer {
    fn look(may_install: bool) -> Self {
        if !may_install {
            Self::Forbidden
        } else if in_path("apt-get").is_none() {
            Self::NoApt
        } else if succeeds(Command::new("sh").args(["-c", "test \"$(id -u)\" = 0"])) {
            Self::Apt
        } else {
            Self::NotRoot
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(prometheus: bool, promtool: bool, python: bool) -> Found {
        found_with(prometheus, promtool, python, true)
    }

    fn found_with(prometheus: bool, promtool: bool, python: bool, redis: bool) -> Found {
        let at = |here: bool, path: &str| here.then(|| PathBuf::from(path));
        Found {
            prometheus: at(prometheus, "bin/prometheus"),
            promtool: at(promtool, "bin/promtool"),
            amtool: at(true, "bin/amtool"),
            redis: at(redis, "bin/redis-server"),
            python: at(python, "bin/python").map(Python::Own),
        }
    }

    #[test]
    fn needs_nothing_when_all_is_here() {
        let found = found(true, true, true);
        assert_eq!(plan(&found.missing(), Installer::NoApt), Plan::Ready);

        let needs = found.complete().unwrap();
        let told: Vec<_> = needs.environment().map(|(name, path)| (name, path.to_owned())).into();
        assert_eq!(
            told,
            [
                ("THROUGHLINE_E2E_PYTHON", PathBuf::from("bin/python")),
                ("THROUGHLINE_E2E_PROMETHEUS", PathBuf::from("bin/prometheus")),
                ("THROUGHLINE_E2E_PROMTOOL", PathBuf::from("bin/promtool")),
                ("THROUGHLINE_E2E_AMTOOL", PathBuf::from("bin/amtool")),
                ("THROUGHLINE_E2E_REDIS", PathBuf::from("bin/redis-server")),
            ]
        );
    }

    #[test]
    fn half_of_a_package_is_not_enough() {
        assert_eq!(found(true, false, true).missing(), ["prometheus"]);
        assert_eq!(found(false, true, true).missing(), ["prometheus"]);
        assert_eq!(
            found_with(false, false, false, false).missing(),
            ["prometheus", "python3-venv", "redis-server"]
        );
    }

    #[test]
    fn installs_only_what_is_missing() {
        let missing = found(true, true, false).missing();
        assert_eq!(plan(&missing, Installer::Apt), Plan::Install(vec!["python3-venv"]));
    }

    #[test]
    fn names_packages_and_command_when_it_may_not_install() {
        for installer in [Installer::NotRoot, Installer::NoApt, Installer::Forbidden] {
            let Plan::Stop(why) = plan(&["prometheus", "python3-venv"], installer) else {
                panic!("{installer:?} must not install")
            };
            assert!(
                why.contains("apt-get install -y --no-install-recommends prometheus python3-venv\n"),
                "{why}"
            );
            assert!(why.contains("THROUGHLINE_E2E_PROMETHEUS"), "{why}");
        }
    }

    #[test]
    fn says_which_program_an_installation_did_not_bring() {
        let failure = found(true, false, true).complete().unwrap_err();
        assert_eq!(failure.to_string(), "`promtool` is not in the path, though it was installed");
    }
}
