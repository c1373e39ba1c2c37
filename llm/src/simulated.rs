//! The pure core of a simulated provider: what it would answer, when, and what would go wrong.
//!
//! **When.** For the demo, for tests and for load runs without a key or a network. The n-th call of a
//! [`Simulator`] draws the n-th values of its seed, so a run can be repeated to the last delay.
//!
//! **Where.** In the place of an upstream. Nothing here sleeps or sends: the caller waits for `delay`, sends
//! the outcome and, when it streams, leaves `token_gap` between two words.
//!
//! Delays follow a log-normal distribution, which is what latencies of real services look like: it is fixed
//! by its median and its 99th percentile. Normal deviates are made by the method of Box and Muller (1958).
//!
//! ```
//! use bytes::Bytes;
//! use throughline_llm::openai::{ChatRequest, Limits};
//! use throughline_llm::simulated::{Outcome, SimulatedConfig, Simulator};
//!
//! let body = Bytes::from_static(br#"{"model":"m","messages":[{"content":"How are you?"}]}"#);
//! let request = ChatRequest::parse(body, &Limits::default())?;
//!
//! let draw = Simulator::new(SimulatedConfig::default()).draw(&request);
//! let Outcome::Answer { usage, .. } = draw.outcome else { panic!("no faults were asked for") };
//! assert_eq!(usage.prompt_tokens, 6); // 12 characters / 4, and 3 for the message
//! # Ok::<(), throughline_llm::openai::RequestError>(())
//! ```
//!
//! **When not.** It cannot tell whether an answer is good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::openai::{ChatRequest, Usage};

/// How a simulated provider behaves. Values outside their range are brought into it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SimulatedConfig {
    /// What all random values follow from. Default 0.
    pub seed: u64,
    /// Half of the answers begin within this time. Default 200 ms.
    pub latency_p50: Duration,
    /// 99 of 100 answers begin within this time; not below `latency_p50`. Default 1 s.
    pub latency_p99: Duration,
    /// How fast a streamed answer is written; 0 or less means all at once. Default 400.
    pub tokens_per_second: f64,
    /// The shortest composed answer, in tokens. Default 20.
    pub completion_min: u32,
    /// The longest composed answer, in tokens. Default 120.
    pub completion_max: u32,
    /// Answers to give in turn; when empty, answers are composed of common words. Default empty.
    pub answers: Vec<String>,
    /// What goes wrong. Default nothing.
    pub faults: Faults,
}

/// Which calls go wrong, and how. Rates are shares of all calls, from 0 to 1; a call fails in one way at
/// most, and errors come before hangs where both would sum to more than 1.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Faults {
    /// Share of calls that are answered with an error. Default 0.
    pub error_rate: f64,
    /// The HTTP status of these errors. Default 503.
    pub error_status: u16,
    /// Share of calls that are never answered. Default 0.
    pub hang_rate: f64,
    /// Share of calls, of any outcome, that take longer. Default 0.
    pub slow_rate: f64,
    /// How much longer a slow call takes. Default 1 s.
    pub slow_by: Duration,
}

/// What happens to one call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// Time until the outcome begins.
    pub delay: Duration,
    /// What comes then.
    pub outcome: Outcome,
    /// Time between two tokens of a stream.
    pub token_gap: Duration,
}

/// How one call ends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// An answer.
    Answer {
        /// Its text. Composed text has one word per token.
        content: String,
        /// Its tokens.
        usage: Usage,
    },
    /// An error.
    Error {
        /// Its HTTP status.
        status: u16,
    },
    /// Nothing, ever.
    Hang,
}

/// Draws what happens to each call. It can be shared; concurrent calls are numbered as they come.
#[derive(Debug)]
pub struct Simulator {
    config: SimulatedConfig,
    calls: AtomicU64,
}

// === impl SimulatedConfig ===

impl Default for SimulatedConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            latency_p50: Duration::from_millis(200),
            latency_p99: Duration::from_secs(1),
            tokens_per_second: 400.0,
            completion_min: 20,
            completion_max: 120,
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

// === impl Simulator ===

