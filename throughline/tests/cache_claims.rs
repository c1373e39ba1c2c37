//! What a caller takes of another replica's work, over a store that says who is at it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use throughline::cache::{CachePolicy, Claim, Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::testing::Recorder;
use throughline::{
    Boxed, CacheConfig, CacheOutcome, JsonCaching, Key, Memory, Result, Store, Workflow, workflow,
};
use tokio::time::{advance, sleep};

const SECOND: Duration = Duration::from_secs(1);

/// Memory that several caches use as replicas do a server.
struct Shared {
    memory: Memory,
    claimed: AtomicBool,
}

impl Store for Shared {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        self.memory.get(key, now).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.claimed.store(false, Ordering::Relaxed);
        self.memory.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.memory.delete(key, now).await
    }

    fn keeps_claims(&self) -> bool {
        true
    }

    async fn claim(&self, _: &Key) -> Result<Claim> {
        Ok(if self.claimed.swap(true, Ordering::Relaxed) { Claim::Theirs } else { Claim::Ours })
    }

    fn release(&self, _: &Key) {
        self.claimed.store(false, Ordering::Relaxed);
    }
}

/// Two replicas that answer with the number of the run after a second.
fn replicas() -> [Workflow<Boxed<u64, u64>>; 2] {
    let store = Arc::new(Shared { memory: Memory::new(1 << 20).unwrap(), claimed: AtomicBool::new(false) });
    let runs = Arc::new(AtomicU64::new(0));
    [(), ()].map(|()| {
        let runs = Arc::clone(&runs);
        let work = workflow("slow", move |_: u64| {
            let n = runs.fetch_add(1, Ordering::Relaxed) + 1;
            async move {
                sleep(SECOND).await;
                Ok(n)
            }
        });
        let config = CacheConfig::new("answers", 60 * SECOND).unwrap().jitter(0.0).unwrap();
        let caching = JsonCaching::keyed(|n: &u64, _, key| key.json(n));
        work.cache(config, caching, Arc::clone(&store)).boxed()
    })
}

async fn asked(replica: &Workflow<Boxed<u64, u64>>, policy: CachePolicy) -> (u64, CacheOutcome) {
    let cx = Recorder::new().context();
    cx.state().insert(policy);
    let answer = replica.run(7, &cx).await.unwrap();
    (answer, *cx.state().get::<CacheOutcome>().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_value_that_is_too_old_for_the_caller_is_no_better_from_another_replica() {
    let [one, other] = replicas();
    assert_eq!(asked(&one, CachePolicy::new()).await, (1, CacheOutcome::Miss));
    advance(10 * SECOND).await;
    let young = CachePolicy::new().max_age(5 * SECOND);
    assert_eq!(asked(&other, young).await, (2, CacheOutcome::Miss));
    assert_eq!(asked(&one, young).await, (2, CacheOutcome::Hit), "and what it made is for all");
}

#[tokio::test(start_paused = true)]
async fn what_another_replica_makes_meanwhile_is_new_enough_for_everybody() {
    let [one, other] = replicas();
    let (made, waited) = tokio::join!(asked(&one, CachePolicy::new()), async {
        sleep(SECOND / 10).await;
        asked(&other, CachePolicy::new().max_age(Duration::ZERO)).await
    });
    assert_eq!((made, waited), ((1, CacheOutcome::Miss), (1, CacheOutcome::Coalesced)));
}
