//! Delivery to a receiver of OTLP: by gRPC, or by HTTP with protobuf or JSON bodies.
//!
//! The messages are those of `opentelemetry-proto`; what carries them is one HTTP client. A delivery that fails for a
//! reason that may pass is tried again, each time after a longer pause, while its batch has time.

mod answer;
mod client;
mod connect;
mod encode;
mod events;
mod metrics;
mod request;
mod spans;
mod tls;

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_sdk::Resource;

use super::super::spare;
use super::exporter::{Batch, Budget, Delivered, Exporter};
use super::failure::{ErrorType, Failure, Retry};
use super::otlp_settings::{Otlp, Protocol, Signal};
use super::report::Report;
use client::Client;
use encode::Envelope;
pub(super) use events::Sender;
pub(super) use metrics::Page;

/// The pause before the second attempt, at most; it doubles from then on.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Delivers one signal.
pub(super) struct Link {
    settings: Otlp,
    protocol: Protocol,
    signal: Signal,
    /// Made when it is needed, and again after TLS has failed: certificates change on disk.
    client: Option<Client>,
}

/// Delivers spans.
pub(super) struct Spans {
    link: Link,
    resource: ResourceAttributesWithSchema,
    envelope: Envelope,
}

// === impl Link ===

impl Link {
    pub(super) fn new(settings: &Otlp, protocol: Protocol, signal: Signal) -> Self {
        Self { settings: settings.clone(), protocol, signal, client: None }
    }

    /// Whether the settings can be followed at all.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.client().map(|_| ())
    }

    fn client(&mut self) -> Result<&Client, Failure> {
        Ok(match &mut self.client {
            Some(client) => client,
            none => none.insert(Client::new(&self.settings, self.protocol, self.signal)?),
        })
    }

    /// `message` as the protocol writes it.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub(super) fn written<M: prost::Message + serde::Serialize>(&self, message: &M) -> Result<Bytes, String> {
        request::written(message, self.protocol).map(Bytes::from)
    }

    /// Sends `message`, as it is written, again and again while that may help and there is time. Returns how much was rejected.
    pub(super) async fn deliver(
        &mut self,
        message: Result<Bytes, String>,
        budget: &Budget,
        report: &Report,
    ) -> Result<usize, Failure> {
        let body = message
            .and_then(|message| request::body(message, self.protocol, self.settings.gzip))
            .map_err(|_| Failure::new(ErrorType::Other, "the request could not be written"))
            .inspect_err(|failure| report.failed(failure))?;
        let mut pause = FIRST_PAUSE;
        loop {
            let failure = match self.attempt(body.clone()).await {
                Ok(rejected) => return Ok(rejected),
                Err(failure) => failure,
            };
            report.failed(&failure);
            let wait = match failure.retry {
                Retry::Never => return Err(failure),
                Retry::After(wait) => wait,
                // So that many senders that failed together do not come back together.
                Retry::Later => pause.mul_f64(0.5 + 0.5 * fastrand::f64()),
            };
            if !budget.pause(wait).await {
                return Err(failure);
            }
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    async fn attempt(&mut self, body: Bytes) -> Result<usize, Failure> {
        let (signal, protocol) = (self.signal, self.protocol);
        let answer = self.client()?.send(body).await;
        let result = answer.and_then(|answer| answer.rejected(signal, protocol));
        // A file may be another one now; a connection that has gone silent stays silent.
        if result.as_ref().is_err_and(|failure| matches!(failure.kind, ErrorType::Tls | ErrorType::Timeout)) {
            self.client = None;
        }
        result
    }
}

// === impl Spans ===

impl Spans {
    pub(super) fn new(link: Link, resource: &Resource) -> Self {
        let resource = resource.into();
        Self { link, envelope: Envelope::new(&resource), resource }
    }
}

impl Exporter for Spans {
    fn export<'a>(
        &'a mut self,
        batch: Batch,
        budget: &'a Budget,
        report: &'a Report,
    ) -> BoxFuture<'a, Result<Delivered, Failure>> {
        let message = match self.link.protocol {
            Protocol::Json => self.link.written(&spans::request(batch, &self.resource)),
            Protocol::Grpc | Protocol::Protobuf => {
                let written = self.envelope.around(&batch);
                spare::given_back(batch);
                Ok(written)
            }
        };
        async move {
            let rejected = self.link.deliver(message, budget, report).await?;
            Ok(Delivered { rejected })
        }
        .boxed()
    }
}
