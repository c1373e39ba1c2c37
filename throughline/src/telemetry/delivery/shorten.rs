//! `OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT`, which the SDK does not know: the text of an attribute has an end.

use opentelemetry::{Array, KeyValue, StringValue, Value};

use super::super::span::Record;
use super::settings::Limits;

/// Cuts the texts in `span` off where `limits` say, counted in characters.
pub(super) fn shorten(span: &mut Record, limits: Limits) {
    if span.outline.attributes.iter().any(|attribute| is_longer(&attribute.value, limits.span_text)) {
        span.outline = span.outline.changed(|outline| attributes(&mut outline.attributes, limits.span_text));
    }
    attributes(&mut span.attributes, limits.span_text);
    span.shorten_closed(|text| shortened(text, limits.span_text).unwrap_or(text));
    for event in &mut span.events.events {
        attributes(&mut event.attributes, limits.text);
    }
    for link in &mut span.links.links {
        attributes(&mut link.attributes, limits.text);
    }
}

/// Whether a text in `value` may be longer, counted in bytes, of which a character has at least one.
fn is_longer(value: &Value, limit: u32) -> bool {
    let longer = |text: &StringValue| text.as_str().len() > limit as usize;
    match value {
        Value::String(text) => longer(text),
        Value::Array(Array::String(texts)) => texts.iter().any(longer),
        _ => false,
    }
}

fn attributes(attributes: &mut [KeyValue], limit: u32) {
    for KeyValue { value, .. } in attributes {
        match value {
            Value::String(text) => cut(text, limit),
            Value::Array(Array::String(texts)) => texts.iter_mut().for_each(|text| cut(text, limit)),
            _ => {}
        }
    }
}

fn cut(text: &mut StringValue, limit: u32) {
    if let Some(short) = shortened(text.as_str(), limit) {
        *text = short.to_owned().into();
    }
}

/// The beginning of `text`, if it is too long.
fn shortened(text: &str, limit: u32) -> Option<&str> {
    let limit = limit as usize;
    // A character has at least one byte.
    if text.len() <= limit {
        return None;
    }
    text.char_indices().nth(limit).map(|(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_to(text: &str, limit: u32) -> String {
        let mut value = StringValue::from(text.to_owned());
        cut(&mut value, limit);
        value.to_string()
    }

    #[test]
    fn counts_characters_and_cuts_between_them() {
        assert_eq!(cut_to("häuser", 2), "hä");
        assert_eq!(cut_to("日本語", 3), "日本語");
        assert_eq!(cut_to("日本語", 1), "日");
        assert_eq!(cut_to("abc", 3), "abc");
        assert_eq!(cut_to("abc", 0), "");
    }

    #[test]
    fn leaves_numbers_alone_and_reaches_into_lists() {
        let list = Value::Array(Array::String(vec!["abcd".into(), "ab".into()]));
        let mut attributes = [KeyValue::new("list", list), KeyValue::new("number", 123_456)];
        super::attributes(&mut attributes, 3);
        assert_eq!(attributes[0].value, Value::Array(Array::String(vec!["abc".into(), "ab".into()])));
        assert_eq!(attributes[1].value, Value::I64(123_456));
    }
}
