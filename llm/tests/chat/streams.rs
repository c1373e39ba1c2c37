//! Answers that come bit by bit: what the client sees of them and how they end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use throughline::{Context, Kind};
use throughline_llm::Spent;
use throughline_llm::openai::{DONE, Delta, Usage, chunk, usage_chunk};
use throughline_llm::sse::MAX_EVENT_BYTES;
use tokio::sync::Notify;

use super::upstream::{Act, Upstream};
use super::{STREAMED, ask, patiently, read, stream_of};

const ASKS_FOR_USAGE: &str = r#"{"model":"auto","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"Hi"}]}"#;
const INCOMPLETE: &str = "the provider's answer ended before it was complete";
const BROKEN_OFF: &str = "the provider broke off its answer";

fn word(text: &str) -> Vec<u8> {
    chunk("c", "m", 1, Delta::Content(text)).to_vec()
}

fn tokens() -> Vec<u8> {
    usage_chunk("c", "m", 1, &Usage::new(1_000_000, 1_000_000)).to_vec()
}

fn text(pieces: &[&[u8]]) -> String {
    String::from_utf8(pieces.concat()).unwrap()
}

/// What the client sees of `script`, and the failure it ends with.
async fn streamed(script: Vec<Act>, body: &str) -> (String, Option<(Kind, String)>) {
    let upstream = Upstream::start(script).await;
    let (seen, error) =
        read(stream_of(&ask(upstream.base_url.clone()), body, &Context::new()).await.unwrap()).await;
    (seen, error.map(|error| (error.kind(), error.to_string())))
}

#[tokio::test]
async fn events_pass_byte_for_byte_whatever_the_borders_of_their_pieces() {
    let whole = [b": hello\r\n\r\n", &word("a")[..], &word("b"), DONE].concat();
    for length in [1, 7, 64, whole.len()] {
        let pieces: Vec<&[u8]> = whole.chunks(length).collect();
        let seen = streamed(Act::stream(&pieces), STREAMED).await;
        assert_eq!(seen, (text(&[&whole]), None), "in pieces of {length}");
    }
}

#[tokio::test]
async fn usage_that_the_client_did_not_ask_for_is_hidden_and_other_usage_is_not() {
    let script = || Act::stream(&[&word("a"), &tokens(), DONE]);
    assert_eq!(streamed(script(), STREAMED).await, (text(&[&word("a"), DONE]), None));
    assert_eq!(streamed(script(), ASKS_FOR_USAGE).await, (text(&[&word("a"), &tokens(), DONE]), None));
}

#[tokio::test]
async fn a_last_event_without_its_blank_line_counts() {
    let seen = streamed(Act::stream(&[&word("a"), &tokens(), b"data: [DONE]"]), STREAMED).await;
    assert_eq!(seen, (text(&[&word("a"), b"data: [DONE]"]), None));
}

#[tokio::test]
async fn a_stream_without_its_end_is_a_failure() {
    let incomplete = Some((Kind::Upstream, INCOMPLETE.to_owned()));
    for end in [&b""[..], b"data: [DO", &tokens()] {
        let seen = streamed(Act::stream(&[&word("a"), end]), STREAMED).await;
        assert_eq!(seen, (text(&[&word("a")]), incomplete.clone()));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_a_failure() {
    for end in [Act::Close, Act::Reset] {
        let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk(word("a")), end]).await;
        let stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &Context::new()).await.unwrap();
        let (_, error) = read(stream).await;
        assert_eq!(error.unwrap().to_string(), BROKEN_OFF);
    }
}

#[tokio::test]
async fn a_failure_told_in_the_stream_ends_it_without_the_providers_words() {
    let error = b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n";
    for script in [Act::stream(&[&word("a"), error, DONE]), vec![Act::stream_head(), Act::chunk(error)]] {
        let (seen, failure) = streamed(script, STREAMED).await;
        assert!(!seen.contains("overloaded"), "{seen}");
        assert_eq!(failure.unwrap().1, "the provider reported a failure in its answer");
    }
}

