//! Every query of every panel, through the whole run: whether it has data, and what has moved it.

use std::collections::{BTreeMap, BTreeSet};

use super::motion;
use super::moves;
use super::panels::Query;
use super::prometheus::{Api, Span};
use super::report::Report;

/// Between two points of what is compared, in seconds.
const STEP: f64 = 0.5;

/// What is known of every query so far.
pub(crate) struct Watch {
    queries: Vec<Query>,
    moved_by: BTreeMap<usize, BTreeSet<&'static str>>,
    flaws: BTreeMap<usize, String>,
    passed: BTreeSet<&'static str>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn of(queries: Vec<Query>) -> Self {
        Self { queries, moved_by: BTreeMap::new(), flaws: BTreeMap::new(), passed: BTreeSet::new() }
    }

    /// Finds out what `cause` has moved, from what was before.
    pub(crate) fn compare(&mut self, api: &Api, cause: &'static str, before: Span, then: Span) {
        self.passed.insert(cause);
        for (index, query) in self.queries.iter().enumerate() {
            let [before, then] = [before, then].map(|span| api.range(&query.promql, span, STEP).unwrap_or_default());
            if motion::moved(&before, &then) {
                self.moved_by.entry(index).or_default().insert(cause);
            }
        }
    }

    /// Finds out which have no finite data now.
    pub(crate) fn require_data(&mut self, api: &Api) {
        for (index, query) in self.queries.iter().enumerate() {
            if let Some(flaw) = motion::flaw(&api.instant(&query.promql)) {
                self.flaws.insert(index, flaw);
            }
        }
    }

    /// A finding a query. `whole`: every fault was injected, so a query that nothing has moved is one too many.
    pub(crate) fn report(&self, report: &mut Report, whole: bool) {
        let nothing = BTreeSet::new();
        for (index, query) in self.queries.iter().enumerate() {
            let moved_by = self.moved_by.get(&index).unwrap_or(&nothing);
            let mut problems: Vec<_> = self.flaws.get(&index).cloned().into_iter().collect();
            problems.extend(moves::unmoved(&query.written, moved_by, &self.passed, whole));
            if !problems.is_empty() {
                problems.push(query.promql.clone());
            }
            report.add("panels", query.shown(), "", problems);
        }
    }
}
