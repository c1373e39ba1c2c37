//! `cargo xtask e2e --only ops`: the operations pack against the programs that it is for.
//!
//! A [`Stand`](stand::Stand) is a gateway with providers, Redis and a receiver of spans around it, watched by a real
//! Prometheus and a real Alertmanager with the files that `throughline ops export` has written. What they say arrives
//! at an [`Inbox`](inbox::Inbox). A [`Fault`](fault::Fault) is one thing that breaks, and the alerts that are to come
//! of it; what panels show meanwhile is asked of Prometheus by [`panels`] and judged by [`motion`]. The clock of the
//! pack is made to run faster by [`haste`]. [`scale`] asks how long panels take with many series.

mod drill;
mod export;
mod fault;
mod gateway;
mod haste;
mod inbox;
mod motion;
mod moves;
mod panels;
mod part;
mod prometheus;
mod provider;
mod report;
mod runbooks;
mod scale;
mod stand;
mod traffic;
mod watch;

pub(crate) use part::run;
