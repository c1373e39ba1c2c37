//! The semantic cache inside the exact one, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use opentelemetry::Value;
use proptest::prelude::*;
use throughline::cache::{CachePolicy, Lifetime, Lookup, StoreHealth};
use throughline::telemetry::Tick;
use throughline::testing::Recorder;
use throughline::{
    Boxed, CacheConfig, CacheOutcome, Context, Key, Memory, Result, Store, TimeoutConfig, Workflow, workflow,
};
use throughline_llm::caching::TENANT;
use throughline_llm::openai::ChatRequest;
use throughline_llm::semantic::{Embedded, Embedder, SemanticConfig, Similarity, Vector, semantic};
use throughline_llm::{Answer, ChatCaching, PriceTable};
use tokio::time::{Instant, advance, sleep};

use super::{ask, cached, request, simulation, whole};

const TTL: Duration = Duration::from_secs(60);
const QUESTION: &str = "How do I reset my password?";
const REWORDED: &str = "how can i reset my passwords";

type Flow = Workflow<Boxed<ChatRequest, Answer>>;

fn question(text: &str) -> ChatRequest {
    request(&format!(r#"{{"model":"auto","messages":[{{"role":"user","content":"{text}"}}]}}"#))
}

/// Numbered answers, each after a fifth of a second, behind a semantic cache and an exact one as `change` says.
fn flow(config: SemanticConfig, embedder: Embedder, change: impl FnOnce(CacheConfig) -> CacheConfig) -> Flow {
    flow_on(Arc::new(Memory::new(1 << 20).unwrap()), config, embedder, change)
}

fn flow_on<S: Store + 'static>(
    store: Arc<S>,
    config: SemanticConfig,
    embedder: Embedder,
    change: impl FnOnce(CacheConfig) -> CacheConfig,
) -> Flow {
    let answers = (1..=200).map(|n| n.to_string()).collect();
    let provider = simulation(|config| {
        config.answers = answers;
        config.latency_p99 = config.latency_p50;
    });
    let cache = change(CacheConfig::new("auto", TTL).unwrap().jitter(0.0).unwrap());
    let caching = ChatCaching::new(PriceTable::builtin().into());
    let exact = (cache.clone(), caching.clone(), Arc::clone(&store));
    let inner = semantic(ask("gpt-4o-mini", provider), config, exact, embedder);
    inner.cache(cache, caching, store).boxed()
}

fn answering() -> SemanticConfig {
    SemanticConfig::new(0.8).unwrap().answering().audit(0.0).unwrap()
}

/// The text, what the exact cache says, and whether it was another question's.
async fn told(flow: &Flow, text: &str, cx: &Context) -> (String, CacheOutcome, bool) {
    let answer = whole(flow.run(question(text), cx).await);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    let said = body["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    (said, cached(cx), cx.state().get::<Similarity>().is_some())
}

fn is(text: &str, outcome: CacheOutcome, other: bool) -> (String, CacheOutcome, bool) {
    (text.to_owned(), outcome, other)
}

/// An embedder whose calls are what `call` makes of their number, within a quarter of a second.
fn slow<F: Future<Output = ()> + Send + 'static>(
    call: impl Fn(usize) -> F + Send + Sync + 'static,
) -> Embedder {
    let calls = AtomicUsize::new(0);
    let model = workflow("embed", move |texts: Vec<String>| {
        let waits = call(calls.fetch_add(1, Ordering::Relaxed));
        async move {
            waits.await;
            Ok(Embedded::new(vec![Vector::new(&[1.0]).expect("it points somewhere"); texts.len()], None))
        }
    });
    let limit = TimeoutConfig::new("embed", Duration::from_millis(250)).unwrap();
    Embedder::asked("slow", model.timeout(limit).boxed())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_as_old_for_other_questions_as_for_its_own() {
    let (recorder, flow) = (Recorder::new(), flow(answering(), Embedder::ngrams(), |cache| cache));
    let told = async |text: &str| told(&flow, text, &recorder.context()).await;
    assert_eq!(told(QUESTION).await, is("1", CacheOutcome::Miss, false));
    advance(TTL - Duration::from_secs(1)).await;
    assert_eq!(told(REWORDED).await, is("1", CacheOutcome::Hit, true));
    advance(Duration::from_secs(2)).await;
    assert_eq!(told(REWORDED).await, is("2", CacheOutcome::Miss, false), "a hit makes nothing younger");
    assert_eq!(told(QUESTION).await, is("2", CacheOutcome::Hit, true));
}

#[tokio::test(start_paused = true)]
async fn a_refresh_in_the_background_makes_a_new_answer() {
    let refreshed = |cache: CacheConfig| cache.stale_while_revalidate(10 * TTL);
    let (recorder, flow) = (Recorder::new(), flow(answering(), Embedder::ngrams(), refreshed));
    let told = async |text: &str| told(&flow, text, &recorder.context()).await;
    told(QUESTION).await;
    advance(TTL / 2).await;
    // Another question, near enough to answer the first, has an answer of its own that is still fresh.
    let renewing = recorder.context();
    renewing.state().insert(CachePolicy::new().no_cache());
    assert_eq!(super::semantic::told(&flow, REWORDED, &renewing).await, is("2", CacheOutcome::Bypass, false));
    advance(TTL / 2 + Duration::from_secs(1)).await;
    assert_eq!(told(QUESTION).await, is("1", CacheOutcome::Stale, false));
    sleep(Duration::from_secs(5)).await;
    assert_eq!(told(QUESTION).await, is("3", CacheOutcome::Hit, false));
}

#[tokio::test(start_paused = true)]
async fn an_embedder_that_hangs_takes_its_deadline_and_nothing_else() {
    let flow = flow(answering(), slow(|_| std::future::pending()), |cache| cache);
    let begun = Instant::now();
    let told = told(&flow, QUESTION, &Recorder::new().context()).await;
    assert_eq!(told, is("1", CacheOutcome::Miss, false));
    assert_eq!(begun.elapsed().as_millis(), 250 + 200);
}

#[tokio::test(start_paused = true)]
async fn a_shadow_takes_no_time_of_a_request_however_sick_its_embedder_is() {
    let (recorder, shadow) = (Recorder::new(), SemanticConfig::new(0.8).unwrap());
    let flow = flow(shadow, slow(|_| std::future::pending()), |cache| cache);
    let begun = Instant::now();
    assert_eq!(told(&flow, QUESTION, &recorder.context()).await, is("1", CacheOutcome::Miss, false));
    assert_eq!(begun.elapsed().as_millis(), 200);
    sleep(Duration::from_secs(1)).await;
    let errors = recorder.metric("semantic_cache_lookups_total", &[("mode", "shadow"), ("outcome", "error")]);
    assert_eq!(errors, Some(1.0));
}

#[tokio::test(start_paused = true)]
async fn too_many_comparisons_at_once_are_skipped_and_counted() {
    let (recorder, shadow) = (Recorder::new(), SemanticConfig::new(0.8).unwrap());
    let flow = flow(shadow, slow(|_| std::future::pending()), |cache| cache);
    let texts: Vec<_> = (0..100).map(|n| format!("what is {n}")).collect();
    let all = texts.iter().map(|text| async { told(&flow, text, &recorder.context()).await.1 });
    let outcomes = futures_util::future::join_all(all).await;
    assert!(outcomes.iter().all(|outcome| *outcome == CacheOutcome::Miss));
    let skipped = [("primitive", "semantic_cache"), ("event", "shadow_skipped")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &skipped), Some(36.0));
}

#[tokio::test(start_paused = true)]
async fn spans_say_how_near_the_nearest_question_was() {
    let (recorder, flow) = (
        Recorder::new(),
        flow(SemanticConfig::new(0.5).unwrap().answering(), Embedder::ngrams(), |cache| cache),
    );
    for text in [QUESTION, REWORDED, "how can i reset my 2 passwords"] {
        told(&flow, text, &recorder.context()).await;
    }
    let spans = recorder.spans();
    let of = |key: &str| {
        let spans = spans.iter().filter(|span| span.name == "semantic_cache auto");
        let values = spans.map(|span| span.attributes.iter().find(|found| found.key.as_str() == key));
        values.map(|found| found.map(|found| found.value.clone())).collect::<Vec<_>>()
    };
    let outcomes: Vec<_> =
        of("throughline.semantic.outcome").into_iter().flatten().map(|value| value.to_string()).collect();
    assert_eq!(outcomes, ["miss", "hit", "guarded"]);
    let similarities = of("throughline.semantic.similarity");
    assert_eq!(similarities[0], None, "there was nothing to be near to");
    assert!(
        matches!(similarities[1], Some(Value::F64(found)) if (0.8..1.0).contains(&found)),
        "{similarities:?}"
    );
    assert!(matches!(similarities[2], Some(Value::F64(_))));
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_goes_away_leaves_nothing_behind() {
    let (recorder, flow) =
        (Recorder::new(), flow(answering(), slow(|_| std::future::pending()), |cache| cache));
    let cx = recorder.context();
    let left = tokio::time::timeout(Duration::from_millis(100), flow.run(question(QUESTION), &cx)).await;
    assert!(left.is_err());
    for primitive in ["semantic_cache", "cache", "timeout"] {
        let running = [("primitive", primitive)];
        assert_eq!(recorder.metric("throughline_primitive_in_flight", &running), Some(0.0), "{primitive}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_question_many_times_at_once_is_embedded_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let embedder = slow(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(50))
    });
    let (recorder, flow) = (Recorder::new(), flow(answering(), embedder, |cache| cache));
    told(&flow, QUESTION, &recorder.context()).await;
    let all = (0..100).map(|_| async { told(&flow, REWORDED, &recorder.context()).await });
    let all = futures_util::future::join_all(all).await;
    assert!(all.iter().all(|answer| *answer == is("1", CacheOutcome::Hit, true)));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

/// A store that can lose what it has, or hang when it is read.
struct Frail {
    kept: Memory,
    health: Arc<StoreHealth>,
    is: AtomicU8,
}

const FINE: u8 = 0;
const EMPTY: u8 = 1;
const HUNG: u8 = 2;

impl Frail {
    fn new() -> Arc<Self> {
        let (kept, health) = (Memory::new(1 << 20).unwrap(), Arc::new(StoreHealth::new("frail")));
        Arc::new(Self { kept, health, is: AtomicU8::new(FINE) })
    }

    fn becomes(&self, how: u8) {
        self.is.store(how, Ordering::Relaxed);
    }
}

impl Store for Frail {
    async fn get(&self, key: &Key, now: Tick) -> Result<Lookup> {
        match self.is.load(Ordering::Relaxed) {
            HUNG => std::future::pending().await,
            EMPTY => Ok(Lookup::Missing),
            _ => self.kept.get(key, now).await,
        }
    }

    async fn put(&self, key: Key, value: Bytes, lifetime: Lifetime, now: Tick) -> Result<bool> {
        self.kept.put(key, value, lifetime, now).await
    }

    async fn delete(&self, key: &Key, now: Tick) -> Result<()> {
        self.kept.delete(key, now).await
    }

    fn health(&self) -> Option<Arc<StoreHealth>> {
        Some(Arc::clone(&self.health))
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_left_alone_is_not_waited_for_again() {
    let (recorder, store) = (Recorder::new(), Frail::new());
    let flow = flow_on(Arc::clone(&store), answering(), Embedder::ngrams(), |cache| cache);
    told(&flow, QUESTION, &recorder.context()).await;
    store.becomes(HUNG);
    for _ in 0..5 {
        told(&flow, REWORDED, &recorder.context()).await;
    }
    let begun = Instant::now();
    assert_eq!(told(&flow, REWORDED, &recorder.context()).await, is("7", CacheOutcome::Bypass, false));
    assert_eq!(begun.elapsed().as_millis(), 200);
    let errors = recorder.metric("semantic_cache_lookups_total", &[("outcome", "error")]);
    assert_eq!(errors, Some(6.0));
}

#[tokio::test(start_paused = true)]
async fn nobody_embeds_while_the_store_is_left_alone() {
    for config in [answering(), SemanticConfig::new(0.8).unwrap()] {
        let (recorder, store, asked) = (Recorder::new(), Frail::new(), Arc::new(AtomicUsize::new(0)));
        let counts = Arc::clone(&asked);
        let embedder = slow(move |_| {
            counts.fetch_add(1, Ordering::Relaxed);
            std::future::ready(())
        });
        let flow = flow_on(Arc::clone(&store), config.clone(), embedder, |cache| cache);
        let ask = async |n: usize, policy: CachePolicy| {
            let cx = recorder.context();
            cx.state().insert(policy);
            told(&flow, &format!("{QUESTION} {}", "again ".repeat(n)), &cx).await;
            sleep(Duration::from_millis(100)).await;
            asked.load(Ordering::Relaxed)
        };
        assert_eq!(ask(0, CachePolicy::new()).await, 1);
        store.becomes(HUNG);
        for n in 1..=5 {
            ask(n, CachePolicy::new()).await;
        }
        let before = asked.load(Ordering::Relaxed);
        assert_eq!(ask(6, CachePolicy::new()).await, before, "{config:?}");
        assert_eq!(ask(7, CachePolicy::new().no_cache()).await, before, "nothing is stored");
        store.becomes(FINE);
        advance(Duration::from_secs(2)).await;
        ask(8, CachePolicy::new()).await;
        assert_eq!(ask(9, CachePolicy::new()).await, before + 2, "it is back");
    }
}

#[tokio::test(start_paused = true)]
async fn who_wants_no_trace_is_not_embedded_and_who_takes_nothing_old_does_not_wait_for_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let embedder = slow(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(100))
    });
    let (recorder, flow) = (Recorder::new(), flow(answering(), embedder, |cache| cache));
    let took = async |text: &str, policy: CachePolicy| {
        let (cx, begun) = (recorder.context(), Instant::now());
        cx.state().insert(policy);
        told(&flow, text, &cx).await;
        let took = begun.elapsed().as_millis();
        sleep(Duration::from_secs(1)).await;
        (took, asked.load(Ordering::Relaxed))
    };
    assert_eq!(took(QUESTION, CachePolicy::new().no_store()).await, (200, 0));
    assert_eq!(took(QUESTION, CachePolicy::new().max_age(Duration::ZERO)).await, (200, 1), "it is stored");
    assert_eq!(told(&flow, REWORDED, &recorder.context()).await, is("2", CacheOutcome::Hit, true));
}

#[tokio::test(start_paused = true)]
async fn a_question_whose_answer_is_gone_is_forgotten_at_once() {
    let (recorder, store) = (Recorder::new(), Frail::new());
    let flow = flow_on(Arc::clone(&store), answering(), Embedder::ngrams(), |cache| cache);
    let known = || recorder.metric("semantic_cache_entries", &[("operation", "auto")]);
    told(&flow, QUESTION, &recorder.context()).await;
    assert_eq!(known(), Some(1.0));
    advance(Duration::from_secs(3)).await;
    store.becomes(EMPTY);
    let cx = recorder.context();
    let meanwhile = async {
        sleep(Duration::from_millis(100)).await;
        known()
    };
    let (told, meanwhile) = tokio::join!(told(&flow, REWORDED, &cx), meanwhile);
    assert_eq!((told, meanwhile), (is("2", CacheOutcome::Miss, false), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn signs_alone_are_no_question_and_no_error() {
    let (recorder, flow) = (Recorder::new(), flow(answering(), Embedder::ngrams(), |cache| cache));
    told(&flow, "?!", &recorder.context()).await;
    let count = |outcome| recorder.metric("semantic_cache_lookups_total", &[("outcome", outcome)]);
    assert_eq!((count("ineligible"), count("error")), (Some(1.0), Some(0.0)));
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_not_looked_for_does_not_wait_for_its_embedding() {
    let (recorder, flow) =
        (Recorder::new(), flow(answering(), slow(|_| sleep(Duration::from_millis(100))), |cache| cache));
    let (renewing, begun) = (recorder.context(), Instant::now());
    renewing.state().insert(CachePolicy::new().no_cache());
    assert_eq!(told(&flow, QUESTION, &renewing).await, is("1", CacheOutcome::Bypass, false));
    assert_eq!(begun.elapsed().as_millis(), 200);
    sleep(Duration::from_millis(200)).await;
    assert_eq!(told(&flow, REWORDED, &recorder.context()).await, is("1", CacheOutcome::Hit, true));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_pays_for_what_another_has_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counts = Arc::clone(&asked);
    let embedder = slow(move |_| {
        counts.fetch_add(1, Ordering::Relaxed);
        std::future::ready(())
    });
    let flow = flow(answering(), embedder, |cache| cache);
    for tenant in ["blue", "red"] {
        told(&flow, QUESTION, &Context::builder().tag(TENANT, tenant).build()).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn an_embedding_of_no_use_is_paid_for_and_another_model_is_soon_taken() {
    let calls = AtomicUsize::new(0);
    let model = workflow("embed", move |_: Vec<String>| {
        let size = if calls.fetch_add(1, Ordering::Relaxed) == 0 { 2 } else { 3 };
        let vector = Vector::new(&vec![1.0; size]).expect("it points somewhere");
        async move { Ok(Embedded::new(vec![vector], Some(0.5))) }
    });
    let embedder = Embedder::asked("changing", model.boxed());
    let (recorder, flow) = (Recorder::new(), flow(answering(), embedder, |cache| cache));
    let mut others = Vec::new();
    for text in ["open it", "please open it", "do open it", "open it now"] {
        others.push(told(&flow, text, &recorder.context()).await.2);
    }
    assert_eq!(others, [false, false, false, true]);
    let errors = recorder.metric("semantic_cache_lookups_total", &[("outcome", "error")]);
    let spent = recorder.metric("semantic_cache_embedding_usd_total", &[("operation", "auto")]);
    assert_eq!((errors, spent), (Some(1.0), Some(2.0)));
}

/// Finds everything the same.
fn blind() -> Embedder {
    let model = workflow("embed", |texts: Vec<String>| async move {
        Ok(Embedded::new(vec![Vector::new(&[1.0]).expect("it points somewhere"); texts.len()], None))
    });
    Embedder::asked("blind", model.boxed())
}

/// Whether the second of two questions gets the first one's answer, where only the rules are in the way.
fn hits(one: &str, other: &str) -> bool {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (recorder, flow) = (Recorder::new(), flow(answering(), blind(), |cache| cache));
        told(&flow, one, &recorder.context()).await;
        told(&flow, other, &recorder.context()).await.2
    })
}

fn filled(frame: &str, with: &str) -> String {
    frame.replace("{}", with)
}

const FRAMES: [&str; 3] = ["how do i send {} to my friend", "Why is {} on my bill?", "{} was wrong"];

#[test]
fn where_the_embedder_is_blind_other_words_are_a_hit() {
    assert!(hits("how do i send money to my friend", "please let me wire cash for him"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn another_number_is_never_a_hit(frame in prop::sample::select(&FRAMES[..]), one in 0_u32..5000, other in 0_u32..5000) {
        prop_assume!(one != other);
        prop_assert!(!hits(&filled(frame, &one.to_string()), &filled(frame, &other.to_string())));
        let (dollars, euros) = (format!("${one}"), format!("€{one}"));
        prop_assert!(!hits(&filled(frame, &dollars), &filled(frame, &euros)));
    }

    #[test]
    fn another_name_is_never_a_hit(frame in prop::sample::select(&FRAMES[..]), one in "Qu[a-z]{2,8}", other in "Qu[a-z]{2,8}") {
        // `Question` may begin a sentence and is no name there.
        prop_assume!(one != other && one != "Question" && other != "Question");
        prop_assert!(!hits(&filled(frame, &one), &filled(frame, &other)));
    }

    #[test]
    fn a_negation_is_never_a_hit(
        frame in prop::sample::select(&FRAMES[..]),
        denied in prop::sample::select(vec!["not it", "never it", "no money", "nothing"]),
    ) {
        prop_assert!(!hits(&filled(frame, "it"), &filled(frame, denied)));
        prop_assert!(!hits(&filled(frame, denied), &filled(frame, "it")));
    }
}
