//! Puts what the TOML reader and serde say into this program's words.
//!
//! serde hands its errors on as text only, so the text is taken apart here; the tests below would notice
//! another wording.

use toml::de::Error;

use super::error::{Problem, unknown};
use super::source::Source;

/// What is wrong with a text that is not TOML or does not have the right keys and types.
pub(super) fn problem(error: &Error, source: &mut Source<'_>) -> Problem {
    let at = error.span();
    let text = at.as_ref().map(|at| source.slice(at)).unwrap_or_default();
    let message = reworded(error.message(), text);
    if let Some(at) = &at {
        hide_misplaced_secret(error.message(), at, source);
    }
    Problem { at, message }
}

fn reworded(message: &str, text: &str) -> String {
    if let Some((found, allowed)) = message.strip_prefix("unknown field `").and_then(split_unknown) {
        unknown("key", found, "allowed", allowed)
    } else if let Some(name) = message.strip_prefix("missing field ") {
        format!("missing key {name}")
    } else if is_beyond_64_bits(message) {
        let side = if text.starts_with('-') { "small" } else { "large" };
        format!("the number is too {side}")
    } else if let Some((found, wanted)) = message.strip_prefix("invalid type: ").and_then(split_type) {
        format!("expected {}, found {}", plain_wanted(wanted), plain_found(found, text))
    } else if is_list_for_table(message) {
        "expected a table, found a list".to_owned()
    } else if message == "duplicate key" {
        format!("duplicate key `{text}`: remove one of the two")
    } else {
        format!("not valid toml: {message}")
    }
}

/// A whole number that no key takes. In a table that is read whole first, serde takes it for another type.
fn is_beyond_64_bits(message: &str) -> bool {
    message.starts_with("invalid value: integer")
        || message.contains("overflowed")
        || (message.starts_with("invalid type: integer ") && message.ends_with(", expected i64"))
}

fn split_unknown(message: &str) -> Option<(&str, impl Iterator<Item = &str>)> {
    let (found, allowed) = message.rsplit_once("`, expected ")?;
    Some((found, allowed.split('`').skip(1).step_by(2)))
}

fn split_type(message: &str) -> Option<(&str, &str)> {
    message.rsplit_once(", expected ")
}

/// Where a table belongs, serde takes a list for its values without their keys, and finds too few of them.
fn is_list_for_table(message: &str) -> bool {
    message.starts_with("invalid length ") && message.ends_with(", expected a table")
}

fn plain_wanted(wanted: &str) -> &str {
    match wanted {
        "i64" => "a whole number",
        "f64" => "a number",
        "a string" => "text in quotes",
        "a map" => "a table",
        "a boolean" => "true or false",
        "a sequence" => "a list in [ ]",
        other => other,
    }
}

/// Names the kind of a value and leaves out the value itself, which may be a misplaced secret.
fn plain_found<'a>(found: &'a str, text: &str) -> &'a str {
    match found.split([' ', '`']).next() {
        Some("string") => "text",
        Some("integer") => "a whole number",
        Some("floating") => "a number with a fraction",
        Some("boolean") => "true or false",
        Some("sequence") => "a list",
        Some("map") if text.starts_with(|c: char| c.is_ascii_digit()) => "a date or time",
        Some("map") => "a table",
        _ => found,
    }
}

/// A key that is unknown here may be a slip of a secret's, and text where a table belongs may be the secret
/// itself; neither value helps to understand the problem.
fn hide_misplaced_secret(message: &str, at: &std::ops::Range<usize>, source: &mut Source<'_>) {
    let in_header = source.slice(&(at.end..at.end + 1)) == "]";
    if message.starts_with("unknown field") && !in_header {
        source.hide_rest_of_line(at.end);
    } else if message.starts_with("invalid type: string") && message.ends_with("a table")
        || is_list_for_table(message)
    {
        source.hide(at.clone());
    }
}

#[cfg(test)]
mod tests {
    use crate::config::fixture::refused;

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_and_all_allowed_ones() {
        assert_eq!(
            refused("[server]\nlisen = \"127.0.0.1:80\"\n"),
            "t.toml:2:1: unknown key `lisen`, did you mean `listen`? (allowed: listen, \
             allow_public_without_auth, max_body, max_json_depth, max_messages, max_connections, header_timeout, drain_timeout, tenant_header)\n    \
             2 | lisen = **************\n      | ^^^^^"
        );
        assert_eq!(
            refused("servers = 1\n"),
            "t.toml:1:1: unknown key `servers`, did you mean `server`? (allowed: server, telemetry, admin, trace_context, log, maturity, \
             providers, prices, stores, models)\n    1 | servers = *\n      | ^^^^^^^"
        );
    }

