//! `[models.NAME.routes.ROUTE]` and `rules`: where a model's requests can go, and when they go there.

use http::HeaderName;
use serde::Deserialize;
use toml::Spanned;

use super::check::Check;
use super::circuit_breaker::{Breaker, BreakerFile};
use super::hedge::{HedgeFile, Hedging};
use super::retry::{Retries, RetryFile};
use super::timeout::{TimeLimit, TimeoutFile};

/// A way that requests for a model can go.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Route {
    /// The name of a provider that exists.
    pub(crate) provider: String,
    /// The name that the provider knows the model by.
    pub(crate) model: String,
    /// How long one attempt may take. Default: without limit.
    pub(crate) timeout: Option<TimeLimit>,
    /// When to try again. Default: never.
    pub(crate) retry: Option<Retries>,
    /// When to leave the provider alone. Default: never.
    pub(crate) circuit_breaker: Option<Breaker>,
    /// When to start a second attempt beside the first. Default: never.
    pub(crate) hedge: Option<Hedging>,
}

/// Sends requests to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    /// The name of a route that exists.
    pub(crate) route: String,
    /// What must hold, all of it; never empty.
    pub(crate) when: Vec<Condition>,
}

/// What can be asked of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Its messages have this many characters or more.
    PromptCharsAtLeast(usize),
    /// It has this header with exactly this value.
    Header {
        /// The header.
        name: HeaderName,
        /// Its value.
        equals: String,
    },
    /// Its `metadata` has this entry with exactly this value.
    Metadata {
        /// The entry; not empty.
        name: String,
        /// Its value.
        equals: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RouteFile {
    provider: Spanned<String>,
    model: Spanned<String>,
    timeout: Option<TimeoutFile>,
    retry: Option<RetryFile>,
    circuit_breaker: Option<BreakerFile>,
    hedge: Option<HedgeFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct RuleFile {
    route: Spanned<String>,
    when: Spanned<WhenFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct WhenFile {
    prompt_chars_at_least: Option<Spanned<i64>>,
    header: Option<EntryFile>,
    metadata: Option<EntryFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct EntryFile {
    name: Spanned<String>,
    equals: String,
}

// === impl RouteFile ===

impl RouteFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>, providers: &[String]) -> Route {
        check.known("provider", &self.provider, "configured", providers.iter().map(String::as_str));
        check.upstream_model(&self.model);
        Route {
            provider: self.provider.into_inner(),
            model: self.model.into_inner(),
            timeout: self.timeout.map(|file| file.check(check)),
            retry: self.retry.map(|file| file.check(check)),
            circuit_breaker: self.circuit_breaker.map(|file| file.check(check)),
            hedge: self.hedge.map(|file| file.check(check)),
        }
    }
}

// === impl RuleFile ===

impl RuleFile {
    /// Checks the rule.
    pub(super) fn check(self, check: &mut Check<'_>, routes: &[String]) -> Rule {
        check.known("route", &self.route, "routes", routes.iter().map(String::as_str));
        let at = self.when.span();
        let when = self.when.into_inner().check(check);
        if when.is_empty() {
            check.refuse(
                at,
                "an empty `when` is not a condition: write prompt_chars_at_least, header or metadata",
            );
        }
        Rule { route: self.route.into_inner(), when }
    }
}

// === impl WhenFile ===

impl WhenFile {
    fn check(self, check: &mut Check<'_>) -> Vec<Condition> {
        let chars = self.prompt_chars_at_least.map(|written| {
            Condition::PromptCharsAtLeast(check.whole(
                "prompt_chars_at_least",
                Some(&written),
                1..=1_000_000_000,
                1,
            ))
        });
        let header =
            self.header.map(|file| Condition::Header { name: check.header(&file.name), equals: file.equals });
        let metadata = self
            .metadata
            .map(|file| Condition::Metadata { name: check.text("name", file.name), equals: file.equals });
        [chars, header, metadata].into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::fixture::{accepted, refused};

    const ROUTE: &str = "\n[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"x\"\n";

    fn rules(text: &str) -> Vec<Rule> {
        accepted(&format!("[models.a]\nrules = [{text}]{ROUTE}")).models["a"].rules.clone()
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[models.a]\nrules = [{text}]{ROUTE}"))
    }

    #[test]
    fn a_route_is_read() {
        let config = accepted(
            "[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"@cf/x\"\ntimeout = { limit = \"2s\" }\n",
        );
        let timeout = Some(TimeLimit {
            limit: Duration::from_secs(2),
            grace: Duration::ZERO,
            first_token: None,
            between_chunks: None,
        });
        let expected = Route {
            provider: "sim".to_owned(),
            model: "@cf/x".to_owned(),
            timeout,
            retry: None,
            circuit_breaker: None,
            hedge: None,
        };
        assert_eq!(config.models["a"].routes["r"], expected);
    }

    #[test]
    fn a_provider_that_does_not_exist_is_refused() {
        assert_eq!(
            refused("[models.a.routes.r]\n  provider = \"smi\"\n  model = \"x\"\n"),
            "t.toml:2:14: unknown provider `smi`, did you mean `sim`? (configured: sim)\n    \
             2 |   provider = \"smi\"\n      |              ^^^^^"
        );
    }

    #[test]
    fn a_model_that_cannot_be_asked_for_is_refused() {
        assert_eq!(
            refused("[models.a.routes.r]\nprovider = \"sim\"\nmodel = \"\"\n"),
            "t.toml:3:9: `` cannot name a model: use 1 to 128 visible ascii characters without spaces\n    \
             3 | model = \"\"\n      |         ^^"
        );
    }

    #[test]
    fn rules_keep_their_order_and_all_their_conditions() {
        let found = rules(
            "{ route = \"r\", when = { prompt_chars_at_least = 800 } },\n\
             { route = \"r\", when = { header = { name = \"X-Tier\", equals = \"gold\" }, \
             metadata = { name = \"task\", equals = \"\" } } }",
        );
        let header = HeaderName::from_static("x-tier");
        let expected = [
            vec![Condition::PromptCharsAtLeast(800)],
            vec![
                Condition::Header { name: header, equals: "gold".to_owned() },
                Condition::Metadata { name: "task".to_owned(), equals: String::new() },
            ],
        ];
        assert_eq!(found, expected.map(|when| Rule { route: "r".to_owned(), when }));
    }

    #[test]
    fn a_rule_for_a_route_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("{ route = \"q\", when = { prompt_chars_at_least = 1 } }"),
            "t.toml:2:20: unknown route `q`, did you mean `r`? (routes: r)\n    \
             2 | rules = [{ route = \"q\", when = { prompt_chars_at_least = 1 } }]\n      |                    ^^^"
        );
    }

    #[test]
    fn a_rule_without_a_condition_is_refused() {
        assert_eq!(
            refusal("{ route = \"r\", when = {} }"),
            "t.toml:2:32: an empty `when` is not a condition: write prompt_chars_at_least, header or metadata\n    \
             2 | rules = [{ route = \"r\", when = {} }]\n      |                                ^^"
        );
        assert_eq!(
            refusal("{ route = \"r\" }"),
            "t.toml:2:10: missing key `when`\n    2 | rules = [{ route = \"r\" }]\n      |          ^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_condition_that_does_not_exist_is_refused() {
        assert_eq!(
            refusal("{ route = \"r\", when = { headers = 1 } }"),
            "t.toml:2:34: unknown key `headers`, did you mean `header`? (allowed: prompt_chars_at_least, header, \
             metadata)\n    2 | rules = [{ route = \"r\", when = { headers = ******\n      |                                  ^^^^^^^"
        );
    }

    #[test]
    fn a_condition_that_cannot_hold_or_cannot_fail_is_refused() {
        assert_eq!(
            refusal("{ route = \"r\", when = { prompt_chars_at_least = 0 } }"),
            "t.toml:2:58: `prompt_chars_at_least` is 0: write 1 to 1000000000\n    \
             2 | rules = [{ route = \"r\", when = { prompt_chars_at_least = 0 } }]\n      |                                                          ^"
        );
        assert_eq!(
            refusal("{ route = \"r\", when = { header = { name = \"x tier\", equals = \"\" } } }"),
            "t.toml:2:52: `x tier` cannot name a header: use letters, digits and -, such as `x-route`\n    \
             2 | rules = [{ route = \"r\", when = { header = { name = \"x tier\", equals = \"\" } } }]\n      |                                                    ^^^^^^^^"
        );
        assert_eq!(
            refusal("{ route = \"r\", when = { metadata = { name = \"\", equals = \"\" } } }"),
            "t.toml:2:54: `name` is empty: write some text\n    \
             2 | rules = [{ route = \"r\", when = { metadata = { name = \"\", equals = \"\" } } }]\n      |                                                      ^^"
        );
    }
}
