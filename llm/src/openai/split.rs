//! The events of a stream that gives a plain answer.
//!
//! What is not known how to take apart is given in one piece, or has no such form.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Number, Value, json};

use super::answer::DONE;
use crate::sse::{self, MAX_EVENT_BYTES};

/// What of an answer stands in each of its chunks; the rest is said with the first.
const IN_EACH: [&str; 6] = ["id", "object", "created", "model", "system_fingerprint", "service_tier"];

/// The deepest JSON that is read here, as deep as `serde_json` reads others.
const MAX_DEPTH: usize = 127;

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
    let Value::Object(mut head) = exactly(body)? else { return None };
    let Value::Array(choices) = head.remove("choices")? else { return None };
    let usage = head.remove("usage").filter(|usage| !usage.is_null());
    if choices.is_empty() || head.get("error").is_some_and(|error| !error.is_null()) {
        return None;
    }
    head.insert("object".into(), "chat.completion.chunk".into());
    let (mut events, mut seen) = (Vec::new(), BTreeSet::new());
    for (at, choice) in choices.into_iter().enumerate() {
        let Value::Object(mut choice) = choice else { return None };
        let index = match choice.remove("index") {
            Some(index) => index.as_u64()?,
            None => u64::try_from(at).ok()?,
        };
        if !seen.insert(index) {
            return None;
        }
        split_choice(&mut head, index, choice, pieces, &mut events)?;
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
    index: u64,
    mut choice: Map<String, Value>,
    pieces: Pieces,
    events: &mut Vec<Bytes>,
) -> Option<()> {
    if !choice.contains_key("finish_reason") {
        return None;
    }
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
        choice.insert("index".into(), index.into());
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
    say(json!({}), choice);
    Some(())
}

/// What JSON says, with every number as it is; `None` where one cannot be held.
pub(super) fn exactly(json: &[u8]) -> Option<Value> {
    exact(serde_json::from_slice(json).ok()?, MAX_DEPTH)
}

fn exact(raw: &RawValue, depth: usize) -> Option<Value> {
    let (json, depth) = (raw.get(), depth.checked_sub(1)?);
    match json.as_bytes().first()? {
        b'{' => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            fields.into_iter().map(|(name, raw)| Some((name, exact(raw, depth)?))).collect()
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            items.into_iter().map(|raw| exact(raw, depth)).collect()
        }
        b'-' | b'0'..=b'9' => number(json).map(Value::Number),
        _ => serde_json::from_str(json).ok(),
    }
}

/// `serde_json` reads numbers with a point to the last digit but one, and integers beyond 64 bits with a point.
fn number(json: &str) -> Option<Number> {
    let whole = json.parse::<u64>().map(Number::from).or_else(|_| json.parse::<i64>().map(Number::from));
    let number = whole.ok().or_else(|| Number::from_f64(json.parse().ok()?))?;
    (decimal(&number.to_string())? == decimal(json)?).then_some(number)
}

/// The digits of a number without zeros at either end, and the power of ten of the last one.
fn decimal(json: &str) -> Option<(bool, String, i64)> {
    let (mantissa, exponent) = json.split_once(['e', 'E']).unwrap_or((json, "0"));
    let (mantissa, is_negative) = mantissa.strip_prefix('-').map_or((mantissa, false), |rest| (rest, true));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let shift = i64::try_from(digits.len() - significant.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let digits = significant.trim_start_matches('0');
    if digits.is_empty() {
        return Some((is_negative, String::new(), 0));
    }
    Some((is_negative, digits.to_owned(), exponent.parse::<i64>().ok()?.checked_add(shift)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &Value, pieces: Pieces) -> Vec<Value> {
        let events = split(body.to_string().as_bytes(), true, pieces).unwrap().concat();
        let events = sse::events(&events.into()).unwrap();
        assert_eq!(events.last().unwrap().data, "[DONE]");
        events[..events.len() - 1].iter().map(|event| serde_json::from_slice(&event.data).unwrap()).collect()
    }

    fn answer() -> Value {
        json!({"id": "i", "object": "chat.completion", "created": 5, "model": "m", "citations": ["a"],
            "choices": [{"message": {"role": "assistant", "content": "two  words"}, "finish_reason": "stop",
                "stop_reason": 7}],
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
        let ended =
            |message: &str| format!(r#"{{"choices":[{{"message":{message},"finish_reason":"stop"}}]}}"#);
        let huge = ended(&format!(r#"{{"content":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES)));
        let deep = ended(&format!(r#"{{"content":"x","x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000)));
        for odd in [
            "{}",
            "[]",
            "",
            r#"{"choices":[]}"#,
            r#"{"choices":[{}]}"#,
            r#"{"choices":[{"message":{"content":"nobody says why it ended"}}]}"#,
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop","index":"0"}]}"#,
            r#"{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"error":{}}"#,
            &ended(r#"{"content":["x"]}"#),
            &ended(r#"{"content":null,"audio":{"data":"AAAA"}}"#),
            &ended(r#"{"tool_calls":"x"}"#),
            &huge,
            &deep,
        ] {
            assert_eq!(split(odd.as_bytes(), false, Pieces::Whole), None, "{}", &odd[..odd.len().min(80)]);
        }
    }

    #[test]
    fn two_choices_of_one_index_are_not_run_together() {
        let choice =
            |index: &str| format!(r#"{{{index}"message":{{"content":"x"}},"finish_reason":"stop"}}"#);
        let both = |first: &str, second: &str| {
            let body = format!(r#"{{"choices":[{},{}]}}"#, choice(first), choice(second));
            split(body.as_bytes(), false, Pieces::Whole).is_some()
        };
        assert!(both("", "") && both(r#""index":1,"#, r#""index":0,"#));
        assert!(!both(r#""index":0,"#, r#""index":0,"#));
        assert!(!both(r#""index":1,"#, ""), "the second one is 1 as well");
    }

    #[test]
    fn numbers_are_held_as_they_are_or_not_at_all() {
        for held in [
            "0",
            "-7",
            "18446744073709551615",
            "-9223372036854775808",
            "0.5",
            "1.50",
            "1e2",
            "1E-7",
            "0.0",
            "100000000000000000000",
            "-0.13436424411240122",
            "5e-324",
        ] {
            let read = exactly(format!("[{held}]").as_bytes()).unwrap();
            assert_eq!(read[0].as_f64(), held.parse().ok(), "{held}");
        }
        for not in [
            "18446744073709551617",
            "-9223372036854775809",
            "0.12345678901234567890123",
            "1e400",
            "1e-400",
            "9007199254740993.0",
            "1e99999999999999999999",
        ] {
            let body = format!(
                r#"{{"x":{not},"choices":[{{"message":{{"content":"x"}},"finish_reason":"stop"}}]}}"#
            );
            assert_eq!(split(body.as_bytes(), false, Pieces::Whole), None, "{not}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_a_provider_writes_of_a_number_of_64_bits_is_held(float: f64, whole: i64) {
            for written in [json!(float), json!(whole)].map(|number| number.to_string()) {
                let read = exactly(written.as_bytes()).map(|read| read.to_string());
                proptest::prop_assert_eq!(read, Some(written));
            }
        }
    }
}
