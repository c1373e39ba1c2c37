//! Memory in front of a server that tells what others have changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use throughline::cache::Tiered;
use throughline::cache::redis::{Redis, RedisConfig};
use throughline::{CacheConfig, Context, JsonCaching, Memory, workflow};

use crate::rig::{DEADLINE, at, raw, tell, until};
use crate::server::Server;

/// A workflow that says how often it has run, cached in memory and on the server.
fn counts(config: RedisConfig) -> impl AsyncFn(&str) -> u64 {
    let store = Arc::new(Redis::new(config).unwrap());
    let far = Arc::clone(&store);
    let store = Tiered::new(Memory::new(1 << 20).unwrap(), store, DEADLINE).unwrap();
    let runs = Arc::new(AtomicU64::new(0));
    let count = move |_: String| std::future::ready(Ok(runs.fetch_add(1, Ordering::SeqCst) + 1));
    let cache = CacheConfig::new("count", Duration::from_secs(3600)).unwrap();
    let flow = workflow("count", count).cache(
        cache.store_deadline(DEADLINE * 2).unwrap(),
        JsonCaching::keyed(|input: &String, _, key| Some(key.text(input))),
        store,
    );
    async move |input: &str| {
        let count = Box::pin(flow.run(input.to_owned(), &Context::new())).await.unwrap();
        far.flush().await;
        count
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn what_is_deleted_on_the_server_is_dropped_from_the_memory_of_every_replica() {
    let server = Server::start(&[]).await;
    let mut raw = raw(&server.url()).await;
    for connections in [1, 3] {
        let config = || at(&server.url()).connections(connections).unwrap();
        let (one, other) = (counts(config()), counts(config()));
        // The first to store it says 1, and so does the other, which finds it.
        let inputs: Vec<_> = (0..20).map(|n| format!("{connections} {n}")).collect();
        for input in &inputs {
            let first = one(input).await;
            assert_eq!(other(input).await, first);
        }
        let before = (one(&inputs[0]).await, one(&inputs[19]).await);
        let names: Vec<String> = tell(&mut raw, &["KEYS", "*"]).await;
        for name in &names {
            let () = tell(&mut raw, &["DEL", name]).await;
        }
        until("the answer is made again", || async {
            one(&inputs[0]).await > before.1 && one(&inputs[19]).await > before.1
        })
        .await;
        let now = one(&inputs[0]).await;
        until("the other has the new answer", || async { other(&inputs[0]).await == now }).await;
        let () = tell(&mut raw, &["FLUSHALL"]).await;
        until("it is made again after all were removed", || async { one(&inputs[0]).await > now }).await;
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn ones_own_answers_stay_in_memory_while_the_server_is_away_and_not_after() {
    let mut server = Server::start(&[]).await;
    let count = counts(at(&server.url()).connections(2).unwrap());
    until("an answer is stored", || async {
        let mut raw = raw(&server.url()).await;
        count("warm").await;
        tell::<usize>(&mut raw, &["DBSIZE"]).await > 0
    })
    .await;
    let first = count("hello").await;
    // What the server has to say of it would have been said before this.
    let mut raw = raw(&server.url()).await;
    let () = tell(&mut raw, &["PING"]).await;
    assert_eq!(count("hello").await, first);
    server.kill().await;
    for _ in 0..20 {
        assert_eq!(count("hello").await, first);
    }
    server.restart().await;
    until("what may have changed meanwhile is asked for again", || async { count("hello").await > first })
        .await;
}
