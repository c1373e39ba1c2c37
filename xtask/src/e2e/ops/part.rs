//! The part as a whole: exports, starts, breaks things, looks, reports, stops.

#![expect(clippy::print_stdout, reason = "the report is what this command is asked for")]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use super::drill;
use super::fault::{FAULTS, Fault};
use super::gateway;
use super::panels;
use super::prometheus::{Span, now};
use super::report::Report;
use super::runbooks::{self, Block, Hands, Kind, Outcome};
use super::scale;
use super::stand::Stand;
use super::watch::Watch;
use crate::e2e::command::Options;
use crate::e2e::http;
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;
use crate::needs::{self, Monitoring};
use crate::workspace::Workspace;

/// Before the first request.
const IDLE: Duration = Duration::from_secs(8);
/// How long all is well before anything breaks. Windows fill meanwhile, and panels have something to compare with.
const QUIET: Duration = Duration::from_secs(25);
/// Between two faults.
const PAUSE: Duration = Duration::from_secs(8);
const PATIENCE: Duration = Duration::from_secs(60);
/// Until Ctrl-C. One day, because nothing waits for ever.
const VISIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Runs the part.
///
/// # Errors
/// With exit code 2 when something is missing, with 1 when something is not as it must be.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<(), Failure> {
    let faults = chosen(options)?;
    let needs = needs::monitoring(options.may_install)?;
    let program = gateway::build(workspace)?;
    let interrupt = Interrupt::listen()?;
    eprintln!("starting Redis, the gateway, Alertmanager and Prometheus");
    let mut stand = Stand::start(&program, &needs, &workspace.e2e().join("ops"), interrupt)?;
    let report = look(&mut stand, &needs, workspace, options, &faults)?;
    if options.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    if options.keep {
        stay(&stand);
    }
    match report.counts() {
        (_, 0) => Ok(()),
        (checks, wrong) => Err(Failure::new(format!("{wrong} of {checks} checks are not as they must be"))),
    }
}

/// The faults that are wanted.
fn chosen(options: &Options) -> Result<Vec<&'static Fault>, Failure> {
    let known = || FAULTS.iter().map(|fault| format!("`{}`", fault.name)).collect::<Vec<_>>().join(", ");
    if let Some(unknown) = options.faults.iter().find(|name| FAULTS.iter().all(|fault| fault.name != **name))
    {
        return Err(Failure::missing(format!("there is no fault `{unknown}`: choose of {}", known())));
    }
    let wanted = |fault: &&Fault| match options.faults.as_slice() {
        [] => fault.short || !options.short,
        names => names.iter().any(|name| name == fault.name),
    };
    Ok(FAULTS.iter().filter(wanted).collect())
}

