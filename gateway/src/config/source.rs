//! The text of a configuration file: where an offset stands in it, and how its line is shown.
//!
//! A line is never shown with a secret in it. What has to be hidden is found in the text itself, also where
//! the file is too broken to be read.

use std::fmt::Write as _;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The keys whose values are never shown, nor those of keys that look like a slip of them.
const SECRET_KEYS: [&str; 3] = ["api_key", "bearer_tokens", "password"];
/// The most characters of a line that are shown.
const SHOWN: usize = 110;
/// How many of them stand before the place that is pointed at, in a line that is longer.
const BEFORE: usize = 40;

/// A configuration file's text.
pub(super) struct Source<'a> {
    text: &'a str,
    hidden: Vec<Range<usize>>,
}

/// A place in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// From 1.
    pub(super) line: usize,
    /// From 1, in characters.
    pub(super) column: usize,
    /// The line with a mark under the place, in two lines.
    pub(super) excerpt: String,
}

// === impl Source ===

impl<'a> Source<'a> {
    /// Wraps a text and looks for what must not be shown of it.
    pub(super) fn new(text: &'a str) -> Self {
        let mut source = Self { text, hidden: Vec::new() };
        let (table, errors) = DeTable::parse_recoverable(text);
        source.hide_secrets(table.get_ref(), false);
        if !errors.is_empty() {
            source.hide_by_words();
        }
        source
    }

    /// The text between two offsets, which is empty where there is none.
    pub(super) fn slice(&self, at: &Range<usize>) -> &'a str {
        self.text.get(at.clone()).unwrap_or_default()
    }

    /// Keeps a part of the text out of every excerpt.
    pub(super) fn hide(&mut self, at: Range<usize>) {
        self.hidden.push(at);
    }

    /// Keeps the rest of the line out of every excerpt, but for what separates a key from its value.
    pub(super) fn hide_rest_of_line(&mut self, from: usize) {
        let rest = self.text.get(from..).unwrap_or_default();
        let rest = &rest[..rest.find('\n').unwrap_or(rest.len())];
        let value = rest.trim_start_matches(|c: char| c.is_whitespace() || "=:".contains(c));
        self.hide(from + rest.len() - value.len()..from + rest.len());
    }

    /// Where `at` begins, and how its line looks.
    pub(super) fn place(&self, at: &Range<usize>) -> Place {
        let start = self.text.floor_char_boundary(at.start.min(self.text.len()));
        let before = &self.text[..start];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |length| start + length);
        let end = self.text.floor_char_boundary(at.end.clamp(start, line_end));
        let line = before.matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count();
        let marks = self.text[start..end].trim_end().chars().count().max(1);
        Place { line, column: column + 1, excerpt: self.excerpt(line, line_start..line_end, column, marks) }
    }

    fn excerpt(&self, number: usize, line: Range<usize>, column: usize, marks: usize) -> String {
        let text = self.text[line.clone()].trim_end();
        let length = text.chars().count();
        let from = if length > SHOWN { column.saturating_sub(BEFORE) } else { 0 };
        let shown = |(offset, c): (usize, char)| match c {
            _ if self.is_hidden(line.start + offset) => '*',
            c if c.is_control() => ' ',
            c => c,
        };
        let body: String = text.char_indices().skip(from).take(SHOWN).map(shown).collect();
        let (head, tail) = (if from > 0 { "…" } else { "" }, if from + SHOWN < length { "…" } else { "" });
        let indent = column - from + head.chars().count();
        let marks = marks.min(SHOWN.saturating_sub(column - from).max(1));
        let mut excerpt = format!("{number:>5} | {head}{body}{tail}");
        excerpt.truncate(excerpt.trim_end().len());
        write!(excerpt, "\n{:>5} | {:indent$}{}", "", "", "^".repeat(marks))
            .expect("a string takes any text");
        excerpt
    }

    fn is_hidden(&self, offset: usize) -> bool {
        self.hidden.iter().any(|hidden| hidden.contains(&offset))
    }

    fn hide_secrets(&mut self, table: &DeTable<'_>, below_secret: bool) {
        for (key, value) in table {
            self.hide_secret(value, below_secret || is_secret(key.get_ref()));
        }
    }

    fn hide_secret(&mut self, value: &Spanned<DeValue<'_>>, secret: bool) {
        match value.get_ref() {
            DeValue::Table(table) => self.hide_secrets(table, secret),
            DeValue::Array(values) => values.iter().for_each(|value| self.hide_secret(value, secret)),
            DeValue::String(text) if secret || may_hold_credentials(text) => self.hide(value.span()),
            _ if secret => self.hide(value.span()),
            _ => {}
        }
    }

    /// What could not be read has no keys and values, so whatever stands behind the word for a secret is
    /// hidden, and whatever looks like one.
    fn hide_by_words(&mut self) {
        let separates = |c: char| !(c.is_alphanumeric() || c == '_' || c == '-');
        let mut offset = 0;
        for piece in self.text.split_inclusive(separates) {
            let word = piece.trim_end_matches(separates);
            if is_secret(word) {
                self.hide_rest_of_line(offset + word.len());
            } else if looks_like_a_key(word) {
                self.hide(offset..offset + word.len());
            }
            offset += piece.len();
        }
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase().replace('-', "_");
    SECRET_KEYS.iter().any(|secret| strsim::osa_distance(&key, secret) <= 2)
}

