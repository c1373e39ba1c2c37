//! Whether an embedder works: said in the log, and to whoever asks how a program is.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use throughline::{Error, Kind};

use crate::http_call::Refusal;

/// Failures in a row after which an embedder does not work.
const FAILURES: u32 = 5;
/// Refused texts in a row after which it is hardly the texts: some refuse a key, or a model's name, as they refuse a text.
const REFUSALS: u32 = 20;

/// What is known of an embedder that is asked over a network. It is down after five failures in a row, or once it is
/// left alone, until an embedding comes again. That it refuses a text is none, unless it does so 20 times in a row.
pub struct EmbedderHealth {
    name: String,
    state: Mutex<State>,
}

/// Why questions are not embedded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EmbedderDown {
    /// Since when, by the wall clock.
    pub since: SystemTime,
    /// What the last call failed with. It holds nothing secret and nothing of a question.
    pub reason: String,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    refusals: u32,
    /// What the last call failed with that was made.
    last: Option<String>,
    down: Option<EmbedderDown>,
}

/// Whether a provider has refused the text that it was given: one that is too long, or that it does not want. That says
/// nothing of how it is, and must not keep it from being asked for others'.
///
/// A model that is not there (404) or a form that is not known (415) is so whatever the text.
#[must_use]
pub fn is_of_the_text(error: &Error) -> bool {
    error.cause::<Refusal>().is_some_and(|refusal| matches!(refusal.status, 400 | 413 | 422))
}

// === impl EmbedderHealth ===

