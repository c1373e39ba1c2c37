//! Reads reports, each once an evaluation, and tells how old they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::{Advisories, Benchmarks, Coverage, TestReport, advisories, benchmarks, junit, lcov};
use crate::config::read;
use crate::maturity::moment::{self, DAY};

/// The longest report, in bytes.
const LONGEST: u64 = 64 << 20;

/// What a report is about.
#[derive(Clone, Copy, Debug, Serialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Tests, in JUnit's XML.
    Tests,
    /// Line coverage, in lcov's format.
    Coverage,
    /// Advisories about dependencies, by cargo audit or cargo deny.
    Advisories,
    /// Results of benchmarks, by `cargo xtask bench`.
    Benchmarks,
}

/// Where the reports of a kind are, and how long they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reports {
    /// From the folder of the file that names them.
    pub(crate) paths: Vec<String>,
    /// How old they may be.
    pub(crate) max_age: Duration,
}

/// A report and its date.
#[derive(Debug)]
pub(crate) struct Dated<T> {
    /// As the report says, or else when its file was written.
    pub(crate) date: SystemTime,
    /// What it says.
    pub(crate) content: T,
}

type Read<T> = Rc<Result<Dated<T>, String>>;

/// The reports that have been read, by their paths.
pub(crate) struct Shelf {
    dir: PathBuf,
    tests: BTreeMap<String, Read<TestReport>>,
    coverage: BTreeMap<String, Read<Coverage>>,
    advisories: BTreeMap<String, Read<Advisories>>,
    benchmarks: BTreeMap<String, Read<Benchmarks>>,
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Tests, Self::Coverage, Self::Advisories, Self::Benchmarks];

    /// As it is written in files and labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tests => "tests",
            Self::Coverage => "coverage",
            Self::Advisories => "advisories",
            Self::Benchmarks => "benchmarks",
        }
    }

    /// How old a report may be where nothing else is said.
    pub(crate) fn default_max_age(self) -> Duration {
        match self {
            Self::Tests | Self::Coverage => 30 * DAY,
            Self::Advisories => 7 * DAY,
            Self::Benchmarks => 90 * DAY,
        }
    }
}

// === impl Reports ===

impl Reports {
    /// Whether a report of this date counts.
    ///
    /// # Errors
    /// In words: why not.
    pub(crate) fn count_at(&self, date: SystemTime, now: SystemTime) -> Result<(), String> {
        if date > now + DAY {
            return Err(format!("it is dated {}, in the future", moment::shown(date)));
        }
        let age = now.duration_since(date).unwrap_or_default();
        if age <= self.max_age {
            return Ok(());
        }
        Err(format!("it is {} old and counts for {}", moment::age(age), moment::age(self.max_age)))
    }
}

// === impl Shelf ===

impl Shelf {
    /// Begins without reports. Their paths are looked for from `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            tests: BTreeMap::new(),
            coverage: BTreeMap::new(),
            advisories: BTreeMap::new(),
            benchmarks: BTreeMap::new(),
        }
    }

    /// A test report.
    pub(crate) fn tests(&mut self, path: &str) -> Read<TestReport> {
        take(&mut self.tests, &self.dir, path, junit::parse, |report| report.run)
    }

    /// A coverage report.
    pub(crate) fn coverage(&mut self, path: &str) -> Read<Coverage> {
        take(&mut self.coverage, &self.dir, path, lcov::parse, |_| None)
    }

    /// An advisory report.
    pub(crate) fn advisories(&mut self, path: &str) -> Read<Advisories> {
        take(&mut self.advisories, &self.dir, path, advisories::parse, |_| None)
    }

    /// Results of benchmarks.
    pub(crate) fn benchmarks(&mut self, path: &str) -> Read<Benchmarks> {
        take(&mut self.benchmarks, &self.dir, path, benchmarks::parse, |results| results.measured)
    }

    /// Whether a document is there and says something.
    ///
    /// # Errors
    /// In words: why not.
    pub(crate) fn document(&self, path: &str) -> Result<(), String> {
        match file(&self.dir.join(path))?.len() {
            0 => Err("it is empty".to_owned()),
            _ => Ok(()),
        }
    }
}

fn take<T>(
    known: &mut BTreeMap<String, Read<T>>,
    dir: &Path,
    path: &str,
    parse: fn(&str) -> Result<T, String>,
    date: fn(&T) -> Option<SystemTime>,
) -> Read<T> {
    if let Some(read) = known.get(path) {
        return Rc::clone(read);
    }
    let read = Rc::new(dated(&dir.join(path), parse, date));
    known.insert(path.to_owned(), Rc::clone(&read));
    read
}

fn dated<T>(
    path: &Path,
    parse: fn(&str) -> Result<T, String>,
    date: fn(&T) -> Option<SystemTime>,
) -> Result<Dated<T>, String> {
    let written = file(path)?.modified().map_err(|error| format!("its date cannot be read: {error}"))?;
    let bytes = read::at_most(LONGEST, path)?;
    let text =
        std::str::from_utf8(&bytes).map_err(|error| format!("byte {} is not utf-8", error.valid_up_to()))?;
    let content = parse(text.strip_prefix('\u{feff}').unwrap_or(text))?;
    Ok(Dated { date: date(&content).unwrap_or(written), content })
}

/// A pipe or a device would be read for ever.
fn file(path: &Path) -> Result<fs::Metadata, String> {
    let metadata = fs::metadata(path).map_err(|error| read::reason(&error))?;
    if metadata.is_file() { Ok(metadata) } else { Err("it is no file".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_a_report_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &[u8]| fs::write(dir.path().join(name), text).unwrap();
        write("binary.xml", b"\xff\xfe");
        write("page.xml", b"<html/>");
        let mut shelf = Shelf::new(dir.path());
        for (path, why) in [
            ("none.xml", "there is no such file"),
            (".", "it is no file"),
            ("binary.xml", "byte 0 is not utf-8"),
            ("page.xml", "it is a `html` document: a junit report begins with `testsuites` or `testsuite`"),
        ] {
            assert_eq!(shelf.tests(path).as_ref().as_ref().unwrap_err(), why);
        }
        write("empty.md", b"");
        assert_eq!(shelf.document("empty.md").unwrap_err(), "it is empty");
        shelf.document("page.xml").unwrap();
    }

    #[test]
    fn takes_the_date_from_the_report_before_that_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let said = "<testsuite timestamp='2020-01-01'><testcase name='a'/></testsuite>";
        fs::write(dir.path().join("said.xml"), said).unwrap();
        fs::write(dir.path().join("silent.xml"), said.replace("timestamp", "x")).unwrap();
        let mut shelf = Shelf::new(dir.path());
        let mut date = |path: &str| shelf.tests(path).as_ref().as_ref().unwrap().date;
        assert_eq!(Some(date("said.xml")), moment::moment("2020-01-01"));
        assert!(Some(date("silent.xml")) > moment::moment("2026-01-01"));
    }

    #[test]
    fn a_report_counts_until_it_is_too_old_and_not_before_its_time() {
        let reports = Reports { paths: Vec::new(), max_age: 7 * DAY };
        let now = moment::moment("2026-11-27T12:00:00Z").unwrap();
        reports.count_at(now - 7 * DAY, now).unwrap();
        reports.count_at(now + DAY / 2, now).unwrap();
        assert_eq!(
            reports.count_at(now - 9 * DAY, now).unwrap_err(),
            "it is 9 days old and counts for 7 days"
        );
        assert_eq!(
            reports.count_at(now + 2 * DAY, now).unwrap_err(),
            "it is dated 2026-11-29T12:00:00Z, in the future"
        );
    }
}
