//! Where a Redis server is and how it is used.

use std::fmt;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::address::{Address, Login, Place};
use super::envelope;
use crate::error::ConfigError;

/// Where a Redis server is and how it is used. What is secret in it is in no `Debug` output.
#[derive(Clone)]
#[must_use = "a configuration does nothing until it is given to `Redis::new`"]
pub struct RedisConfig {
    pub(super) place: Place,
    username: Option<String>,
    password: Option<SecretString>,
    sentinel_username: Option<String>,
    sentinel_password: Option<SecretString>,
    ca: Option<Vec<u8>>,
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) deadline: Duration,
    pub(super) connect_timeout: Duration,
    pub(super) connections: usize,
    pub(super) lease: Option<Duration>,
    pub(super) largest: usize,
    pub(super) compress_from: usize,
}

// === impl RedisConfig ===

impl RedisConfig {
    /// The server at `redis://HOST:PORT/DATABASE`, or `rediss://…` for TLS. Port and database may be left out:
    /// they are 6379 and 0 then.
    ///
    /// # Errors
    /// When the address is another one, or has a user name or a password in it.
    pub fn new(url: &str) -> Result<Self, ConfigError> {
        Ok(Self::at(Place::Server(Address::read(url)?)))
    }

    /// The server that the sentinels at these addresses (`redis://HOST:PORT/DATABASE` or `rediss://…`; say the port,
    /// it is 26379 as a rule) know as `master`: they are asked for it whenever a connection is made. Scheme and
    /// database are those of the server as well.
    ///
    /// # Errors
    /// When there is no address, one is another one or has a user name or a password in it, or they differ in
    /// scheme or database.
    pub fn sentinel(master: &str, urls: &[&str]) -> Result<Self, ConfigError> {
        Ok(Self::at(Place::sentinel(master, urls)?))
    }

    /// The Redis Cluster that the nodes at these addresses (`redis://HOST:PORT` or `rediss://…`) are of. One that
    /// answers is enough: the others are learned from it.
    ///
    /// # Errors
    /// When there is no address, one is another one, has a user name, a password or a database in it, or they
    /// differ in scheme.
    pub fn cluster(urls: &[&str]) -> Result<Self, ConfigError> {
        Ok(Self::at(Place::cluster(urls)?))
    }

    fn at(place: Place) -> Self {
        Self {
            place,
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            ca: None,
            name: "redis".to_owned(),
            prefix: "throughline".to_owned(),
            deadline: Duration::from_millis(20),
            connect_timeout: Duration::from_secs(1),
            connections: 1,
            lease: None,
            largest: 8 << 20,
            compress_from: 2 << 10,
        }
    }

    /// The ACL user to log in as. Default: the server's `default`.
    pub fn username(mut self, name: impl Into<String>) -> Self {
        self.username = Some(name.into());
        self
    }

    /// The password to log in with. Default: none.
    pub fn password(mut self, password: SecretString) -> Self {
        self.password = Some(password);
        self
    }

    /// The ACL user to log in to the sentinels as. Default: their `default`.
    pub fn sentinel_username(mut self, name: impl Into<String>) -> Self {
        self.sentinel_username = Some(name.into());
        self
    }

    /// The password to log in to the sentinels with. Default: none.
    pub fn sentinel_password(mut self, password: SecretString) -> Self {
        self.sentinel_password = Some(password);
        self
    }

    /// The certificates, in PEM, one of which must have signed the server's. Default: those that the operating
    /// system trusts.
    ///
    /// # Errors
    /// When there is no certificate in `pem`, or the address is not `rediss://`.
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Result<Self, ConfigError> {
        let pem = pem.into();
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        if !found.is_ok_and(|found| !found.is_empty()) {
            return Err(ConfigError::new(
                "the ca certificates of the redis server cannot be read: give them in pem",
            ));
        }
        if !self.place.is_tls() {
            return Err(ConfigError::new("ca certificates are for tls: write the address with `rediss://`"));
        }
        self.ca = Some(pem);
        Ok(self)
    }

    /// What the store is called in metrics and health. Default: `redis`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// What the names of all keys begin with. Caches under two prefixes never meet. Default: `throughline`.
    pub fn key_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Within which time a store that was left alone must answer to count as well again. Default: 20ms.
    ///
    /// # Errors
    /// When it is zero.
    pub fn deadline(mut self, deadline: Duration) -> Result<Self, ConfigError> {
        self.deadline = above_zero("redis deadline", deadline)?;
        Ok(self)
    }

