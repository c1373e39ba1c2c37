//! Complete answers as somebody keeps them: which are worth it, and a stream for who has asked for its usage and for who
//! has not.

use bytes::Bytes;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::split::usage_chunk;
use super::usage::{RawUsage, Usage};
use crate::sse;

/// Where the events of a stream say what was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) struct Tells {
    /// All of it, the last time.
    usage: bool,
    /// In a chunk of its own, which only who has asked for it may see.
    apart: bool,
}

/// What decides in a plain answer or in a chunk.
#[derive(Deserialize)]
struct Shape<'a> {
    #[serde(borrow, default)]
    choices: Option<Vec<Choice<'a>>>,
    error: Option<IgnoredAny>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
    error: Option<IgnoredAny>,
}

/// Whether a plain answer is worth giving again: it has at least one choice and no error, and no choice ended by one or
/// was cut off by a filter.
pub(crate) fn is_answer(body: &[u8]) -> bool {
    sound(body).is_some_and(|shape| shape.has_choices())
}

/// As [`is_answer`], of the events of a complete stream. `None` for one that is not worth it: every event is a chunk or
/// `[DONE]`, and what is neither may be an error in a form that nobody here knows.
pub(crate) fn survey(events: &Bytes) -> Option<Tells> {
    let (mut any, mut tells) = (false, Tells::default());
    for event in sse::events(events).ok()? {
        if is_named_error(&event.raw) {
            return None;
        }
        let data = AsRef::<[u8]>::as_ref(&event.data).trim_ascii();
        if matches!(data, b"" | b"[DONE]") {
            continue;
        }
        let chunk = sound(data)?;
        any |= chunk.has_choices();
        if let Some(usage) = chunk.usage {
            tells.usage = RawUsage::of(usage.get()).is_some();
            tells.apart |= !chunk.has_choices();
        }
    }
    any.then_some(tells)
}

/// A plain answer or a chunk that has a list of choices and no error.
fn sound(data: &[u8]) -> Option<Shape<'_>> {
    // A list would be taken for the fields in their order.
    let is_object = data.trim_ascii_start().starts_with(b"{");
    // Checked as a whole, and not each of its parts by itself.
    let text = std::str::from_utf8(data).ok()?;
    let shape = serde_json::from_str::<Shape<'_>>(text).ok().filter(|_| is_object)?;
    (shape.choices.is_some() && !shape.is_spoilt()).then_some(shape)
}

fn is_named_error(raw: &[u8]) -> bool {
    let raw = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(raw);
    let mut names = sse::lines(raw).filter_map(|line| line.strip_prefix(b"event:"));
    names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"error"))
}

/// The events of a complete stream one by one, with what was used told in a chunk of its own if that is wanted and known,
/// and not told so if it is not wanted.
pub(crate) fn retold(
    events: &Bytes,
    tells: Tells,
    wanted: bool,
    usage: Option<&Usage>,
) -> Option<Vec<Bytes>> {
    let usage = match usage.filter(|_| wanted && !tells.usage) {
        Some(usage) => Some(serde_json::to_value(usage).ok()?),
        None => None,
    };
    let (mut out, mut said) = (Vec::new(), Map::new());
    for event in sse::events(events).ok()? {
        let data = AsRef::<[u8]>::as_ref(&event.data).trim_ascii();
        if let (b"[DONE]", Some(usage)) = (data, &usage) {
            out.push(usage_chunk(&said, usage));
        } else if (usage.is_some() || (tells.apart && !wanted))
            && let Ok(Value::Object(chunk)) = serde_json::from_slice(data)
        {
            if !wanted && is_usage(&chunk) {
                continue;
            }
            said = chunk;
        }
        out.push(event.raw);
    }
    Some(out)
}

fn is_usage(chunk: &Map<String, Value>) -> bool {
    let is_empty = chunk.get("choices").and_then(Value::as_array).is_none_or(Vec::is_empty);
    is_empty && chunk.get("usage").is_some_and(|usage| !usage.is_null())
}

