//! What workflows that share a rate limit share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use super::gcra::{Gcra, Refused, Taken};
use super::quota::Quota;
use crate::sync::atomic::{AtomicU64, Ordering};

/// The longest pause that an upstream can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);

/// What is left of one quota of requests, of units (such as tokens), or both. Clones share it, so one
/// allowance serves every workflow that calls the same account.
#[derive(Clone)]
pub struct Allowance(pub(super) Arc<Shared>);

pub(super) struct Shared {
    epoch: Instant,
    requests: Option<Bucket>,
    units: Option<Bucket>,
    /// Nanoseconds since the epoch until which the upstream wants to be left alone.
    paused: AtomicU64,
    /// Held by the one waiter who asks; the others stand in line for it.
    pub(super) line: Mutex<()>,
    /// Wakes that one when there is more room than it knew of.
    pub(super) room: Notify,
    pub(super) waiting: AtomicU64,
}

struct Bucket {
    quota: Quota,
    gcra: Gcra,
}

/// Units that a request has taken from an [`Allowance`] in advance.
///
/// Dropping it leaves the account as it is: the request was made, so it counts as estimated.
#[must_use = "dropping it leaves the account by the estimate"]
pub struct Reservation {
    shared: Arc<Shared>,
    taken: Option<Taken>,
    units: u64,
}

/// Why a request may not pass now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) by: By,
    /// When there will be room if nobody else takes it; `None`: never.
    pub(super) wait: Option<Duration>,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Requests(Quota),
    Units(Quota),
    Upstream,
}

/// One who waits.
pub(super) struct Waiter<'a>(&'a Shared);

// === impl Allowance ===

impl Allowance {
    /// So many requests, each of which takes one.
    #[must_use]
    pub fn new(requests: Quota) -> Self {
        Self::from_quotas(Some(requests), None)
    }

    /// So many units, of which each request takes as many as it is estimated to use.
    #[must_use]
    pub fn of_units(units: Quota) -> Self {
        Self::from_quotas(None, Some(units))
    }

    /// So many requests and so many units: a request takes of both or of none.
    #[must_use]
    pub fn of_both(requests: Quota, units: Quota) -> Self {
        Self::from_quotas(Some(requests), Some(units))
    }

    /// Requests that would pass now; `None` where they are not counted.
    #[must_use]
    pub fn requests_left(&self) -> Option<u64> {
        self.0.requests.as_ref().map(|bucket| bucket.gcra.available(self.0.now()))
    }

    /// Units that would pass now; `None` where they are not counted.
    #[must_use]
    pub fn units_left(&self) -> Option<u64> {
        self.0.units.as_ref().map(|bucket| bucket.gcra.available(self.0.now()))
    }

    /// Runs that wait for their turn.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.0.waiting.load(Ordering::Relaxed)
    }

    /// How long the upstream still wants to be left alone; zero when it does not.
    #[must_use]
    pub fn paused_for(&self) -> Duration {
        self.0.pause(self.0.now())
    }

    /// Lets nothing pass for `time`, or longer if it is paused already; at most an hour, after which the next
    /// request finds out.
    pub fn pause(&self, time: Duration) {
        let until = self.0.now().saturating_add(nanos(time.min(LONGEST_PAUSE)));
        self.0.paused.fetch_max(until, Ordering::Relaxed);
    }

    fn from_quotas(requests: Option<Quota>, units: Option<Quota>) -> Self {
        let bucket = |quota: Quota| Bucket { gcra: quota.bucket(), quota };
        Self(Arc::new(Shared {
            epoch: Instant::now(),
            requests: requests.map(bucket),
            units: units.map(bucket),
            paused: AtomicU64::new(0),
            line: Mutex::new(()),
            room: Notify::new(),
            waiting: AtomicU64::new(0),
        }))
    }

    /// Takes one request and `units`, or nothing.
    pub(super) fn take(&self, units: u64) -> Result<Reservation, Refusal> {
        let shared = &self.0;
        loop {
            let now = shared.now();
            if shared.pause(now).is_zero()
                && let Some(taken) = shared.take(now, units)
            {
                return Ok(Reservation { shared: Arc::clone(shared), taken, units });
            }
            // No reason any more: somebody has given back in between.
            if let Some(refusal) = shared.refusal(now, units) {
                return Err(refusal);
            }
        }
    }

    /// What [`Allowance::take`] would say now.
    pub(super) fn refusal(&self, units: u64) -> Option<Refusal> {
        self.0.refusal(self.0.now(), units)
    }
}

