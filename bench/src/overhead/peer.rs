//! A server that answers every request with the same bytes, and so costs as little as one can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::talk::Answers;

/// What every request is answered with.
#[derive(Clone)]
pub(super) enum Says {
    /// 200, and nothing.
    Ok,
    /// As a provider does.
    Chat(Arc<Answers>),
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
            tokio::spawn(answer(stream, says.clone(), Arc::clone(&count)));
        }
    });
    Ok(Peer { address, served })
}

async fn answer(mut stream: TcpStream, says: Says, served: Arc<AtomicUsize>) {
    // A connection without this only answers later.
    let _ = stream.set_nodelay(true);
    let mut message = Message::default();
    while let Ok(head) = message.receive(&mut stream).await {
        served.fetch_add(1, Ordering::Relaxed);
        let answer = match &says {
            Says::Ok => b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            Says::Failed => &b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n"[..],
            Says::Chat(answers) => answers.to(&head),
            Says::Nothing => return std::future::pending().await,
        };
        if stream.write_all(answer).await.is_err() {
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
    /// Receives one message and takes it off, and gives its beginning: all of its head, and some of its body.
    ///
    /// # Errors
    /// When the connection ends.
    pub(super) async fn receive(&mut self, stream: &mut TcpStream) -> Result<Vec<u8>, String> {
        let mut chunk = [0; 8192];
        loop {
            if let Some((head, end)) = self.ends() {
                let beginning = self.0[..end.min(head + 100)].to_vec();
                self.0.drain(..end);
                return Ok(beginning);
            }
            match stream.read(&mut chunk).await {
                Ok(0) => return Err("the connection was closed".to_owned()),
                Ok(read) => self.0.extend_from_slice(&chunk[..read]),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Where head and body of the first message end, if all of it is there. Of a message in chunks, which end with an
    /// empty one, it must be the only message.
    fn ends(&self) -> Option<(usize, usize)> {
        let head = self.0.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
        let lines = self.0[..head].split(|byte| *byte == b'\n');
        let fields = lines.filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'));
        let mut length = 0;
        for (name, value) in fields {
            if name.eq_ignore_ascii_case("transfer-encoding") {
                return self.0.ends_with(b"\r\n0\r\n\r\n").then_some((head, self.0.len()));
            }
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().ok()?;
            }
        }
        (self.0.len() >= head + length).then_some((head, head + length))
    }
}
