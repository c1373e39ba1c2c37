//! Storing behind the run: an answer is given without waiting for a store that has to be waited for.
//!
//! The write is begun before the run returns, so that a store that does not wait has the value then. What is still under
//! way after that goes on as a task of its own, within the deadline of the store, and is counted when it has ended. Until
//! then whoever wants the value gets it from the flight that has made it.

use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures_util::poll;

use super::key::Key;
use super::store::Store;
use super::work::{Counts, Lead, Work};
use super::{CacheEvent, Caching};
use crate::context::Context;
use crate::primitive::Primitive;
use crate::telemetry::Tick;

// === impl Work ===

impl<P, C, S> Work<P, C, S>
where
    P: Primitive,
    C: Caching<P::In, P::Out> + 'static,
    S: Store + 'static,
{
    /// Stores a value that the work since `since` has made. What became of it; `None` when that is counted in `counts` later.
    pub(super) async fn put_behind(
        self: &Arc<Self>,
        lead: Option<Lead>,
        (key, value): (Key, Bytes),
        since: Tick,
        counts: Counts,
        cx: &Context,
    ) -> Option<CacheEvent> {
        let (work, clock) = (Arc::clone(self), cx.clock());
        let mut put = Box::pin(async move { work.put(key, value, since, clock.now()).await });
        if let Poll::Ready(event) = poll!(put.as_mut()) {
            return Some(event);
        }
        tokio::spawn(async move {
            count(&counts, put.await);
            drop(lead);
        });
        None
    }
}

/// Counts what became of a value after its run.
pub(super) fn count(counts: &Counts, event: CacheEvent) {
    if let Some((_, count)) = counts.iter().find(|(counted, _)| *counted == event) {
        count.inc();
    }
}
