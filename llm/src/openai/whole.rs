//! Reads a whole answer in one pass: whether it is one, what it used and, for a span that is recorded, what it says of
//! itself. Everything else is skipped, and the answer's bytes go on as they came.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::usage::{RawUsage, Usage};
use crate::genai::Response;

/// What a whole answer says, as far as this program acts on it.
#[derive(Debug, Default)]
pub(crate) struct Whole {
    pub(crate) has_choices: bool,
    pub(crate) has_error: bool,
    pub(crate) usage: Option<Usage>,
    /// What it says of itself, if that was wanted.
    pub(crate) response: Option<Box<Response>>,
}

/// A text that is copied only if it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Field {
    Choices,
    Error,
    Usage,
    Id,
    Model,
    #[serde(other)]
    Other,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum ChoiceField {
    Index,
    FinishReason,
    #[serde(other)]
    Other,
}

/// Reads the answer; into a response if there is one.
struct Answer {
    response: Option<Box<Response>>,
    /// Whether a usage in a form that nobody knows is left out, which takes a second look at every usage.
    is_lenient: bool,
}

/// Reads the choices, and says whether there is a list of them.
struct Choices<'r>(Option<&'r mut Response>);

/// Reads one choice, which need not be an object for a client to get it.
struct Choice<'r>(&'r mut Response);

/// Reads an answer that is known to be UTF-8; `tells` if what it says of itself is wanted.
///
/// # Errors
/// When it is not a JSON object whose choices are a list or null.
pub(crate) fn whole(text: &str, tells: bool) -> serde_json::Result<Whole> {
    let read = |is_lenient, tells: bool| {
        let mut json = serde_json::Deserializer::from_str(text);
        let whole = Answer { response: tells.then(Box::default), is_lenient }.deserialize(&mut json)?;
        json.end().map(|()| whole)
    };
    // Neither a usage nor choices that cannot be taken apart are a reason to refuse the answer, and whether it is
    // recorded must not matter.
    read(false, tells).or_else(|_| read(true, tells)).or_else(|_| read(true, false))
}

/// What a string says; `None` for anything else.
pub(super) fn text<'a>(raw: Option<&'a RawValue>) -> Option<Cow<'a, str>> {
    let raw = raw?.get();
    // Errors are costly, and what has not ended says null in every chunk.
    raw.starts_with('"').then(|| serde_json::from_str::<Text<'a>>(raw).ok()).flatten().map(|text| text.0)
}

/// A number of something; `None` for anything else.
pub(super) fn number(raw: Option<&RawValue>) -> Option<u64> {
    raw?.get().parse().ok()
}

// === impl Answer ===

