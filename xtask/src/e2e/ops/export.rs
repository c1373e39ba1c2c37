//! The pack as `throughline ops export` writes it, and the same for this stand: faster, and at its addresses.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::haste;
use crate::failure::Failure;
use crate::workspace::run;

/// A budget, so that there is an alert for it; and as much of the gateway's own time as there can be, because this one
/// is not optimised and shares its machine with all the rest.
const OPTIONS: [&str; 4] = ["--monthly-budget", "1000000", "--max-overhead", "500ms"];

/// What was exported.
#[derive(Clone, Debug)]
pub(crate) struct Pack {
    pub(crate) folder: PathBuf,
}

/// Where everything is, in place of where it is by default.
#[derive(Clone, Debug)]
pub(crate) struct Addresses {
    pub(crate) gateway: u16,
    pub(crate) metrics: u16,
    pub(crate) prometheus: u16,
    pub(crate) alertmanager: u16,
    pub(crate) redis: u16,
    pub(crate) webhook: u16,
}

// === impl Pack ===

impl Pack {
    /// Has the gateway's own program write it into `folder`.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn export(program: &Path, folder: PathBuf) -> Result<Self, Failure> {
        let mut command = Command::new(program);
        command.args(["ops", "export"]).arg(&folder).args(OPTIONS);
        run(command.stdout(std::io::stderr()))?;
        Ok(Self { folder })
    }

    /// Writes the files of Prometheus and Alertmanager into `to`, hastened.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(crate) fn hasten(&self, to: &Path, addresses: &Addresses) -> Result<(), Failure> {
        for part in ["prometheus", "alertmanager"] {
            for file in files(&self.folder.join(part))? {
                let text = read(&file)?;
                let is_yaml =
                    file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml");
                let text = if is_yaml { addresses.put_into(&haste::file(&text)) } else { text };
                let target = to.join(file.strip_prefix(&self.folder).unwrap_or(&file));
                write(&target, &text)?;
            }
        }
        Ok(())
    }

    /// The files of one kind below one of its folders, with their text.
    ///
    /// # Errors
    /// When one cannot be read.
    pub(crate) fn texts(&self, folder: &str, extension: &str) -> Result<Vec<(PathBuf, String)>, Failure> {
        let all = files(&self.folder.join(folder))?;
        let of_kind = all.into_iter().filter(|file| file.extension().is_some_and(|found| found == extension));
        of_kind.map(|file| read(&file).map(|text| (file, text))).collect()
    }

    pub(crate) fn runbook(&self, alert: &str) -> PathBuf {
        self.folder.join("runbooks").join(alert).with_extension("md")
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error| Failure::missing(format!("cannot read {}: {error}", folder.display()));
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().is_dir() {
            found.extend(files(&entry.path())?);
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file)
        .map_err(|error| Failure::missing(format!("cannot read {}: {error}", file.display())))
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(file, text))
        .map_err(|error| Failure::missing(format!("cannot write {}: {error}", file.display())))
}

// === impl Addresses ===

impl Addresses {
    /// Every default address in `text` becomes that of the stand.
    pub(crate) fn put_into(&self, text: &str) -> String {
        let ports = [
            (8080, self.gateway),
            (9464, self.metrics),
            (9090, self.prometheus),
            (9093, self.alertmanager),
            (9095, self.webhook),
            (6379, self.redis),
        ];
        ports.iter().fold(text.to_owned(), |text, (usual, here)| {
            let text = text.replace(&format!("localhost:{usual}"), &format!("127.0.0.1:{here}"));
            text.replace(&format!("127.0.0.1:{usual}"), &format!("127.0.0.1:{here}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_addresses_become_those_of_the_stand() {
        let addresses =
            Addresses { gateway: 1, metrics: 2, prometheus: 3, alertmanager: 4, redis: 5, webhook: 6 };
        let text = "curl http://127.0.0.1:8080/readyz localhost:9464 127.0.0.1:9090 port 9093 localhost:6379 127.0.0.1:9095/x";
        assert_eq!(
            addresses.put_into(text),
            "curl http://127.0.0.1:1/readyz 127.0.0.1:2 127.0.0.1:3 port 9093 127.0.0.1:5 127.0.0.1:6/x"
        );
    }
}
