//! What `throughline cache learn` says.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use throughline_llm::semantic::learn::{Refused, Row};

use super::pairs::{Examples, Labels};

/// What was learned, and of what.
#[derive(Serialize)]
pub(super) struct Learned {
    examples: String,
    /// `pairs` or `questions`.
    kind: &'static str,
    count: usize,
    embedder: String,
    max_error: f64,
    confidence: f64,
    rows: Vec<Shown>,
    chosen: Option<Shown>,
    /// The line of configuration.
    config: Option<String>,
    refused: Option<String>,
    /// What embedding a prompt took, in microseconds.
    embedding_us: f64,
    /// What looking for a question took, in microseconds; none for pairs.
    searching_us: Option<f64>,
    /// What embedding has cost, in USD, where that is known.
    cost_usd: Option<f64>,
}

#[derive(Clone, Serialize)]
struct Shown {
    threshold: f64,
    served: u64,
    wrong: u64,
    hit_rate: f64,
    error_rate: Option<f64>,
    bound: f64,
}

/// What learning took.
pub(super) struct Cost {
    pub(super) embedding: Duration,
    pub(super) searching: Duration,
    pub(super) usd: Option<f64>,
}

/// Every so many thresholds one is shown to people.
const SHOWN: usize = 4;

// === impl Learned ===

impl Learned {
    pub(super) fn new(
        name: String,
        examples: &Examples,
        (embedder, section): (&str, &str),
        (max_error, confidence): (f64, f64),
        rows: Vec<Row>,
        chosen: Result<Row, Refused>,
        cost: &Cost,
    ) -> Self {
        let count = examples.len();
        let each = |time: Duration, of: usize| time.as_secs_f64() * 1e6 / of.max(1) as f64;
        let config = chosen.ok().map(|row| {
            format!(
                "semantic = {{ mode = \"shadow\", threshold = {:.3}, max_error = {max_error}, learned = {}{section} }}",
                row.threshold,
                quoted(embedder)
            )
        });
        let refused = chosen.err().map(|why| in_words(why, max_error, confidence));
        let (kind, searching_us) = match examples.labels {
            Labels::Pairs(_) => ("pairs", None),
            Labels::Questions(_) => ("questions", Some(each(cost.searching, count))),
        };
        Self {
            examples: name,
            kind,
            count,
            embedder: embedder.to_owned(),
            max_error,
            confidence,
            rows: rows.into_iter().map(Shown::of).collect(),
            chosen: chosen.ok().map(Shown::of),
            config,
            refused,
            embedding_us: each(cost.embedding, examples.prompts.len()),
            searching_us,
            cost_usd: cost.usd,
        }
    }

    /// Why there is no threshold.
    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("texts and numbers serialise") + "\n"
    }

    fn is_chosen(&self, row: &Shown) -> bool {
        self.chosen.as_ref().is_some_and(|chosen| (chosen.threshold - row.threshold).abs() < 1e-9)
    }
}

/// A text as configurations have it, which is as JSON does.
pub(super) fn quoted(text: &str) -> serde_json::Value {
    serde_json::Value::from(text)
}

fn in_words(why: Refused, max_error: f64, confidence: f64) -> String {
    let (most, sure) = (percent(max_error), percent(confidence));
    match why {
        Refused::TooFew { served, needed } => format!(
            "at most {served} of the examples would get an answer: to show {most} errors with {sure} confidence takes {needed} \
             without any error; label more, or ask for a looser --max-error"
        ),
        _ => format!(
            "no threshold keeps errors at most {most} with {sure} confidence: label more examples, ask for a looser --max-error, or \
             try another embedder"
        ),
    }
}

/// A share as people write it.
fn percent(share: f64) -> String {
    let text = format!("{:.2}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {} {}, embedder {}", self.examples, self.count, self.kind, self.embedder)?;
        write!(f, "embedding took {:.0} us a prompt", self.embedding_us)?;
        if let Some(search) = self.searching_us {
            write!(f, ", looking through {} questions on average {search:.0} us", self.count / 2)?;
        }
        match self.cost_usd {
            Some(usd) if usd > 0.0 => writeln!(f, "; it has cost ${usd:.6}")?,
            Some(_) => writeln!(f)?,
            None => writeln!(f, "; what it has cost is not known")?,
        }
        let sure = percent(self.confidence);
        writeln!(f, "\nthreshold  answered   wrong    error    at most ({sure} confidence)")?;
        for (at, row) in self.rows.iter().enumerate().filter(|(_, row)| row.served > 0) {
            let chosen = self.is_chosen(row);
            if at % SHOWN == 0 || chosen {
                row.write(f, chosen)?;
            }
        }
        if let (Some(config), Some(chosen)) = (&self.config, &self.chosen) {
            let (answered, most) = (percent(chosen.hit_rate), percent(self.max_error));
            writeln!(
                f,
                "\nfrom {:.3} on, {answered} would have got an answer, at most {most} of these a wrong one. In the model's cache:\n  {config}\n\
                 Let the shadow run on your own traffic before you write \"answer\".",
                chosen.threshold
            )?;
        }
        Ok(())
    }
}

// === impl Shown ===

impl Shown {
    fn of(row: Row) -> Self {
        Self {
            threshold: row.threshold,
            served: row.served,
            wrong: row.wrong,
            hit_rate: row.hit_rate,
            error_rate: (row.served > 0).then(|| row.wrong as f64 / row.served as f64),
            bound: row.bound,
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, chosen: bool) -> fmt::Result {
        writeln!(
            f,
            "{:>9.3} {:>9} {:>7} {:>8} {:>10}{}",
            self.threshold,
            percent(self.hit_rate),
            self.wrong,
            self.error_rate.map_or_else(|| "-".to_owned(), percent),
            percent(self.bound),
            if chosen { "   <- loosest that is shown" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_short() {
        assert_eq!(
            [percent(0.02), percent(0.0123), percent(1.0), percent(0.0)],
            ["2%", "1.23%", "100%", "0%"]
        );
    }

    #[test]
    fn a_refusal_says_what_it_would_take() {
        let said = in_words(Refused::TooFew { served: 12, needed: 299 }, 0.01, 0.95);
        assert!(
            said.starts_with("at most 12 of the examples would get an answer: to show 1% errors"),
            "{said}"
        );
    }
}
