//! What a request says of chance, and of being kept.

use serde_json::value::RawValue;

/// How freely an answer is drawn, and whether it may be kept.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Sampling {
    /// The temperature, if the request says one. What is not a number is above every number.
    pub temperature: Option<f64>,
    /// How many choices are asked for, if the request says so. What is not a number is above every number.
    pub choices: Option<f64>,
    /// Whether a whole number as `seed` asks for an answer that can be had again.
    pub is_seeded: bool,
    /// Whether `store` is there and neither true nor null.
    pub is_not_to_be_kept: bool,
}

// === impl Sampling ===

impl Sampling {
    pub(super) fn read(
        temperature: Option<&RawValue>,
        n: Option<&RawValue>,
        seed: Option<&RawValue>,
        store: Option<&RawValue>,
    ) -> Self {
        Self {
            temperature: number(temperature),
            choices: number(n),
            is_seeded: seed.is_some_and(|seed| serde_json::from_str::<i64>(seed.get()).is_ok()),
            is_not_to_be_kept: store.is_some_and(|store| !matches!(store.get(), "true" | "null")),
        }
    }
}

fn number(raw: Option<&RawValue>) -> Option<f64> {
    let raw = raw.map(RawValue::get).filter(|raw| *raw != "null")?;
    Some(serde_json::from_str(raw).unwrap_or(f64::INFINITY))
}

#[cfg(test)]
mod tests {
    use super::super::{ChatRequest, Limits};
    use super::*;

    fn sampling(fields: &str) -> Sampling {
        let body = format!(r#"{{"model":"m","messages":[{{"content":"x"}}]{fields}}}"#);
        ChatRequest::parse(body.into(), &Limits::default()).expect(fields).sampling()
    }

    #[test]
    fn says_what_the_request_says() {
        assert_eq!(sampling(""), Sampling::default());
        assert_eq!(sampling(r#","temperature":null,"n":null,"seed":null,"store":null"#), Sampling::default());
        let all =
            Sampling { temperature: Some(0.5), choices: Some(3.0), is_seeded: true, is_not_to_be_kept: true };
        assert_eq!(sampling(r#","temperature":0.5,"n":3,"seed":-7,"store":false"#), all);
        assert_eq!(sampling(r#","store":true"#), Sampling::default());
    }

    #[test]
    fn what_cannot_be_read_is_the_most_that_could_be_meant() {
        let odd = sampling(r#","temperature":"0","n":[1],"seed":1.5,"store":"true""#);
        assert_eq!((odd.temperature, odd.choices), (Some(f64::INFINITY), Some(f64::INFINITY)));
        assert!(!odd.is_seeded && odd.is_not_to_be_kept);
        assert_eq!(sampling(r#","temperature":1e999"#).temperature, Some(f64::INFINITY));
    }
}
