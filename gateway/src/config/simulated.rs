//! `[providers.NAME.simulated]`: the provider that is built in, for trying out, tests and load runs.

use std::time::Duration;

use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;

/// How the built-in provider behaves.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SimulatedConfig {
    /// Where the random numbers begin: the same seed gives the same run. Default: 0.
    pub(crate) seed: u64,
    /// The median time to the first token, of a log-normal distribution. Above zero. Default: 200 ms.
    pub(crate) latency_p50: Duration,
    /// The time that one first token in a hundred takes longer than. At least the median. Default: 1 s.
    pub(crate) latency_p99: Duration,
    /// The pace of a streamed answer. Above zero. Default: 400.
    pub(crate) tokens_per_second: f64,
    /// The shortest answer, in tokens, at least 1. Default: 20.
    pub(crate) completion_tokens_min: u32,
    /// The longest answer, in tokens, at least the shortest. Default: 120.
    pub(crate) completion_tokens_max: u32,
    /// Texts to answer with, in turn; if there are none, texts are made up. Default: none.
    pub(crate) answers: Vec<String>,
    /// What goes wrong, and how often. Default: nothing.
    pub(crate) faults: Faults,
}

/// Faults of the built-in provider. The rates are shares of requests, 0 to 1, and at most 1 in sum.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Faults {
    /// How many fail at once. Default: 0.
    pub(crate) error_rate: f64,
    /// The HTTP status that they fail with, 400 to 599. Default: 503.
    pub(crate) error_status: u16,
    /// How many never answer. Default: 0.
    pub(crate) hang_rate: f64,
    /// How many answer late. Default: 0.
    pub(crate) slow_rate: f64,
    /// How much later than the others. Above zero. Default: 1 s.
    pub(crate) slow_by: Duration,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct SimulatedFile {
    seed: Option<Spanned<i64>>,
    latency: Option<Spanned<LatencyFile>>,
    tokens_per_second: Option<Spanned<f64>>,
    completion_tokens: Option<Spanned<TokensFile>>,
    #[serde(default)]
    answers: Vec<String>,
    faults: Option<Spanned<FaultsFile>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct LatencyFile {
    p50: Spanned<Value>,
    p99: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct TokensFile {
    min: Spanned<i64>,
    max: Spanned<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct FaultsFile {
    error_rate: Option<Spanned<f64>>,
    error_status: Option<Spanned<i64>>,
    hang_rate: Option<Spanned<f64>>,
    slow_rate: Option<Spanned<f64>>,
    slow_by: Option<Spanned<Value>>,
}

// === impl SimulatedConfig ===

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            latency_p50: Duration::from_millis(200),
            latency_p99: Duration::from_secs(1),
            tokens_per_second: 400.0,
            completion_tokens_min: 20,
            completion_tokens_max: 120,
            answers: Vec::new(),
            faults: Faults::default(),
        }
    }
}

// === impl Faults ===

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_rate: 0.0,
            error_status: 503,
            hang_rate: 0.0,
            slow_rate: 0.0,
            slow_by: Duration::from_secs(1),
        }
    }
}

// === impl SimulatedFile ===

impl SimulatedFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> SimulatedConfig {
        let default = SimulatedConfig::default();
        let (latency_p50, latency_p99) = match &self.latency {
            Some(written) => latency(written, check, &default),
            None => (default.latency_p50, default.latency_p99),
        };
        let (completion_tokens_min, completion_tokens_max) = match &self.completion_tokens {
            Some(written) => tokens(written, check, &default),
            None => (default.completion_tokens_min, default.completion_tokens_max),
        };
        let pace = self.tokens_per_second.as_ref();
        SimulatedConfig {
            seed: check.whole("seed", self.seed.as_ref(), 0..=i64::MAX.unsigned_abs(), default.seed),
            latency_p50,
            latency_p99,
            tokens_per_second: check.number(
                "tokens_per_second",
                pace,
                0.001..=1e9,
                "a number from 0.001 to 1000000000",
                default.tokens_per_second,
            ),
            completion_tokens_min,
            completion_tokens_max,
            answers: self.answers,
            faults: self.faults.map_or(default.faults, |written| faults(&written, check)),
        }
    }
}

fn latency(
    written: &Spanned<LatencyFile>,
    check: &mut Check<'_>,
    default: &SimulatedConfig,
) -> (Duration, Duration) {
    let file = written.get_ref();
    let p50 = check.timeout("p50", Some(&file.p50), default.latency_p50);
    let p99 = check.timeout("p99", Some(&file.p99), default.latency_p99.max(p50));
    if p99 < p50 {
        let problem = format!("`p99` is {p99:?}, less than the {p50:?} of `p50`: write at least as much");
        check.refuse(file.p99.span(), problem);
    }
    (p50, p99)
}

fn tokens(written: &Spanned<TokensFile>, check: &mut Check<'_>, default: &SimulatedConfig) -> (u32, u32) {
    const MOST: u32 = 1_000_000;
    let file = written.get_ref();
    let min = check.whole("min", Some(&file.min), 1..=MOST, default.completion_tokens_min);
    let max = check.whole("max", Some(&file.max), 1..=MOST, MOST);
    if max < min {
        let problem = format!("`max` is {max}, less than the {min} of `min`: write at least as much");
        check.refuse(file.max.span(), problem);
    }
    (min, max)
}

