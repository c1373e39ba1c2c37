//! What is wrong with a configuration file, and what was probably meant.

use std::fmt;
use std::ops::Range;

use super::source::{Place, Source};

/// All that is wrong with a configuration file, in the order of its lines.
///
/// Shown as one paragraph per problem: `file:line:column: message`, then the line with a mark under the place.
#[derive(Debug)]
pub(crate) struct ConfigErrors {
    name: String,
    problems: Vec<(Option<Place>, String)>,
}

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Problem {
    /// Byte offsets in the text, where there is a place to point at.
    pub(super) at: Option<Range<usize>>,
    /// What was found, what is allowed and what to do, in lower case.
    pub(super) message: String,
}

/// Says that a name is not one of those that exist, and which one was probably meant.
pub(crate) fn unknown<'a>(
    kind: &str,
    found: &str,
    label: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let hint = nearest(found, &known).map(|name| format!(", did you mean `{name}`?")).unwrap_or_default();
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    format!("unknown {kind} `{found}`{hint} ({label}: {list})")
}

pub(crate) fn nearest<'a>(found: &str, known: &[&'a str]) -> Option<&'a str> {
    let found = found.to_lowercase();
    let distance = |name: &str| strsim::osa_distance(&found, &name.to_lowercase());
    let near = |name: &&str| distance(name) <= (name.chars().count() / 3).max(1);
    known.iter().copied().filter(near).min_by_key(|name| distance(name))
}

// === impl ConfigErrors ===

impl ConfigErrors {
    /// Finds the places of all problems in the text.
    pub(super) fn new(name: &str, source: &Source<'_>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at.as_ref().map(|at| at.start));
        let problems = problems
            .into_iter()
            .map(|problem| (problem.at.map(|at| source.place(&at)), printable(&problem.message)))
            .collect();
        Self { name: printable(name), problems }
    }

    /// A file that could not be read at all.
    pub(super) fn unreadable(name: &str, why: &str) -> Self {
        Self {
            name: printable(name),
            problems: vec![(None, format!("cannot read the configuration: {why}"))],
        }
    }
}

/// File names and keys come from outside and may hold what a terminal would act on.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (place, message)) in self.problems.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            match place {
                Some(Place { line, column, excerpt }) => {
                    write!(f, "{}:{line}:{column}: {message}\n{excerpt}", self.name)?;
                }
                None => write!(f, "{}: {message}", self.name)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_nearest_of_the_known_names() {
        assert_eq!(
            unknown("provider", "opnai", "configured", ["openai", "sim"]),
            "unknown provider `opnai`, did you mean `openai`? (configured: openai, sim)"
        );
        assert_eq!(
            unknown("route", "Premum", "routes", ["cheap", "premium"]),
            "unknown route `Premum`, did you mean `premium`? (routes: cheap, premium)"
        );
    }

    #[test]
    fn guesses_nothing_when_no_name_is_near() {
        assert_eq!(unknown("route", "zzz", "routes", ["cheap"]), "unknown route `zzz` (routes: cheap)");
        assert_eq!(unknown("provider", "sim", "configured", []), "unknown provider `sim` (configured: none)");
    }

    #[test]
    fn lists_problems_in_the_order_of_the_file_and_those_without_a_place_first() {
        let source = Source::new("a = 1\nb = 2");
        let problem = |at: Option<Range<usize>>, message: &str| Problem { at, message: message.into() };
        let problems =
            vec![problem(Some(6..7), "second"), problem(Some(0..1), "first"), problem(None, "nowhere")];
        assert_eq!(
            ConfigErrors::new("t.toml", &source, problems).to_string(),
            "t.toml: nowhere\nt.toml:1:1: first\n    1 | a = 1\n      | ^\nt.toml:2:1: second\n    2 | b = 2\n      | ^"
        );
    }

    #[test]
    fn passes_no_control_characters_on_to_the_terminal() {
        let problems = vec![Problem { at: None, message: "bad \u{1b}[31m".into() }];
        assert_eq!(
            ConfigErrors::new("a\nb", &Source::new(""), problems).to_string(),
            "a\\nb: bad \\u{1b}[31m"
        );
    }
}
