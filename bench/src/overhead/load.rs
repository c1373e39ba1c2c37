//! The load: connections that each send a request, wait for its answer, and send the next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peer::Message;
use super::talk::Size;

/// What is sent, and how fast.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) connections: usize,
    /// How long after one request of a connection the next may begin.
    pub(super) interval: Duration,
    pub(super) size: Size,
}

/// The clients of one gateway.
pub(super) struct Clients {
    clients: Vec<Client>,
    load: Load,
}

/// One connection, which stays.
struct Client {
    stream: TcpStream,
    message: Message,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

// === impl Load ===

impl Load {
    /// Connects every client with `address`.
    ///
    /// # Errors
    /// When one is refused.
    pub(super) async fn connect(self, address: SocketAddr) -> Result<Clients, String> {
        let mut clients = Vec::with_capacity(self.connections);
        for _ in 0..self.connections {
            let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            clients.push(Client { stream, message: Message::default() });
        }
        Ok(Clients { clients, load: self })
    }
}

// === impl Clients ===

impl Clients {
    /// Sends `requests` in all and gives how long each answer took.
    ///
    /// # Errors
    /// When one is not answered with 200.
    pub(super) async fn send(&mut self, requests: usize) -> Result<Vec<Duration>, String> {
        let mut running = JoinSet::new();
        let among = self.clients.len();
        for (at, client) in self.clients.drain(..).enumerate() {
            let share = requests / among + usize::from(at < requests % among);
            running.spawn(client.one_after_the_other(share, self.load));
        }
        let mut all = Vec::with_capacity(requests);
        while let Some(ended) = running.join_next().await {
            let (client, latencies) = ended.map_err(|error| error.to_string())??;
            self.clients.push(client);
            all.extend(latencies);
        }
        Ok(all)
    }
}

// === impl Client ===

impl Client {
    #[expect(clippy::disallowed_methods, reason = "the real duration is the figure that is wanted")]
    async fn one_after_the_other(
        mut self,
        requests: usize,
        load: Load,
    ) -> Result<(Self, Vec<Duration>), String> {
        let Self { stream, message } = &mut self;
        let mut latencies = Vec::with_capacity(requests);
        for _ in 0..requests {
            let request = load.size.request(NUMBER.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let head = message.receive(stream).await?;
            latencies.push(begun.elapsed());
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(format!("the gateway answered `{}`", String::from_utf8_lossy(&head)));
            }
            tokio::time::sleep_until((begun + load.interval).into()).await;
        }
        Ok((self, latencies))
    }
}
