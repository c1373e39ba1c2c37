//! `throughline maturity`: how far each part of a project has come, by evidence.
//!
//! A file says what each component claims, what is asked before each stage and where the reports are that show
//! it ([`mod@file`]). Evaluating it reads the reports ([`evidence`]) and decides gate by gate ([`mod@assess`]); the
//! result is one value ([`status::Status`]) that pages and metrics are made of.

pub(crate) mod args;
mod assess;
mod command;
mod component;
mod criteria;
mod evidence;
mod families;
mod file;
mod findings;
mod moment;
mod page;
mod stage;
mod status;
mod watch;

#[cfg(test)]
mod fixture;

pub(crate) use command::{Ended, run};
pub(crate) use families::FAMILIES;
pub(crate) use watch::Watch;
