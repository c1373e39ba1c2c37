//! Numbers that many threads add to without fighting over them.
//!
//! A cache line that two cores write in turn costs each of them some 30 ns a time, ten times what the addition itself
//! takes. Here every thread adds to a stripe of its own, as long as there are no more threads than stripes, and who
//! reads adds the stripes up.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// More than that would cost more memory than it saves time.
const MOST: usize = 8;
/// Numbers in a line.
const WIDTH: usize = 16;

static COUNT: LazyLock<usize> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    threads.min(MOST).next_power_of_two()
});

thread_local! {
    /// Which stripes are this thread's.
    static OWN: Cell<Option<usize>> = const { Cell::new(None) };
}

/// A row of numbers, once per stripe.
#[derive(Debug)]
pub(super) struct Stripes {
    lines: Box<[Line]>,
    /// Lines of a stripe.
    each: usize,
}

/// What one core may keep without taking it from another: two lines of the cache, which some processors fetch in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; WIDTH]);

// === impl Stripes ===

impl Stripes {
    /// `count` numbers, all 0.
    pub(super) fn new(count: usize) -> Self {
        let each = count.div_ceil(WIDTH);
        Self { lines: std::iter::repeat_with(Line::default).take(each * *COUNT).collect(), each }
    }

    /// This thread's share of the number `at`.
    #[inline]
    pub(super) fn own(&self, at: usize) -> &AtomicU64 {
        self.of(OWN.get().unwrap_or_else(assign), at)
    }

    /// Every thread's share of the number `at`.
    pub(super) fn all(&self, at: usize) -> impl Iterator<Item = &AtomicU64> {
        (0..self.lines.len() / self.each).map(move |stripe| self.of(stripe, at))
    }

    #[inline]
    fn of(&self, stripe: usize, at: usize) -> &AtomicU64 {
        &self.lines[stripe * self.each + at / WIDTH].0[at % WIDTH]
    }
}

#[cold]
fn assign() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let own = NEXT.fetch_add(1, Ordering::Relaxed) % *COUNT;
    OWN.set(Some(own));
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_threads_add_is_all_there_and_stands_at_its_place() {
        const EACH: u64 = 10_000;
        let stripes = Stripes::new(WIDTH + 3);
        std::thread::scope(|scope| {
            for _ in 0..2 * MOST {
                scope.spawn(|| {
                    for turn in 0..EACH {
                        stripes
                            .own(if turn % 2 == 0 { 0 } else { WIDTH + 2 })
                            .fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let sum = |at| stripes.all(at).map(|share| share.load(Ordering::Relaxed)).sum::<u64>();
        let half = 2 * MOST as u64 * EACH / 2;
        assert_eq!((sum(0), sum(WIDTH + 2)), (half, half));
        assert_eq!((1..WIDTH + 2).map(sum).sum::<u64>(), 0);
    }

    #[test]
    fn a_thread_stays_on_its_stripe() {
        let stripes = Stripes::new(1);
        let (first, second) = (stripes.own(0), stripes.own(0));
        assert!(std::ptr::eq(first, second));
        assert_eq!(stripes.all(0).count(), *COUNT);
        assert!(COUNT.is_power_of_two() && *COUNT <= MOST);
    }
}
