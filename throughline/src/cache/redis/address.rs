//! Where the servers of a store are, and how one of them is reached.

use std::fmt;
use std::net::IpAddr;

use ::redis::io::tcp::TcpSettings;
use ::redis::{
    Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion, RedisConnectionInfo,
    TlsCertificates,
};

use crate::error::ConfigError;

/// Data that nobody confirms for this long ends a connection: the other side is gone without a word.
#[cfg(target_os = "linux")]
const UNCONFIRMED: std::time::Duration = std::time::Duration::from_secs(2);
const WANTED: &str = "write `redis://HOST:PORT/DATABASE`, or `rediss://…` for tls";

/// The addresses that a store is configured with.
#[derive(Clone, Debug)]
pub(super) enum Place {
    Server(Address),
    /// Sentinels, and what they call the server.
    Sentinel(String, Vec<Address>),
    /// Some nodes of a cluster; the others are learned from them.
    Cluster(Vec<Address>),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) port: u16,
}

/// An address as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: Host,
    pub(super) tls: bool,
    pub(super) database: i64,
}

/// How any server of a store is reached and logged in to. It has the password in it.
#[derive(Clone)]
pub(super) struct Login {
    settings: RedisConnectionInfo,
    tls: bool,
    ca: Option<Vec<u8>>,
}

// === impl Place ===

impl Place {
    /// # Errors
    /// When there is no address, or they are not of one kind.
    pub(super) fn sentinel(master: &str, urls: &[&str]) -> Result<Self, ConfigError> {
        if master.is_empty() || master.contains(char::is_whitespace) {
            return Err(ConfigError::new(
                "the name that the sentinels know the redis server by is empty or has a space in it",
            ));
        }
        Ok(Self::Sentinel(master.to_owned(), several("sentinels", urls)?))
    }

    /// # Errors
    /// When there is no address, they are not of one kind, or name a database.
    pub(super) fn cluster(urls: &[&str]) -> Result<Self, ConfigError> {
        let addresses = several("redis cluster's nodes", urls)?;
        if let Some(other) = addresses.iter().find(|address| address.database != 0) {
            let database = other.database;
            let problem = format!("a redis cluster has no database {database}: leave it out of the address");
            return Err(ConfigError::new(problem));
        }
        Ok(Self::Cluster(addresses))
    }

    fn first(&self) -> &Address {
        match self {
            Self::Server(address) => address,
            Self::Sentinel(_, addresses) | Self::Cluster(addresses) => &addresses[0],
        }
    }

    pub(super) fn is_tls(&self) -> bool {
        self.first().tls
    }

    pub(super) fn database(&self) -> i64 {
        self.first().database
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, database) = (if self.is_tls() { "rediss" } else { "redis" }, self.database());
        let hosts = |addresses: &[Address]| {
            addresses.iter().map(|address| address.host.to_string()).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Server(address) => write!(f, "{scheme}://{}/{database}", address.host),
            Self::Sentinel(master, sentinels) => {
                write!(f, "{scheme}://{}/{database} (sentinels of {master})", hosts(sentinels))
            }
            Self::Cluster(nodes) => write!(f, "{scheme}://{} (cluster)", hosts(nodes)),
        }
    }
}

fn several(what: &str, urls: &[&str]) -> Result<Vec<Address>, ConfigError> {
    let addresses = urls.iter().map(|url| Address::read(url)).collect::<Result<Vec<_>, _>>()?;
    let Some(first) = addresses.first() else {
        return Err(ConfigError::new(format!("there is no address of the {what}: {WANTED}")));
    };
    if addresses.iter().any(|other| (other.tls, other.database) != (first.tls, first.database)) {
        let problem =
            format!("the addresses of the {what} differ in scheme or database: write the same in all");
        return Err(ConfigError::new(problem));
    }
    Ok(addresses)
}

// === impl Address ===