    #[test]
    fn an_unknown_key_that_quotes_backticks_is_still_read_right() {
        assert_eq!(
            refused("\"a`, expected `b\" = 1\n"),
            "t.toml:1:1: unknown key `a`, expected `b` (allowed: server, telemetry, admin, trace_context, log, maturity, \
             providers, prices, stores, models)\n    \
             1 | \"a`, expected `b\" = *\n      | ^^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_mistyped_secret_key_does_not_give_the_secret_away() {
        let shown = refused("[providers.p.openai]\nbase_url = \"https://h/v1\"\napi_kye = \"sk-live-123\"\n");
        assert_eq!(
            shown,
            "t.toml:3:1: unknown key `api_kye`, did you mean `api_key`? (allowed: base_url, api_key, \
             connect_timeout, stream_usage, provider_name)\n    3 | api_kye = *************\n      | ^^^^^^^"
        );
        let shown = refused("[providers.p.openai]\nbase_url = \"https://h/v1\"\ntoken = \"sk-live-123\"\n");
        assert!(!shown.contains("sk-live"), "{shown}");
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        assert_eq!(
            refused("[server]\nlisten = 8080\n"),
            "t.toml:2:10: expected text in quotes, found a whole number\n    2 | listen = 8080\n      |          ^^^^"
        );
        assert_eq!(
            refused("[server]\nmax_messages = \"many\"\n"),
            "t.toml:2:16: expected a whole number, found text\n    2 | max_messages = \"many\"\n      |                ^^^^^^"
        );
        assert_eq!(
            refused("[server]\nmax_messages = 2026-01-01\n"),
            "t.toml:2:16: expected a whole number, found a date or time\n    \
             2 | max_messages = 2026-01-01\n      |                ^^^^^^^^^^"
        );
        assert_eq!(
            refused("server = true\n"),
            "t.toml:1:10: expected a table, found true or false\n    1 | server = true\n      |          ^^^^"
        );
        assert_eq!(
            refused("[[models]]\n"),
            "t.toml:1:1: expected a table, found a list\n    1 | [[models]]\n      | ^^^^^^^^^^"
        );
    }

    #[test]
    fn a_key_in_place_of_a_provider_table_is_not_shown() {
        assert_eq!(
            refused("[providers.p]\nopenai = \"sk-live-123\"\n"),
            "t.toml:2:10: expected a table, found text\n    2 | openai = *************\n      |          ^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_list_in_place_of_a_table_is_refused_and_not_shown() {
        assert_eq!(
            refused("[server]\nlisten = \"127.0.0.1:80\"\n[providers.p]\nopenai = [\"sk-live-123\"]\n"),
            "t.toml:4:10: expected a table, found a list\n    4 | openai = ***************\n      |          ^^^^^^^^^^^^^^^"
        );
        assert_eq!(
            refused("log = []\n"),
            "t.toml:1:7: expected a table, found a list\n    1 | log = **\n      |       ^^"
        );
    }

    #[test]
    fn a_number_too_large_for_any_use_is_refused() {
        for digits in ["9999999999999999999", "99999999999999999999999999999999999999999999"] {
            let marks = "^".repeat(digits.len());
            assert_eq!(
                refused(&format!("[server]\nmax_messages = {digits}\n")),
                format!(
                    "t.toml:2:16: the number is too large\n    2 | max_messages = {digits}\n      |                {marks}"
                )
            );
        }
    }

    #[test]
    fn such_a_number_is_refused_in_a_table_within_a_table_too_and_below_zero() {
        for (digits, said) in [
            ("9223372036854775808", "too large"),
            ("99999999999999999999999999999999999999999999", "too large"),
            ("-9223372036854775809", "too small"),
            ("-99999999999999999999999999999999999999999999", "too small"),
        ] {
            for before in ["[server]\nmax_messages", "[models.a.cache]\nsemantic.max_entries"] {
                let shown = refused(&format!("{before} = {digits}\n"));
                let message = shown.lines().next().unwrap();
                assert!(message.ends_with(&format!(": the number is {said}")), "{before}: {shown}");
            }
        }
    }

    #[test]
    fn a_missing_key_is_refused_where_its_table_begins() {
        assert_eq!(
            refused("[models.a.routes.r]\nmodel = \"x\"\n"),
            "t.toml:1:1: missing key `provider`\n    1 | [models.a.routes.r]\n      | ^^^^^^^^^^^^^^^^^^^"
        );
        assert_eq!(
            refused("[models.a]\ntimeout = { grace = \"1s\" }\n"),
            "t.toml:2:11: missing key `limit`\n    2 | timeout = { grace = \"1s\" }\n      |           ^^^^^^^^^^^^^^^^"
        );
    }

    #[test]
    fn a_duplicate_key_is_refused_at_its_second_place() {
        assert_eq!(
            refused("[server]\nmax_body = 1\nmax_body = 2\n"),
            "t.toml:3:1: duplicate key `max_body`: remove one of the two\n    3 | max_body = 2\n      | ^^^^^^^^"
        );
        assert_eq!(
            refused("[server]\n[server]\n"),
            "t.toml:2:2: duplicate key `server`: remove one of the two\n    2 | [server]\n      |  ^^^^^^"
        );
    }

    #[test]
    fn text_that_is_not_toml_is_refused() {
        assert_eq!(
            refused("[server\n"),
            "t.toml:1:8: not valid toml: unclosed table, expected `]`\n    1 | [server\n      |        ^"
        );
        assert_eq!(
            refused("[server]\nlisten = localhost\n"),
            "t.toml:2:10: not valid toml: string values must be quoted, expected literal string\n    \
             2 | listen = localhost\n      |          ^^^^^^^^^"
        );
        assert_eq!(
            refused("[server]\nlisten\n"),
            "t.toml:2:7: not valid toml: key with no value, expected `=`\n    2 | listen\n      |       ^"
        );
    }

    #[test]
    fn a_secret_without_quotes_is_not_shown() {
        assert_eq!(
            refused("[providers.p.openai]\napi_key = sk-live-123\n"),
            "t.toml:2:11: not valid toml: string values must be quoted, expected literal string\n    \
             2 | api_key = ***********\n      |           ^^^^^^^^^^^"
        );
    }
}
