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
    pub(super) requests: usize,
    pub(super) connections: usize,
    /// How long after one request of a connection the next may begin.
    pub(super) interval: Duration,
    pub(super) size: Size,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

// === impl Load ===

impl Load {
    /// Sends it to `address` and gives how long each answer took.
    ///
    /// # Errors
    /// When one is not answered with 200.
    pub(super) async fn run(self, address: SocketAddr) -> Result<Vec<Duration>, String> {
        let mut clients = JoinSet::new();
        for client in 0..self.connections {
            let requests =
                self.requests / self.connections + usize::from(client < self.requests % self.connections);
            clients.spawn(self.one_after_the_other(address, requests));
        }
        let mut latencies = Vec::with_capacity(self.requests);
        while let Some(client) = clients.join_next().await {
            latencies.extend(client.map_err(|error| error.to_string())??);
        }
        Ok(latencies)
    }

    #[expect(clippy::disallowed_methods, reason = "the real duration is the figure that is wanted")]
    async fn one_after_the_other(
        self,
        address: SocketAddr,
        requests: usize,
    ) -> Result<Vec<Duration>, String> {
        let mut stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let mut message = Message::default();
        let mut latencies = Vec::with_capacity(requests);
        for _ in 0..requests {
            let request = self.size.request(NUMBER.fetch_add(1, Ordering::Relaxed));
            let begun = Instant::now();
            stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
            let head = message.receive(&mut stream).await?;
            latencies.push(begun.elapsed());
            if !head.starts_with(b"HTTP/1.1 200") {
                return Err(format!("the gateway answered `{}`", String::from_utf8_lossy(&head)));
            }
            tokio::time::sleep_until((begun + self.interval).into()).await;
        }
        Ok(latencies)
    }
}