impl EmbedderHealth {
    /// Of the embedder of the model called `name`: nothing bad is known yet.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), state: Mutex::default() }
    }

    /// The model whose questions it embeds.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Why questions are not embedded; `None` when they are.
    #[must_use]
    pub fn down(&self) -> Option<EmbedderDown> {
        self.lock().down.clone()
    }

    /// Whether it has refused so many texts in a row that it is hardly the texts.
    #[must_use]
    pub fn refuses_every_text(&self) -> bool {
        self.lock().refusals >= REFUSALS
    }

    /// An embedding has come.
    pub(super) fn works(&self) {
        let mut state = self.lock();
        if std::mem::take(&mut *state).down.is_some() {
            tracing::info!(model = self.name, "questions are embedded again");
        }
    }

    /// None has come.
    pub(super) fn failed(&self, error: &Error) {
        // Of a caller who goes away nothing is learned.
        if error.kind() == Kind::Cancelled {
            return;
        }
        let mut state = self.lock();
        if is_of_the_text(error) {
            state.refusals = state.refusals.saturating_add(1);
            if state.refusals < REFUSALS {
                tracing::warn!(model = self.name, reason = %error, "a question could not be embedded");
                return;
            }
            state.failures = FAILURES;
        }
        let is_left_alone = error.kind() == Kind::CircuitOpen;
        if !is_left_alone {
            state.failures = state.failures.saturating_add(1);
            state.last = Some(error.to_string());
            tracing::warn!(model = self.name, reason = %error, "a question could not be embedded");
        }
        if is_left_alone || state.failures >= FAILURES {
            self.is_down(&mut state);
        }
    }

    fn is_down(&self, state: &mut State) {
        let reason = state.last.clone().unwrap_or_else(|| "it is left alone".to_owned());
        if state.down.is_none() {
            tracing::warn!(model = self.name, reason, "the embedder fails: similar questions are not found");
        }
        let since = state.down.as_ref().map_or_else(wall_clock, |down| down.since);
        state.down = Some(EmbedderDown { since, reason });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EmbedderHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.down() {
            None => write!(f, "EmbedderHealth({}, up)", self.name),
            Some(down) => write!(f, "EmbedderHealth({}, down: {})", self.name, down.reason),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a date is meant, for people to read")]
fn wall_clock() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn failed(health: &EmbedderHealth, kind: Kind, message: &'static str) -> Option<String> {
        health.failed(&Error::new(kind, message));
        health.down().map(|down| down.reason)
    }

    #[test]
    fn it_is_down_after_five_failures_in_a_row_until_one_goes_well() {
        let health = EmbedderHealth::new("faq");
        for _ in 1..FAILURES {
            assert_eq!(failed(&health, Kind::Upstream, "the provider answered 500"), None);
        }
        health.works();
        for _ in 1..FAILURES {
            assert_eq!(failed(&health, Kind::Upstream, "the provider answered 500"), None);
        }
        let reason = failed(&health, Kind::Timeout, "no answer in time");
        assert_eq!(reason.as_deref(), Some("no answer in time"));
        let since = health.down().unwrap().since;
        failed(&health, Kind::InvalidInput, "the provider refused the request with 404");
        let reason = "the provider refused the request with 404".to_owned();
        assert_eq!(
            health.down(),
            Some(EmbedderDown { since, reason }),
            "the first moment and the last reason"
        );
        health.works();
        assert_eq!(health.down(), None);
    }

    #[test]
    fn one_that_is_left_alone_is_down_for_what_it_failed_with() {
        let health = EmbedderHealth::new("faq");
        failed(&health, Kind::Upstream, "the provider answered 500");
        let reason = failed(&health, Kind::CircuitOpen, "circuit open for another 9.9s");
        assert_eq!(reason.as_deref(), Some("the provider answered 500"));
        let fresh = EmbedderHealth::new("faq");
        assert_eq!(failed(&fresh, Kind::CircuitOpen, "circuit open").as_deref(), Some("it is left alone"));
    }

    fn refused(status: u16) -> Error {
        let status = StatusCode::from_u16(status).expect("it is one");
        crate::http_call::refused(status, &HeaderMap::new(), b"{}")
    }

    #[test]
    fn a_text_that_is_refused_says_nothing_of_it_and_everything_else_does() {
        for (status, says_nothing) in [
            (400, true),
            (413, true),
            (422, true),
            (401, false),
            (403, false),
            (404, false),
            (408, false),
            (415, false),
            (429, false),
            (500, false),
            (503, false),
        ] {
            assert_eq!(is_of_the_text(&refused(status)), says_nothing, "{status}");
            let health = EmbedderHealth::new("faq");
            (0..FAILURES).for_each(|_| health.failed(&refused(status)));
            assert_eq!(health.down().is_none(), says_nothing, "{status}");
        }
        assert!(!is_of_the_text(&Error::new(Kind::InvalidInput, "a text without a word has no direction")));
    }

    #[test]
    fn a_text_that_is_refused_between_failures_does_not_make_good_for_them() {
        let health = EmbedderHealth::new("faq");
        for _ in 1..FAILURES {
            health.failed(&refused(500));
            health.failed(&refused(400));
        }
        assert_eq!(health.down(), None);
        health.failed(&refused(500));
        assert_eq!(health.down().unwrap().reason, "the provider answered 500");
    }

    #[test]
    fn one_that_refuses_every_text_is_down_until_an_embedding_comes() {
        let health = EmbedderHealth::new("faq");
        let refuse = |times| (0..times).for_each(|_| health.failed(&refused(400)));
        refuse(REFUSALS - 1);
        health.works();
        refuse(REFUSALS - 1);
        assert!(!health.refuses_every_text() && health.down().is_none());
        refuse(1);
        assert!(health.refuses_every_text());
        assert_eq!(health.down().unwrap().reason, "the provider refused the request with 400");
        health.works();
        assert!(!health.refuses_every_text() && health.down().is_none());
    }

    #[test]
    fn a_caller_who_goes_away_says_nothing_of_it() {
        let health = EmbedderHealth::new("faq");
        for _ in 0..2 * FAILURES {
            assert_eq!(failed(&health, Kind::Cancelled, "the caller went away"), None);
        }
    }
}
