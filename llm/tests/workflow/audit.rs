//! The audit of answers that the semantic cache has given, in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use throughline::testing::Recorder;
use throughline::{
    Boxed, CacheConfig, CacheOutcome, Context, Error, Kind, Memory, Primitive, Result, Workflow, workflow,
};
use throughline_llm::openai::{ChatRequest, Usage};
use throughline_llm::semantic::{Embedder, SemanticConfig, Similarity, semantic};
use throughline_llm::{Answer, ChatCaching, Completion, PriceTable, Spent};
use tokio::time::{Instant, sleep};

use super::{ask, cached, drain, request, simulation, streamed, whole};

const QUESTION: &str = "How do I reset my password?";
/// Each asks for the same in other words, by what the built-in embedder sees.
const REWORDED: [&str; 3] =
    ["how can i reset my passwords", "how do i reset my passwords", "how may i reset my password"];

type Flow = Workflow<Boxed<ChatRequest, Answer>>;

/// Audits this share of what it answers.
fn audited(share: f64) -> SemanticConfig {
    SemanticConfig::new(0.8).unwrap().answering().audit(share).unwrap()
}

/// A semantic cache and an exact one around `inner`.
fn around<P, Shape>(inner: Workflow<P, Shape>, config: SemanticConfig) -> Flow
where
    P: Primitive<In = ChatRequest, Out = Answer>,
{
    let cache = CacheConfig::new("auto", Duration::from_secs(60)).unwrap().jitter(0.0).unwrap();
    let (caching, store) =
        (ChatCaching::new(PriceTable::builtin().into()), Arc::new(Memory::new(1 << 20).unwrap()));
    let exact = (cache.clone(), caching.clone(), Arc::clone(&store));
    semantic(inner, config, exact, Embedder::ngrams()).cache(cache, caching, store).boxed()
}

/// A model that says these in turn, each after a fifth of a second.
fn saying(answers: &[&str], share: f64) -> Flow {
    let answers = answers.iter().map(|&answer| answer.to_owned()).collect();
    let provider = simulation(|config| {
        config.answers = answers;
        config.latency_p99 = config.latency_p50;
    });
    around(ask("gpt-4o-mini", provider), audited(share))
}

/// A model of which `call` says what its calls do after the first, with how many there were.
fn scripted<F>(
    config: SemanticConfig,
    call: impl Fn() -> F + Send + Sync + 'static,
) -> (Flow, Arc<AtomicUsize>)
where
    F: Future<Output = Result<Answer>> + Send + 'static,
{
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let inner = workflow("ask", move |_: ChatRequest| {
        let script = (count.fetch_add(1, Ordering::Relaxed) > 0).then(&call);
        async move {
            match script {
                Some(script) => script.await,
                None => Ok(completion("yes")),
            }
        }
    });
    (around(inner, config), calls)
}

fn completion(text: &str) -> Answer {
    let body = json!({ "choices": [{ "index": 0, "message": { "role": "assistant", "content": text } }] });
    Answer::Full(Completion::new(body.to_string().into(), "gpt-4o-mini".into(), Some(Usage::new(9, 3))))
}

fn question(text: &str, stream: bool) -> ChatRequest {
    let body =
        json!({ "model": "auto", "stream": stream, "messages": [{ "role": "user", "content": text }] });
    request(&body.to_string())
}

/// Asks, and says whether it was answered at once, as another question was.
async fn is_hit(flow: &Flow, text: &str, cx: &Context) -> bool {
    let begun = Instant::now();
    whole(flow.run(question(text, false), cx).await);
    let is_hit = cached(cx) == CacheOutcome::Hit && cx.state().get::<Similarity>().is_some();
    assert!(!is_hit || begun.elapsed().is_zero(), "nobody waits for an audit");
    is_hit
}

fn compared(recorder: &Recorder, verdict: &str) -> Option<f64> {
    let labels = [("operation", "auto"), ("mode", "answer"), ("verdict", verdict)];
    recorder.metric("semantic_cache_comparisons_total", &labels)
}

fn ended(recorder: &Recorder, outcome: &str) -> Option<f64> {
    let labels = [("primitive", "semantic_audit"), ("outcome", outcome)];
    recorder.metric("throughline_primitive_duration_seconds_count", &labels)
}

