//! A machine that several tasks use at once.

use std::sync::PoisonError;
use std::time::Duration;

use super::machine::{Ended, Machine, Refusal, Settled, Ticket};
use super::rules::Rules;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// One short lock a call: while the circuit lets everything through, it is not asked but read.
#[derive(Debug)]
pub(super) struct Gate {
    machine: Mutex<Machine>,
    /// The generation that lets every call through, or 0.
    passing: AtomicU64,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(rules: Rules, seed: u64) -> Self {
        let machine = Machine::new(rules, seed);
        let passing = AtomicU64::new(machine.passing().unwrap_or(0));
        Self { machine: Mutex::new(machine), passing }
    }

    /// A call that is let through just as another one opens the circuit has a ticket of the time before, and
    /// does not count.
    pub(super) fn admit(&self, now: Duration) -> Result<Ticket, Refusal> {
        match self.passing.load(Ordering::Acquire) {
            0 => self.with(|machine| machine.admit(now)),
            generation => Ok(Ticket { generation, trial: false }),
        }
    }

    pub(super) fn finish(&self, now: Duration, ticket: Ticket, ended: Ended) -> Settled {
        self.with(|machine| machine.finish(now, ticket, ended))
    }

    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Machine) -> T) -> T {
        let mut machine = self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let done = work(&mut machine);
        let passing = machine.passing().unwrap_or(0);
        // Only who holds the lock writes it.
        if self.passing.load(Ordering::Relaxed) != passing {
            self.passing.store(passing, Ordering::Release);
        }
        done
    }
}
