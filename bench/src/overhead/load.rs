//! The load: connections that each send a request, wait for its answer, and send the next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::peer::Message;

/// How much is sent.
#[derive(Clone, Copy)]
pub(super) struct Load {
    pub(super) requests: usize,
    pub(super) connections: usize,
    /// How long after one request of a connection the next may begin.
    pub(super) interval: Duration,
}

/// No two requests are the same: a cache would answer the second.
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
            clients.spawn(one_after_the_other(address, requests, self.interval));
        }
        let mut latencies = Vec::with_capacity(self.requests);
        while let Some(client) = clients.join_next().await {
            latencies.extend(client.map_err(|error| error.to_string())??);
        }
        Ok(latencies)
    }
}

#[expect(clippy::disallowed_methods, reason = "the real duration is the figure that is wanted")]
async fn one_after_the_other(
    address: SocketAddr,
    requests: usize,
    interval: Duration,
) -> Result<Vec<Duration>, String> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut message = Message::default();
    let mut latencies = Vec::with_capacity(requests);
    for _ in 0..requests {
        let request = request();
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
        let answer = message.receive(&mut stream).await?;
        latencies.push(begun.elapsed());
        if !answer.starts_with("HTTP/1.1 200") {
            return Err(format!("the gateway answered `{answer}`"));
        }
        tokio::time::sleep_until((begun + interval).into()).await;
    }
    Ok(latencies)
}

fn request() -> String {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let body = format!(
        r#"{{"model":"auto","messages":[{{"role":"system","content":"You answer briefly."}},{{"role":"user","content":"Why do bees make honey? Question {number}."}}],"temperature":0}}"#
    );
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}
