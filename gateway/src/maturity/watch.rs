//! Keeps the figures of components up to date while a program runs, off the path of requests.
//!
//! What cannot be evaluated keeps its last figures, whose date shows that they grow old, and is said once.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use throughline::telemetry::{Degraded, Sink};
use tokio::time::MissedTickBehavior;

use super::assess::assess;
use super::families::publish;
use super::file::Maturity;
use super::moment::now;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(5);
/// At every which look there is an evaluation though no file has changed: once a minute.
const EVERY: u32 = 12;

/// Components that are watched. Dropping the last handle ends it.
pub(crate) struct Watch {
    path: PathBuf,
    seen: Mutex<Seen>,
}

/// What was seen last.
#[derive(Default)]
struct Seen {
    /// The files that the last evaluation read, with what tells one version from another.
    files: Vec<(PathBuf, Version)>,
    looks: u32,
    problem: Option<Degraded>,
}

type Version = Option<(SystemTime, u64)>;

fn version(path: &Path) -> Version {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

// === impl Watch ===

impl Watch {
    /// Watches the components in `path` and shows their figures in `sink`.
    pub(crate) fn start(path: &Path, sink: &Sink) -> Arc<Self> {
        let watch = Arc::new(Self { path: path.to_owned(), seen: Mutex::default() });
        tokio::spawn(look_again_and_again(Arc::downgrade(&watch), sink.clone()));
        watch
    }

    /// Why the figures are not brought up to date, if they are not.
    pub(crate) fn problem(&self) -> Option<Degraded> {
        self.seen().problem.clone()
    }

    /// Evaluates if a file has changed or it is time to.
    fn look(&self, sink: &Sink) {
        let Some(registry) = sink.registry() else { return };
        {
            let mut seen = self.seen();
            let due = seen.looks.is_multiple_of(EVERY);
            seen.looks = seen.looks.wrapping_add(1);
            if !due && seen.files.iter().all(|(path, known)| version(path) == *known) {
                return;
            }
        }
        // Versions are taken first: what changes meanwhile is evaluated at the next look.
        let own = (self.path.clone(), version(&self.path));
        match Maturity::load(&self.path) {
            Ok(maturity) => {
                let files =
                    maturity.files().map(|path| (path.clone(), version(&path))).chain([own]).collect();
                publish(&assess(&maturity, now()), registry);
                self.seen().files = files;
                self.note(None);
            }
            Err(errors) => {
                let mut seen = self.seen();
                seen.files.retain(|(path, _)| *path != own.0);
                seen.files.push(own);
                drop(seen);
                // The place and the message; the excerpt of the file is for people at a terminal.
                let said = errors.to_string();
                self.note(Some(said.lines().next().unwrap_or_default().to_owned()));
            }
        }
    }

    fn note(&self, problem: Option<String>) {
        let mut seen = self.seen();
        match (&seen.problem, problem) {
            (None, None) => {}
            (Some(_), None) => {
                seen.problem = None;
                tracing::info!("components are evaluated again");
            }
            (Some(known), Some(reason)) if known.reason == reason => {}
            (known, Some(reason)) => {
                tracing::warn!("components are not evaluated, their last figures stay: {reason}");
                let since = known.as_ref().map_or_else(now, |known| known.since);
                seen.problem = Some(Degraded::new("maturity", reason, since));
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_again_and_again(watch: Weak<Watch>, sink: Sink) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(watch) = watch.upgrade() else { return };
        let (looking, sink) = (Arc::clone(&watch), sink.clone());
        if tokio::task::spawn_blocking(move || looking.look(&sink)).await.is_err() {
            watch.note(Some("a fault of the program ended the evaluation".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use throughline::telemetry::Telemetry;

    use super::*;

    const FILE: &str =
        "[evidence]\ncoverage = [\"c.info\"]\n[components.a]\ndescription = \"A\"\nstage = \"development\"\n";

    #[test]
    fn keeps_the_last_figures_of_a_file_that_breaks_and_recovers() {
        let dir = tempfile::tempdir().unwrap();
        let (path, report) = (dir.path().join("m.toml"), dir.path().join("c.info"));
        std::fs::write(&path, FILE).unwrap();
        std::fs::write(&report, "SF:a\nDA:1,1\nDA:2,0\nend_of_record\n").unwrap();
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let watch = Watch { path: path.clone(), seen: Mutex::default() };
        let coverage = |expected: &str| {
            watch.look(telemetry.sink());
            let page = telemetry.sink().render();
            assert!(
                page.contains(&format!("component_coverage_ratio{{component=\"a\"}} {expected}\n")),
                "{page}"
            );
        };
        coverage("0.5");
        std::fs::write(&report, "SF:a\nDA:1,1\nend_of_record\n").unwrap();
        coverage("1.0");
        std::fs::write(&path, "[components.a]\nstag = 1\n").unwrap();
        coverage("1.0");
        let problem = watch.problem().unwrap();
        assert!(
            problem.reason.contains("m.toml:2:1: unknown key `stag`, did you mean `stage`?"),
            "{problem:?}"
        );
        coverage("1.0");
        assert_eq!(watch.problem().unwrap().since, problem.since);
        std::fs::write(&path, FILE).unwrap();
        coverage("1.0");
        assert!(watch.problem().is_none());
        std::fs::remove_file(&report).unwrap();
        watch.look(telemetry.sink());
        assert!(
            !telemetry.sink().render().contains("component_coverage_ratio"),
            "what is not known is not shown"
        );
    }

    #[test]
    fn evaluates_every_so_often_though_nothing_has_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.toml");
        std::fs::write(&path, FILE).unwrap();
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        let registry = telemetry.sink().registry().unwrap();
        let watch = Watch { path, seen: Mutex::default() };
        let shows = || telemetry.sink().render().contains("component_stage{");
        let forget = || {
            let maturity = Maturity::load(&watch.path).unwrap();
            let mut status = assess(&maturity, now());
            status.components.clear();
            publish(&status, registry);
        };
        watch.look(telemetry.sink());
        assert!(shows());
        forget();
        for _ in 1..EVERY {
            watch.look(telemetry.sink());
            assert!(!shows(), "no file has changed");
        }
        watch.look(telemetry.sink());
        assert!(shows(), "a minute has passed");
    }
}
