//! What a model call is to its caller: duration, tokens, and the pace of its chunks.

use std::time::Duration;

use opentelemetry::TraceId;
use throughline::Kind;
use throughline::telemetry::{Counter, Family, Histogram, Intervals, Registry, Tick};

use super::{
    CACHE_READ_TOKENS, CACHE_WRITE_TOKENS, CHAT, INFERENCE_DURATION, INFERENCE_FIRST_CHUNK,
    INFERENCE_PER_CHUNK, INPUT_TOKENS, OPERATION_DURATION, OPERATION_FIRST_CHUNK, OPERATION_PER_CHUNK,
    OUTPUT_TOKENS, REASONING_TOKENS, TOKEN_USAGE,
};
use crate::openai::Usage;

/// Handles to the series of calls to one model of one provider, by the names that the instance follows.
#[derive(Debug)]
pub struct Client {
    labels: [String; 2],
    v1_41: Option<Old>,
    latest: Option<New>,
}

#[derive(Debug)]
struct Old {
    times: Times,
    input: Histogram,
    output: Histogram,
}

#[derive(Debug)]
struct New {
    times: Times,
    input: Counter,
    output: Counter,
    cache_read: Counter,
    cache_write: Counter,
    reasoning: Counter,
}

#[derive(Debug)]
struct Times {
    duration: &'static Family,
    succeeded: Histogram,
    first_chunk: Histogram,
    per_chunk: Histogram,
}

/// Follows the chunks of one stream.
#[derive(Debug)]
pub(crate) enum Pace {
    /// None has come since the stream was asked for.
    Asked {
        at: Tick,
        per_chunk: Box<[Histogram]>,
    },
    Coming(Intervals),
}

/// How a call ended, as far as its series want to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) elapsed: Duration,
    pub(crate) error: Option<Kind>,
    pub(crate) usage: Option<Usage>,
    pub(crate) first_chunk: Option<Duration>,
    pub(crate) trace: Option<TraceId>,
}

// === impl Client ===

impl Client {
    /// The series of calls to `model` of `provider`, at zero.
    #[must_use]
    pub fn declare(registry: &Registry, provider: &str, model: &str) -> Self {
        let names = registry.semconv().gen_ai;
        Self {
            labels: [provider.to_owned(), model.to_owned()],
            v1_41: names.v1_41().then(|| Old::declare(registry, provider, model)),
            latest: names.latest().then(|| New::declare(registry, provider, model)),
        }
    }

    /// Follows a stream that has been asked for at `started`.
    pub(crate) fn pace(&self, started: Tick) -> Pace {
        let per_chunk = self.times().into_iter().flatten().map(|times| times.per_chunk.clone()).collect();
        Pace::Asked { at: started, per_chunk }
    }

    /// Takes down a call that has ended.
    pub(crate) fn ended(&self, call: &Call, registry: Option<&Registry>) {
        for times in self.times().into_iter().flatten() {
            match (call.error, registry) {
                (None, _) => times.succeeded.observe_time(call.elapsed, call.trace),
                (Some(kind), Some(registry)) => {
                    let [provider, model] = &self.labels;
                    let labels = [CHAT, provider, model, kind.as_str()];
                    registry.histogram(times.duration, &labels).observe_time(call.elapsed, call.trace);
                }
                (Some(_), None) => {}
            }
            if let Some(first) = call.first_chunk {
                times.first_chunk.observe_time(first, call.trace);
            }
        }
        let Some(usage) = &call.usage else { return };
        if let Some(old) = &self.v1_41 {
            old.input.observe(tokens(usage.prompt_tokens), call.trace);
            old.output.observe(tokens(usage.completion_tokens), call.trace);
        }
        if let Some(new) = &self.latest {
            new.input.add(usage.prompt_tokens);
            new.output.add(usage.completion_tokens);
            new.cache_read.add(usage.cached_tokens);
            new.cache_write.add(usage.cache_write_tokens);
            new.reasoning.add(usage.reasoning_tokens);
        }
    }

    fn times(&self) -> [Option<&Times>; 2] {
        [self.v1_41.as_ref().map(|old| &old.times), self.latest.as_ref().map(|new| &new.times)]
    }
}

#[expect(clippy::cast_precision_loss, reason = "nobody uses 2^53 tokens in one call")]
fn tokens(count: u64) -> f64 {
    count as f64
}

// === impl Old ===

impl Old {
    fn declare(registry: &Registry, provider: &str, model: &str) -> Self {
        let usage = |kind| registry.histogram(&TOKEN_USAGE, &[CHAT, provider, model, kind]);
        let families = [&OPERATION_DURATION, &OPERATION_FIRST_CHUNK, &OPERATION_PER_CHUNK];
        Self {
            times: Times::declare(registry, families, provider, model),
            input: usage("input"),
            output: usage("output"),
        }
    }
}

