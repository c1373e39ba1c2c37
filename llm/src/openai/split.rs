//! The events of a stream that gives a plain answer.
//!
//! What is not known how to take apart is given in one piece, or has no such form.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::answer::DONE;
use crate::sse::{self, MAX_EVENT_BYTES};

/// What of an answer stands in each of its chunks; the rest is said with the first.
const IN_EACH: [&str; 6] = ["id", "object", "created", "model", "system_fingerprint", "service_tier"];

/// How a text is taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pieces {
    /// Not at all.
    Whole,
    /// Word by word.
    Words,
}

/// The events that give the answer in `body`; `tells_usage` for who has asked for a chunk of its own about that.
pub(crate) fn split(body: &[u8], tells_usage: bool, pieces: Pieces) -> Option<Vec<Bytes>> {
    let Value::Object(mut head) = serde_json::from_slice(body).ok()? else { return None };
    let Value::Array(choices) = head.remove("choices")? else { return None };
    let usage = head.remove("usage").filter(|usage| !usage.is_null());
    if choices.is_empty() || head.get("error").is_some_and(|error| !error.is_null()) {
        return None;
    }
    head.insert("object".into(), "chat.completion.chunk".into());
    let mut events = Vec::new();
    for (at, choice) in choices.into_iter().enumerate() {
        split_choice(&mut head, at, choice, pieces, &mut events)?;
    }
    events.extend(usage.filter(|_| tells_usage).map(|usage| usage_chunk(&head, &usage)));
    events.push(Bytes::from_static(DONE));
    // Whoever reads the stream may take no larger one.
    events.iter().all(|event| event.len() <= MAX_EVENT_BYTES).then_some(events)
}

/// A chunk that says what was used, and nothing else; `said` is what other chunks say beside their choices.
pub(crate) fn usage_chunk(said: &Map<String, Value>, usage: &Value) -> Bytes {
    let said = said.iter().filter(|(name, _)| IN_EACH.contains(&name.as_str()));
    let mut chunk: Map<_, _> = said.map(|(name, value)| (name.clone(), value.clone())).collect();
    chunk.insert("choices".into(), json!([]));
    chunk.insert("usage".into(), usage.clone());
    event(&Value::Object(chunk))
}

fn event(value: &Value) -> Bytes {
    sse::event(value.to_string().as_bytes())
}

