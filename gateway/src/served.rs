//! What is served at a time: one configuration, as requests see it.
//!
//! A request takes it once, at its beginning, and keeps to it: when the configuration is read anew meanwhile, the request
//! ends by the one that it began with.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::http::{HeaderMap, HeaderName};
use throughline::Context;
use throughline::cache::StoreHealth;
use throughline::telemetry::{Degraded, Sink};
use throughline_llm::caching::TENANT;
use throughline_llm::openai::Limits;

use crate::admin::Inventory;
use crate::config::{Config, Inbound};
use crate::gateway::{Models, header_tag};
use crate::inbound;
use crate::parts::Parts;
use crate::tenant;
use crate::workflows::{self, Workflows};

/// The longest request id that is taken over from a client.
const LONGEST_ID: usize = 128;

/// One configuration, as requests see it.
pub(crate) struct Served {
    /// What clients can ask for.
    pub(crate) models: Models,
    /// What a request may contain.
    pub(crate) limits: Limits,
    /// The most bytes of a body.
    pub(crate) max_body: usize,
    /// What the models are made of.
    pub(crate) parts: Parts,
    /// What operators can reach.
    pub(crate) inventory: Inventory,
    /// The headers that rules look at.
    rule_headers: Vec<HeaderName>,
    /// The header that names the tenant.
    tenant_header: HeaderName,
    /// What is believed of a client's trace.
    inbound: Inbound,
    stores: Vec<Arc<StoreHealth>>,
}

// === impl Served ===

impl Served {
    /// What `config` says and `built` was made of it, at `address`.
    pub(crate) fn new(config: &Config, built: Workflows, address: SocketAddr) -> Self {
        let Workflows { models, stores, parts } = built;
        let mut limits = Limits::default();
        (limits.max_depth, limits.max_messages) = (config.server.max_json_depth, config.server.max_messages);
        Self {
            models,
            inventory: Inventory::new(config, &parts),
            limits,
            max_body: config.server.max_body,
            parts,
            rule_headers: workflows::rule_headers(config),
            tenant_header: config.server.tenant_header.clone(),
            inbound: config.trace_context.inbound(address),
            stores,
        }
    }

    /// The context of a request with these headers, which reports to `sink`.
    pub(crate) fn context(&self, headers: &HeaderMap, sink: &Sink) -> Context {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let mut cx = Context::builder().sink(sink);
        if let Some(id) = text("x-request-id").filter(|id| !id.is_empty() && id.len() <= LONGEST_ID) {
            cx = cx.correlation_id(id);
        }
        cx = inbound::take_over(cx, self.inbound, sink.propagators(), headers);
        if !sink.traces() {
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

    /// The stores that are left alone, and the embedders that fail.
    pub(crate) fn degraded(&self) -> Vec<Degraded> {
        let stores = self.stores.iter().filter_map(|store| {
            let down = store.down()?;
            Some(Degraded::new(format!("store:{}", store.name()), down.reason, down.since))
        });
        let embedders = self.parts.embedders.values().filter_map(|embedder| {
            let down = embedder.down()?;
            Some(Degraded::new(format!("embedder:{}", embedder.name()), down.reason, down.since))
        });
        stores.chain(embedders).collect()
    }
}
