//! Ctrl-C and its kin, as a question: services are stopped by whoever started them, so the process may not just die.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::failure::Failure;

/// Between two looks. Short beside what is waited for.
const PAUSE: Duration = Duration::from_millis(50);

/// Whether the run is to end early.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

// === impl Interrupt ===

impl Interrupt {
    /// From here on the signals that end a program only make [`Interrupt::check`] fail.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupt.0))
                .map_err(|error| Failure::missing(format!("cannot listen for signal {signal}: {error}")))?;
        }
        Ok(interrupt)
    }

    /// # Errors
    /// When the run is to end.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.0.load(Ordering::SeqCst) { Err(Failure::new("interrupted")) } else { Ok(()) }
    }

    /// Asks again and again until there is an answer, `None` if `patience` ends first.
    ///
    /// # Errors
    /// Those of `ask`, and when the run is to end.
    #[expect(
        clippy::disallowed_methods,
        reason = "other processes live in real time, and nothing here is async"
    )]
    pub(crate) fn poll<T>(
        &self,
        patience: Duration,
        mut ask: impl FnMut() -> Result<Option<T>, Failure>,
    ) -> Result<Option<T>, Failure> {
        let begun = Instant::now();
        loop {
            self.check()?;
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
            if begun.elapsed() >= patience {
                return Ok(None);
            }
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = Interrupt::default().poll(Duration::from_secs(60), || {
            asked += 1;
            Ok((asked == 2).then_some("there"))
        });
        assert_eq!((answer.unwrap(), asked), (Some("there"), 2));
    }

    #[test]
    fn asks_once_even_without_patience() {
        assert_eq!(Interrupt::default().poll(Duration::ZERO, || Ok(None::<()>)).unwrap(), None);
    }

    #[test]
    fn gives_up_when_the_run_is_to_end() {
        let interrupt = Interrupt::default();
        interrupt.0.store(true, Ordering::SeqCst);
        let failure = interrupt.poll(Duration::from_secs(60), || Ok(None::<()>)).unwrap_err();
        assert_eq!(failure.to_string(), "interrupted");
    }
}
