//! The outcome, as lines for people and as JSON for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What was found of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// Of what kind the thing is: a fault, a panel, a block of a runbook.
    pub(crate) part: &'static str,
    pub(crate) what: String,
    /// What was seen, where that is worth telling.
    pub(crate) seen: String,
    /// Empty: as it must be.
    pub(crate) problems: Vec<String>,
}

/// All that was found, in the order in which it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

// === impl Report ===

impl Report {
    pub(crate) fn add(
        &mut self,
        part: &'static str,
        what: impl Into<String>,
        seen: impl Into<String>,
        problems: Vec<String>,
    ) {
        self.findings.push(Finding { part, what: what.into(), seen: seen.into(), problems });
    }

    /// How many findings there are, and how many of them with problems.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.findings.len(), self.findings.iter().filter(|finding| !finding.problems.is_empty()).count())
    }

    /// A line a finding that tells something; the others are counted, a part a line.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let mut parts: Vec<&str> = Vec::new();
        for finding in &self.findings {
            if !parts.contains(&finding.part) {
                parts.push(finding.part);
            }
        }
        for part in parts {
            let of_part: Vec<_> = self.findings.iter().filter(|finding| finding.part == part).collect();
            let good = of_part.iter().filter(|finding| finding.problems.is_empty()).count();
            line(&mut text, format_args!("{part}: {good} of {} as they must be\n", of_part.len()));
            for finding in of_part {
                let mark = if finding.problems.is_empty() { "ok" } else { "WRONG" };
                if !finding.seen.is_empty() || !finding.problems.is_empty() {
                    line(&mut text, format_args!("  {mark:<6}{:<40} {}\n", finding.what, finding.seen));
                }
                for problem in &finding.problems {
                    line(&mut text, format_args!("          {}\n", problem.replace('\n', "\n          ")));
                }
            }
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    pub(crate) fn json(&self) -> Value {
        let (checks, wrong) = self.counts();
        let findings = self.findings.iter().map(|found| {
            json!({
                "part": found.part, "what": found.what, "seen": found.seen,
                "ok": found.problems.is_empty(), "problems": found.problems,
            })
        });
        json!({ "ok": wrong == 0, "checks": checks, "wrong": wrong, "findings": findings.collect::<Vec<_>>() })
    }
}

fn line(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_is_wrong_and_counts_the_rest() {
        let mut report = Report::default();
        report.add("faults", "Redis stopped", "StoreDown", Vec::new());
        report.add("panels", "A / one", "", Vec::new());
        report.add("panels", "A / two", "", vec!["no data".to_owned()]);
        let wanted = "\
faults: 1 of 1 as they must be
  ok    Redis stopped                            StoreDown
panels: 1 of 2 as they must be
  WRONG A / two
          no data
";
        assert_eq!(report.text(), wanted);
        assert_eq!(report.counts(), (3, 1));
        let json = report.json();
        assert_eq!((&json["ok"], &json["wrong"]), (&json!(false), &json!(1)));
        assert_eq!(json["findings"][2]["problems"], json!(["no data"]));
    }
}
