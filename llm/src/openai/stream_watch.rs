//! Follows a streamed chat answer event by event: when the first token came, what was used, how it ended.

use std::sync::PoisonError;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::usage::{Counts, RawUsage, Usage};
use super::whole::{number, text};
use crate::genai::Shared;
use crate::sse::{self, Event};

/// What one event of a streamed answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Chunk {
    /// Carries text, reasoning, a refusal or a tool call: from here on the answer cannot be taken back.
    Content,
    /// Carries usage and no choice.
    Usage,
    /// `[DONE]`.
    Done,
    /// Carries an `error`.
    Error,
    /// Anything else: the role, a finish reason, a comment, or what nobody here knows.
    Other,
}

/// A state machine over the events of one stream; it does no I/O and holds no text.
///
/// ```
/// use throughline_llm::openai::{Chunk, Delta, StreamWatch, Usage, chunk, usage_chunk};
/// use throughline_llm::sse::SseParser;
///
/// let mut parser = SseParser::default();
/// parser.push(&chunk("id", "m", 0, Delta::Content("Hi")));
/// parser.push(&usage_chunk("id", "m", 0, &Usage::new(3, 1)));
///
/// let mut watch = StreamWatch::new(true); // the client did not ask for usage, we did
/// let mut forwarded = Vec::new();
/// while let Some(event) = parser.next_event()? {
///     let chunk = watch.observe(&event);
///     if !watch.hides(chunk) {
///         forwarded.push(event.raw);
///     }
/// }
/// assert_eq!(forwarded.len(), 1);
/// assert_eq!(watch.usage(), Some(Usage::new(3, 1)));
/// assert!(!watch.is_complete(), "there was no [DONE]");
/// # Ok::<(), throughline_llm::sse::SseError>(())
/// ```
#[derive(Clone, Debug)]
pub struct StreamWatch {
    usage_was_added: bool,
    said: Counts,
    /// Whether something was written since it was last said how much.
    is_behind: bool,
    content: bool,
    done: bool,
    failed: bool,
    /// Takes down what the answer says of itself, if anybody wants to know.
    telling: Option<Telling>,
}

#[derive(Clone, Debug)]
struct Telling {
    response: Shared,
    has_head: bool,
    /// Which of the first ten choices have been told of, a bit for each.
    choices: u16,
}

#[derive(Deserialize)]
struct RawChunk<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    choices: Option<Vec<RawChoice<'a>>>,
    /// Of any form: one that cannot be read must not hide what else is said.
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(borrow)]
    index: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    #[serde(borrow)]
    delta: Option<RawDelta<'a>>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

/// The fields that carry something of the answer; `reasoning` and `reasoning_content` are the spellings of
/// OpenRouter and DeepSeek.
#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    refusal: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    #[serde(borrow)]
    function_call: Option<&'a RawValue>,
    #[serde(borrow)]
    audio: Option<&'a RawValue>,
}

// === impl StreamWatch ===

impl StreamWatch {
    /// Watches a new stream. `usage_was_added` says that the usage chunk was asked for on the client's
    /// behalf, so that the client must not see it.
    #[must_use]
    pub const fn new(usage_was_added: bool) -> Self {
        Self {
            usage_was_added,
            said: Counts::NOTHING,
            is_behind: false,
            content: false,
            done: false,
            failed: false,
            telling: None,
        }
    }

    /// Takes down in `response` what the answer says of itself.
    pub(crate) fn telling(self, response: Option<Shared>) -> Self {
        let telling = response.map(|response| Telling { response, has_head: false, choices: 0 });
        Self { telling, ..self }
    }

    /// Takes note of the next event and says what it is.
    pub fn observe(&mut self, event: &Event) -> Chunk {
        let chunk = self.classify(&event.data);
        match chunk {
            Chunk::Content => self.content = true,
            Chunk::Done => self.done = true,
            Chunk::Error => self.failed = true,
            Chunk::Usage | Chunk::Other => {}
        }
        chunk
    }

    /// Whether an event of this kind must not reach the client.
    #[must_use]
    pub fn hides(&self, chunk: Chunk) -> bool {
        self.usage_was_added && chunk == Chunk::Usage
    }

