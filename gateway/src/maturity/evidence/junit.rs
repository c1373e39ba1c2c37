//! Test reports in JUnit's XML, as nextest, pytest and `cargo xtask test --report` write them.
//!
//! There is no one schema: suites may be nested or stand alone, and any attribute may be missing. What counts
//! is each `testcase`. Where a suite says that it has more tests or failures than are listed, the report is not
//! whole and is refused.

use std::time::SystemTime;

use roxmltree::{Document, Node, ParsingOptions};

use crate::maturity::moment;

/// How deep suites may be nested.
const DEEPEST: usize = 64;
/// The most elements, texts and the like.
const MOST_NODES: u32 = 4_000_000;

/// What a test report says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TestReport {
    /// When the earliest suite was run, where that is said.
    pub(crate) run: Option<SystemTime>,
    /// Every test, at least one.
    pub(crate) cases: Vec<Case>,
}

/// One test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// `CLASS NAME`, or `SUITE NAME` where no class is given.
    pub(crate) id: String,
    /// How it ended.
    pub(crate) end: End,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed,
    Skipped,
}

/// Reads a report.
///
/// # Errors
/// In words: why it is none, or not whole.
pub(crate) fn parse(text: &str) -> Result<TestReport, String> {
    // Without document types there are no entities to be expanded.
    let options = ParsingOptions { allow_dtd: false, nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document =
        Document::parse_with_options(text, options).map_err(|error| format!("not xml: {error}"))?;
    let root = document.root_element();
    let name = root.tag_name().name();
    if !matches!(name, "testsuites" | "testsuite") {
        return Err(format!(
            "it is a `{name}` document: a junit report begins with `testsuites` or `testsuite`"
        ));
    }
    let mut report = TestReport::default();
    report.suite(root, 0)?;
    if report.cases.is_empty() { Err("it lists no test".to_owned()) } else { Ok(report) }
}

// === impl TestReport ===

impl TestReport {
    fn suite(&mut self, suite: Node<'_, '_>, depth: usize) -> Result<(), String> {
        if depth > DEEPEST {
            return Err(format!("suites are nested more than {DEEPEST} deep"));
        }
        if let Some(run) = suite.attribute("timestamp").and_then(moment::moment) {
            self.run = Some(self.run.map_or(run, |earliest| earliest.min(run)));
        }
        let (name, first) = (suite.attribute("name").unwrap_or_default(), self.cases.len());
        for child in suite.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "testsuite" => self.suite(child, depth + 1)?,
                "testcase" => self.cases.push(Case::of(child, name)?),
                // A suite that could not be set up says so beside its tests.
                "error" | "failure" => self.cases.push(Case { id: format!("{name} "), end: End::Failed }),
                _ => {}
            }
        }
        self.is_whole(suite, first)
    }

    /// Whether as many tests and failures are listed as the suite says that it has.
    fn is_whole(&self, suite: Node<'_, '_>, first: usize) -> Result<(), String> {
        let listed = &self.cases[first..];
        let failed = listed.iter().filter(|case| case.end == End::Failed).count();
        let failures = declared(suite, "failures")?.saturating_add(declared(suite, "errors")?);
        for (what, said, found) in
            [("tests", declared(suite, "tests")?, listed.len()), ("failures", failures, failed)]
        {
            if said > found {
                let name = suite.attribute("name").unwrap_or("without a name");
                return Err(format!("the suite `{name}` says {said} {what} and lists {found}"));
            }
        }
        Ok(())
    }
}

fn declared(suite: Node<'_, '_>, key: &str) -> Result<usize, String> {
    match suite.attribute(key).map(str::trim) {
        None | Some("") => Ok(0),
        Some(text) => text.parse().map_err(|_| format!("`{key}` of a suite is `{text}`, which is no number")),
    }
}

// === impl Case ===