// === impl Tells ===

impl Tells {
    /// Whether the events are as who has, or has not, asked for the usage is to see them.
    pub(crate) fn suits(self, wanted: bool) -> bool {
        if wanted { self.usage } else { !self.apart }
    }
}

// === impl Shape ===

impl Shape<'_> {
    fn has_choices(&self) -> bool {
        self.choices.as_ref().is_some_and(|choices| !choices.is_empty())
    }

    fn is_spoilt(&self) -> bool {
        self.error.is_some() || self.choices.iter().flatten().any(Choice::is_spoilt)
    }
}

// === impl Choice ===

impl Choice<'_> {
    fn is_spoilt(&self) -> bool {
        let reason = self.finish_reason.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
        self.error.is_some() || matches!(reason.as_deref(), Some("error" | "content_filter"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::answer::{DONE, stream};
    use super::*;

    fn says(text: &str, finish: &Value) -> Value {
        json!({"id": "i", "model": "m", "choices": [{"delta": {"content": text}, "finish_reason": finish}]})
    }

    fn used() -> Value {
        json!({"id": "i", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 3}})
    }

    #[test]
    fn an_answer_without_choices_with_an_error_or_cut_off_by_a_filter_is_not_kept() {
        let choice =
            |reason: &str| format!(r#"{{"choices":[{{"message":{{}},"finish_reason":"{reason}"}}]}}"#);
        for kept in ["stop", "length", "tool_calls", "content filter"] {
            assert!(is_answer(choice(kept).as_bytes()), "{kept}");
        }
        assert!(is_answer(br#"{"error":null,"choices":[{}]}"#));
        for not in [
            choice("content_filter"),
            choice("content\\u005ffilter"),
            r#"{"choices":[{"finish_reason":"stop"},{"finish_reason":"content_filter"}]}"#.to_owned(),
            r#"{"choices":[{}],"error":{"message":"overloaded"}}"#.to_owned(),
            r#"{"choices":[{}],"error":"overloaded"}"#.to_owned(),
            choice("error"),
            r#"{"choices":[{"finish_reason":"stop","error":{"code":502}}]}"#.to_owned(),
            r#"[[{"finish_reason":"stop"}],null,null]"#.to_owned(),
            r#"{"choices":[]}"#.to_owned(),
            r#"{"choices":null}"#.to_owned(),
            "{}".to_owned(),
            "<html>".to_owned(),
        ] {
            assert!(!is_answer(not.as_bytes()), "{not}");
        }
    }

    #[test]
    fn what_is_no_utf8_is_not_kept() {
        let body = |byte: &[u8]| [br#"{"choices":[{"delta":{"content":""#, byte, br#""}}]}"#].concat();
        let events = |byte: &[u8]| [&sse::event(&body(byte))[..], DONE].concat().into();
        assert!(is_answer(&body(b"x")) && survey(&events(b"x")).is_some());
        assert!(!is_answer(&body(b"\xff")) && survey(&events(b"\xff")).is_none());
    }

    #[test]
    fn a_stream_without_choices_with_an_error_or_cut_off_by_a_filter_is_not_kept() {
        let hi = says("Hi", &Value::Null);
        assert!(survey(&stream(&[hi.clone(), says("", &json!("stop"))])).is_some());
        for not in [
            vec![hi.clone(), says("", &json!("content_filter"))],
            vec![hi.clone(), json!({"error": {"message": "overloaded"}})],
            vec![hi.clone(), says("", &json!("error"))],
            vec![hi.clone(), json!({"choices": [{"delta": {}, "error": {"code": 502}}]})],
            vec![hi.clone(), json!({"object": "error", "message": "overloaded", "code": 503})],
            vec![hi.clone(), json!({"text": "overloaded", "error_code": 50001})],
            vec![hi.clone(), json!({"error": {"code": 503}, "choices": "none"})],
            vec![hi.clone(), json!({"choices": null})],
            vec![hi.clone(), json!([[], null, null])],
            vec![hi, json!("overloaded")],
            vec![json!({"choices": []}), used()],
            vec![],
        ] {
            assert_eq!(survey(&stream(&not)), None, "{not:?}");
        }
    }

    #[test]
    fn a_stream_with_an_event_that_is_named_error_or_is_no_json_is_not_kept() {
        let hi = says("Hi", &json!("stop")).to_string();
        let with = |block: &str| survey(&format!("{block}data: {hi}\n\n{block}data: [DONE]\n\n").into());
        for kept in
            ["", ": waiting\n\n", "data:\n\n", "event: message\n", "event: errors\n", "id: event: error\n"]
        {
            assert!(with(kept).is_some(), "{kept:?}");
        }
        for not in [
            "event: error\n",
            "event:error\n\n",
            "id: 1\r\nevent: error\r\ndata: {\"choices\":[]}\r\n\r\n",
            "event: error\ndata: overloaded\n\n",
            "\u{feff}event: error\n\n",
            "data: overloaded\n\n",
            "data: {\"choices\":[{\n\n",
        ] {
            assert_eq!(with(not), None, "{not:?}");
        }
    }

    #[test]
    fn the_usage_is_shown_to_who_has_asked_for_it_and_to_nobody_else() {
        let (hi, usage) = (says("Hi", &Value::Null), Usage::new(9, 3));
        let mut beside = hi.clone();
        beside["usage"] = used()["usage"].clone();
        let (with, without) = (stream(&[hi.clone(), used()]), stream(std::slice::from_ref(&hi)));
        let beside = stream(&[beside]);
        let told = |events: &Bytes, wanted, usage: Option<&Usage>| {
            let tells = survey(events).unwrap();
            let out = retold(events, tells, wanted, usage).unwrap().concat();
            assert!(out == *events || !tells.suits(wanted), "{out:?}");
            out
        };
        assert_eq!(told(&with, true, Some(&usage)), with);
        assert_eq!(told(&with, false, Some(&usage)), without);
        assert_eq!(told(&without, false, Some(&usage)), without);
        assert_eq!(told(&beside, true, Some(&usage)), beside, "it is not told twice");
        assert_eq!(told(&beside, false, Some(&usage)), beside, "nor is a chunk with an answer left out");
        assert_eq!(told(&without, true, None), without, "what nobody knows is not told");
        let added = told(&without, true, Some(&usage));
        assert!(added.ends_with(DONE));
        let chunk: Value =
            serde_json::from_slice(&sse::events(&Bytes::from(added)).unwrap()[1].data).unwrap();
        assert_eq!((&chunk["usage"]["total_tokens"], &chunk["id"]), (&json!(12), &json!("i")));
        assert_eq!(&chunk["choices"], &json!([]));
    }

    #[test]
    fn a_usage_that_is_told_in_part_is_told_whole_to_who_has_asked_for_it() {
        let mut begun = says("Hi", &Value::Null);
        begun["usage"] = json!({"input_tokens": 9, "output_tokens": 1});
        let mut ended = says("!", &Value::Null);
        ended["usage"] = json!({"output_tokens": 3});
        let events = stream(&[begun, ended]);
        let tells = survey(&events).unwrap();
        let told = |usage| retold(&events, tells, true, usage).unwrap().concat();
        assert_eq!(told(None), events);
        let added = told(Some(&Usage::new(9, 3)));
        let chunk: Value =
            serde_json::from_slice(&sse::events(&Bytes::from(added)).unwrap()[2].data).unwrap();
        assert_eq!(chunk["usage"]["total_tokens"], 12);
    }

    #[test]
    fn what_is_hidden_in_escapes_is_found_in_long_streams_too() {
        let escaped = r#"data: {"choices":[{"delta":{},"finish\u005freason":"content\u005ffilter"}]}"#;
        let first = sse::event(says("a", &Value::Null).to_string().as_bytes());
        let events = [&first[..], escaped.as_bytes(), b"\n\n", DONE].concat();
        assert_eq!(survey(&events.into()), None);
    }
}
