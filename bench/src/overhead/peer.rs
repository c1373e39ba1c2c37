//! A server that answers every request with the same bytes, and so costs as little as one can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A chat answer with usage.
pub(super) const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"message":{"role":"assistant","content":"Bees make honey to live on in winter."},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}"#;

/// What every request is answered with.
#[derive(Clone, Copy)]
pub(super) enum Says {
    /// 200, and this body.
    Ok(&'static str),
    /// 500.
    Failed,
    /// Nothing, ever.
    Nothing,
}

/// A server that runs until it is dropped with its runtime.
pub(super) struct Peer {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
}

/// Bytes of a request or an answer that are not used up yet.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

/// An address where connections are refused.
///
/// # Errors
/// When no port is free.
pub(super) async fn nobody() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    listener.local_addr().map_err(|error| error.to_string())
}

/// Starts a server that says `says` to everything.
///
/// # Errors
/// When no port is free.
pub(super) async fn start(says: Says) -> Result<Peer, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, says, Arc::clone(&count)));
        }
    });
    Ok(Peer { address, served })
}

async fn answer(mut stream: TcpStream, says: Says, served: Arc<AtomicUsize>) {
    // A connection without this only answers later.
    let _ = stream.set_nodelay(true);
    let (status, body) = match says {
        Says::Ok(body) => ("200 OK", body),
        Says::Failed => ("500 Internal Server Error", ""),
        Says::Nothing => return std::future::pending().await,
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut message = Message::default();
    while message.receive(&mut stream).await.is_ok() {
        served.fetch_add(1, Ordering::Relaxed);
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

// === impl Peer ===

impl Peer {
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The requests so far.
    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

// === impl Message ===

impl Message {
    /// Receives one message with a length and takes it off, and says how it began.
    ///
    /// # Errors
    /// When the connection ends.
    pub(super) async fn receive(&mut self, stream: &mut TcpStream) -> Result<String, String> {
        let mut chunk = [0; 8192];
        loop {
            if let Some(end) = self.end() {
                let line = self.0.iter().position(|byte| *byte == b'\r').unwrap_or(0);
                let first = String::from_utf8_lossy(&self.0[..line]).into_owned();
                self.0.drain(..end);
                return Ok(first);
            }
            match stream.read(&mut chunk).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(read) => self.0.extend_from_slice(&chunk[..read]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Where the first message ends, if all of it is there.
    fn end(&self) -> Option<usize> {
        let head = self.0.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let lines = self.0[..head].split(|byte| *byte == b'\n');
        let length = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
        let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let end = head + length.next().map_or(Some(0), |(_, length)| length.trim().parse().ok())?;
        (self.0.len() >= end).then_some(end)
    }
}
