//! Every wrapper of the library, one file each.
//!
//! A new wrapper needs a file here with a `SPECIMEN` and a line in [`specimens`]. Its law says in virtual time what
//! one run does: call what is wrapped with [`Play::call`] (at a time, with a deadline: a deadline only ever
//! shrinks), cut off what is dropped with [`Play::cut`], name events with [`Play::event`], and keep what later runs
//! depend on with [`Play::remember`]. A wrapper that passes everything on has the law [`transparent`]. Times in
//! the configuration are odd numbers of milliseconds that depend on the level, because a tie has no defined order.

mod adaptive_timeout;
mod boxed;
mod bulkhead;
mod cache;
mod chaos;
mod circuit_breaker;
mod conditional;
mod fallback;
mod hedge;
mod map;
mod named;
mod parallel;
mod rate_limit;
mod retry;
mod router;
mod saga;
#[cfg(feature = "tower")]
mod service;
mod shed;
mod switch;
mod timeout;

use std::time::Duration;

use super::play::{Ending, Play, Specimen};

/// Every wrapper of the library, in the order of their names. A test names those that are missing.
#[must_use]
pub fn specimens() -> Vec<Specimen> {
    vec![
        adaptive_timeout::SPECIMEN,
        boxed::SPECIMEN,
        bulkhead::SPECIMEN,
        cache::SPECIMEN,
        chaos::SPECIMEN,
        circuit_breaker::SPECIMEN,
        conditional::SPECIMEN,
        fallback::SPECIMEN,
        fallback::CONSTANT,
        hedge::SPECIMEN,
        map::SPECIMEN,
        named::SPECIMEN,
        parallel::EACH,
        parallel::RACE,
        parallel::SETTLE,
        rate_limit::SPECIMEN,
        retry::SPECIMEN,
        retry::BUDGETED,
        router::SPECIMEN,
        saga::SPECIMEN,
        #[cfg(feature = "tower")]
        service::SPECIMEN,
        shed::SPECIMEN,
        switch::SPECIMEN,
        timeout::SPECIMEN,
        timeout::DETACHED,
    ]
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// The law of a wrapper that changes nothing while all is well with itself.
fn transparent(play: &mut Play<'_>) -> Ending {
    play.pass().hand_on()
}

/// Nothing is ever held.
fn nothing() -> Box<dyn Fn() -> u64 + Send + Sync> {
    Box::new(|| 0)
}
