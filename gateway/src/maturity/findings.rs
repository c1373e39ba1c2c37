//! What the reports say about one component.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::SystemTime;

use super::component::Component;
use super::evidence::{Advisories, Benchmarks, Coverage, Dated, End, Kind, Lines, Shelf, TestReport};
use super::status::{EvidenceStatus, FileStatus};

/// What a gate needs to know, or why it is not known.
type Finding<T = String> = Result<T, String>;

/// What the reports say about a component.
pub(super) struct Findings {
    /// Every report that it names.
    pub(super) evidence: Vec<EvidenceStatus>,
    pub(super) tests: Finding,
    pub(super) integration_tests: Finding,
    pub(super) checks: Finding,
    /// The share of its lines that were run.
    pub(super) coverage: Finding<f64>,
    /// Its files, as far as they are known.
    pub(super) files: Vec<FileStatus>,
    /// How many advisories are open, and which.
    pub(super) advisories: Finding<(u64, String)>,
    pub(super) benchmarks: Finding,
}

/// The most that are named where many are meant.
const NAMED: usize = 5;

// === impl Findings ===

impl Findings {
    /// Reads what the component names.
    pub(super) fn of(component: &Component, shelf: &mut Shelf, now: SystemTime) -> Self {
        let mut evidence = Vec::new();
        let mut reader = Reader { component, now, evidence: &mut evidence };
        let tests = reader.read(Kind::Tests, |path| shelf.tests(path));
        let coverage = reader.read(Kind::Coverage, |path| shelf.coverage(path));
        let advisories = reader.read(Kind::Advisories, |path| shelf.advisories(path));
        let benchmarks = reader.read(Kind::Benchmarks, |path| shelf.benchmarks(path));
        let (coverage, files) = match coverage.map(|reports| covered(component, &reports)) {
            Ok((ratio, files)) => (ratio, files),
            Err(why) => (Err(why), Vec::new()),
        };
        let all = ["*".to_owned()];
        let own = if component.tests.is_empty() { &all[..] } else { &component.tests };
        let ended = |patterns: &[String], key| match &tests {
            Ok(reports) => ended(patterns, key, reports),
            Err(why) => Err(why.clone()),
        };
        Self {
            tests: ended(own, "tests"),
            integration_tests: ended(&component.integration_tests, "integration_tests"),
            checks: ended(&component.checks, "checks"),
            coverage,
            files,
            advisories: advisories.map(|reports| open(&reports)),
            benchmarks: benchmarks.and_then(|reports| within(component, &reports)),
            evidence,
        }
    }
}

/// Reads reports and notes what became of each.
struct Reader<'a> {
    component: &'a Component,
    now: SystemTime,
    evidence: &'a mut Vec<EvidenceStatus>,
}

type Report<T> = Rc<Result<Dated<T>, String>>;

// === impl Reader ===

impl Reader<'_> {
    /// All reports of a kind, or why one of them does not count: a part of the evidence may be the better part.
    fn read<T>(&mut self, kind: Kind, mut take: impl FnMut(&str) -> Report<T>) -> Finding<Vec<Report<T>>> {
        let reports = &self.component.reports[&kind];
        if reports.paths.is_empty() {
            return Err(format!("no report is named: list them in `evidence.{}`", kind.name()));
        }
        let (mut read, mut first_problem) = (Vec::new(), None);
        for path in &reports.paths {
            let report = take(path);
            let (date, counts) = match report.as_ref() {
                Ok(dated) => (Some(dated.date), reports.count_at(dated.date, self.now)),
                Err(why) => (None, Err(why.clone())),
            };
            let problem = counts.err();
            if let (None, Some(why)) = (&first_problem, &problem) {
                first_problem = Some(format!("{path}: {why}"));
            }
            self.evidence.push(EvidenceStatus { kind, path: path.clone(), date, problem });
            read.push(report);
        }
        first_problem.map_or(Ok(read), Err)
    }
}

fn contents<T>(reports: &[Report<T>]) -> impl Iterator<Item = &T> {
    reports.iter().filter_map(|report| report.as_ref().as_ref().ok()).map(|dated| &dated.content)
}

