//! The metrics of one telemetry instance: families, series and their cells.
//!
//! Handles are resolved once and then cost a few nanoseconds an update. A family holds at most a fixed
//! number of series; what comes after that is counted in one series whose labels are all `other`, and
//! in `telemetry_series_overflow_total`.

mod exact;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::clock::{Clock, Tick};
use super::family::{Family, Shape};
use super::histogram::{Histogram, countable};
use super::page::{self, Page};
use super::semconv::Semconv;
use super::stripes::Stripes;
use super::window::Window;

/// Series a family may hold before the rest is folded into `other`.
pub(super) const DEFAULT_SERIES_CAP: usize = 2_000;

static OVERFLOW: Family = Family::counter(
    "telemetry_series_overflow",
    "Label sets folded into `other` because the family was full",
    &["family"],
);

pub(super) static FAMILIES: &[&Family] = &[&OVERFLOW];

/// A counter of whole events.
#[derive(Clone, Debug)]
pub struct Counter(Stripes);

/// A growing amount, such as US dollars.
#[derive(Clone, Debug)]
pub struct Amount(Stripes);

/// A whole value that goes up and down, or is set.
#[derive(Clone, Debug)]
pub struct Gauge(Stripes);

/// A value with fractions that goes up and down.
#[derive(Clone, Debug, Default)]
pub struct Level(Arc<AtomicU64>);

/// A share of the last five minutes.
#[derive(Clone, Debug)]
pub struct Rate(Arc<Window>);

/// Hands out the cells of a telemetry instance.
pub struct Registry {
    id: u64,
    families: Mutex<BTreeMap<&'static str, Arc<Series>>>,
    refreshed: Mutex<Vec<Weak<dyn Refresh>>>,
    collectors: Mutex<Vec<Arc<dyn Refresh>>>,
    cap: usize,
    clock: Clock,
    semconv: Semconv,
}

/// What has figures that change with time alone, such as how long it has been in a state.
pub(crate) trait Refresh: Send + Sync {
    /// Brings its figures in `registry` up to date, since they are about to be read.
    fn refresh(&self, registry: &Registry);
}

/// What a series shows now.
pub(super) enum Reading<'a> {
    /// Of a counter.
    Count(u64),
    /// Of an amount.
    Amount(f64),
    /// Of a gauge.
    Whole(i64),
    /// Of a level, and of a rate.
    Fraction(f64),
    /// Of a histogram.
    Distribution(&'a Histogram),
}

#[derive(Debug)]
struct Series {
    family: &'static Family,
    /// By label values, which a page takes a share in and no copy of.
    cells: Mutex<BTreeMap<Arc<[String]>, Cell>>,
}

#[derive(Clone, Debug)]
enum Cell {
    Counter(Counter),
    Amount(Amount),
    Gauge(Gauge),
    Level(Level),
    Rate(Rate),
    Histogram(Histogram),
}

// === impl Registry ===