/// Keys are long and mix digits or capitals in; the names that this file knows do not.
fn looks_like_a_key(word: &str) -> bool {
    word.len() >= 16 && word.contains(|c: char| c.is_ascii_digit() || c.is_ascii_uppercase())
}

fn may_hold_credentials(text: &str) -> bool {
    text.contains("://") && text.contains(['@', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excerpt(text: &str, pointed_at: &str) -> String {
        let start = text.find(pointed_at).unwrap();
        Source::new(text).place(&(start..start + pointed_at.len())).excerpt
    }

    #[test]
    fn counts_columns_in_characters() {
        let text = "a = 1\n\"é🦀\" = 2\n";
        let start = text.find('2').unwrap();
        let place = Source::new(text).place(&(start..start + 1));
        assert_eq!((place.line, place.column), (2, 8));
        assert_eq!(place.excerpt, "    2 | \"é🦀\" = 2\n      |        ^");
    }

    #[test]
    fn points_past_the_end_of_a_text_that_ends_too_early() {
        let place = Source::new("a = ").place(&(4..4));
        assert_eq!((place.line, place.column), (1, 5));
        assert_eq!(place.excerpt, "    1 | a =\n      |     ^");
        let place = Source::new("a = 1\n").place(&(6..90));
        assert_eq!((place.line, place.column, place.excerpt.as_str()), (2, 1, "    2 |\n      | ^"));
    }

    #[test]
    fn shows_tabs_and_control_characters_as_one_space_each() {
        assert_eq!(excerpt("\ta = '\u{1b}[31m'\r\n", "a"), "    1 |  a = ' [31m'\n      |  ^");
    }

    #[test]
    fn shows_the_part_of_a_long_line_that_matters() {
        let text = format!("a = \"{}here{}\"", "x".repeat(200), "y".repeat(200));
        let expected =
            format!("    1 | …{}here{}…\n      | {}^^^^", "x".repeat(40), "y".repeat(66), " ".repeat(41));
        assert_eq!(excerpt(&text, "here"), expected);
    }

    #[test]
    fn marks_no_more_than_it_shows_of_a_long_line() {
        let text = format!("a = \"{}\"", "x".repeat(200));
        let shown = excerpt(&text, &text[4..]);
        assert_eq!(shown.lines().map(|line| line.chars().count()).collect::<Vec<_>>(), [119, 118]);
    }

    #[test]
    fn hides_the_secret_and_shows_what_stands_beside_it() {
        assert_eq!(
            excerpt("main = { openai = { api_key = \"sk-live\", url = 5 } }", "5"),
            "    1 | main = { openai = { api_key = *********, url = 5 } }\n      |                                                ^"
        );
    }

    #[test]
    fn hides_everything_below_a_secret_key() {
        for text in
            ["[a.api_key]\nvalue = \"sk-live\"", "api_key = [\n1, \"sk-live\" ]", "API-KEY = '''\nsk-live'''"]
        {
            assert!(!excerpt(text, "sk-live").contains("sk-live"), "{text}");
        }
    }

    #[test]
    fn hides_secrets_in_a_file_that_is_too_broken_to_read() {
        for text in [
            "api_key = sk-live",
            "api_key sk-live",
            "api_key: sk-live",
            "api_kye = sk-live",
            "ap _key = 'sk-live-0123456789ab'",
            "base_url = 'https://h\napi=key = \"sk-live-0123456789ab\"",
            "\"api_key\" 'sk-live",
            "api_key = 'a'\napi_key = 'sk-live'",
            "# api_key = 'sk-live'\n[",
            "api_key = \"\"\"\nsk-live\nurl = 'x'",
            "a = { api_key = [ 'sk-live', }",
            "pasword = 'sk-live'\n[",
        ] {
            assert!(!excerpt(text, "sk-live").contains("sk-live"), "{text}");
        }
    }

    #[test]
    fn hides_addresses_that_may_hold_a_password() {
        assert_eq!(
            excerpt("url = \"https://me:pw@host\"\n", "url"),
            "    1 | url = ********************\n      | ^^^"
        );
        assert!(excerpt("url = \"https://host?key=pw\"\n", "url").ends_with("^^^"));
        assert!(!excerpt("url = \"https://host?key=pw\"\n", "url").contains("pw"));
    }
}
