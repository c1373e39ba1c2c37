//! A Redis Cluster: of three servers, one that hangs, one that is replaced, keys that move.

use redis::aio::MultiplexedConnection;
use throughline::cache::Entries as _;
use throughline::cache::redis::{RedisConfig, RedisEntries};

use crate::outages::{RUNS, goes_on, is_left_alone, recovers, works};
use crate::rig::{DEADLINE, Rig, raw, seen, tell, try_tell, until};
use crate::server::{Server, free_address};

const SLOTS: [(u16, u16); 3] = [(0, 5460), (5461, 10922), (10923, 16383)];

/// Three servers with all the slots, and perhaps replicas.
struct Nodes(Vec<Server>);

async fn start_node() -> Server {
    let bus = free_address().port().to_string();
    let mut args = vec!["--cluster-enabled", "yes", "--cluster-port", &bus];
    args.extend(["--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"]);
    // Keys of the servers that are left are served.
    args.extend(["--cluster-require-full-coverage", "no"]);
    Server::start(&args).await
}

// === impl Nodes ===

impl Nodes {
    /// The first `replicas` of the three servers have one each.
    async fn start(replicas: usize) -> Self {
        let mut nodes = Self(Vec::new());
        for n in 0..3 + replicas {
            nodes.0.push(start_node().await);
            let mut raw = nodes.raw(n).await;
            let () = tell(&mut raw, &["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]).await;
            if let Some((first, last)) = SLOTS.get(n) {
                let range = [first.to_string(), last.to_string()];
                let () = tell(&mut raw, &["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]).await;
            }
            if n > 0 {
                let first = &nodes.0[0];
                let bus: String = {
                    let mut raw = nodes.raw(0).await;
                    let values: Vec<(String, String)> =
                        tell(&mut raw, &["CONFIG", "GET", "cluster-port"]).await;
                    values[0].1.clone()
                };
                let port = first.address.port().to_string();
                let () = tell(&mut raw, &["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await;
            }
        }
        nodes.agree(3 + replicas).await;
        for n in 0..replicas {
            let id: String = tell(&mut nodes.raw(n).await, &["CLUSTER", "MYID"]).await;
            let () = tell(&mut nodes.raw(3 + n).await, &["CLUSTER", "REPLICATE", &id]).await;
            until("the replica follows", || async {
                let info: String = tell(&mut nodes.raw(3 + n).await, &["INFO", "replication"]).await;
                info.contains("master_link_status:up")
            })
            .await;
        }
        nodes
    }

    async fn agree(&self, count: usize) {
        until("the servers agree", || async {
            for n in 0..count {
                let info: String = tell(&mut self.raw(n).await, &["CLUSTER", "INFO"]).await;
                let known = format!("cluster_known_nodes:{count}\r\n");
                if !(info.contains("cluster_state:ok")
                    && info.contains(&known)
                    && info.contains("cluster_size:3"))
                {
                    return false;
                }
            }
            true
        })
        .await;
    }

    async fn raw(&self, n: usize) -> MultiplexedConnection {
        raw(&self.0[n].url()).await
    }

    /// A store that is told of one server only.
    fn config(&self) -> RedisConfig {
        RedisConfig::cluster(&[&self.0[0].url()]).unwrap().deadline(DEADLINE).unwrap()
    }

    async fn keys(&self, n: usize) -> usize {
        tell(&mut self.raw(n).await, &["DBSIZE"]).await
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn answers_are_spread_over_all_servers_and_shared() {
    let nodes = Nodes::start(0).await;
    let (one, other) = (Rig::new(nodes.config()), Rig::new(nodes.config().connections(2).unwrap()));
    for n in 0..60 {
        one.ask(&format!("question {n}")).await;
        other.ask(&format!("question {n}")).await;
    }
    assert_eq!((one.outcomes(), other.outcomes()), (seen(&[("miss", 60.0)]), seen(&[("hit", 60.0)])));
    let counts = [nodes.keys(0).await, nodes.keys(1).await, nodes.keys(2).await];
    assert!(counts.iter().all(|count| *count > 0) && counts.iter().sum::<usize>() == 60, "{counts:?}");
    let mut entries = RedisEntries::connect(&nodes.config()).await.unwrap();
    assert_eq!(entries.count().await.unwrap(), 60);
    let mut removed = 0;
    while let Some(page) = entries.next().await.unwrap() {
        let found = entries.get(&page[0].key).await.unwrap();
        assert!(found.is_some(), "it is on one of the servers");
        removed += entries.remove(&page).await.unwrap();
    }
    assert_eq!((removed, nodes.keys(0).await + nodes.keys(1).await + nodes.keys(2).await), (60, 0));
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_cluster_that_is_away_at_the_start_is_found_when_it_comes() {
    let mut nodes = Nodes::start(0).await;
    for node in &mut nodes.0 {
        node.freeze();
    }
    let rig = Rig::new(nodes.config());
    assert_eq!(is_left_alone(&rig).await, "no answer from the store within 150ms");
    for node in &mut nodes.0 {
        node.thaw();
    }
    recovers(&rig).await;

    let alone = Server::start(&[]).await;
    let rig = Rig::new(RedisConfig::cluster(&[&alone.url()]).unwrap().deadline(DEADLINE).unwrap());
    assert_eq!(is_left_alone(&rig).await, "the redis server is none of a cluster");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_hangs_is_left_alone_and_the_others_are_not() {
    let nodes = Nodes::start(0).await;
    let rig = Rig::new(nodes.config());
    works(&rig).await;
    for n in 0..RUNS {
        rig.ask(&format!("sick {n}")).await;
    }
    nodes.0[2].freeze();
    let counted = goes_on(&rig).await;
    let count = |outcome: &str| counted.get(outcome).copied().unwrap_or_default();
    assert_eq!(count("error"), 5.0, "{counted:?}");
    assert!(count("bypass") > 0.0 && count("hit") > 5.0, "{counted:?}");
    assert_eq!(rig.up(), Some(0.0));
    assert_eq!(rig.down().as_deref(), Some("1 of 3 servers: no answer from the store within 150ms"));
    nodes.0[2].thaw();
    until("all servers are asked again", || async { rig.down().is_none() }).await;
    assert_eq!(rig.up(), Some(1.0));
    let counted = goes_on(&rig).await;
    assert!(!counted.contains_key("error") && !counted.contains_key("bypass"), "{counted:?}");
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_killed_under_load_is_replaced_by_its_replica() {
    let mut nodes = Nodes::start(1).await;
    let rig = Rig::new(nodes.config());
    works(&rig).await;
    nodes.0[0].kill().await;
    until("the replica takes what is stored", || async {
        for n in 0..20 {
            rig.ask(&format!("meanwhile {n}")).await;
        }
        let url = nodes.0[3].url();
        let info = try_tell::<String>(&url, &["INFO", "replication"]).await;
        let keys = try_tell::<usize>(&url, &["DBSIZE"]).await;
        info.is_some_and(|info| info.contains("role:master")) && keys.is_some_and(|keys| keys > 1)
    })
    .await;
    until("all servers are asked again", || async { rig.down().is_none() }).await;
    recovers(&rig).await;
}

/// Tells a server what becomes of nearly all slots of the first.
async fn assign(raw: &mut MultiplexedConnection, what: &[&str]) {
    let mut all = redis::pipe();
    for slot in 0..5460 {
        all.cmd("CLUSTER").arg("SETSLOT").arg(slot).arg(what).ignore();
    }
    let () = all.query_async(raw).await.unwrap();
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn keys_that_move_and_have_moved_are_followed() {
    let nodes = Nodes::start(0).await;
    let rig = Rig::new(nodes.config());
    works(&rig).await;
    let (mut from, mut to) = (nodes.raw(0).await, nodes.raw(1).await);
    let from_id: String = tell(&mut from, &["CLUSTER", "MYID"]).await;
    let to_id: String = tell(&mut to, &["CLUSTER", "MYID"]).await;
    // One slot stays: a server without any becomes a replica. What is not there yet is asked for at the server that takes the slots over.
    assign(&mut to, &["IMPORTING", &from_id]).await;
    assign(&mut from, &["MIGRATING", &to_id]).await;
    let before = (nodes.keys(0).await, rig.outcomes());
    for _ in 0..2 {
        for n in 0..RUNS {
            rig.ask(&format!("while they move {n}")).await;
        }
    }
    let both = f64::from(RUNS);
    assert_eq!(rig.outcomes_since(&before.1), seen(&[("miss", both), ("hit", both)]));
    assert_eq!(nodes.keys(0).await, before.0, "nothing is stored where the keys leave");

    let () = tell(&mut from, &["FLUSHALL"]).await;
    assign(&mut to, &["NODE", &to_id]).await;
    assign(&mut from, &["NODE", &to_id]).await;
    let before = rig.outcomes();
    for n in 0..RUNS {
        rig.ask(&format!("while they move {n}")).await;
    }
    // A busy machine may be too late for one; none is looked for where it is not.
    let counted = rig.outcomes_since(&before);
    let hits = counted.get("hit").copied().unwrap_or_default();
    assert!(!counted.contains_key("miss") && hits > both / 2.0, "{counted:?}");
}
