//! The part as a whole: installs, starts, sends, reads back, reports, stops.

#![expect(clippy::print_stdout, reason = "the report is what this command is asked for")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::backend::{Backend, Place};
use super::check;
use super::gateway::{self, Target};
use super::mlflow::{MlFlow, RECIPE};
use super::otelite::{self, Otelite};
use super::pass::{self, Sent};
use super::relay::Relay;
use super::report::{Finding, Report};
use super::span::Trace;
use crate::e2e::command::Options;
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;
use crate::needs;
use crate::workspace::Workspace;

const HTTP: &str = "http/protobuf";
const GRPC: &str = "grpc";
/// Until Ctrl-C. One day, because nothing waits for ever.
const VISIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The backends, and where the run leaves what it has seen.
struct Stand<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    interrupt: Interrupt,
    otelite: Otelite,
    mlflow: MlFlow,
}

/// Runs the part.
///
/// # Errors
/// With exit code 2 when something is missing, with 1 when a backend has not what it must have.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let python = needs::python(workspace, RECIPE, options.may_install)?;
    let program = otelite::install(workspace)?;
    gateway::build(workspace)?;
    let stand = Stand::start(workspace, &program, &python)?;
    let report = stand.report()?;
    if options.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.table());
    }
    if options.keep {
        stand.stay();
    }
    let (checks, faulty) = report.counts();
    if faulty == 0 {
        return Ok(());
    }
    let dumps = stand.dumps();
    Err(Failure::new(format!("{faulty} of {checks} checks differ; what was read is in {}", dumps.display())))
}

// === impl Stand ===

impl<'a> Stand<'a> {
    fn start(workspace: &'a Workspace, otelite: &Path, python: &Path) -> Result<Self, Failure> {
        let (folder, interrupt) = (workspace.e2e(), Interrupt::listen()?);
        let place = |name: &str| Place {
            data: folder.join("data").join(name),
            log: folder.join("logs").join(name).with_extension("log"),
            interrupt: interrupt.clone(),
        };
        eprintln!("starting otelite and MLflow");
        let otelite = Otelite::start(otelite, &place("otelite"))?;
        let mlflow = MlFlow::start(python, &place("mlflow"))?;
        Ok(Self { workspace, folder, interrupt, otelite, mlflow })
    }

    fn dumps(&self) -> PathBuf {
        self.folder.join("dumps")
    }

    /// Sends everything twice, reads it back, and says what was found.
    fn report(&self) -> Result<Report, Failure> {
        self.clear_dumps()?;
        let relay = Relay::start(vec![self.otelite.traces_url(), self.mlflow.traces_url()])
            .map_err(|error| Failure::missing(format!("cannot start a relay on 127.0.0.1: {error}")))?;
        let both = self.send(HTTP, format!("http://{}", relay.address))?;
        let alone = self.send(GRPC, self.otelite.grpc_endpoint())?;
        eprintln!("reading back");
        let mut report = Report::default();
        let ours = self.read(&mut report, &self.otelite, HTTP, &both)?;
        let theirs = self.read(&mut report, &self.mlflow, HTTP, &both)?;
        compare(&mut report, &self.otelite, &both, &ours, &theirs);
        self.read(&mut report, &self.otelite, GRPC, &alone)?;
        let all: Vec<_> = both.iter().chain(&alone).collect();
        self.sum_up(&mut report, &self.otelite, &all)?;
        self.sum_up(&mut report, &self.mlflow, &both.iter().collect::<Vec<_>>())?;
        let refused = Finding {
            row: "every export taken",
            column: column(&self.mlflow, HTTP),
            trace_id: None,
            faults: relay.refusals(),
        };
        report.findings.push(refused);
        Ok(report)
    }

    fn send(&self, protocol: &'static str, endpoint: String) -> Result<Vec<Sent>, Failure> {
        eprintln!("sending the cases, spans by {protocol}");
        let folder = self.folder.join("logs").join(protocol.replace('/', "-"));
        pass::run(self.workspace, &folder, &Target { protocol, endpoint }, &self.interrupt)
    }

    fn read(
        &self,
        report: &mut Report,
        backend: &dyn Backend,
        protocol: &str,
        all: &[Sent],
    ) -> Result<Vec<Trace>, Failure> {
        let (mut traces, mut patience) = (Vec::new(), check::PATIENCE);
        for sent in all {
            let trace = check::read(backend, sent, &mut patience, &self.interrupt)?;
            let raw = format!("{:#}", backend.raw(&sent.trace_id));
            let name = format!("{}-{}-{}.json", sent.case.name(), backend.name(), protocol.replace('/', "-"));
            let dump = self.dumps().join(name);
            fs::write(&dump, &raw)
                .map_err(|error| Failure::missing(format!("cannot write {}: {error}", dump.display())))?;
            report.findings.push(Finding {
                row: sent.case.name(),
                column: column(backend, protocol),
                trace_id: Some(sent.trace_id.clone()),
                faults: check::faults(&trace, &raw, sent),
            });
            traces.push(trace);
        }
        Ok(traces)
    }

    fn sum_up(&self, report: &mut Report, backend: &dyn Backend, sent: &[&Sent]) -> Result<(), Failure> {
        let mut found = |row, faults| {
            report.findings.push(Finding { row, column: column(backend, HTTP), trace_id: None, faults });
        };
        found("one trace each", check::count_faults(backend, sent, &self.interrupt)?);
        found("tokens in all", check::usage_faults(backend, sent, &self.interrupt)?);
        Ok(())
    }

    fn clear_dumps(&self) -> Result<(), Failure> {
        let dumps = self.dumps();
        let cleared = match fs::remove_dir_all(&dumps) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir_all(&dumps),
        };
        cleared.map_err(|error| Failure::missing(format!("cannot empty {}: {error}", dumps.display())))
    }

    fn stay(&self) {
        for backend in [&self.otelite as &dyn Backend, &self.mlflow] {
            eprintln!("{}: {}", backend.name(), backend.visit());
        }
        eprintln!("press Ctrl-C to stop them");
        // Its only end is the interrupt, which is what the user was asked for.
        let _asked_to_end = self.interrupt.poll(VISIT, || Ok(None::<()>));
    }
}

fn column(backend: &dyn Backend, protocol: &str) -> String {
    format!("{}, {protocol}", backend.name())
}

fn compare(report: &mut Report, backend: &dyn Backend, sent: &[Sent], ours: &[Trace], theirs: &[Trace]) {
    let pairs = sent.iter().zip(ours.iter().zip(theirs));
    let faults = pairs.filter_map(|(sent, (ours, theirs))| {
        check::disagreement(ours, theirs).map(|what| format!("`{}`: {what}", sent.case.name()))
    });
    let faults = faults.collect();
    let column = column(backend, HTTP);
    report.findings.push(Finding { row: "both tell the same", column, trace_id: None, faults });
}
