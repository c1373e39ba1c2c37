//! `[stores.NAME]`: where answers can be kept. `[stores.NAME.redis]`, where several gateways share them, is read here.

use std::ops::Range;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde::Deserialize;
use throughline::ConfigError;
use throughline::cache::disk::DiskConfig;
use throughline::cache::redis::RedisConfig;
use toml::{Spanned, Value};

use super::check::Check;
use super::disk::DiskFile;
use super::{read, secret};

/// The longest file of certificates, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// How long a claim of a gateway that is gone is respected.
const LEASE: Duration = Duration::from_secs(3);

/// A place for answers.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    /// On a server.
    Redis(RedisConfig),
    /// In a file.
    Disk(DiskConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct StoreFile {
    redis: Option<RedisFile>,
    disk: Option<DiskFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct RedisFile {
    url: Option<Spanned<String>>,
    sentinel: Option<SentinelFile>,
    cluster: Option<Spanned<Vec<Spanned<String>>>>,
    username: Option<Spanned<String>>,
    password: Option<Spanned<Value>>,
    ca_file: Option<Spanned<String>>,
    key_prefix: Option<Spanned<String>>,
    deadline: Option<Spanned<Value>>,
    connections: Option<Spanned<i64>>,
    lock: Option<Spanned<bool>>,
    lock_lease: Option<Spanned<Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct SentinelFile {
    master: Spanned<String>,
    addresses: Spanned<Vec<Spanned<String>>>,
    username: Option<Spanned<String>>,
    password: Option<Spanned<Value>>,
}

// === impl StoreFile ===

impl StoreFile {
    /// Checks the one kind that is written.
    pub(super) fn check(self, check: &mut Check<'_>, name: &Spanned<String>) -> Store {
        let stand_in = || RedisConfig::new("redis://127.0.0.1").expect("it is an address");
        match (self.redis, self.disk) {
            (Some(redis), None) => Store::Redis(redis.check(check, name, stand_in()).name(name.get_ref())),
            (None, Some(disk)) => Store::Disk(disk.check(check).name(name.get_ref())),
            (redis, _) => {
                let kinds = if redis.is_some() { "two kinds" } else { "no kind" };
                let wanted = format!("[stores.{0}.redis] or [stores.{0}.disk]", name.get_ref());
                check.refuse(name.span(), format!("store `{}` has {kinds}: write {wanted}", name.get_ref()));
                Store::Redis(stand_in())
            }
        }
    }
}

// === impl Store ===

impl Store {
    /// Where it is, in words.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Redis(config) => format!("{}, keys {}:*", config.shown(), config.prefix()),
            Self::Disk(config) => {
                format!("{}, at most {} bytes", config.path().display(), config.max_bytes())
            }
        }
    }
}

// === impl RedisFile ===

impl RedisFile {
    fn check(self, check: &mut Check<'_>, name: &Spanned<String>, stand_in: RedisConfig) -> RedisConfig {
        let mut config = self.place(check, name).unwrap_or(stand_in);
        if let Some(username) = self.username {
            config = config.username(user(check, "username", username));
        }
        if let Some(password) = self.password.and_then(|written| secret::read(check, "password", &written)) {
            config = config.password(password);
        }
        if let Some(sentinel) = self.sentinel {
            config = sentinel.login(check, config);
        }
        if let Some(prefix) = self.key_prefix {
            config = config.key_prefix(key_prefix(check, prefix));
        }
        if let Some(file) = &self.ca_file {
            match certificates(check, file)
                .and_then(|pem| config.clone().ca(pem).map_err(|error| error.to_string()))
            {
                Ok(with_ca) => config = with_ca,
                Err(problem) => check.refuse(file.span(), format!("`ca_file`: {problem}")),
            }
        }
        let deadline = check.timeout("deadline", self.deadline.as_ref(), Duration::from_millis(20));
        let connections = check.whole("connections", self.connections.as_ref(), 1..=4, 1);
        let bounded = config.deadline(deadline).and_then(|config| config.connections(connections));
        let config = bounded.expect("both have been checked");
        match self.lock_lease {
            _ if self.lock.as_ref().is_some_and(|lock| *lock.get_ref()) => {
                let lease = check.timeout("lock_lease", self.lock_lease.as_ref(), LEASE);
                config.clone().claims(lease).unwrap_or_else(|_| {
                    let written = self.lock_lease.as_ref().expect("the default is within the bounds");
                    check.refuse(written.span(), format!("`lock_lease` is {lease:?}: write 100ms to 60s"));
                    config
                })
            }
            Some(lease) => {
                check.refuse(lease.span(), "`lock_lease` is of no use without `lock = true`");
                config
            }
            None => config,
        }
    }
}

impl RedisFile {
    /// Where the servers are; `None` when that is not said, or wrongly.
    fn place(&self, check: &mut Check<'_>, name: &Spanned<String>) -> Option<RedisConfig> {
        match (&self.url, &self.sentinel, &self.cluster) {
            (Some(url), None, None) => {
                accepted(check, "url", url.span(), &[url.get_ref()], RedisConfig::new(url.get_ref()))
            }
            (None, Some(sentinel), None) => sentinel.place(check),
            (None, None, Some(nodes)) => {
                let urls = urls(nodes.get_ref());
                accepted(check, "cluster", nodes.span(), &urls, RedisConfig::cluster(&urls))
            }
            (None, None, None) => {
                let one = "write one of `url`, `sentinel` and `cluster`";
                check.refuse(name.span(), format!("store `{}` has no address: {one}", name.get_ref()));
                None
            }
            _ => {
                let one = "write one of `url`, `sentinel` and `cluster`";
                check.refuse(
                    name.span(),
                    format!("store `{}` has two kinds of address: {one}", name.get_ref()),
                );
                None
            }
        }
    }
}

// === impl SentinelFile ===

impl SentinelFile {
    fn place(&self, check: &mut Check<'_>) -> Option<RedisConfig> {
        let urls = urls(self.addresses.get_ref());
        let config = RedisConfig::sentinel(self.master.get_ref(), &urls);
        accepted(check, "sentinel", self.addresses.span(), &urls, config)
    }

    /// The login at the sentinels, which is not that of the server.
    fn login(self, check: &mut Check<'_>, mut config: RedisConfig) -> RedisConfig {
        if let Some(username) = self.username {
            config = config.sentinel_username(user(check, "username", username));
        }
        if let Some(password) = self.password.and_then(|written| secret::read(check, "password", &written)) {
            config = config.sentinel_password(password);
        }
        config
    }
}

fn urls(written: &[Spanned<String>]) -> Vec<&str> {
    written.iter().map(|url| url.get_ref().as_str()).collect()
}

/// What the store makes of addresses, or its refusal.
fn accepted(
    check: &mut Check<'_>,
    key: &str,
    at: Range<usize>,
    urls: &[&str],
    config: Result<RedisConfig, ConfigError>,
) -> Option<RedisConfig> {
    let cure = if urls.iter().any(|url| url.contains('@')) { " in `username` and `password`" } else { "" };
    config.map_err(|error| check.refuse(at, format!("`{key}`: {error}{cure}"))).ok()
}

/// A name as it is written, or what it refers to.
fn user(check: &mut Check<'_>, key: &str, written: Spanned<String>) -> String {
    if !["env:", "file:"].iter().any(|scheme| written.get_ref().starts_with(scheme)) {
        return check.text(key, written);
    }
    let reference = Spanned::new(written.span(), Value::String(written.into_inner()));
    secret::read(check, key, &reference).map_or_else(String::new, |name| name.expose_secret().to_owned())
}

fn certificates(check: &mut Check<'_>, file: &Spanned<String>) -> Result<Vec<u8>, String> {
    let pem = read::at_most(LONGEST, &check.dir.join(file.get_ref()))
        .map_err(|why| format!("it cannot be read: {why}"))?;
    check.marks.read(&pem);
    Ok(pem)
}

/// It stands in the names of keys, and in the rules of an ACL.
fn key_prefix(check: &mut Check<'_>, written: Spanned<String>) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
    if !written.get_ref().chars().all(allowed) || !(1..=64).contains(&written.get_ref().len()) {
        let problem = "`key_prefix` must be 1 to 64 letters, digits or characters of . _ : / -";
        check.refuse(written.span(), problem);
    }
    written.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    fn store(text: &str) -> RedisConfig {
        match &accepted(&format!("[stores.shared.redis]\n{text}")).stores["shared"] {
            Store::Redis(config) => config.clone(),
            Store::Disk(config) => panic!("a server was written: {config:?}"),
        }
    }

    /// The first line of what is said about a store.
    fn refusal(text: &str) -> String {
        refused(&format!("[stores.shared.redis]\n{text}")).lines().next().unwrap().to_owned()
    }

    #[test]
    fn only_the_address_is_needed() {
        let shown = format!("{:?}", store("url = \"redis://h\""));
        for part in ["name: \"shared\"", "redis://h:6379/0", "prefix: \"throughline\"", "deadline: 20ms"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let one = "write one of `url`, `sentinel` and `cluster`";
        assert_eq!(refusal(""), format!("t.toml:1:9: store `shared` has no address: {one}"));
        let two = refusal("url = \"redis://h\"\ncluster = [\"redis://h\"]");
        assert_eq!(two, format!("t.toml:1:9: store `shared` has two kinds of address: {one}"));
    }

    #[test]
    fn several_addresses_are_those_of_sentinels_or_of_a_cluster() {
        let cluster = store("cluster = [\"redis://a:7000\", \"redis://b:7000\"]");
        assert_eq!(cluster.shown(), "redis://a:7000,b:7000 (cluster)");
        let sentinel = store(
            "sentinel = { master = \"cache\", addresses = [\"rediss://a:26379/1\"], username = \"watch\", \
             password = \"env:KEY\" }",
        );
        assert_eq!(sentinel.shown(), "rediss://a:26379/1 (sentinels of cache)");
        assert!(!format!("{sentinel:?}").contains("sk-live"));
        assert_eq!(
            refusal("cluster = [\"redis://a/1\"]"),
            "t.toml:2:11: `cluster`: a redis cluster has no database 1: leave it out of the address"
        );
        let said =
            refused("[stores.s.redis]\nsentinel = { master = \"m\", addresses = [\"redis://me:hush@h\"] }\n");
        assert!(
            said.contains("`sentinel`: ") && said.contains("give them apart") && !said.contains("hush"),
            "{said}"
        );
        assert_eq!(
            refusal("sentinel = { master = \"m\" }").split(" (").next(),
            Some("t.toml:2:12: missing key `addresses`")
        );
    }

    #[test]
    fn all_keys_are_read_and_the_password_is_not_in_debug() {
        let shown = format!(
            "{:?}",
            store(
                "url = \"rediss://h:7000/2\"\nusername = \"cache\"\npassword = \"env:KEY\"\n\
                 key_prefix = \"app:prod\"\ndeadline = \"50ms\"\nconnections = 2"
            )
        );
        for part in ["rediss://h:7000/2", "cache", "app:prod", "50ms"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        assert!(!shown.contains("sk-live"), "{shown}");
    }

    #[test]
    fn a_store_without_a_kind_is_refused() {
        let said = refused("[stores.shared]\n");
        assert!(
            said.starts_with("t.toml:1:9: store `shared` has no kind: write [stores.shared.redis] or [stores.shared.disk]\n"),
            "{said}"
        );
        let both = refused("[stores.s.redis]\nurl = \"redis://h\"\n[stores.s.disk]\npath = \"a\"\n");
        assert!(both.starts_with("t.toml:1:9: store `s` has two kinds: write [stores.s.redis] or"), "{both}");
    }

    #[test]
    fn an_address_with_a_password_is_refused_and_not_shown() {
        let said = refused("[stores.shared.redis]\nurl = \"redis://me:hush@h\"\n");
        assert!(
            said.contains("give them apart in `username` and `password`") && !said.contains("hush"),
            "{said}"
        );
        let wanted = "write `redis://HOST:PORT/DATABASE`, or `rediss://…` for tls";
        assert_eq!(
            refusal("url = \"h:6379\""),
            format!("t.toml:2:7: `url`: the address is not one of a redis server: {wanted}")
        );
    }

    #[test]
    fn a_password_in_plain_text_is_refused_and_not_shown() {
        let said = refused("[stores.shared.redis]\nurl = \"redis://h\"\npassword = \"hush\"\n");
        assert!(
            said.starts_with("t.toml:3:12: `password` holds the password itself: put it in a variable"),
            "{said}"
        );
        assert!(!said.contains("hush"), "{said}");
    }

    #[test]
    fn a_lock_has_a_lease() {
        assert!(!format!("{:?}", store("url = \"redis://h\"")).contains("lease: Some"));
        for (text, lease) in [("lock = true", "3s"), ("lock = true\nlock_lease = \"500ms\"", "500ms")] {
            let shown = format!("{:?}", store(&format!("url = \"redis://h\"\n{text}")));
            assert!(shown.contains(&format!("lease: Some({lease})")), "{shown}");
        }
        assert_eq!(
            refusal("url = \"redis://h\"\nlock_lease = \"3s\""),
            "t.toml:3:14: `lock_lease` is of no use without `lock = true`"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\nlock = true\nlock_lease = \"10ms\""),
            "t.toml:4:14: `lock_lease` is 10ms: write 100ms to 60s"
        );
    }

    #[test]
    fn certificates_that_are_not_there_or_of_no_use_are_refused() {
        assert_eq!(
            refusal("url = \"rediss://h\"\nca_file = \"./none.pem\""),
            "t.toml:3:11: `ca_file`: it cannot be read: there is no such file"
        );
    }

    #[test]
    fn what_is_out_of_bounds_is_refused() {
        assert_eq!(
            refusal("url = \"redis://h\"\nconnections = 5"),
            "t.toml:3:15: `connections` is 5: write 1 to 4"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\ndeadline = \"0s\""),
            "t.toml:3:12: `deadline` is 0s: write 1ms to 24h"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\nkey_prefix = \"a b\""),
            "t.toml:3:14: `key_prefix` must be 1 to 64 letters, digits or characters of . _ : / -"
        );
        assert_eq!(
            refusal("url = \"redis://h\"\nprefix = \"a\"").split(" (").next(),
            Some("t.toml:3:1: unknown key `prefix`")
        );
    }
}