impl Case {
    fn of(case: Node<'_, '_>, suite: &str) -> Result<Self, String> {
        let name = case.attribute("name").filter(|name| !name.is_empty()).ok_or("a test has no name")?;
        let class = case.attribute("classname").filter(|class| !class.is_empty()).unwrap_or(suite);
        let has = |tag: &str| case.children().any(|child| child.tag_name().name() == tag);
        let is =
            |key: &str, values: &[&str]| case.attribute(key).is_some_and(|value| values.contains(&value));
        let end = if has("failure") || has("error") {
            End::Failed
        } else if has("skipped") || is("status", &["notrun"]) || is("result", &["skipped", "suppressed"]) {
            End::Skipped
        } else {
            End::Passed
        };
        Ok(Self { id: format!("{class} {name}"), end })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(report: &TestReport) -> Vec<(&str, End)> {
        report.cases.iter().map(|case| (case.id.as_str(), case.end)).collect()
    }

    #[test]
    fn reads_what_nextest_writes() {
        let text = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="3" failures="1" errors="0" uuid="1" timestamp="2026-11-27T06:00:00.123+00:00" time="0.1">
  <testsuite name="throughline::timeout" tests="3" disabled="0" errors="0" failures="1">
    <testcase name="drops" classname="throughline::timeout" timestamp="2026-11-27T06:00:00.130+00:00" time="0.012"/>
    <testcase name="waits" classname="throughline::timeout"><failure type="test failure">at 3 &lt; 4</failure></testcase>
    <testcase name="flaky" classname="throughline::timeout"><flakyFailure type="test failure"/></testcase>
  </testsuite>
</testsuites>"#;
        let report = parse(text).unwrap();
        let expected = [
            ("throughline::timeout drops", End::Passed),
            ("throughline::timeout waits", End::Failed),
            ("throughline::timeout flaky", End::Passed),
        ];
        assert_eq!(ends(&report), expected);
        assert_eq!(report.run, moment::moment("2026-11-27T06:00:00Z"));
    }

    #[test]
    fn reads_what_pytest_writes() {
        let text = "<?xml version='1.0' encoding='utf-8'?>\r\n<testsuites name=\"pytest tests\"><testsuite name=\"pytest\" \
                    errors=\"1\" failures=\"0\" skipped=\"1\" tests=\"3\" time=\"0.03\" timestamp=\"2026-11-27T06:00:00.5\" \
                    hostname=\"h\"><testcase classname=\"tests.test_a.TestB\" name=\"test_c[1]\" time=\"0\" />\
                    <testcase classname=\"tests.test_a\" name=\"test_d\"><skipped type=\"pytest.skip\" message=\"m\">x</skipped></testcase>\
                    <testcase classname=\"tests.test_a\" name=\"test_e\"><error message=\"failed on setup\">y</error></testcase>\
                    </testsuite></testsuites>";
        let expected = [
            ("tests.test_a.TestB test_c[1]", End::Passed),
            ("tests.test_a test_d", End::Skipped),
            ("tests.test_a test_e", End::Failed),
        ];
        assert_eq!(ends(&parse(text).unwrap()), expected);
    }

    #[test]
    fn takes_nested_suites_and_a_suite_alone_and_takes_the_suites_name_where_there_is_no_class() {
        let text = "<testsuite name='a' timestamp='2026-02-02'><testsuite name='b' timestamp='2026-01-01'>\
                    <testcase name='c'/></testsuite><testcase name='d' status='notrun'/></testsuite>";
        let report = parse(text).unwrap();
        assert_eq!(ends(&report), [("b c", End::Passed), ("a d", End::Skipped)]);
        assert_eq!(report.run, moment::moment("2026-01-01"));
    }

    #[test]
    fn refuses_what_is_no_report_or_not_whole() {
        for (text, why) in [
            ("", "not xml: "),
            ("<testsuites>", "not xml: "),
            ("<testsuites/><testsuites/>", "not xml: "),
            ("<testsuites/>", "it lists no test"),
            ("<html/>", "it is a `html` document"),
            ("<testsuite><testcase/></testsuite>", "a test has no name"),
            (
                "<testsuite name='a' tests='2'><testcase name='b'/></testsuite>",
                "the suite `a` says 2 tests and lists 1",
            ),
            (
                "<testsuite tests='1' failures='1'><testcase name='b'/></testsuite>",
                "the suite `without a name` says 1 failures and lists 0",
            ),
            ("<testsuite tests='-1'><testcase name='b'/></testsuite>", "`tests` of a suite is `-1`"),
            (
                "<!DOCTYPE t [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><testsuite><testcase name='&b;'/></testsuite>",
                "not xml: ",
            ),
            ("<testsuite><testcase name='&b;'/></testsuite>", "not xml: "),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }

    #[test]
    fn refuses_suites_that_are_nested_without_end() {
        for depth in [65, 100_000] {
            let text = "<testsuite>".repeat(depth) + &"</testsuite>".repeat(depth);
            assert!(parse(&text).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_program(text in "(<testsuites?|<testcase|</testsuite>|/?>| name=['\"]a['\"]| tests='[0-9]{0,22}'|<failure/>|&[a-z#0-9]*;|.){0,40}") {
            if let Ok(report) = parse(&text) {
                prop_assert!(!report.cases.is_empty());
            }
        }
    }
}
