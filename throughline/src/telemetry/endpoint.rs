//! Serves `/metrics`, `/healthz` and `/readyz`, to whom they are meant for.
//!
//! It runs on the thread of the telemetry instance, so a scrape is answered even while the program's own
//! runtime is busy or stuck.

mod answer;
mod basic;
mod bearer;
mod connection;
mod digest;
mod files;
mod guard;
mod security;
pub mod slots;
#[cfg(feature = "web-config")]
mod tls;
#[cfg(feature = "web-config")]
mod web_config;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

pub use security::EndpointSecurity;

use super::health::Health;
use super::sink::Sink;
use answer::Answers;
use connection::accept;
use guard::Guard;

/// How often a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What is served, and where.
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) security: EndpointSecurity,
    pub(super) sink: Sink,
    pub(super) health: Arc<Health>,
}

// === impl Endpoint ===

impl Endpoint {
    /// Binds the address now, so that the caller learns the port.
    pub(super) fn bind(&self) -> Result<TcpListener, String> {
        let address = self.address;
        self.security.permits(address).map_err(|why| why.to_string())?;
        let listener =
            TcpListener::bind(address).map_err(|error| format!("metrics port {address}: {error}"))?;
        if security::is_public(address) && !self.security.encrypts() {
            tracing::warn!(
                "metrics are served on {address} without TLS: passwords and tokens can be read on their way"
            );
        }
        listener.set_nonblocking(true).map_err(|error| format!("metrics port {address}: {error}"))?;
        Ok(listener)
    }

    /// Serves on `listener`; without one, keeps trying to bind the address.
    pub(super) async fn serve(self, listener: Option<TcpListener>) {
        let mut listener = listener;
        let guard = Arc::new(Guard::new(self.security.clone(), security::is_public(self.address)));
        guard.rules().without_effect.iter().for_each(|note| tracing::warn!("{note}"));
        tokio::spawn(Arc::clone(&guard).watch(Arc::clone(&self.health)));
        let (sink, health) = (self.sink.clone(), Arc::clone(&self.health));
        let answers = Arc::new(Answers { sink, health, guard });
        loop {
            if listener.is_none() {
                tokio::time::sleep(RETRY).await;
                listener = self.bind().ok();
            }
            let Some(bound) = listener.take().and_then(|bound| tokio::net::TcpListener::from_std(bound).ok())
            else {
                continue;
            };
            self.health.metrics_up(bound.local_addr().unwrap_or(self.address));
            accept(bound, &answers).await;
        }
    }
}