impl Registry {
    pub(super) fn new(clock: Clock, cap: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            families: Mutex::default(),
            refreshed: Mutex::default(),
            collectors: Mutex::default(),
            cap,
            clock,
            semconv: Semconv::default(),
        }
    }

    /// Tells one registry from another.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Has `source` refreshed before every scrape while it lives. To be called once.
    pub(crate) fn before_scrape(&self, source: Weak<dyn Refresh>) {
        lock(&self.refreshed).push(source);
    }

    pub(super) fn following(self, semconv: Semconv) -> Self {
        Self { semconv, ..self }
    }

    /// What of the GenAI conventions the names of series follow.
    #[must_use]
    pub fn semconv(&self) -> Semconv {
        self.semconv
    }

    /// Keeps `collector` and has it refreshed before every scrape.
    pub(super) fn collect(&self, collector: Arc<dyn Refresh>) {
        self.before_scrape(Arc::downgrade(&collector));
        lock(&self.collectors).push(collector);
    }

    /// The counter of `family` with these label values, in the family's order.
    ///
    /// A mistake in the declaration (another type, another number of labels, a name that is taken) is said in
    /// the log and gives a handle that nobody reads; in debug builds it panics.
    #[must_use]
    pub fn counter(&self, family: &'static Family, values: &[&str]) -> Counter {
        match self.cell(family, values) {
            Cell::Counter(cell) => cell,
            _ => {
                misdeclared(family, "is not a counter");
                Counter::default()
            }
        }
    }

    /// The amount of `family` with these label values; mistakes as in [`Registry::counter`].
    #[must_use]
    pub fn amount(&self, family: &'static Family, values: &[&str]) -> Amount {
        match self.cell(family, values) {
            Cell::Amount(cell) => cell,
            _ => {
                misdeclared(family, "is not an amount");
                Amount::default()
            }
        }
    }

    /// The gauge of `family` with these label values; mistakes as in [`Registry::counter`].
    #[must_use]
    pub fn gauge(&self, family: &'static Family, values: &[&str]) -> Gauge {
        match self.cell(family, values) {
            Cell::Gauge(cell) => cell,
            _ => {
                misdeclared(family, "is not a gauge");
                Gauge::default()
            }
        }
    }

    /// The level of `family` with these label values; mistakes as in [`Registry::counter`].
    #[must_use]
    pub fn level(&self, family: &'static Family, values: &[&str]) -> Level {
        match self.cell(family, values) {
            Cell::Level(cell) => cell,
            _ => {
                misdeclared(family, "is not a level");
                Level::default()
            }
        }
    }

    /// The rate of `family` with these label values; mistakes as in [`Registry::counter`].
    #[must_use]
    pub fn rate(&self, family: &'static Family, values: &[&str]) -> Rate {
        match self.cell(family, values) {
            Cell::Rate(cell) => cell,
            _ => {
                misdeclared(family, "is not a rate");
                Rate(Arc::new(Window::new()))
            }
        }
    }

    /// The histogram of `family` with these label values; mistakes as in [`Registry::counter`].
    #[must_use]
    pub fn histogram(&self, family: &'static Family, values: &[&str]) -> Histogram {
        match self.cell(family, values) {
            Cell::Histogram(cell) => cell,
            _ => {
                misdeclared(family, "is not a histogram");
                Histogram::new(&[])
            }
        }
    }

    /// Everything in the OpenMetrics 1.0 text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.refresh();
        let families: Vec<_> = lock(&self.families).values().cloned().collect();
        let (mut page, now) = (Page::default(), self.clock.now());
        let written = families.iter().try_for_each(|series| series.write(&mut page, now));
        written.expect("writing to a string cannot fail");
        page.finish()
    }

    /// Shows every series to `see`, family by family; what shows nothing now is left out.
    #[cfg_attr(
        not(feature = "otlp"),
        expect(dead_code, reason = "only OTLP has another form than the page's")
    )]
    pub(super) fn visit(&self, mut see: impl FnMut(&'static Family, &[String], Reading<'_>)) {
        self.refresh();
        let families: Vec<_> = lock(&self.families).values().cloned().collect();
        let now = self.clock.now();
        for series in families {
            let cells = lock(&series.cells).clone();
            for (values, cell) in &cells {
                if let Some(reading) = cell.read(now) {
                    see(series.family, values, reading);
                }
            }
        }
    }

    fn refresh(&self) {
        let mut refreshed = lock(&self.refreshed);
        refreshed.retain(|source| source.strong_count() > 0);
        let sources: Vec<_> = refreshed.iter().filter_map(Weak::upgrade).collect();
        drop(refreshed);
        sources.iter().for_each(|source| source.refresh(self));
    }

    fn cell(&self, family: &'static Family, values: &[&str]) -> Cell {
        let series = self.series(family);
        if values.len() != family.labels.len()
            || series.family.labels != family.labels
            || series.family.shape != family.shape
        {
            misdeclared(family, "is declared twice, or used with another number of labels");
            return Cell::new(family.shape);
        }
        let mut cells = lock(&series.cells);
        if let Some(cell) = cells.get(values_as_key(values).as_slice()) {
            return cell.clone();
        }
        // The overflow's own series are as many as there are families: folding them would never end.
        let full = cells.len() >= self.cap && !std::ptr::eq(family, &OVERFLOW);
        let key: Vec<String> =
            if full { vec!["other".to_owned(); values.len()] } else { values_as_key(values) };
        let first = full && !cells.contains_key(key.as_slice());
        let cell = cells.entry(key.into()).or_insert_with(|| Cell::new(family.shape)).clone();
        drop(cells);
        if first {
            let most = self.cap;
            tracing::warn!(
                family = family.name,
                most,
                "a metric family is full: what comes is counted as `other`"
            );
        }
        if full {
            self.counter(&OVERFLOW, &[family.name]).inc();
        }
        cell
    }

    fn series(&self, family: &'static Family) -> Arc<Series> {
        let new = || Arc::new(Series { family, cells: Mutex::default() });
        lock(&self.families).entry(family.name).or_insert_with(new).clone()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(lock(&self.families).keys()).finish()
    }
}

