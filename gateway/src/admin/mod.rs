//! The port for operators: what the stores and the memory of this gateway hold, and taking it out of them.
//!
//! It is a port of its own on this machine, so that no client of the API reaches it, whatever key it has. Every request needs a
//! token of `[admin]` ([`guard`]), and what it may ask is in [`wire`]. [`answer`] does it, one request at a time, by the same code
//! as the commands of `throughline cache`, on what [`inventory`] has. A request that is given up ends its walk.

mod answer;
mod guard;
mod inventory;
mod refusal;
mod server;
pub(crate) mod wire;

pub(crate) use inventory::Inventory;
pub(crate) use server::Server;