fn look(
    stand: &mut Stand,
    needs: &Monitoring,
    workspace: &Workspace,
    options: &Options,
    faults: &[&'static Fault],
) -> Result<Report, Failure> {
    let mut report = Report::default();
    let (mut watch, queries) = (Watch::default(), panels::queries(&stand.pack)?);
    let blocks = runbooks::blocks(&stand.pack).unwrap_or_else(|failure| {
        report.add("runbooks", "all", "", vec![failure.to_string()]);
        Vec::new()
    });
    let beginning = now();
    stand.pass(IDLE)?;
    let idle = Span::since(beginning + 4.0);
    stand.start_traffic();
    settle(stand, &mut report)?;
    watch.happened("traffic", idle, Span::since(now() - 12.0));
    watch.is_well(Span::since(now() - 5.0));
    for fault in faults {
        eprintln!("breaking: {}", fault.name);
        let before = Span::since(now() - PAUSE.as_secs_f64());
        let drilled = drill::run(stand, fault, options.short, |stand, fired| {
            while_it_fires(stand, workspace, &blocks, fired, &mut report)
        })?;
        watch.happened(fault.name, before, drilled.span);
        let arrived: Vec<_> =
            drilled.arrived.iter().map(|(name, severity)| format!("{name} ({severity})")).collect();
        let (lasted, over) = (drilled.span.to - drilled.span.from, now() - drilled.span.from);
        let verdict = match drilled.problems.len() {
            0 => "as expected".to_owned(),
            count => format!("{count} problems"),
        };
        eprintln!("  mended after {lasted:.0} s, all over after {over:.0} s: {verdict}");
        report.add("faults", drilled.fault, arrived.join(", "), drilled.problems);
        stand.pass(PAUSE)?;
    }
    eprintln!("carrying out what the runbooks say");
    while_all_is_well(stand, workspace, &blocks, &mut report)?;
    eprintln!("asking what panels showed");
    watch.report(&stand.api, &queries, &mut report, faults.len() == FAULTS.len());
    if !options.short && options.faults.is_empty() {
        measure(stand, needs, &mut report)?;
    }
    Ok(report)
}

/// Waits for the watchdog, and finds out whether all is well while all is well.
fn settle(stand: &Stand, report: &mut Report) -> Result<(), Failure> {
    eprintln!("traffic, and nothing that is wrong with it");
    let watched = stand.interrupt.poll(PATIENCE, || Ok(stand.inbox.is_watched().then_some(())))?;
    let mark = stand.inbox.mark();
    stand.pass(QUIET)?;
    let mut problems: Vec<_> =
        stand.inbox.since(mark).iter().map(|notice| format!("{} arrived", notice.shown())).collect();
    problems.extend(watched.is_none().then(|| "the watchdog was never heard".to_owned()));
    problems.extend(stand.api.unhealthy_rules().unwrap_or_else(|error| vec![error]));
    let sent = stand.traffic.as_ref().map_or(0, super::traffic::Traffic::sent);
    report.add("faults", "none at all", format!("{sent} requests"), problems);
    Ok(())
}

fn hands<'a>(stand: &'a Stand, log: &'a Path) -> Hands<'a> {
    Hands {
        interrupt: &stand.interrupt,
        api: &stand.api,
        addresses: &stand.addresses,
        programs: stand.setup.program.parent().unwrap_or(&stand.setup.program),
        folder: &stand.setup.folder,
        log,
    }
}

/// Carries out the runbooks of what fires: every block can be, and at least one query has something to show.
fn while_it_fires(
    stand: &Stand,
    workspace: &Workspace,
    blocks: &[Block],
    fired: &BTreeSet<(String, String)>,
    report: &mut Report,
) -> Result<(), Failure> {
    let log = workspace.e2e().join("ops/logs/block.log");
    let alerts: BTreeSet<_> = fired.iter().map(|(name, _)| name).collect();
    for alert in alerts {
        let (mut problems, mut told) = (Vec::new(), false);
        for block in blocks.iter().filter(|block| block.alert == *alert) {
            match block.carry_out(&hands(stand, &log))? {
                Outcome::Wrong(why) => problems.push(format!("{}: {why}", block.shown())),
                Outcome::Told if block.kind == Kind::Query => told = true,
                Outcome::Told | Outcome::Silent | Outcome::Failed(_) => {}
            }
        }
        if !told {
            problems.push("none of its queries shows anything while the alert fires".to_owned());
        }
        report.add("runbooks while the alert fires", alert, "", problems);
    }
    Ok(())
}

/// Carries out every block of every runbook: commands succeed and say something, Prometheus understands the queries.
fn while_all_is_well(
    stand: &Stand,
    workspace: &Workspace,
    blocks: &[Block],
    report: &mut Report,
) -> Result<(), Failure> {
    let log = workspace.e2e().join("ops/logs/block.log");
    for block in blocks {
        let problem = match (block.carry_out(&hands(stand, &log))?, block.kind) {
            (Outcome::Told, _) | (Outcome::Silent, Kind::Query) => None,
            (Outcome::Silent, Kind::Shell) => Some("it says nothing".to_owned()),
            (Outcome::Failed(why) | Outcome::Wrong(why), _) => Some(why),
        };
        report.add("runbooks", block.shown(), "", problem.into_iter().collect());
    }
    Ok(())
}

/// The panels with a 95th percentile, at their own pace.
fn measure(stand: &Stand, needs: &Monitoring, report: &mut Report) -> Result<(), Failure> {
    let metrics = format!("http://127.0.0.1:{}/metrics", stand.addresses.metrics);
    let exposition =
        http::client().get(&metrics).call().and_then(|mut answer| answer.body_mut().read_to_string());
    let exposition = exposition.map_err(|error| Failure::new(format!("{metrics}: {error}")))?;
    eprintln!("filling a Prometheus with 10,000 series");
    let queries = panels::quantiles(&stand.pack)?;
    let folder = stand.setup.folder.with_file_name("scale");
    let (count, timings) =
        scale::measure(needs, &stand.pack, &exposition, queries, &folder, &stand.interrupt)?;
    let few = (count < scale::SERIES).then(|| format!("{} were to be there", scale::SERIES));
    report.add("latency", "series", count.to_string(), few.into_iter().collect());
    for timing in timings {
        let slow = (timing.took >= scale::LIMIT).then(|| format!("slower than {} s", scale::LIMIT.as_secs()));
        let problems = timing.problem.iter().cloned().chain(slow).collect();
        report.add("latency", timing.query.shown(), scale::seen(&timing), problems);
    }
    Ok(())
}

fn stay(stand: &Stand) {
    eprintln!("gateway: {}", stand.setup.url());
    eprintln!("Prometheus: {}", stand.api.url);
    eprintln!("Alertmanager: http://127.0.0.1:{}", stand.addresses.alertmanager);
    eprintln!("press Ctrl-C to stop them");
    // Its only end is the interrupt, which is what the user was asked for.
    let _asked_to_end = stand.interrupt.poll(VISIT, || Ok(None::<()>));
}
