//! What stands on the servers of a Redis store.

use std::collections::VecDeque;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Cmd, RedisError, Value, cmd};
use futures_util::future::join_all;

use super::address::{Address, Host, Place};
use super::commands::{self, wall_clock};
use super::config::RedisConfig;
use super::envelope::{self, HEADER, VERSION, peek};
use super::failure::failure;
use super::slots;
use super::way::{Sentinels, Way};
use crate::cache::entries::{Entries, Entry};
use crate::cache::key::Key;
use crate::cache::store::Found;
use crate::error::{Error, Kind, Result};

/// Names that the server looks at for one answer.
const PAGE: usize = 1_000;
/// A server of a cluster that names another for a key is followed so often.
const TRIES: usize = 3;

/// The entries of a Redis store, whichever servers they are on. Names are found by SCAN, and of each value its first
/// bytes are read. The user needs the commands SCAN, GETRANGE and STRLEN, and DEL to remove, GET to read, DBSIZE for
/// progress.
pub struct RedisEntries {
    servers: Vec<MultiplexedConnection>,
    /// Servers that are not at their end, with how far they are.
    left: VecDeque<(usize, u64)>,
    prefix: String,
}

// === impl RedisEntries ===

impl RedisEntries {
    /// Connects to the servers.
    ///
    /// # Errors
    /// When one of them cannot be reached, or lets us not in.
    pub async fn connect(config: &RedisConfig) -> Result<Self> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // Another one may have come first.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let servers = join_all(ways(config).await?.iter().map(|way| connect(config, way))).await;
        let servers = servers.into_iter().collect::<Result<Vec<_>>>()?;
        let left = (0..servers.len()).map(|server| (server, 0)).collect();
        Ok(Self { servers, left, prefix: config.prefix.clone() })
    }

    async fn ask(&self, server: usize, command: &Cmd) -> Result<Value, RedisError> {
        let answer = self.servers[server].clone().send_packed_command(command).await?;
        answer.extract_error()
    }

    /// What is under a name: nothing if it has gone meanwhile.
    async fn entry(&self, server: usize, name: String) -> Result<Option<Entry>> {
        let Some((key, version)) = self.key(&name) else { return Ok(None) };
        let (mut head, mut length) = (cmd("GETRANGE"), cmd("STRLEN"));
        head.arg(&name).arg(0).arg(HEADER - 1);
        length.arg(&name);
        let (head, length) =
            futures_util::future::join(self.ask(server, &head), self.ask(server, &length)).await;
        let (stored, bytes) = match (head, length) {
            (Ok(Value::BulkString(head)), Ok(Value::Int(bytes))) => {
                if bytes == 0 && head.is_empty() {
                    return Ok(None);
                }
                let stored = peek(&head, wall_clock()).filter(|_| version == VERSION);
                (stored, u64::try_from(bytes).unwrap_or_default())
            }
            // Somebody keeps a list or the like under our name.
            (Err(error), _) if error.code() == Some("WRONGTYPE") => (None, 0),
            (Err(error), _) | (_, Err(error)) => return Err(failure(&error)),
            _ => return Err(commands::Useless::Confused.error()),
        };
        Ok(Some(Entry { key, name, part: server, bytes, stored }))
    }

    /// The key and the version in a name of ours.
    fn key(&self, name: &str) -> Option<(Key, u8)> {
        let (version, key) = name.strip_prefix(&self.prefix)?.strip_prefix(':')?.split_once(':')?;
        Some((key.parse().ok()?, version.parse().ok()?))
    }
}

impl Entries for RedisEntries {
    async fn get(&mut self, key: &Key) -> Result<Option<Found>> {
        let command = commands::get(&commands::name(&format!("{}:{VERSION}:", self.prefix), key));
        for server in 0..self.servers.len() {
            match self.ask(server, &command).await {
                Ok(Value::BulkString(sealed)) => {
                    return Ok(envelope::open(key, sealed.into(), wall_clock()).ok());
                }
                Ok(_) => {}
                // The next one has it.
                Err(error) if error.redirect_node().is_some() => {}
                Err(error) if error.code() == Some("WRONGTYPE") => {}
                Err(error) => return Err(failure(&error)),
            }
        }
        Ok(None)
    }

