//! `[prices.MODEL]`: what tokens cost, where the built-in table is wrong or silent.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// What a model's tokens cost, in USD per million. Finite and not negative.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Price {
    /// Tokens of the prompt.
    pub(crate) input: f64,
    /// Tokens of the answer.
    pub(crate) output: f64,
    /// Tokens of the prompt that the provider had cached. Default: none, they are priced like the others.
    pub(crate) cached_input: Option<f64>,
    /// Tokens of the prompt that the provider put into its cache. Default: none, they are priced like the others.
    pub(crate) cache_write: Option<f64>,
    /// Those of them that are kept there for an hour. Default: 1.6 times `cache_write`, where that is known.
    pub(crate) cache_write_1h: Option<f64>,
    /// Where the price is from.
    pub(crate) source: String,
    /// The day it was looked up, as `YYYY-MM-DD`.
    pub(crate) date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct PriceFile {
    input: Spanned<f64>,
    output: Spanned<f64>,
    cached_input: Option<Spanned<f64>>,
    cache_write: Option<Spanned<f64>>,
    cache_write_1h: Option<Spanned<f64>>,
    source: Spanned<String>,
    date: Spanned<Value>,
}

/// Checks the section.
pub(super) fn check(
    files: BTreeMap<Spanned<String>, PriceFile>,
    check: &mut Check<'_>,
) -> BTreeMap<String, Price> {
    files
        .into_iter()
        .map(|(model, file)| {
            check.upstream_model(&model);
            (model.into_inner(), file.check(check))
        })
        .collect()
}

// === impl PriceFile ===

impl PriceFile {
    fn check(self, check: &mut Check<'_>) -> Price {
        let mut usd = |key: &str, written: &Spanned<f64>| {
            check.number(key, Some(written), 0.0..=1e9, "USD per million tokens, from 0 to 1000000000", 0.0)
        };
        Price {
            input: usd("input", &self.input),
            output: usd("output", &self.output),
            cached_input: self.cached_input.map(|written| usd("cached_input", &written)),
            cache_write: self.cache_write.map(|written| usd("cache_write", &written)),
            cache_write_1h: self.cache_write_1h.map(|written| usd("cache_write_1h", &written)),
            source: check.text("source", self.source),
            date: date(&self.date, check),
        }
    }
}

/// Takes a date with and without quotes: TOML has both, and neither can be misread.
fn date(written: &Spanned<Value>, check: &mut Check<'_>) -> String {
    let date = match written.get_ref() {
        Value::String(text) => text.clone(),
        Value::Datetime(date) => date.to_string(),
        _ => String::new(),
    };
    // The reader of TOML knows which days exist.
    let day = date.parse::<toml::value::Datetime>().ok().filter(|day| day.time.is_none());
    if day.is_none_or(|day| day.date.is_none()) {
        check.refuse(written.span(), "`date` is not a day: write one such as \"2026-11-01\"");
    }
    date
}

#[cfg(test)]
mod tests {
    use throughline_llm::openai::Usage;

    use super::*;
    use crate::config::fixture::{accepted, refused};

    const REST: &str = "output = 2\nsource = \"contract 12\"\n";

    fn refusal(text: &str) -> String {
        refused(&format!("[prices.\"m\"]\n{text}\n{REST}"))
    }

    #[test]
    fn a_price_is_read() {
        let config = accepted(
            "[prices.\"@cf/my-model\"]\ninput = 0.15\noutput = 0.60\ncached_input = 0\n\
             cache_write = 0.1875\ncache_write_1h = 0.3\n\
             source = \"contract 12\"\ndate = \"2026-11-01\"\n",
        );
        let expected = Price {
            input: 0.15,
            output: 0.6,
            cached_input: Some(0.0),
            cache_write: Some(0.1875),
            cache_write_1h: Some(0.3),
            source: "contract 12".to_owned(),
            date: "2026-11-01".to_owned(),
        };
        assert_eq!(config.prices["@cf/my-model"], expected);
    }

    #[test]
    fn each_kind_of_token_is_charged_at_the_price_that_is_written_for_it() {
        let mut usage = Usage::new(100, 10);
        (usage.cached_tokens, usage.cache_write_tokens, usage.cache_write_1h_tokens) = (40, 50, 20);
        let cost = |more: &str| {
            let rest = "output = 20\nsource = \"contract 12\"\ndate = 2026-11-01\n";
            let config = accepted(&format!("[prices.m]\ninput = 4\n{more}{rest}"));
            let usd = crate::workflows::prices(&config).cost("m", &usage).expect("it has a price");
            format!("{usd:.9}")
        };
        assert_eq!(cost(""), "0.000600000");
        assert_eq!(cost("cached_input = 1\n"), "0.000480000");
        assert_eq!(cost("cached_input = 1\ncache_write = 5\n"), "0.000590000");
        assert_eq!(cost("cached_input = 1\ncache_write = 5\ncache_write_1h = 7\n"), "0.000570000");
    }

    #[test]
    fn a_date_needs_no_quotes() {
        let text = format!("[prices.m]\ninput = 1\ndate = 2026-02-28\n{REST}");
        assert_eq!(accepted(&text).prices["m"].date, "2026-02-28");
    }

    #[test]
    fn a_price_below_zero_or_without_end_is_refused() {
        for wrong in ["-0.1", "inf", "nan"] {
            let found = if wrong == "nan" { "NaN" } else { wrong };
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refusal(&format!("date = 2026-01-01\ninput = {wrong}")),
                format!(
                    "t.toml:3:9: `input` is {found}: write USD per million tokens, from 0 to 1000000000\n    \
                     3 | input = {wrong}\n      |         {marks}"
                )
            );
        }
    }

    #[test]
    fn a_day_that_does_not_exist_is_refused() {
        for wrong in ["\"2026-02-29\"", "\"1.11.2026\"", "5", "\"2026-1-1\"", "2026-01-01T00:00:00Z", "\"\""]
        {
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refusal(&format!("input = 1\ndate = {wrong}")),
                format!(
                    "t.toml:3:8: `date` is not a day: write one such as \"2026-11-01\"\n    \
                     3 | date = {wrong}\n      |        {marks}"
                )
            );
        }
    }

    #[test]
    fn a_price_without_a_source_is_refused() {
        let text = "[prices.m]\ninput = 1\noutput = 1\ndate = \"2026-11-01\"\n";
        assert_eq!(refused(text), "t.toml:1:1: missing key `source`\n    1 | [prices.m]\n      | ^^^^^^^^^^");
        assert!(refused(&format!("{text}source = \"\"\n")).contains("5:10: `source` is empty"));
    }

    #[test]
    fn a_model_name_with_spaces_is_refused() {
        let text = format!("[prices.\"a b\"]\ninput = 1\ndate = 2026-01-01\n{REST}");
        assert_eq!(
            refused(&text),
            "t.toml:1:9: `a b` cannot name a model: use 1 to 128 visible ascii characters without spaces\n    \
             1 | [prices.\"a b\"]\n      |         ^^^^^"
        );
    }
}
