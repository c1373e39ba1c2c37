//! The event of a call: what was asked and answered, apart from the span. Only where that has been switched on.

use std::borrow::Cow;

use opentelemetry::{Array, Value};
use serde_json::Value as Json;

/// What the event is called.
pub(crate) const DETAILS: &str = "gen_ai.client.inference.operation.details";

/// What an event says, gathered until the call has ended.
#[derive(Debug, Default)]
pub(crate) struct Details(Vec<(Cow<'static, str>, Json)>);

// === impl Details ===

impl Details {
    /// Says the same as an attribute of the span.
    pub(crate) fn put(&mut self, key: impl Into<Cow<'static, str>>, value: &Value) {
        self.0.push((key.into(), json(value)));
    }

    /// Says messages: on an event they have the structure that a span's attribute cannot have.
    pub(crate) fn put_messages(&mut self, key: &'static str, messages: &str) {
        self.0.extend(serde_json::from_str(messages).ok().map(|messages| (key.into(), messages)));
    }

    /// Everything that it says.
    pub(crate) fn into_attributes(self) -> Vec<(Cow<'static, str>, Json)> {
        self.0
    }
}

fn json(value: &Value) -> Json {
    match value {
        Value::Bool(truth) => (*truth).into(),
        Value::I64(number) => (*number).into(),
        Value::F64(number) => (*number).into(),
        Value::Array(Array::String(texts)) => texts.iter().map(|text| Json::from(text.as_str())).collect(),
        other => other.as_str().into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_their_types_and_messages_their_structure() {
        let mut details = Details::default();
        details.put("text", &"m".into());
        details.put("whole", &7.into());
        details.put("number", &0.5.into());
        details.put("truth", &true.into());
        details.put("texts", &Value::Array(Array::String(vec!["stop".into()])));
        details.put_messages("messages", r#"[{"role":"user"}]"#);
        details.put_messages("broken", "[");
        let expected = [
            ("text", json!("m")),
            ("whole", json!(7)),
            ("number", json!(0.5)),
            ("truth", json!(true)),
            ("texts", json!(["stop"])),
            ("messages", json!([{"role": "user"}])),
        ];
        assert_eq!(details.into_attributes(), expected.map(|(key, value)| (key.into(), value)));
    }
}
