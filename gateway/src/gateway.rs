//! What every request shares: the configured models and the limits.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use throughline::telemetry::{Sink, Telemetry};
use throughline::{Boxed, Context, Workflow};
use throughline_llm::Answer;
use throughline_llm::caching::TENANT;
use throughline_llm::openai::{ChatRequest, Limits};

use crate::config::Inbound;
use crate::inbound;
use crate::logs::Logs;
use crate::tenant;

/// A configured model: a workflow of chat requests.
pub(crate) type Model = Workflow<Boxed<ChatRequest, Answer>>;

/// The configured models by the name that clients use.
pub(crate) type Models = BTreeMap<String, Model>;

/// How long a client may take to send its body.
pub(crate) const BODY_LIMIT: Duration = Duration::from_secs(30);

/// The longest request id that is taken over from a client.
const LONGEST_ID: usize = 128;

/// A gateway that can answer requests.
pub(crate) struct Gateway {
    /// What clients can ask for.
    pub(crate) models: Models,
    /// The headers that rules look at.
    pub(crate) rule_headers: Vec<HeaderName>,
    /// The header that names the tenant.
    pub(crate) tenant_header: HeaderName,
    /// What a request may contain.
    pub(crate) limits: Limits,
    /// The most bytes of a body.
    pub(crate) max_body: usize,
    /// What is believed of a client's trace.
    pub(crate) inbound: Inbound,
    /// Telemetry, for its port and its health.
    pub(crate) telemetry: Telemetry,
    /// The log.
    pub(crate) logs: Logs,
}

// === impl Gateway ===

impl Gateway {
    /// Where requests report to.
    pub(crate) fn sink(&self) -> &Sink {
        self.telemetry.sink()
    }

    /// The context of a request with these headers.
    pub(crate) fn context(&self, headers: &HeaderMap) -> Context {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut cx = Context::builder().sink(self.sink());
        if let Some(id) = text("x-request-id").filter(|id| !id.is_empty() && id.len() <= LONGEST_ID) {
            cx = cx.correlation_id(id);
        }
        cx = inbound::take_over(cx, self.inbound, self.sink().propagators(), headers);
        if !self.sink().traces() {
            cx = cx.new_trace();
        }
        // First, for a context does not hold tags without end.
        if let Some(tenant) = tenant::of(&self.tenant_header, headers) {
            cx = cx.tag(TENANT, tenant);
        }
        for name in &self.rule_headers {
            if let Some(value) = text(name.as_str()) {
                cx = cx.tag(header_tag(name), value);
            }
        }
        cx.build()
    }
}

/// The tag under which a header's value travels to the rules.
pub(crate) fn header_tag(name: &HeaderName) -> String {
    format!("header:{name}")
}
