//! What was asked and answered, in the conventions' schema of messages. Only where that has been switched on.
//!
//! Every text is redacted before it is cut, so that no half of a secret is left at the end of a piece; spans are
//! redacted once more when they leave. What is recorded is bounded and always whole JSON: the latest messages are kept,
//! and what is left out is said.
//!
//! A conversation's system messages stay among its messages, as the conventions have it for those who send them there:
//! `gen_ai.system_instructions` is for dialects that have a place of their own for them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::{Map, Value, json};
use throughline::redact::Redactor;

use crate::answer::Frame;
use crate::sse::{self, SseParser};

/// The most bytes of one attribute.
const MOST_BYTES: usize = 8 * 1024;

/// Longer than the secrets that a cut could halve.
const LONGEST_SECRET: usize = 4 * 1024;

/// What a message takes beside its text.
const PER_MESSAGE: usize = 96;

/// The most bytes of a stream that are looked at again.
const MOST_RECORDED: usize = 256 * 1024;

/// Who speaks, and why an answer ends, as far as that is known. Anything else is [`OTHER`]: it may be any text.
const ROLES: [&str; 6] = ["system", "developer", "user", "assistant", "tool", "function"];
const REASONS: [&str; 11] = [
    "stop",
    "length",
    "content_filter",
    "error",
    "end_turn",
    "max_tokens",
    "stop_sequence",
    "tool_use",
    "refusal",
    "eos",
    "insufficient_system_resource",
];
const OTHER: &str = "other";

/// Stands where something was cut off.
const CUT: &str = "…[cut]";

/// The events of a stream, kept for its end.
#[derive(Debug, Default)]
pub(crate) struct Recording {
    events: Vec<u8>,
    /// Whether there was more than is kept.
    full: bool,
}

/// How many bytes may still be written.
struct Room<'a> {
    left: usize,
    /// Whether texts go on behind what is there of them.
    goes_on: bool,
    redactor: &'a Redactor,
}

/// The messages of a request's body, as JSON; `None` when it has none.
pub(crate) fn input_messages(body: &[u8], redactor: &Redactor) -> Option<String> {
    harmless(|| read_input(body, Room::new(redactor)))
}

/// The messages of a whole answer, as JSON.
pub(crate) fn output_messages(body: &[u8], redactor: &Redactor) -> Option<String> {
    harmless(|| read_output(body, Room::new(redactor)))
}

/// What goes wrong here must not go wrong for whoever asked.
fn harmless(record: impl FnOnce() -> Option<String>) -> Option<String> {
    catch_unwind(AssertUnwindSafe(record)).ok().flatten()
}

fn read_input(body: &[u8], mut room: Room<'_>) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let mut kept = Vec::new();
    for message in body.get("messages")?.as_array()?.iter().rev() {
        if room.left < PER_MESSAGE {
            break;
        }
        kept.push(room.message(message, "user"));
    }
    kept.reverse();
    Some(whole(kept))
}

fn read_output(body: &[u8], mut room: Room<'_>) -> Option<String> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let choices = body.get("choices")?.as_array()?;
    Some(whole(choices.iter().map(|choice| room.choice(choice)).collect()))
}

/// Whole JSON of at most [`MOST_BYTES`], should the room have been counted too generously.
fn whole(mut messages: Vec<Value>) -> String {
    loop {
        let text = Value::from(messages.as_slice()).to_string();
        if text.len() <= MOST_BYTES || messages.is_empty() {
            return text;
        }
        // The first are the oldest.
        messages.remove(0);
    }
}

// === impl Recording ===

impl Recording {
    /// Keeps the events of `frame`, as far as there is room.
    pub(crate) fn keep(&mut self, frame: &Frame) {
        // Nothing after a gap: it would be read as what follows.
        self.full |= self.events.len() + frame.events.len() > MOST_RECORDED;
        if !self.full {
            self.events.extend_from_slice(&frame.events);
        }
    }

    /// The messages of the stream so far, as JSON. A choice that has no end of its own ended with an error, or after what is
    /// kept: then its reason is `unknown`.
    pub(crate) fn output_messages(&self, redactor: &Redactor) -> Option<String> {
        harmless(|| self.read(Room::new(redactor)))
    }