impl Simulator {
    /// A provider that has not been called yet.
    #[must_use]
    pub fn new(config: SimulatedConfig) -> Self {
        Self { config, calls: AtomicU64::new(0) }
    }

    /// How many calls have been drawn.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Draws what happens to the next call.
    pub fn draw(&self, request: &ChatRequest) -> Draw {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let mut random = fastrand::Rng::with_seed(mix(self.config.seed, number));
        // Every value is drawn in every call, so that one setting does not shift what another one draws.
        let (fault, slow, deviate) = (random.f64(), random.f64(), normal(&mut random));
        let faults = &self.config.faults;
        let outcome = if fault < faults.error_rate {
            Outcome::Error { status: faults.error_status }
        } else if fault < faults.error_rate.max(0.0) + faults.hang_rate {
            Outcome::Hang
        } else {
            self.answer(request, number, &mut random)
        };
        let extra = if slow < faults.slow_rate { faults.slow_by } else { Duration::ZERO };
        Draw { delay: self.latency(deviate).saturating_add(extra), outcome, token_gap: self.token_gap() }
    }

    fn answer(&self, request: &ChatRequest, number: u64, random: &mut fastrand::Rng) -> Outcome {
        let config = &self.config;
        let least = config.completion_min.min(config.completion_max);
        let composed = u64::from(random.u32(least..=config.completion_max.max(least)));
        let content = match in_turn(&config.answers, number) {
            Some(answer) => answer.clone(),
            None => compose(random, composed.min(request.max_tokens().unwrap_or(u64::MAX)).max(1)),
        };
        let written = if config.answers.is_empty() {
            content.split(' ').count()
        } else {
            content.chars().count().div_ceil(4)
        };
        let read = request.prompt_chars().div_ceil(4) + 3 * request.message_count();
        Outcome::Answer { content, usage: Usage::new(read as u64, written as u64) }
    }

    /// The delay at `deviate` standard deviations from the median.
    fn latency(&self, deviate: f64) -> Duration {
        /// How many standard deviations the 99th percentile of a normal distribution is from its median.
        const P99_DEVIATE: f64 = 2.326_347_874_040_841;
        let median = self.config.latency_p50.as_secs_f64();
        if median == 0.0 {
            return Duration::ZERO;
        }
        let spread = (self.config.latency_p99.as_secs_f64() / median).max(1.0).ln() / P99_DEVIATE;
        Duration::try_from_secs_f64(median * (spread * deviate).exp()).unwrap_or(Duration::MAX)
    }

    fn token_gap(&self) -> Duration {
        let rate = self.config.tokens_per_second;
        if rate > 0.0 {
            Duration::try_from_secs_f64(1.0 / rate).unwrap_or(Duration::MAX)
        } else {
            Duration::ZERO
        }
    }
}

