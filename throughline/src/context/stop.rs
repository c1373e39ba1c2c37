//! The signal that asks work to stop.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;

/// Reaches inward and never outward. Clones are the same signal.
///
/// Most work is done before anybody waits for the signal or gives it, so the token that wakes waiters is not
/// made, and not tied to the one around it, before that.
#[derive(Clone, Default)]
pub(super) struct Stop(Arc<Signal>);

#[derive(Default)]
struct Signal {
    outer: Option<Stop>,
    token: OnceLock<CancellationToken>,
}

// === impl Stop ===

impl Stop {
    /// A signal that is given with this one, and also by itself.
    pub(super) fn inner(&self) -> Self {
        Self(Arc::new(Signal { outer: Some(self.clone()), token: OnceLock::new() }))
    }

    pub(super) fn give(&self) {
        self.token().cancel();
    }

    pub(super) fn is_given(&self) -> bool {
        match (self.0.token.get(), &self.0.outer) {
            (Some(token), _) => token.is_cancelled(),
            (None, Some(outer)) => outer.is_given(),
            (None, None) => false,
        }
    }

    pub(super) async fn given(&self) {
        self.token().cancelled().await;
    }

    fn token(&self) -> &CancellationToken {
        self.0.token.get_or_init(|| match &self.0.outer {
            Some(outer) => outer.token().child_token(),
            None => CancellationToken::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn reaches_inward_and_never_outward() {
        let outer = Stop::default();
        let middle = outer.inner();
        let inner = middle.inner();
        middle.give();
        assert!(middle.is_given() && inner.is_given(), "whether or not anybody waits");
        assert!(!outer.is_given());
        assert!(inner.inner().is_given(), "also what begins later");
        outer.give();
        assert!(outer.is_given());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn wakes_who_waits_whichever_was_there_first() {
        let outer = Stop::default();
        let inner = outer.inner().inner();
        let mut early = Box::pin(inner.given());
        assert!((&mut early).now_or_never().is_none());
        let late = inner.inner();
        outer.give();
        early.await;
        late.given().await;
    }
}
