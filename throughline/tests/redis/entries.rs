//! Looking into a Redis store, and taking things out of it.

use redis::AsyncCommands as _;
use throughline::Key;
use throughline::cache::redis::RedisEntries;
use throughline::cache::{Entries as _, Entry, tag};

use crate::rig::{Rig, at, raw, seen, tell};
use crate::server::Server;

async fn all(entries: &mut RedisEntries) -> Vec<Entry> {
    let mut all = Vec::new();
    while let Some(page) = entries.next().await.unwrap() {
        all.extend(page);
    }
    all
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn entries_are_listed_with_what_they_are_and_removed() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    for n in 0..2_500 {
        rig.ask(&format!("question {n}")).await;
    }
    let mut raw = raw(&server.url()).await;
    let stranger: Key = "ab".repeat(32).parse().unwrap();
    let () = raw.set(format!("throughline:2:{stranger}"), "rubbish").await.unwrap();
    let () = tell(&mut raw, &["LPUSH", &format!("throughline:9:{stranger}"), "of another version"]).await;
    let () = raw.set("throughline:other:1:x", "not ours").await.unwrap();
    let () = raw.set("throughlines:1:x", "nor this").await.unwrap();

    let mut entries = RedisEntries::connect(&at(&server.url())).await.unwrap();
    assert_eq!(entries.count().await.unwrap(), 2_504);
    let (good, bad): (Vec<_>, Vec<_>) =
        all(&mut entries).await.into_iter().partition(|entry| entry.stored.is_some());
    let mut keys: Vec<_> = good.iter().map(|entry| entry.key.to_string()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 2_500);
    assert!(good.iter().all(|entry| entry.key.namespace() == tag("shout")));
    let stored = good[0].stored.unwrap();
    assert_eq!(stored.lifetime.fresh.as_secs(), 3_600);
    assert!(entries.get(&good[0].key).await.unwrap().unwrap().value.len() as u64 == stored.length);
    let mut names: Vec<_> = bad.iter().map(|entry| entry.name.clone()).collect();
    names.sort();
    assert_eq!(names, [format!("throughline:2:{stranger}"), format!("throughline:9:{stranger}")]);

    assert_eq!(entries.remove(&good[..100]).await.unwrap(), 100);
    assert_eq!(entries.remove(&good[99..101]).await.unwrap(), 1);
    assert_eq!(entries.remove(&bad).await.unwrap(), 2);
    let left: u64 = tell(&mut raw, &["DBSIZE"]).await;
    assert_eq!(left, 2_399 + 2);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_away_is_said_to_be() {
    let server = Server::start(&["--requirepass", "right"]).await;
    let refused = RedisEntries::connect(&at(&server.url())).await.err().unwrap().to_string();
    assert!(refused.starts_with("redis refused user or password"), "{refused}");
    let away = at(&format!("redis://{}", crate::server::free_address()));
    assert_eq!(RedisEntries::connect(&away).await.err().unwrap().to_string(), "redis refused the connection");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn whatever_is_changed_in_an_envelope_it_is_deleted_counted_and_made_again() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    rig.ask("hello").await;
    let mut raw = raw(&server.url()).await;
    let names: Vec<String> = tell(&mut raw, &["KEYS", "*"]).await;
    let good: Vec<u8> = raw.get(&names[0]).await.unwrap();
    let before = rig.outcomes();
    let mut random = fastrand::Rng::with_seed(28);
    for _ in 0..60 {
        let mut changed = good.clone();
        match random.u8(..3) {
            0 => changed.truncate(random.usize(..good.len())),
            1 => changed.push(random.u8(..)),
            _ => changed[random.usize(..good.len())] ^= 1 << random.u8(..8),
        }
        let () = raw.set(&names[0], changed).await.unwrap();
        rig.ask("hello").await;
    }
    assert_eq!(rig.outcomes_since(&before), seen(&[("corrupt", 60.0)]));
    assert_eq!(rig.runs(), 61);
    rig.ask("hello").await;
    assert_eq!(rig.outcomes_since(&before), seen(&[("corrupt", 60.0), ("hit", 1.0)]));
}
