//! One run for several replicas.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use throughline::cache::redis::RedisConfig;

use crate::rig::{Rig, at, raw, seen, tell, until};
use crate::server::Server;
use crate::values::stored;

const LEASE: Duration = Duration::from_millis(900);

fn claiming(server: &Server) -> RedisConfig {
    at(&server.url()).claims(LEASE).unwrap()
}

/// A replica whose workflow takes a while.
fn slow(config: RedisConfig) -> Rig {
    Rig::taking(config, Duration::from_millis(300))
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn of_three_replicas_one_runs_and_the_others_get_its_answer() {
    let server = Server::start(&[]).await;
    let replicas: Vec<_> = (0..3).map(|_| slow(claiming(&server))).collect();
    // Everybody has a connection.
    for replica in &replicas {
        replica.until_it_hits("before").await;
    }
    let before: u64 = replicas.iter().map(Rig::runs).sum();
    join_all((0..300).map(|n| replicas[n % 3].ask("hello"))).await;
    let runs: u64 = replicas.iter().map(Rig::runs).sum();
    assert_eq!(runs - before, 1);
    let mut raw = raw(&server.url()).await;
    let left: Vec<String> = tell(&mut raw, &["KEYS", "*:lock"]).await;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn without_claims_every_replica_runs() {
    let server = Server::start(&[]).await;
    let replicas: Vec<_> = (0..3).map(|_| slow(at(&server.url()))).collect();
    join_all((0..30).map(|n| replicas[n % 3].ask("hello"))).await;
    assert_eq!(replicas.iter().map(Rig::runs).collect::<Vec<_>>(), [1, 1, 1]);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_run_that_is_dropped_releases_its_claim_at_once() {
    let server = Server::start(&[]).await;
    let (one, other) = (slow(claiming(&server)), slow(claiming(&server)));
    let gone = tokio::time::timeout(Duration::from_millis(150), one.ask("hello")).await;
    assert!(gone.is_err());
    let raw = raw(&server.url()).await;
    until("the claim is released", || {
        let mut raw = raw.clone();
        async move { tell::<Vec<String>>(&mut raw, &["KEYS", "*:lock"]).await.is_empty() }
    })
    .await;
    other.ask("hello").await;
    assert_eq!(other.outcomes(), seen(&[("miss", 1.0)]));
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_claim_whose_holder_is_gone_ends_with_its_lease() {
    let server = Server::start(&[]).await;
    let mut raw = raw(&server.url()).await;
    let rig = slow(claiming(&server));
    // Somebody has claimed it and does not renew.
    let name = name_of(&server, "hello").await;
    let lease = LEASE.as_millis().to_string();
    let () = tell(&mut raw, &["SET", &format!("{{{name}}}:lock"), "gone", "PX", &lease]).await;
    rig.ask("hello").await;
    assert_eq!((rig.runs(), rig.outcomes()), (1, seen(&[("miss", 1.0)])));
    let stored: bool = tell(&mut raw, &["EXISTS", &name]).await;
    assert!(stored);
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn who_has_lost_the_claim_replaces_nothing_and_who_works_for_long_keeps_it() {
    let server = Server::start(&[]).await;
    let mut raw = raw(&server.url()).await;
    let rig = Arc::new(Rig::taking(claiming(&server), LEASE * 2));
    rig.until_it_hits("before").await;
    let name = name_of(&server, "hello").await;
    let asking = Arc::clone(&rig);
    let asked = tokio::spawn(async move { asking.ask("hello").await });
    tokio::time::sleep(LEASE + LEASE / 2).await;
    let lock = format!("{{{name}}}:lock");
    let held: bool = tell(&mut raw, &["EXISTS", &lock]).await;
    assert!(held, "it is renewed");
    // As if it had been stopped for longer than the lease, and another had taken over.
    let () = tell(&mut raw, &["SET", &lock, "another", "PX", "60000"]).await;
    asked.await.unwrap();
    let stored: bool = tell(&mut raw, &["EXISTS", &name]).await;
    assert!(!stored, "the value of who has lost the claim is not stored");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_store_that_is_sick_keeps_nobody_from_working() {
    let mut server = Server::start(&[]).await;
    let rig = slow(claiming(&server));
    rig.until_it_hits("good").await;
    let mut raw = raw(&server.url()).await;
    let () = tell(&mut raw, &["CONFIG", "SET", "maxmemory", "1"]).await;
    rig.ask("no claim, no memory").await;
    let () = tell(&mut raw, &["CONFIG", "SET", "maxmemory", "0"]).await;

    // Somebody else is at it, and then the server goes.
    let name = name_of(&server, "hello").await;
    let () = tell(&mut raw, &["SET", &format!("{{{name}}}:lock"), "another", "PX", "60000"]).await;
    let asking = rig.ask("hello");
    let going = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill().await;
    };
    tokio::join!(asking, going);
}

#[test]
fn a_prefix_with_braces_does_not_go_with_claims() {
    let config = at("redis://h").key_prefix("{a}").claims(LEASE).unwrap();
    let refused = throughline::cache::redis::Redis::new(config).unwrap_err();
    assert_eq!(refused.to_string(), "a redis key prefix with braces in it does not go with claims");
}

/// The name that the answer to `input` is stored under; nothing is left there.
async fn name_of(server: &Server, input: &str) -> String {
    let mut raw = raw(&server.url()).await;
    let name = stored(&Rig::new(at(&server.url())), &mut raw, input).await;
    let () = tell(&mut raw, &["DEL", &name]).await;
    name
}