#[tokio::test]
async fn a_stream_is_over_with_its_done_even_if_the_provider_goes_on() {
    for more in [vec![], vec![Act::chunk(word("late"))], vec![Act::Reset]] {
        let done = vec![Act::stream_head(), Act::chunk([&word("a"), DONE].concat())];
        let script = [done, more].concat();
        assert_eq!(streamed(script, STREAMED).await, (text(&[&word("a"), DONE]), None));
    }
}

#[tokio::test]
async fn complete_streams_share_connections() {
    let upstream = Upstream::start(Act::stream(&[&word("a"), DONE])).await;
    let ask = ask(upstream.base_url.clone());
    for _ in 0..30 {
        read(stream_of(&ask, STREAMED, &Context::new()).await.unwrap()).await;
    }
    // A connection goes back to the pool in its own task, so a few may be opened before the first is back.
    assert!(upstream.connections() < 15, "{} connections", upstream.connections());
}

#[tokio::test]
async fn a_connection_is_used_again_even_if_its_stream_lingers_after_done() {
    let last = Arc::new(Notify::new());
    let done = vec![Act::stream_head(), Act::chunk([&word("a"), DONE].concat())];
    let late = vec![Act::Await(Arc::clone(&last)), Act::stream_end()];
    let upstream = Upstream::start([done, late].concat()).await;
    let ask = ask(upstream.base_url.clone());
    for _ in 0..30 {
        read(stream_of(&ask, STREAMED, &Context::new()).await.unwrap()).await;
        last.notify_one();
        upstream.answered().await;
    }
    assert!(upstream.connections() < 15, "{} connections", upstream.connections());
}

#[tokio::test]
async fn an_event_without_end_is_cut_off() {
    let endless = Act::chunks(vec![b'x'; 64 << 10]);
    let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk(word("a")), endless]).await;
    let stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &Context::new()).await.unwrap();
    let (seen, error) = read(stream).await;
    assert!(seen.len() < MAX_EVENT_BYTES);
    assert_eq!(error.unwrap().to_string(), "the provider's answer cannot be read");
    upstream.closed().await;
}

#[tokio::test]
async fn events_are_passed_on_as_soon_as_they_are_whole() {
    let next = Arc::new(Notify::new());
    let script = vec![
        Act::stream_head(),
        Act::chunk(word("a")),
        Act::Await(Arc::clone(&next)),
        Act::chunk([&word("b"), DONE].concat()),
        Act::stream_end(),
    ];
    let upstream = Upstream::start(script).await;
    let mut stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &Context::new()).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), word("a"));
    next.notify_one();
    assert_eq!(stream.next().await.unwrap().unwrap(), [&word("b"), DONE].concat());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_dropped_half_way_closes_the_connection() {
    let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk(word("a"))]).await;
    let cx = Context::new();
    let mut stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &cx).await.unwrap();
    stream.next().await.unwrap().unwrap();
    drop(stream);
    upstream.closed().await;
    assert_eq!(cx.state().get::<Spent>().as_deref(), Some(&Spent(None)), "nobody knows what it cost");
}

#[tokio::test]
async fn a_stream_past_its_deadline_fails() {
    let upstream = Upstream::start(vec![Act::stream_head(), Act::chunk(word("a"))]).await;
    let cx = Context::new().with_time_limit(Duration::from_secs(50));
    let mut stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &cx).await.unwrap();
    stream.next().await.unwrap().unwrap();
    tokio::time::pause();
    let error = patiently(stream.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
    assert_eq!(error.to_string(), "the answer was not complete in time");
    assert_eq!(cx.time_left(), Some(Duration::ZERO));
}

#[tokio::test]
async fn a_streams_cost_is_known_at_its_end() {
    let upstream = Upstream::start(Act::stream(&[&word("a"), &tokens(), DONE])).await;
    let cx = Context::new();
    let stream = stream_of(&ask(upstream.base_url.clone()), STREAMED, &cx).await.unwrap();
    assert_eq!(cx.state().get::<Spent>(), None);
    read(stream).await;
    assert_eq!(cx.state().get::<Spent>().as_deref(), Some(&Spent(Some(0.75))));
}
