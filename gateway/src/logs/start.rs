//! Starts and ends the log.

use std::io::{IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::Duration;

use throughline::telemetry::{Clock, Degraded, Registry};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::condition::Condition;
use super::layer::TakeDown;
use super::level;
use super::line::{Format, Lines};
use super::repeats::Repeats;
use super::target::{Output, Target};
use super::writer::{Queue, Writer, redact};
use crate::config;

/// How long the end of the program waits for the log.
const PATIENCE: Duration = Duration::from_secs(1);

/// The signal for a file that has reached the limit on file sizes. It ends a program that does not listen.
const SIGXFSZ: i32 = 25;

/// The log of this program. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Logs {
    queue: Queue,
    condition: Arc<Condition>,
    in_file: bool,
    /// Whether every request gets a line.
    pub(crate) access: bool,
}

// === impl Logs ===

impl Logs {
    /// Starts the log as `log` says, in `format` if the command line names one. It never fails: a target that does not work
    /// is said on standard error and in health, and is tried again. The demonstration shows its report and is `quiet`.
    pub(crate) fn start(log: &config::Log, format: Option<Format>, quiet: bool) -> Self {
        let (filter, complaints) = level::filter(log.level, quiet, &|name| std::env::var(name).ok());
        complaints.iter().for_each(|complaint| complain(complaint));
        let clock = Clock::Monotonic;
        let (origin, condition) = (clock.now(), Arc::new(Condition::new(clock)));
        let repeats = Arc::new(Repeats::new(log.repeats));
        let target = log.file.clone().map_or(Target::Stderr, Target::File);
        let in_file = target != Target::Stderr;
        let terminal = !in_file && std::io::stderr().is_terminal();
        let format =
            format.or(log.format).unwrap_or(if terminal || quiet { Format::Text } else { Format::Json });
        let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let mut output = Output::new(target);
        if let Err(reason) = output.probe() {
            complain(&reason);
            condition.sick(reason);
        }
        let writer = Writer {
            lines: Lines { format, colours, redact },
            output,
            repeats: Arc::clone(&repeats),
            condition: Arc::clone(&condition),
            clock,
            origin,
        };
        let queue = writer.start();
        let layer = TakeDown { queue: queue.clone(), repeats, clock, origin };
        tracing_subscriber::registry().with(filter).with(layer).init();
        Self { queue, condition, in_file, access: log.access }
    }

    /// What does not work, if something does not.
    pub(crate) fn degraded(&self) -> Option<Degraded> {
        self.condition.degraded()
    }

    /// Counts lines that are lost in `registry`.
    pub(crate) fn counts_in(&self, registry: &Registry) {
        self.condition.counts_in(registry);
    }

    /// Opens the file anew at every SIGHUP, and outlives the limit on file sizes.
    pub(crate) fn listen_for_signals(&self) {
        if !self.in_file {
            return;
        }
        let too_large = signal(SignalKind::from_raw(SIGXFSZ));
        let hang_up = signal(SignalKind::hangup());
        let queue = self.queue.clone();
        match (hang_up, too_large) {
            (Ok(mut hang_up), Ok(too_large)) => {
                tokio::spawn(async move {
                    // Held, not waited for: the write that caused it says so.
                    let _too_large = too_large;
                    while hang_up.recv().await.is_some() {
                        queue.reopen();
                    }
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, "SIGHUP cannot be caught: a file that is rotated is found all the same");
            }
        }
    }

    /// Writes what is left.
    pub(crate) fn flush(&self) {
        self.queue.flush(PATIENCE);
    }
}

/// Words on standard error that are no log line. One that nobody reads must not end the program.
pub(crate) fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "{message}");
}