    /// How long it may take to connect and log in. No run waits for longer than its own deadline. Default: 1s.
    ///
    /// # Errors
    /// When it is zero.
    pub fn connect_timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        self.connect_timeout = above_zero("redis connect timeout", timeout)?;
        Ok(self)
    }

    /// Over how many connections the keys are spread: a huge value delays what is behind it on its own only.
    /// Default: 1.
    ///
    /// # Errors
    /// When it is not 1 to 4.
    pub fn connections(mut self, connections: usize) -> Result<Self, ConfigError> {
        if !(1..=4).contains(&connections) {
            return Err(ConfigError::refused("redis connections", connections, "1 to 4"));
        }
        self.connections = connections;
        Ok(self)
    }

    /// Has one of all replicas compute a value that several want at once: it claims the work on the server, the others
    /// wait for its answer, and one of them takes over when it has gone for as long as `lease`. Default: each
    /// replica computes it.
    ///
    /// # Errors
    /// When it is not 100ms to 60s.
    pub fn claims(mut self, lease: Duration) -> Result<Self, ConfigError> {
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&lease) {
            return Err(ConfigError::refused("redis claim lease", lease, "100ms to 60s"));
        }
        self.lease = Some(lease);
        Ok(self)
    }

    /// The largest value that is stored, in bytes before compression. Default: 8 MiB.
    ///
    /// # Errors
    /// When it is not 1 byte to 64 MiB.
    pub fn largest_value(mut self, bytes: usize) -> Result<Self, ConfigError> {
        if !(1..=envelope::LARGEST).contains(&bytes) {
            return Err(ConfigError::refused("redis largest value", bytes, "1 to 67108864 bytes"));
        }
        self.largest = bytes;
        Ok(self)
    }

    /// From which size on values are compressed, in bytes. Default: 2 KiB.
    pub fn compress_from(mut self, bytes: usize) -> Self {
        self.compress_from = bytes;
        self
    }

    /// See [`RedisConfig::key_prefix`].
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// See [`RedisConfig::deadline`].
    #[must_use]
    pub fn call_deadline(&self) -> Duration {
        self.deadline
    }

    /// Where the servers are: the addresses, written in full.
    #[must_use]
    pub fn shown(&self) -> String {
        self.place.to_string()
    }

    pub(super) fn login(&self) -> Login {
        let password = self.password.as_ref().map(|password| password.expose_secret());
        Login::new(&self.place, self.username.as_deref(), password, self.ca.clone())
    }

    pub(super) fn sentinel_login(&self) -> Login {
        let password = self.sentinel_password.as_ref().map(|password| password.expose_secret());
        Login::new(&self.place, self.sentinel_username.as_deref(), password, self.ca.clone())
            .without_database()
    }
}

fn above_zero(what: &str, time: Duration) -> Result<Duration, ConfigError> {
    if time.is_zero() {
        return Err(ConfigError::refused(what, format_args!("0s"), "more"));
    }
    Ok(time)
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("name", &self.name)
            .field("server", &self.shown())
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "…"))
            .field("prefix", &self.prefix)
            .field("deadline", &self.deadline)
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(url: &str) -> String {
        RedisConfig::new(url).expect_err(url).to_string()
    }

    #[test]
    fn an_address_that_is_not_of_a_redis_server_is_refused() {
        for url in [
            "",
            "localhost:6379",
            "http://h",
            "unix:///tmp/socket",
            "redis://h?protocol=resp2",
            "rediss://h#insecure",
        ] {
            assert_eq!(
                refusal(url),
                "the address is not one of a redis server: write `redis://HOST:PORT/DATABASE`, or `rediss://…` for tls"
            );
        }
        assert!(refusal("redis://h/first").starts_with("the address of the redis server cannot be read: "));
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_repeated() {
        for url in ["redis://me:hush@h", "redis://:hush@h", "redis://hush@h", "rediss://me:hush@h:1/2"] {
            let refusal = refusal(url);
            assert!(refusal.ends_with("give them apart") && !refusal.contains("hush"), "{refusal}");
        }
    }

    #[test]
    fn the_password_is_in_no_debug_output() {
        let config = RedisConfig::new("rediss://h:7000/3").unwrap().username("cache").password("hush".into());
        let shown = format!("{config:?} {}", config.shown());
        assert!(shown.contains("rediss://h:7000/3") && shown.contains("cache"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }

    #[test]
    fn certificates_must_be_there_and_be_of_use() {
        let tls = || RedisConfig::new("rediss://h").unwrap();
        for pem in ["", "no certificate", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
            assert!(tls().ca(pem).is_err(), "{pem}");
        }
    }

    #[test]
    fn bounds_are_said() {
        let config = || RedisConfig::new("redis://h").unwrap();
        let refusal = config().connections(5).unwrap_err().to_string();
        assert_eq!(refusal, "redis connections is 5: it must be 1 to 4");
        assert!(config().deadline(Duration::ZERO).is_err() && config().largest_value(0).is_err());
    }
}
