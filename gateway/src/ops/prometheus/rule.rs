//! Rules as data, and as Prometheus reads them.

use std::fmt::Write as _;

use crate::ops::board::Board;
use crate::ops::options::Options;

/// Rules that are evaluated one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) name: &'static str,
    pub(crate) interval: &'static str,
    pub(crate) rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
pub(crate) enum Rule {
    Record(Record),
    Alert(Alert),
}

/// A series that is computed from others.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) name: String,
    pub(crate) expr: String,
}

/// A condition that somebody should know of.
#[derive(Clone, Debug)]
pub(crate) struct Alert {
    pub(crate) name: &'static str,
    pub(crate) expr: String,
    /// How long it must hold.
    pub(crate) pending: &'static str,
    /// How long it goes on firing after it has ceased to hold.
    pub(crate) keep: Option<&'static str>,
    pub(crate) severity: Severity,
    /// Labels beside `severity`. The component comes first, unless the series name one.
    pub(crate) labels: Vec<(&'static str, &'static str)>,
    /// One sentence, the same for every instance of the alert.
    pub(crate) summary: String,
    /// What is wrong where; a template.
    pub(crate) description: String,
    pub(crate) runbook_url: String,
    pub(crate) dashboard_url: String,
}

/// How soon somebody must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Severity {
    /// Now.
    Critical,
    /// In the next working hours.
    Warning,
    /// Good to know.
    Info,
}

/// What an alert says to people.
pub(crate) struct Words<'a> {
    pub(crate) summary: String,
    pub(crate) description: &'a str,
    /// Where to look first.
    pub(crate) board: Board,
}

/// Rules of groups as a file.
pub(super) fn yaml(about: &str, groups: &[Group]) -> String {
    let mut text =
        format!("# {about}\n# Written by `throughline ops export`; its options change it.\ngroups:\n");
    for group in groups {
        line(&mut text, 2, &format!("- name: {}", group.name));
        line(&mut text, 4, &format!("interval: {}", group.interval));
        line(&mut text, 4, "rules:");
        for rule in &group.rules {
            match rule {
                Rule::Record(record) => record.write(&mut text),
                Rule::Alert(alert) => alert.write(&mut text),
            }
        }
    }
    text
}

fn line(text: &mut String, indent: usize, what: &str) {
    writeln!(text, "{:indent$}{what}", "").expect("writing to a string cannot fail");
}

fn block(text: &mut String, expr: &str) {
    line(text, 8, "expr: |-");
    for part in expr.lines() {
        line(text, 10, part);
    }
}

/// A scalar in double quotes: JSON's are YAML's.
fn quoted(value: &str) -> String {
    serde_json::to_string(value).expect("text serialises")
}

// === impl Record ===

impl Record {
    /// `expr` is a PromQL expression with `$job` for the matcher of the job.
    pub(super) fn rule(options: &Options, name: impl Into<String>, expr: &str) -> Rule {
        Rule::Record(Self { name: name.into(), expr: options.selecting(expr) })
    }

    fn write(&self, text: &mut String) {
        line(text, 6, &format!("- record: {}", self.name));
        block(text, &self.expr);
    }
}

// === impl Alert ===

impl Alert {
    /// `expr` as in [`Record::rule`]; it holds for `pending` before the alert fires. Series that name a component themselves
    /// need none here: a label of the alert would hide theirs.
    pub(super) fn new(
        options: &Options,
        name: &'static str,
        severity: Severity,
        component: Option<&'static str>,
        (pending, expr): (&'static str, &str),
        words: Words<'_>,
    ) -> Self {
        Self {
            name,
            expr: options.selecting(expr),
            pending,
            keep: None,
            severity,
            labels: component.map(|name| ("component", name)).into_iter().collect(),
            summary: words.summary,
            description: words.description.to_owned(),
            runbook_url: format!("{}/{name}.md", options.runbook_url),
            dashboard_url: words.board.url(options),
        }
    }

    /// It goes on firing for so long after it has ceased to hold.
    pub(super) fn keep_firing_for(self, keep: &'static str) -> Self {
        Self { keep: Some(keep), ..self }
    }

    fn write(&self, text: &mut String) {
        line(text, 6, &format!("- alert: {}", self.name));
        block(text, &self.expr);
        line(text, 8, &format!("for: {}", self.pending));
        if let Some(keep) = self.keep {
            line(text, 8, &format!("keep_firing_for: {keep}"));
        }
        line(text, 8, "labels:");
        line(text, 10, &format!("severity: {}", self.severity.as_str()));
        for (name, value) in &self.labels {
            line(text, 10, &format!("{name}: {value}"));
        }
        line(text, 8, "annotations:");
        line(text, 10, &format!("summary: {}", quoted(&self.summary)));
        line(text, 10, &format!("description: {}", quoted(&self.description)));
        line(text, 10, &format!("runbook_url: {}", quoted(&self.runbook_url)));
        line(text, 10, &format!("dashboard_url: {}", quoted(&self.dashboard_url)));
    }
}

// === impl Severity ===

impl Severity {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Info => "info",
        }
    }
}