#[tokio::test(start_paused = true)]
async fn a_right_answer_is_counted_as_right_and_a_wrong_one_as_wrong() {
    let (recorder, flow) = (Recorder::new(), saying(&["Yes.", "yes", "no", "yes!"], 1.0));
    assert!(!is_hit(&flow, QUESTION, &recorder.context()).await);
    for text in REWORDED {
        assert!(is_hit(&flow, text, &recorder.context()).await);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!((compared(&recorder, "same"), compared(&recorder, "different")), (Some(2.0), Some(1.0)));
    assert_eq!(ended(&recorder, "success"), Some(3.0));
    let of_shadow = recorder.metric("semantic_cache_shadow_total", &[("verdict", "different")]);
    assert!(of_shadow.is_none_or(|count| count == 0.0), "these were given");
}

#[tokio::test(start_paused = true)]
async fn what_an_audit_costs_is_spent_and_is_no_part_of_the_requests_bill() {
    let (recorder, flow) = (Recorder::new(), saying(&["yes"], 1.0));
    let cost = || recorder.metric("llm_cost_usd_total", &[("provider", "sim")]).unwrap();
    is_hit(&flow, QUESTION, &recorder.context()).await;
    let before = cost();
    let cx = recorder.context();
    assert!(is_hit(&flow, REWORDED[0], &cx).await);
    sleep(Duration::from_secs(1)).await;
    let audits = recorder.metric("semantic_cache_audit_usd_total", &[("operation", "auto")]).unwrap();
    assert!(before > 0.0 && audits > 0.0 && (cost() - before - audits).abs() < 1e-12, "{before} {audits}");
    assert_eq!(cx.state().get::<Spent>(), None);
    let saved = recorder.metric("semantic_cache_saved_usd_total", &[("operation", "auto")]).unwrap();
    assert!((saved - before).abs() < 1e-12, "the hit saved what the first answer cost: {saved}");
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_asked_where_nothing_is_audited() {
    let (recorder, (flow, calls)) =
        (Recorder::new(), scripted(audited(0.0), || async { Ok(completion("no")) }));
    is_hit(&flow, QUESTION, &recorder.context()).await;
    for text in REWORDED.iter().cycle().take(300) {
        assert!(is_hit(&flow, text, &recorder.context()).await);
    }
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(compared(&recorder, "different"), Some(0.0));
}

#[tokio::test(start_paused = true)]
async fn the_share_is_that_of_the_answers_and_the_exact_caches_are_not_among_them() {
    fastrand::seed(3);
    let (recorder, (flow, calls)) =
        (Recorder::new(), scripted(audited(0.25), || async { Ok(completion("yes")) }));
    for n in 0..400 {
        is_hit(&flow, QUESTION, &recorder.context()).await;
        assert!(is_hit(&flow, REWORDED[n % 3], &recorder.context()).await);
        sleep(Duration::from_millis(1)).await;
    }
    let audits = calls.load(Ordering::Relaxed) - 1;
    // A hundred, give or take three standard deviations.
    assert!((74..=126).contains(&audits), "{audits}");
    assert_eq!(compared(&recorder, "same"), Some(audits as f64));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_an_audit_disturbs_nobody() {
    let fails = || async { Err(Error::new(Kind::Upstream, "the provider answered 503")) };
    let (recorder, (flow, calls)) = (Recorder::new(), scripted(audited(1.0), fails));
    is_hit(&flow, QUESTION, &recorder.context()).await;
    for text in REWORDED {
        assert!(is_hit(&flow, text, &recorder.context()).await);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 4);
    assert_eq!((ended(&recorder, "error"), compared(&recorder, "unknown")), (Some(3.0), Some(3.0)));
    assert_eq!(compared(&recorder, "different"), Some(0.0), "nothing was compared");
}

#[tokio::test(start_paused = true)]
async fn audits_that_hang_are_few_and_end_with_the_time_that_the_request_had() {
    let (recorder, (flow, calls)) = (Recorder::new(), scripted(audited(1.0), std::future::pending));
    is_hit(&flow, QUESTION, &recorder.context()).await;
    for text in REWORDED.iter().cycle().take(10) {
        let cx = recorder.context().with_time_limit(Duration::from_secs(5));
        assert!(is_hit(&flow, text, &cx).await);
        tokio::task::yield_now().await;
    }
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 4);
    let skipped = [("primitive", "semantic_cache"), ("event", "audit_skipped")];
    assert_eq!(recorder.metric("throughline_primitive_events_total", &skipped), Some(6.0));
    sleep(Duration::from_secs(6)).await;
    let under_way = [("primitive", "semantic_audit")];
    assert_eq!(recorder.metric("throughline_primitive_in_flight", &under_way), Some(0.0));
    assert_eq!(compared(&recorder, "unknown"), Some(4.0));
    assert!(is_hit(&flow, REWORDED[0], &recorder.context()).await);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 5, "there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_audited_once_it_was_read() {
    let (recorder, flow) = (Recorder::new(), saying(&["yes", "yes", "no"], 1.0));
    let read = async |text: &str| {
        let cx = recorder.context();
        drain(streamed(flow.run(question(text, true), &cx).await)).await;
        sleep(Duration::from_secs(1)).await;
        cx.state().get::<Similarity>().is_some()
    };
    assert!(!read(QUESTION).await);
    assert!(read(REWORDED[0]).await);
    assert_eq!((compared(&recorder, "same"), compared(&recorder, "different")), (Some(1.0), Some(0.0)));
    let mut left = streamed(flow.run(question(REWORDED[1], true), &recorder.context()).await);
    let audits = || ended(&recorder, "success");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(audits(), Some(1.0), "it is not read yet");
    assert!(left.next().await.is_some());
    drop(left);
    assert!(read(REWORDED[2]).await);
    assert_eq!(compared(&recorder, "different"), Some(1.0));
    let spent = recorder.metric("semantic_cache_audit_usd_total", &[("operation", "auto")]).unwrap();
    assert!(spent > 0.0, "a stream's cost comes with its end");
}

#[tokio::test(start_paused = true)]
async fn the_call_of_an_audit_is_told_apart_in_the_trace() {
    let (recorder, flow) = (Recorder::new(), saying(&["yes"], 1.0));
    for text in [QUESTION, REWORDED[0]] {
        is_hit(&flow, text, &recorder.context()).await;
        sleep(Duration::from_secs(1)).await;
    }
    let spans = recorder.spans();
    let audit = spans.iter().find(|span| span.name == "semantic_audit auto").expect("there was one");
    let of = |key: &str| audit.attributes.iter().find(|found| found.key.as_str() == key);
    assert_eq!(of("throughline.semantic.verdict").unwrap().value.to_string(), "same");
    assert!(of("throughline.semantic.similarity").is_some());
    let calls = spans.iter().filter(|span| span.parent_span_id == audit.span_context.span_id());
    assert_eq!(calls.map(|span| span.name.to_string()).collect::<Vec<_>>(), ["chat gpt-4o-mini"]);
    let cache = spans.iter().find(|span| span.span_context.span_id() == audit.parent_span_id).unwrap();
    assert_eq!(cache.name, "semantic_cache auto");
}