/// Telemetry must not take the work down: outside of tests a wrong declaration costs its own figures only.
fn misdeclared(family: &Family, what: &str) {
    debug_assert!(false, "the family {} {what}", family.name);
    tracing::error!(family = family.name, "a metric family {what}: its figures are lost");
}

fn values_as_key(values: &[&str]) -> Vec<String> {
    values.iter().map(|&value| value.to_owned()).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Series ===

impl Series {
    fn write(&self, page: &mut Page, now: Tick) -> fmt::Result {
        let share = |(values, cell): (&Arc<[String]>, &Cell)| (Arc::clone(values), cell.clone());
        let cells: Vec<_> = lock(&self.cells).iter().map(share).collect();
        if cells.is_empty() {
            return Ok(());
        }
        page.family(self.family)?;
        cells.iter().try_for_each(|(values, cell)| cell.write(page.series(self.family, values), now))
    }
}

// === impl Cell ===

impl Cell {
    fn new(shape: Shape) -> Self {
        match shape {
            Shape::Counter => Self::Counter(Counter::default()),
            Shape::Amount => Self::Amount(Amount::default()),
            Shape::Gauge => Self::Gauge(Gauge::default()),
            Shape::Level => Self::Level(Level::default()),
            Shape::Rate => Self::Rate(Rate(Arc::new(Window::new()))),
            Shape::Histogram(bounds) => Self::Histogram(Histogram::new(bounds)),
        }
    }

    fn write(&self, series: page::Series<'_>, now: Tick) -> fmt::Result {
        match self.read(now) {
            Some(Reading::Count(count)) => series.counter(count),
            Some(Reading::Amount(amount)) => series.amount(amount),
            Some(Reading::Whole(value)) => series.gauge(value),
            Some(Reading::Fraction(value)) => series.fraction(value),
            Some(Reading::Distribution(histogram)) => series.histogram(histogram),
            None => Ok(()),
        }
    }

    /// `None` for a rate without events.
    fn read(&self, now: Tick) -> Option<Reading<'_>> {
        Some(match self {
            Self::Counter(cell) => Reading::Count(cell.0.sum(0)),
            Self::Amount(cell) => Reading::Amount(cell.0.sum_of_fractions(0)),
            Self::Gauge(cell) => Reading::Whole(cell.get()),
            Self::Level(cell) => Reading::Fraction(f64::from_bits(cell.0.load(Ordering::Relaxed))),
            Self::Rate(cell) => Reading::Fraction(cell.0.ratio(now)?),
            Self::Histogram(cell) => Reading::Distribution(cell),
        })
    }
}

// === impl handles ===

impl Counter {
    /// Counts one event.
    #[inline]
    pub fn inc(&self) {
        self.add(1);
    }

    /// Counts several at once.
    #[inline]
    pub fn add(&self, events: u64) {
        self.0.own().add(0, events);
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self(Stripes::new(1))
    }
}

