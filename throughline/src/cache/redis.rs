//! Values on a Redis or Valkey server, shared by all who have the same prefix.
//!
//! Use it where several replicas should share answers, or where answers should outlive the process. In front of
//! a dear call it pays even over a network; in front of a cheap one [`Memory`](crate::Memory) is the better store.
//!
//! The server may be away, when the program starts and at any time after it. Nothing waits for it longer than the
//! cache's deadline, after five failures in a row nothing waits at all, and a task of the store finds out when the
//! server is back. What cannot be read as what this store has written is no answer: it is deleted and made again.
//!
//! Values are stored behind the runs that made them. What is on its way ends with the runtime: wait for [`Redis::flush`]
//! before a program ends.
//!
//! ```
//! use std::time::Duration;
//! use throughline::cache::redis::{Redis, RedisConfig};
//! use throughline::{CacheConfig, Context, JsonCaching, workflow};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // There is no server: the answer comes all the same.
//! let store = Redis::new(RedisConfig::new("redis://127.0.0.1:1")?.key_prefix("squares"))?;
//! let flow = workflow("square", |n: u64| async move { Ok(n * n) }).cache(
//!     CacheConfig::new("square", Duration::from_secs(60))?,
//!     JsonCaching::keyed(|n: &u64, _, key| key.json(n)),
//!     store,
//! );
//! assert_eq!(flow.run(7, &Context::new()).await?, 49);
//! assert_eq!(flow.stage().stats().store_errors, 1);
//! # Ok(()) }
//! ```
//!
//! Do not share a prefix with a program whose answers you would not serve: who may write there decides what is
//! answered.

mod address;
mod changes;
mod claims;
mod cluster;
mod commands;
mod config;
mod entries;
mod failure;
mod gather;
mod link;
mod node;
mod slots;
mod way;
mod writes;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Cmd;
use bytes::Bytes;
use futures_util::future::{join, join_all};

use super::claim::Claim;
use super::envelope;
use super::health::{Call, StoreHealth};
use super::key::{Key, KeyBuilder};
use super::store::{Lifetime, Lookup, OnChange, Store};
use crate::error::{ConfigError, Result};
use crate::telemetry::Tick;
use address::{Address, Place};
use changes::Changes;
use claims::Claims;
use cluster::Cluster;
use commands::{Answer, Question, Useless};
pub use config::RedisConfig;
pub use entries::RedisEntries;
use node::{Keeper, Node, Settings, Tries};
use way::{Sentinels, Way};
use writes::Writes;

/// A store on a Redis or Valkey server, or several. It connects when it is first used, by a task of the runtime
/// that it is used on; where that has ended, by one of the next.
pub struct Redis {
    shared: Arc<Shared>,
    keeper: Keeper,
}

/// What the store shares with the task that keeps its connections.
struct Shared {
    shown: String,
    prefix: String,
    servers: Servers,
    changes: Arc<Changes>,
    claims: Option<Claims>,
    writes: Writes,
    health: Arc<StoreHealth>,
    deadline: Duration,
    largest: usize,
    compress_from: usize,
}

enum Servers {
    One(Node),
    Cluster(Box<Cluster>),
}

/// Tries the one server with a key that nobody stores.
struct Trier<'a> {
    servers: &'a Servers,
    key: Key,
    name: String,
}

// === impl Redis ===