    fn read(&self, mut room: Room<'_>) -> Option<String> {
        let mut parser = SseParser::default();
        parser.push(&self.events);
        room.goes_on = self.full;
        let no_reason = if self.full { "unknown" } else { "error" };
        let mut choices: Vec<(u64, String, Option<String>)> = Vec::new();
        while let Ok(Some(event)) = parser.next_event() {
            let Ok(chunk) = serde_json::from_str::<Value>(&sse::text(&event.data)) else { continue };
            for choice in chunk["choices"].as_array().into_iter().flatten() {
                let index = choice["index"].as_u64().unwrap_or(0);
                let at = choices.iter().position(|(known, ..)| *known == index).unwrap_or_else(|| {
                    choices.push((index, String::new(), None));
                    choices.len() - 1
                });
                choices[at].1.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
                if let Some(reason) = choice["finish_reason"].as_str() {
                    choices[at].2 = Some(reason.to_owned());
                }
            }
        }
        let message = |(_, text, reason): &(u64, String, Option<String>)| {
            let message = json!({"role": "assistant", "content": text});
            room.choice(&json!({"message": message, "finish_reason": reason.as_deref().unwrap_or(no_reason)}))
        };
        (!choices.is_empty()).then(|| whole(choices.iter().map(message).collect()))
    }
}

// === impl Room ===

impl<'a> Room<'a> {
    fn new(redactor: &'a Redactor) -> Self {
        Self { left: MOST_BYTES, goes_on: false, redactor }
    }

    fn choice(&mut self, choice: &Value) -> Value {
        let mut message = self.message(&choice["message"], "assistant");
        let reason = match choice["finish_reason"].as_str().unwrap_or("error") {
            "tool_calls" | "function_call" => "tool_call",
            reason => REASONS.iter().find(|known| **known == reason).copied().unwrap_or(OTHER),
        };
        message["finish_reason"] = reason.into();
        message
    }

    /// A message in the conventions' schema.
    fn message(&mut self, message: &Value, role: &str) -> Value {
        self.left = self.left.saturating_sub(PER_MESSAGE);
        let role = match message["role"].as_str() {
            None => role,
            Some(said) => ROLES.iter().find(|known| **known == said).copied().unwrap_or(OTHER),
        };
        let mut parts = Vec::new();
        if role == "tool" {
            let (id, response) = (self.text(&message["tool_call_id"]), self.text(&message["content"]));
            parts.push(json!({"type": "tool_call_response", "id": id, "response": response}));
        } else {
            self.content(&message["content"], &mut parts);
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            if self.left < PER_MESSAGE {
                break;
            }
            self.left -= PER_MESSAGE;
            let function = &call["function"];
            let (id, name) = (self.text(&call["id"]), self.text(&function["name"]));
            let arguments = self.text(&function["arguments"]);
            parts.push(json!({"type": "tool_call", "id": id, "name": name, "arguments": arguments}));
        }
        let mut said = Map::new();
        said.insert("role".to_owned(), role.into());
        said.insert("parts".to_owned(), parts.into());
        Value::Object(said)
    }

    /// Text as text; of an image, a sound or a file only that it was there.
    fn content(&mut self, content: &Value, parts: &mut Vec<Value>) {
        match content {
            Value::String(_) => parts.push(json!({"type": "text", "content": self.text(content)})),
            Value::Array(pieces) => {
                for piece in pieces {
                    if self.left < PER_MESSAGE {
                        break;
                    }
                    self.left -= PER_MESSAGE;
                    let kind = super::request::cut(piece["type"].as_str().unwrap_or("unknown"), 32);
                    parts.push(match kind {
                        "text" => json!({"type": "text", "content": self.text(&piece["text"])}),
                        other => json!({"type": other}),
                    });
                }
            }
            _ => {}
        }
    }

    /// A text without secrets, as much as there is room for.
    fn text(&mut self, value: &Value) -> String {
        let Some(text) = value.as_str() else { return String::new() };
        let seen = up_to(text, self.left + LONGEST_SECRET);
        let clean = self.redactor.document("content", seen);
        // Where the text goes on, its end may be half a secret, and redaction moves that end.
        let cut = self.goes_on || seen.len() < text.len();
        let safe = if cut { up_to(&clean, clean.len().saturating_sub(LONGEST_SECRET)) } else { &*clean };
        let (kept, written) = fitting(safe, self.left);
        self.left -= written;
        if kept.len() < clean.len() || cut { format!("{kept}{CUT}") } else { kept.to_owned() }
    }
}

