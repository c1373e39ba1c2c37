//! The simulated provider as a stage: repeatable, on time, and as faulty as it is told to be.

use std::time::Duration;

use serde_json::Value;
use throughline::{Context, Kind, TimeoutConfig};
use throughline_llm::Refusal;
use throughline_llm::openai::{DONE, Usage};
use throughline_llm::simulated::SimulatedConfig;
use tokio::time::Instant;

use super::{PLAIN, STREAMED, ask, drain, request, simulation, streamed, whole};

/// Runs for which a rate is measured, and four standard deviations of a rate of 0.2 over them.
const RUNS: usize = 2_000;
const SPREAD: f64 = 0.036;

/// The text, usage and time of each of `runs` answers.
async fn answers(config: SimulatedConfig, runs: usize) -> Vec<(String, Option<Usage>, Duration)> {
    let flow = ask("m", config);
    let mut seen = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let answer = whole(flow.run(request(PLAIN), &Context::new()).await);
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        let text = body["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
        seen.push((text, answer.usage, start.elapsed()));
    }
    seen
}

fn near(count: usize, rate: f64) {
    let got = count as f64 / RUNS as f64;
    assert!((got - rate).abs() < SPREAD, "{got} is not {rate}");
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_texts_tokens_and_times() {
    let seeded = |seed| simulation(|config| config.seed = seed);
    let one = answers(seeded(7), 50).await;
    assert_eq!(one, answers(seeded(7), 50).await);
    assert_ne!(one, answers(seeded(8), 50).await);
}

#[tokio::test(start_paused = true)]
async fn answers_take_the_configured_time() {
    let fixed = simulation(|config| {
        (config.latency_p50, config.latency_p99) = (Duration::from_millis(300), Duration::from_millis(300));
    });
    for (_, _, took) in answers(fixed, 20).await {
        // The clock of tokio counts in milliseconds.
        assert!(took >= Duration::from_millis(300) && took <= Duration::from_millis(302), "{took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_says_what_a_whole_answer_says_one_word_at_a_time() {
    let config = simulation(|config| {
        config.answers = vec!["grün \"is\" the\n\ncolour".into()];
        config.latency_p50 = Duration::ZERO;
        config.tokens_per_second = 10.0;
    });
    let start = Instant::now();
    let events =
        drain(streamed(ask("m", config.clone()).run(request(STREAMED), &Context::new()).await)).await;
    // Three words of content and the stop, 100 ms apart.
    assert_eq!(start.elapsed(), Duration::from_millis(400));
    assert!(events.ends_with(std::str::from_utf8(DONE).unwrap()));
    assert!(!events.contains("usage"), "nobody asked for it");
    let said: String = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
        .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(said, answers(config, 1).await[0].0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_tells_usage_to_who_asks() {
    let asking = STREAMED.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1);
    let stream = streamed(ask("m", SimulatedConfig::default()).run(request(&asking), &Context::new()).await);
    assert!(drain(stream).await.contains(r#""choices":[],"usage":{"prompt_tokens":4,"#));
}

#[tokio::test(start_paused = true)]
async fn faults_come_at_the_configured_rates() {
    let faulty = simulation(|config| {
        config.faults.error_rate = 0.2;
        config.faults.error_status = 503;
        config.faults.hang_rate = 0.1;
        config.faults.slow_rate = 0.2;
        config.faults.slow_by = Duration::from_secs(30);
    });
    let limit = TimeoutConfig::new("ask", Duration::from_secs(3600)).unwrap();
    let flow = ask("m", faulty).timeout(limit);
    let (mut errors, mut hangs, mut slow) = (0, 0, 0);
    for _ in 0..RUNS {
        let start = Instant::now();
        match flow.run(request(PLAIN), &Context::new()).await.map_err(|error| error.kind()) {
            Err(Kind::Upstream) => errors += 1,
            Err(Kind::Timeout) => hangs += 1,
            Err(other) => panic!("{other:?} was not asked for"),
            Ok(_) => {}
        }
        slow += usize::from((30..3600).contains(&start.elapsed().as_secs()));
    }
    near(errors, 0.2);
    near(hangs, 0.1);
    near(slow, 0.2 * 0.9);
}

#[tokio::test(start_paused = true)]
async fn a_simulated_error_is_what_a_real_one_would_be() {
    for (status, kind, retryable) in [
        (400, Kind::InvalidInput, false),
        (401, Kind::Upstream, false),
        (429, Kind::RateLimited, true),
        (503, Kind::Upstream, true),
    ] {
        let faulty = simulation(|config| {
            (config.faults.error_rate, config.faults.error_status) = (1.0, status);
        });
        let error = ask("m", faulty).run(request(PLAIN), &Context::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (kind, retryable), "{status}");
        assert_eq!(error.cause::<Refusal>().is_some(), status == 400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hang_lasts_as_long_as_the_timeout_around_it() {
    let hanging = simulation(|config| config.faults.hang_rate = 1.0);
    let flow = ask("m", hanging).timeout(TimeoutConfig::new("ask", Duration::from_secs(2)).unwrap());
    for body in [PLAIN, STREAMED] {
        let start = Instant::now();
        let error = flow.run(request(body), &Context::new()).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (Kind::Timeout, Duration::from_secs(2)));
    }
    assert_eq!(flow.stage().stats().timeouts, 2);
}
