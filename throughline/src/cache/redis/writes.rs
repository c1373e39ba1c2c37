//! Values on their way to the server: how much of them there may be, and when there are none.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::{Error, Kind, Result};

/// Bytes that may be under way.
const MOST: usize = 64 << 20;

/// The writes that are under way.
#[derive(Debug, Default)]
pub(super) struct Writes {
    bytes: AtomicUsize,
    count: AtomicUsize,
    none: Notify,
}

/// One of them, until it is dropped.
pub(super) struct Write<'a>(&'a Writes, usize);

// === impl Writes ===

impl Writes {
    /// Begins a write of so many bytes.
    ///
    /// # Errors
    /// Of [`Kind::Rejected`] when too much is under way already.
    pub(super) fn begin(&self, bytes: usize) -> Result<Write<'_>> {
        self.count.fetch_add(1, Ordering::AcqRel);
        let before = self.bytes.fetch_add(bytes, Ordering::AcqRel);
        let write = Write(self, bytes);
        if before + bytes > MOST {
            let problem = format!("redis does not keep up: {MOST} bytes are on their way to it");
            return Err(Error::new(Kind::Rejected, problem));
        }
        Ok(write)
    }

    /// Completes once there is none.
    pub(super) async fn ended(&self) {
        loop {
            let none = self.none.notified();
            if self.count.load(Ordering::Acquire) == 0 {
                return;
            }
            none.await;
        }
    }
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.0.bytes.fetch_sub(self.1, Ordering::AcqRel);
        if self.0.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.none.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use futures_util::{FutureExt as _, poll};

    use super::*;
    use crate::Clock;
    use crate::cache::guard::Guarded;
    use crate::cache::health::FAILURES;
    use crate::cache::key::KeyBuilder;
    use crate::cache::redis::{Redis, RedisConfig};
    use crate::cache::store::{Lifetime, Store as _};

    #[test]
    fn what_does_not_fit_is_refused_and_takes_no_room() {
        let writes = Writes::default();
        let half = writes.begin(MOST / 2).unwrap();
        assert_eq!(
            writes.begin(MOST / 2 + 1).err().unwrap().to_string(),
            "redis does not keep up: 67108864 bytes are on their way to it"
        );
        let other = writes.begin(MOST / 2).unwrap();
        drop((half, other));
        assert!(writes.begin(MOST).is_ok());
    }

    #[tokio::test]
    async fn what_does_not_fit_is_not_held_against_the_server() {
        let redis = Redis::new(RedisConfig::new("redis://127.0.0.1:1").unwrap()).unwrap();
        let (shared, health) = (Arc::clone(&redis.shared), redis.health().unwrap());
        let store = Guarded::new(redis, Duration::from_secs(60));
        let _under_way = shared.writes.begin(MOST).unwrap();
        let (minute, zero) = (Duration::from_secs(60), Duration::ZERO);
        let lifetime = Lifetime { fresh: minute, kept: minute, computed_in: zero };
        for _ in 0..2 * FAILURES {
            let key = KeyBuilder::new("x", 0).build();
            let refused = store.put(key, "x".into(), lifetime, Clock::Tokio.now()).await.unwrap_err();
            assert_eq!(refused.kind(), Kind::Rejected);
        }
        assert_eq!(health.down(), None);
    }

    #[tokio::test]
    async fn the_end_of_all_writes_is_waited_for() {
        let writes = Writes::default();
        assert!(writes.ended().now_or_never().is_some());
        let (one, other) = (writes.begin(1).unwrap(), writes.begin(1).unwrap());
        let mut ended = Box::pin(writes.ended());
        assert!(poll!(ended.as_mut()).is_pending());
        drop(one);
        assert!(poll!(ended.as_mut()).is_pending());
        drop(other);
        ended.await;
    }
}