impl<'de> DeserializeSeed<'de> for Answer {
    type Value = Whole;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Whole, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Answer {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Whole, A::Error> {
        let (mut whole, mut said) = (Whole::default(), Said::default());
        let (mut id, mut model) = (None, None);
        while let Some(field) = map.next_key::<Field>()? {
            match field {
                Field::Choices => {
                    Said::once(&mut said.choices, "choices")?;
                    whole.has_choices = map.next_value_seed(Choices(self.response.as_deref_mut()))?;
                }
                Field::Error => {
                    Said::once(&mut said.error, "error")?;
                    whole.has_error = map.next_value::<Option<IgnoredAny>>()?.is_some();
                }
                Field::Usage => {
                    let usage = if self.is_lenient {
                        RawUsage::of(map.next_value::<&RawValue>()?.get())
                    } else {
                        map.next_value::<Option<RawUsage<'de>>>()?.and_then(|usage| usage.read())
                    };
                    // Of two, nobody knows which one counts.
                    let is_only = !std::mem::replace(&mut said.usage, true);
                    whole.usage = usage.filter(|_| is_only);
                }
                Field::Id if self.response.is_some() => id = Some(map.next_value()?),
                Field::Model if self.response.is_some() => model = Some(map.next_value()?),
                Field::Id | Field::Model | Field::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        if let Some(response) = &mut self.response {
            response.head(text(id).as_deref(), text(model).as_deref());
        }
        Ok(Whole { response: self.response, ..whole })
    }
}

/// Which fields have been read.
#[derive(Default)]
struct Said {
    choices: bool,
    error: bool,
    usage: bool,
}

// === impl Said ===

impl Said {
    fn once<E: Error>(said: &mut bool, field: &'static str) -> Result<(), E> {
        if std::mem::replace(said, true) { Err(E::duplicate_field(field)) } else { Ok(()) }
    }
}

// === impl Choices ===

impl<'de> DeserializeSeed<'de> for Choices<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de> Visitor<'de> for Choices<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of choices")
    }

    fn visit_none<E: Error>(self) -> Result<bool, E> {
        Ok(false)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_seq(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        match self.0 {
            None => while seq.next_element::<IgnoredAny>()?.is_some() {},
            Some(response) => while seq.next_element_seed(Choice(response))?.is_some() {},
        }
        Ok(true)
    }
}

// === impl Choice ===

impl<'de> DeserializeSeed<'de> for Choice<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Choice<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a choice")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (mut index, mut reason) = (None, None);
        while let Some(field) = map.next_key::<ChoiceField>()? {
            match field {
                ChoiceField::Index => index = Some(map.next_value()?),
                ChoiceField::FinishReason => reason = Some(map.next_value()?),
                ChoiceField::Other => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        self.0.choice(number(index).unwrap_or(0), text(reason).as_deref());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(body: &str) -> Vec<String> {
        let mut told = Vec::new();
        let response = whole(body, true).unwrap().response.expect("it was wanted");
        response.tell(false, &mut |key, value| told.push(format!("{key}={value}")));
        told
    }

    #[test]
    fn tells_what_an_answer_says_of_itself_and_only_when_that_is_wanted() {
        let body = r#"{"id":"c-\"1","choices":[{"index":0,"finish_reason":"stop"},{"finish_reason":"length","index":1}],
            "model":"m-2026","usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        assert_eq!(
            told(body),
            [
                "gen_ai.response.id=c-\"1",
                "gen_ai.response.model=m-2026",
                "gen_ai.response.finish_reasons=[\"stop\",\"length\"]"
            ]
        );
        for tells in [false, true] {
            let whole = whole(body, tells).unwrap();
            assert_eq!(whole.usage, Some(Usage::new(3, 1)));
            assert!(whole.has_choices && !whole.has_error);
            assert_eq!(whole.response.is_some(), tells);
        }
    }

    #[test]
    fn what_is_said_in_another_form_is_not_told() {
        for silent in ["{}", r#"{"choices":[{}]}"#, r#"{"id":7,"model":null}"#, r#"{"choices":null}"#] {
            assert_eq!(told(silent), [""; 0], "{silent}");
        }
        let odd =
            r#"{"id":"i","choices":[{"index":"x","finish_reason":7,"message":{"finish_reason":"no"}}]}"#;
        assert_eq!(told(odd), ["gen_ai.response.id=i"]);
        let odd = r#"{"id":"i","choices":[],"usage":{"prompt_tokens":"9"}}"#;
        assert_eq!(told(odd), ["gen_ai.response.id=i"]);
    }

    #[test]
    fn whether_an_answer_is_recorded_does_not_change_what_it_is() {
        for body in [
            r#"{"choices":[1,"x",null,[],1e999]}"#,
            r#"{"choices":[{"\ud800":1}],"usage":{"prompt_tokens":1}}"#,
            r#"{"choices":[{"index":0,"index":1}]}"#,
            r#"{"choices":{}}"#,
            r#"{"choices":[],"choices":[]}"#,
            r#"{"error":null,"error":null}"#,
            r#"{"error":{"message":"x"},"choices":[]}"#,
            r#"{"id":1,"id":2,"choices":[]} x"#,
            r#"{"usage":{"prompt_tokens":1},"usage":{"prompt_tokens":2},"choices":[{}]}"#,
            r#"{"usage":{"prompt_tokens":-1},"choices":[{}]}"#,
            r#"{"usage":{"prompt_tokens":1,"prompt_tokens":1},"choices":[1]}"#,
            r#"{"usage":"none","choices":[{"finish_reason":"stop"}]}"#,
            r#"[[],null]"#,
            "null",
            "",
        ] {
            let said = |tells| {
                let whole = whole(body, tells).ok()?;
                Some((whole.has_choices, whole.has_error, whole.usage))
            };
            assert_eq!(said(true), said(false), "{body}");
        }
    }

    #[test]
    fn of_two_usages_none_counts_and_a_wrong_one_is_unknown() {
        let usage = |usage: &str| whole(&format!(r#"{{{usage}"choices":[]}}"#), false).unwrap().usage;
        let one = r#""usage":{"prompt_tokens":2,"completion_tokens":1},"#;
        assert_eq!(usage(one), Some(Usage::new(2, 1)));
        assert_eq!(usage(&one.repeat(2)), None);
        assert_eq!(usage(&one.repeat(3)), None);
        assert_eq!(usage(r#""usage":[],"#), None);
        assert_eq!(
            usage(r#""usage":{"prompt_tokens":2},"#),
            None,
            "something was written, nobody knows how much"
        );
        let wrong_details =
            r#""usage":{"prompt_tokens":2,"completion_tokens":1,"prompt_tokens_details":"none"},"#;
        assert_eq!(usage(wrong_details), Some(Usage::new(2, 1)));
    }
}
