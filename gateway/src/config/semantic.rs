//! `cache.semantic = { mode, threshold, … }`: whether a question may have the answer to another one that asks the same.

use std::time::Duration;

use serde::Deserialize;
use throughline_llm::semantic::{Embedder, Mode, SemanticConfig};
use toml::{Spanned, Value};

use super::check::Check;
use super::error::unknown;
use super::table::Table;
use super::timeout::TimeLimit;

/// How similar questions are found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Semantic {
    /// Whether it answers. Default: it only compares.
    pub(crate) mode: Mode,
    /// What counts as similar enough, above 0 and at most 1. Default: 0.9, in shadow mode.
    pub(crate) threshold: f64,
    /// The share of wrong answers that the threshold was learned for, above 0 and at most 1. Default: not stated, and then it
    /// does not answer.
    pub(crate) max_error: Option<f64>,
    /// The share of the given answers that are compared with the provider's, 0 to 1. Default: 0.01.
    pub(crate) audit: f64,
    /// What says how similar questions are. Default: the built-in one.
    pub(crate) embedder: EmbedderOf,
    /// How many questions are known at most. Default: 10,000.
    pub(crate) max_entries: usize,
    /// How much memory they may take, in bytes. Default: 64 MiB.
    pub(crate) max_bytes: usize,
    /// The longest question that is looked for, in characters. Default: 500.
    pub(crate) max_prompt_chars: usize,
}

/// What says how similar questions are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum EmbedderOf {
    /// The built-in one.
    Ngrams,
    /// A model of a provider, which exists and has embeddings.
    Provider {
        /// The provider's name.
        provider: String,
        /// The model, as the provider knows it.
        model: String,
        /// How long it may take. Above zero. Default: 250 ms.
        deadline: Duration,
    },
}

/// What counts as similar enough in a shadow that nobody has given a threshold.
const UNLEARNED: f64 = 0.9;
const DEADLINE: Duration = Duration::from_millis(250);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct SemanticFile {
    mode: Option<Spanned<String>>,
    threshold: Option<Spanned<f64>>,
    max_error: Option<Spanned<f64>>,
    learned: Option<Spanned<String>>,
    audit: Option<Spanned<f64>>,
    embedder: Option<Table<EmbedderFile>>,
    max_entries: Option<Spanned<i64>>,
    max_bytes: Option<Spanned<Value>>,
    max_prompt_chars: Option<Spanned<i64>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct EmbedderFile {
    provider: Spanned<String>,
    model: Spanned<String>,
    deadline: Option<Spanned<Value>>,
}

// === impl EmbedderOf ===

impl EmbedderOf {
    /// What thresholds are learned for.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Ngrams => Embedder::ngrams().name().to_owned(),
            // Whose model it is does not change what it says; the model does.
            Self::Provider { model, .. } => model.clone(),
        }
    }
}

// === impl SemanticFile ===

impl SemanticFile {
    /// Checks the section of a model with this `timeout`. `embedders`: the providers that can have embeddings.
    pub(super) fn check(
        &self,
        check: &mut Check<'_>,
        embedders: &[String],
        timeout: Option<&TimeLimit>,
    ) -> Semantic {
        let mode = self.mode(check);
        let mut number = |key: &str, written: &Option<Spanned<f64>>, such_as: &str, default| {
            let wanted = format!("a number above 0 and at most 1, such as {such_as}");
            check.number(key, written.as_ref(), 1e-6..=1.0, &wanted, default)
        };
        let threshold = number("threshold", &self.threshold, "0.9", UNLEARNED);
        let max_error = number("max_error", &self.max_error, "0.02", 1.0);
        let wanted = "a number from 0 to 1, such as 0.01";
        let audit = check.number("audit", self.audit.as_ref(), 0.0..=1.0, wanted, SemanticConfig::AUDIT);
        let embedder = self
            .embedder
            .as_ref()
            .map_or(EmbedderOf::Ngrams, |Table(written)| written.check(check, embedders));
        self.check_evidence(&embedder, check);
        if let (Some(Table(written)), Some(timeout), Mode::Answer) = (&self.embedder, timeout, mode) {
            written.check_deadline(&embedder, timeout.limit, check);
        }
        Semantic {
            mode,
            threshold,
            max_error: self.max_error.is_some().then_some(max_error),
            audit,
            embedder,
            max_entries: check.whole(
                "max_entries",
                self.max_entries.as_ref(),
                1..=1_000_000,
                SemanticConfig::MOST_ENTRIES,
            ),
            max_bytes: check.size("max_bytes", self.max_bytes.as_ref(), SemanticConfig::MOST_BYTES),
            max_prompt_chars: check.whole(
                "max_prompt_chars",
                self.max_prompt_chars.as_ref(),
                1..=10_000,
                SemanticConfig::LONGEST_PROMPT,
            ),
        }
    }

