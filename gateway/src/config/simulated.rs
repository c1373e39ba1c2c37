//! `[providers.NAME.simulated]`: the provider that is built in, for trying out, tests and load runs.

use std::time::Duration;

use serde::Deserialize;
use throughline_llm::simulated::{Faults, SimulatedConfig};
use toml::{Spanned, Value};

use super::check::Check;

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

// === impl SimulatedFile ===

impl SimulatedFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> SimulatedConfig {
        let mut config = SimulatedConfig::default();
        if let Some(written) = &self.latency {
            (config.latency_p50, config.latency_p99) = latency(written, check, &config);
        }
        if let Some(written) = &self.completion_tokens {
            (config.completion_min, config.completion_max) = tokens(written, check, &config);
        }
        config.seed = check.whole("seed", self.seed.as_ref(), 0..=i64::MAX.unsigned_abs(), config.seed);
        config.tokens_per_second = check.number(
            "tokens_per_second",
            self.tokens_per_second.as_ref(),
            0.001..=1e9,
            "a number from 0.001 to 1000000000",
            config.tokens_per_second,
        );
        config.answers = self.answers;
        if let Some(written) = &self.faults {
            config.faults = faults(written, check);
        }
        config
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
    let min = check.whole("min", Some(&file.min), 1..=MOST, default.completion_min);
    let max = check.whole("max", Some(&file.max), 1..=MOST, MOST);
    if max < min {
        let problem = format!("`max` is {max}, less than the {min} of `min`: write at least as much");
        check.refuse(file.max.span(), problem);
    }
    (min, max)
}

fn faults(written: &Spanned<FaultsFile>, check: &mut Check<'_>) -> Faults {
    let (file, mut faults) = (written.get_ref(), Faults::default());
    let mut rate = |key: &str, written: &Option<Spanned<f64>>| {
        check.number(key, written.as_ref(), 0.0..=1.0, "a number from 0 to 1", 0.0)
    };
    faults.error_rate = rate("error_rate", &file.error_rate);
    faults.hang_rate = rate("hang_rate", &file.hang_rate);
    faults.slow_rate = rate("slow_rate", &file.slow_rate);
    // A call fails in one way at most, and any call may be slow as well. Ten tenths are not quite one in binary.
    let sum = faults.error_rate + faults.hang_rate;
    if sum > 1.0 + 1e-9 {
        check.refuse(written.span(), format!("the rates of the faults sum to {sum}: make it at most 1"));
    }
    faults.error_status =
        check.whole("error_status", file.error_status.as_ref(), 400..=599, faults.error_status);
    faults.slow_by = check.timeout("slow_by", file.slow_by.as_ref(), faults.slow_by);
    faults
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
        let mut expected = SimulatedConfig::default();
        expected.seed = 9;
        (expected.latency_p50, expected.latency_p99) = (Duration::from_millis(80), Duration::from_millis(80));
        expected.tokens_per_second = 50.0;
        (expected.completion_min, expected.completion_max) = (3, 3);
        expected.answers = vec!["a".to_owned(), String::new()];
        expected.faults.error_rate = 0.1;
        expected.faults.error_status = 429;
        expected.faults.hang_rate = 0.2;
        expected.faults.slow_rate = 0.7;
        expected.faults.slow_by = Duration::from_secs(3);
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
            refusal("faults = { error_rate = 0.75, hang_rate = 0.5 }"),
            "t.toml:2:10: the rates of the faults sum to 1.25: make it at most 1\n    \
             2 | faults = { error_rate = 0.75, hang_rate = 0.5 }\n      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^"
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
