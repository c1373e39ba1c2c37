//! The configuration: one TOML file, read once, checked once, held as plain types.
//!
//! [`Config::load`] answers with a [`Config`] that running code need not check again, or with
//! [`error::ConfigErrors`]: everything that is wrong with the file, each with its line and column. A syntax error,
//! an unknown key or a value of the wrong type ends the reading; all else is collected in one pass.
//!
//! Each section has a file that holds, in this order, what the section means (`pub(crate)` types), what it
//! looks like in TOML (serde types, private to the module) and how one becomes the other. A new kind of
//! provider is one such file and its lines in `provider.rs`.

mod admin;
mod cache;
mod check;
mod circuit_breaker;
mod disk;
pub(crate) mod document;
mod error;
mod hedge;
mod load;
mod log;
mod marks;
mod maturity;
mod metrics;
mod model;
mod openai;
mod price;
mod provider;
pub(crate) mod read;
mod retry;
mod route;
mod secret;
mod semantic;
mod server;
mod simulated;
mod source;
mod store;
mod syntax;
mod table;
mod timeout;
mod trace_context;

#[cfg(test)]
mod fixture;

pub(crate) use admin::Admin;
pub(crate) use cache::{CacheLimits, Place};
pub(crate) use check::{Check, bytes};
pub(crate) use circuit_breaker::Breaker;
pub(crate) use error::{ConfigErrors, nearest, unknown};
pub(crate) use load::Config;
pub(crate) use log::Log;
pub(crate) use marks::{Mark, Marks};
pub(crate) use model::{Model, PRIMARY};
pub(crate) use openai::is_loopback;
pub(crate) use provider::Provider;
pub(crate) use retry::Retries;
pub(crate) use route::{Condition, Route, Rule};
pub(crate) use secret::resolve as resolve_secret;
pub(crate) use semantic::EmbedderOf;
pub(crate) use server::Server;
pub(crate) use store::Store;
pub(crate) use timeout::TimeLimit;
pub(crate) use trace_context::Inbound;
