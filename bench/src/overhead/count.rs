//! What the gateways do for a request, counted by valgrind's `callgrind` and not timed.
//!
//! It counts instructions and simulates the processor's caches. The sum of both is KCachegrind's estimate of cycles: one for an
//! instruction, ten more for a miss of the first cache, a hundred more for one of the last. What the kernel does, some two
//! fifths of the processor time, is not in it.

use std::process::ExitCode;
use std::time::Duration;

use tokio::process::Command;

use super::load::Load;
use super::peer::{self, Says};
use super::{FIRST, NO_SPANS, Overhead, PROCESSOR, SPANS_SENT, start};

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
    fn read(text: &str, requests: usize) -> Result<Self, String> {
        let line = |name| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        let sums = line("totals: ").split_whitespace();
        let sums: Vec<(&str, f64)> = line("events: ")
            .split_whitespace()
            .zip(sums)
            .filter_map(|(event, sum)| Some((event, sum.parse().ok()?)))
            .collect();
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
            false => Err("valgrind has counted nothing".to_owned()),
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
    let requests = args.requests();
    let load = Load { connections: args.connections.max(1), interval: Duration::ZERO, size: args.size };
    let mut all = Vec::new();
    for (at, mode) in args.modes().iter().enumerate() {
        eprintln!("{}: {FIRST} requests to begin with, then {requests} that are counted", mode.name);
        let written = folder.path().join(at.to_string());
        let launcher = ["valgrind", "--quiet", "--tool=callgrind", "--cache-sim=yes"].map(str::to_owned);
        let file = format!("--callgrind-out-file={}", written.display());
        let launcher: Vec<_> = launcher.into_iter().chain([file]).collect();
        let receiver = mode.collector.map(|_| collector.address());
        let gateway = start(mode, args.size, provider.address(), receiver, &launcher).await?;
        let dump = async || {
            // Valgrind is slow.
            tokio::time::sleep(4 * SPANS_SENT).await;
            dump(gateway.pid()?).await
        };
        let mut clients = load.connect(gateway.address()).await?;
        clients.send(FIRST).await?;
        dump().await?;
        let before = collector.served();
        clients.send(requests).await?;
        dump().await?;
        if receiver.is_some() && collector.served() == before {
            return Err(NO_SPANS.to_owned());
        }
        // The second one: with the first the counts began anew.
        let written = written.with_extension("2");
        let text = std::fs::read_to_string(&written);
        let text = text
            .map_err(|error| format!("valgrind has written no counts to {}: {error}", written.display()))?;
        all.push(Counts::read(&text, requests)?);
    }
    Ok(all)
}

/// Has the valgrind of the process `pid` write its counts, and count anew. They find each other by a name that is made of these
/// variables, of which the gateway has none.
async fn dump(pid: u32) -> Result<(), String> {
    let mut command = Command::new("callgrind_control");
    for name in ["LOGNAME", "USER", "HOST", "HOSTNAME", "TMPDIR"] {
        command.env_remove(name);
    }
    // How it ends says nothing: whether there are counts, the file does.
    let done = command.args(["--dump", &pid.to_string()]).output().await;
    done.map_err(|error| format!("callgrind_control, which comes with valgrind: {error}"))?;
    Ok(())
}

/// Prints a table; fails when telemetry costs more than it may.
#[expect(clippy::print_stdout, reason = "the table is what this command prints")]
pub(super) fn report(args: &Overhead, all: &[Counts]) -> ExitCode {
    println!(
        "{} requests over {} connections, {:?}, counted in the gateway's own code; cycles are estimated from the columns before\n\n\
         | telemetry | instructions a request | misses of the first cache | of the last | cycles | |\n|---|--:|--:|--:|--:|--:|",
        args.requests(),
        args.connections.max(1),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// As valgrind 3.19 writes it.
    const WRITTEN: &str = "desc: Trigger: dump\n\nevents: Ir Dr Dw I1mr D1mr D1mw ILmr DLmr DLmw\n\
        fn=(1) f\n1 9 9 9 9 9 9 9 9 9\ntotals: 2000 300 200 10 6 4 2 1 1\n";

    #[test]
    fn what_was_counted_is_of_one_request() {
        let counts = Counts::read(WRITTEN, 2).unwrap();
        assert_eq!((counts.instructions, counts.misses, counts.far_misses), (1000.0, 10.0, 2.0));
        assert_eq!(counts.cycles(), 1300.0);
    }

    #[test]
    fn no_counts_are_none() {
        let nothing = WRITTEN.replace("totals: 2000", "totals: 0");
        for text in ["", &nothing] {
            assert!(Counts::read(text, 2).is_err_and(|said| said.contains("nothing")));
        }
    }
}
