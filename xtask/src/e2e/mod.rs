//! `cargo xtask e2e`: the real programs that people run beside the gateway see what they should.
//!
//! A part is a question to other people's software: [`traces`] asks two backends of OTLP what they made of a
//! request, [`ops`] asks Prometheus and Alertmanager what they make of a fault. Another part is a module beside it and a variant of `command::Part`. What runs is a `Service`,
//! which ends with the value; everything listens on loopback, on ports that were free.

mod command;
mod dashboards;
mod http;
mod interrupt;
mod ops;
mod service;
mod traces;

pub(crate) use command::E2e;