fn split_choice(
    head: &mut Map<String, Value>,
    at: usize,
    choice: Value,
    pieces: Pieces,
    events: &mut Vec<Bytes>,
) -> Option<()> {
    let Value::Object(mut choice) = choice else { return None };
    let index = choice.remove("index").unwrap_or_else(|| at.into());
    let Value::Object(mut message) = choice.remove("message")? else { return None };
    let logprobs = choice.remove("logprobs").unwrap_or(Value::Null);
    let content = message.remove("content").unwrap_or(Value::Null);
    let is_text = content.is_null() || content.is_string();
    if !is_text || message.get("audio").is_some_and(|audio| !audio.is_null()) {
        return None;
    }
    if let Some(calls) = message.get_mut("tool_calls").filter(|calls| !calls.is_null()) {
        for (at, call) in calls.as_array_mut()?.iter_mut().enumerate() {
            call.as_object_mut()?.insert("index".into(), at.into());
        }
    }
    let mut say = |delta: Value, with: Map<String, Value>| {
        let mut chunk = head.clone();
        head.retain(|name, _| IN_EACH.contains(&name.as_str()));
        let mut choice = with;
        choice.insert("index".into(), index.clone());
        choice.insert("delta".into(), delta);
        choice.entry("finish_reason").or_insert(Value::Null);
        chunk.insert("choices".into(), json!([choice]));
        events.push(event(&Value::Object(chunk)));
    };
    match content {
        // Each token has a probability of its own, which could not be given to its word.
        Value::String(text) if logprobs.is_null() && pieces == Pieces::Words => {
            message.insert("content".into(), "".into());
            say(Value::Object(message), Map::new());
            for word in text.split_inclusive(' ') {
                say(json!({"content": word}), Map::new());
            }
        }
        content => {
            message.insert("content".into(), content);
            say(Value::Object(message), Map::from_iter([("logprobs".to_owned(), logprobs)]));
        }
    }
    // What else is said of a choice is said at its end.
    choice.entry("finish_reason").or_insert_with(|| "stop".into());
    say(json!({}), choice);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &Value, pieces: Pieces) -> Vec<Value> {
        let events = split(body.to_string().as_bytes(), true, pieces).unwrap().concat();
        let events = sse::events(&events).unwrap();
        assert_eq!(events.last().unwrap().data, "[DONE]");
        events[..events.len() - 1].iter().map(|event| serde_json::from_slice(&event.data).unwrap()).collect()
    }

    fn answer() -> Value {
        json!({"id": "i", "object": "chat.completion", "created": 5, "model": "m", "citations": ["a"],
            "choices": [{"message": {"role": "assistant", "content": "two  words"}, "stop_reason": 7}],
            "usage": {"prompt_tokens": 9}})
    }

    #[test]
    fn a_text_comes_in_one_piece_or_word_by_word() {
        let texts = |pieces| {
            let chunks = said(&answer(), pieces);
            let texts = chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["content"].as_str());
            texts.map(ToOwned::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(texts(Pieces::Whole), ["two  words"]);
        assert_eq!(texts(Pieces::Words), ["", "two ", " ", "words"]);
    }

    #[test]
    fn every_chunk_says_whose_it_is_and_the_rest_is_said_once() {
        let chunks = said(&answer(), Pieces::Whole);
        assert_eq!(chunks.len(), 3);
        let head = |chunk: &Value| (chunk["id"].clone(), chunk["model"].clone(), chunk["object"].clone());
        let expected = (json!("i"), json!("m"), json!("chat.completion.chunk"));
        assert!(chunks.iter().all(|chunk| head(chunk) == expected));
        assert_eq!(chunks.iter().filter(|chunk| chunk.get("citations").is_some()).count(), 1);
        let end = json!([{"index": 0, "delta": {}, "finish_reason": "stop", "stop_reason": 7}]);
        assert_eq!(chunks[1]["choices"], end);
        assert_eq!((&chunks[2]["choices"], &chunks[2]["usage"]), (&json!([]), &json!({"prompt_tokens": 9})));
    }

    #[test]
    fn calls_of_tools_are_numbered() {
        let call = json!({"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call, call]});
        let chunks =
            said(&json!({"choices": [{"message": message, "finish_reason": "tool_calls"}]}), Pieces::Words);
        let calls = &chunks[0]["choices"][0]["delta"]["tool_calls"];
        assert_eq!((&calls[0]["index"], &calls[1]["index"]), (&json!(0), &json!(1)));
        assert_eq!(chunks[1]["choices"][0]["finish_reason"], "tool_calls");
        assert_eq!(chunks.len(), 2, "who has not said what was used does not tell");
    }

    #[test]
    fn what_is_no_answer_or_not_known_how_to_take_apart_has_no_such_form() {
        let huge =
            format!(r#"{{"choices":[{{"message":{{"content":"{}"}}}}]}}"#, "x".repeat(MAX_EVENT_BYTES));
        for odd in [
            "{}",
            "[]",
            "",
            r#"{"choices":[]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"message":{"content":["x"]}}]}"#,
            r#"{"choices":[{"message":{"content":null,"audio":{"data":"AAAA"}}}]}"#,
            r#"{"choices":[{"message":{"tool_calls":"x"}}]}"#,
            r#"{"choices":[{"message":{"content":"x"}}],"error":{}}"#,
            &huge,
        ] {
            assert_eq!(split(odd.as_bytes(), false, Pieces::Whole), None, "{}", &odd[..odd.len().min(80)]);
        }
    }
}
