//! Families whose series come and go together, such as figures that are read from a file.

use std::collections::BTreeMap;

use super::{Cell, DEFAULT_SERIES_CAP, Registry, lock, misdeclared};
use crate::telemetry::clock::Clock;
use crate::telemetry::family::{Family, Shape};

impl Registry {
    /// A registry that belongs to no telemetry instance: for a page that is written to a file.
    #[must_use]
    pub fn standalone() -> Self {
        Self::new(Clock::default(), DEFAULT_SERIES_CAP)
    }

    /// Has a family of gauges or levels show exactly these series from now on: label values in the family's
    /// order, and the figure, of which a gauge takes the whole part. A scrape sees all of them or none.
    ///
    /// What exceeds the cap of a family is left out, and said in the log. Mistakes as in [`Registry::counter`].
    pub fn show_only(&self, family: &'static Family, series: impl IntoIterator<Item = (Vec<String>, f64)>) {
        let shown = self.series(family);
        if !matches!(family.shape, Shape::Gauge | Shape::Level) || shown.family.shape != family.shape {
            misdeclared(family, "is neither a gauge nor a level");
            return;
        }
        let mut cells = BTreeMap::new();
        for (values, figure) in series {
            if values.len() != family.labels.len() {
                misdeclared(family, "is used with another number of labels");
            } else if cells.len() < self.cap {
                cells.insert(values.into(), Cell::with(family.shape, figure));
            } else {
                tracing::warn!(family = family.name, "more than {} series: the rest is left out", self.cap);
                break;
            }
        }
        *lock(&shown.cells) = cells;
    }
}

impl Cell {
    fn with(shape: Shape, figure: f64) -> Self {
        let cell = Self::new(shape);
        match &cell {
            #[expect(clippy::cast_possible_truncation, reason = "a gauge takes the whole part")]
            Self::Gauge(gauge) => gauge.set(figure as i64),
            Self::Level(level) => level.set(figure),
            _ => {}
        }
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static DEPTH: Family = Family::gauge("depth", "Depth", &["queue"]);
    static SHARE: Family = Family::level("share", "Share", &["queue"]);

    fn series(names: &[&str]) -> Vec<(Vec<String>, f64)> {
        names.iter().map(|name| (vec![(*name).to_owned()], 1.5)).collect()
    }

    #[test]
    fn shows_what_was_given_last_and_nothing_before() {
        let registry = Registry::standalone();
        registry.show_only(&DEPTH, series(&["a", "b"]));
        registry.show_only(&SHARE, series(&["a"]));
        registry.show_only(&DEPTH, series(&["c"]));
        let page = registry.render();
        assert!(
            page.contains("depth{queue=\"c\"} 1\n") && page.contains("share{queue=\"a\"} 1.5\n"),
            "{page}"
        );
        assert!(!page.contains("queue=\"b\""), "{page}");
        registry.show_only(&SHARE, Vec::new());
        assert!(!registry.render().contains("share"));
    }

    #[test]
    fn leaves_out_what_exceeds_the_cap() {
        let registry = Registry::new(Clock::default(), 2);
        registry.show_only(&DEPTH, series(&["a", "b", "c"]));
        assert_eq!(registry.render().matches("depth{").count(), 2);
    }
}
