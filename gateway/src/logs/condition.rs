//! Whether log lines get out: what was lost, and since when the target does not work.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use throughline::telemetry::{Clock, Counter, Degraded, Family, Label as _, Registry, Tick};

static LOST: Family =
    Family::counter("apm_log_lines_dropped", "Log lines that were not written, by reason", &["reason"]);

pub(crate) static FAMILIES: &[&Family] = &[&LOST];

throughline::labels! {
    /// Why a line was not written.
    pub(crate) enum Loss {
        /// More came than could be written.
        QueueFull = "queue_full",
        /// The target did not take it.
        WriteFailed = "write_failed",
        /// It may have held a secret. A line that says so is written in its place.
        NotRedacted = "not_redacted",
    }
}

/// How long one write may take before the target counts as stuck.
const STUCK: Duration = Duration::from_secs(2);

/// Whether log lines get out. Shared by everything that logs and the thread that writes.
#[derive(Debug)]
pub(super) struct Condition {
    clock: Clock,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    lost: [u64; Loss::ALL.len()],
    /// Lines that were lost and that the log does not say so of yet.
    unsaid: u64,
    counters: Vec<Counter>,
    sick: Option<(SystemTime, String)>,
    /// Since when the write that is under way is.
    writing: Option<(Tick, SystemTime)>,
}

// === impl Condition ===

impl Condition {
    pub(super) fn new(clock: Clock) -> Self {
        Self { clock, state: Mutex::default() }
    }

    /// Counts in `registry`, also what was lost before.
    pub(super) fn counts_in(&self, registry: &Registry) {
        let mut state = self.lock();
        state.counters = Loss::ALL.iter().map(|loss| registry.counter(&LOST, &[loss.as_str()])).collect();
        for (counter, lost) in state.counters.iter().zip(state.lost) {
            (0..lost).for_each(|_| counter.inc());
        }
    }

    /// `lines` were lost.
    pub(super) fn lose(&self, loss: Loss, lines: usize) {
        let mut state = self.lock();
        state.lost[loss.index()] += lines as u64;
        if loss != Loss::NotRedacted {
            state.unsaid += lines as u64;
        }
        if let Some(counter) = state.counters.get(loss.index()) {
            (0..lines).for_each(|_| counter.inc());
        }
    }

    /// The target does not work. What is said again keeps its first moment.
    pub(super) fn sick(&self, reason: String) {
        let mut state = self.lock();
        let since = state.sick.as_ref().map_or_else(now, |(since, _)| *since);
        state.sick = Some((since, reason));
    }

    /// The target works.
    pub(super) fn well(&self) {
        self.lock().sick = None;
    }

    pub(super) fn is_sick(&self) -> bool {
        self.lock().sick.is_some()
    }

    /// How many lines were lost that the log does not tell of yet.
    pub(super) fn unsaid(&self) -> u64 {
        self.lock().unsaid
    }

    /// The log tells of `lines` that were lost.
    pub(super) fn said(&self, lines: u64) {
        let mut state = self.lock();
        state.unsaid = state.unsaid.saturating_sub(lines);
    }

    /// A write begins.
    pub(super) fn begins_to_write(&self) {
        self.lock().writing = Some((self.clock.now(), now()));
    }

    /// The write is over.
    pub(super) fn has_written(&self) {
        self.lock().writing = None;
    }

    /// The part of health that is about logs, if something is wrong.
    pub(super) fn degraded(&self) -> Option<Degraded> {
        let state = self.lock();
        if let Some((began, since)) = state.writing
            && self.clock.now().since(began) >= STUCK
        {
            let reason = "the log's target takes nothing: lines are kept while there is room, then lost";
            return Some(Degraded::new("logs", reason, since));
        }
        state.sick.clone().map(|(since, reason)| Degraded::new("logs", reason, since))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The time of a line.
#[expect(clippy::disallowed_methods, reason = "a date is meant, for people to read")]
pub(super) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use throughline::telemetry::Telemetry;

    use super::*;

    #[test]
    fn losses_are_counted_also_those_from_before_there_were_metrics() {
        let condition = Condition::new(Clock::Monotonic);
        condition.lose(Loss::QueueFull, 2);
        let telemetry = Telemetry::builder().without_endpoint().local().init();
        condition.counts_in(telemetry.sink().registry().unwrap());
        condition.lose(Loss::QueueFull, 1);
        condition.lose(Loss::WriteFailed, 4);
        let page = telemetry.sink().render();
        for line in [
            "apm_log_lines_dropped_total{reason=\"queue_full\"} 3\n",
            "apm_log_lines_dropped_total{reason=\"write_failed\"} 4\n",
            "apm_log_lines_dropped_total{reason=\"not_redacted\"} 0\n",
        ] {
            assert!(page.contains(line), "{page}");
        }
        assert_eq!(condition.unsaid(), 7);
        condition.said(5);
        assert_eq!(condition.unsaid(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_does_not_end_shows_and_so_does_its_end() {
        let condition = Condition::new(Clock::Tokio);
        condition.begins_to_write();
        tokio::time::advance(STUCK / 2).await;
        assert_eq!(condition.degraded(), None);
        tokio::time::advance(STUCK / 2).await;
        let degraded = condition.degraded().unwrap();
        assert_eq!(degraded.part, "logs");
        assert!(degraded.reason.contains("takes nothing"), "{degraded:?}");
        condition.has_written();
        assert_eq!(condition.degraded(), None);
    }

    #[test]
    fn what_is_said_again_keeps_its_first_moment() {
        let condition = Condition::new(Clock::Monotonic);
        condition.sick("full".to_owned());
        let first = condition.degraded().unwrap();
        condition.sick("gone".to_owned());
        let again = condition.degraded().unwrap();
        assert_eq!((again.reason.as_str(), again.since), ("gone", first.since));
        condition.well();
        assert_eq!(condition.degraded(), None);
    }
}