impl Amount {
    /// Adds `value`; a negative or non-finite one is ignored, for a counter cannot take it back.
    #[inline]
    pub fn add(&self, value: f64) {
        if countable(value) {
            self.0.own().add_fraction(0, value);
        }
    }
}

impl Default for Amount {
    fn default() -> Self {
        Self(Stripes::new(1))
    }
}

impl Gauge {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.own().add(0, 1);
    }

    /// Takes one off. Another thread may have added it.
    #[inline]
    pub fn dec(&self) {
        self.0.own().add(0, 1_u64.wrapping_neg());
    }

    /// Sets the value. What is added meanwhile may be lost: a gauge is either counted or set.
    pub fn set(&self, value: i64) {
        let mut next = value.cast_unsigned();
        for share in self.0.all(0) {
            share.store(std::mem::take(&mut next), Ordering::Relaxed);
        }
    }

    /// Shares may be below zero, and wrap around; their sum does not.
    fn get(&self) -> i64 {
        self.0.sum(0).cast_signed()
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self(Stripes::new(1))
    }
}

impl Level {
    /// Sets the value.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

impl Rate {
    /// Counts one event at `now`; `hit` says whether it has the property that the rate measures.
    #[inline]
    pub fn record(&self, now: Tick, hit: bool) {
        self.0.record(now, hit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static CALLS: Family = Family::counter("calls", "Calls", &["operation"]);

    #[test]
    fn folds_what_exceeds_the_cap_into_one_series() {
        let registry = Registry::new(Clock::default(), 2);
        for name in ["a", "b", "c", "d", "a"] {
            registry.counter(&CALLS, &[name]).inc();
        }
        let text = registry.render();
        assert!(text.contains("calls_total{operation=\"a\"} 2\n"), "{text}");
        assert!(text.contains("calls_total{operation=\"other\"} 2\n"), "{text}");
        assert!(!text.contains("operation=\"c\""), "{text}");
        assert!(text.contains("telemetry_series_overflow_total{family=\"calls\"} 2\n"), "{text}");
    }

    #[test]
    fn escapes_label_values() {
        let registry = Registry::new(Clock::default(), 10);
        registry.counter(&CALLS, &["a\"b\\c\nd"]).inc();
        assert!(registry.render().contains(r#"calls_total{operation="a\"b\\c\nd"} 1"#));
    }

    #[test]
    fn shows_two_instances_of_one_family_as_two_series() {
        static RATE: Family = Family::rate("hit_rate", "Hits", &["operation"]);
        let registry = Registry::new(Clock::default(), 10);
        registry.rate(&RATE, &["a"]).record(registry.clock.now(), true);
        registry.rate(&RATE, &["b"]).record(registry.clock.now(), false);
        let _untouched = registry.rate(&RATE, &["c"]);
        let text = registry.render();
        assert!(text.contains("hit_rate{operation=\"a\"} 1.0\n"), "{text}");
        assert!(text.contains("hit_rate{operation=\"b\"} 0.0\n"), "{text}");
        assert!(!text.contains("operation=\"c\""), "a rate is absent before its first event: {text}");
    }

    #[test]
    fn a_level_shows_what_was_set_last() {
        static LOAD: Family = Family::level("load", "Load", &[]);
        let registry = Registry::new(Clock::default(), 10);
        let load = registry.level(&LOAD, &[]);
        assert!(registry.render().contains("load 0.0\n"));
        load.set(1.5);
        load.set(-0.25);
        assert!(registry.render().contains("load -0.25\n"));
    }

    #[test]
    fn an_amount_never_goes_down() {
        static SPENT: Family = Family::amount("spent_usd", "Spent", &[]);
        let registry = Registry::new(Clock::default(), 10);
        let spent = registry.amount(&SPENT, &[]);
        for value in [0.5, -3.0, f64::NAN, f64::INFINITY, 0.25] {
            spent.add(value);
        }
        assert!(registry.render().contains("spent_usd_total 0.75\n"));
    }
}
