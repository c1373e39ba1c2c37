//! `throughline ops`: what the people on call need beside the program, written and checked by the program.
//!
//! A **pack** is a list of files ([`pack::files`]) made of one set of validated [`options::Options`]: Prometheus' scrape
//! config and rules, Alertmanager's routes, dashboards, runbooks, and what else it takes to run a gateway. `ops export`
//! writes it ([`export`]); the folder `ops/` of the repository is what it writes with defaults, kept by `cargo xtask gen`.
//! `ops check` asks a live Prometheus whether every series is there that the pack needs ([`check`]).

mod alertmanager;
pub(crate) mod args;
mod board;
mod check;
mod command;
mod dashboards;
mod deployment;
mod export;
mod options;
mod pack;
mod prometheus;
mod runbooks;

pub(crate) use command::{Ended, run};