    /// Whoever answers says at which threshold, how often it is wrong at most, and of what that was learned.
    fn mode(&self, check: &mut Check<'_>) -> Mode {
        let Some(written) = &self.mode else { return Mode::Shadow };
        match written.get_ref().as_str() {
            "shadow" => Mode::Shadow,
            "answer" => {
                let missing: Vec<_> = [
                    ("threshold", self.threshold.is_none()),
                    ("max_error", self.max_error.is_none()),
                    ("learned", self.learned.is_none()),
                ]
                .into_iter()
                .filter_map(|(key, missing)| missing.then_some(format!("`{key}`")))
                .collect();
                if !missing.is_empty() {
                    let problem = format!(
                        "`mode` is `answer` without {}: learn them from labelled pairs with `throughline cache learn`, or write \
                         \"shadow\"",
                        missing.join(", ")
                    );
                    check.refuse(written.span(), problem);
                }
                Mode::Answer
            }
            other => {
                check.refuse(written.span(), unknown("mode", other, "allowed", ["shadow", "answer"]));
                Mode::Shadow
            }
        }
    }

    /// A threshold of one embedder says nothing of another.
    fn check_evidence(&self, embedder: &EmbedderOf, check: &mut Check<'_>) {
        let (Some(learned), name) = (&self.learned, embedder.name()) else { return };
        if *learned.get_ref() != name {
            let problem = format!(
                "the threshold was learned for `{}` and the embedder is `{name}`: learn it anew with `throughline cache learn`",
                learned.get_ref()
            );
            check.refuse(learned.span(), problem);
        }
    }
}

// === impl EmbedderFile ===

impl EmbedderFile {
    fn check(&self, check: &mut Check<'_>, embedders: &[String]) -> EmbedderOf {
        if embedders.is_empty() {
            let problem = format!(
                "there is no provider `{0}` with embeddings: add [providers.{0}.openai]",
                self.provider.get_ref()
            );
            check.refuse(self.provider.span(), problem);
        } else {
            check.known("provider", &self.provider, "with embeddings", embedders.iter().map(String::as_str));
        }
        check.upstream_model(&self.model);
        EmbedderOf::Provider {
            provider: self.provider.get_ref().clone(),
            model: self.model.get_ref().clone(),
            deadline: check.timeout("deadline", self.deadline.as_ref(), DEADLINE),
        }
    }

