//! Line coverage in the format of lcov (`geninfo(1)`), as `cargo llvm-cov --lcov` and coverage.py write it.

use std::collections::BTreeMap;

/// The lines of each source file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Coverage(BTreeMap<String, File>);

/// What is known of a file.
#[derive(Debug, Default, PartialEq, Eq)]
struct File {
    /// How often each line was run.
    lines: BTreeMap<u32, u64>,
    /// `LF` and `LH`, which count where no line is listed.
    totals: Option<Lines>,
}

/// How many lines were run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines {
    pub(crate) run: u64,
    pub(crate) all: u64,
}

/// A record under way.
#[derive(Default)]
struct Record {
    path: String,
    lines: BTreeMap<u32, u64>,
    found: Option<u64>,
    hit: Option<u64>,
}

/// Reads a report. A file that is listed several times, once for each test program, counts once: what any of
/// them has run is run.
///
/// # Errors
/// In words, with the line: why it is none.
pub(crate) fn parse(text: &str) -> Result<Coverage, String> {
    let mut coverage = Coverage::default();
    let mut record: Option<Record> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let wrong = |why: &str| format!("line {number}: {why}");
        let (key, value) = line.split_once(':').unwrap_or((line, ""));
        match (key, &mut record) {
            ("" | "TN", _) => {}
            (comment, _) if comment.starts_with('#') => {}
            ("SF", None) if !value.is_empty() => {
                record = Some(Record { path: value.replace('\\', "/"), ..Record::default() });
            }
            ("SF", _) => return Err(wrong("a file begins here before the last one has ended")),
            ("end_of_record", Some(_)) => coverage.add(record.take().unwrap_or_default()),
            ("DA", Some(record)) => record.line(value).ok_or_else(|| wrong("`DA` is no line and count"))?,
            ("LF", Some(record)) => {
                record.found = Some(count(value).ok_or_else(|| wrong("`LF` is no count"))?);
            }
            ("LH", Some(record)) => record.hit = Some(count(value).ok_or_else(|| wrong("`LH` is no count"))?),
            // Functions and branches.
            (key, Some(_)) if is_key(key) && line.contains(':') => {}
            _ => return Err(wrong("this is not lcov")),
        }
    }
    match record {
        Some(record) => Err(format!("it ends within the lines of `{}`", record.path)),
        None if coverage.0.is_empty() => Err("it lists no source file".to_owned()),
        None => Ok(coverage),
    }
}

fn is_key(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_uppercase())
}

fn count(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

// === impl Record ===

impl Record {
    fn line(&mut self, text: &str) -> Option<()> {
        let mut parts = text.split(',');
        let (line, times) = (parts.next()?.trim().parse().ok()?, count(parts.next()?)?);
        let total = self.lines.entry(line).or_default();
        *total = total.saturating_add(times);
        Some(())
    }
}

// === impl Coverage ===

impl Coverage {
    fn add(&mut self, record: Record) {
        let file = self.0.entry(record.path).or_default();
        for (line, times) in record.lines {
            let total = file.lines.entry(line).or_default();
            *total = total.saturating_add(times);
        }
        if let (Some(all), Some(hit)) = (record.found, record.hit) {
            let totals = Lines { run: hit.min(all), all };
            file.totals =
                Some(file.totals.map_or(totals, |known| if known.run > totals.run { known } else { totals }));
        }
    }

    /// Adds what another report says.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (path, file) in &other.0 {
            let totals = file.totals;
            let record = Record {
                path: path.clone(),
                lines: file.lines.clone(),
                found: totals.map(|lines| lines.all),
                hit: totals.map(|lines| lines.run),
            };
            self.add(record);
        }
    }

    /// The files of `source`, a file or a folder as seen from the root of the project, with their lines. Reports
    /// name files from the root of the machine that wrote them, so that the end of a path decides.
    pub(crate) fn of<'a>(&'a self, source: &'a str) -> impl Iterator<Item = (&'a str, Lines)> {
        let source = source.trim_start_matches("./").trim_end_matches('/');
        let files = self.0.iter().filter(move |(path, _)| is_within(path, source));
        files.map(|(path, file)| (path.as_str(), file.count()))
    }
}

/// Whether `path` has the parts of `source` in a row: at its end, or with more below a folder.
fn is_within(path: &str, source: &str) -> bool {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let wanted: Vec<&str> = source.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    wanted.is_empty() || parts.windows(wanted.len()).any(|window| window == wanted)
}

