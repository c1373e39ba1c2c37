//! Accepts operators' connections, few and bounded in time and size.
//!
//! Whoever connects and says nothing keeps no operator out: there is a bound on silence, and when there are too many connections the
//! one that has been silent longest goes.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use throughline::telemetry::slots::{Slot, Slots};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;

use super::answer::answer;
use crate::gateway::Gateway;

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// How long a client may take for the head of a request. It begins with the end of the answer before.
const HEAD: Duration = Duration::from_secs(5);
/// How long a client may take nothing of an answer.
const STALLED: Duration = Duration::from_secs(10);
/// The most bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;
/// How long to wait before accepting again when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(100);

/// The port, taken.
pub(crate) struct Server(TcpListener);

// === impl Server ===

impl Server {
    /// Takes the address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken.
    pub(crate) async fn bind(address: SocketAddr) -> io::Result<Self> {
        Ok(Self(TcpListener::bind(address).await?))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Serves until it is dropped, and its connections with it.
    pub(crate) async fn run(self, gateway: Arc<Gateway>) {
        let (slots, turn) = (Slots::new(CONNECTIONS), Arc::new(Mutex::new(())));
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _)) = self.0.accept().await else {
                tokio::time::sleep(OUT_OF_FILES).await;
                continue;
            };
            while connections.try_join_next().is_some() {}
            let Some((slot, gone)) = slots.take() else { continue };
            let (gateway, turn) = (Arc::clone(&gateway), Arc::clone(&turn));
            connections.spawn(async move {
                tokio::select! {
                    () = converse(stream, &gateway, &turn, &slot) => {}
                    _ = gone => {}
                }
            });
        }
    }
}

async fn converse(stream: TcpStream, gateway: &Gateway, turn: &Mutex<()>, slot: &Slot) {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    let service = service_fn(async |request| {
        let _busy = slot.busy();
        Ok::<_, Infallible>(answer(gateway, turn, request).await)
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    // An operator that hangs up is its own affair.
    let _ = connection.await;
}
