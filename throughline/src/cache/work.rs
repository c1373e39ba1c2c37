//! What the leader of a flight does with what it has computed.

use std::future::Future as _;
use std::sync::Arc;
use std::task::{self, Waker};
use std::time::Duration;

use bytes::Bytes;

use super::behind::count;
use super::flight;
use super::guard::Guarded;
use super::key::Key;
use super::negative::Negatives;
use super::store::{Found, Lifetime, Store};
use super::{CacheEvent, Caching, Keep};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::primitive::Primitive;
use crate::telemetry::{Counter, Tick};

pub(super) type Flights = flight::Flights<Key, Landing>;
pub(super) type Lead = flight::Lead<Key, Landing>;

/// How a flight ended.
#[derive(Clone, Debug)]
pub(super) enum Landing {
    /// The value, encoded.
    Value(Bytes),
    /// A value past its time, because there was no new one.
    Expired(Found),
    /// An error that another try would not cure, or did not.
    Fatal(Error),
    /// A value that is not to be shared: every follower goes its own way.
    Private,
}

/// What a refresh in the background shares with the cache.
pub(super) struct Work<P, C, S> {
    pub(super) inner: P,
    pub(super) caching: C,
    pub(super) store: Guarded<S>,
    pub(super) flights: Arc<Flights>,
    pub(super) ttl: Duration,
    pub(super) jitter: f64,
    pub(super) kept: Duration,
    pub(super) negatives: Option<Negatives>,
    pub(super) largest: usize,
}

/// Where to count what becomes of a value after the run; empty when telemetry is off.
pub(super) type Counts = Vec<(CacheEvent, Counter)>;

// === impl Work ===

impl<P, C, S> Work<P, C, S>
where
    P: Primitive,
    C: Caching<P::In, P::Out> + 'static,
    S: Store + 'static,
{
    /// Tells those who wait what the leader has computed, and stores it, behind the run where the store has to be waited
    /// for. Until it is stored, newcomers get it from the leader. Without a lead nobody is told. The work began at `since`.
    pub(super) async fn settle(
        self: &Arc<Self>,
        lead: Option<Lead>,
        key: Key,
        (result, since): (Result<P::Out>, Tick),
        counts: Counts,
        cx: &Context,
    ) -> (Result<P::Out>, Option<CacheEvent>) {
        let land = |landing| {
            if let Some(lead) = &lead {
                lead.land(landing);
            }
        };
        let mut output = match result {
            Ok(output) => output,
            Err(error) => {
                self.learn(key, &error, cx);
                match (lead, error.kind()) {
                    (None, _) | (_, Kind::Cancelled) => {}
                    (Some(lead), _) if error.is_retryable() => lead.fail(Landing::Fatal(error.clone())),
                    (Some(lead), _) => lead.land(Landing::Fatal(error.clone())),
                }
                return (Err(error), None);
            }
        };
        if let Some(negatives) = &self.negatives {
            negatives.forget(&key);
        }
        if self.inner.stream(&mut output).is_some() {
            // A stream has one reader: whoever waits for it makes one of their own.
            land(Landing::Private);
            let recorded = self.caching.record(&mut output, self.keep(key, since, counts, cx));
            return (Ok(output), (!recorded).then_some(CacheEvent::NotCacheable));
        }
        let Some(value) = self.caching.encode(&output) else {
            land(Landing::Private);
            return (Ok(output), Some(CacheEvent::NotCacheable));
        };
        land(Landing::Value(value.clone()));
        let event = self.put_behind(lead, (key, value), since, counts, cx).await;
        (Ok(output), event)
    }

    /// Remembers an error that is to be given again.
    pub(super) fn learn(&self, key: Key, error: &Error, cx: &Context) {
        if let Some(negatives) = &self.negatives {
            negatives.learn(key, error, cx.clock().now());
        }
    }

    pub(super) async fn put(&self, key: Key, value: Bytes, since: Tick, now: Tick) -> CacheEvent {
        if value.len() > self.largest {
            return CacheEvent::TooLarge;
        }
        match self.store.put(key, value, self.lifetime(now.since(since)), now).await {
            Ok(true) => CacheEvent::Stored,
            Ok(false) => CacheEvent::TooLarge,
            Err(_) => CacheEvent::StoreFailed,
        }
    }

    /// Stores in the background, for the end of a stream is no place to wait. As behind a run, the write is begun before.
    fn keep(self: &Arc<Self>, key: Key, since: Tick, counts: Counts, cx: &Context) -> Keep {
        let (work, clock) = (Arc::clone(self), cx.clock());
        Keep::new(self.largest, move |value| {
            let put = async move {
                let event = match value {
                    Ok(value) => work.put(key, value, since, clock.now()).await,
                    Err(why) => why,
                };
                count(&counts, event);
            };
            let mut put = Box::pin(put);
            if let Ok(runtime) = tokio::runtime::Handle::try_current()
                && put.as_mut().poll(&mut task::Context::from_waker(Waker::noop())).is_pending()
            {
                runtime.spawn(put);
            }
        })
    }

    fn lifetime(&self, computed_in: Duration) -> Lifetime {
        let fresh = self.ttl.saturating_sub(self.ttl.mul_f64(self.jitter * fastrand::f64()));
        Lifetime { fresh, kept: fresh.saturating_add(self.kept), computed_in }
    }
}
