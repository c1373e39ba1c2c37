//! The text of an answer, whole or streamed.

use bytes::Bytes;
use serde_json::Value;

use crate::answer::Answer;
use crate::caching::stored_answer;
use crate::sse::{self, SseParser};

/// A longer answer is not compared.
const LONGEST: usize = 256 << 10;

/// Calls `tell` with the text of an answer once that is whole, or with `None` when it is no text, or a long one. A stream that
/// breaks off tells nothing.
pub(super) fn once_said(answer: &mut Answer, tell: impl FnOnce(Option<String>) + Send + 'static) {
    match answer {
        Answer::Full(answer) => {
            let short = answer.body.len() <= LONGEST;
            tell(short.then(|| of_body(&answer.body)).flatten());
        }
        Answer::Stream(stream) => {
            stream.record(LONGEST, move |events, _| tell(events.and_then(|events| of_events(&events))));
        }
    }
}

/// The text of an answer as it is in the store.
pub(super) fn of_stored(value: Bytes) -> Option<String> {
    let answer = stored_answer(value).ok()?;
    if answer.stream { of_events(&answer.content) } else { of_body(&answer.content) }
}

/// What the first choice of a plain answer says; `None` when that is more, or something else, than text.
pub(super) fn of_body(body: &[u8]) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let [choice] = body.get("choices")?.as_array()?.as_slice() else { return None };
    text(choice.get("message")?)
}

/// The same of the events of a stream.
pub(super) fn of_events(events: &[u8]) -> Option<String> {
    let mut parser = SseParser::default();
    parser.push(events);
    let mut said = String::new();
    while let Ok(Some(event)) = parser.next_event() {
        let Ok(chunk) = serde_json::from_str::<Value>(&sse::text(&event.data)) else { continue };
        for choice in chunk.get("choices").and_then(Value::as_array).into_iter().flatten() {
            if choice.get("index").and_then(Value::as_u64).unwrap_or(0) != 0 {
                return None;
            }
            let Some(delta) = choice.get("delta") else { continue };
            if calls(delta) {
                return None;
            }
            said.push_str(delta.get("content").and_then(Value::as_str).unwrap_or_default());
        }
    }
    (!said.is_empty()).then_some(said)
}

fn text(message: &Value) -> Option<String> {
    let said = message.get("content")?.as_str().filter(|said| !said.is_empty() && !calls(message))?;
    Some(said.to_owned())
}

/// Whether it wants something to be called.
fn calls(message: &Value) -> bool {
    ["tool_calls", "function_call"].iter().any(|name| message.get(name).is_some_and(|calls| !calls.is_null()))
}

#[cfg(test)]
mod tests {
    use throughline::Caching as _;

    use super::*;
    use crate::{ChatCaching, Completion, PriceTable};

    #[test]
    fn reads_the_text_of_one_choice_and_nothing_else() {
        assert_eq!(of_body(br#"{"choices":[{"message":{"content":"yes"}}]}"#).as_deref(), Some("yes"));
        for other in [
            &br#"{"choices":[]}"#[..],
            br#"{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}"#,
            br#"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#,
            br#"{"choices":[{"message":{"content":"x","tool_calls":[{}]}}]}"#,
            b"not json",
        ] {
            assert_eq!(of_body(other), None);
        }
    }

    #[test]
    fn what_is_stored_is_read_and_what_is_damaged_is_not() {
        let body = Bytes::from_static(br#"{"choices":[{"message":{"content":"yes"}}]}"#);
        let answer = Answer::Full(Completion::new(body, "m".into(), None));
        let stored = ChatCaching::new(PriceTable::builtin().into()).encode(&answer).unwrap();
        assert_eq!(of_stored(stored.clone()).as_deref(), Some("yes"));
        assert_eq!(of_stored(stored.slice(1..)), None);
    }

    #[test]
    fn a_streams_text_is_that_of_its_pieces() {
        let chunk = |delta: &str| format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        let events = [
            chunk(r#"{"role":"assistant","content":""}"#),
            chunk(r#"{"content":"ye"}"#),
            chunk(r#"{"content":"s"}"#),
            chunk("{}"),
        ];
        let whole = format!("{}data: {{\"choices\":[]}}\n\ndata: [DONE]\n\n", events.concat());
        assert_eq!(of_events(whole.as_bytes()).as_deref(), Some("yes"));
        let calls = chunk(r#"{"tool_calls":[{}]}"#);
        assert_eq!(of_events(calls.as_bytes()), None);
        assert_eq!(of_events(b""), None);
    }
}
