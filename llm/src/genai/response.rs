//! What an answer says of itself, as attributes of the call's span. Only read for spans that are recorded.

use std::sync::{Arc, Mutex};

use opentelemetry::{Array, StringValue, Value};
use throughline::telemetry::GenAiNames;

use super::request::{cut, whole};
use crate::openai::Usage;

/// What a provider wrote is cut after so many characters.
const LONGEST_ID: usize = 128;
const LONGEST_MODEL: usize = 256;
const LONGEST_REASON: usize = 64;

/// More choices than this are not told apart.
const MOST_CHOICES: usize = 16;

/// What has been read of an answer so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Response {
    id: Option<String>,
    model: Option<String>,
    /// Per choice, once it has ended, why.
    choices: Vec<(u64, Option<String>)>,
}

/// One that is read while an answer comes.
pub(crate) type Shared = Arc<Mutex<Response>>;

// === impl Response ===

impl Response {
    /// Takes down who answers, unless that is known.
    pub(crate) fn head(&mut self, id: Option<&str>, model: Option<&str>) {
        let keep = |slot: &mut Option<String>, text: Option<&str>, most| {
            if slot.is_none() {
                *slot = text.filter(|text| !text.is_empty()).map(|text| cut(text, most).to_owned());
            }
        };
        keep(&mut self.id, id, LONGEST_ID);
        keep(&mut self.model, model, LONGEST_MODEL);
    }

    /// Whether id and model are known already.
    pub(crate) fn has_head(&self) -> bool {
        self.id.is_some() && self.model.is_some()
    }

    /// Takes down that there is a choice `index`, and how it has ended if it has.
    pub(crate) fn choice(&mut self, index: u64, finish_reason: Option<&str>) {
        let at = match self.choices.iter().position(|(known, _)| *known == index) {
            Some(at) => at,
            None if self.choices.len() == MOST_CHOICES => return,
            None => {
                self.choices.push((index, None));
                self.choices.len() - 1
            }
        };
        if let Some(reason) = finish_reason {
            self.choices[at].1 = Some(cut(reason, LONGEST_REASON).to_owned());
        }
    }

    /// Tells `put` what is known; of an answer that `broke` off, what had not ended has ended with an error.
    pub(crate) fn tell(self, broke: bool, put: &mut dyn FnMut(&'static str, Value)) {
        if let Some(id) = self.id {
            put("gen_ai.response.id", id.into());
        }
        if let Some(model) = self.model {
            put("gen_ai.response.model", model.into());
        }
        let end = |(_, reason): (u64, Option<String>)| match reason {
            Some(reason) => Some(StringValue::from(reason)),
            None => broke.then(|| "error".into()),
        };
        let mut reasons: Vec<StringValue> = self.choices.into_iter().filter_map(end).collect();
        if reasons.is_empty() && broke {
            reasons.push("error".into());
        }
        if !reasons.is_empty() {
            put("gen_ai.response.finish_reasons", Value::Array(Array::String(reasons)));
        }
    }
}

/// Tells `put` the tokens of a call, by `names`. Cached and reasoned ones are left out where there are none: most providers do not
/// say.
pub(crate) fn tell_usage(usage: &Usage, names: GenAiNames, put: &mut dyn FnMut(&'static str, Value)) {
    put("gen_ai.usage.input_tokens", whole(usage.prompt_tokens));
    put("gen_ai.usage.output_tokens", whole(usage.completion_tokens));
    if usage.cached_tokens > 0 {
        put("gen_ai.usage.cache_read.input_tokens", whole(usage.cached_tokens));
    }
    if usage.cache_write_tokens > 0 {
        if names.v1_41() {
            put("gen_ai.usage.cache_creation.input_tokens", whole(usage.cache_write_tokens));
        }
        if names.latest() {
            put("gen_ai.usage.cache_write.input_tokens", whole(usage.cache_write_tokens));
        }
    }
    if usage.reasoning_tokens > 0 {
        put("gen_ai.usage.reasoning.output_tokens", whole(usage.reasoning_tokens));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(response: Response, broke: bool) -> Vec<String> {
        let mut told = Vec::new();
        response.tell(broke, &mut |key, value| told.push(format!("{key}={value}")));
        told
    }

    #[test]
    fn what_broke_off_has_ended_with_an_error() {
        assert_eq!(told(Response::default(), true), ["gen_ai.response.finish_reasons=[\"error\"]"]);
        let mut half = Response::default();
        half.choice(0, Some("stop"));
        half.choice(1, None);
        assert_eq!(told(half.clone(), true), ["gen_ai.response.finish_reasons=[\"stop\",\"error\"]"]);
        assert_eq!(told(half, false), ["gen_ai.response.finish_reasons=[\"stop\"]"]);
    }

    #[test]
    fn what_a_provider_wrote_is_bounded() {
        let long = "x".repeat(100_000);
        let mut response = Response::default();
        response.head(Some(&long), Some(&long));
        (0..1000).for_each(|index| response.choice(index, Some(&long)));
        let sum: usize = told(response, true).iter().map(String::len).sum();
        assert!(sum < 2_000, "{sum}");
    }
}
