//! The dashboards by name: alerts link to them, and their files carry the same ids.

use super::options::Options;

/// A dashboard. Its `uid` is part of its address in Grafana and does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Board {
    /// Is all well, and how much of the error budget is left?
    Overview,
    /// Routing, fallbacks, retries, timeouts: what workflows do.
    Workflows,
    /// Tokens, cost, savings, latency of models.
    Llm,
    /// How far components have come.
    Maturity,
    /// Circuits and what they turn away.
    Circuits,
    /// Latency, overhead, the process itself.
    Performance,
    /// Every primitive by operation.
    Primitives,
}

// === impl Board ===

impl Board {
    /// What Grafana knows it by.
    pub(crate) const fn uid(self) -> &'static str {
        match self {
            Self::Overview => "throughline-overview",
            Self::Workflows => "throughline-workflows",
            Self::Llm => "throughline-llm",
            Self::Maturity => "throughline-maturity",
            Self::Circuits => "throughline-circuits",
            Self::Performance => "throughline-performance",
            Self::Primitives => "throughline-primitives",
        }
    }

    /// Its address for the pack's job, the last three hours.
    pub(crate) fn url(self, options: &Options) -> String {
        format!("{}/d/{}?var-job={}&from=now-3h&to=now", options.dashboard_url, self.uid(), options.job)
    }
}
