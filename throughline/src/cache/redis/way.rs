//! How a connection to the right server is made: at a fixed address, or at the one that the sentinels name.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionAddr, Value, cmd};

use super::address::{Host, Login, is_near};
use super::failure::failure;
use crate::error::{Error, Kind, Result};

/// How long a sentinel may take to name the server.
const PATIENCE: Duration = Duration::from_millis(300);

/// The way to a server.
pub(super) enum Way {
    At(Client),
    Sentinel(Sentinels),
}

/// Who knows where the server is.
pub(super) struct Sentinels {
    master: String,
    clients: Vec<Client>,
    login: Login,
    /// The one that has answered last.
    last: AtomicUsize,
}

// === impl Way ===

impl Way {
    /// A connection to the server, logged in. What else is asked for may take as long as `patience`.
    ///
    /// # Errors
    /// When there is none, and why.
    pub(super) async fn connect(
        &self,
        config: &AsyncConnectionConfig,
        patience: Duration,
    ) -> Result<MultiplexedConnection> {
        let connect = async |client: &Client| {
            client.get_multiplexed_async_connection_with_config(config).await.map_err(|error| failure(&error))
        };
        match self {
            Self::At(client) => connect(client).await,
            Self::Sentinel(sentinels) => {
                let mut connection = connect(&sentinels.master().await?).await?;
                // Sentinels that were cut off name a server that has been replaced. Who may not ask is not told.
                let role = cmd("ROLE");
                match tokio::time::timeout(patience, connection.send_packed_command(&role)).await {
                    Ok(Ok(Value::Array(role)))
                        if role.first() != Some(&Value::BulkString(b"master".to_vec())) =>
                    {
                        Err(Error::new(Kind::Store, "the sentinels name a redis server that is a replica"))
                    }
                    Ok(_) => Ok(connection),
                    Err(_) => Err(Error::new(Kind::Store, "redis did not let us connect in time")),
                }
            }
        }
    }

    /// Whether the server is known to be on this machine.
    pub(super) fn is_near(&self) -> bool {
        match self {
            Self::At(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(name, _) | ConnectionAddr::TcpTls { host: name, .. } => is_near(name),
                _ => false,
            },
            Self::Sentinel(_) => false,
        }
    }

    /// Whether the server may be another one the next time.
    pub(super) fn leads_elsewhere(&self) -> bool {
        matches!(self, Self::Sentinel(_))
    }
}

// === impl Sentinels ===

impl Sentinels {
    pub(super) fn new(master: String, clients: Vec<Client>, login: Login) -> Self {
        Self { master, clients, login, last: AtomicUsize::new(0) }
    }

    /// Asks one sentinel after the other, the one that has answered last first.
    async fn master(&self) -> Result<Client> {
        let first = self.last.load(Ordering::Relaxed);
        let mut problem = Error::new(Kind::Store, "no sentinel has answered");
        for at in (0..self.clients.len()).map(|n| (first + n) % self.clients.len()) {
            let asked = tokio::time::timeout(PATIENCE, self.ask(&self.clients[at])).await;
            match asked {
                Ok(Ok(host)) => {
                    self.last.store(at, Ordering::Relaxed);
                    return self
                        .login
                        .client(&host)
                        .map_err(|error| Error::new(Kind::Store, error.to_string()));
                }
                Ok(Err(error)) => problem = error,
                Err(_) => {}
            }
        }
        Err(problem)
    }

    async fn ask(&self, sentinel: &Client) -> Result<Host> {
        let config = AsyncConnectionConfig::new().set_connection_timeout(Some(PATIENCE));
        let of_sentinel = |error| Error::new(Kind::Store, format!("a sentinel: {}", failure(&error)));
        let mut connection =
            sentinel.get_multiplexed_async_connection_with_config(&config).await.map_err(of_sentinel)?;
        let mut question = cmd("SENTINEL");
        question.arg("get-master-addr-by-name").arg(&self.master);
        let answer: Option<(String, u16)> =
            question.query_async(&mut connection).await.map_err(of_sentinel)?;
        let unknown = || Error::new(Kind::Store, format!("the sentinels know no server `{}`", self.master));
        answer.map(|(name, port)| Host { name, port }).ok_or_else(unknown)
    }
}