impl Address {
    /// Port and database may be left out: they are 6379 and 0 then.
    ///
    /// # Errors
    /// When the address is another one, or has a user name or a password in it.
    pub(super) fn read(url: &str) -> Result<Self, ConfigError> {
        if !["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) || url.contains(['?', '#'])
        {
            return Err(ConfigError::new(format!("the address is not one of a redis server: {WANTED}")));
        }
        // What is wrong with it is not repeated: there may be a password in it.
        let refused =
            || ConfigError::new(format!("the address of the redis server cannot be read: {WANTED}"));
        let server = url.into_connection_info().map_err(|_| refused())?;
        let settings = server.redis_settings();
        if settings.username().is_some() || settings.password().is_some() || url.contains('@') {
            let message =
                "the address of the redis server has a user name or a password in it: give them apart";
            return Err(ConfigError::new(message));
        }
        let (name, port, tls) = match server.addr() {
            ConnectionAddr::Tcp(name, port) => (name, *port, false),
            ConnectionAddr::TcpTls { host, port, .. } => (host, *port, true),
            _ => return Err(refused()),
        };
        Ok(Self { host: Host { name: name.clone(), port }, tls, database: settings.db() })
    }
}

// === impl Host ===

impl Host {
    /// `HOST:PORT`, as a cluster writes it. An empty host is the one that was asked.
    pub(super) fn read(text: &str, asked: &Self) -> Option<Self> {
        let (name, port) = text.rsplit_once(':')?;
        let name = if name.is_empty() { &asked.name } else { name };
        Some(Self { name: name.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// Whether a server of this name is on this machine for certain.
pub(super) fn is_near(name: &str) -> bool {
    name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

// === impl Login ===

impl Login {
    pub(super) fn new(
        place: &Place,
        username: Option<&str>,
        password: Option<&str>,
        ca: Option<Vec<u8>>,
    ) -> Self {
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name()
            .set_db(place.database());
        if let Some(name) = username {
            settings = settings.set_username(name);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        Self { settings, tls: place.is_tls(), ca }
    }

    /// As this login, of somebody who keeps no databases.
    pub(super) fn without_database(mut self) -> Self {
        self.settings = self.settings.set_db(0);
        self
    }

    /// What connects to the server at `host`.
    ///
    /// # Errors
    /// When address and certificates do not fit each other.
    pub(super) fn client(&self, host: &Host) -> Result<Client, ConfigError> {
        let (name, port) = (host.name.clone(), host.port);
        let address = if self.tls {
            ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(name, port)
        };
        // On the same machine what was sent is confirmed with the answer at once: to wait for that makes fewer packets.
        let tcp = TcpSettings::default().set_nodelay(!is_near(&host.name));
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(UNCONFIRMED);
        let unfit = |_| ConfigError::new("the redis server's address and certificates do not fit each other");
        let server: ConnectionInfo = address.into_connection_info().map_err(unfit)?;
        let server = server.set_redis_settings(self.settings.clone()).set_tcp_settings(tcp);
        let client = match &self.ca {
            None => Client::open(server),
            Some(ca) => {
                let certificates = TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) };
                Client::build_with_tls(server, certificates)
            }
        };
        client.map_err(unfit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(place: Result<Place, ConfigError>) -> String {
        place.expect_err("it is refused").to_string()
    }

    #[test]
    fn several_addresses_are_shown_with_what_they_are_of() {
        let sentinels = Place::sentinel("cache", &["rediss://a:26379/2", "rediss://b:26379/2"]).unwrap();
        assert_eq!(sentinels.to_string(), "rediss://a:26379,b:26379/2 (sentinels of cache)");
        let cluster = Place::cluster(&["redis://a", "redis://b:7000"]).unwrap();
        assert_eq!(cluster.to_string(), "redis://a:6379,b:7000 (cluster)");
    }

    #[test]
    fn addresses_that_do_not_belong_together_are_refused() {
        for urls in [["redis://a", "rediss://b"], ["redis://a/1", "redis://b/2"]] {
            let refusal = refusal(Place::sentinel("cache", &urls));
            assert_eq!(
                refusal,
                "the addresses of the sentinels differ in scheme or database: write the same in all"
            );
        }
        assert!(
            refusal(Place::cluster(&[])).starts_with("there is no address of the redis cluster's nodes: ")
        );
        assert_eq!(
            refusal(Place::cluster(&["redis://a/1"])),
            "a redis cluster has no database 1: leave it out of the address"
        );
        assert!(refusal(Place::sentinel(" ", &["redis://a"])).contains("is empty or has a space"));
    }

    #[test]
    fn what_a_cluster_calls_a_node_is_read() {
        let asked = Host { name: "a".to_owned(), port: 1 };
        let host = |name: &str, port| Some(Host { name: name.to_owned(), port });
        assert_eq!(Host::read("b:2", &asked), host("b", 2));
        assert_eq!(Host::read(":2", &asked), host("a", 2));
        assert_eq!(Host::read("::1:2", &asked), host("::1", 2));
        assert_eq!((Host::read("b", &asked), Host::read("b:x", &asked)), (None, None));
    }

    #[test]
    fn a_server_is_near_that_cannot_be_on_another_machine() {
        for (name, expected) in
            [("localhost", true), ("127.0.0.1", true), ("::1", true), ("10.0.0.1", false), ("redis", false)]
        {
            assert_eq!(is_near(name), expected, "{name}");
        }
    }
}
