//! Finds the few fields of a chat request that this program acts on, in one pass over the body.
//!
//! Everything else is skipped (its syntax is checked, its meaning is not). The positions of the values that
//! may be replaced are kept, so that a rewrite is a splice and never a second serialisation. What it reads
//! and refuses is tested where it is used, in `request.rs`.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use super::request::{Limits, RequestError};
use super::sampling::Sampling;

const MAX_MODEL_BYTES: usize = 256;

/// What a chat request says, as far as this program acts on it.
pub(super) struct Peek {
    pub(super) model: String,
    /// Where the value of `model` stands in the body, quotes included.
    pub(super) model_at: Range<usize>,
    pub(super) stream: bool,
    pub(super) message_count: usize,
    pub(super) prompt_chars: usize,
    pub(super) n: Option<u64>,
    pub(super) max_tokens: Option<u64>,
    pub(super) user: Option<String>,
    pub(super) metadata: Vec<(String, String)>,
    pub(super) stream_usage: StreamUsage,
    pub(super) sampling: Sampling,
}

/// Where `stream_options.include_usage` stands, or where it would have to be put.
pub(super) enum StreamUsage {
    /// No `stream_options`: it can be put at this offset, just inside the body's opening brace.
    NoOptions(usize),
    /// `stream_options` is null: the whole value can be replaced.
    NullOptions(Range<usize>),
    /// `stream_options` is an object without the field: it can be put at `inside`.
    NotSaid { inside: usize, empty: bool },
    /// The field is there.
    Said { on: bool, at: Range<usize> },
}

#[derive(Clone, Copy, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Model,
    Stream,
    N,
    MaxTokens,
    MaxCompletionTokens,
    User,
    Metadata,
    Temperature,
    Seed,
    Store,
    StreamOptions,
    Messages,
    #[serde(other)]
    Other,
}

/// The values of the known fields, not yet looked at. `messages` is by far the largest part of a body
/// and is therefore counted while it is read.
#[derive(Default)]
struct Fields<'a> {
    raw: [Option<&'a RawValue>; Field::Messages as usize],
    messages: Option<Messages>,
    twice: Option<&'static str>,
}

#[derive(Default)]
struct Messages {
    count: usize,
    chars: usize,
}

/// The number of characters of all text at this place: a string, a part with `text`, or a list of these.
struct TextChars(usize);

/// The keys that hold a message's text.
#[derive(Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum TextKey {
    Content,
    Text,
    #[serde(other)]
    Other,
}

#[derive(serde::Deserialize)]
struct StreamOptions<'a> {
    #[serde(borrow, default, deserialize_with = "even_if_null")]
    include_usage: Option<&'a RawValue>,
}

// === impl Peek ===

impl Peek {
    /// Reads a body that is known to be UTF-8 and not too deep.
    pub(super) fn read(text: &str, limits: &Limits) -> Result<Self, RequestError> {
        let root = text.len() - text.trim_ascii_start().len();
        let fields = read_fields(text, root)?;
        if let Some(field) = fields.twice {
            return Err(RequestError::BadField { field, expected: "given only once" });
        }
        let (model, model_at) = read_model(text, fields.get(Field::Model))?;
        let stream = read_bool("stream", fields.get(Field::Stream))?;
        let stream_usage = read_stream_usage(text, root, fields.get(Field::StreamOptions))?;
        let messages = fields.messages.as_ref().filter(|m| m.count > 0).ok_or(RequestError::NoMessages)?;
        if messages.count > limits.max_messages {
            return Err(RequestError::TooManyMessages { found: messages.count, max: limits.max_messages });
        }
        Ok(Self {
            model,
            model_at,
            stream,
            message_count: messages.count,
            prompt_chars: messages.chars,
            n: lenient(fields.get(Field::N)),
            max_tokens: lenient(fields.get(Field::MaxCompletionTokens))
                .or_else(|| lenient(fields.get(Field::MaxTokens))),
            user: lenient(fields.get(Field::User)),
            metadata: read_metadata(fields.get(Field::Metadata)),
            stream_usage,
            sampling: Sampling::read(
                fields.get(Field::Temperature),
                fields.get(Field::N),
                fields.get(Field::Seed),
                fields.get(Field::Store),
            ),
        })
    }
}

fn read_fields(text: &str, root: usize) -> Result<Fields<'_>, RequestError> {
    serde_json::from_str::<Fields<'_>>(text).map_err(|error| match error.classify() {
        // A wrong type can only come from the two places where a type is asked for.
        Category::Data if text.as_bytes().get(root) == Some(&b'{') => {
            RequestError::BadField { field: "messages", expected: "an array of objects" }
        }
        Category::Data => RequestError::BadField { field: "body", expected: "an object" },
        _ => RequestError::NotJson { line: error.line(), column: error.column().max(1) },
    })
}

fn read_model(text: &str, raw: Option<&RawValue>) -> Result<(String, Range<usize>), RequestError> {
    let raw = raw.filter(|raw| raw.get() != "null").ok_or(RequestError::MissingModel)?;
    let model = serde_json::from_str::<String>(raw.get())
        .map_err(|_| RequestError::BadField { field: "model", expected: "a string" })?;
    if model.is_empty() || model.len() > MAX_MODEL_BYTES {
        return Err(RequestError::BadField { field: "model", expected: "a name of 1 to 256 bytes" });
    }
    Ok((model, position(text, raw.get())))
}

