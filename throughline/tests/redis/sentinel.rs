//! A server that sentinels watch, and replace.

use throughline::cache::redis::RedisConfig;

use crate::outages::{is_left_alone, recovers, works};
use crate::rig::{DEADLINE, Rig, raw, tell, try_tell, until};
use crate::server::{Server, free_address};

/// A server, its replica, and three sentinels.
struct Watched {
    master: Server,
    replica: Server,
    sentinels: Vec<Server>,
}

// === impl Watched ===

impl Watched {
    async fn start() -> Self {
        let master = Server::start(&[]).await;
        let of = format!("127.0.0.1 {}", master.address.port());
        let replica = Server::start(&["--replicaof", &of, "--repl-diskless-sync-delay", "0"]).await;
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            sentinels.push(Server::start_sentinel(master.address).await);
        }
        let watched = Self { master, replica, sentinels };
        until("the sentinels know the replica and each other", || async {
            for sentinel in &watched.sentinels {
                let mut raw = raw(&sentinel.url()).await;
                let state: Vec<(String, String)> = tell(&mut raw, &["SENTINEL", "MASTER", "cache"]).await;
                let is = |key: &str, value: &str| state.contains(&(key.to_owned(), value.to_owned()));
                if !(is("num-slaves", "1") && is("num-other-sentinels", "2")) {
                    return false;
                }
            }
            let mut raw = raw(&watched.replica.url()).await;
            tell::<String>(&mut raw, &["INFO", "replication"]).await.contains("master_link_status:up")
        })
        .await;
        watched
    }

    fn config(&self) -> RedisConfig {
        let urls: Vec<_> = self.sentinels.iter().map(Server::url).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        RedisConfig::sentinel("cache", &urls).unwrap().deadline(DEADLINE).unwrap()
    }
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_is_killed_under_load_is_replaced_by_its_replica() {
    let mut watched = Watched::start().await;
    let rig = Rig::new(watched.config());
    works(&rig).await;
    watched.master.kill().await;
    // Runs go on all the time; none fails.
    until("the replica takes what is stored", || async {
        for n in 0..20 {
            rig.ask(&format!("meanwhile {n}")).await;
        }
        try_tell::<usize>(&watched.replica.url(), &["DBSIZE"]).await.is_some_and(|count| count > 10)
    })
    .await;
    recovers(&rig).await;

    watched.master.restart().await;
    until("the old server has become a replica", || async {
        let info = try_tell::<String>(&watched.master.url(), &["INFO", "replication"]).await;
        info.is_some_and(|info| info.contains("role:slave"))
    })
    .await;
    recovers(&rig).await;
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn a_server_that_hangs_is_replaced_although_its_connection_stays() {
    let watched = Watched::start().await;
    let rig = Rig::new(watched.config());
    works(&rig).await;
    watched.master.freeze();
    is_left_alone(&rig).await;
    recovers(&rig).await;
    watched.master.thaw();
}

#[tokio::test]
#[ignore = "run by cargo xtask test: needs redis-server"]
async fn one_sentinel_of_three_is_enough_and_none_is_said() {
    let mut watched = Watched::start().await;
    watched.sentinels[0].kill().await;
    watched.sentinels[1].freeze();
    works(&Rig::new(watched.config())).await;

    let nobody = format!("redis://{}", free_address());
    let rig = Rig::new(RedisConfig::sentinel("cache", &[&nobody]).unwrap().deadline(DEADLINE).unwrap());
    assert_eq!(is_left_alone(&rig).await, "a sentinel: redis refused the connection");
    let unknown = RedisConfig::sentinel("other", &[&watched.sentinels[2].url()]).unwrap();
    let rig = Rig::new(unknown.deadline(DEADLINE).unwrap());
    assert_eq!(is_left_alone(&rig).await, "the sentinels know no server `other`");
}
