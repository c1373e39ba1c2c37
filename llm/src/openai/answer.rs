//! Writes answers, stream chunks and errors in the OpenAI shape.
//!
//! Used for the simulated provider, for replays and for our own errors; an upstream's answer is passed on
//! as it came. `created` is in seconds since the Unix epoch.

use bytes::Bytes;
use serde::Serialize;

use super::usage::Usage;
use crate::sse;

/// The event that ends a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// What one stream chunk adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Delta<'a> {
    /// Opens the answer: the role and no text yet.
    Role,
    /// More text.
    Content(&'a str),
    /// Ends the answer.
    Stop,
}

#[derive(Serialize)]
struct Completion<'a, C> {
    id: &'a str,
    object: &'a str,
    created: u64,
    model: &'a str,
    choices: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a Usage>,
}

#[derive(Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message<'a>>,
    finish_reason: Option<&'a str>,
}

/// A plain answer with one choice.
#[must_use]
pub fn completion(id: &str, model: &str, created: u64, content: &str, usage: &Usage) -> Bytes {
    let message = Message { role: Some("assistant"), content: Some(content) };
    let choice = Choice { index: 0, message: Some(message), delta: None, finish_reason: Some("stop") };
    let object = "chat.completion";
    json(&Completion { id, object, created, model, choices: [choice], usage: Some(usage) })
}

/// One chunk of a streamed answer, as a whole event.
#[must_use]
pub fn chunk(id: &str, model: &str, created: u64, delta: Delta<'_>) -> Bytes {
    let (delta, finish_reason) = match delta {
        Delta::Role => (Message { role: Some("assistant"), content: Some("") }, None),
        Delta::Content(text) => (Message { role: None, content: Some(text) }, None),
        Delta::Stop => (Message::default(), Some("stop")),
    };
    let choice = Choice { index: 0, message: None, delta: Some(delta), finish_reason };
    let object = "chat.completion.chunk";
    sse::event(&json(&Completion { id, object, created, model, choices: [choice], usage: None }))
}

/// The last chunk of a stream whose client asked for usage, as a whole event: no choices, only tokens.
#[must_use]
pub fn usage_chunk(id: &str, model: &str, created: u64, usage: &Usage) -> Bytes {
    let choices: [Choice<'_>; 0] = [];
    let object = "chat.completion.chunk";
    sse::event(&json(&Completion { id, object, created, model, choices, usage: Some(usage) }))
}

/// The body of an error answer. `kind` is OpenAI's `type`, for example `invalid_request_error`; `param` is
/// the field that is wrong and `code` a name that programs can test.
#[must_use]
pub fn error_body(message: &str, kind: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Detail<'a>,
    }
    #[derive(Serialize)]
    struct Detail<'a> {
        message: &'a str,
        #[serde(rename = "type")]
        kind: &'a str,
        param: Option<&'a str>,
        code: Option<&'a str>,
    }

    json(&Body { error: Detail { message, kind, param, code } })
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("strings and numbers always have a JSON form").into()
}

/// A stream of these chunks, to its end.
#[cfg(test)]
pub(super) fn stream(chunks: &[serde_json::Value]) -> Bytes {
    let mut events: Vec<u8> =
        chunks.iter().flat_map(|chunk| sse::event(chunk.to_string().as_bytes()).to_vec()).collect();
    events.extend_from_slice(DONE);
    events.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::usage;
    use serde_json::{Value, json};

    fn value(bytes: &[u8]) -> Value {
        serde_json::from_slice(bytes).expect("an answer is JSON")
    }

    fn data(event: &[u8]) -> Value {
        value(event.strip_prefix(b"data: ").unwrap().strip_suffix(b"\n\n").unwrap())
    }

    #[test]
    fn a_plain_answer_has_every_field_that_clients_read() {
        let tokens = Usage { cached_tokens: 4, reasoning_tokens: 1, ..Usage::new(9, 3) };
        let body = completion("chatcmpl-1", "m", 1_700_000_000, "a \"b\"\n", &tokens);
        assert_eq!(
            value(&body),
            json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "a \"b\"\n"}, "finish_reason": "stop"}],
                "usage": {
                    "prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
                    "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1},
                },
            })
        );
        assert_eq!(usage(&body), Some(tokens));
    }

    #[test]
    fn chunks_open_add_and_end() {
        let choice = |delta| data(&chunk("i", "m", 5, delta))["choices"].clone();
        assert_eq!(
            choice(Delta::Role),
            json!([{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": null}])
        );
        assert_eq!(
            choice(Delta::Content("x\n\n")),
            json!([{"index": 0, "delta": {"content": "x\n\n"}, "finish_reason": null}])
        );
        assert_eq!(choice(Delta::Stop), json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]));
        assert_eq!(data(&chunk("i", "m", 5, Delta::Role))["object"], "chat.completion.chunk");
    }

    #[test]
    fn the_usage_chunk_has_no_choices() {
        let chunk = data(&usage_chunk("i", "m", 5, &Usage::new(2, 1)));
        assert_eq!(chunk["choices"], json!([]));
        assert_eq!(chunk["usage"]["total_tokens"], 3);
    }

    #[test]
    fn an_error_has_all_four_fields() {
        let body = error_body("no \"x\"", "invalid_request_error", Some("model"), None);
        assert_eq!(
            value(&body),
            json!({"error": {"message": "no \"x\"", "type": "invalid_request_error", "param": "model", "code": null}})
        );
    }
}
