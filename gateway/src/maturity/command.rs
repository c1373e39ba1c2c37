//! `throughline maturity check|report|export`: evaluates once and says what was found.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use throughline::telemetry::{Registry, Telemetry, to_text};

use super::args::{Check, Command, Export, Format, Report};
use super::assess::assess;
use super::families::publish;
use super::file::{DEFAULT_FILE, Maturity};
use super::moment::now;
use super::status::Status;
use super::watch::Watch;
use super::{args, page};
use crate::check::show;
use crate::serve;

/// How long telemetry may take to stop.
const STOP: Duration = Duration::from_secs(1);

/// Why a command did not do what it was asked to.
pub(crate) enum Ended {
    /// The file or the command line is not good.
    Refused(String),
    /// A claim does not hold, or a page could not be delivered.
    Failed(String),
}

/// Runs one of the commands.
///
/// # Errors
/// When the file is not good, a claim does not hold or something cannot be written.
pub(crate) fn run(args: &args::Maturity) -> Result<(), Ended> {
    match &args.command {
        Command::Check(args) => check(args),
        Command::Report(args) => report(args),
        Command::Export(Export { file, listen: Some(address), .. }) => listen(file.as_deref(), *address),
        Command::Export(args) => export(args),
    }
}

fn path(file: Option<&Path>) -> &Path {
    file.unwrap_or(Path::new(DEFAULT_FILE))
}

fn evaluate(file: Option<&Path>) -> Result<Status, Ended> {
    let maturity = Maturity::load(path(file)).map_err(|errors| Ended::Refused(errors.to_string()))?;
    Ok(assess(&maturity, now()))
}

fn json(status: &Status) -> String {
    serde_json::to_string_pretty(status).expect("texts and numbers serialise") + "\n"
}

fn check(args: &Check) -> Result<(), Ended> {
    let status = evaluate(args.file.as_deref())?;
    show(&if args.json { json(&status) } else { page::text(&status) });
    if status.holds {
        return Ok(());
    }
    let broken: Vec<_> = status.broken().map(|component| component.name.as_str()).collect();
    Err(Ended::Failed(format!("not what they claim to be: {}", broken.join(", "))))
}

fn report(args: &Report) -> Result<(), Ended> {
    let status = evaluate(args.file.as_deref())?;
    let page = match args.format {
        Format::Markdown => page::markdown(&status),
        Format::Html => page::html(&status),
        Format::Json => json(&status),
        Format::Text => page::text(&status),
    };
    deliver(&page, args.output.as_deref())
}

fn export(args: &Export) -> Result<(), Ended> {
    if let Some(output) =
        args.output.as_deref().filter(|path| path.extension().is_none_or(|end| end != "prom"))
    {
        let problem = format!("{}: the node exporter reads only names that end in .prom", output.display());
        return Err(Ended::Refused(problem));
    }
    let registry = Registry::standalone();
    publish(&evaluate(args.file.as_deref())?, &registry);
    deliver(&to_text(&registry.render()), args.output.as_deref())
}

fn deliver(page: &str, output: Option<&Path>) -> Result<(), Ended> {
    let Some(output) = output else {
        show(page);
        return Ok(());
    };
    let failed = |error| Ended::Failed(format!("cannot write {}: {error}", output.display()));
    replace(output, page.as_bytes()).map_err(failed)
}

/// Puts a whole file where there may be another: whoever reads it gets the one or the other.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().ok_or(io::ErrorKind::InvalidFilename)?);
    name.push(format!(".{}.tmp", std::process::id()));
    let beside: PathBuf = path.with_file_name(name);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).open(&beside)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    // One that a process of the same number left behind is nobody's any more.
    let _ = fs::remove_file(&beside);
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn listen(file: Option<&Path>, address: SocketAddr) -> Result<(), Ended> {
    if !address.ip().to_canonical().is_loopback() {
        return Err(Ended::Refused(format!(
            "{address} is an address that other machines reach, and nothing is asked of who reads there: use a loopback \
             address such as 127.0.0.1, or have `throughline serve` show the components at its secured port"
        )));
    }
    // A file that is wrong from the beginning is a mistake to be told now and not in an hour.
    evaluate(file)?;
    crate::block_on(async {
        let telemetry = Telemetry::builder()
            .service_version(env!("CARGO_PKG_VERSION"))
            .metrics_listen(address)
            .local()
            .init();
        let Some(served) = telemetry.metrics_address() else {
            let reasons: Vec<_> = telemetry.degraded().into_iter().map(|part| part.reason).collect();
            return Err(reasons.join("; "));
        };
        let _watch = Watch::start(path(file), telemetry.sink());
        show(&format!("metrics http://{served}/metrics\n"));
        serve::stop_signal().await;
        telemetry.shutdown(STOP).await;
        Ok(())
    })
    .map_err(Ended::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.prom");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(replace(&dir.path().join("none/m.prom"), b"x").is_err());
        fs::create_dir(dir.path().join("folder.prom")).unwrap();
        assert!(replace(&dir.path().join("folder.prom"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
