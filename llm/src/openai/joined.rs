//! The plain answer that a complete stream has given.
//!
//! What is not known how to join has no plain form: no part of an answer is left out, and none is guessed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::split::exactly;
use super::usage::{RawUsage, Usage};
use crate::sse;

/// One choice so far.
#[derive(Default)]
struct Choice {
    message: Map<String, Value>,
    logprobs: Map<String, Value>,
    finish_reason: Value,
    /// What else is said of it, by names that nobody here knows.
    others: Map<String, Value>,
}

/// What of a message is said piece by piece.
const IN_PIECES: &[&str] = &["content", "refusal", "reasoning", "reasoning_content"];

/// Texts that may be said again. Whoever says the name of a function again may mean another call.
const AGAIN: [&str; 3] = ["role", "id", "type"];

/// Of these the last one counts, for it may differ from chunk to chunk.
const HEAD: [&str; 6] = ["id", "created", "model", "usage", "system_fingerprint", "service_tier"];

/// Joins the events of a stream into a plain answer, with what was used where that is known.
pub(crate) fn joined(events: &Bytes, usage: Option<&Usage>) -> Option<Bytes> {
    let mut head = Map::new();
    let mut choices = BTreeMap::<u64, Choice>::new();
    let mut all_numbered = true;
    for chunk in chunks(events)? {
        let Value::Object(chunk) = chunk else { return None };
        for (name, value) in chunk {
            match name.as_str() {
                "choices" => {
                    let mut seen = BTreeSet::new();
                    for choice in value.as_array()? {
                        let index = choice.get("index");
                        all_numbered &= index.is_some();
                        let index = index.map_or(Some(0), Value::as_u64)?;
                        if !seen.insert(index) {
                            return None;
                        }
                        choices.entry(index).or_default().take(choice.as_object()?)?;
                    }
                }
                "error" if !value.is_null() => return None,
                "object" | "obfuscation" | "error" => {}
                _ if value.is_null() => {}
                // The first chunks of some providers hold nothing yet.
                known if HEAD.contains(&known) => {
                    if !says_nothing(&value) || !head.contains_key(known) {
                        head.insert(name, value);
                    }
                }
                _ if head.get(&name).is_some_and(|old| *old != value) => return None,
                _ => _ = head.insert(name, value),
            }
        }
    }
    if choices.is_empty() || (choices.len() > 1 && !all_numbered) {
        return None;
    }
    head.insert("object".into(), "chat.completion".into());
    head.insert("choices".into(), choices.into_iter().map(|(index, choice)| choice.whole(index)).collect());
    // One of them need not say all, nor the last word: what all say is in what is known.
    let told = head.get("usage").and_then(|told| RawUsage::of(&told.to_string()));
    if let Some(usage) = usage.filter(|known| told != Some(**known)) {
        head.insert("usage".into(), serde_json::to_value(usage).ok()?);
    }
    Some(Value::Object(head).to_string().into())
}

/// The data of every event but the last, `[DONE]`, which must be there.
fn chunks(events: &Bytes) -> Option<Vec<Value>> {
    let (mut chunks, mut done) = (Vec::new(), false);
    for event in sse::events(events).ok()? {
        match AsRef::<[u8]>::as_ref(&event.data).trim_ascii() {
            b"" => {}
            b"[DONE]" => done = true,
            data => chunks.push(exactly(data)?),
        }
    }
    done.then_some(chunks)
}

fn says_nothing(value: &Value) -> bool {
    value.as_str() == Some("") || value.as_u64() == Some(0)
}

// === impl Choice ===