/// How the tests ended that `patterns` mean. A pattern that means none is as wrong as a test that fails: the
/// test may have been renamed or removed.
fn ended(patterns: &[String], key: &str, reports: &[Report<TestReport>]) -> Finding {
    if patterns.is_empty() {
        return Err(format!("no pattern says which tests are meant: list them in `{key}`"));
    }
    let cases = || contents(reports).flat_map(|report| &report.cases);
    if let Some(pattern) = patterns.iter().find(|pattern| !cases().any(|case| matches(pattern, &case.id))) {
        return Err(format!("no test in the reports matches `{pattern}`"));
    }
    let (mut passed, mut skipped, mut failed) = (0_usize, 0_usize, Vec::new());
    for case in cases().filter(|case| patterns.iter().any(|pattern| matches(pattern, &case.id))) {
        match case.end {
            End::Passed => passed += 1,
            End::Skipped => skipped += 1,
            End::Failed => failed.push(case.id.as_str()),
        }
    }
    let all = passed + skipped + failed.len();
    let skips = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    let said = format!("{passed} of {all} passed{skips}");
    match failed.len() {
        0 if passed > 0 => Ok(said),
        0 => Err(said),
        count => Err(format!("{said}, {count} failed: {}", some(&failed))),
    }
}

/// The first few, and how many more there are.
fn some(names: &[&str]) -> String {
    let shown = names[..names.len().min(NAMED)].join(", ");
    if names.len() > NAMED { format!("{shown} and {} more", names.len() - NAMED) } else { shown }
}

/// Whether a text is what a pattern means, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn covered(component: &Component, reports: &[Report<Coverage>]) -> (Finding<f64>, Vec<FileStatus>) {
    let mut coverage = Coverage::default();
    contents(reports).for_each(|report| coverage.merge(report));
    let all = [String::new()];
    let sources = if component.sources.is_empty() { &all[..] } else { &component.sources };
    let mut files = BTreeMap::new();
    for source in sources {
        let mut known = coverage.of(source).peekable();
        if known.peek().is_none() {
            return (Err(format!("`{source}` is not in the reports")), Vec::new());
        }
        files.extend(known);
    }
    let sum = files.values().fold(Lines::default(), |sum, lines| sum.and(*lines));
    let shown = files.into_iter().map(|(path, Lines { run, all })| FileStatus {
        path: path.to_owned(),
        lines_run: run,
        lines: all,
    });
    (sum.ratio().ok_or_else(|| "its files have no lines".to_owned()), shown.collect())
}

fn open(reports: &[Report<Advisories>]) -> (u64, String) {
    let count = contents(reports).map(|report| report.open).max().unwrap_or_default();
    let ids: BTreeSet<&str> = contents(reports).flat_map(|report| &report.ids).map(String::as_str).collect();
    (count.max(ids.len() as u64), some(&ids.into_iter().collect::<Vec<_>>()))
}

fn within(component: &Component, reports: &[Report<Benchmarks>]) -> Finding {
    if component.budgets.is_empty() {
        return Err("no budget is set: write `budgets`".to_owned());
    }
    let (mut held, mut broken) = (Vec::new(), Vec::new());
    for (name, most) in &component.budgets {
        let measured = contents(reports)
            .filter_map(|report| report.values.get(name).map(|value| (*value, report.unit.as_str())));
        let Some((value, unit)) = measured.max_by(|a, b| a.0.total_cmp(&b.0)) else {
            return Err(format!("no result is called `{name}`"));
        };
        let said = format!("{name}: {value} {unit} of at most {most}");
        if value <= *most { held.push(said) } else { broken.push(said) }
    }
    match broken.len() {
        0 => Ok(held.join("; ")),
        _ => Err(broken.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a b", "a b", true),
            ("a b", "a bc", false),
            ("a *", "a b", true),
            ("a *", "ab", false),
            ("*::c", "a b::c", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("ab*ba", "aba", false),
            ("**", "x", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_names_are_shortened() {
        assert_eq!(some(&["a", "b"]), "a, b");
        assert_eq!(some(&["a", "b", "c", "d", "e", "f", "g"]), "a, b, c, d, e and 2 more");
    }
}