/// A seed for one call, so that the calls of neighbouring seeds have nothing in common.
fn mix(seed: u64, number: u64) -> u64 {
    splitmix(splitmix(seed) ^ number)
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn splitmix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A standard normal deviate.
fn normal(random: &mut fastrand::Rng) -> f64 {
    // 1 minus a value below 1 is never 0, whose logarithm would be infinite.
    let (radius, angle) = (1.0 - random.f64(), random.f64());
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}

fn in_turn<T>(items: &[T], number: u64) -> Option<&T> {
    let turn = number.checked_rem(items.len() as u64)?;
    items.get(usize::try_from(turn).ok()?)
}

const WORDS: [&str; 32] = [
    "the", "a", "first", "answer", "depends", "on", "what", "you", "need", "most", "when", "data", "is",
    "small", "start", "with", "one", "plain", "step", "and", "measure", "it", "then", "change", "only",
    "part", "that", "costs", "time", "because", "it", "helps",
];

/// `count` words in sentences of eight.
fn compose(random: &mut fastrand::Rng, count: u64) -> String {
    const SENTENCE: u64 = 8;
    let mut text = String::new();
    for position in 0..count {
        let word = WORDS[random.usize(..WORDS.len())];
        if position % SENTENCE == 0 {
            let (first, rest) = word.split_at(1);
            text.push_str(&first.to_ascii_uppercase());
            text.push_str(rest);
        } else {
            text.push_str(word);
        }
        let is_last = position + 1 == count;
        if is_last || position % SENTENCE == SENTENCE - 1 {
            text.push('.');
        }
        if !is_last {
            text.push(' ');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Limits;

    const DRAWS: usize = 10_000;

    fn request(body: &str) -> ChatRequest {
        ChatRequest::parse(body.to_owned().into(), &Limits::default()).unwrap()
    }

    fn hello() -> ChatRequest {
        request(r#"{"model":"m","messages":[{"content":"Hello"},{"content":"World!"}]}"#)
    }

    fn draws(config: SimulatedConfig, count: usize) -> Vec<Draw> {
        let (simulator, request) = (Simulator::new(config), hello());
        (0..count).map(|_| simulator.draw(&request)).collect()
    }

    fn with_faults(faults: Faults) -> SimulatedConfig {
        SimulatedConfig { faults, ..SimulatedConfig::default() }
    }

    fn answer(draw: &Draw) -> (&str, Usage) {
        match &draw.outcome {
            Outcome::Answer { content, usage } => (content, *usage),
            other => panic!("{other:?} is no answer"),
        }
    }

    fn share(draws: &[Draw], wanted: impl Fn(&Draw) -> bool) -> f64 {
        draws.iter().filter(|draw| wanted(draw)).count() as f64 / draws.len() as f64
    }

    /// Seconds that `percent` of the calls do not exceed.
    fn percentile(draws: &[Draw], percent: usize) -> f64 {
        let mut delays: Vec<Duration> = draws.iter().map(|draw| draw.delay).collect();
        delays.sort();
        delays[draws.len() * percent / 100].as_secs_f64()
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        let config = SimulatedConfig {
            seed: 42,
            ..with_faults(Faults { error_rate: 0.1, hang_rate: 0.1, slow_rate: 0.1, ..Faults::default() })
        };
        assert_eq!(draws(config.clone(), 500), draws(config.clone(), 500));
        assert_ne!(draws(config.clone(), 50), draws(SimulatedConfig { seed: 43, ..config }, 50));
    }

    #[test]
    fn neighbouring_seeds_share_no_calls() {
        let delays = |seed| -> Vec<Duration> {
            draws(SimulatedConfig { seed, ..SimulatedConfig::default() }, 200)
                .iter()
                .map(|d| d.delay)
                .collect()
        };
        let one = delays(1);
        assert!(delays(2).iter().all(|delay| !one.contains(delay)));
    }

    #[test]
    fn faults_come_as_often_as_configured() {
        let faults = Faults {
            error_rate: 0.10,
            error_status: 503,
            hang_rate: 0.05,
            slow_rate: 0.20,
            slow_by: Duration::from_secs(60),
        };
        let draws = draws(with_faults(faults), DRAWS);
        // Four standard deviations of the largest share are 0.016.
        let near =
            |got: f64, expected: f64| assert!((got - expected).abs() < 0.016, "{got} is not {expected}");
        near(share(&draws, |draw| draw.outcome == Outcome::Error { status: 503 }), 0.10);
        near(share(&draws, |draw| draw.outcome == Outcome::Hang), 0.05);
        near(share(&draws, |draw| draw.delay > Duration::from_secs(60)), 0.20);
    }

    #[test]
    fn certain_and_impossible_faults_are_just_that() {
        let always = |faults| draws(with_faults(faults), 200);
        let errors = always(Faults { error_rate: 1.0, hang_rate: 1.0, ..Faults::default() });
        assert!(errors.iter().all(|draw| draw.outcome == Outcome::Error { status: 503 }));
        let hangs = always(Faults { error_rate: -1.0, hang_rate: 1.0, ..Faults::default() });
        assert!(hangs.iter().all(|draw| draw.outcome == Outcome::Hang));
        let fine = always(Faults { error_rate: f64::NAN, ..Faults::default() });
        assert!(fine.iter().all(|draw| matches!(draw.outcome, Outcome::Answer { .. })));
    }

    #[test]
    fn a_fault_setting_does_not_change_the_delays() {
        let delays = |config| draws(config, 100).into_iter().map(|draw| draw.delay).collect::<Vec<_>>();
        let faulty = with_faults(Faults { error_rate: 0.5, ..Faults::default() });
        assert_eq!(delays(SimulatedConfig::default()), delays(faulty));
    }

    #[test]
    fn delays_have_the_configured_percentiles() {
        let draws = draws(SimulatedConfig::default(), DRAWS);
        let (p50, p99) = (percentile(&draws, 50), percentile(&draws, 99));
        assert!((p50 / 0.2 - 1.0).abs() < 0.1, "p50 is {p50}");
        assert!((p99 / 1.0 - 1.0).abs() < 0.1, "p99 is {p99}");
    }

    #[test]
    fn odd_latencies_are_no_crash() {
        let fixed = Duration::from_millis(30);
        let config =
            |latency_p50, latency_p99| SimulatedConfig { latency_p50, latency_p99, ..Default::default() };
        assert!(draws(config(Duration::ZERO, fixed), 50).iter().all(|draw| draw.delay.is_zero()));
        let same = |draw: &Draw| (draw.delay.as_secs_f64() - 0.03).abs() < 1e-6;
        assert!(draws(config(fixed, fixed), 50).iter().all(same));
        assert!(draws(config(fixed, Duration::ZERO), 50).iter().all(same));
        assert_eq!(draws(config(Duration::MAX, Duration::MAX), 50).len(), 50);
    }

    #[test]
    fn the_token_gap_follows_the_rate() {
        let gap = |tokens_per_second| {
            draws(SimulatedConfig { tokens_per_second, ..SimulatedConfig::default() }, 1)[0].token_gap
        };
        assert_eq!(gap(400.0), Duration::from_micros(2_500));
        assert_eq!(gap(0.0), Duration::ZERO);
        assert_eq!(gap(f64::NAN), Duration::ZERO);
        assert_eq!(gap(f64::INFINITY), Duration::ZERO);
    }

    #[test]
    fn usage_counts_what_was_read_and_written() {
        for draw in draws(SimulatedConfig::default(), 500) {
            let (content, usage) = answer(&draw);
            assert_eq!(usage.prompt_tokens, 3 + 2 * 3, "11 characters make 3 tokens, two messages 6");
            assert!((20..=120).contains(&usage.completion_tokens));
            assert_eq!(content.split_whitespace().count() as u64, usage.completion_tokens);
        }
    }

    #[test]
    fn the_bound_of_the_request_is_kept() {
        let simulator = Simulator::new(SimulatedConfig::default());
        for (bound, expected) in [(5, 5), (1, 1), (0, 1)] {
            let body = format!(r#"{{"model":"m","max_tokens":{bound},"messages":[{{"content":"x"}}]}}"#);
            let draw = simulator.draw(&request(&body));
            assert_eq!(answer(&draw).1.completion_tokens, expected);
        }
    }

    #[test]
    fn swapped_bounds_of_length_are_read_the_other_way_round() {
        let config = SimulatedConfig { completion_min: 9, completion_max: 3, ..SimulatedConfig::default() };
        assert!(draws(config, 100).iter().all(|draw| answer(draw).1.completion_tokens <= 9));
    }

    #[test]
    fn configured_answers_come_in_turn() {
        let answers = vec!["four".to_owned(), "grün!".to_owned()];
        let draws = draws(SimulatedConfig { answers, ..SimulatedConfig::default() }, 4);
        let contents: Vec<&str> = draws.iter().map(|draw| answer(draw).0).collect();
        assert_eq!(contents, ["four", "grün!", "four", "grün!"]);
        assert_eq!(answer(&draws[1]).1.completion_tokens, 2);
    }

    #[test]
    fn composed_answers_are_sentences_and_differ() {
        let draws = draws(SimulatedConfig::default(), 20);
        let contents: std::collections::BTreeSet<&str> = draws.iter().map(|draw| answer(draw).0).collect();
        assert_eq!(contents.len(), 20);
        assert!(contents.iter().all(|text| text.ends_with('.') && text.starts_with(char::is_uppercase)));
    }

    #[test]
    fn calls_are_counted() {
        let simulator = Simulator::new(SimulatedConfig::default());
        simulator.draw(&hello());
        simulator.draw(&hello());
        assert_eq!(simulator.calls(), 2);
    }
}
