//! Values on a Redis or Valkey server, shared by all who have the same prefix.
//!
//! Use it where several replicas should share answers, or where answers should outlive the process. In front of
//! a dear call it pays even over a network; in front of a cheap one [`Memory`](crate::Memory) is the better store.
//!
//! The server may be away, when the program starts and at any time after it. Nothing waits for it longer than the
//! cache's deadline, after five failures in a row nothing waits at all, and a task of the store finds out when the
//! server is back. What cannot be read as what this store has written is no answer: it is deleted and made again.
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

mod config;
mod envelope;
mod failure;
mod link;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ::redis::{Cmd, Value, cmd};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use tokio::task::AbortHandle;

use super::health::{Call, StoreHealth};
use super::key::{Key, KeyBuilder};
use super::store::{Lifetime, Lookup, Store};
use crate::Clock;
use crate::error::{ConfigError, Error, Kind, Result};
use crate::telemetry::Tick;
pub use config::RedisConfig;
use envelope::millis;
use failure::failure;
use link::Link;

/// How often a server that is left alone is tried.
const PROBE: Duration = Duration::from_millis(250);
/// How long the value lives that is written to see whether writing works.
const PROBE_KEPT: Duration = Duration::from_secs(1);

/// A store on a Redis or Valkey server. It connects when it is first used.
pub struct Redis {
    shared: Arc<Shared>,
    keeper: Mutex<Option<AbortHandle>>,
}

/// What the store shares with the task that keeps its connections.
struct Shared {
    shown: String,
    prefix: String,
    links: Box<[Link]>,
    health: Arc<StoreHealth>,
    deadline: Duration,
    largest: usize,
    compress_from: usize,
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
        let client = config.client()?;
        let link = || Link::new(client.clone(), config.connect_timeout);
        let shared = Shared {
            shown: config.shown(),
            prefix: format!("{}:{}:", config.prefix, envelope::VERSION),
            links: std::iter::repeat_with(link).take(config.connections).collect(),
            health: Arc::new(StoreHealth::found_out_by_the_store(config.name)),
            deadline: config.deadline,
            largest: config.largest,
            compress_from: config.compress_from,
        };
        Ok(Self { shared: Arc::new(shared), keeper: Mutex::default() })
    }

    /// Has the connections kept by a task of the runtime that this is called on, unless one does so already.
    fn keep(&self, link: &Link) {
        if link.is_up() {
            return;
        }
        let mut keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner);
        // A task is finished when its runtime has ended.
        if keeper.as_ref().is_none_or(AbortHandle::is_finished) {
            let shared = Arc::clone(&self.shared);
            *keeper = Some(tokio::spawn(async move { shared.keep().await }).abort_handle());
        }
    }
}

impl Store for Redis {
    async fn get(&self, key: &Key, _: Tick) -> Result<Lookup> {
        self.keep(self.shared.link(key));
        self.shared.get(key).await
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, _: Tick) -> Result<bool> {
        self.keep(self.shared.link(&key));
        self.shared.put(&key, &value, lifetime).await
    }

    async fn delete(&self, key: &Key, _: Tick) -> Result<()> {
        self.keep(self.shared.link(key));
        self.shared.delete(key).await
    }

    fn health(&self) -> Option<Arc<StoreHealth>> {
        Some(Arc::clone(&self.shared.health))
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.get_mut().unwrap_or_else(PoisonError::into_inner) {
            keeper.abort();
        }
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
        let link = self.link(key);
        match link.ask(&self.command("GET", key)).await? {
            Ok(Value::Nil) => Ok(Lookup::Missing),
            Ok(Value::BulkString(sealed)) => Ok(match envelope::open(key, &sealed.into(), wall_clock()) {
                Ok(found) if found.age >= found.lifetime.kept => Lookup::Missing,
                Ok(found) => Lookup::Found(found),
                Err(_) => Lookup::Corrupt,
            }),
            // Somebody keeps a list or the like under our name.
            Err(error) if error.code() == Some("WRONGTYPE") => Ok(Lookup::Corrupt),
            Err(error) => Err(failure(&error)),
            Ok(_) => Err(confused(link)),
        }
    }

    async fn put(&self, key: &Key, value: &Bytes, lifetime: Lifetime) -> Result<bool> {
        if value.len() > self.largest {
            return Ok(false);
        }
        let link = self.link(key);
        let mut command = self.command("SET", key);
        command.arg(envelope::seal(key, value, lifetime, wall_clock(), self.compress_from));
        command.arg("PX").arg(millis(lifetime.kept));
        match link.ask(&command).await? {
            Ok(Value::Okay) => Ok(true),
            Ok(_) => Err(confused(link)),
            Err(error) => Err(failure(&error)),
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let link = self.link(key);
        match link.ask(&self.command("DEL", key)).await? {
            Ok(Value::Int(_)) => Ok(()),
            Ok(_) => Err(confused(link)),
            Err(error) => Err(failure(&error)),
        }
    }

    fn link(&self, key: &Key) -> &Link {
        &self.links[usize::from(key.as_bytes()[0]) % self.links.len()]
    }

    fn command(&self, name: &str, key: &Key) -> Cmd {
        let mut full = String::with_capacity(self.prefix.len() + 64);
        full.push_str(&self.prefix);
        for byte in key.as_bytes() {
            full.extend(
                [byte >> 4, byte & 15].map(|digit| char::from(b"0123456789abcdef"[usize::from(digit)])),
            );
        }
        let mut command = cmd(name);
        command.arg(full);
        command
    }

    async fn keep(&self) {
        join(join_all(self.links.iter().map(Link::keep)), self.probe()).await;
    }

    /// Tries the server while it is left alone, so that no run has to.
    async fn probe(&self) {
        let key = KeyBuilder::new("", 0).text("probe").build();
        let (nothing, lifetime) =
            (Bytes::new(), Lifetime { fresh: PROBE_KEPT, kept: PROBE_KEPT, computed_in: Duration::ZERO });
        loop {
            self.health.closed().await;
            while self.health.is_closed(Call::Read) || self.health.is_closed(Call::Write) {
                tokio::time::sleep(PROBE).await;
                if self.health.is_closed(Call::Read) {
                    self.learn(Call::Read, tokio::time::timeout(self.deadline, self.get(&key)).await);
                }
                if self.health.is_closed(Call::Write) {
                    let put = self.put(&key, &nothing, lifetime);
                    self.learn(Call::Write, tokio::time::timeout(self.deadline, put).await);
                }
            }
        }
    }

    fn learn<T>(&self, call: Call, answer: Result<Result<T>, tokio::time::error::Elapsed>) {
        let late =
            |_| Error::new(Kind::Store, format!("no answer from the store within {:?}", self.deadline));
        let answer = answer.map_err(late).and_then(|answer| answer);
        self.health.learn(call, Clock::Tokio.now(), answer.err().as_ref());
    }
}

fn confused(link: &Link) -> Error {
    link.distrust();
    Error::new(Kind::Store, "redis gave an answer that does not belong to what was asked")
}

/// The one clock that replicas share, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "a monotonic clock means nothing to another replica")]
fn wall_clock() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
