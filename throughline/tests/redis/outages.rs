//! Every way in which the server can be sick: no run fails, the store is left alone, and found again.

use redis::aio::MultiplexedConnection;
use throughline::Clock;

use crate::proxy::{Mood, Proxy};
use crate::rig::{Outcomes, Rig, at, raw, seen, tell, until};
use crate::server::{Server, free_address};

/// Runs that are made while the server is sick.
pub(crate) const RUNS: u32 = 30;
/// Failures after which the store is left alone.
const FAILURES: f64 = 5.0;

/// A value is stored and comes back.
pub(crate) async fn works(rig: &Rig) {
    rig.until_it_hits("good").await;
    assert_eq!((rig.up(), rig.down()), (Some(1.0), None));
}

/// Thirty runs in a row, none of which fails; what was counted.
pub(crate) async fn goes_on(rig: &Rig) -> Outcomes {
    let before = rig.outcomes();
    for n in 0..RUNS {
        rig.ask(&format!("sick {n}")).await;
    }
    rig.outcomes_since(&before)
}

/// No answer from the store: five failures, and then nobody waits for it.
pub(crate) async fn is_left_alone(rig: &Rig) -> String {
    let counted = goes_on(rig).await;
    assert_eq!(counted, seen(&[("error", FAILURES), ("bypass", f64::from(RUNS) - FAILURES)]));
    assert_eq!(rig.up(), Some(0.0));
    rig.down().expect("it is said why the store is left alone")
}

/// Nothing is done but to go on asking.
pub(crate) async fn recovers(rig: &Rig) {
    let begun = Clock::default().now();
    rig.until_it_hits("good").await;
    eprintln!(
        "an answer came from the store {:?} after the end of the fault",
        Clock::default().now().since(begun)
    );
    assert_eq!((rig.up(), rig.down()), (Some(1.0), None));
    let before = rig.outcomes();
    rig.ask("good").await;
    assert_eq!(rig.outcomes_since(&before), seen(&[("hit", 1.0)]));
}

async fn through_a_proxy(mood: Mood) -> String {
    let server = Server::start(&[]).await;
    let proxy = Proxy::start(server.address).await;
    let rig = Rig::new(at(&format!("redis://{}", proxy.address)));
    works(&rig).await;
    proxy.turn(mood);
    let reason = is_left_alone(&rig).await;
    proxy.turn(Mood::Passes);
    recovers(&rig).await;
    reason
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_away_at_the_start_is_found_when_it_comes() {
    let address = free_address();
    let rig = Rig::new(at(&format!("redis://{address}")));
    assert_eq!(is_left_alone(&rig).await, "redis refused the connection");
    let _server = Server::start_at(address, &[]).await;
    recovers(&rig).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_killed_and_restarted() {
    let mut server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    works(&rig).await;
    server.kill().await;
    is_left_alone(&rig).await;
    server.restart().await;
    let runs = rig.runs();
    recovers(&rig).await;
    assert!(rig.runs() > runs, "what it held is gone and was made again");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_hangs() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    works(&rig).await;
    server.freeze();
    assert_eq!(is_left_alone(&rig).await, "no answer from the store within 150ms");
    server.thaw();
    recovers(&rig).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_hangs_for_so_long_that_its_connection_is_replaced() {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    works(&rig).await;
    server.freeze();
    is_left_alone(&rig).await;
    let replaced = || async { rig.down().is_some_and(|reason| reason.contains("connect")) };
    until("another connection was tried", replaced).await;
    server.thaw();
    recovers(&rig).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_slow() {
    assert_eq!(through_a_proxy(Mood::Slow).await, "no answer from the store within 150ms");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn connections_that_are_reset() {
    let reason = through_a_proxy(Mood::Resets).await;
    assert!(reason.starts_with("the connection to redis was lost"), "{reason}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn answers_to_another_question() {
    through_a_proxy(Mood::Lies).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn answers_that_are_not_redis() {
    through_a_proxy(Mood::Babbles).await;
}

/// How many commands of this kind the server has refused.
async fn refused(raw: &mut MultiplexedConnection, command: &str) -> u32 {
    let stats: String = tell(raw, &["INFO", "commandstats"]).await;
    let line = stats.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let count = |line: &str, field: &str| -> Option<u32> {
        line.split_once(field)?.1.split(',').next()?.trim().parse().ok()
    };
    line.map_or(0, |line| count(line, "rejected_calls=").unwrap() + count(line, "failed_calls=").unwrap())
}

/// A server that answers but takes no writes: what it has is served, and it is not asked to write for long.
async fn takes_no_writes(sick: &[&str], well: &[&str], code: &str) {
    let server = Server::start(&[]).await;
    let rig = Rig::new(at(&server.url()));
    let mut raw = raw(&server.url()).await;
    works(&rig).await;
    let () = tell(&mut raw, sick).await;

    let counted = goes_on(&rig).await;
    assert_eq!(counted, seen(&[("miss", f64::from(RUNS))]), "reads go on");
    assert_eq!(rig.events("store_failed"), f64::from(RUNS));
    let refused = refused(&mut raw, "set").await;
    assert!((5..RUNS / 2).contains(&refused), "{refused} writes were tried of {RUNS}");
    assert!(rig.down().is_some_and(|reason| reason.contains(code)), "{:?}", rig.down());
    assert_eq!(rig.up(), Some(0.0));
    let before = rig.outcomes();
    rig.ask("good").await;
    assert_eq!(rig.outcomes_since(&before), seen(&[("hit", 1.0)]), "what is there is served");

    let () = tell(&mut raw, well).await;
    rig.until_it_hits("later").await;
    assert_eq!((rig.up(), rig.down()), (Some(1.0), None));
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_without_memory() {
    takes_no_writes(&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"], "(OOM)")
        .await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_has_become_a_replica() {
    let nowhere = free_address().port().to_string();
    takes_no_writes(&["REPLICAOF", "127.0.0.1", &nowhere], &["REPLICAOF", "NO", "ONE"], "(READONLY)").await;
}