fn read_bool(field: &'static str, raw: Option<&RawValue>) -> Result<bool, RequestError> {
    match raw.map(RawValue::get) {
        None | Some("null" | "false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(RequestError::BadField { field, expected: "true or false" }),
    }
}

fn read_stream_usage(text: &str, root: usize, raw: Option<&RawValue>) -> Result<StreamUsage, RequestError> {
    const FIELD: &str = "stream_options";
    let Some(raw) = raw.map(RawValue::get) else { return Ok(StreamUsage::NoOptions(root + 1)) };
    let at = position(text, raw);
    if raw == "null" {
        return Ok(StreamUsage::NullOptions(at));
    }
    if !raw.starts_with('{') {
        return Err(RequestError::BadField { field: FIELD, expected: "an object" });
    }
    let options: StreamOptions<'_> = serde_json::from_str(raw).map_err(|_| RequestError::BadField {
        field: FIELD,
        expected: "an object with `include_usage` at most once",
    })?;
    match options.include_usage {
        Some(said) => Ok(StreamUsage::Said {
            on: read_bool("stream_options.include_usage", Some(said))?,
            at: position(text, said.get()),
        }),
        None => Ok(StreamUsage::NotSaid {
            inside: at.start + 1,
            empty: raw[1..].trim_ascii_start().starts_with('}'),
        }),
    }
}

/// A value that only informs us: whether a wrong one is an error is for the upstream to say.
fn lenient<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok())
}

fn read_metadata(raw: Option<&RawValue>) -> Vec<(String, String)> {
    let pairs: std::collections::BTreeMap<String, &RawValue> = lenient(raw).unwrap_or_default();
    pairs.into_iter().filter_map(|(key, value)| Some((key, lenient(Some(value))?))).collect()
}

/// Where `part`, which was borrowed from `text`, stands in it.
fn position(text: &str, part: &str) -> Range<usize> {
    let start = part.as_ptr().addr() - text.as_ptr().addr();
    start..start + part.len()
}

/// Keeps the raw `null`, which an `Option` would otherwise swallow together with its position.
fn even_if_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

// === impl Field ===

impl Field {
    const fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Stream => "stream",
            Self::N => "n",
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::User => "user",
            Self::Metadata => "metadata",
            Self::Temperature => "temperature",
            Self::Seed => "seed",
            Self::Store => "store",
            Self::StreamOptions => "stream_options",
            Self::Messages => "messages",
            Self::Other => "other",
        }
    }
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.raw.get(field as usize).copied().flatten()
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Fields::default();
                while let Some(field) = map.next_key::<Field>()? {
                    let known_before = match field {
                        Field::Other => {
                            map.next_value::<IgnoredAny>()?;
                            false
                        }
                        Field::Messages => fields.messages.replace(map.next_value()?).is_some(),
                        _ => fields.raw[field as usize].replace(map.next_value()?).is_some(),
                    };
                    if known_before {
                        fields.twice = Some(field.name());
                    }
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

// === impl Messages ===

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Messages;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Messages, A::Error> {
                let mut messages = Messages::default();
                while let Some(MessageChars(chars)) = seq.next_element()? {
                    messages.count += 1;
                    messages.chars += chars;
                }
                Ok(messages)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// The number of characters of one message's content.
struct MessageChars(usize);

impl<'de> Deserialize<'de> for MessageChars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Message;

        impl<'de> Visitor<'de> for Message {
            type Value = MessageChars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<MessageChars, A::Error> {
                chars_of(map, TextKey::Content).map(MessageChars)
            }
        }

        deserializer.deserialize_map(Message)
    }
}

/// Counts the text under one key of an object; the other keys are skipped.
fn chars_of<'de, A: MapAccess<'de>>(mut map: A, wanted: TextKey) -> Result<usize, A::Error> {
    let mut chars = 0;
    while let Some(key) = map.next_key::<TextKey>()? {
        if key == wanted {
            chars += map.next_value::<TextChars>()?.0;
        } else {
            map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(chars)
}

// === impl TextChars ===

impl<'de> Deserialize<'de> for TextChars {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Anything;

        impl<'de> Visitor<'de> for Anything {
            type Value = TextChars;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<TextChars, E> {
                Ok(TextChars(text.chars().count()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<TextChars, A::Error> {
                let mut chars = 0;
                while let Some(TextChars(more)) = seq.next_element()? {
                    chars += more;
                }
                Ok(TextChars(chars))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TextChars, A::Error> {
                chars_of(map, TextKey::Text).map(TextChars)
            }

            fn visit_unit<E: Error>(self) -> Result<TextChars, E> {
                Ok(TextChars(0))
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<TextChars, E> {
                Ok(TextChars(0))
            }

            fn visit_i64<E: Error>(self, _: i64) -> Result<TextChars, E> {
                Ok(TextChars(0))
            }

            fn visit_u64<E: Error>(self, _: u64) -> Result<TextChars, E> {
                Ok(TextChars(0))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<TextChars, E> {
                Ok(TextChars(0))
            }
        }

        deserializer.deserialize_any(Anything)
    }
}
