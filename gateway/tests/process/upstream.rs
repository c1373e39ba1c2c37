//! A provider of which every byte is known: what it was sent, and what it answers and when.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::until;

/// What it does with a request, one after the other.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends these bytes.
    Send(Bytes),
    /// Waits for a permit, which it keeps.
    Wait(Arc<Semaphore>),
    /// Goes on "generating" until the client closes the connection, which is counted.
    Hold,
    /// Closes the connection.
    Close,
}

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// The request line and the headers.
    pub(crate) head: String,
    pub(crate) body: Bytes,
}

/// A server that follows a script.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

type Script = dyn Fn(&Seen) -> Vec<Step> + Send + Sync;

struct Shared {
    script: Box<Script>,
    seen: Mutex<Vec<Seen>>,
    /// How many connections were closed by the client during [`Step::Hold`].
    hung_up: AtomicUsize,
}

/// An answer with this status, these header lines (each with its line end) and this body.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Vec<Step> {
    let length = body.len();
    let whole = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    );
    vec![Step::Send(whole.into())]
}

/// The head of a streamed answer.
pub(crate) fn stream_head() -> Step {
    Step::Send(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".into(),
    )
}

/// A piece of a streamed answer.
pub(crate) fn piece(data: &str) -> Step {
    Step::Send(format!("{:x}\r\n{data}\r\n", data.len()).into())
}

/// The end of a streamed answer.
pub(crate) fn stream_end() -> Step {
    Step::Send("0\r\n\r\n".into())
}

/// The configuration of a provider at `address`, called `up`, whose key is in `UPSTREAM_KEY`, and of a model
/// `auto` of one route to it.
pub(crate) fn config(address: SocketAddr) -> String {
    format!(
        "[providers.up.openai]\nbase_url = \"http://{address}/v1\"\napi_key = \"env:UPSTREAM_KEY\"\n\
         [models.auto.routes.only]\nprovider = \"up\"\nmodel = \"gpt-4o-mini\"\n"
    )
}

// === impl Upstream ===

impl Upstream {
    /// Starts a server that answers as `script` says.
    pub(crate) async fn start(script: impl Fn(&Seen) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let shared =
            Shared { script: Box::new(script), seen: Mutex::default(), hung_up: AtomicUsize::new(0) };
        let shared = Arc::new(shared);
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move { shared.converse(stream).await });
            }
        });
        Self { address, shared }
    }

    /// [`config`] for this server.
    pub(crate) fn config(&self) -> String {
        config(self.address)
    }

    /// The requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until there were `count` requests.
    pub(crate) async fn sees(&self, count: usize) {
        until("requests upstream", async || (self.seen().len() >= count).then_some(())).await;
    }

    /// How many calls were given up by the gateway while they were being answered.
    pub(crate) fn hung_up(&self) -> usize {
        self.shared.hung_up.load(Ordering::SeqCst)
    }
}

// === impl Shared ===

impl Shared {
    async fn converse(&self, mut stream: TcpStream) {
        let mut buffer = Vec::new();
        while let Some(seen) = receive(&mut stream, &mut buffer).await {
            let script = (self.script)(&seen);
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            for step in script {
                if !self.follow(step, &mut stream).await {
                    return;
                }
            }
        }
    }

    /// Whether the connection goes on.
    async fn follow(&self, step: Step, stream: &mut TcpStream) -> bool {
        match step {
            Step::Send(bytes) => stream.write_all(&bytes).await.is_ok(),
            Step::Wait(permits) => {
                permits.acquire().await.expect("the tests do not close it").forget();
                true
            }
            Step::Hold => {
                let mut byte = [0; 1];
                while let Ok(1..) = stream.read(&mut byte).await {}
                self.hung_up.fetch_add(1, Ordering::SeqCst);
                false
            }
            Step::Close => false,
        }
    }
}

/// Reads one request with a `content-length`.
async fn receive(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8(buffer[..head_end].to_vec()).expect("the gateway's headers are ASCII");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.expect("the gateway knows the length").parse().expect("it is a number");
    while buffer.len() < head_end + length {
        more(stream, buffer).await?;
    }
    let body = Bytes::copy_from_slice(&buffer[head_end..head_end + length]);
    buffer.drain(..head_end + length);
    Some(Seen { head, body })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let count = stream.read_buf(buffer).await.ok()?;
    (count > 0).then_some(())
}
