//! Which of the calls that have ended a circuit judges by, and their sums.

use std::time::Duration;

/// Parts of a time window: it moves on by one of them at a time.
const BUCKETS: usize = 10;

/// Which calls a circuit judges by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(Extent);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    Count(u32),
    Time(Duration),
    Consecutive(u32),
}

/// Sums over calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) calls: u32,
    pub(super) failures: u32,
    pub(super) slow: u32,
}

/// The calls in a window.
#[derive(Debug)]
pub(super) enum Record {
    Count(Ring),
    Time(Box<Buckets>),
    /// Those that failed or were slow since the last that did neither.
    Consecutive(Tally),
}

/// The last calls, oldest overwritten first, with running sums.
#[derive(Debug)]
pub(super) struct Ring {
    calls: Box<[Call]>,
    next: usize,
    tally: Tally,
}

/// Equal parts of the time, each tagged with its number. Nothing has to be thrown away in the background:
/// what is out of date is told by its tag.
#[derive(Debug)]
pub(super) struct Buckets {
    nanos: u64,
    buckets: [Bucket; BUCKETS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Call {
    failed: bool,
    slow: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    epoch: u64,
    tally: Tally,
}

// === impl Window ===

impl Window {
    /// The last `calls` calls.
    #[must_use]
    pub const fn count(calls: u32) -> Self {
        Self(Extent::Count(calls))
    }

    /// The calls that ended within `time`. It moves on in tenths, so that it holds between nine tenths and
    /// all of it.
    #[must_use]
    pub const fn time(time: Duration) -> Self {
        Self(Extent::Time(time))
    }

    /// As many calls in a row as make the circuit open when each failed or was slow. There are no rates then:
    /// the configured rates and the minimum of calls do not matter, and among trials one such call reopens.
    #[must_use]
    pub const fn consecutive(calls: u32) -> Self {
        Self(Extent::Consecutive(calls))
    }

    pub(super) const fn extent(self) -> Extent {
        self.0
    }
}

// === impl Tally ===

impl Tally {
    pub(super) fn add(&mut self, failed: bool, slow: bool) {
        self.calls = self.calls.saturating_add(1);
        self.failures = self.failures.saturating_add(failed.into());
        self.slow = self.slow.saturating_add(slow.into());
    }

    fn remove(&mut self, failed: bool, slow: bool) {
        self.calls -= 1;
        self.failures -= u32::from(failed);
        self.slow -= u32::from(slow);
    }

    fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}

// === impl Record ===

impl Record {
    pub(super) fn new(window: Window) -> Self {
        match window.0 {
            Extent::Count(calls) => Self::Count(Ring::new(calls as usize)),
            Extent::Time(time) => Self::Time(Box::new(Buckets::new(time))),
            Extent::Consecutive(_) => Self::Consecutive(Tally::default()),
        }
    }

    /// Takes in a call that ended at `now`, which never goes back.
    pub(super) fn add(&mut self, now: Duration, failed: bool, slow: bool) {
        match self {
            Self::Count(ring) => ring.add(failed, slow),
            Self::Time(buckets) => buckets.add(now, failed, slow),
            Self::Consecutive(row) if failed || slow => row.add(failed, slow),
            Self::Consecutive(row) => *row = Tally::default(),
        }
    }

    pub(super) fn tally(&self, now: Duration) -> Tally {
        match self {
            Self::Count(ring) => ring.tally,
            Self::Time(buckets) => buckets.tally(now),
            Self::Consecutive(row) => *row,
        }
    }

    pub(super) fn clear(&mut self) {
        match self {
            Self::Count(ring) => (ring.next, ring.tally) = (0, Tally::default()),
            Self::Time(buckets) => buckets.buckets = Default::default(),
            Self::Consecutive(row) => *row = Tally::default(),
        }
    }
}

// === impl Ring ===

impl Ring {
    fn new(calls: usize) -> Self {
        Self { calls: vec![Call::default(); calls.max(1)].into(), next: 0, tally: Tally::default() }
    }

    fn add(&mut self, failed: bool, slow: bool) {
        let oldest = std::mem::replace(&mut self.calls[self.next], Call { failed, slow });
        if self.tally.calls as usize == self.calls.len() {
            self.tally.remove(oldest.failed, oldest.slow);
        }
        self.tally.add(failed, slow);
        self.next = if self.next + 1 == self.calls.len() { 0 } else { self.next + 1 };
    }
}

// === impl Buckets ===

impl Buckets {
    fn new(time: Duration) -> Self {
        Self { nanos: (nanos(time) / BUCKETS as u64).max(1), buckets: Default::default() }
    }

    fn add(&mut self, now: Duration, failed: bool, slow: bool) {
        let epoch = self.epoch(now);
        let bucket = &mut self.buckets[index(epoch)];
        if bucket.epoch != epoch {
            *bucket = Bucket { epoch, tally: Tally::default() };
        }
        bucket.tally.add(failed, slow);
    }

    fn tally(&self, now: Duration) -> Tally {
        let newest = self.epoch(now);
        let live = self.buckets.iter().filter(|bucket| newest - bucket.epoch < BUCKETS as u64);
        live.fold(Tally::default(), |sum, bucket| sum.plus(bucket.tally))
    }

    /// Starts at `BUCKETS`, so that those of a new window are out of date.
    fn epoch(&self, now: Duration) -> u64 {
        (nanos(now) / self.nanos).saturating_add(BUCKETS as u64)
    }
}

fn index(epoch: u64) -> usize {
    usize::try_from(epoch % BUCKETS as u64).expect("a remainder of ten fits")
}

/// Enough for 584 years.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
