//! Accepts connections, serves them, and stops without losing a request.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;

use crate::config::Server as Limits;
use crate::gateway::Gateway;
use crate::routes;

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long a client may take nothing of an answer that is ready for it.
const STALLED: Duration = Duration::from_secs(30);
/// How long to wait before accepting again when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// A gateway with an address.
pub(crate) struct Server {
    listener: TcpListener,
    gateway: Arc<Gateway>,
    limits: Limits,
}
// === impl Server ===

impl Server {
    /// Takes the address; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) async fn bind(limits: &Limits, gateway: Arc<Gateway>) -> io::Result<Self> {
        let listener = TcpListener::bind(limits.listen).await?;
        Ok(Self { listener, gateway, limits: limits.clone() })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` completes, then lets the requests in flight finish.
    pub(crate) async fn run(self, stop: impl Future<Output = ()>) {
        let service = TowerToHyperService::new(routes::router(&self.gateway));
        let connections = GracefulShutdown::new();
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(HEAD_BYTES);
        let slots = Arc::new(Semaphore::new(self.limits.max_connections));
        let mut stop = std::pin::pin!(stop);
        loop {
            let (slot, stream) = tokio::select! {
                () = &mut stop => break,
                accepted = accept(&self.listener, &slots) => accepted,
            };
            let connection = http.serve_connection(TokioIo::new(impatient(stream)), service.clone());
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // How a connection ends is between the client and us; the requests on it are counted.
                let _ = connection.await;
                drop(slot);
            });
        }
        drop(self.listener);
        self.gateway.telemetry.drain();
        let open = connections.count();
        if tokio::time::timeout(self.limits.drain_timeout, connections.shutdown()).await.is_err() {
            tracing::warn!(connections = open, "the drain timeout passed with requests still in flight");
        }
    }
}

/// The next connection, once there is a slot for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (OwnedSemaphorePermit, TcpStream) {
    let slot = Arc::clone(slots).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Otherwise a short answer may wait for the client's acknowledgement of the one before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "a connection without TCP_NODELAY");
                }
                return (slot, stream);
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}

/// A client that does not take its answer holds a connection to a provider: it is cut off.
fn impatient(stream: TcpStream) -> Pin<Box<TimeoutStream<TcpStream>>> {
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(STALLED));
    Box::pin(stream)
}
