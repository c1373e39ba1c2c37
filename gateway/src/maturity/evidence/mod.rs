//! Evidence: reports that other tools have written, each with its date.
//!
//! Whatever cannot be read, is not whole or too old is a reason, and a gate that needs it does not open.

mod advisories;
mod benchmarks;
mod junit;
mod lcov;
mod report;

pub(crate) use advisories::Advisories;
pub(crate) use benchmarks::Benchmarks;
pub(crate) use junit::{End, TestReport};
pub(crate) use lcov::{Coverage, Lines};
pub(crate) use report::{Dated, Kind, Reports, Shelf};
