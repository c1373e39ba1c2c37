//! A provider that follows a script, over real sockets.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::patiently;

/// What the server does when a request has come, step by step. Then it waits for the next one, so an answer
/// that the script leaves unfinished hangs until the client closes the connection.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Sends these bytes until the client closes the connection.
    Repeat(Vec<u8>),
    /// Waits until the test says so.
    Await(Arc<Notify>),
    /// Closes the connection in good order.
    Close,
    /// Resets the connection.
    Reset,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) line: String,
    /// Names in lower case, sorted.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

pub(crate) struct Upstream {
    pub(crate) base_url: String,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    answered: Notify,
    closed: Notify,
}

// === impl Upstream ===

impl Upstream {
    /// Answers every request as `script` says.
    pub(crate) async fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let log = Arc::new(Log::default());
        let (script, shared) = (Arc::new(script), Arc::clone(&log));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                *shared.connections.lock().unwrap() += 1;
                let (script, log) = (Arc::clone(&script), Arc::clone(&shared));
                tokio::spawn(async move {
                    // A client that goes away ends a connection in many ways, all of them well.
                    let _ = serve(socket, &script, &log).await;
                    log.closed.notify_one();
                });
            }
        });
        Self { base_url, log }
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.base_url.trim_end_matches("/v1").rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.log.seen.lock().unwrap().clone()
    }

    /// How many connections were opened so far.
    pub(crate) fn connections(&self) -> usize {
        *self.log.connections.lock().unwrap()
    }

    /// Completes when a script has come to its end.
    pub(crate) async fn answered(&self) {
        patiently(self.log.answered.notified()).await;
    }

    /// Completes when a connection has ended.
    pub(crate) async fn closed(&self) {
        patiently(self.log.closed.notified()).await;
    }
}

// === impl Act ===

impl Act {
    /// A whole answer with its length.
    pub(crate) fn json(status: u16, headers: &str, body: &str) -> Self {
        let head = format!("HTTP/1.1 {status} x\r\ncontent-type: application/json\r\n{headers}");
        Self::Send(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).into_bytes())
    }

    /// The head of a stream.
    pub(crate) fn stream_head() -> Self {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        Self::Send(head.into())
    }

    /// A piece of a stream.
    pub(crate) fn chunk(piece: impl AsRef<[u8]>) -> Self {
        Self::Send(framed(piece.as_ref()))
    }

    /// The same piece of a stream, again and again.
    pub(crate) fn chunks(piece: impl AsRef<[u8]>) -> Self {
        Self::Repeat(framed(piece.as_ref()))
    }

    /// The end of a stream.
    pub(crate) fn stream_end() -> Self {
        Self::Send(b"0\r\n\r\n".to_vec())
    }

    /// A stream that comes as a whole, in pieces.
    pub(crate) fn stream(pieces: &[&[u8]]) -> Vec<Self> {
        let pieces = pieces.iter().map(Self::chunk);
        [Self::stream_head()].into_iter().chain(pieces).chain([Self::stream_end()]).collect()
    }
}

fn framed(piece: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat()
}

async fn serve(mut socket: TcpStream, script: &[Act], log: &Log) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut socket, &mut buffer).await? {
        log.seen.lock().unwrap().push(request);
        for act in script {
            match act {
                Act::Send(bytes) => socket.write_all(bytes).await?,
                Act::Repeat(bytes) => loop {
                    socket.write_all(bytes).await?;
                },
                Act::Await(signal) => signal.notified().await,
                Act::Close => return Ok(()),
                Act::Reset => return socket.set_zero_linger(),
            }
        }
        log.answered.notify_one();
    }
    Ok(())
}

/// The next request; `None` when the client has closed the connection.
async fn read(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Seen>> {
    loop {
        if let Some((request, length)) = parse(buffer) {
            buffer.drain(..length);
            return Ok(Some(request));
        }
        if socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// A whole request and its length.
fn parse(buffer: &[u8]) -> Option<(Seen, usize)> {
    let end = buffer.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&buffer[..end - 4]).unwrap();
    let mut lines = head.split("\r\n");
    let line = lines.next()?.to_owned();
    let header =
        |line: &str| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let mut headers: Vec<(String, String)> = lines.filter_map(header).collect();
    headers.sort();
    let length = headers.iter().find(|(name, _)| name == "content-length")?.1.parse::<usize>().unwrap();
    let body = String::from_utf8(buffer.get(end..end + length)?.to_vec()).unwrap();
    Some((Seen { line, headers, body }, end + length))
}