impl From<&Allowance> for Allowance {
    fn from(allowance: &Allowance) -> Self {
        allowance.clone()
    }
}

impl From<Quota> for Allowance {
    fn from(requests: Quota) -> Self {
        Self::new(requests)
    }
}

impl fmt::Debug for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Allowance(")?;
        for (bucket, what) in [(&self.0.requests, "requests"), (&self.0.units, "units")] {
            if let Some(bucket) = bucket {
                write!(f, "{}, {} left, ", bucket.quota.of(what), bucket.gcra.available(self.0.now()))?;
            }
        }
        write!(f, "{} waiting)", self.waiting())
    }
}

// === impl Shared ===

impl Shared {
    fn now(&self) -> u64 {
        nanos(Instant::now().saturating_duration_since(self.epoch))
    }

    fn pause(&self, now: u64) -> Duration {
        Duration::from_nanos(self.paused.load(Ordering::Relaxed).saturating_sub(now))
    }

    /// Takes from both buckets or from none; of the units it returns what settles them.
    fn take(&self, now: u64, units: u64) -> Option<Option<Taken>> {
        let request = self.requests.as_ref().map(|bucket| bucket.gcra.take(now, 1)).transpose().ok()?;
        match self.units.as_ref().map(|bucket| bucket.gcra.take(now, units)).transpose() {
            Ok(taken) => Some(taken),
            Err(_) => {
                if let (Some(bucket), Some(request)) = (&self.requests, request) {
                    bucket.gcra.hand_back(request);
                }
                None
            }
        }
    }

    /// The reason that lasts longest.
    fn refusal(&self, now: u64, units: u64) -> Option<Refusal> {
        let ask = |bucket: &Option<Bucket>, units, by: fn(Quota) -> By| {
            let bucket = bucket.as_ref()?;
            let wait = match bucket.gcra.wait(now, units) {
                Ok(0) => return None,
                Ok(wait) | Err(Refused::For(wait)) => Some(Duration::from_nanos(wait)),
                Err(Refused::Never) => None,
            };
            Some(Refusal { by: by(bucket.quota), wait })
        };
        let pause = self.pause(now);
        let upstream = (!pause.is_zero()).then_some(Refusal { by: By::Upstream, wait: Some(pause) });
        let reasons = [upstream, ask(&self.requests, 1, By::Requests), ask(&self.units, units, By::Units)];
        reasons.into_iter().flatten().max_by_key(|refusal| refusal.wait.unwrap_or(Duration::MAX))
    }

    pub(super) fn wait(&self) -> Waiter<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter(self)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

// === impl Reservation ===

impl Reservation {
    /// The estimate.
    #[must_use]
    pub fn units(&self) -> u64 {
        self.units
    }

    /// Replaces the estimate by the real use. More than the estimate is owed: nothing passes until it has
    /// been made up for, however long that takes: bound a number that an upstream could make up. Less is given
    /// back as far as time has not given it back already.
    pub fn settle(self, units: u64) {
        let (Some(bucket), Some(taken)) = (&self.shared.units, self.taken) else { return };
        if bucket.gcra.settle(taken, self.shared.now(), units)
            && self.shared.waiting.load(Ordering::Relaxed) > 0
        {
            self.shared.room.notify_one();
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} units)", self.units)
    }
}
