//! One answer in every form: kept as a stream or plain, given as a stream or plain.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use std::vec::IntoIter;

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use throughline::cache::{Cache, CachePolicy};
use throughline::telemetry::Observed;
use throughline::testing::Recorder;
use throughline::{
    CacheConfig, CacheOutcome, Context, Error, Kind, Memory, Node, Primitive, Result, Streaming, Workflow,
};
use throughline_llm::openai::{ChatRequest, Usage};
use throughline_llm::simulated::SimulatedConfig;
use throughline_llm::{Answer, ChatCaching, ChatStream, Completion, Frame, PriceTable, sse};
use tokio::time::{Instant, advance, sleep};

use super::{PLAIN, STREAMED, ask, cached, drain, request, simulation, streamed, whole};

type Cached<P> = Workflow<Observed<Cache<P, ChatCaching, Memory>>>;

fn with_usage() -> String {
    STREAMED.replacen('{', r#"{"stream_options":{"include_usage":true},"#, 1)
}

fn caching() -> ChatCaching {
    ChatCaching::new(PriceTable::builtin().into())
}

fn config() -> CacheConfig {
    CacheConfig::new("answers", Duration::from_secs(60)).unwrap().jitter(0.0).unwrap()
}

fn kept<P: Primitive<In = ChatRequest, Out = Answer>>(work: Workflow<P>, caching: ChatCaching) -> Cached<P> {
    work.cache(config(), caching, Memory::new(1 << 20).unwrap())
}

/// What a client has of an answer, in whichever form it came: the text, the reason of its end, and the tokens.
#[derive(Debug, PartialEq)]
struct Had {
    text: String,
    finish: Value,
    /// What the answer said, and what was accounted for.
    told: Option<u64>,
    used: Option<Usage>,
}

async fn had(answer: Result<Answer>) -> Had {
    match answer.unwrap() {
        Answer::Full(answer) => {
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!(body["object"], "chat.completion");
            let choice = &body["choices"][0];
            Had {
                text: choice["message"]["content"].as_str().unwrap().to_owned(),
                finish: choice["finish_reason"].clone(),
                told: body["usage"]["total_tokens"].as_u64(),
                used: answer.usage,
            }
        }
        Answer::Stream(stream) => {
            let used = Arc::new(Mutex::new(None));
            let seen = Arc::clone(&used);
            let events = drain(stream.on_end(move |end| *seen.lock().unwrap() = end.usage)).await;
            let mut had =
                Had { text: String::new(), finish: Value::Null, told: None, used: *used.lock().unwrap() };
            assert!(events.ends_with("data: [DONE]\n\n"), "{events}");
            for event in sse::events(&Bytes::copy_from_slice(events.as_bytes())).unwrap() {
                let Ok(chunk) = serde_json::from_slice::<Value>(&event.data) else { continue };
                assert_eq!(chunk["object"], "chat.completion.chunk");
                had.text.push_str(chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default());
                if chunk["choices"][0]["finish_reason"].is_string() {
                    had.finish = chunk["choices"][0]["finish_reason"].clone();
                }
                had.told = chunk["usage"]["total_tokens"].as_u64().or(had.told);
            }
            had
        }
        other => panic!("{other:?} is unknown"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_the_same_in_every_form_costs_once_and_saves_each_time() {
    let with_usage = with_usage();
    let forms = [PLAIN, STREAMED, &with_usage];
    for first in forms {
        let recorder = Recorder::new();
        let flow = kept(ask("gpt-4o-mini", SimulatedConfig::default()), caching());
        let cx = recorder.context();
        let answer = had(flow.run(request(first), &cx).await).await;
        assert_eq!((cached(&cx), &answer.finish), (CacheOutcome::Miss, &json!("stop")));
        tokio::task::yield_now().await;
        let usage = answer.used.expect("the simulation tells");
        for (n, form) in forms.into_iter().enumerate() {
            let cx = recorder.context();
            let again = had(flow.run(request(form), &cx).await).await;
            assert_eq!(cached(&cx), CacheOutcome::Hit, "{first} then {form}");
            let told = (form != STREAMED).then_some(usage.prompt_tokens + usage.completion_tokens);
            let expected = Had { text: answer.text.clone(), finish: json!("stop"), told, used: Some(usage) };
            assert_eq!(again, expected, "{first} then {form}");
            let cost = PriceTable::builtin().cost("gpt-4o-mini", &usage).unwrap();
            let saved = recorder.metric("cache_cost_savings_usd_total", &[]).unwrap();
            assert!((saved - cost * (n + 1) as f64).abs() < 1e-12, "{first} then {form} saved {saved}");
            assert_eq!(recorder.metric("llm_cost_usd_total", &[]), Some(cost));
        }
        let [hits, misses] =
            ["cache_hits_total", "cache_misses_total"].map(|name| recorder.metric(name, &[]));
        assert_eq!((hits, misses), (Some(3.0), Some(1.0)), "{first}");
    }
}

/// Answers with these, one after the other, and then fails.
struct Scripted(Mutex<IntoIter<Answer>>);

impl Primitive for Scripted {
    type In = ChatRequest;
    type Out = Answer;

    async fn execute(&self, _: ChatRequest, _: &Context) -> Result<Answer> {
        let next = self.0.lock().unwrap().next();
        sleep(Duration::from_secs(1)).await;
        next.ok_or_else(|| Error::new(Kind::Upstream, "there is no other answer"))
    }

    fn describe(&self) -> Node {
        Node::leaf("chat", "scripted")
    }

    fn stream<'a>(&self, answer: &'a mut Answer) -> Option<&'a mut dyn Streaming> {
        match answer {
            Answer::Stream(stream) => Some(stream),
            _ => None,
        }
    }
}

fn scripted(answers: Vec<Answer>) -> Workflow<Scripted> {
    Workflow::from_primitive(Scripted(Mutex::new(answers.into_iter())))
}

fn plain(body: &Value) -> Answer {
    Answer::Full(Completion::new(body.to_string().into(), "gpt-4o-mini".into(), Some(Usage::new(9, 3))))
}

/// A stream of these chunks, which ends well or breaks off.
fn stream_of(chunks: &[Value], ends: bool) -> Answer {
    let mut frames: Vec<Result<Frame>> = chunks
        .iter()
        .map(|chunk| {
            let events = sse::event(chunk.to_string().as_bytes());
            Ok(Frame { events, usage: Some(Usage::new(9, 3)), content: true, last: false })
        })
        .collect();
    frames.push(match ends {
        true => Ok(Frame {
            events: Bytes::from_static(b"data: [DONE]\n\n"),
            usage: Some(Usage::new(9, 3)),
            content: true,
            last: true,
        }),
        false => Err(Error::new(Kind::Upstream, "broken off")),
    });
    Answer::Stream(ChatStream::new(stream::iter(frames), "gpt-4o-mini".into(), &Context::new()))
}

fn tools() -> Value {
    let call = |id: &str| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": format!("{{\"x\":\"{id}\"}}")}});
    let choice = |index: u64, content: Value| {
        json!({"index": index, "message": {"role": "assistant", "content": content, "tool_calls": [call("a"), call("b")]},
            "logprobs": null, "finish_reason": "tool_calls"})
    };
    json!({"id": "i", "object": "chat.completion", "created": 5, "model": "m",
        "choices": [choice(0, Value::Null), choice(1, json!("I call two"))],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}})
}

