//! What a dashboard is, before it is Grafana's: rows of panels, each with its queries and with words on how to read it.
//!
//! A panel says what it shows and what is good, and both stand in Grafana and in the monitoring guide. Queries are
//! PromQL in which `{@}` and `{@,…}` stand for the matchers of the variables `job` and `instance`, `{#}` and `{#,…}` for
//! that of `job` alone (what rules have recorded has no instance), and `[@]` for Grafana's interval of rates. Tests parse
//! every query and compare its names with the catalogue.

use crate::ops::board::Board;

/// A page of panels.
pub(super) struct Dashboard {
    pub(super) board: Board,
    pub(super) title: &'static str,
    /// The question that it answers.
    pub(super) purpose: &'static str,
    /// What can be chosen beside the job and the instance.
    pub(super) variable: Variable,
    pub(super) rows: Vec<Row>,
}

/// A choice among the values that a label has now.
pub(super) struct Variable {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    /// The series that has the label.
    pub(super) series: &'static str,
    /// The label whose values can be chosen.
    pub(super) of: &'static str,
}

/// Panels under a heading.
pub(super) struct Row {
    pub(super) title: &'static str,
    pub(super) panels: Vec<Panel>,
}

/// One picture.
pub(super) struct Panel {
    pub(super) title: &'static str,
    pub(super) draw: Draw,
    pub(super) unit: Unit,
    /// What it shows, in one sentence.
    pub(super) shows: &'static str,
    /// What it looks like when all is well, and what it means when it does not.
    pub(super) good: String,
    /// The alert on the same figure, whose runbook is linked.
    pub(super) alert: Option<&'static str>,
    pub(super) limits: Option<Limits>,
    /// Words for values.
    pub(super) words: &'static [Word],
    pub(super) targets: Vec<Target>,
    pub(super) width: u8,
}

/// How it is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Draw {
    /// Values over time.
    Lines,
    /// Parts of a whole over time.
    Stacked,
    /// States over time: a value holds until the next one.
    Steps,
    /// The values of now, large.
    Stat,
    /// The values of now, one bar each.
    Bars,
    /// The values of now with their labels; each query is a column.
    Table,
}

/// A query and how its series are called.
pub(super) struct Target {
    pub(super) query: String,
    /// In a table the heading of the column.
    pub(super) legend: &'static str,
}

/// What a value is a number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Bytes,
    Count,
    /// A share, 0 to 1.
    Share,
    PerSecond,
    RequestsPerSecond,
    Seconds,
    /// One of the values that the panel has words for.
    State,
    Usd,
}

/// From where on a value is no longer good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Limits {
    pub(super) bad: Side,
    pub(super) warning: f64,
    pub(super) critical: f64,
}

/// Which side of a limit is the bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Above,
    Below,
}

/// A value's name and colour.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) value: u8,
    pub(super) text: &'static str,
    pub(super) colour: &'static str,
}

/// A word for 0 and one for 1.
pub(super) const fn no_yes(no: &'static str, yes: &'static str) -> [Word; 2] {
    [Word { value: 0, text: no, colour: "red" }, Word { value: 1, text: yes, colour: "green" }]
}

/// The quantile `of` (such as `0.95`) of a histogram's `series` per second, by these labels; `matchers` as in a query.
pub(super) fn quantile(of: &str, series: &str, matchers: &str, by: &str) -> String {
    let by = if by.is_empty() { "le".to_owned() } else { format!("le, {by}") };
    // Of nothing there is no quantile: the comparison drops what is no number.
    format!("histogram_quantile({of}, sum by ({by}) (rate({series}_bucket{matchers}[@]))) >= 0")
}

/// A sum that is 0, and not absent, while a target answers and the family has no series yet.
pub(super) fn zero_filled(sum: &str) -> String {
    format!("{sum} or 0 * sum(up{{@}})")
}

// === impl Dashboard ===

impl Dashboard {
    /// Its file's name.
    pub(super) fn slug(&self) -> &'static str {
        self.board.uid().trim_start_matches("throughline-")
    }
}

// === impl Row ===

impl Row {
    pub(super) const fn new(title: &'static str, panels: Vec<Panel>) -> Self {
        Self { title, panels }
    }
}

// === impl Panel ===

impl Panel {
    fn new(title: &'static str, draw: Draw, unit: Unit, width: u8) -> Self {
        Self {
            title,
            draw,
            unit,
            shows: "",
            good: String::new(),
            alert: None,
            limits: None,
            words: &[],
            targets: Vec::new(),
            width,
        }
    }

    pub(super) fn lines(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Draw::Lines, unit, 8)
    }

    pub(super) fn stacked(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Draw::Stacked, unit, 8)
    }

    pub(super) fn steps(title: &'static str, words: &'static [Word]) -> Self {
        Self { words, ..Self::new(title, Draw::Steps, Unit::State, 12) }
    }

    pub(super) fn stat(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Draw::Stat, unit, 4)
    }

    pub(super) fn bars(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Draw::Bars, unit, 8)
    }

    pub(super) fn table(title: &'static str, unit: Unit) -> Self {
        Self::new(title, Draw::Table, unit, 12)
    }

    /// What it shows: a sentence.
    pub(super) fn shows(self, shows: &'static str) -> Self {
        Self { shows, ..self }
    }

    /// What good looks like, and what anything else means: a sentence or two.
    pub(super) fn good(self, good: impl Into<String>) -> Self {
        Self { good: good.into(), ..self }
    }

    /// The alert on the same figure.
    pub(super) fn alert(self, alert: &'static str) -> Self {
        Self { alert: Some(alert), ..self }
    }

    pub(super) fn bad_above(self, warning: f64, critical: f64) -> Self {
        Self { limits: Some(Limits { bad: Side::Above, warning, critical }), ..self }
    }

    pub(super) fn bad_below(self, warning: f64, critical: f64) -> Self {
        Self { limits: Some(Limits { bad: Side::Below, warning, critical }), ..self }
    }

    /// Limits that depend on the options.
    pub(super) fn limited(self, limits: Option<Limits>) -> Self {
        Self { limits, ..self }
    }

    /// Words for the values.
    pub(super) fn words(self, words: &'static [Word]) -> Self {
        Self { words, ..self }
    }

    /// Of the 24 columns of a row.
    pub(super) fn width(self, width: u8) -> Self {
        Self { width, ..self }
    }

    /// Another query; `legend` may name labels: `{{route}}`.
    pub(super) fn query(mut self, legend: &'static str, query: impl Into<String>) -> Self {
        self.targets.push(Target { query: query.into(), legend });
        self
    }
}

// === impl Target ===

impl Target {
    /// The query as Grafana gets it.
    pub(super) fn promql(&self) -> String {
        expanded(&self.query)
    }
}

/// With what the signs of a query stand for.
pub(super) fn expanded(query: &str) -> String {
    query
        .replace("{@", r#"{job=~"$job",instance=~"$instance""#)
        .replace("{#", r#"{job=~"$job""#)
        .replace("[@]", "[$__rate_interval]")
}

// === impl Unit ===

impl Unit {
    /// Grafana's name for it.
    pub(super) const fn id(self) -> &'static str {
        match self {
            Self::Bytes => "bytes",
            Self::Count => "short",
            Self::Share => "percentunit",
            Self::PerSecond => "ops",
            Self::RequestsPerSecond => "reqps",
            Self::Seconds => "s",
            Self::State => "none",
            Self::Usd => "currencyUSD",
        }
    }
}
