//! JSON in a string, such as recorded messages: what is secret in it is found as it is meant, not as it is written.
//!
//! In the text of a JSON document a line break is `\n`, so that a key behind one begins with an `n` as far as a scan
//! can tell, and a quoted document inside it is all backslashes. Here every string is decoded first.

use std::borrow::Cow;

use serde_json::Value;

use super::Redactor;

/// Documents in strings of documents, such as the arguments of a tool call, are followed this far.
const DEEPEST: usize = 4;

// === impl Redactor ===

impl Redactor {
    /// As [`Redactor::value`]; where `text` is a JSON object or array, every key, string and number in it is looked at
    /// by itself, and the result is JSON as well.
    #[must_use]
    pub fn document<'a>(&self, key: &str, text: &'a str) -> Cow<'a, str> {
        let whole = self.value(key, text);
        // As a text it may have been too long, or under a secret's name.
        let gone = matches!(&whole, Cow::Owned(marker) if super::is_marker(marker));
        match self.inside(text, 0).filter(|_| !gone) {
            // What only the whole shows is rare and must go, even if it was counted twice.
            Some(clean) => match self.text(&clean) {
                Cow::Borrowed(_) => Cow::Owned(clean),
                Cow::Owned(cleaner) => Cow::Owned(cleaner),
            },
            None => whole,
        }
    }

    /// `text` with what is inside redacted; `None` when it is no document or has nothing to hide.
    fn inside(&self, text: &str, depth: usize) -> Option<String> {
        let is_document = text.trim_ascii_start().starts_with(['{', '[']) && text.len() <= super::LONGEST;
        if !is_document || depth == DEEPEST {
            return None;
        }
        let mut document: Value = serde_json::from_str(text).ok()?;
        self.walk("", &mut document, depth).then(|| document.to_string())
    }

    /// Whether something was taken out of `value`, which stands under `key`.
    fn walk(&self, key: &str, value: &mut Value, depth: usize) -> bool {
        match value {
            Value::String(text) => self.string(key, text, depth),
            Value::Number(number) => {
                let text = number.to_string();
                let Cow::Owned(clean) = self.value(key, &text) else { return false };
                *value = Value::String(clean);
                true
            }
            Value::Array(items) => {
                items.iter_mut().fold(false, |found, item| self.walk(key, item, depth) | found)
            }
            Value::Object(fields) => {
                let mut found = false;
                let fields_now = std::mem::take(fields);
                for (name, mut value) in fields_now {
                    found |= self.walk(&name, &mut value, depth);
                    let clean = self.text(&name);
                    found |= matches!(clean, Cow::Owned(_));
                    fields.insert(clean.into_owned(), value);
                }
                found
            }
            Value::Null | Value::Bool(_) => false,
        }
    }

    fn string(&self, key: &str, text: &mut String, depth: usize) -> bool {
        if let Some(clean) = self.inside(text, depth + 1) {
            *text = clean;
            self.value(key, text).into_owned().clone_into(text);
            return true;
        }
        let Cow::Owned(clean) = self.value(key, text) else { return false };
        *text = clean;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> String {
        format!("sk-{}", "proj-Ab3dEf6hIj9kLm2nOp5qRs8tUv1wXy4z")
    }

    #[test]
    fn finds_what_escapes_hide() {
        let secret = key();
        let messages = serde_json::json!([{"role": "user", "parts": [{"type": "text", "content":
            format!("my key:\n{secret}\nand\tann@example.com")}]}]);
        let clean =
            Redactor::standard().document("gen_ai.input.messages", &messages.to_string()).into_owned();
        assert!(!clean.contains(&secret) && !clean.contains("example.com"), "{clean}");
        let read: Value = serde_json::from_str(&clean).expect("it is JSON still");
        assert_eq!(read[0]["role"], "user");
    }

    #[test]
    fn finds_what_stands_in_a_document_within_a_string() {
        let arguments =
            serde_json::json!({"password": "hunter2hunter2", "to": "ann@example.com"}).to_string();
        let call = serde_json::json!([{"type": "tool_call", "arguments": arguments, "card": 4_111_111_111_111_111_u64}]);
        let clean = Redactor::standard().document("x", &call.to_string()).into_owned();
        for secret in ["hunter2", "example.com", "4111"] {
            assert!(!clean.contains(secret), "{secret} in {clean}");
        }
        serde_json::from_str::<Value>(&clean).expect("it is JSON still");
    }

    #[test]
    fn leaves_what_hides_nothing_as_it_was_written() {
        for text in ["{ \"a\" : [1, 2] }", "[]", "{broken", "plain", ""] {
            assert!(matches!(Redactor::standard().document("k", text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(Redactor::standard().document("k", "{broken ann@example.com"), "{broken [REDACTED:EMAIL]");
    }

    #[test]
    fn a_secrets_name_hides_the_whole_document() {
        assert_eq!(Redactor::standard().document("authorization", "{\"a\":1}"), "[REDACTED:CREDENTIAL]");
    }
}