    /// The usage that the stream told, from whichever chunk; the last one counts, with what it leaves out from those
    /// before it. `None` as long as what was read or what was written is unknown: a count from before the answer, which
    /// some providers begin with, is none of what came since.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        let is_of_the_answer = (self.content || self.done) && !self.is_behind;
        if is_of_the_answer { self.said.usage() } else { None }
    }

    /// Whether any part of the answer has come.
    #[must_use]
    pub const fn has_content(&self) -> bool {
        self.content
    }

    /// Whether the stream reported an error.
    #[must_use]
    pub const fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether the stream ended as it should: with `[DONE]` and without an error. A stream that ends while
    /// this is false is broken and must be neither cached nor ended cleanly towards the client.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.done && !self.failed
    }

    fn classify(&mut self, data: &[u8]) -> Chunk {
        if data.trim_ascii() == b"[DONE]" {
            return Chunk::Done;
        }
        let text = sse::text(data);
        let Ok(chunk) = serde_json::from_str::<RawChunk<'_>>(&text) else { return Chunk::Other };
        if chunk.error.is_some() {
            return Chunk::Error;
        }
        if let Some(telling) = &mut self.telling {
            telling.take_down(&chunk);
        }
        let mut counts_it = false;
        if let Some(usage) = chunk.usage {
            let next = RawUsage::counts_of(usage.get());
            counts_it = next.tells_what_was_written();
            self.said = self.said.then(next);
        }
        let choices = chunk.choices.unwrap_or_default();
        let says_something = choices.iter().any(RawChoice::says_something);
        self.is_behind = !counts_it && (self.is_behind || says_something);
        if says_something {
            Chunk::Content
        } else if choices.is_empty() && chunk.usage.is_some() {
            Chunk::Usage
        } else {
            Chunk::Other
        }
    }
}

// === impl Telling ===

impl Telling {
    fn take_down(&mut self, chunk: &RawChunk<'_>) {
        let choices = || chunk.choices.iter().flatten();
        // So are nearly all chunks, but those of a provider that names no id or no model.
        if self.has_head && choices().all(|choice| self.knows(choice)) {
            return;
        }
        let mut response = self.response.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.has_head {
            response.head(text(chunk.id).as_deref(), text(chunk.model).as_deref());
            self.has_head = response.has_head();
        }
        for choice in choices() {
            response.choice(number(choice.index).unwrap_or(0), text(choice.finish_reason).as_deref());
            self.choices |= choice.bit();
        }
    }

    fn knows(&self, choice: &RawChoice<'_>) -> bool {
        choice.finish_reason.is_none() && self.choices & choice.bit() != 0
    }
}

// === impl RawChoice ===

impl RawChoice<'_> {
    fn says_something(&self) -> bool {
        filled(self.text) || self.delta.as_ref().is_some_and(RawDelta::says_something)
    }

    /// A bit of its own for each of the first ten.
    fn bit(&self) -> u16 {
        match self.index.map_or("0", RawValue::get).as_bytes() {
            [digit @ b'0'..=b'9'] => 1 << (digit - b'0'),
            _ => 0,
        }
    }
}

// === impl RawDelta ===

impl RawDelta<'_> {
    fn says_something(&self) -> bool {
        [
            self.content,
            self.refusal,
            self.reasoning,
            self.reasoning_content,
            self.tool_calls,
            self.function_call,
            self.audio,
        ]
        .into_iter()
        .any(filled)
    }
}