impl Choice {
    /// Adds what one chunk says of it; `None` for what cannot be added.
    fn take(&mut self, choice: &Map<String, Value>) -> Option<()> {
        for (name, value) in choice {
            match name.as_str() {
                _ if value.is_null() => {}
                "index" => {}
                "delta" => join(&mut self.message, value.as_object()?, IN_PIECES)?,
                "logprobs" => append(&mut self.logprobs, value.as_object()?)?,
                "finish_reason" => agree(&mut self.finish_reason, value)?,
                _ => {
                    let old = self.others.entry(name).or_insert(Value::Null);
                    if may_be_pieces(old, value) {
                        return None;
                    }
                    agree(old, value)?;
                }
            }
        }
        Some(())
    }

    fn whole(mut self, index: u64) -> Value {
        self.message.entry("role").or_insert_with(|| "assistant".into());
        self.message.entry("content").or_insert(Value::Null);
        if let Some(calls) = self.message.get_mut("tool_calls").and_then(Value::as_array_mut) {
            calls.sort_by_key(|call| call.get("index").and_then(Value::as_u64));
            for call in calls.iter_mut().filter_map(Value::as_object_mut) {
                call.remove("index");
            }
        }
        let logprobs = if self.logprobs.is_empty() { Value::Null } else { Value::Object(self.logprobs) };
        let mut whole = self.others;
        whole.insert("index".into(), index.into());
        whole.insert("message".into(), Value::Object(self.message));
        whole.insert("logprobs".into(), logprobs);
        whole.insert("finish_reason".into(), self.finish_reason);
        Value::Object(whole)
    }
}

/// Adds a part to what there is: the texts called `pieces` piece by piece, calls by their index.
fn join(whole: &mut Map<String, Value>, part: &Map<String, Value>, pieces: &[&str]) -> Option<()> {
    for (name, new) in part {
        if new.is_null() {
            continue;
        }
        // Pieces of sound are encoded one by one.
        if name == "audio" {
            return None;
        }
        let old = whole.entry(name).or_insert(Value::Null);
        match (&mut *old, new) {
            (Value::Null, Value::Array(calls)) if name == "tool_calls" => {
                *old = json!([]);
                join_calls(old.as_array_mut()?, calls)?;
            }
            (Value::Array(known), Value::Array(calls)) if name == "tool_calls" => join_calls(known, calls)?,
            (Value::String(old), Value::String(new)) if pieces.contains(&name.as_str()) => {
                old.push_str(new);
            }
            (Value::Object(old), Value::Object(new)) => join(old, new, pieces_of(name))?,
            (old, new) if may_be_pieces(old, new) && !AGAIN.contains(&name.as_str()) => return None,
            (old, new) => agree(old, new)?,
        }
    }
    Some(())
}

fn pieces_of(name: &str) -> &'static [&'static str] {
    match name {
        "function" | "function_call" => &["arguments"],
        "custom" => &["input"],
        _ => &[],
    }
}

/// Whether both are texts or lists, which could be two parts of one as well as the same said twice.
fn may_be_pieces(old: &Value, new: &Value) -> bool {
    match (old, new) {
        (Value::String(old), Value::String(new)) => !old.is_empty() && !new.is_empty(),
        (Value::Array(old), Value::Array(new)) => !old.is_empty() && !new.is_empty(),
        _ => false,
    }
}

fn join_calls(calls: &mut Vec<Value>, parts: &[Value]) -> Option<()> {
    for part in parts {
        let index = part.get("index").filter(|index| index.is_u64())?;
        match calls.iter_mut().find(|call| call.get("index") == Some(index)) {
            Some(call) => join(call.as_object_mut()?, part.as_object()?, &[])?,
            None => calls.push(part.clone()),
        }
    }
    Some(())
}

/// Adds the probabilities of more tokens.
fn append(whole: &mut Map<String, Value>, part: &Map<String, Value>) -> Option<()> {
    for (name, new) in part {
        match whole.entry(name).or_insert(Value::Null) {
            _ if new.is_null() => {}
            old @ Value::Null => *old = new.clone(),
            _ if !["content", "refusal"].contains(&name.as_str()) => return None,
            old => old.as_array_mut()?.extend_from_slice(new.as_array()?),
        }
    }
    Some(())
}