// === impl File ===

impl File {
    fn count(&self) -> Lines {
        if self.lines.is_empty() {
            return self.totals.unwrap_or_default();
        }
        let run = self.lines.values().filter(|times| **times > 0).count();
        Lines { run: run as u64, all: self.lines.len() as u64 }
    }
}

// === impl Lines ===

impl Lines {
    /// The sum of both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { run: self.run.saturating_add(other.run), all: self.all.saturating_add(other.all) }
    }

    /// The share of lines that were run, unless there are none.
    #[expect(clippy::cast_precision_loss, reason = "no project has 2^53 lines")]
    pub(crate) fn ratio(self) -> Option<f64> {
        (self.all > 0).then(|| self.run as f64 / self.all as f64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(coverage: &Coverage, source: &str) -> Lines {
        coverage.of(source).fold(Lines::default(), |sum, (_, lines)| sum.and(lines))
    }

    #[test]
    fn counts_a_file_that_several_programs_have_run_once() {
        let text = "TN:\nSF:/w/src/a.rs\nFN:1,f\nFNDA:1,f\nDA:1,1\nDA:2,0\nDA:3,0,abc\nLF:3\nLH:1\nend_of_record\n\
                    SF:/w/src/a.rs\nDA:1,0\nDA:2,5\nBRDA:1,0,0,-\nLF:2\nLH:1\nend_of_record\n";
        let coverage = parse(text).unwrap();
        assert_eq!(of(&coverage, "src/a.rs"), Lines { run: 2, all: 3 });
        assert_eq!(parse(&text.replace('\n', "\r\n")).unwrap(), coverage);
    }

    #[test]
    fn takes_totals_where_no_line_is_listed() {
        let coverage = parse("SF:a.rs\nLF:10\nLH:7\nend_of_record\n").unwrap();
        assert_eq!(of(&coverage, "").ratio(), Some(0.7));
        let more_than_all = parse("SF:a.rs\nLF:10\nLH:12\nend_of_record\n").unwrap();
        assert_eq!(of(&more_than_all, "").ratio(), Some(1.0));
    }

    #[test]
    fn finds_files_and_folders_by_whole_parts_of_their_paths() {
        let text = [
            "/w/throughline/src/timeout.rs",
            "throughline/src/timeout/config.rs",
            "C:\\w\\throughline\\src\\my_timeout.rs",
        ]
        .map(|path| format!("SF:{path}\nDA:1,1\nend_of_record\n"))
        .concat();
        let coverage = parse(&text).unwrap();
        for (source, files) in [
            ("throughline/src/timeout.rs", 1),
            ("throughline/src/timeout/", 1),
            ("./throughline/src", 3),
            ("src/my_timeout.rs", 1),
            ("timeout", 1),
            ("", 3),
            ("llm/src", 0),
        ] {
            assert_eq!(coverage.of(source).count(), files, "{source}");
        }
    }

    #[test]
    fn merges_reports() {
        let mut first = parse("SF:a.rs\nDA:1,0\nend_of_record\n").unwrap();
        first
            .merge(&parse("SF:a.rs\nDA:1,1\nDA:2,0\nend_of_record\nSF:b.rs\nDA:1,1\nend_of_record").unwrap());
        assert_eq!(of(&first, ""), Lines { run: 2, all: 3 });
    }

    #[test]
    fn refuses_what_is_no_report_or_not_whole() {
        for (text, why) in [
            ("", "it lists no source file"),
            ("{}", "line 1: this is not lcov"),
            ("DA:1,1\n", "line 1: this is not lcov"),
            ("SF:a\nDA:1,1\n", "it ends within the lines of `a`"),
            ("SF:a\nSF:b\n", "line 2: a file begins here before the last one has ended"),
            ("SF:a\nDA:1\n", "line 2: `DA` is no line and count"),
            ("SF:a\nDA:x,1\n", "line 2: `DA` is no line and count"),
            ("SF:a\nLF:-1\n", "line 2: `LF` is no count"),
            ("SF:a\n<html>\n", "line 2: this is not lcov"),
        ] {
            assert_eq!(parse(text).unwrap_err(), why, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_program(text in "((SF|DA|LF|LH|TN|BRDA|end_of_record):?[0-9a-z,/-]{0,24}\n|.{0,9}\n){0,20}") {
            if let Ok(coverage) = parse(&text) {
                let lines = of(&coverage, "");
                prop_assert!(lines.run <= lines.all);
            }
        }
    }
}