/// The chunks in which a provider gives [`tools`].
fn tool_chunks() -> Vec<Value> {
    let chunk = |index: u64, delta: Value, finish: Value| {
        json!({"id": "i", "object": "chat.completion.chunk", "created": 5, "model": "m",
            "choices": [{"index": index, "delta": delta, "logprobs": null, "finish_reason": finish}]})
    };
    let mut chunks = Vec::new();
    for index in [1, 0] {
        let content = if index == 1 { json!("") } else { Value::Null };
        chunks.push(chunk(index, json!({"role": "assistant", "content": content}), Value::Null));
    }
    for word in ["I ", "call", " two"] {
        chunks.push(chunk(1, json!({"content": word}), Value::Null));
    }
    for (at, id) in ["a", "b"].into_iter().enumerate() {
        for index in [0, 1] {
            let call = json!({"index": at, "id": id, "type": "function", "function": {"name": "f", "arguments": ""}});
            chunks.push(chunk(index, json!({"tool_calls": [call]}), Value::Null));
            for piece in ["{\"x\":", &format!("\"{id}\"}}")] {
                let call = json!({"index": at, "function": {"arguments": piece}});
                chunks.push(chunk(index, json!({"tool_calls": [call]}), Value::Null));
            }
        }
    }
    chunks.extend([0, 1].map(|index| chunk(index, json!({}), json!("tool_calls"))));
    chunks
}

