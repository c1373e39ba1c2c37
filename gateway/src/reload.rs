//! Reads the configuration anew, at SIGHUP and when its file has changed, and serves by it.
//!
//! A file with a mistake changes nothing: the configuration before it is served on, and the metrics, the log and `/readyz`
//! say so until a good one comes.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use throughline::telemetry::{Degraded, Family, Gauge};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::MissedTickBehavior;

use crate::cli::Listen;
use crate::config::{Config, Marks};
use crate::gateway::Gateway;
use crate::serve;
use crate::served::Served;
use crate::workflows;

static SUCCESSFUL: Family = Family::gauge(
    "config_last_reload_successful",
    "Whether the configuration that was read last is the one that is served (1) or was refused (0)",
    &[],
);
static SUCCESS_TIME: Family = Family::gauge(
    "config_last_reload_success_timestamp_seconds",
    "When the configuration that is served was read",
    &[],
);

pub(crate) static FAMILIES: &[&Family] = &[&SUCCESSFUL, &SUCCESS_TIME];

/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What takes effect at the next start only: a table, and the keys of it where it is not all of them.
const AT_START: [(&str, &[&str]); 4] = [
    (
        "server",
        &["listen", "allow_public_without_auth", "max_connections", "header_timeout", "drain_timeout"],
    ),
    ("telemetry", &[]),
    ("log", &[]),
    ("maturity", &[]),
];

/// The file of a configuration, and which version of it was read.
pub(crate) struct Source {
    /// The file; none is the built-in configuration.
    pub(crate) path: Option<PathBuf>,
    seen: Seen,
}

/// What tells one version of a file from another: device, number, time of change in nanoseconds, length.
type Version = (u64, u64, i64, i64, u64);

/// Which versions of a file were seen.
#[derive(Debug, Default)]
struct Seen {
    read: Option<Version>,
    last: Option<Version>,
}

/// How reading went last.
pub(crate) struct Outcome {
    gauges: Option<(Gauge, Gauge)>,
    failed: Mutex<Option<Degraded>>,
}

/// Reads a configuration anew, again and again.
struct Reload {
    source: Source,
    listen: Listen,
    started: Config,
    gateway: Arc<Gateway>,
    outcome: Arc<Outcome>,
}

/// Reads the configuration anew from now on. `started` is the one that is served; `listen` is what the command line said.
pub(crate) fn start(source: Source, listen: Listen, started: Config, gateway: &Arc<Gateway>) {
    let gateway = Arc::clone(gateway);
    let outcome = Arc::new(Outcome::new(&gateway));
    let asked = Arc::clone(&outcome);
    gateway.telemetry.also_ask(move || asked.failed().clone().into_iter().collect());
    let hang_up = signal(SignalKind::hangup())
        .inspect_err(|error| {
            tracing::warn!(%error, "SIGHUP cannot be caught: the configuration is read anew when its file changes");
        })
        .ok();
    let reload = Reload { source, listen, started, gateway, outcome };
    tokio::spawn(again_and_again(reload, hang_up));
}

async fn again_and_again(mut reload: Reload, mut hang_up: Option<Signal>) {
    let mut looks = tokio::time::interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let asked = tokio::select! {
            () = hung_up(&mut hang_up) => true,
            _ = looks.tick() => false,
        };
        // Files may be slow, and what is built is not built at once.
        let work = tokio::task::spawn_blocking(move || {
            reload.run(asked);
            reload
        });
        match work.await {
            Ok(done) => reload = done,
            Err(_) => {
                tracing::error!(
                    "a fault of the program: the configuration is not read any more until a restart"
                );
                return;
            }
        }
    }
}

async fn hung_up(signal: &mut Option<Signal>) {
    let came = match signal {
        Some(signal) => signal.recv().await,
        None => None,
    };
    if came.is_none() {
        std::future::pending::<()>().await;
    }
}

fn version(path: &Path) -> Option<Version> {
    let file = path.metadata().ok()?;
    Some((file.dev(), file.ino(), file.mtime(), file.mtime_nsec(), file.len()))
}

#[expect(clippy::disallowed_methods, reason = "people and alerts read dates")]
fn now() -> SystemTime {
    SystemTime::now()
}

// === impl Source ===

impl Source {
    /// The file at `path`, as it is now.
    pub(crate) fn new(path: Option<PathBuf>) -> Self {
        let read = path.as_deref().and_then(version);
        Self { path, seen: Seen { read, last: read } }
    }

    fn version(&self) -> Option<Version> {
        self.path.as_deref().and_then(version)
    }
}

// === impl Seen ===

impl Seen {
    /// Whether the file is to be read: it is not the version that was read last, and stands as it did at the look before, so
    /// that a file that is being written is left alone. One that is gone is left alone as well: it will be back.
    fn look(&mut self, now: Option<Version>) -> bool {
        let settled = now.is_some() && now == self.last;
        self.last = now;
        settled && now != self.read
    }
}

