//! The books of a budget: what came in and what was spent, by tenth of the window.
//!
//! A deposit is one compare-and-swap, since every success makes one. Withdrawals are rare and take turns,
//! so that two can never spend the same token. Time is a number of nanoseconds since the budget was made.

use std::sync::PoisonError;

use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU64, Ordering};

/// One whole token, in the unit of the books.
pub(crate) const TOKEN: u64 = 1_000_000;

/// A window has ten steps. One more is kept, since the step that is under way is not over: withdrawals are
/// then bounded in *every* stretch of time as long as the window, not only in those that begin with a step.
const SLOTS: usize = 11;

/// What a ledger grants, in millionths of a token and nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    /// For each deposit of the window.
    pub(crate) per_deposit: u64,
    /// For each window, whatever was deposited.
    pub(crate) floor: u64,
    /// How long a deposit counts. At least ten.
    pub(crate) window_nanos: u64,
}

pub(crate) struct Ledger {
    terms: Terms,
    /// Per step: its number's lower half in the upper 32 bits, its deposits in the lower.
    deposits: [AtomicU64; SLOTS],
    spent: Mutex<Spent>,
}

/// Withdrawals by step, up to the latest step that any withdrawal has seen.
struct Spent {
    step: u64,
    slots: [u64; SLOTS],
}

impl Ledger {
    pub(crate) fn new(terms: Terms) -> Self {
        Self {
            terms,
            deposits: std::array::from_fn(|_| AtomicU64::new(0)),
            spent: Mutex::new(Spent { step: 0, slots: [0; SLOTS] }),
        }
    }

    /// Counts one success. One that comes a whole window late counts for nothing.
    pub(crate) fn deposit(&self, now: u64) {
        let step = self.step(now);
        let slot = &self.deposits[place(step)];
        let mut old = slot.load(Ordering::Relaxed);
        loop {
            let new = match age(step, old) {
                Some(0) if old & COUNT == COUNT => return,
                Some(0) => old + 1,
                // What is there has left the window.
                Some(_) => tag(step) | 1,
                None => return,
            };
            match slot.compare_exchange(old, new, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => old = changed,
            }
        }
    }

    /// Takes a token if there is one, and says in which step, for [`Ledger::give_back`].
    pub(crate) fn withdraw(&self, now: u64) -> Option<u64> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.move_on(self.step(now));
        if self.balance(&spent) < TOKEN {
            return None;
        }
        let step = spent.step;
        spent.slots[place(step)] += 1;
        Some(step)
    }

    /// Undoes a withdrawal, unless it has left the window already.
    pub(crate) fn give_back(&self, step: u64) {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.step - step < SLOTS as u64 {
            spent.slots[place(step)] -= 1;
        }
    }

    /// Whole tokens that could be withdrawn now.
    pub(crate) fn available(&self, now: u64) -> u64 {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        spent.move_on(self.step(now));
        self.balance(&spent) / TOKEN
    }

    fn balance(&self, spent: &Spent) -> u64 {
        let counted = |slot: &AtomicU64| {
            let slot = slot.load(Ordering::Relaxed);
            age(spent.step, slot).filter(|age| u64::from(*age) < SLOTS as u64).map_or(0, |_| slot & COUNT)
        };
        let deposits: u64 = self.deposits.iter().map(counted).sum();
        let granted = deposits.saturating_mul(self.terms.per_deposit).saturating_add(self.terms.floor);
        granted.saturating_sub(spent.slots.iter().sum::<u64>().saturating_mul(TOKEN))
    }

    fn step(&self, now: u64) -> u64 {
        now / (self.terms.window_nanos / 10)
    }
}

impl Spent {
    /// Forgets what has left the window. Clocks of threads may differ by a moment: it never goes back.
    fn move_on(&mut self, step: u64) {
        let passed = step.saturating_sub(self.step).min(SLOTS as u64);
        for passed in 0..passed {
            self.slots[place(step - passed)] = 0;
        }
        self.step = self.step.max(step);
    }
}

const COUNT: u64 = u32::MAX as u64;

fn tag(step: u64) -> u64 {
    step << 32
}

/// How many steps before `step` the deposits of `slot` were made; `None` when it was after it.
fn age(step: u64, slot: u64) -> Option<u32> {
    let passed = (tag(step).wrapping_sub(slot & !COUNT) >> 32) as u32;
    (passed < u32::MAX / 2).then_some(passed)
}

#[expect(clippy::cast_possible_truncation, reason = "it is less than eleven")]
fn place(step: u64) -> usize {
    (step % SLOTS as u64) as usize
}
