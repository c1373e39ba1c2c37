//! `cargo xtask e2e --only traces`: what two real backends make of the gateway's spans.
//!
//! Every [`Case`](case::Case) is one request. The [`pass`] sends all of them to a gateway whose provider is a
//! [`script`](upstream), and the spans go to a [`Backend`](backend::Backend), or by the [`relay`] to two of them at once, byte for
//! byte the same. Then [`check`] reads them back.

mod backend;
mod case;
mod check;
mod convention;
mod gateway;
mod mlflow;
mod otelite;
mod part;
mod pass;
mod relay;
mod report;
mod span;
mod upstream;

pub(crate) use part::run;