impl Redis {
    /// A store on this server. Nothing is sent yet.
    ///
    /// # Errors
    /// When the parts of the configuration do not fit each other.
    pub fn new(config: RedisConfig) -> Result<Self, ConfigError> {
        // The driver asks rustls for a provider, and there is none where two were compiled in.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        if config.lease.is_some() && config.prefix.contains(['{', '}']) {
            return Err(ConfigError::new("a redis key prefix with braces in it does not go with claims"));
        }
        let prefix = format!("{}:{}:", config.prefix, envelope::VERSION);
        let changes = Arc::new(Changes::new(prefix.clone()));
        let (shown, claims) = (config.shown(), config.lease.map(Claims::new));
        let RedisConfig { deadline, largest, compress_from, .. } = config;
        let servers = Servers::new(config, &prefix, &changes)?;
        let health = servers.health();
        let writes = Writes::default();
        let shared = Shared {
            shown,
            prefix,
            servers,
            changes,
            claims,
            writes,
            health,
            deadline,
            largest,
            compress_from,
        };
        Ok(Self { shared: Arc::new(shared), keeper: Keeper::default() })
    }

    /// Completes once all values that caches have begun to store are on the server, or have failed to be: they are
    /// stored behind the runs that made them, and a stream when it has been read to its end. It takes no longer than the
    /// deadline of the caches.
    ///
    /// # Cancellation
    /// Dropped, it has changed nothing: what is on its way goes on.
    pub async fn flush(&self) {
        self.shared.writes.ended().await;
    }

    /// Has the connections kept by a task of the runtime that this is called on, unless one does so already.
    fn keep(&self) {
        self.keeper.start(|| {
            let shared = Arc::clone(&self.shared);
            shared.servers.forget();
            async move { shared.keep().await }
        });
    }
}

impl Store for Redis {
    async fn get(&self, key: &Key, _: Tick) -> Result<Lookup> {
        self.keep();
        self.shared.get(key).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, _: Tick) -> Result<bool> {
        self.keep();
        self.shared.put(&key, &value, lifetime).await
    }

    async fn delete(&self, key: &Key, _: Tick) -> Result<()> {
        self.keep();
        self.shared.delete(key).await
    }

    fn keeps_claims(&self) -> bool {
        self.shared.claims.is_some()
    }

    async fn claim(&self, key: &Key) -> Result<Claim> {
        self.keep();
        self.shared.claim(key).await
    }

    fn release(&self, key: &Key) {
        let shared = Arc::clone(&self.shared);
        let Some(command) = shared.claims.as_ref().and_then(|claims| claims.release(key, &shared.name(key)))
        else {
            return;
        };
        // Without a runtime the lease ends it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let key = *key;
            runtime.spawn(async move { shared.mind(&key, command).await });
        }
    }

    fn on_change(&self, listener: OnChange) {
        self.shared.changes.tell(listener);
    }

    fn health(&self) -> Option<Arc<StoreHealth>> {
        Some(Arc::clone(&self.shared.health))
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({}, {}*, {:?})", self.shared.shown, self.shared.prefix, self.shared.health)
    }
}

// === impl Shared ===

impl Shared {
    async fn get(&self, key: &Key) -> Result<Lookup> {
        let name = self.name(key);
        let judge = |answer| commands::got(key, answer);
        self.servers.ask(key, name, Question::Get, judge).await
    }

    async fn put(&self, key: &Key, value: &Bytes, lifetime: Lifetime) -> Result<bool> {
        if value.len() > self.largest {
            return Ok(false);
        }
        let name = self.name(key);
        let _write = self.writes.begin(value.len())?;
        let sealed = envelope::seal(key, value, lifetime, commands::wall_clock(), self.compress_from);
        if let Some(command) =
            self.claims.as_ref().and_then(|claims| claims.put(key, &name, &sealed, lifetime.kept))
        {
            // Whose claim has ended stores nothing: what has been made since stands.
            return self.servers.ask(key, name, Question::Do(command), commands::counted).await.map(|_| true);
        }
        let command = commands::set(&name, &sealed, lifetime.kept);
        self.servers.ask(key, name, Question::Do(command), commands::was_set).await.map(|()| true)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let name = self.name(key);
        let command = commands::delete(&name);
        self.servers.ask(key, name, Question::Do(command), commands::counted).await.map(drop)
    }
}

impl Shared {
    fn name(&self, key: &Key) -> String {
        commands::name(&self.prefix, key)
    }

    async fn claim(&self, key: &Key) -> Result<Claim> {
        let Some(claims) = &self.claims else { return Ok(Claim::Nobodys) };
        let name = self.name(key);
        let Some(command) = claims.claim(key, &name) else { return Ok(Claim::Theirs) };
        let granted = self.servers.ask(key, name, Question::Do(command), claims::granted).await?;
        if granted {
            return Ok(Claim::Ours);
        }
        claims.forget(key);
        Ok(Claim::Theirs)
    }

    /// Asks for what changes a claim. That it fails is seen when the lease ends.
    async fn mind(&self, key: &Key, command: Cmd) {
        let name = self.name(key);
        let asked = self.servers.ask(key, name, Question::Do(command), commands::counted);
        let _ = tokio::time::timeout(self.deadline, asked).await;
    }