#[tokio::test(start_paused = true)]
async fn calls_of_tools_and_several_choices_come_whole_in_every_form() {
    for first in [plain(&tools()), stream_of(&tool_chunks(), true)] {
        let asked = if matches!(first, Answer::Full(_)) { PLAIN } else { STREAMED };
        let flow = kept(scripted(vec![first]), caching());
        if let Answer::Stream(stream) = flow.run(request(asked), &Context::new()).await.unwrap() {
            drain(stream).await;
        }
        tokio::task::yield_now().await;
        let body = whole(flow.run(request(PLAIN), &Context::new()).await).body;
        let mut body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["usage"]["total_tokens"], 12);
        body["usage"] = tools()["usage"].clone();
        assert_eq!(body, tools(), "kept by {asked}");
        let events = drain(streamed(flow.run(request(STREAMED), &Context::new()).await)).await;
        let again = kept(
            scripted(vec![Answer::Stream(ChatStream::replay(events.into(), "m".into(), None))]),
            caching(),
        );
        drain(streamed(again.run(request(STREAMED), &Context::new()).await)).await;
        tokio::task::yield_now().await;
        let body = whole(again.run(request(PLAIN), &Context::new()).await).body;
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["choices"], tools()["choices"], "what a client makes of the stream, kept by {asked}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_given_in_the_other_form_is_asked_for_and_takes_its_place() {
    let said = |text: &str| json!({"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]});
    let spoken =
        json!({"choices": [{"index": 0, "delta": {"audio": {"data": "AAAA"}}, "finish_reason": "stop"}]});
    let flow = kept(scripted(vec![stream_of(&[spoken], true), plain(&said("new"))]), caching());
    let mut outcomes = Vec::new();
    for body in [STREAMED, STREAMED, PLAIN, PLAIN, STREAMED] {
        let cx = Context::new();
        if let Answer::Stream(stream) = flow.run(request(body), &cx).await.unwrap() {
            drain(stream).await;
        }
        tokio::task::yield_now().await;
        outcomes.push(cached(&cx));
    }
    use CacheOutcome::{Hit, Miss};
    assert_eq!(outcomes, [Miss, Hit, Miss, Hit, Hit]);
    assert_eq!(flow.stage().stats().corrupt, 0, "it is good, and for others");
}

#[tokio::test(start_paused = true)]
async fn who_wants_only_what_is_kept_is_not_given_it_in_the_wrong_form() {
    let spoken = json!({"choices": [{"index": 0, "delta": {"audio": {"data": "AAAA"}}}]});
    let flow = kept(scripted(vec![stream_of(&[spoken], true)]), caching());
    drain(streamed(flow.run(request(STREAMED), &Context::new()).await)).await;
    tokio::task::yield_now().await;
    let cx = Context::new();
    cx.state().insert(CachePolicy::new().only_if_cached());
    assert_eq!(flow.run(request(PLAIN), &cx).await.unwrap_err().kind(), Kind::InvalidInput);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_off_or_is_no_answer_is_kept_for_nobody() {
    let says =
        |finish: &str| json!({"choices": [{"index": 0, "delta": {"content": "x"}, "finish_reason": finish}]});
    let recorder = Recorder::new();
    for (chunks, ends, event) in [
        (vec![says("stop")], false, None),
        (vec![says("content_filter")], true, Some("not_cacheable")),
        (vec![json!({"choices": []})], true, Some("not_cacheable")),
    ] {
        let flow = kept(scripted(vec![stream_of(&chunks, ends)]), caching());
        let mut stream = streamed(flow.run(request(STREAMED), &recorder.context()).await);
        while stream.next().await.is_some() {}
        tokio::task::yield_now().await;
        for form in [PLAIN, STREAMED] {
            let cx = recorder.context();
            assert!(flow.run(request(form), &cx).await.is_err(), "{chunks:?}");
            assert_eq!(cached(&cx), CacheOutcome::Miss);
        }
        if let Some(event) = event {
            let count = recorder
                .metric("throughline_primitive_events_total", &[("primitive", "cache"), ("event", event)]);
            assert!(count >= Some(1.0), "{chunks:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn callers_at_once_get_each_their_own_form() {
    let recorder = Recorder::new();
    let flow = kept(ask("gpt-4o-mini", SimulatedConfig::default()), caching());
    let run = async |form: &str| {
        let cx = recorder.context();
        let answer = flow.run(request(form), &cx).await;
        (matches!(answer, Ok(Answer::Stream(_))), had(answer).await, cached(&cx))
    };
    // The plain one leads, and all wait for it.
    let forms = [PLAIN, STREAMED, &with_usage(), PLAIN, STREAMED];
    let answers = join_all(forms.iter().map(|form| run(form))).await;
    for (form, (is_stream, had, _)) in forms.iter().zip(&answers) {
        assert_eq!(*is_stream, form.contains("stream"), "{form}");
        assert_eq!((&had.text, had.used), (&answers[0].1.text, answers[0].1.used));
        assert_eq!(had.told.is_some(), *form != STREAMED, "{form}");
    }
    let outcomes: Vec<_> = answers.iter().map(|(.., outcome)| *outcome).collect();
    assert_eq!(outcomes[0], CacheOutcome::Miss);
    assert_eq!(outcomes[1..], [CacheOutcome::Coalesced; 4]);
    // A stream that leads has one reader: nobody is given it, and nobody the wrong form.
    let flow = kept(ask("gpt-4o-mini", SimulatedConfig::default()), caching());
    let run =
        async |form: &str| matches!(flow.run(request(form), &Context::new()).await, Ok(Answer::Stream(_)));
    let streams = join_all([STREAMED, PLAIN, STREAMED].into_iter().map(run)).await;
    assert_eq!(streams, [true, false, true]);
}

#[tokio::test(start_paused = true)]
async fn an_old_answer_in_place_of_an_error_has_the_form_that_is_asked_for() {
    let recorder = Recorder::new();
    let says = json!({"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]});
    let config = config().stale_if_error(Duration::from_secs(600));
    let flow =
        scripted(vec![stream_of(&[says], true)]).cache(config, caching(), Memory::new(1 << 20).unwrap());
    drain(streamed(flow.run(request(STREAMED), &recorder.context()).await)).await;
    tokio::task::yield_now().await;
    advance(Duration::from_secs(61)).await;
    for form in [PLAIN, STREAMED] {
        let cx = recorder.context();
        let answer = flow.run(request(form), &cx).await;
        assert_eq!(matches!(answer, Ok(Answer::Stream(_))), form == STREAMED);
        assert_eq!((had(answer).await.text.as_str(), cached(&cx)), ("Hi", CacheOutcome::Stale));
    }
}

#[tokio::test(start_paused = true)]
async fn a_paced_replay_takes_its_time_and_a_plain_one_none() {
    let caching = caching().chunks_per_second(10.0).unwrap();
    let body = json!({"choices": [{"message": {"role": "assistant", "content": "one two three"}, "finish_reason": "stop"}]});
    let flow = kept(scripted(vec![plain(&body)]), caching);
    flow.run(request(PLAIN), &Context::new()).await.unwrap();
    let start = Instant::now();
    whole(flow.run(request(PLAIN), &Context::new()).await);
    assert_eq!(start.elapsed(), Duration::ZERO);
    let mut stream = streamed(flow.run(request(STREAMED), &Context::new()).await);
    let mut times = Vec::new();
    while let Some(event) = stream.next().await {
        event.unwrap();
        times.push(start.elapsed().as_millis());
    }
    // The role, three words, the end; and [DONE], which says nothing.
    assert_eq!(times, [0, 100, 200, 300, 400, 400]);
}

#[test]
fn a_pace_that_is_none_is_refused() {
    for rate in [0.0, -1.0, 0.5, 10_001.0, f64::NAN, f64::INFINITY] {
        let refused = caching().chunks_per_second(rate).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!("replayed chunks per second is {rate}: it must be from 1 to 10000")
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_stream_is_not_the_caches() {
    let slow = simulation(|config| config.tokens_per_second = 5.0);
    let recorder = Recorder::new();
    let flow = kept(ask("gpt-4o-mini", slow), caching().chunks_per_second(5.0).unwrap());
    for (outcome, hit) in [(CacheOutcome::Miss, "false"), (CacheOutcome::Hit, "true")] {
        let (start, cx) = (Instant::now(), recorder.context());
        drain(streamed(flow.run(request(STREAMED), &cx).await)).await;
        assert_eq!(cached(&cx), outcome);
        assert!(start.elapsed() > Duration::from_secs(1), "it came slowly");
        tokio::task::yield_now().await;
        let latency = |what: &str| recorder.metric(&format!("cache_latency_seconds_{what}"), &[("hit", hit)]);
        assert_eq!((latency("count"), latency("sum")), (Some(1.0), Some(0.0)), "hit: {hit}");
    }
}