fn filled(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| !matches!(value.get(), "null" | "\"\"" | "[]" | "{}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genai::Response;
    use crate::openai::{DONE, Delta, chunk, usage_chunk};
    use bytes::Bytes;

    fn event(data: &str) -> Event {
        Event { data: Bytes::copy_from_slice(data.as_bytes()), raw: Bytes::new() }
    }

    fn observed(data: &str) -> Chunk {
        StreamWatch::new(true).observe(&event(data))
    }

    fn watch(events: &[&[u8]]) -> (StreamWatch, Vec<Chunk>) {
        let mut parser = crate::sse::SseParser::default();
        parser.push(&events.concat());
        let mut watch = StreamWatch::new(true);
        let mut chunks = Vec::new();
        while let Some(event) = parser.next_event().unwrap() {
            chunks.push(watch.observe(&event));
        }
        (watch, chunks)
    }

    #[test]
    fn follows_a_whole_stream() {
        let part = |delta| chunk("i", "m", 0, delta);
        let (watch, chunks) = watch(&[
            b": keep-alive\n\n",
            &part(Delta::Role),
            &part(Delta::Content("a")),
            &part(Delta::Content("b")),
            &part(Delta::Stop),
            &usage_chunk("i", "m", 0, &Usage::new(7, 2)),
            DONE,
        ]);
        use Chunk::{Content, Done, Other, Usage as Tokens};
        assert_eq!(chunks, [Other, Other, Content, Content, Other, Tokens, Done]);
        assert_eq!(watch.usage(), Some(Usage::new(7, 2)));
        assert!(watch.has_content() && watch.is_complete() && !watch.has_failed());
    }

    #[test]
    fn hides_only_the_usage_chunk_that_was_added() {
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#;
        assert!(StreamWatch::new(true).hides(observed(usage)));
        assert!(!StreamWatch::new(false).hides(observed(usage)));
        for visible in [
            r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":7,"completion_tokens":2}}"#,
            r#"{"choices":[],"prompt_filter_results":[{}]}"#,
            r#"{"choices":[],"usage":null}"#,
            "[DONE]",
            "",
            "ping",
        ] {
            assert!(!StreamWatch::new(true).hides(observed(visible)), "{visible}");
        }
    }

    #[test]
    fn a_stream_without_done_is_broken() {
        let (watch, _) = watch(&[&chunk("i", "m", 0, Delta::Content("a")), &chunk("i", "m", 0, Delta::Stop)]);
        assert!(watch.has_content() && !watch.is_complete());
        assert_eq!(watch.usage(), None);
    }

    #[test]
    fn an_error_breaks_the_stream_even_before_done() {
        let (watch, chunks) = watch(&[b"data: {\"error\":{\"message\":\"overloaded\"}}\n\n", DONE]);
        assert_eq!(chunks, [Chunk::Error, Chunk::Done]);
        assert!(watch.has_failed() && !watch.is_complete() && !watch.has_content());
        assert_eq!(observed(r#"{"error":null,"choices":[]}"#), Chunk::Other);
    }

    #[test]
    fn usage_beside_the_last_choice_is_collected_and_the_last_one_counts() {
        let mut watch = StreamWatch::new(true);
        for tokens in 1..=3 {
            let data = format!(
                r#"{{"choices":[{{"delta":{{"content":"x"}}}}],"usage":{{"prompt_tokens":5,"completion_tokens":{tokens}}}}}"#
            );
            assert_eq!(watch.observe(&event(&data)), Chunk::Content);
        }
        assert_eq!(watch.observe(&event(r#"{"choices":[],"usage":null}"#)), Chunk::Other);
        assert_eq!(watch.usage(), Some(Usage::new(5, 3)));
    }

    /// What is known of a stream to its end, or only so far.
    fn used(chunks: &[&str], is_complete: bool) -> Option<Usage> {
        let mut watch = StreamWatch::new(true);
        chunks
            .iter()
            .chain(is_complete.then_some(&"[DONE]"))
            .for_each(|data| _ = watch.observe(&event(data)));
        watch.usage()
    }

    const HI: &str = r#"{"choices":[{"delta":{"content":"Hi"}}]}"#;

    #[test]
    fn a_stream_that_says_only_what_was_read_is_of_unknown_usage_and_its_chunk_is_hidden() {
        let only_read = r#"{"choices":[],"usage":{"prompt_tokens":10}}"#;
        assert_eq!(used(&[HI, only_read], true), None);
        assert_eq!(observed(only_read), Chunk::Usage);
        let placeholder = r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":0}}"#;
        assert_eq!(used(&[placeholder, HI, only_read], true), None, "something was written since");
        assert_eq!(used(&[placeholder], true), Some(Usage::new(10, 0)));
    }

    #[test]
    fn what_was_written_is_added_to_what_was_read_as_anthropic_says_both() {
        let start = r#"{"choices":[{"delta":{"role":"assistant"}}],
            "usage":{"input_tokens":10,"output_tokens":1,"cache_read_input_tokens":60}}"#;
        let end = r#"{"choices":[{"delta":{},"finish_reason":"stop"}],"usage":{"output_tokens":15}}"#;
        let expected = Some(Usage { cached_tokens: 60, ..Usage::new(70, 15) });
        assert_eq!(used(&[start, HI, end], true), expected);
        assert_eq!(used(&[start, HI, end], false), expected);
        assert_eq!(used(&[start, HI], false), None, "a count of the beginning is not one of the answer");
        assert_eq!(used(&[start], false), None);
    }

    #[test]
    fn a_usage_that_cannot_be_read_hides_nothing_that_stands_beside_it() {
        for wrong in [r#""none""#, "[]", "7", r#"{"prompt_tokens":1,"prompt_tokens":2}"#, "1e999"] {
            let with = |choices: &str| observed(&format!(r#"{{"choices":{choices},"usage":{wrong}}}"#));
            assert_eq!(with(r#"[{"delta":{"content":"Hi"}}]"#), Chunk::Content, "{wrong}");
            let failed = format!(r#"{{"error":{{"message":"x"}},"usage":{wrong}}}"#);
            assert_eq!(observed(&failed), Chunk::Error, "{wrong}");
        }
        let beside =
            r#"{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":2,"prompt_tokens_details":[]}}"#;
        assert_eq!(used(&[HI, beside], true), Some(Usage::new(10, 2)));
    }

    #[test]
    fn tells_who_answers_and_how_every_choice_ends_whenever_it_is_said() {
        let response = Shared::default();
        let mut watch = StreamWatch::new(true).telling(Some(Shared::clone(&response)));
        for data in [
            r#"{"choices":[{"delta":{"content":"a"}}]}"#,
            r#"{"id":"i","choices":[{"index":0,"delta":{"content":"b"},"finish_reason":null}]}"#,
            r#"{"id":"j","model":"m","choices":[{"index":0,"delta":{"content":"c"}},{"index":11}]}"#,
            r#"{"model":"n","choices":[{"index":3},{"index":0,"finish_reason":"stop"}]}"#,
            r#"{"choices":[{"index":11,"finish_reason":"length"}]}"#,
            r#"{"choices":[{"index":3,"finish_reason":null},{"index":0}]}"#,
        ] {
            watch.observe(&event(data));
        }
        let mut expected = Response::default();
        expected.head(Some("i"), Some("m"));
        expected.choice(0, Some("stop"));
        expected.choice(11, Some("length"));
        expected.choice(3, None);
        assert_eq!(*response.lock().unwrap(), expected);
    }

    #[test]
    fn what_is_no_utf8_hides_neither_an_error_nor_the_answer() {
        let broken = |text: &str| {
            let data = text.bytes().map(|byte| if byte == b'?' { 0xff } else { byte }).collect();
            StreamWatch::new(true).observe(&Event { data, raw: Bytes::new() })
        };
        assert_eq!(broken(r#"{"error":{"message":"?"}}"#), Chunk::Error);
        assert_eq!(broken(r#"{"id":"?","error":{}}"#), Chunk::Error);
        assert_eq!(broken(r#"{"choices":[{"delta":{"content":"?"}}]}"#), Chunk::Content);
        assert_eq!(broken("?"), Chunk::Other);
    }

    #[test]
    fn the_role_is_no_content_but_every_part_of_an_answer_is() {
        for silent in [
            r#"{"role":"assistant","content":"","refusal":null,"tool_calls":[]}"#,
            r#"{"role":"assistant"}"#,
            "{}",
            "null",
        ] {
            let chunk = observed(&format!(r#"{{"choices":[{{"index":0,"delta":{silent}}}]}}"#));
            assert_eq!(chunk, Chunk::Other, "{silent}");
        }
        for said in [
            r#"{"content":" "}"#,
            r#"{"refusal":"no"}"#,
            r#"{"reasoning_content":"hm"}"#,
            r#"{"reasoning":"hm"}"#,
            r#"{"tool_calls":[{"index":0,"function":{"name":"f"}}]}"#,
            r#"{"function_call":{"name":"f"}}"#,
            r#"{"audio":{"data":"x"}}"#,
        ] {
            let chunk = observed(&format!(r#"{{"choices":[{{"index":0,"delta":{said}}}]}}"#));
            assert_eq!(chunk, Chunk::Content, "{said}");
        }
        assert_eq!(observed(r#"{"choices":[{"text":"legacy"}]}"#), Chunk::Content);
    }
}