    /// A request must outlive an embedder that hangs.
    fn check_deadline(&self, embedder: &EmbedderOf, limit: Duration, check: &mut Check<'_>) {
        let EmbedderOf::Provider { deadline, .. } = embedder else { return };
        if *deadline >= limit {
            let at = self.deadline.as_ref().map_or(self.provider.span(), Spanned::span);
            let problem = format!(
                "the embedder's `deadline` is {deadline:?} and the model's time limit {limit:?}: write less, and leave the \
                 provider time to answer"
            );
            check.refuse(at, problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fixture::{accepted, refused};

    const ROUTE: &str = "[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n";
    const SERVER: &str = "[providers.up.openai]\nbase_url = \"https://h/v1\"\n";

    fn file(semantic: &str) -> String {
        format!("[models.a]\ncache = {{ ttl = \"1h\", semantic = {{ {semantic} }} }}\n{ROUTE}{SERVER}")
    }

    fn semantic(text: &str) -> Semantic {
        accepted(&file(text)).models["a"].cache.clone().unwrap().semantic.unwrap()
    }

    /// The first line of what is said, without the place.
    fn refusal(text: &str) -> String {
        let said = refused(&file(text));
        let (_, said) = said.lines().next().unwrap().split_once(": ").unwrap();
        said.to_owned()
    }

    #[test]
    fn there_is_none_unless_it_is_written_and_then_it_is_a_shadow() {
        let none = accepted(&format!("[models.a]\ncache = {{ ttl = \"1h\" }}\n{ROUTE}"));
        assert_eq!(none.models["a"].cache.as_ref().unwrap().semantic, None);
        let expected = Semantic {
            mode: Mode::Shadow,
            threshold: 0.9,
            max_error: None,
            audit: 0.01,
            embedder: EmbedderOf::Ngrams,
            max_entries: 10_000,
            max_bytes: 64 << 20,
            max_prompt_chars: 500,
        };
        assert_eq!(semantic(""), expected);
    }

    #[test]
    fn all_keys_are_read() {
        let embedder = EmbedderOf::Provider {
            provider: "up".to_owned(),
            model: "e-3".to_owned(),
            deadline: Duration::from_millis(100),
        };
        let expected = Semantic {
            mode: Mode::Answer,
            threshold: 0.85,
            max_error: Some(0.02),
            audit: 0.2,
            embedder,
            max_entries: 10,
            max_bytes: 1 << 20,
            max_prompt_chars: 200,
        };
        let text = "mode = \"answer\", threshold = 0.85, max_error = 0.02, learned = \"e-3\", audit = 0.2, max_entries = 10, \
                    max_bytes = \"1MiB\", max_prompt_chars = 200, \
                    embedder = { provider = \"up\", model = \"e-3\", deadline = \"100ms\" }";
        assert_eq!(semantic(text), expected);
    }

    #[test]
    fn nobody_answers_without_a_threshold_that_was_learned() {
        assert_eq!(
            refusal("mode = \"answer\""),
            "`mode` is `answer` without `threshold`, `max_error`, `learned`: learn them from labelled pairs with \
             `throughline cache learn`, or write \"shadow\""
        );
        assert!(
            refusal("mode = \"answer\", threshold = 0.9, max_error = 0.1").contains("without `learned`:")
        );
    }

    #[test]
    fn a_threshold_of_another_embedder_is_refused() {
        assert_eq!(
            refusal("threshold = 0.9, learned = \"e-3\""),
            "the threshold was learned for `e-3` and the embedder is `ngrams-1`: learn it anew with `throughline cache learn`"
        );
    }

    #[test]
    fn an_embedder_may_not_outlast_the_request() {
        let text = |deadline: &str, mode: &str| {
            file(&format!(
                "mode = \"{mode}\", threshold = 0.9, max_error = 0.02, learned = \"e\", \
                 embedder = {{ provider = \"up\", model = \"e\", deadline = \"{deadline}\" }}"
            ))
            .replace("[models.a]\n", "[models.a]\ntimeout = { limit = \"1s\" }\n")
        };
        accepted(&text("999ms", "answer"));
        accepted(&text("2s", "shadow"));
        let said = refused(&text("1s", "answer"));
        assert!(
            said.contains("the embedder's `deadline` is 1s and the model's time limit 1s: write less"),
            "{said}"
        );
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused_where_it_stands() {
        for (section, column, said) in [
            ("[]", 34, "expected a table, found a list"),
            ("[1, 2]", 34, "expected a table, found a list"),
            ("true", 34, "expected a table, found true or false"),
            ("0.9", 34, "expected a table, found a number with a fraction"),
            ("\"shadow\"", 34, "expected a table, found text"),
            ("{ threshold = \"x\" }", 48, "expected a number, found text"),
            ("{ max_error = true }", 48, "expected a number, found true or false"),
            ("{ mode = true }", 43, "expected text in quotes, found true or false"),
            (
                "{ mode = \"anser\" }",
                43,
                "unknown mode `anser`, did you mean `answer`? (allowed: shadow, answer)",
            ),
            ("{ audit = \"1%\" }", 44, "expected a number, found text"),
            ("{ learned = 3 }", 46, "expected text in quotes, found a whole number"),
            ("{ max_entries = 1.5 }", 50, "expected a whole number, found a number with a fraction"),
            ("{ max_prompt_chars = \"9\" }", 55, "expected a whole number, found text"),
            ("{ embedder = [] }", 47, "expected a table, found a list"),
            ("{ embedder = [\"up\", \"e\"] }", 47, "expected a table, found a list"),
            ("{ embedder = [\"up\", \"e\", \"250ms\"] }", 47, "expected a table, found a list"),
            ("{ embedder = \"up\" }", 47, "expected a table, found text"),
            ("{ embedder = { provider = \"up\" } }", 47, "missing key `model`"),
            (
                "{ embedder = { provider = 1, model = \"e\" } }",
                60,
                "expected text in quotes, found a whole number",
            ),
        ] {
            let text =
                format!("[models.a]\ncache = {{ ttl = \"1h\", semantic = {section} }}\n{ROUTE}{SERVER}");
            let shown = refused(&text);
            assert!(shown.starts_with(&format!("t.toml:2:{column}: {said}\n")), "{section}: {shown}");
        }
        let unknown = refusal("treshold = 0.9");
        assert!(unknown.starts_with("unknown key `treshold`, did you mean `threshold`?"), "{unknown}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert_eq!(
            refusal("mode = \"answers\""),
            "unknown mode `answers`, did you mean `answer`? (allowed: shadow, answer)"
        );
        assert_eq!(
            refusal("threshold = 1.5"),
            "`threshold` is 1.5: write a number above 0 and at most 1, such as 0.9"
        );
        assert_eq!(
            refusal("max_error = 0"),
            "`max_error` is 0: write a number above 0 and at most 1, such as 0.02"
        );
        assert_eq!(refusal("audit = 2"), "`audit` is 2: write a number from 0 to 1, such as 0.01");
        assert_eq!(refusal("audit = nan"), "`audit` is NaN: write a number from 0 to 1, such as 0.01");
        assert_eq!(refusal("max_entries = 0"), "`max_entries` is 0: write 1 to 1000000");
        assert_eq!(
            refusal("embedder = { provider = \"sim\", model = \"e\" }"),
            "unknown provider `sim` (with embeddings: up)"
        );
        let without = refused(&format!(
            "[models.a]\ncache = {{ ttl = \"1h\", semantic = {{ embedder = {{ provider = \"up\", model = \"e\" }} }} }}\n{ROUTE}"
        ));
        assert!(
            without.contains("there is no provider `up` with embeddings: add [providers.up.openai]"),
            "{without}"
        );
    }
}
