//! What every request shares: what is served, telemetry and the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::http::HeaderName;
use throughline::telemetry::{Sink, Telemetry};
use throughline::{Boxed, Workflow};
use throughline_llm::Answer;
use throughline_llm::openai::ChatRequest;

use crate::logs::Logs;
use crate::served::Served;

/// A configured model: a workflow of chat requests.
pub(crate) type Model = Workflow<Boxed<ChatRequest, Answer>>;

/// The configured models by the name that clients use.
pub(crate) type Models = BTreeMap<String, Model>;

/// How long a client may take to send its body.
pub(crate) const BODY_LIMIT: Duration = Duration::from_secs(30);

/// A gateway that can answer requests.
pub(crate) struct Gateway {
    /// What is served to requests that begin now.
    served: ArcSwap<Served>,
    /// Telemetry, for its port and its health.
    pub(crate) telemetry: Telemetry,
    /// The log.
    pub(crate) logs: Logs,
}

// === impl Gateway ===

impl Gateway {
    /// Serves `served` until it is told otherwise.
    pub(crate) fn new(served: Served, telemetry: Telemetry, logs: Logs) -> Self {
        served.models.values().for_each(|model| model.bind(telemetry.sink()));
        Self { served: ArcSwap::from_pointee(served), telemetry, logs }
    }

    /// Where requests report to.
    pub(crate) fn sink(&self) -> &Sink {
        self.telemetry.sink()
    }

    /// What is served to a request that begins now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// Serves `served` to every request that begins from now on.
    pub(crate) fn serve(&self, served: Served) {
        served.models.values().for_each(|model| model.bind(self.sink()));
        self.served.store(Arc::new(served));
    }
}

/// The tag under which a header's value travels to the rules.
pub(crate) fn header_tag(name: &HeaderName) -> String {
    format!("header:{name}")
}
