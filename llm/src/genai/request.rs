//! What a request asks of a model, as attributes of its span. Only read for spans that are recorded.

use opentelemetry::{Array, StringValue, Value};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::openai::ChatRequest;

/// Stop sequences that are told of, and characters of each.
const MOST_STOPS: usize = 8;
const LONGEST_STOP: usize = 64;

/// The parameters that the conventions name. A value of another type is for the provider to complain about.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Parameters<'a> {
    #[serde(borrow)]
    temperature: Option<&'a RawValue>,
    #[serde(borrow)]
    top_p: Option<&'a RawValue>,
    #[serde(borrow)]
    top_k: Option<&'a RawValue>,
    #[serde(borrow)]
    frequency_penalty: Option<&'a RawValue>,
    #[serde(borrow)]
    presence_penalty: Option<&'a RawValue>,
    #[serde(borrow)]
    seed: Option<&'a RawValue>,
    #[serde(borrow)]
    stop: Option<&'a RawValue>,
    #[serde(borrow)]
    response_format: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Deserialize)]
struct Format {
    r#type: String,
}

/// Tells `put` every attribute that follows from `request`.
pub(crate) fn describe(request: &ChatRequest, put: &mut dyn FnMut(&'static str, Value)) {
    if request.stream() {
        put("gen_ai.request.stream", true.into());
    }
    if let Some(n) = request.n().filter(|n| *n != 1) {
        put("gen_ai.request.choice.count", whole(n));
    }
    if let Some(tokens) = request.max_tokens() {
        put("gen_ai.request.max_tokens", whole(tokens));
    }
    let parameters: Parameters<'_> = serde_json::from_slice(request.body()).unwrap_or_default();
    for (name, raw) in [
        ("gen_ai.request.temperature", parameters.temperature),
        ("gen_ai.request.top_p", parameters.top_p),
        ("gen_ai.request.frequency_penalty", parameters.frequency_penalty),
        ("gen_ai.request.presence_penalty", parameters.presence_penalty),
    ] {
        if let Some(number) = read::<f64>(raw) {
            put(name, number.into());
        }
    }
    for (name, raw) in [("gen_ai.request.top_k", parameters.top_k), ("gen_ai.request.seed", parameters.seed)]
    {
        if let Some(number) = read::<i64>(raw) {
            put(name, number.into());
        }
    }
    if let Some(stop) = read::<Stop>(parameters.stop) {
        put("gen_ai.request.stop_sequences", stop.told());
    }
    if let Some(output) = read::<Format>(parameters.response_format).and_then(|format| format.output()) {
        put("gen_ai.output.type", output.into());
    }
}

fn read<'a, T: Deserialize<'a>>(raw: Option<&'a RawValue>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

pub(super) fn whole(number: u64) -> Value {
    i64::try_from(number).unwrap_or(i64::MAX).into()
}

/// `text`, cut after so many characters.
pub(super) fn cut(text: &str, most: usize) -> &str {
    text.char_indices().nth(most).map_or(text, |(end, _)| &text[..end])
}

// === impl Stop ===

impl Stop {
    fn told(self) -> Value {
        let several = match self {
            Self::One(one) => vec![one],
            Self::Several(several) => several,
        };
        // A client wrote them: half of one could be half a secret, which nobody would recognise.
        let told = several.into_iter().filter(|stop| stop.chars().count() <= LONGEST_STOP).take(MOST_STOPS);
        Value::Array(Array::String(told.map(StringValue::from).collect()))
    }
}

// === impl Format ===

impl Format {
    fn output(&self) -> Option<&'static str> {
        match self.r#type.as_str() {
            "text" => Some("text"),
            "json_object" | "json_schema" => Some("json"),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::Limits;

    fn told(fields: &str) -> Vec<String> {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"Hi"}}]{fields}}}"#);
        let request = ChatRequest::parse(body.into(), &Limits::default()).unwrap();
        let mut told = Vec::new();
        describe(&request, &mut |key, value| told.push(format!("{key}={value}")));
        told
    }

    #[test]
    fn tells_what_is_asked_for_and_nothing_else() {
        assert_eq!(told(""), [""; 0]);
        let all = told(
            r#","stream":true,"n":3,"max_tokens":9,"temperature":0.5,"top_p":1,"frequency_penalty":-0.25,
            "presence_penalty":2,"top_k":40,"seed":7,"stop":["a","b"],"response_format":{"type":"json_schema"}"#,
        );
        let expected = [
            "gen_ai.request.stream=true",
            "gen_ai.request.choice.count=3",
            "gen_ai.request.max_tokens=9",
            "gen_ai.request.temperature=0.5",
            "gen_ai.request.top_p=1",
            "gen_ai.request.frequency_penalty=-0.25",
            "gen_ai.request.presence_penalty=2",
            "gen_ai.request.top_k=40",
            "gen_ai.request.seed=7",
            "gen_ai.request.stop_sequences=[\"a\",\"b\"]",
            "gen_ai.output.type=json",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn one_choice_is_what_everybody_gets() {
        assert_eq!(told(r#","n":1"#), [""; 0]);
    }

    #[test]
    fn a_value_of_another_type_hides_no_other() {
        let told = told(r#","temperature":"hot","seed":1.5,"stop":[1],"response_format":"text","top_p":0.1"#);
        assert_eq!(told, ["gen_ai.request.top_p=0.1"]);
    }

    #[test]
    fn what_a_client_wrote_is_bounded_and_never_halved() {
        let stops = [vec!["é".repeat(500)], vec!["é".repeat(64); 100]].concat();
        let told = told(&format!(r#","stop":{}"#, serde_json::json!(stops)));
        assert_eq!(told[0].matches(&"é".repeat(64)).count(), 8, "{}", told[0]);
        assert!(told[0].chars().count() < 8 * 80, "{}", told[0].len());
    }
}
