//! What stands in Redis, and what becomes of it when it is not what we wrote.

use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::AsyncCommands as _;
use redis::aio::MultiplexedConnection;
use throughline::CacheConfig;

use crate::rig::{Rig, at, raw, seen, tell, until};
use crate::server::Server;

async fn keys(raw: &mut MultiplexedConnection) -> Vec<String> {
    tell(raw, &["KEYS", "*"]).await
}

/// Stores the answer to `input` and returns its key.
pub(crate) async fn stored(rig: &Rig, raw: &mut MultiplexedConnection, input: &str) -> String {
    let before = keys(raw).await;
    rig.ask(input).await;
    keys(raw).await.into_iter().find(|key| !before.contains(key)).expect("it was stored")
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn what_we_have_not_written_is_deleted_counted_and_made_again() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    let mut raw = raw(&server.url()).await;
    let key = stored(&rig, &mut raw, "hello").await;
    let other = stored(&rig, &mut raw, "other").await;
    let good: Vec<u8> = raw.get(&key).await.unwrap();
    let foreign: Vec<u8> = raw.get(&other).await.unwrap();
    let changed = |at: usize| {
        let mut changed = good.clone();
        changed[at] ^= 1;
        changed
    };
    let last = good.len() - 1;
    let rubbish = [
        vec![],
        b"\"HELLO\"".to_vec(),
        good[..last].to_vec(),
        good[..20].to_vec(),
        [&good[..], b"x"].concat(),
        changed(2),
        changed(8),
        changed(last),
        foreign,
    ];
    let before = rig.outcomes();
    for (n, rubbish) in rubbish.iter().enumerate() {
        let () = raw.set(&key, rubbish).await.unwrap();
        rig.keeps.store(false, Ordering::SeqCst);
        rig.ask("hello").await;
        assert_eq!(
            keys(&mut raw).await,
            [other.as_str()],
            "case {n} is deleted even when no value takes its place"
        );
        rig.keeps.store(true, Ordering::SeqCst);
    }
    let () = tell(&mut raw, &["LPUSH", &key, "a list"]).await;
    rig.ask("hello").await;
    let corrupt = rubbish.len() as f64 + 1.0;
    assert_eq!(rig.outcomes_since(&before), seen(&[("corrupt", corrupt)]));
    assert_eq!(rig.recorder.metric("cache_hits_total", &[]), Some(0.0));
    rig.ask("hello").await;
    assert_eq!(
        rig.outcomes_since(&before),
        seen(&[("corrupt", corrupt), ("hit", 1.0)]),
        "the next value is good"
    );
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn the_server_forgets_a_value_by_itself_after_its_time_in_milliseconds() {
    let server = Server::start(&[]).await;
    let mut raw = raw(&server.url()).await;
    let config = CacheConfig::new("shout", Duration::from_millis(700)).unwrap();
    let rig = Rig::with(at(&server.url()), config.stale_if_error(Duration::from_secs(600)));
    let key = stored(&rig, &mut raw, "hello").await;
    let left: u64 = tell(&mut raw, &["PTTL", &key]).await;
    assert!((500_000..=600_700).contains(&left), "{left} ms, kept to be served on an error");

    let config = CacheConfig::new("brief", Duration::from_millis(1)).unwrap();
    let rig = Rig::with(at(&server.url()).key_prefix("brief"), config);
    rig.ask("hello").await;
    until("it has been forgotten", || {
        let mut raw = raw.clone();
        async move { tell::<Vec<String>>(&mut raw, &["KEYS", "brief:*"]).await.is_empty() }
    })
    .await;
    rig.ask("hello").await;
    assert_eq!(rig.runs(), 2);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn large_values_are_compressed_and_too_large_ones_not_stored() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()).largest_value(100_000).unwrap());
    let mut raw = raw(&server.url()).await;
    let large = "all work and no play ".repeat(4_000);
    let key = stored(&rig, &mut raw, &large).await;
    let length: usize = tell(&mut raw, &["STRLEN", &key]).await;
    assert!(length < large.len() / 10, "{length} bytes of {}", large.len());
    rig.ask(&large).await;
    assert_eq!(rig.outcomes(), seen(&[("miss", 1.0), ("hit", 1.0)]));

    let larger = "x".repeat(100_000);
    rig.ask(&larger).await;
    assert_eq!(rig.events("too_large"), 1.0);
    assert_eq!(keys(&mut raw).await, [key]);
}
