//! The outcome, as a table for people and as JSON for scripts.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// What was found in one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    /// A case, or what was asked beside the cases.
    pub(crate) row: &'static str,
    /// A backend, and the protocol by which it got the spans.
    pub(crate) column: String,
    /// Of one request.
    pub(crate) trace_id: Option<String>,
    /// Empty: as it must be.
    pub(crate) faults: Vec<String>,
}

/// All that was found, in the order in which it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

// === impl Report ===

impl Report {
    /// How many findings there are, and how many of them with faults.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let faulty = self.findings.iter().filter(|finding| !finding.faults.is_empty()).count();
        (self.findings.len(), faulty)
    }

    /// A row a case, a column a backend, then what is wrong, and where.
    pub(crate) fn table(&self) -> String {
        let columns = distinct(self.findings.iter().map(|finding| finding.column.as_str()));
        let rows = distinct(self.findings.iter().map(|finding| finding.row));
        let mut text = format!("{:<20}", "");
        columns.iter().for_each(|column| line(&mut text, format_args!("{column:<24}")));
        text.push('\n');
        for row in rows {
            line(&mut text, format_args!("{row:<20}"));
            for column in &columns {
                let found = self.findings.iter().find(|found| found.row == row && found.column == *column);
                let cell = match found {
                    None => "-".to_owned(),
                    Some(found) if found.faults.is_empty() => "ok".to_owned(),
                    Some(found) => format!("{} DIFFER", found.faults.len()),
                };
                line(&mut text, format_args!("{cell:<24}"));
            }
            text.push('\n');
        }
        for fault in distinct(self.findings.iter().flat_map(|found| &found.faults).map(String::as_str)) {
            line(&mut text, format_args!("\n{}\n", fault.trim_end()));
            for found in self.findings.iter().filter(|found| found.faults.iter().any(|known| known == fault))
            {
                line(&mut text, format_args!("    {}, {}\n", found.row, found.column));
            }
        }
        text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    pub(crate) fn json(&self) -> Value {
        let (checks, faulty) = self.counts();
        let findings = self.findings.iter().map(|found| {
            json!({
                "case": found.row, "backend": found.column, "trace_id": found.trace_id,
                "ok": found.faults.is_empty(), "faults": found.faults,
            })
        });
        json!({ "ok": faulty == 0, "checks": checks, "differ": faulty, "findings": findings.collect::<Vec<_>>() })
    }
}

fn line(text: &mut String, part: std::fmt::Arguments<'_>) {
    text.write_fmt(part).expect("writing to a string cannot fail");
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    names.fold(Vec::new(), |mut known, name| {
        if !known.contains(&name) {
            known.push(name);
        }
        known
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(row: &'static str, column: &str, faults: &[&str]) -> Finding {
        let faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
        Finding { row, column: column.to_owned(), trace_id: None, faults }
    }

    #[test]
    fn shows_a_row_a_case_and_then_what_differs() {
        let findings = vec![
            found("miss", "one", &[]),
            found("miss", "other", &["`POST` lacks url.full"]),
            found("hit", "one", &["`POST` lacks url.full"]),
        ];
        let report = Report { findings };
        let table = report.table();
        let lines: Vec<_> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(
            lines,
            [
                "one other",
                "miss ok 1 DIFFER",
                "hit 1 DIFFER -",
                "",
                "`POST` lacks url.full",
                "miss, other",
                "hit, one"
            ]
        );
        assert_eq!(report.counts(), (3, 2));
        let json = report.json();
        assert_eq!((&json["ok"], &json["differ"]), (&json!(false), &json!(2)));
        assert_eq!(json["findings"][1]["faults"], json!(["`POST` lacks url.full"]));
    }
}
