//! Accepts connections, serves them, and stops without losing a request.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::Gateway;
use crate::routes;

/// The most bytes of a request's head.
const HEAD_BYTES: usize = 64 << 10;
/// How long to wait before accepting again when the system has no more file descriptors.
const OUT_OF_FILES: Duration = Duration::from_millis(50);

/// A gateway with an address.
pub(crate) struct Server {
    listener: TcpListener,
    gateway: Arc<Gateway>,
    header_timeout: Duration,
    drain_timeout: Duration,
}

// === impl Server ===

impl Server {
    /// Takes `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address is taken or not this machine's.
    pub(crate) async fn bind(
        address: SocketAddr,
        gateway: Arc<Gateway>,
        header_timeout: Duration,
        drain_timeout: Duration,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        Ok(Self { listener, gateway, header_timeout, drain_timeout })
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
        http.timer(TokioTimer::new()).header_read_timeout(self.header_timeout).max_buf_size(HEAD_BYTES);
        let mut stop = std::pin::pin!(stop);
        loop {
            let stream = tokio::select! {
                () = &mut stop => break,
                stream = accept(&self.listener) => stream,
            };
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // How a connection ends is between the client and us; the requests on it are counted.
                let _ = connection.await;
            });
        }
        drop(self.listener);
        self.gateway.draining.store(true, Ordering::Relaxed);
        let open = connections.count();
        if tokio::time::timeout(self.drain_timeout, connections.shutdown()).await.is_err() {
            tracing::warn!(connections = open, "the drain timeout passed with requests still in flight");
        }
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Otherwise a short answer may wait for the client's acknowledgement of the one before.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(error = %error, "a connection without TCP_NODELAY");
                }
                return stream;
            }
            Err(error) => {
                tracing::warn!(error = %error, "a connection could not be accepted");
                tokio::time::sleep(OUT_OF_FILES).await;
            }
        }
    }
}
