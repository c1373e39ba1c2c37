//! What the gateways do for a request, counted by valgrind's `callgrind` and not timed.
//!
//! It counts instructions and simulates the processor's caches. The sum of both is KCachegrind's estimate of cycles: one for an
//! instruction, ten more for a miss of the first cache, a hundred more for one of the last. What the kernel does, some two
//! fifths of the processor time, is not in it, and hardly changes with telemetry: of all the processor time it is less.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use tokio::process::Command;

use super::load::Load;
use super::peer::{self, Says};
use super::{Collector, Overhead, PROCESSOR, spans_arrived, start};

/// So many requests fill pools, and make series and memory that are there from then on.
const FIRST: usize = 200;
/// Spans wait for no longer than five seconds before they leave.
const SPANS_LEAVE: Duration = Duration::from_secs(7);

/// What was counted, of one request.
#[derive(Clone, Copy)]
pub(super) struct Counts {
    instructions: f64,
    /// Of the first cache.
    misses: f64,
    /// Of the last cache.
    far_misses: f64,
}

// === impl Counts ===

impl Counts {
    /// Reads the sums of what `callgrind` has written.
    fn read(file: &Path, requests: usize) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let line = |name| text.lines().find_map(|line| line.strip_prefix(name));
        let events = line("events: ").unwrap_or_default().split_whitespace();
        let sums = line("totals: ").unwrap_or_default().split_whitespace();
        let sums: Vec<(&str, f64)> =
            events.zip(sums).filter_map(|(event, sum)| Some((event, sum.parse().ok()?))).collect();
        let sum = |wanted: &[&str]| {
            let those = sums.iter().filter(|(event, _)| wanted.contains(event));
            those.map(|(_, sum)| sum).sum::<f64>() / requests as f64
        };
        let counts = Self {
            instructions: sum(&["Ir"]),
            misses: sum(&["I1mr", "D1mr", "D1mw"]),
            far_misses: sum(&["ILmr", "DLmr", "DLmw"]),
        };
        match counts.instructions > 0.0 && counts.misses > 0.0 {
            true => Ok(counts),
            false => Err(format!("{}: valgrind has counted nothing", file.display())),
        }
    }

    fn cycles(self) -> f64 {
        self.instructions + 10.0 * self.misses + 100.0 * self.far_misses
    }
}

/// Counts what one gateway of each kind does.
pub(super) async fn count(args: &Overhead) -> Result<Vec<Counts>, String> {
    let installed = Command::new("valgrind").arg("--version").output().await;
    installed
        .map_err(|error| format!("valgrind cannot be run ({error}): install it, or leave out --count"))?;
    let provider = peer::start(Says::Chat(args.size.answers().into())).await?;
    let collector = peer::start(Says::Ok).await?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let load = Load {
        requests: args.requests(),
        connections: args.connections.max(1),
        interval: Duration::ZERO,
        size: args.size,
    };
    let mut all = Vec::new();
    for (at, mode) in args.modes().iter().enumerate() {
        eprintln!("{}: {FIRST} requests to begin with, then {} that are counted", mode.name, load.requests);
        let written = folder.path().join(at.to_string());
        let launcher = ["valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes"].map(str::to_owned);
        let file = format!("--callgrind-out-file={}", written.display());
        let launcher: Vec<_> = launcher.into_iter().chain([file]).collect();
        let receiver = mode.collector.filter(|collector| *collector == Collector::Well);
        let receiver = receiver.map(|_| collector.address());
        let gateway = start(mode, args.size, provider.address(), receiver, &launcher).await?;
        let tell = async |what| {
            tokio::time::sleep(SPANS_LEAVE).await;
            control(what, gateway.pid()?).await
        };
        Load { requests: FIRST, ..load }.run(gateway.address()).await?;
        tell("--zero").await?;
        load.run(gateway.address()).await?;
        tell("--dump").await?;
        all.push(Counts::read(&written.with_extension("1"), load.requests)?);
    }
    spans_arrived(&collector)?;
    Ok(all)
}

/// Tells the valgrind of the process `pid` what to do with its counts.
async fn control(what: &str, pid: u32) -> Result<(), String> {
    let done = Command::new("callgrind_control").args([what, &pid.to_string()]).output().await;
    let done = done.map_err(|error| format!("callgrind_control, which comes with valgrind: {error}"))?;
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("callgrind_control {what}: {}", String::from_utf8_lossy(&done.stderr).trim())),
    }
}

/// Prints a table; fails when telemetry costs more than it may.
#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
pub(super) fn report(args: &Overhead, all: &[Counts]) -> ExitCode {
    println!(
        "{} requests over {} connections, {:?}, counted in the gateway's own code; cycles are estimated from the columns before\n\n\
         | telemetry | instructions a request | misses of the first cache | of the last | cycles | |\n|---|--:|--:|--:|--:|--:|",
        args.requests(),
        args.connections,
        args.size
    );
    let mut kept = true;
    for (mode, counts) in args.modes().iter().zip(all) {
        let ratio = counts.cycles() / all[0].cycles();
        kept &= ratio <= PROCESSOR;
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio:.3} |",
            mode.name,
            counts.instructions,
            counts.misses,
            counts.far_misses,
            counts.cycles()
        );
    }
    let said = if kept { "ok" } else { "MISSED" };
    println!("\nallowed beside `{}`: cycles {PROCESSOR}: {said}", args.modes()[0].name);
    if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
