//! Why a delivery failed, as a closed set, and whether trying again may help.

use std::fmt;
use std::time::Duration;

crate::labels! {
    /// The `error_type` of `apm_export_failures_total`.
    pub(in crate::telemetry) enum ErrorType {
        Dns = "dns",
        Refused = "refused",
        Timeout = "timeout",
        Tls = "tls",
        Interrupted = "interrupted",
        Http4xx = "http_4xx",
        Http5xx = "http_5xx",
        GrpcStatus = "grpc_status",
        Rejected = "rejected",
        Panic = "panic",
        Other = "other",
    }
}

/// A delivery that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) kind: ErrorType,
    /// For people. It holds nothing secret.
    pub(super) message: String,
    pub(super) retry: Retry,
}

/// Whether and when another attempt may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    Never,
    Later,
    /// Not before this time has passed: the receiver has said so.
    After(Duration),
}

// === impl Failure ===

impl Failure {
    pub(super) fn new(kind: ErrorType, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry: Retry::Never }
    }

    pub(super) fn timeout(limit: Duration) -> Self {
        Self::new(ErrorType::Timeout, format!("no answer within {limit:?}"))
    }

    pub(super) fn panicked() -> Self {
        Self::new(ErrorType::Panic, "the exporter panicked")
    }

    pub(super) fn retried(self) -> Self {
        Self { retry: Retry::Later, ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
