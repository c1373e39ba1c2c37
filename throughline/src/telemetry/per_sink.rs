//! One value per telemetry instance, borrowed without a lock or a reference count.
//!
//! A list that only grows, with its first element in place: nearly every process has one telemetry
//! instance, and finding it is then one load and one comparison.
//!
//! What it holds lives as long as the list, since somebody may be borrowing it. For a stage that is a few
//! hundred bytes of handles per telemetry instance it ever ran under, also those that are shut down: one
//! in production, a handful in tests.

use std::sync::OnceLock;

/// Values by the id of a [`Sink`](super::Sink).
#[derive(Debug)]
pub struct PerSink<T> {
    slot: OnceLock<(u64, T)>,
    next: OnceLock<Box<Self>>,
}

// === impl PerSink ===

impl<T> PerSink<T> {
    /// No values yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { slot: OnceLock::new(), next: OnceLock::new() }
    }

    /// The value for `sink`, made at the first call. `make` must not ask for a value of this list.
    pub fn get_or_make(&self, sink: u64, make: &dyn Fn() -> T) -> &T {
        let mut at = self;
        loop {
            // Who loses the race for a free place finds another sink in it, and goes on to the next.
            let (id, value) = at.slot.get_or_init(|| (sink, make()));
            if *id == sink {
                return value;
            }
            at = at.next.get_or_init(|| Box::new(Self::new()));
        }
    }
}

impl<T> Default for PerSink<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn keeps_a_value_per_sink_and_gives_out_the_same_one() {
        let list = PerSink::new();
        for sink in [7, 3, 9] {
            list.get_or_make(sink, &|| format!("of {sink}"));
        }
        for sink in [3, 9, 7] {
            assert_eq!(list.get_or_make(sink, &|| unreachable!("it is there")), &format!("of {sink}"));
        }
    }

    #[test]
    fn threads_that_race_for_a_place_agree_on_one_value_a_sink() {
        const THREADS: u64 = 8;
        let (list, made, start) = (PerSink::new(), AtomicU64::new(0), Barrier::new(8));
        let make = |sink: u64| {
            made.fetch_add(1, Ordering::Relaxed);
            sink * 10
        };
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (list, start, make) = (&list, &start, &make);
                scope.spawn(move || {
                    start.wait();
                    for turn in 0..THREADS {
                        let sink = (turn + thread) % THREADS;
                        assert_eq!(*list.get_or_make(sink, &|| make(sink)), sink * 10);
                    }
                });
            }
        });
        assert_eq!(made.into_inner(), THREADS, "one value a sink");
    }
}
