//! Many callers, keys and failures in any order: an answer is always the answer to its own question.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use proptest::prelude::*;
use throughline::cache::{Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::testing::Recorder;
use throughline::{CacheConfig, Error, JsonCaching, Key, KeyBuilder, Kind, Memory, Result, Store, workflow};
use tokio::time::sleep;

/// How one run of the work ends.
#[derive(Clone, Copy, Debug)]
enum Ends {
    Well,
    Busy,
    Refused,
    Private,
}

#[derive(Clone, Debug)]
struct Call {
    key: u64,
    after: u64,
    patience: u64,
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = (0..4_u64, 0..400_u64, 1..200_u64);
    let call = call.prop_map(|(key, after, patience)| Call { key, after, patience });
    proptest::collection::vec(call, 1..60)
}

fn ends() -> impl Strategy<Value = Vec<(Ends, u64)>> {
    let how = prop_oneof![
        4 => Just(Ends::Well),
        2 => Just(Ends::Busy),
        1 => Just(Ends::Refused),
        1 => Just(Ends::Private),
    ];
    proptest::collection::vec((how, 0..50_u64), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_fails_or_goes_away_nobody_gets_the_value_of_another_key(
        calls in calls(),
        ends in ends(),
        stale in 0..2_u64,
        bad_every in 0..4_u64,
    ) {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(interleave(calls, ends, stale * 100, bad_every));
    }
}

/// A store of which every n-th call fails, or none if n is 0.
struct Unreliable(Memory, AtomicU64, u64);

impl Unreliable {
    fn fate(&self) -> Result<()> {
        let n = self.1.fetch_add(1, Ordering::Relaxed) + 1;
        let well = self.2 == 0 || !n.is_multiple_of(self.2);
        well.then_some(()).ok_or_else(|| Error::new(Kind::Store, "connection reset"))
    }
}

impl Store for Unreliable {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        self.fate()?;
        self.0.get(key, now).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.fate()?;
        self.0.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.fate()?;
        self.0.delete(key, now).await
    }
}

/// Answers are `key * 1000 + n`; every run of the work must be alone with its key, unless there were
/// private answers or the store failed.
async fn interleave(calls: Vec<Call>, ends: Vec<(Ends, u64)>, stale_millis: u64, bad_every: u64) {
    let may_share = bad_every > 0 || ends.iter().any(|(how, _)| matches!(how, Ends::Private));
    let running = Arc::new(Mutex::new(HashMap::<u64, u32>::new()));
    let script = Arc::new((AtomicU64::new(0), ends));
    let work = {
        let running = Arc::clone(&running);
        workflow("work", move |key: u64| {
            let (running, script) = (Arc::clone(&running), Arc::clone(&script));
            async move {
                let n = script.0.fetch_add(1, Ordering::Relaxed);
                let (how, millis) = script.1[usize::try_from(n).unwrap() % script.1.len()];
                let _inside = Inside::enter(&running, key, may_share);
                sleep(Duration::from_millis(millis)).await;
                match how {
                    Ends::Well => Ok(key * 1000 + n),
                    Ends::Private => Ok(key * 1000 + 500 + n),
                    Ends::Busy => Err(Error::new(Kind::Upstream, "the model is busy")),
                    Ends::Refused => Err(Error::new(Kind::InvalidInput, format!("{key}"))),
                }
            }
        })
    };
    let stale = Duration::from_millis(stale_millis);
    let config = CacheConfig::new("mixed", Duration::from_millis(60))
        .unwrap()
        .stale_while_revalidate(stale)
        .stale_if_error(stale * 2);
    let caching = JsonCaching::keyed(|key: &u64, _, builder: KeyBuilder| builder.json(key))
        .should_cache(|answer| answer % 1000 < 500);
    let store = Unreliable(Memory::new(1 << 20).unwrap(), AtomicU64::new(0), bad_every);
    let flow = Arc::new(work.cache(config, caching, store));
    let recorder = Recorder::new();
    let started = calls.into_iter().map(|call| {
        let (flow, cx) = (Arc::clone(&flow), recorder.context());
        tokio::spawn(async move {
            sleep(Duration::from_millis(call.after)).await;
            let patience = Duration::from_millis(call.patience);
            match tokio::time::timeout(patience, flow.run(call.key, &cx)).await {
                Ok(Ok(answer)) => assert_eq!(answer / 1000, call.key, "the answer of another key"),
                Ok(Err(error)) if error.kind() == Kind::InvalidInput => {
                    assert_eq!(error.to_string(), call.key.to_string(), "the error of another key");
                }
                Ok(Err(_)) | Err(_) => {}
            }
        })
    });
    for call in join_all(started.collect::<Vec<_>>()).await {
        call.unwrap();
    }
    sleep(Duration::from_secs(1)).await;
    assert!(running.lock().unwrap().values().all(|count| *count == 0), "work is left behind");
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &[]).unwrap_or_default(), 0.0);
}

/// Counts who is working on a key.
struct Inside<'a>(&'a Mutex<HashMap<u64, u32>>, u64);

impl<'a> Inside<'a> {
    fn enter(running: &'a Mutex<HashMap<u64, u32>>, key: u64, may_share: bool) -> Self {
        let mut counts = running.lock().unwrap();
        let count = counts.entry(key).or_default();
        *count += 1;
        assert!(*count == 1 || may_share, "two work on one key");
        Self(running, key)
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_mut(&self.1).unwrap() -= 1;
    }
}
