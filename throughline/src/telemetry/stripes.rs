//! Numbers that many threads add to without fighting over them.
//!
//! A cache line that two cores write in turn costs each of them some 30 ns a time, ten times what the addition itself
//! takes, and an addition that no other core may come between takes some 5 ns. Here a thread has a stripe of its own,
//! where nobody else writes and it adds as it would to any number; who reads adds the stripes up. Threads that find
//! none free share one, where additions are atomic.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// More than that would cost more memory than it saves time.
const MOST: usize = 8;
/// The stripe that threads share.
const COMMON: usize = 0;
/// As many numbers as there are in a line of the cache stand unused between two stripes.
const APART: usize = 8;

/// How many stripes there are: the common one, one per core, and two for threads beside those that do the work.
static COUNT: LazyLock<usize> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    1 + threads.min(MOST) + 2
});

/// The stripes that belong to no thread.
static FREE: LazyLock<Mutex<Vec<usize>>> = LazyLock::new(|| Mutex::new((1..*COUNT).rev().collect()));

thread_local! {
    /// Which stripe this thread adds to, once it has added anything.
    static MINE: Cell<Option<usize>> = const { Cell::new(None) };
    static HELD: Held = const { Held(Cell::new(COMMON)) };
}

/// The stripe that is this thread's until it ends.
struct Held(Cell<usize>);

/// A row of numbers, once per stripe. A clone is the same row: the handle of a series, which leads straight to its numbers.
#[derive(Clone, Debug)]
pub(super) struct Stripes {
    numbers: Arc<[AtomicU64]>,
    /// From one stripe to the next.
    each: usize,
    count: usize,
}

/// This thread's numbers of a row.
#[derive(Clone, Copy)]
pub(super) struct Own<'a> {
    numbers: &'a [AtomicU64],
    first: usize,
    shared: bool,
}

// === impl Stripes ===

impl Stripes {
    /// `count` numbers, all 0.
    pub(super) fn new(count: usize) -> Self {
        let each = count + APART;
        let numbers = std::iter::repeat_with(AtomicU64::default).take(each * *COUNT).collect();
        Self { numbers, each, count }
    }

    /// This thread's share.
    #[inline]
    pub(super) fn own(&self) -> Own<'_> {
        let mine = MINE.get().unwrap_or_else(assign);
        Own { numbers: &self.numbers, first: mine * self.each, shared: mine == COMMON }
    }

    /// Every thread's share of the number `at`.
    pub(super) fn all(&self, at: usize) -> impl Iterator<Item = &AtomicU64> {
        debug_assert!(at < self.count, "it is one of them");
        self.numbers.iter().skip(at).step_by(self.each)
    }

    /// The number `at`, which grew by whole ones.
    pub(super) fn sum(&self, at: usize) -> u64 {
        self.all(at).map(|share| share.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }

    /// The number `at`, which grew by fractions.
    pub(super) fn sum_of_fractions(&self, at: usize) -> f64 {
        self.all(at).map(|share| f64::from_bits(share.load(Ordering::Relaxed))).sum()
    }
}

// === impl Own ===

impl<'a> Own<'a> {
    /// Adds to the number `at`, around the end of numbers if need be.
    #[inline]
    pub(super) fn add(self, at: usize, amount: u64) {
        let number = &self.numbers[self.first + at];
        if self.shared {
            number.fetch_add(amount, Ordering::Relaxed);
        } else {
            number.store(number.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
        }
    }

    /// Adds to the number `at`, which nobody adds whole ones to.
    #[inline]
    pub(super) fn add_fraction(self, at: usize, amount: f64) {
        let number = &self.numbers[self.first + at];
        let more = |old: u64| (f64::from_bits(old) + amount).to_bits();
        if self.shared {
            // The closure always answers, so this cannot fail.
            let _ = number.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| Some(more(old)));
        } else {
            number.store(more(number.load(Ordering::Relaxed)), Ordering::Relaxed);
        }
    }

    /// The number `at`, for what is more than an addition, and whether other threads may be doing the same.
    pub(super) fn number(self, at: usize) -> (&'a AtomicU64, bool) {
        (&self.numbers[self.first + at], self.shared)
    }
}

#[cold]
fn assign() -> usize {
    // A thread that is about to end could not give a stripe back.
    let mine = HELD.try_with(|held| {
        held.0.set(free().pop().unwrap_or(COMMON));
        held.0.get()
    });
    let mine = mine.unwrap_or(COMMON);
    MINE.set(Some(mine));
    mine
}

fn free() -> MutexGuard<'static, Vec<usize>> {
    // Taking and giving through the lock is also what makes the next owner see what the last one wrote.
    FREE.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        MINE.set(Some(COMMON));
        if self.0.get() != COMMON {
            free().push(self.0.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_all_there_and_stands_at_its_place() {
        const EACH: u64 = 10_000;
        let threads = 2 * (MOST as u64 + 3);
        let stripes = Stripes::new(17);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for turn in 0..EACH {
                        match turn % 2 {
                            0 => stripes.own().add(0, 1),
                            _ => stripes.own().add_fraction(16, 0.5),
                        }
                    }
                });
            }
        });
        let half = threads * EACH / 2;
        assert_eq!(stripes.sum(0), half);
        assert_eq!(stripes.sum_of_fractions(16), half as f64 / 2.0);
        assert_eq!((1..16).map(|at| stripes.sum(at)).sum::<u64>(), 0);
    }

    #[test]
    fn a_thread_stays_on_its_stripe() {
        let stripes = Stripes::new(1);
        let (first, second) = (stripes.own().number(0).0, stripes.own().number(0).0);
        assert!(std::ptr::eq(first, second));
        assert_eq!(stripes.all(0).count(), *COUNT);
    }

    #[test]
    fn no_two_threads_have_the_same_stripe_unless_it_is_the_common_one() {
        let threads = 3 * (MOST + 3);
        let barrier = std::sync::Barrier::new(threads);
        let mine = || {
            std::thread::scope(|scope| {
                let start = || {
                    let mine = MINE.get().unwrap_or_else(assign);
                    barrier.wait();
                    mine
                };
                let all: Vec<_> = (0..threads).map(|_| scope.spawn(start)).collect();
                let mut own: Vec<_> = all.into_iter().map(|thread| thread.join().unwrap()).collect();
                own.retain(|mine| *mine != COMMON);
                own.sort_unstable();
                own
            })
        };
        // Twice, since those of the first time have to be given back. Other tests hold some meanwhile.
        for _ in 0..2 {
            let own = mine();
            assert!(own.windows(2).all(|pair| pair[0] < pair[1]), "{own:?}");
        }
    }
}
