//! What the checks ask of every backend.

use std::path::PathBuf;

use serde_json::Value;

use super::span::Trace;
use crate::e2e::interrupt::Interrupt;
use crate::failure::Failure;

/// A running backend.
pub(crate) trait Backend {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Where it takes spans as protobuf over HTTP, the whole address.
    fn traces_url(&self) -> String;

    /// The trace with this id, in hexadecimal, if it has come.
    fn trace(&self, id: &str) -> Option<Trace>;

    /// The ids of all traces that it has.
    fn ids(&self) -> Option<Vec<String>>;

    /// What it derives from the conventions for GenAI: the tokens read and written in these traces.
    fn usage(&self, ids: &[&str]) -> Option<Usage>;

    /// Everything that it tells of a trace, for people and for the search for secrets.
    fn raw(&self, id: &str) -> Value;

    /// How people can look at it.
    fn visit(&self) -> String;
}

/// Tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) output: u64,
}

/// Where a backend keeps its data and its log, and who may interrupt its start.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) data: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) interrupt: Interrupt,
}

// === impl Place ===

impl Place {
    /// An empty folder for data: what an earlier run has left would be counted.
    pub(crate) fn clear(&self) -> Result<(), Failure> {
        let cleared = match std::fs::remove_dir_all(&self.data) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::create_dir_all(&self.data),
        };
        cleared.map_err(|error| Failure::missing(format!("cannot empty {}: {error}", self.data.display())))
    }
}
