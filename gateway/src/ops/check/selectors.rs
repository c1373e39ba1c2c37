//! Which series a query reads.
//!
//! No parser: of a query that Prometheus takes (tests see to that) only the names of series are looked for, and whether they
//! are those of the job.

use std::collections::BTreeSet;

/// A name of series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector {
    pub(super) name: String,
    /// Whether it asks for the series of a job.
    pub(super) of_job: bool,
}

/// What is a name only where no list of labels follows a keyword.
const KEYWORDS: [&str; 11] =
    ["and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"];

/// Before a list of labels in round brackets.
const BEFORE_LABELS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];

/// The selectors of a query, with Grafana's variables in it or without.
pub(super) fn selectors(query: &str) -> BTreeSet<Selector> {
    let mut found = BTreeSet::new();
    let mut rest = query;
    while let Some(c) = rest.chars().next() {
        match c {
            '"' | '\'' | '`' => rest = after(&rest[1..], c),
            '[' => rest = after(rest, ']'),
            '{' => rest = after(rest, '}'),
            c if c.is_ascii_alphabetic() || c == '_' || c == ':' => rest = word(rest, &mut found),
            // A number, a duration or a variable: what follows its first character is no name.
            c if c.is_ascii_digit() || c == '$' => rest = rest.trim_start_matches(in_word_or_number),
            c => rest = &rest[c.len_utf8()..],
        }
    }
    found
}

/// Reads a word, and what belongs to it.
fn word<'a>(text: &'a str, found: &mut BTreeSet<Selector>) -> &'a str {
    let end = text.find(|c: char| !in_word(c)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let next = rest.trim_start();
    if BEFORE_LABELS.contains(&word) {
        return if next.starts_with('(') { after(next, ')') } else { rest };
    }
    // A function or an aggregation, also in `sum by (..) (..)`.
    let called = next.starts_with('(') || ["by", "without"].iter().any(|keyword| starts_with(next, keyword));
    if KEYWORDS.contains(&word) || called || word.eq_ignore_ascii_case("inf") || word == "NaN" {
        return rest;
    }
    let matchers =
        next.strip_prefix('{').map_or("", |matchers| &next[..next.len() - after(matchers, '}').len()]);
    let of_job = matchers.contains("job=");
    found.insert(Selector { name: word.to_owned(), of_job });
    rest
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn in_word_or_number(c: char) -> bool {
    in_word(c) || matches!(c, '.' | '$')
}

fn starts_with(text: &str, keyword: &str) -> bool {
    text.strip_prefix(keyword).is_some_and(|rest| !rest.starts_with(in_word))
}

/// What comes after the next `end` outside of quotes; nothing where there is none.
fn after(text: &str, end: char) -> &str {
    let mut quoted = None;
    for (at, c) in text.char_indices() {
        match quoted {
            Some(quote) if c == quote => quoted = None,
            Some(_) => {}
            None if c == end => return &text[at + c.len_utf8()..],
            None if matches!(c, '"' | '\'') => quoted = Some(c),
            None => {}
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(query: &str) -> Vec<(String, bool)> {
        selectors(query).into_iter().map(|selector| (selector.name, selector.of_job)).collect()
    }

    fn expect(query: &str, expected: &[(&str, bool)]) {
        let expected: Vec<_> = expected.iter().map(|(name, of_job)| ((*name).to_owned(), *of_job)).collect();
        assert_eq!(names(query), expected, "{query}");
    }

    #[test]
    fn finds_names_and_whose_they_are() {
        expect("up{job=\"a\"} == 0", &[("up", true)]);
        expect("count by (job) (up)", &[("up", false)]);
        expect(
            "sum by (job, le) (rate(x_bucket{job=\"a\", route=~\"/v1/.+\"}[5m])) / on (job) group_left (le) y > 0",
            &[("x_bucket", true), ("y", false)],
        );
        expect("job:a:rate5m{job=\"a\"} offset 1w and on (job) b", &[("b", false), ("job:a:rate5m", true)]);
        expect("sum_over_time(x{job=~\"$job\"}[30d:1h]) or 0 * vector(1)", &[("x", true)]);
        expect(
            "histogram_quantile(0.99, rate(x_bucket[$__rate_interval])) > 1e9 + Inf",
            &[("x_bucket", false)],
        );
    }

    #[test]
    fn what_stands_in_quotes_and_lists_is_no_name() {
        expect("label_replace(x{a=\"} or y\"}, \"b\", \"$1\", \"c\", \"(.*)\")", &[("x", false)]);
        expect("max without (instance, up) (x) unless ignoring (le) z", &[("x", false), ("z", false)]);
        expect("topk(5, sum(x) by (up))", &[("x", false)]);
        expect("time() - start > bool 3600", &[("start", false)]);
    }
}
