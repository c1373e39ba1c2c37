//! Test reports in JUnit's XML, made of what cargo's test programs print.
//!
//! libtest has no stable report of its own. Its lines are read as they pass by, and each program's summary must
//! agree with them: a program that crashed, or a line that was not understood, becomes a test that failed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Passed,
    Failed,
    Skipped,
}

/// A test and how it ended.
type Case = (String, End);

/// Suites of tests, in their order.
#[derive(Debug, Default)]
pub(crate) struct Report {
    suites: Vec<(String, Vec<Case>)>,
    /// Whether the last suite has told its sums.
    summed_up: bool,
    /// The names of test programs by their files.
    programs: BTreeMap<String, String>,
}

// === impl Report ===

impl Report {
    /// Begins with the names that suites get, by the files of the test programs.
    pub(crate) fn new(programs: BTreeMap<String, String>) -> Self {
        Self { programs, summed_up: true, ..Self::default() }
    }

    /// Adds a suite that is known already.
    pub(crate) fn suite(&mut self, name: &str, cases: impl IntoIterator<Item = Case>) {
        self.suites.push((name.to_owned(), cases.into_iter().collect()));
    }

    /// Reads a line of `cargo test`.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim_end();
        let words = line.trim_start();
        if let Some(program) = words.strip_prefix("Running ").and_then(|rest| rest.rsplit_once('(')) {
            let file = program.1.trim_end_matches(')');
            self.begin(self.programs.get(file).cloned().unwrap_or_else(|| file.to_owned()));
        } else if let Some(package) = words.strip_prefix("Doc-tests ") {
            self.begin(format!("{package}::doc"));
        } else if let Some(sums) = line.strip_prefix("test result: ") {
            self.sum_up(sums);
        } else if let Some((name, end)) = line.strip_prefix("test ").and_then(case) {
            self.case(name, end);
        }
    }

    /// The whole report, with the moment that it began.
    pub(crate) fn finish(mut self, began: &str) -> String {
        self.close();
        let sum =
            |end: Option<End>| -> usize { self.suites.iter().map(|(_, cases)| count(cases, end)).sum() };
        let mut out = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{}\" failures=\"{}\" timestamp=\"{began}\">\n",
            sum(None),
            sum(Some(End::Failed))
        );
        for (name, cases) in &self.suites {
            let written = suite(&mut out, name, cases, began);
            written.expect("a string takes any text");
        }
        out + "</testsuites>\n"
    }

    fn begin(&mut self, name: String) {
        self.close();
        self.suites.push((name, Vec::new()));
        self.summed_up = false;
    }

    fn case(&mut self, name: &str, end: End) {
        if let Some((_, cases)) = self.suites.last_mut() {
            cases.push((name.to_owned(), end));
        }
    }

    /// What a program says at its end must be what was read.
    fn sum_up(&mut self, sums: &str) {
        let said = |what: &str| -> usize {
            let number = sums.split([';', '.']).find_map(|part| part.trim().strip_suffix(what));
            number.and_then(|number| number.trim().parse().ok()).unwrap_or_default()
        };
        let cases = self.suites.last().map(|(_, cases)| cases.as_slice()).unwrap_or_default();
        for (what, end) in [("passed", End::Passed), ("failed", End::Failed), ("ignored", End::Skipped)] {
            let (said, read) = (said(what), count(cases, Some(end)));
            if said != read {
                self.case(&format!("said {said} {what} and listed {read}"), End::Failed);
                break;
            }
        }
        self.summed_up = true;
    }

    fn close(&mut self) {
        if !std::mem::replace(&mut self.summed_up, true) {
            self.case("ended without a summary", End::Failed);
        }
    }
}

fn count(cases: &[Case], end: Option<End>) -> usize {
    cases.iter().filter(|(_, ended)| end.is_none_or(|end| end == *ended)).count()
}

/// `NAME ... ok`, with a reason behind it when it was ignored.
fn case(line: &str) -> Option<(&str, End)> {
    let (name, end) = line.rsplit_once(" ... ")?;
    let end = match end.split([',', ' ']).next() {
        Some("ok") => End::Passed,
        Some("FAILED") => End::Failed,
        Some("ignored") => End::Skipped,
        _ => return None,
    };
    Some((name, end))
}

fn suite(out: &mut String, name: &str, cases: &[Case], began: &str) -> std::fmt::Result {
    let (name, failures) = (escaped(name), count(cases, Some(End::Failed)));
    writeln!(
        out,
        "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\" timestamp=\"{began}\">",
        cases.len()
    )?;
    for (case, end) in cases {
        write!(out, "    <testcase classname=\"{name}\" name=\"{}\"", escaped(case))?;
        match end {
            End::Passed => writeln!(out, "/>")?,
            End::Failed => writeln!(out, "><failure/></testcase>")?,
            End::Skipped => writeln!(out, "><skipped/></testcase>")?,
        }
    }
    writeln!(out, "  </testsuite>")
}

/// XML takes no control characters, however they are written.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let programs = BTreeMap::from([("target/debug/deps/a-1".to_owned(), "p::a".to_owned())]);
        let mut report = Report::new(programs);
        text.lines().for_each(|line| report.line(line));
        report.finish("2026-11-27T06:00:00Z")
    }

    const GOOD: &str = "\
   Compiling p v0.1.0
     Running tests/a.rs (target/debug/deps/a-1)

running 4 tests
test x::waits ... ok
test x::\"<odd> ... ok
test y ... FAILED
test z ... ignored, run by cargo xtask test

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s

   Doc-tests p
test src/lib.rs - f (line 3) - compile ... ok
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn reads_what_cargo_test_prints() {
        let expected = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="5" failures="1" timestamp="2026-11-27T06:00:00Z">
  <testsuite name="p::a" tests="4" failures="1" timestamp="2026-11-27T06:00:00Z">
    <testcase classname="p::a" name="x::waits"/>
    <testcase classname="p::a" name="x::&quot;&lt;odd&gt;"/>
    <testcase classname="p::a" name="y"><failure/></testcase>
    <testcase classname="p::a" name="z"><skipped/></testcase>
  </testsuite>
  <testsuite name="p::doc" tests="1" failures="0" timestamp="2026-11-27T06:00:00Z">
    <testcase classname="p::doc" name="src/lib.rs - f (line 3) - compile"/>
  </testsuite>
</testsuites>
"#;
        assert_eq!(written(GOOD), expected);
    }

    #[test]
    fn a_program_that_does_not_say_its_sums_has_failed() {
        let crashed = written("     Running tests/a.rs (target/debug/deps/a-1)\ntest x ... ok\n");
        assert!(crashed.contains("name=\"ended without a summary\"><failure/>"), "{crashed}");
        let then_another = written(
            "  Running tests/a.rs (target/debug/deps/a-1)\n  Running tests/b.rs (target/debug/deps/b-2)\n\
             test result: ok. 0 passed; 0 failed; 0 ignored;",
        );
        assert!(
            then_another.contains("name=\"target/debug/deps/b-2\" tests=\"0\" failures=\"0\""),
            "{then_another}"
        );
        assert!(then_another.contains("failures=\"1\""), "{then_another}");
    }

    #[test]
    fn sums_that_do_not_agree_have_failed() {
        let missed = written(&GOOD.replace("test x::waits ... ok\n", ""));
        assert!(missed.contains("name=\"said 2 passed and listed 1\"><failure/>"), "{missed}");
    }
}