/// Takes what is said again and again the same, or field by field.
fn agree(old: &mut Value, new: &Value) -> Option<()> {
    let is_empty = |list: &Value| list.as_array().is_some_and(Vec::is_empty);
    let is_open = old.is_null() || old.as_str() == Some("") || (is_empty(old) && new.is_array());
    match (old, new) {
        (_, Value::Null) => {}
        (old, new) if is_open => *old = new.clone(),
        (_, Value::String(text)) if text.is_empty() => {}
        (Value::Array(_), Value::Array(list)) if list.is_empty() => {}
        (Value::Object(old), Value::Object(new)) => {
            for (name, new) in new {
                agree(old.entry(name).or_insert(Value::Null), new)?;
            }
        }
        (old, new) => return (*old == *new).then_some(()),
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::answer::{DONE, stream};
    use super::super::split::{Pieces, split};
    use super::*;

    fn plain(chunks: &[Value]) -> Option<Value> {
        joined(&stream(chunks), None).map(|body| serde_json::from_slice(&body).unwrap())
    }

    fn chunk(choices: &Value) -> Value {
        json!({"id": "i", "object": "chat.completion.chunk", "created": 5, "model": "m", "system_fingerprint": "f",
            "choices": choices})
    }

    fn delta(delta: &Value) -> Value {
        chunk(&json!([{"index": 0, "delta": delta, "finish_reason": null}]))
    }

    #[test]
    fn a_stream_becomes_the_answer_that_it_has_given() {
        let call = |call: Value| delta(&json!({"tool_calls": [call]}));
        let body = plain(&[
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"content": "He"})),
            delta(&json!({"content": "llo", "role": "assistant"})),
            delta(&json!({"reasoning_content": "h"})),
            delta(&json!({"reasoning_content": "m"})),
            call(
                json!({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}),
            ),
            call(
                json!({"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}),
            ),
            call(json!({"index": 0, "function": {"arguments": "{\"x\""}})),
            call(json!({"index": 0, "id": "", "function": {"name": null, "arguments": ":1}"}})),
            call(json!({"index": 1, "id": "b", "function": {"name": "", "arguments": "}"}})),
            chunk(&json!([{"index": 0, "delta": {}, "finish_reason": "tool_calls"}])),
            json!({"id": "i", "choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 2}}),
        ]);
        let message = json!({"role": "assistant", "content": "Hello", "reasoning_content": "hm", "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{\"x\":1}"}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]});
        let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "tool_calls"});
        let expected = json!({"id": "i", "object": "chat.completion", "created": 5, "model": "m",
            "system_fingerprint": "f", "choices": [choice], "usage": {"prompt_tokens": 4, "completion_tokens": 2}});
        assert_eq!(body, Some(expected));
    }

    #[test]
    fn choices_are_told_apart_and_keep_what_each_says_at_its_end() {
        let part = |index: u64, text: &str| json!({"index": index, "delta": {"content": text}});
        let end = |index: u64, reason: &str, stop: Value| json!({"index": index, "delta": {}, "finish_reason": reason, "stop_reason": stop});
        let body = plain(&[
            chunk(&json!([part(1, "b"), part(0, "a")])),
            chunk(&json!([part(0, "A")])),
            chunk(&json!([end(1, "stop", json!(7)), part(0, "!")])),
            chunk(&json!([end(0, "length", Value::Null)])),
        ]);
        let told = |at: usize| {
            let choice = body.as_ref().unwrap()["choices"][at].clone();
            (
                choice["message"]["content"].clone(),
                choice["finish_reason"].clone(),
                choice["stop_reason"].clone(),
            )
        };
        assert_eq!(told(0), (json!("aA!"), json!("length"), Value::Null));
        assert_eq!(told(1), (json!("b"), json!("stop"), json!(7)));
    }

    #[test]
    fn probabilities_are_put_together_and_filters_that_let_pass_are_kept() {
        let token = |token: &str| json!({"content": [{"token": token, "logprob": -0.5}], "refusal": null});
        let safe = json!({"hate": {"filtered": false, "severity": "safe"}});
        let part = |text: &str, filter: Value| {
            json!([{"index": 0, "delta": {"content": text}, "logprobs": token(text),
                "content_filter_results": filter}])
        };
        let first =
            json!({"id": "", "model": "", "created": 0, "choices": [], "prompt_filter_results": [{"n": 1}]});
        let body = plain(&[first, chunk(&part("a", json!({}))), chunk(&part("b", safe.clone()))]).unwrap();
        let choice = &body["choices"][0];
        assert_eq!(choice["logprobs"]["content"].as_array().unwrap().len(), 2);
        assert_eq!(choice["content_filter_results"], safe);
        assert_eq!((&body["id"], &body["model"]), (&json!("i"), &json!("m")), "not those of the first chunk");
        assert_eq!(body["prompt_filter_results"], json!([{"n": 1}]));
    }

    #[test]
    fn what_was_used_is_added_where_the_stream_does_not_tell() {
        let events = stream(&[delta(&json!({"content": "x"}))]);
        let body: Value = serde_json::from_slice(&joined(&events, Some(&Usage::new(4, 2))).unwrap()).unwrap();
        assert_eq!(body["usage"]["total_tokens"], 6);
        assert_eq!(plain(&[delta(&json!({"content": "x"}))]).unwrap().get("usage"), None);
    }

    #[test]
    fn what_was_used_is_whole_where_the_stream_tells_it_in_parts() {
        let part = |usage: Value| json!({"choices": [{"delta": {"content": "x"}}], "usage": usage});
        let events = stream(&[part(json!({"input_tokens": 9})), part(json!({"output_tokens": 3}))]);
        let read = |usage: Option<&Usage>| crate::openai::usage(&joined(&events, usage).unwrap());
        assert_eq!(read(Some(&Usage::new(9, 3))), Some(Usage::new(9, 3)));
        assert_eq!(read(None), None);
    }

    #[test]
    fn the_last_event_needs_no_blank_line() {
        let events = stream(&[delta(&json!({"content": "x"}))]);
        assert!(joined(&events.slice(..events.len() - 2), None).is_some());
        assert!(joined(&events.slice(..events.len() - DONE.len()), None).is_none(), "there was no [DONE]");
    }

    #[test]
    fn what_cannot_be_joined_has_no_other_form() {
        let whole = delta(&json!({"content": "x", "n": 1, "details": [{"text": "a"}], "note": "la"}));
        let again = delta(&json!({"content": "x", "n": 1, "details": [], "note": ""}));
        assert!(plain(&[again.clone(), whole.clone(), again]).is_some());
        for odd in [
            json!({"error": {"message": "broken"}}),
            delta(&json!({"content": 7})),
            delta(&json!({"n": 2})),
            delta(&json!({"details": [{"text": "b"}]})),
            delta(&json!({"details": [{"text": "a"}]})),
            delta(&json!({"note": "la"})),
            delta(&json!({"role": "tool", "id": "a"})),
            delta(&json!({"audio": {"data": "AAAA"}})),
            delta(&json!({"tool_calls": [{"id": "no index"}]})),
            chunk(&json!([{"index": 0, "delta": "text"}])),
            chunk(&json!([{"index": "0", "delta": {}}])),
            chunk(&json!([{"index": 0, "delta": {}, "logprobs": {"content": "x"}}, {"index": 0, "delta": {},
                "logprobs": {"content": []}}])),
            chunk(&json!([{"delta": {"content": "a"}}, {"delta": {"content": "b"}}])),
            chunk(&json!([{"index": 1, "delta": {"content": "a"}}, {"delta": {"content": "b"}}])),
            json!({"choices": {}}),
            json!([]),
        ] {
            let role = delta(&json!({"role": "assistant"}));
            assert_eq!(plain(&[role, whole.clone(), odd.clone()]), None, "{odd}");
        }
        assert_eq!(plain(&[]), None);
        assert_eq!(joined(&Bytes::from_static(b"data: {\n\ndata: [DONE]\n\n"), None), None);
    }

    #[test]
    fn calls_that_claim_to_be_one_are_not_run_together() {
        let call = |id: &str, function: Value| json!({"index": 0, "id": id, "function": function});
        let named = |id: &str, name: &str| call(id, json!({"name": name, "arguments": "{}"}));
        let nameless = |id: &str| call(id, json!({"arguments": "{}"}));
        for [first, second] in [
            [named("", "f"), named("", "f")],
            [named("a", "f"), named("a", "f")],
            [named("", "f"), named("", "g")],
            [nameless("a"), nameless("b")],
            [
                json!({"index": 0, "custom": {"name": "f", "input": "x"}}),
                json!({"index": 0, "custom": {"name": "f", "input": "x"}}),
            ],
        ] {
            let apart = [
                delta(&json!({"tool_calls": [first.clone()]})),
                delta(&json!({"tool_calls": [second.clone()]})),
            ];
            assert_eq!(plain(&apart), None, "{first} {second}");
            assert_eq!(plain(&[delta(&json!({"tool_calls": [first, second]}))]), None, "in one chunk");
        }
    }

    #[test]
    fn calls_come_in_the_order_of_their_indexes() {
        let call = |index: u64| {
            let name = format!("f{index}");
            delta(
                &json!({"tool_calls": [{"index": index, "id": "", "function": {"name": name, "arguments": ""}}]}),
            )
        };
        let body = plain(&[call(2), call(0), call(1)]).unwrap();
        let calls = body["choices"][0]["message"]["tool_calls"].as_array().unwrap();
        let names: Vec<_> = calls.iter().map(|call| call["function"]["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["f0", "f1", "f2"]);
    }

    #[test]
    fn a_field_that_differs_from_chunk_to_chunk_is_not_decided() {
        let says = |name: &str, value: Value| {
            let mut chunk = delta(&json!({"content": "x"}));
            chunk[name] = value;
            chunk
        };
        for (name, first, second) in [
            ("citations", json!(["a"]), json!(["b"])),
            ("citations", json!([]), json!(["b"])),
            ("note", json!("a"), json!("")),
            ("count", json!(0), json!(1)),
        ] {
            let same = [says(name, first.clone()), says(name, first.clone()), says(name, Value::Null)];
            assert_eq!(plain(&same).unwrap()[name], first);
            assert_eq!(plain(&[says(name, first), says(name, second)]), None, "{name}");
        }
        for name in HEAD {
            assert_eq!(plain(&[says(name, json!("a")), says(name, json!("b"))]).unwrap()[name], "b");
        }
    }

    #[test]
    fn what_may_be_a_part_beside_the_message_is_not_taken_for_the_whole() {
        let beside = |name: &str, value: &Value| {
            let mut choice = json!({"index": 0, "delta": {"content": "x"}});
            choice[name] = value.clone();
            chunk(&json!([choice]))
        };
        for (name, part) in
            [("token_ids", json!([5])), ("text", json!("la")), ("logprobs", json!({"tokens": ["la"]}))]
        {
            let (first, rest) = (beside(name, &part), delta(&json!({"content": "x"})));
            assert_eq!(plain(&[first.clone(), rest]).unwrap()["choices"][0][name], part);
            assert_eq!(plain(&[first.clone(), first]), None, "{name}");
        }
        let (stop, calls) = (json!("stop"), json!("tool_calls"));
        assert_eq!(plain(&[beside("finish_reason", &stop), beside("finish_reason", &calls)]), None);
    }

    #[test]
    fn a_number_that_cannot_be_held_has_no_other_form() {
        let with = |number: &str| {
            let chunk = format!(r#"{{"n":{number},"choices":[{{"index":0,"delta":{{"content":"x"}}}}]}}"#);
            let body = joined(&[&sse::event(chunk.as_bytes())[..], DONE].concat().into(), None);
            body.map(|body| String::from_utf8(body.to_vec()).unwrap())
        };
        for held in ["18446744073709551615", "-0.13436424411240122"] {
            assert!(with(held).unwrap().contains(held), "{held}");
        }
        assert_eq!(with("18446744073709551617"), None);
    }

    mod properties {
        use proptest::prelude::*;

        use super::*;

        fn text() -> impl Strategy<Value = String> {
            prop_oneof![Just(String::new()), "[a-c é\n]{0,12}", any::<String>()]
        }

        fn calls() -> impl Strategy<Value = Value> {
            let call = (text(), text()).prop_map(|(name, arguments)| {
                json!({"id": format!("call-{name}"), "type": "function",
                    "function": {"name": format!("f{name}"), "arguments": arguments}})
            });
            proptest::collection::vec(call, 0..3).prop_map(Value::from)
        }

        fn choice() -> impl Strategy<Value = Value> {
            let reasons = ["stop", "length", "tool_calls", "function_call"];
            let content = proptest::option::of(text());
            (
                content,
                proptest::option::of(text()),
                calls(),
                proptest::sample::select(reasons.to_vec()),
                any::<bool>(),
            )
                .prop_map(|(content, refusal, calls, reason, likely)| {
                    let mut message = json!({"role": "assistant", "content": content});
                    if let Some(refusal) = refusal {
                        message["refusal"] = refusal.into();
                    }
                    if calls.as_array().is_some_and(|calls| !calls.is_empty()) {
                        message["tool_calls"] = calls;
                    }
                    let logprobs = if likely {
                        json!({"content": [{"token": "x", "logprob": -0.5}]})
                    } else {
                        Value::Null
                    };
                    json!({"message": message, "logprobs": logprobs, "finish_reason": reason})
                })
        }

        /// Plain answers of all kinds.
        fn answers() -> impl Strategy<Value = Value> {
            (proptest::collection::vec(choice(), 1..4), 0_u64..1_000, 1_u64..1_000).prop_map(
                |(mut choices, tokens, created)| {
                    for (index, choice) in choices.iter_mut().enumerate() {
                        choice["index"] = index.into();
                    }
                    json!({"id": "i", "object": "chat.completion", "created": created, "model": "m",
                        "service_tier": "x", "citations": ["a", "b"], "choices": choices,
                        "usage": {"prompt_tokens": tokens, "completion_tokens": 3, "total_tokens": tokens + 3,
                            "odd": {"x": 1}}})
                },
            )
        }

        proptest! {
            #[test]
            fn a_plain_answer_survives_being_streamed(answer in answers(), by_word: bool) {
                let pieces = if by_word { Pieces::Words } else { Pieces::Whole };
                let body = answer.to_string();
                let events = split(body.as_bytes(), true, pieces).unwrap().concat();
                let back: Value = serde_json::from_slice(&joined(&events.into(), None).unwrap()).unwrap();
                prop_assert_eq!(&back, &answer);
                let silent = split(body.as_bytes(), false, pieces).unwrap().concat();
                let back: Value = serde_json::from_slice(&joined(&silent.into(), None).unwrap()).unwrap();
                prop_assert_eq!(back.get("usage"), None);
                prop_assert_eq!(&back["choices"], &answer["choices"]);
            }

            #[test]
            fn whatever_the_events_hold_there_is_no_panic(data in proptest::collection::vec(any::<String>(), 0..4)) {
                let events: Vec<u8> =
                    data.iter().flat_map(|data| sse::event(data.as_bytes()).to_vec()).chain(DONE.to_vec()).collect();
                let _ = joined(&events.into(), None);
            }
        }
    }
}
