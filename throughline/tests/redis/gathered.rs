//! Reads that travel together, and writes behind the runs.

use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::poll;
use throughline::cache::{Lifetime, Lookup};
use throughline::{Clock, KeyBuilder, Store as _};

use crate::outages::{recovers, works};
use crate::proxy::{Mood, Proxy};
use crate::rig::{Rig, at, raw, seen, tell};
use crate::server::Server;

const HOUR: Lifetime = Lifetime {
    fresh: Duration::from_secs(3600),
    kept: Duration::from_secs(3600),
    computed_in: Duration::ZERO,
};

/// More than travel in one group, and not a whole number of groups.
const MANY: usize = 100;

fn questions() -> impl Iterator<Item = String> {
    (0..MANY).map(|n| format!("question {n}"))
}

async fn ask_all(rig: &Rig) {
    join_all(questions().map(async |question| rig.ask(&question).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn everybody_gets_their_own_answer_and_the_server_is_asked_once_for_each() {
    let server = Server::start(&[]).await;
    for connections in [1, 3] {
        let rig = Rig::new(at(&server.url()).connections(connections).unwrap());
        works(&rig).await;
        ask_all(&rig).await;
        let mut raw = raw(&server.url()).await;
        let () = tell(&mut raw, &["CONFIG", "RESETSTAT"]).await;
        let before = rig.outcomes();
        ask_all(&rig).await;
        assert_eq!(rig.outcomes_since(&before), seen(&[("hit", MANY as f64)]));
        let stats: String = tell(&mut raw, &["INFO", "stats"]).await;
        assert!(stats.contains(&format!("keyspace_hits:{MANY}\r\nkeyspace_misses:0\r\n")), "{stats}");
        let stats: String = tell(&mut raw, &["INFO", "commandstats"]).await;
        assert!(stats.contains("cmdstat_mget:"), "{stats}");
        let () = tell(&mut raw, &["FLUSHALL"]).await;
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_user_who_may_not_ask_for_several_at_once_asks_for_each() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    let mut raw = raw(&server.url()).await;
    ask_all(&rig).await;
    let () = tell(&mut raw, &["ACL", "SETUSER", "default", "-mget"]).await;
    let () = tell(&mut raw, &["CONFIG", "RESETSTAT"]).await;
    let before = rig.outcomes();
    let mut seen_by_server = Vec::new();
    for _ in 0..2 {
        ask_all(&rig).await;
        seen_by_server.push(tell::<String>(&mut raw, &["INFO", "commandstats"]).await);
    }
    assert_eq!(rig.outcomes_since(&before), seen(&[("hit", 2.0 * MANY as f64)]));
    let of = |command, stats: &str| stats.lines().find(|line| line.starts_with(command)).map(str::to_owned);
    let refused: Vec<_> = seen_by_server.iter().map(|stats| of("cmdstat_mget:", stats)).collect();
    assert!(refused[0].is_some(), "it was tried");
    assert_eq!(refused[0], refused[1], "and not again on this connection");
    let asked = of("cmdstat_get:", &seen_by_server[1]).unwrap();
    assert!(asked.starts_with(&format!("cmdstat_get:calls={},", 2 * MANY)), "{asked}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn what_is_wrong_with_one_of_a_group_is_nothing_to_the_others() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    let mut raw = raw(&server.url()).await;
    ask_all(&rig).await;
    let names: Vec<String> = tell(&mut raw, &["KEYS", "*"]).await;
    let () = tell(&mut raw, &["DEL", &names[0], &names[1], &names[2]]).await;
    let () = tell(&mut raw, &["RPUSH", &names[1], "a list"]).await;
    let () = tell(&mut raw, &["SET", &names[2], "no envelope"]).await;
    let before = rig.outcomes();
    ask_all(&rig).await;
    let expected = seen(&[("hit", MANY as f64 - 3.0), ("miss", 2.0), ("corrupt", 1.0)]);
    assert_eq!(rig.outcomes_since(&before), expected, "what is no text is missing");
    let before = rig.outcomes();
    ask_all(&rig).await;
    assert_eq!(rig.outcomes_since(&before), seen(&[("hit", MANY as f64)]), "all have been replaced");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_group_whose_connection_is_lost_or_hangs_fails_and_later_ones_do_not() {
    for mood in [Mood::Resets, Mood::Slow] {
        let server = Server::start(&[]).await;
        let proxy = Proxy::start(server.address).await;
        let rig = Rig::new(at(&format!("redis://{}", proxy.address)));
        works(&rig).await;
        ask_all(&rig).await;
        proxy.turn(mood);
        let before = rig.outcomes();
        ask_all(&rig).await;
        assert_eq!(rig.outcomes_since(&before), seen(&[("error", MANY as f64)]));
        assert!(rig.down().is_some());
        proxy.turn(Mood::Passes);
        recovers(&rig).await;
        let before = rig.outcomes();
        ask_all(&rig).await;
        assert_eq!(rig.outcomes_since(&before), seen(&[("hit", MANY as f64)]));
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn reads_that_wait_for_the_first_connection_fail_with_it() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    ask_all(&rig).await;
    assert_eq!(rig.outcomes(), seen(&[("miss", MANY as f64)]), "they have waited for the connection");
    let nowhere = Rig::new(at("redis://127.0.0.1:1"));
    ask_all(&nowhere).await;
    assert_eq!(nowhere.outcomes(), seen(&[("error", MANY as f64)]));
    assert_eq!(nowhere.down().as_deref(), Some("redis refused the connection"));
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_value_that_is_being_stored_is_found_by_whoever_asks_next() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    works(&rig).await;
    let (key, now) = (KeyBuilder::new("shout", 0).text("hello").build(), Clock::Tokio.now());
    for n in 0..50_u8 {
        let put = rig.store.put(key, vec![n; 1_000].into(), HOUR, now);
        let get = rig.store.get(&key, now);
        let (put, got) = join(put, get).await;
        assert!(put.unwrap());
        let Lookup::Found(found) = got.unwrap() else { panic!("it is there") };
        assert_eq!(found.value, vec![n; 1_000]);
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_flush_waits_for_what_is_on_its_way() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    works(&rig).await;
    let (key, now) = (KeyBuilder::new("shout", 0).text("late").build(), Clock::Tokio.now());
    server.freeze();
    let mut put = Box::pin(rig.store.put(key, "late".into(), HOUR, now));
    assert!(poll!(put.as_mut()).is_pending());
    let mut flush = Box::pin(rig.store.flush());
    assert!(poll!(flush.as_mut()).is_pending());
    server.thaw();
    let (put, ()) = join(put, flush).await;
    assert!(put.unwrap());
    assert!(matches!(rig.store.get(&key, now).await, Ok(Lookup::Found(_))));
}