fn faults(written: &Spanned<FaultsFile>, check: &mut Check<'_>) -> Faults {
    let (file, default) = (written.get_ref(), Faults::default());
    let mut rate = |key: &str, written: &Option<Spanned<f64>>| {
        check.number(key, written.as_ref(), 0.0..=1.0, "a number from 0 to 1", 0.0)
    };
    let error_rate = rate("error_rate", &file.error_rate);
    let hang_rate = rate("hang_rate", &file.hang_rate);
    let slow_rate = rate("slow_rate", &file.slow_rate);
    let sum = error_rate + hang_rate + slow_rate;
    // Ten tenths are not quite one in binary.
    if sum > 1.0 + 1e-9 {
        check.refuse(written.span(), format!("the rates of the faults sum to {sum}: make it at most 1"));
    }
    Faults {
        error_rate,
        error_status: check.whole(
            "error_status",
            file.error_status.as_ref(),
            400..=599,
            default.error_status,
        ),
        hang_rate,
        slow_rate,
        slow_by: check.timeout("slow_by", file.slow_by.as_ref(), default.slow_by),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Provider;
    use crate::config::fixture::{accepted, refused};

    fn simulated(text: &str) -> SimulatedConfig {
        match accepted(&format!("[providers.p.simulated]\n{text}\n")).providers.remove("p") {
            Some(Provider::Simulated(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(text: &str) -> String {
        refused(&format!("[providers.p.simulated]\n{text}\n"))
    }

    #[test]
    fn nothing_has_to_be_said() {
        assert_eq!(simulated(""), SimulatedConfig::default());
        assert_eq!(simulated("faults = {}"), SimulatedConfig::default());
    }

    #[test]
    fn all_keys_are_read() {
        let config = simulated(
            "seed = 9\nlatency = { p50 = \"80ms\", p99 = \"80ms\" }\ntokens_per_second = 50\n\
             completion_tokens = { min = 3, max = 3 }\nanswers = [\"a\", \"\"]\n\
             [providers.p.simulated.faults]\nerror_rate = 0.1\nerror_status = 429\nhang_rate = 0.2\n\
             slow_rate = 0.7\nslow_by = \"3s\"",
        );
        let expected = SimulatedConfig {
            seed: 9,
            latency_p50: Duration::from_millis(80),
            latency_p99: Duration::from_millis(80),
            tokens_per_second: 50.0,
            completion_tokens_min: 3,
            completion_tokens_max: 3,
            answers: vec!["a".to_owned(), String::new()],
            faults: Faults {
                error_rate: 0.1,
                error_status: 429,
                hang_rate: 0.2,
                slow_rate: 0.7,
                slow_by: Duration::from_secs(3),
            },
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_p99_below_the_median_is_refused() {
        assert_eq!(
            refusal("latency = { p50 = \"1s\", p99 = \"900ms\" }"),
            "t.toml:2:31: `p99` is 900ms, less than the 1s of `p50`: write at least as much\n    \
             2 | latency = { p50 = \"1s\", p99 = \"900ms\" }\n      |                               ^^^^^^^"
        );
    }

    #[test]
    fn a_median_of_zero_is_refused() {
        assert_eq!(
            refusal("latency = { p50 = \"0ms\", p99 = \"9s\" }"),
            "t.toml:2:19: `p50` is 0ms: write 1ms to 24h\n    \
             2 | latency = { p50 = \"0ms\", p99 = \"9s\" }\n      |                   ^^^^^"
        );
    }

    #[test]
    fn one_wrong_bound_is_one_problem() {
        assert_eq!(refusal("latency = { p50 = \"9s\", p99 = \"x\" }").matches("t.toml:").count(), 1);
        assert_eq!(refusal("completion_tokens = { min = 9, max = 0 }").matches("t.toml:").count(), 1);
    }

    #[test]
    fn a_longest_answer_below_the_shortest_is_refused() {
        assert_eq!(
            refusal("completion_tokens = { min = 9, max = 8 }"),
            "t.toml:2:38: `max` is 8, less than the 9 of `min`: write at least as much\n    \
             2 | completion_tokens = { min = 9, max = 8 }\n      |                                      ^"
        );
    }

    #[test]
    fn a_pace_that_is_not_above_zero_is_refused() {
        for wrong in ["0", "-1.5", "nan", "inf"] {
            let found = if wrong == "nan" { "NaN" } else { wrong };
            let marks = "^".repeat(wrong.len());
            assert_eq!(
                refusal(&format!("tokens_per_second = {wrong}")),
                format!(
                    "t.toml:2:21: `tokens_per_second` is {found}: write a number from 0.001 to 1000000000\n    \
                     2 | tokens_per_second = {wrong}\n      |                     {marks}"
                )
            );
        }
    }

    #[test]
    fn a_negative_seed_is_refused() {
        assert_eq!(
            refusal("seed = -1"),
            "t.toml:2:8: `seed` is -1: write 0 to 9223372036854775807\n    2 | seed = -1\n      |        ^^"
        );
    }

    #[test]
    fn rates_above_one_are_refused_alone_and_in_sum() {
        assert_eq!(
            refusal("faults.error_rate = 1.1"),
            "t.toml:2:21: `error_rate` is 1.1: write a number from 0 to 1\n    \
             2 | faults.error_rate = 1.1\n      |                     ^^^"
        );
        assert_eq!(
            refusal("faults = { error_rate = 0.75, slow_rate = 0.5 }"),
            "t.toml:2:10: the rates of the faults sum to 1.25: make it at most 1\n    \
             2 | faults = { error_rate = 0.75, slow_rate = 0.5 }\n      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_status_that_is_no_failure_is_refused() {
        assert_eq!(
            refusal("faults.error_status = 200"),
            "t.toml:2:23: `error_status` is 200: write 400 to 599\n    \
             2 | faults.error_status = 200\n      |                       ^^^"
        );
    }
}