// === impl New ===

impl New {
    fn declare(registry: &Registry, provider: &str, model: &str) -> Self {
        // No provider says of what its counts are.
        let counter = |family| registry.counter(family, &[CHAT, provider, model, "unknown"]);
        let families = [&INFERENCE_DURATION, &INFERENCE_FIRST_CHUNK, &INFERENCE_PER_CHUNK];
        Self {
            times: Times::declare(registry, families, provider, model),
            input: counter(&INPUT_TOKENS),
            output: counter(&OUTPUT_TOKENS),
            cache_read: counter(&CACHE_READ_TOKENS),
            cache_write: counter(&CACHE_WRITE_TOKENS),
            reasoning: counter(&REASONING_TOKENS),
        }
    }
}

// === impl Times ===

impl Times {
    fn declare(
        registry: &Registry,
        [duration, first_chunk, per_chunk]: [&'static Family; 3],
        provider: &str,
        model: &str,
    ) -> Self {
        let labels = [CHAT, provider, model];
        Self {
            duration,
            // An empty label is one that is not there.
            succeeded: registry.histogram(duration, &[CHAT, provider, model, ""]),
            first_chunk: registry.histogram(first_chunk, &labels),
            per_chunk: registry.histogram(per_chunk, &labels),
        }
    }
}

// === impl Pace ===

impl Pace {
    /// Takes down a chunk; the time to the first one is for the caller to keep.
    #[inline]
    pub(crate) fn chunk(&mut self) -> Option<Duration> {
        match self {
            Self::Coming(intervals) => {
                intervals.mark();
                None
            }
            Self::Asked { .. } => self.first(),
        }
    }

    #[cold]
    fn first(&mut self) -> Option<Duration> {
        let Self::Asked { at, per_chunk } = self else { return None };
        let now = at.clock().now();
        let elapsed = now.since(*at);
        *self = Self::Coming(Intervals::from(now, std::mem::take(per_chunk)));
        Some(elapsed)
    }
}

#[cfg(test)]
mod tests {
    use throughline::telemetry::{Clock, Telemetry};
    use throughline::testing::Recorder;

    use super::*;

    fn told(recorder: &Recorder, what: &str) -> Option<f64> {
        let family = "gen_ai_client_operation_time_per_output_chunk_seconds";
        recorder.metric(&format!("{family}_{what}"), &[("gen_ai_request_model", "m")])
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_of_a_slow_stream_do_not_wait_for_its_end() {
        let recorder = Recorder::of(Telemetry::builder().clock(Clock::Tokio));
        let client = Client::declare(recorder.sink().registry().unwrap(), "p", "m");
        let mut pace = client.pace(Clock::Tokio.now());
        for expected in [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0] {
            pace.chunk();
            assert_eq!(told(&recorder, "count"), Some(expected));
            tokio::time::advance(Duration::from_secs(2)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_pause_between_chunks_counts_once_however_many_there_are() {
        for chunks in [0, 1, 2, 63, 64, 65, 127, 128, 300] {
            let recorder = Recorder::of(Telemetry::builder().clock(Clock::Tokio));
            let client = Client::declare(recorder.sink().registry().unwrap(), "p", "m");
            let mut pace = client.pace(Clock::Tokio.now());
            let mut firsts = Vec::new();
            for _ in 0..chunks {
                tokio::time::advance(Duration::from_millis(20)).await;
                firsts.extend(pace.chunk());
            }
            drop(pace);
            assert_eq!(firsts, vec![Duration::from_millis(20); usize::from(chunks > 0)], "{chunks}");
            let told = |what| told(&recorder, what);
            let pauses = f64::from(chunks).max(1.0) - 1.0;
            assert_eq!(told("count"), Some(pauses), "{chunks}");
            assert!((told("sum").unwrap() - 0.02 * pauses).abs() < 1e-9, "{chunks}");
        }
    }

    #[tokio::test]
    async fn pauses_of_the_real_clock_count_when_the_stream_is_over() {
        let recorder = Recorder::of(Telemetry::builder());
        let client = Client::declare(recorder.sink().registry().unwrap(), "p", "m");
        let mut pace = client.pace(Clock::Monotonic.now());
        let firsts = (0..300).filter_map(|_| pace.chunk()).count();
        drop(pace);
        assert_eq!((firsts, told(&recorder, "count")), (1, Some(299.0)));
        assert!(told(&recorder, "sum").unwrap() > 0.0);
    }
}