    async fn count(&mut self) -> Result<u64> {
        let mut count = 0;
        for server in 0..self.servers.len() {
            match self.ask(server, &cmd("DBSIZE")).await {
                Ok(Value::Int(keys)) => count += u64::try_from(keys).unwrap_or_default(),
                Ok(_) => return Err(commands::Useless::Confused.error()),
                Err(error) => return Err(failure(&error)),
            }
        }
        Ok(count)
    }

    async fn next(&mut self) -> Result<Option<Vec<Entry>>> {
        let Some((server, cursor)) = self.left.pop_front() else { return Ok(None) };
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{}:*", literal(&self.prefix))).arg("COUNT").arg(PAGE);
        let answer = self.ask(server, &scan).await.map_err(|error| failure(&error))?;
        let (cursor, names): (u64, Vec<Vec<u8>>) =
            ::redis::from_redis_value(answer).map_err(|_| commands::Useless::Confused.error())?;
        if cursor != 0 {
            self.left.push_front((server, cursor));
        }
        let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok());
        let entries = join_all(names.map(|name| self.entry(server, name))).await;
        Ok(Some(entries.into_iter().filter_map(Result::transpose).collect::<Result<_>>()?))
    }

    async fn remove(&mut self, entries: &[Entry]) -> Result<u64> {
        let delete = async |entry: &Entry| {
            let answer = self.ask(entry.part, &commands::delete(&entry.name)).await;
            commands::counted(answer).map_err(|useless| useless.error())
        };
        let counts = join_all(entries.iter().map(delete)).await;
        counts.into_iter().map(|count| Ok(u64::try_from(count?).unwrap_or_default())).sum()
    }
}

/// The ways to the servers that have values.
async fn ways(config: &RedisConfig) -> Result<Vec<Way>> {
    let refused = |error: crate::ConfigError| Error::new(Kind::Store, error.to_string());
    let login = config.login();
    match &config.place {
        Place::Server(Address { host, .. }) => Ok(vec![Way::At(login.client(host).map_err(refused)?)]),
        Place::Sentinel(master, sentinels) => {
            let to_sentinel = config.sentinel_login();
            let clients = sentinels.iter().map(|sentinel| to_sentinel.client(&sentinel.host));
            let clients = clients.collect::<Result<_, _>>().map_err(refused)?;
            Ok(vec![Way::Sentinel(Sentinels::new(master.clone(), clients, login))])
        }
        Place::Cluster(seeds) => {
            let mut problem = Error::new(Kind::Store, "no server of the redis cluster has answered");
            for seed in seeds.iter().cycle().take(seeds.len() * TRIES) {
                match masters(config, &seed.host).await {
                    Ok(hosts) => {
                        let client = |host: &Host| login.client(host).map(Way::At).map_err(refused);
                        return hosts.iter().map(client).collect();
                    }
                    Err(error) => problem = error,
                }
            }
            Err(problem)
        }
    }
}

/// The servers of a cluster that take writes, as the one at `seed` knows them.
async fn masters(config: &RedisConfig, seed: &Host) -> Result<Vec<Host>> {
    let client = config.login().client(seed).map_err(|error| Error::new(Kind::Store, error.to_string()))?;
    let mut question = cmd("CLUSTER");
    question.arg("SLOTS");
    let answer = connect(config, &Way::At(client)).await?.send_packed_command(&question).await;
    let answer = answer.and_then(Value::extract_error).map_err(|error| failure(&error))?;
    let shares = slots::read(&answer, seed).unwrap_or_default();
    let mut hosts: Vec<Host> = Vec::new();
    for (host, _) in shares {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    if hosts.is_empty() {
        return Err(Error::new(Kind::Store, "the redis cluster has no servers that take keys"));
    }
    Ok(hosts)
}

async fn connect(config: &RedisConfig, way: &Way) -> Result<MultiplexedConnection> {
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.connect_timeout))
        .set_response_timeout(Some(std::time::Duration::from_secs(10)))
        .set_pipeline_buffer_size(2 * PAGE);
    way.connect(&settings, config.connect_timeout).await
}

/// A text as a pattern that only it matches.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]\\^-".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_pattern_of_itself() {
        assert_eq!(literal("app:prod"), "app:prod");
        assert_eq!(literal("a*b[c]?"), "a\\*b\\[c\\]\\?");
    }
}
