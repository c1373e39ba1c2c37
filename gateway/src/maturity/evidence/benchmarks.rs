//! Results of benchmarks, as `cargo xtask bench primitives --json FILE` writes them:
//!
//! ```json
//! { "format": "throughline-bench/1", "unit": "ns", "commit": "50d355c", "measured": "2026-11-27T06:00:00Z",
//!   "results": [ { "name": "timeout(step), on", "value": 310.0 } ] }
//! ```

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Deserialize;

use crate::maturity::moment;

/// What `format` must be.
const FORMAT: &str = "throughline-bench/1";

/// What a benchmark has measured.
#[derive(Debug, PartialEq)]
pub(crate) struct Benchmarks {
    /// When, where that is said.
    pub(crate) measured: Option<SystemTime>,
    /// The unit of all values.
    pub(crate) unit: String,
    /// The values by name; less is better.
    pub(crate) values: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct File {
    format: String,
    unit: String,
    measured: Option<String>,
    results: Vec<Measured>,
}

#[derive(Deserialize)]
struct Measured {
    name: String,
    value: f64,
}

/// Reads results.
///
/// # Errors
/// In words: why they are none.
pub(crate) fn parse(text: &str) -> Result<Benchmarks, String> {
    let file: File =
        serde_json::from_str(text).map_err(|error| format!("not results of a benchmark: {error}"))?;
    if file.format != FORMAT {
        return Err(format!("its format is `{}`: `{FORMAT}` is read", file.format));
    }
    let measured = match file.measured {
        Some(text) => Some(moment::moment(&text).ok_or_else(|| format!("`measured` is `{text}`, no date"))?),
        None => None,
    };
    let mut values = BTreeMap::new();
    for Measured { name, value } in file.results {
        if !(value.is_finite() && value >= 0.0) {
            return Err(format!("the value of `{name}` is {value}"));
        }
        if let Some(other) = values.insert(name.clone(), value) {
            return Err(format!("`{name}` has two values, {other} and {value}"));
        }
    }
    if values.is_empty() {
        return Err("it has no result".to_owned());
    }
    Ok(Benchmarks { measured, unit: file.unit, values })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_results() {
        let text = r#"{"format":"throughline-bench/1","unit":"ns","measured":"2026-11-27","commit":"c","results":[{"name":"a","value":3}]}"#;
        let results = parse(text).unwrap();
        assert_eq!((results.unit.as_str(), results.values["a"]), ("ns", 3.0));
        assert_eq!(results.measured, moment::moment("2026-11-27"));
    }

    #[test]
    fn refuses_what_are_no_results() {
        let of = |results: &str| {
            format!(r#"{{"format":"throughline-bench/1","unit":"ns","results":[{results}]}}"#)
        };
        for (text, why) in [
            (String::new(), "not results of a benchmark: "),
            (of(""), "it has no result"),
            (of("").replace("bench/1", "bench/9"), "its format is `throughline-bench/9`"),
            (of(r#"{"name":"a","value":-1}"#), "the value of `a` is -1"),
            (of(r#"{"name":"a","value":1},{"name":"a","value":2}"#), "`a` has two values, 1 and 2"),
            (of("").replace("\"unit\"", "\"measured\":\"x\",\"unit\""), "`measured` is `x`, no date"),
        ] {
            let said = parse(&text).unwrap_err();
            assert!(said.starts_with(why), "{text}: {said}");
        }
    }

    proptest! {
        #[test]
        fn no_text_stops_the_program(text in ".{0,60}") {
            prop_assert!(parse(&text).is_err());
        }
    }
}