/// The beginning of `text`, of at most `bytes`.
fn up_to(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// The beginning of `text` that takes at most `room` bytes as JSON, and how many it takes.
fn fitting(text: &str, room: usize) -> (&str, usize) {
    let mut written = 0;
    for (at, c) in text.char_indices() {
        let takes = match c {
            '"' | '\\' | '\n' | '\r' | '\t' => 2,
            '\0'..' ' => 6,
            c => c.len_utf8(),
        };
        if written + takes > room {
            return (&text[..at], written);
        }
        written += takes;
    }
    (text, written)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(messages: &Value) -> Value {
        let body = json!({"messages": messages}).to_string();
        let text = input_messages(body.as_bytes(), &Redactor::standard()).expect("it has messages");
        assert!(text.len() <= MOST_BYTES, "{}", text.len());
        serde_json::from_str(&text).expect("it is JSON")
    }

    #[test]
    fn writes_a_conversation_in_the_conventions_schema() {
        let conversation = json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\":1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ]);
        let expected = json!([
            {"role": "system", "parts": [{"type": "text", "content": "Be brief."}]},
            {"role": "user", "parts": [{"type": "text", "content": "What is this?"}, {"type": "image_url"}]},
            {"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": "{\"at\":1}"}]},
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a cat"}]},
        ]);
        assert_eq!(input(&conversation), expected);
    }

    #[test]
    fn a_long_conversation_keeps_its_latest_messages_and_stays_json() {
        let turn = |n: usize| json!({"role": "user", "content": format!("{n} {}", "é\"\n".repeat(300))});
        let kept = input(&(0..100).map(turn).collect::<Vec<_>>().into());
        let kept = kept.as_array().unwrap();
        assert!((2..20).contains(&kept.len()), "{}", kept.len());
        assert!(kept.last().unwrap()["parts"][0]["content"].as_str().unwrap().starts_with("99 "));
        let one = input(&json!([{"role": "user", "content": "a".repeat(1 << 21)}]));
        assert!(one[0]["parts"][0]["content"].as_str().unwrap().ends_with(CUT));
        let escaped = input(&json!([{"role": "user", "content": "\"\n\u{1}\\é".repeat(1 << 16)}]));
        assert!(
            escaped[0]["parts"][0]["content"].as_str().unwrap().len() > 2_000,
            "what is escaped takes more room"
        );
    }

    #[test]
    fn no_half_of_a_secret_is_left_where_a_text_is_cut() {
        for before in MOST_BYTES - PER_MESSAGE - 12..MOST_BYTES - PER_MESSAGE + 2 {
            let text = format!("{} ann.somebody@example.com and more", "a ".repeat(before / 2));
            let kept = input(&json!([{"role": "user", "content": text}])).to_string();
            assert!(!kept.contains("ann"), "{before}: {}", &kept[kept.len() - 80..]);
        }
    }

    #[test]
    fn an_answer_tells_why_it_ended() {
        let body = json!({"choices": [
            {"message": {"role": "assistant", "content": "mail ann@example.com"}, "finish_reason": "stop"},
            {"message": {"role": "assistant", "tool_calls": []}, "finish_reason": "tool_calls"},
        ]});
        let text = output_messages(body.to_string().as_bytes(), &Redactor::standard()).unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!([
                {"role": "assistant", "parts": [{"type": "text", "content": "mail [REDACTED:EMAIL]"}], "finish_reason": "stop"},
                {"role": "assistant", "parts": [], "finish_reason": "tool_call"},
            ])
        );
    }

    #[test]
    fn a_stream_is_put_together_and_a_broken_one_says_so() {
        use crate::openai::{Delta, chunk};
        let mut recording = Recording::default();
        for delta in [Delta::Role, Delta::Content("ann@exa"), Delta::Content("mple.com said")] {
            recording.keep(&Frame { events: chunk("i", "m", 0, delta), ..Frame::default() });
        }
        let text = recording.output_messages(&Redactor::standard()).unwrap();
        assert!(
            text.contains("[REDACTED:EMAIL] said") && text.contains(r#""finish_reason":"error""#),
            "{text}"
        );
        recording.keep(&Frame { events: chunk("i", "m", 0, Delta::Stop), ..Frame::default() });
        let text = recording.output_messages(&Redactor::standard()).unwrap();
        assert!(text.contains(r#""finish_reason":"stop""#), "{text}");
        let nothing = Recording::default();
        assert_eq!(nothing.output_messages(&Redactor::standard()), None);
    }
}
