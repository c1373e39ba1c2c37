//! A cache on a real redis-server: what it stores, whom it shares it with, and every way in which the server can
//! be sick.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails the test")]

mod claims;
mod cluster;
mod entries;
mod gathered;
mod near;
mod outages;
mod proxy;
mod rig;
mod runtimes;
mod sentinel;
mod server;
mod sharing;
mod spoilt;
mod values;
