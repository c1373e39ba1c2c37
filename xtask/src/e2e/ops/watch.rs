//! Every query of every panel, over the whole run: whether it has data, and what has moved it.

use std::collections::BTreeSet;

use super::motion;
use super::moves;
use super::panels::Query;
use super::prometheus::{Api, Series, Span};
use super::report::Report;

/// Between two points of what is compared, in seconds.
const STEP: f64 = 0.5;

/// A series that has no point in so many seconds before a fault is mended has gone.
const END: f64 = 1.5;

/// What happened when. Prometheus keeps what panels showed meanwhile, so it is asked at the end, once.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// What happened, what was before, and while it lasted.
    causes: Vec<(&'static str, Span, Span)>,
    /// When all was well and every panel must have data.
    well: Option<Span>,
}

// === impl Watch ===

impl Watch {
    pub(crate) fn happened(&mut self, cause: &'static str, before: Span, then: Span) {
        self.causes.push((cause, before, then));
    }

    pub(crate) fn is_well(&mut self, span: Span) {
        self.well = Some(span);
    }

    /// A finding a query. `whole`: every fault was injected, so a query that nothing has moved is one too many.
    pub(crate) fn report(&self, api: &Api, queries: &[Query], report: &mut Report, whole: bool) {
        let spans = self.causes.iter().flat_map(|(_, before, then)| [before, then]);
        let Some(all) = spans.copied().reduce(Span::hull) else { return };
        let passed: BTreeSet<_> = self.causes.iter().map(|(cause, ..)| *cause).collect();
        for query in queries {
            let answer = api.range(&query.promql, all, STEP);
            let mut problems: Vec<_> =
                self.well.iter().filter_map(|well| motion::flaw(&within(&answer, *well))).collect();
            let moved_by = self.moved_by(&answer);
            problems.extend(moves::unmoved(&query.written, &moved_by, &passed, whole));
            if !problems.is_empty() {
                problems.push(query.promql.clone());
            }
            let moved_by = moved_by.into_iter().collect::<Vec<_>>().join(", ");
            report.add("panels", query.shown(), format!("moved by {moved_by}"), problems);
        }
    }

    fn moved_by(&self, answer: &Result<Vec<Series>, String>) -> BTreeSet<&'static str> {
        let moved = self.causes.iter().filter(|(_, before, then)| {
            let then_end = Span { from: (then.to - END).max(then.from), to: then.to };
            let [before, then] = [before, then].map(|span| within(answer, *span).unwrap_or_default());
            let last = within(answer, then_end).unwrap_or_default();
            let gone = before.iter().any(|series| !last.iter().any(|other| other.labels == series.labels));
            gone || motion::moved(&before, &then)
        });
        moved.map(|(cause, ..)| *cause).collect()
    }
}

/// The part of an answer that is of a stretch of time, without series that have nothing there.
fn within(answer: &Result<Vec<Series>, String>, span: Span) -> Result<Vec<Series>, String> {
    let cut = |series: &Series| {
        let points = series.points.iter().filter(|(at, _)| (span.from..=span.to).contains(at)).copied();
        Series { labels: series.labels.clone(), points: points.collect() }
    };
    answer
        .as_ref()
        .map_err(Clone::clone)
        .map(|all| all.iter().map(cut).filter(|series| !series.points.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn series(points: &[(f64, f64)]) -> Series {
        Series { labels: BTreeMap::new(), points: points.to_vec() }
    }

    #[test]
    fn a_cause_moves_what_leaves_its_band_while_it_lasts() {
        let span = |from, to| Span { from, to };
        let mut watch = Watch::default();
        watch.happened("traffic", span(0.0, 1.0), span(2.0, 3.0));
        watch.happened("Redis stopped", span(2.0, 3.0), span(4.0, 5.0));
        let answer =
            Ok(vec![series(&[(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, 0.0), (5.0, 1.0)])]);
        assert_eq!(watch.moved_by(&answer), BTreeSet::from(["Redis stopped"]));
        let late = Ok(vec![series(&[(2.5, 7.0)])]);
        assert_eq!(watch.moved_by(&late), BTreeSet::from(["traffic", "Redis stopped"]));
    }

    #[test]
    fn a_series_that_is_gone_when_the_fault_is_mended_has_moved() {
        let mut watch = Watch::default();
        watch.happened("gateway stopped", Span { from: 0.0, to: 1.0 }, Span { from: 2.0, to: 6.0 });
        let lasts = |end: u8| Ok(vec![series(&(0..=end).map(|at| (f64::from(at), 1.0)).collect::<Vec<_>>())]);
        assert_eq!(watch.moved_by(&lasts(3)), BTreeSet::from(["gateway stopped"]));
        assert_eq!(watch.moved_by(&lasts(6)), BTreeSet::new());
    }

    #[test]
    fn a_series_without_points_in_a_stretch_is_not_in_it() {
        let answer = Ok(vec![series(&[(1.0, 1.0)])]);
        assert_eq!(within(&answer, Span { from: 2.0, to: 3.0 }), Ok(Vec::new()));
    }
}