// === impl Reload ===

impl Reload {
    /// Reads the configuration if somebody `asked` for it, or if the file has changed.
    fn run(&mut self, asked: bool) {
        // Taken before it is read: what is changed meanwhile is seen at the next look.
        let now = self.source.version();
        if !self.source.seen.look(now) && !asked {
            return;
        }
        self.source.seen.read = now;
        match self.read() {
            Ok((config, served)) => self.swap(&config, served),
            Err(reason) => self.outcome.refused(&reason),
        }
    }

    fn read(&self) -> Result<(Config, Served), String> {
        let config = serve::configuration(self.source.path.as_deref(), &self.listen)?;
        let before = self.gateway.served();
        let built = workflows::build_beside(&config, &before.parts).map_err(|error| error.to_string())?;
        let served = Served::new(&config, built, self.started.server.listen);
        Ok((config, served))
    }

    fn swap(&self, config: &Config, served: Served) {
        let kept = served.parts.kept_of(&self.gateway.served().parts);
        let models = served.models.len();
        self.gateway.serve(served);
        self.outcome.accepted();
        tracing::info!(models, unchanged = kept, "the configuration was read anew and is served");
        let left = self.not_applied(config);
        if !left.is_empty() {
            tracing::warn!(
                keys = left.join(", "),
                "a part of the configuration takes effect at the next start only"
            );
        }
    }

    /// What is written otherwise than at the start and not applied.
    fn not_applied(&self, config: &Config) -> Vec<String> {
        let (now, then) = (&config.marks, &self.started.marks);
        let mut left = Vec::new();
        for (table, keys) in AT_START {
            if keys.is_empty() && now.written(table, None) != then.written(table, None) {
                left.push(format!("[{table}]"));
            }
            let differs = |key: &&&str| now.written(table, Some(key)) != then.written(table, Some(key));
            left.extend(keys.iter().filter(differs).map(|key| format!("{table}.{key}")));
        }
        // Its tokens are taken over at once; a port is neither opened nor closed.
        let port = |marks: &Marks| {
            (marks.written("admin", None).is_some(), marks.written("admin", Some("listen")).cloned())
        };
        if port(now) != port(then) {
            left.push("admin.listen".to_owned());
        }
        left
    }
}

// === impl Outcome ===

impl Outcome {
    /// The configuration that the program has started with is good.
    fn new(gateway: &Gateway) -> Self {
        let gauges = gateway.sink().registry();
        let gauges =
            gauges.map(|registry| (registry.gauge(&SUCCESSFUL, &[]), registry.gauge(&SUCCESS_TIME, &[])));
        let outcome = Self { gauges, failed: Mutex::default() };
        outcome.accepted();
        outcome
    }

    fn accepted(&self) {
        *self.failed() = None;
        if let Some((successful, time)) = &self.gauges {
            let now = now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            successful.set(1);
            time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        }
    }

    /// The first problem is said in health, without the excerpt of the file, which is for people at a terminal.
    fn refused(&self, reason: &str) {
        let first = reason.lines().next().unwrap_or_default().to_owned();
        tracing::error!("the configuration is not applied, the one before it is still served: {first}");
        if let Some((successful, _)) = &self.gauges {
            successful.set(0);
        }
        let mut failed = self.failed();
        let since = failed.as_ref().map_or_else(now, |failed| failed.since);
        *failed = Some(Degraded::new("configuration", first, since));
    }

    fn failed(&self) -> MutexGuard<'_, Option<Degraded>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Option<Version> {
        Some((1, 2, seconds, 0, 100))
    }

    #[test]
    fn a_file_is_read_once_it_has_changed_and_stands_still() {
        let mut seen = Seen { read: at(1), last: at(1) };
        assert!(!seen.look(at(1)), "nothing has changed");
        assert!(!seen.look(at(2)), "it may still be written to");
        assert!(!seen.look(at(3)), "it is");
        assert!(seen.look(at(3)));
        seen.read = at(3);
        assert!(!seen.look(at(3)), "it was read");
    }

    #[test]
    fn a_file_that_is_gone_is_waited_for() {
        let mut seen = Seen { read: at(1), last: at(1) };
        assert!(!seen.look(None) && !seen.look(None));
        assert!(!seen.look(at(1)) && !seen.look(at(1)), "it is the one that was read");
        assert!(!seen.look(None) && !seen.look(at(2)));
        assert!(seen.look(at(2)));
    }

    #[test]
    fn every_version_of_a_file_is_told_from_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.toml");
        assert_eq!(version(&path), None);
        std::fs::write(&path, "a").unwrap();
        let first = version(&path);
        std::fs::write(&path, "ab").unwrap();
        let second = version(&path);
        std::fs::write(dir.path().join("new"), "ab").unwrap();
        std::fs::rename(dir.path().join("new"), &path).unwrap();
        let third = version(&path);
        assert!(first.is_some() && first != second && second != third, "{first:?} {second:?} {third:?}");
    }
}
