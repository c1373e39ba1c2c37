//! What may stand between a store and its server, and does as it is told.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How late a slow proxy hands an answer on.
const LATE: Duration = Duration::from_millis(200);

/// What it does with the server's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mood {
    Passes,
    /// Hands answers on late.
    Slow,
    /// Resets the connection at the first answer.
    Resets,
    /// Says something else that is good RESP.
    Lies,
    /// Says something that is no RESP.
    Babbles,
}

const MOODS: [Mood; 5] = [Mood::Passes, Mood::Slow, Mood::Resets, Mood::Lies, Mood::Babbles];

/// A proxy that runs until it is dropped.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mood: Arc<AtomicU8>,
    accepting: JoinHandle<()>,
}

// === impl Proxy ===

impl Proxy {
    /// In front of `server`.
    pub(crate) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let mood = Arc::new(AtomicU8::new(Mood::Passes as u8));
        let told = Arc::clone(&mood);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let told = Arc::clone(&told);
                tokio::spawn(async move { serve(client, server, &told).await });
            }
        });
        Self { address, mood, accepting }
    }

    pub(crate) fn turn(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn serve(client: TcpStream, server: SocketAddr, mood: &AtomicU8) {
    let Ok(server) = TcpStream::connect(server).await else { return };
    // Dropping it now is a reset and no polite end.
    let _ = client.set_zero_linger();
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let questions = async { tokio::io::copy(&mut from_client, &mut to_server).await.map(drop) };
    let answers = async {
        let mut answer = vec![0; 64 << 10];
        loop {
            let length = from_server.read(&mut answer).await?;
            let said: &[u8] = match MOODS[usize::from(mood.load(Ordering::SeqCst))] {
                _ if length == 0 => return Ok(()),
                Mood::Resets => return Ok(()),
                Mood::Lies => b":42\r\n",
                Mood::Babbles => b"HTTP/1.1 400 Bad Request\r\n\r\n",
                Mood::Slow => {
                    tokio::time::sleep(LATE).await;
                    &answer[..length]
                }
                Mood::Passes => &answer[..length],
            };
            to_client.write_all(said).await?;
        }
    };
    let _: std::io::Result<()> = tokio::select! {
        ended = questions => ended,
        ended = answers => ended,
    };
}
