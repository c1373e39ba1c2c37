//! One run for several replicas: who leads a flight in this process asks the store whether another process is at it.
//!
//! A claim is a lease, renewed by the store while its holder lives: one that is killed loses it, and one of those who
//! wait takes over. Who waits looks for the value now and then; nothing but the value comes from another process, no
//! error does. A store that fails keeps nobody from working.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::key::Key;
use super::store::{Found, Lookup, Store};
use super::work::Work;
use crate::context::Context;

/// How long those who wait for another process do so between two looks, at first and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Whose turn it is to compute a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claim {
    /// The caller's, until it stores the value or releases the claim.
    Ours,
    /// Another replica's.
    Theirs,
    /// Everybody's: the store keeps no claims.
    Nobodys,
}

/// What the leader of a flight is to do.
pub(super) enum Turn<P, C, S: Store> {
    /// Run, and drop the claim, if there is one, when the value is on its way to the store or will not be stored.
    Run(Option<Held<P, C, S>>),
    /// Another replica has made the value meanwhile.
    Made(Bytes),
}

/// A claim, or the attempt to get one: released when it is dropped.
pub(super) struct Held<P, C, S: Store> {
    work: Arc<Work<P, C, S>>,
    key: Key,
    /// Whether there is something to release.
    ours: bool,
}

// === impl Work ===

impl<P, C, S: Store> Work<P, C, S> {
    /// Claims the work of `key`, or waits until another replica has stored a value that `is_usable`, or has gone.
    pub(super) async fn claim(
        self: &Arc<Self>,
        key: Key,
        is_usable: impl Fn(&Found) -> bool,
        cx: &Context,
    ) -> Turn<P, C, S> {
        let mut pause = FIRST_PAUSE;
        loop {
            let (claim, held) = self.try_claim(key, cx).await;
            if claim == Claim::Nobodys {
                return Turn::Run(None);
            }
            // Also when it is ours: another may have stored it since it was looked for.
            match self.store.get(&key, cx.clock().now()).await {
                Ok(Lookup::Found(found)) if is_usable(&found) => return Turn::Made(found.value),
                Err(_) => return Turn::Run(held),
                Ok(_) if claim == Claim::Ours => return Turn::Run(held),
                Ok(_) => {}
            }
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Claims the work of `key` if nobody else has. A store that fails is asked nothing further.
    pub(super) async fn try_claim(
        self: &Arc<Self>,
        key: Key,
        cx: &Context,
    ) -> (Claim, Option<Held<P, C, S>>) {
        if !self.store.keeps_claims() {
            return (Claim::Nobodys, None);
        }
        // A claim whose answer does not come may have been granted.
        let mut held = Held { work: Arc::clone(self), key, ours: true };
        let claim = self.store.claim(&key, cx.clock().now()).await;
        held.ours = !matches!(claim, Ok(Claim::Theirs | Claim::Nobodys));
        match claim {
            Ok(Claim::Ours) => (Claim::Ours, Some(held)),
            Ok(claim) => (claim, None),
            Err(_) => (Claim::Nobodys, None),
        }
    }
}

// === impl Held ===

impl<P, C, S: Store> Drop for Held<P, C, S> {
    fn drop(&mut self) {
        if self.ours {
            self.work.store.release(&self.key);
        }
    }
}