    /// Keeps connections and claims. Ends only by being dropped.
    async fn keep(&self) {
        join(self.servers.keep(&self.prefix), self.renew()).await;
    }

    async fn renew(&self) {
        let Some(claims) = &self.claims else { return };
        loop {
            tokio::time::sleep(claims.pause()).await;
            let renewals = claims.renewals(|key| self.name(key));
            let renewed = renewals.into_iter().map(async |(key, command)| self.mind(&key, command).await);
            join_all(renewed).await;
        }
    }
}

// === impl Servers ===

impl Servers {
    fn new(config: RedisConfig, prefix: &str, changes: &Arc<Changes>) -> Result<Self, ConfigError> {
        let (login, to_sentinel) = (config.login(), config.sentinel_login());
        let settings = Settings {
            connections: config.connections,
            connect_timeout: config.connect_timeout,
            deadline: config.deadline,
            by_one: !matches!(config.place, Place::Cluster(_)),
            changes: Arc::clone(changes),
        };
        let one = |way| {
            let health = Arc::new(StoreHealth::found_out_by_the_store(&config.name));
            Self::One(Node::new(way, &settings, health))
        };
        Ok(match config.place {
            Place::Server(Address { host, .. }) => one(Way::At(login.client(&host)?)),
            Place::Sentinel(master, sentinels) => {
                let clients = sentinels.iter().map(|sentinel| to_sentinel.client(&sentinel.host));
                let clients = clients.collect::<Result<_, _>>()?;
                one(Way::Sentinel(Sentinels::new(master, clients, login)))
            }
            Place::Cluster(seeds) => {
                let seeds: Vec<_> = seeds.into_iter().map(|seed| seed.host).collect();
                // Whether the certificates are of any use is seen now.
                login.client(&seeds[0])?;
                Self::Cluster(Box::new(Cluster::new(settings, login, prefix, &config.name, seeds)))
            }
        })
    }

    fn health(&self) -> Arc<StoreHealth> {
        Arc::clone(match self {
            Self::One(node) => node.health(),
            Self::Cluster(cluster) => cluster.health(),
        })
    }

    fn forget(&self) {
        match self {
            Self::One(node) => node.forget(),
            Self::Cluster(cluster) => cluster.forget(),
        }
    }

    /// What `judge` makes of the answer of the server that has the key.
    async fn ask<T>(
        &self,
        key: &Key,
        name: String,
        question: Question,
        judge: impl FnOnce(Answer) -> Result<T, Useless>,
    ) -> Result<T> {
        let node = match self {
            Self::One(node) => node,
            // Boxed, as everything is that a read together with others has no use for: what a run waits for is moved.
            Self::Cluster(cluster) => {
                return Box::pin(cluster.ask(key, &name, question, judge)).await;
            }
        };
        let link = node.link(key);
        let answer = match question {
            Question::Get => link.read(name).await,
            Question::Do(command) => Box::pin(link.ask(&command)).await,
        };
        judge(answer?).map_err(|useless| {
            match useless {
                Useless::Confused => link.distrust(),
                _ if useless.is_read_only() => link.is_read_only(),
                Useless::Failed(_) => {}
            }
            useless.error()
        })
    }

    /// Keeps the connections. Ends only by being dropped.
    async fn keep(&self, prefix: &str) {
        let node = match self {
            Self::One(node) => node,
            Self::Cluster(cluster) => return cluster.keep().await,
        };
        let key = KeyBuilder::new("", 0).text("probe").build();
        node.keep(&Trier { servers: self, name: commands::name(prefix, &key), key }).await;
    }
}

impl Tries for Trier<'_> {
    async fn try_server(&self, call: Call) -> Result<()> {
        let Self { servers, key, name } = self;
        match call {
            Call::Read => {
                let got = |answer| commands::got(key, answer);
                servers.ask(key, name.clone(), Question::Get, got).await.map(drop)
            }
            Call::Write => {
                let probe = Question::Do(commands::probe(key, name));
                servers.ask(key, name.clone(), probe, commands::was_set).await
            }
        }
    }
}
