//! What is stored of an answer, and that nothing else is ever served.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use throughline::cache::{Found, Lifetime, Lookup};
use throughline::telemetry::Tick;
use throughline::{CacheConfig, CacheOutcome, Caching, Context, Key, Kind, Memory, Result, Store};
use throughline_llm::openai::{ChatRequest, Usage};
use throughline_llm::simulated::SimulatedConfig;
use throughline_llm::{Answer, ChatCaching, ChatStream, Completion, PriceTable};

use super::{PLAIN, ask, cached, request, whole};

fn caching() -> ChatCaching {
    ChatCaching::new(PriceTable::builtin().into())
}

fn encode(answer: Completion) -> Bytes {
    Caching::<ChatRequest, _>::encode(&caching(), &Answer::Full(answer)).unwrap()
}

fn decode(value: &[u8]) -> Result<Answer> {
    let answer = caching().decode(Bytes::copy_from_slice(value), &request(PLAIN), &Context::new());
    answer.map(|answer| answer.expect("it was kept in the form that is asked for"))
}

fn any_usage() -> impl Strategy<Value = Usage> {
    any::<(u64, u64, u64, [u64; 2], u64)>().prop_map(|(prompt, completion, cached, written, reasoning)| {
        let mut usage = Usage::new(prompt, completion);
        (usage.cached_tokens, usage.reasoning_tokens) = (cached, reasoning);
        [usage.cache_write_tokens, usage.cache_write_1h_tokens] = written;
        usage
    })
}

fn any_answer() -> impl Strategy<Value = Completion> {
    (".{0,200}", ".{0,20}", prop::option::of(any_usage())).prop_map(|(text, model, usage)| {
        let body = json!({"choices": [{"message": {"content": text}}]}).to_string();
        Completion::new(body.into(), model.into(), usage)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_stored_comes_back_as_it_was(answer in any_answer()) {
        let Ok(Answer::Full(back)) = decode(&encode(answer.clone())) else {
            return Err(TestCaseError::fail("it was stored"));
        };
        prop_assert_eq!(back, answer);
    }

    #[test]
    fn a_value_that_was_cut_short_is_corrupt(answer in any_answer()) {
        let value = encode(answer);
        for length in 0..value.len() {
            prop_assert_eq!(decode(&value[..length]).unwrap_err().kind(), Kind::Store);
        }
    }

    #[test]
    fn a_value_with_a_wrong_bit_or_more_at_its_end_is_corrupt(
        answer in any_answer(), at in any::<prop::sample::Index>(), bit in 0_u8..8, more in any::<u8>()
    ) {
        let mut value = encode(answer).to_vec();
        value.push(more);
        prop_assert!(decode(&value).is_err());
        value.pop();
        let at = at.index(value.len());
        value[at] ^= 1_u8 << bit;
        prop_assert!(decode(&value).is_err());
    }

    #[test]
    fn garbage_is_corrupt(value in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(decode(&value).is_err());
    }
}

#[test]
fn an_answer_that_is_none_is_not_stored() {
    for (body, stored) in [
        (r#"{"choices":[{"finish_reason":"stop"}]}"#, true),
        (r#"{"choices":[{"finish_reason":"content_filter"}]}"#, false),
        (r#"{"choices":[]}"#, false),
        (r#"{"choices":[{}],"error":{"message":"overloaded"}}"#, false),
    ] {
        let answer = Answer::Full(Completion::new(body.into(), "m".into(), None));
        assert_eq!(Caching::<ChatRequest, _>::encode(&caching(), &answer).is_some(), stored, "{body}");
    }
}

#[test]
fn a_stream_that_has_not_ended_is_not_stored() {
    let stream = ChatStream::new(futures_util::stream::empty(), "m".into(), &Context::new());
    assert!(Caching::<ChatRequest, _>::encode(&caching(), &Answer::Stream(stream)).is_none());
}

#[test]
fn an_answer_saves_what_it_would_cost_again() {
    let saved = |model: &str, usage| {
        let answer = Answer::Full(Completion::new(Bytes::new(), model.into(), usage));
        Caching::<ChatRequest, _>::saved_usd(&caching(), &answer)
    };
    assert_eq!(saved("gpt-4o-mini", Some(Usage::new(1_000_000, 500_000))), Some(0.45));
    assert_eq!(saved("gpt-4o-mini", Some(Usage::default())), Some(0.0));
    assert_eq!(saved("gpt-4o-mini", None), None);
    assert_eq!(saved("never-heard-of", Some(Usage::new(1, 1))), None);
}

/// A store whose values come back as `spoil` leaves them.
struct Spoiling<F> {
    values: Memory,
    spoil: F,
}

impl<F: Fn(Bytes) -> Bytes + Send + Sync> Store for Spoiling<F> {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        let found = self.values.get(key, now).await?;
        Ok(match found {
            Lookup::Found(found) => Lookup::Found(Found { value: (self.spoil)(found.value), ..found }),
            nothing => nothing,
        })
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.values.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.values.delete(key, now).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_damaged_value_is_never_served() {
    let spoils: [fn(Bytes) -> Bytes; 4] = [
        |value| value.slice(..value.len() - 1),
        |value| value.slice(..value.len() / 2),
        |_| Bytes::new(),
        |value| Bytes::from(value.to_ascii_uppercase()),
    ];
    for spoil in spoils {
        let store = Arc::new(Spoiling { values: Memory::new(1 << 20).unwrap(), spoil });
        let config = CacheConfig::new("chat", Duration::from_secs(60)).unwrap();
        let flow = ask("gpt-4o-mini", SimulatedConfig::default()).cache(config, caching(), store);
        let mut bodies = Vec::new();
        for expected in [CacheOutcome::Miss, CacheOutcome::Corrupt, CacheOutcome::Corrupt] {
            let cx = Context::new();
            bodies.push(whole(flow.run(request(PLAIN), &cx).await).body);
            assert_eq!(cached(&cx), expected);
        }
        assert!(bodies.iter().all(|body| serde_json::from_slice::<serde_json::Value>(body).is_ok()));
        assert!(bodies[0] != bodies[1] && bodies[1] != bodies[2], "each answer is a new one");
        let stats = flow.stage().stats();
        assert_eq!((stats.hits, stats.misses, stats.corrupt), (0, 3, 2));
        assert_eq!(stats.savings_usd, 0.0);
    }
}
